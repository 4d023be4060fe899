"""A large file over the Data API: many INSERT statements in one transaction, all or nothing."""

from collections.abc import Iterator
from typing import Any

import pytest

from chalicelib.db.data_api import endpoint
from chalicelib.errors import ConfigurationError, DatabaseUnavailable, OutcomeUnknown
from chalicelib.handlers import entry_points
from local.servers import DataApi
from tests.conftest import Configure
from tests.support.bucket import UploadBucket, lines
from tests.support.client import InProcess, hero
from tests.support.data_api import UNUSED, spent
from tests.support.witness import Witness

KEY = "incoming/heroes/large.csv"
ROWS = 6_000
# A statement holds 1,000 of them, and there is another statement behind each.
STATEMENTS = 2 * 6
# Of the ledger, the table and its highest key.
STATEMENTS_BEFORE = 8
ALWAYS = 1_000
LOADED = "SELECT COUNT(*), MIN(id), MAX(id) FROM heroes WHERE name = CONCAT('Ada ', xp)"
LEDGER = "SELECT status, row_count, refused_count FROM ingest_log WHERE bucket = %s"

FAULTS: dict[str, dict[str, Any]] = {
    "error": {"kind": "error", "code": "InternalServerErrorException"},
    "timeout": {"kind": "error", "code": "StatementTimeoutException"},
    "throttled": {"kind": "error", "code": "ThrottlingException"},
    "not allowed": {"kind": "error", "code": "AccessDeniedException"},
    "cut before": {"kind": "cut"},
    "cut after": {"kind": "cut after"},
    "transaction lost": {"kind": "lose transaction"},
}


@pytest.fixture
def service(
    witness: Witness, configure: Configure, data_api: DataApi, monkeypatch: pytest.MonkeyPatch
) -> Iterator[InProcess]:
    """With a row that the file replaces, and one that it does not have, both cached."""
    monkeypatch.setattr(endpoint, "THROTTLED_SECONDS", 0.3)
    configure(**data_api.environment(), **UNUSED)
    service = InProcess()
    service.write([{"id": 5, **hero()}, {"id": ROWS + 1, **hero()}])
    yield service
    data_api.control(reset=True)


def assert_loaded_once(service: InProcess, witness: Witness, bucket: UploadBucket) -> None:
    assert witness.query(LOADED) == [(ROWS, 1, ROWS)]
    assert witness.count() == ROWS + 1
    assert witness.query(LEDGER, [bucket.name]) == [("loaded", ROWS, 0)]
    for use_cache in (True, False):
        names = [row["name"] for row in service.read([5, ROWS + 1], use_cache).rows]
        assert names == ["Ada 5", "Ada"]


def assert_nothing_happened(service: InProcess, witness: Witness, bucket: UploadBucket) -> None:
    assert witness.count() == 2
    assert witness.query(LEDGER, [bucket.name]) == []
    for use_cache in (True, False):
        names = [row["name"] for row in service.read([5, ROWS + 1], use_cache).rows]
        assert names == ["Ada", "Ada"]


def test_a_file_of_many_statements_is_loaded_once(
    service: InProcess, data_api: DataApi, bucket: UploadBucket, witness: Witness
) -> None:
    event = bucket.put(KEY, lines(1, ROWS))
    data_api.control(reset=True)

    for _ in range(2):
        [summary] = entry_points.ingest(event)
        assert (summary["status"], summary["rows"]) == ("loaded", ROWS)
        assert_loaded_once(service, witness, bucket)
        calls = spent(data_api)
        assert calls["BeginTransaction"] == calls["CommitTransaction"]
    least = STATEMENTS_BEFORE + STATEMENTS
    assert least < calls["ExecuteStatement"] < 3 * least


@pytest.mark.parametrize("times", [1, ALWAYS], ids=["once", "from then on"])
@pytest.mark.parametrize(
    "kind",
    [pytest.param(kind, marks=() if kind == "cut after" else pytest.mark.proof) for kind in FAULTS],
)
def test_a_fault_in_the_middle_of_a_file_leaves_all_of_it_or_nothing(
    service: InProcess,
    data_api: DataApi,
    bucket: UploadBucket,
    witness: Witness,
    kind: str,
    times: int,
) -> None:
    event = bucket.put(KEY, lines(1, ROWS))
    fault = {
        **FAULTS[kind],
        "operation": "ExecuteStatement",
        "skip": STATEMENTS_BEFORE + STATEMENTS // 2,
    }
    data_api.control(fault={**fault, "times": times})

    is_loaded: bool | None = True
    try:
        entry_points.ingest(event)
    except (DatabaseUnavailable, ConfigurationError) as error:
        is_loaded = None if isinstance(error, OutcomeUnknown) else False

    data_api.control(advance_seconds=181)  # what nobody could roll back ends by itself
    data_api.control(reset=True)
    assert is_loaded == (times == 1 and kind not in ("timeout", "not allowed"))
    (assert_loaded_once if is_loaded else assert_nothing_happened)(service, witness, bucket)
    for _ in range(2):
        [summary] = entry_points.ingest(event)
        assert (summary["status"], summary["rows"]) == ("loaded", ROWS)
        assert_loaded_once(service, witness, bucket)
