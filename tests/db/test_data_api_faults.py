"""Changes over the Data API, whose calls fail one after the other: what is answered is true.

Each change is tried again and again, each time with a fault at the next of its calls.
"""

import itertools
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from app import employees
from chalicelib.db import batches
from chalicelib.db.data_api import endpoint
from chalicelib.errors import ConfigurationError, DatabaseUnavailable, OutcomeUnknown
from chalicelib.handlers import entry_points
from chalicelib.ingest import service as ingest_service
from local.servers import DataApi
from tests.conftest import Configure
from tests.support.bucket import UploadBucket, lines
from tests.support.client import InProcess, Row, hero
from tests.support.data_api import UNUSED
from tests.support.witness import Witness

BEFORE: list[Row] = [{"id": 1, **hero()}, {"id": 2, **hero(xp=11)}]
AFTERWARDS = [hero(name="new", xp=xp) for xp in (10, 12)]

WRITES: dict[str, Row] = {
    "insert": {"REQUEST": "write", "SQLS": AFTERWARDS},
    "replace": {"REQUEST": "write", "SQLS": [{"id": 1, **hero(name="new", xp=12)}]},
    "mixed": {
        "REQUEST": "write",
        "SQLS": [hero(name="new"), {"id": 2, **hero(name="new")}, {"id": 7, **hero(name="new")}],
    },
    "delete": {"REQUEST": "delete", "SQLS": [1, 77]},
}
KEYED = {f"{name}, once": {**WRITES[name], "IDEMPOTENCY_KEY": "order-1"} for name in WRITES}
REQUESTS = {**WRITES, **KEYED, "uncached": {**WRITES["insert"], "USE_CACHE": "False"}}

ERROR = {"kind": "error", "code": "InternalServerErrorException", "message": "as asked"}
KINDS: dict[str, dict[str, Any]] = {
    "error": ERROR,
    "timeout": {"kind": "error", "code": "StatementTimeoutException"},
    "timeout, but done": {"kind": "error after", "code": "StatementTimeoutException"},
    # Of the connection that the Data API itself has.
    "gone, but done": {
        "kind": "error after",
        "code": "DatabaseErrorException",
        "message": "Database error code: 2006. Message: MySQL server has gone away",
    },
    "throttled": {"kind": "error", "code": "ThrottlingException"},
    # The sixth try is after more than THROTTLED_SECONDS.
    "throttled for long": {"kind": "error", "code": "ThrottlingException", "times": 6},
    "not allowed": {"kind": "error", "code": "AccessDeniedException", "message": "as asked"},
    "cut before": {"kind": "cut"},
    "cut after": {"kind": "cut after"},
    "transaction lost": {"kind": "lose transaction"},
}
# The change is done, or it certainly is not.
HEALED = ("throttled", "transaction lost")
each_kind = pytest.mark.parametrize("kind", KINDS)
each_request_and_kind = pytest.mark.parametrize(
    ("name", "kind"),
    [
        pytest.param(name, kind, marks=() if is_quick else pytest.mark.proof)
        for name in REQUESTS
        for kind in KINDS
        for is_quick in [name == "insert" and kind in ("cut before", "cut after")]
    ],
)


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the tries of a call time passes, and nobody waits."""
    found: list[float] = []
    clock = SimpleNamespace(monotonic=lambda: sum(found), sleep=found.append)
    monkeypatch.setattr(endpoint, "time", clock)


@pytest.fixture
def service(witness: Witness, configure: Configure, data_api: DataApi) -> Iterator[InProcess]:
    """Warm."""
    configure(**data_api.environment(), **UNUSED)
    service = InProcess()
    service.write(BEFORE)
    service.read([1])
    yield service
    data_api.control(reset=True)  # an open transaction would keep the next test from its tables


class Trial:
    """The tables as they were `before`, for each of a number of faults."""

    def __init__(self, service: InProcess, witness: Witness, data_api: DataApi) -> None:
        self.service = service
        self._witness = witness
        self._data_api = data_api
        self._has_happened = True

    def faults(self, fault: dict[str, Any]) -> Iterator[int]:
        """How many calls go well before the one with the `fault`. Ends behind the last call."""
        for skip in itertools.count():
            self._data_api.control(reset=True)
            self._witness.query("DELETE FROM idempotency")
            self.service.delete(self._ids())
            self.service.write(BEFORE)
            self.service.read([1, 2, 3])
            self.service.read([10, 11, 12], BY="xp")
            self._data_api.control(fault={**fault, "skip": skip})
            yield skip
            if not self._has_happened:
                break
        assert skip >= 3, "BEGIN, something, COMMIT"

    def end_faults(self) -> None:
        """Nothing is open. Where the answer to BEGIN was lost nobody knows its name: it holds no
        lock."""
        open_ones = self._witness.query(
            "SELECT trx_id FROM information_schema.innodb_trx WHERE trx_id <> 0"
        )
        assert open_ones == []
        self._has_happened = not self._data_api.control()["faults"]
        self._data_api.control(reset=True)

    def _ids(self) -> list[int]:
        return [id for (id,) in self._witness.query("SELECT id FROM heroes")]

    def heroes(self) -> list[tuple[Any, ...]]:
        return self._witness.query("SELECT name, xp FROM heroes ORDER BY id")

    def assert_reads_are_right(self) -> None:
        for by, values in (("id", [1, 2, 3, *self._ids()]), ("xp", [10, 11, 12])):
            cached = [self.service.read(values, BY=by).rows for _ in range(2)]
            assert cached == [self.service.read(values, False, BY=by).rows] * 2


@pytest.fixture
def trial(service: InProcess, witness: Witness, data_api: DataApi) -> Trial:
    return Trial(service, witness, data_api)


def shown(rows: list[Row]) -> list[tuple[Any, ...]]:
    return [(row["name"], row["xp"]) for row in rows]


DONE = {
    "insert": [("Ada", 10), ("Ada", 11), *shown(AFTERWARDS)],
    "uncached": [("Ada", 10), ("Ada", 11), *shown(AFTERWARDS)],
    "replace": [("new", 12), ("Ada", 11)],
    "mixed": [("Ada", 10), ("new", 10), ("new", 10), ("new", 10)],
    "delete": [("Ada", 11)],
}


@each_request_and_kind
def test_a_change_happens_or_not_and_what_is_answered_is_true(
    trial: Trial, name: str, kind: str
) -> None:
    done = DONE[name.partition(",")[0]]
    errors = set()
    for _ in trial.faults(KINDS[kind]):
        answer = trial.service.post(REQUESTS[name])

        found = trial.heroes()
        if answer.status == 200:
            assert found == done
        elif answer.error == "OutcomeUnknown":
            assert found in (shown(BEFORE), done)
        else:
            assert found == shown(BEFORE)
            assert answer.error in ("DatabaseUnavailable", "ConfigurationError")
        errors.add(answer.error if answer.status != 200 else "")
        trial.end_faults()
        trial.assert_reads_are_right()
        if "IDEMPOTENCY_KEY" in REQUESTS[name]:
            again = trial.service.post(REQUESTS[name])
            assert again.status == 200
            assert trial.heroes() == done
            assert again.content == answer.content or answer.status != 200
            trial.assert_reads_are_right()
    assert "" in errors
    assert ("OutcomeUnknown" in errors) == (kind not in HEALED and name not in KEYED)
    assert ("ConfigurationError" in errors) == (kind == "not allowed")


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        pytest.param(name, kind, marks=() if is_quick else pytest.mark.proof)
        for name in ("insert", "replace", "delete", "insert, once")
        for kind in KINDS
        for is_quick in [name == "insert" or not kind.startswith(("timeout", "throttled"))]
    ],
)
def test_of_a_commit_whose_answer_is_lost_nobody_knows(trial: Trial, name: str, kind: str) -> None:
    """But with an idempotency key the service finds out. A COMMIT that was certainly not done is
    done again, or told."""
    next(trial.faults({**KINDS[kind], "operation": "CommitTransaction"}))

    answer = trial.service.post(REQUESTS[name])

    trial.end_faults()
    if kind == "not allowed":
        assert (answer.status, answer.error) == (500, "ConfigurationError")
        assert trial.heroes() == shown(BEFORE)
    elif kind == "throttled for long":
        assert (answer.status, answer.error) == (503, "DatabaseUnavailable")
        assert trial.heroes() == shown(BEFORE)
    elif kind in HEALED or name in KEYED:
        assert answer.status == 200
        assert trial.heroes() == DONE[name.partition(",")[0]]
    else:
        assert (answer.status, answer.error) == (503, "OutcomeUnknown")


@each_kind
@pytest.mark.proof
def test_employees_are_added_together_whatever_fails(
    trial: Trial, witness: Witness, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """In more than one statement."""
    monkeypatch.setattr(batches, "_MAX_VALUES", 100)
    listed = [{"EmpId": f"E{i:03}", "EmpName": f"Ada {i}"} for i in range(120)]
    endings = set()
    for _ in trial.faults(KINDS[kind]):
        witness.query("DELETE FROM employees")
        possible = {0}
        try:
            assert len(employees({"Employees": listed}, None)) == 120
            possible = {120}
        except OutcomeUnknown:
            possible = {0, 120}
        except (DatabaseUnavailable, ConfigurationError) as error:
            if "120 added" in str(error):
                possible = {120}

        [(count,)] = witness.query("SELECT COUNT(*) FROM employees")
        assert count in possible
        endings.add(tuple(sorted(possible)))
        trial.end_faults()
    assert (120,) in endings
    assert ((0,) in endings) == (kind in ("not allowed", "throttled for long") or "timeout" in kind)


def test_a_lost_rollback_is_sent_again(service: InProcess, data_api: DataApi) -> None:
    """A replay waits for the row that the abandoned try of it holds."""
    first = service.post(KEYED["insert, once"])
    data_api.control(fault={"kind": "cut", "operation": "RollbackTransaction"})

    assert service.post(KEYED["insert, once"]).content == first.content

    assert data_api.control()["faults"] == 0


@pytest.fixture
def small(bucket: UploadBucket) -> Callable[[str], list[Any]]:
    """Delivers a file of this name, with heroes 1 and 3."""
    events: dict[str, Any] = {}

    def deliver(name: str) -> list[Any]:
        if name not in events:
            rows = lines(1, 1, hero="new") + lines(3, 1, hero="new")
            events[name] = bucket.put(f"incoming/heroes/{name}.csv", rows)
        return entry_points.ingest(events[name])

    return deliver


@pytest.mark.proof
@each_kind
@pytest.mark.parametrize("size", ["small", "large"])
def test_a_file_is_loaded_once_whatever_fails(
    trial: Trial,
    small: Callable[[str], list[Any]],
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    size: str,
) -> None:
    if size == "large":
        monkeypatch.setattr(ingest_service, "MAX_SMALL_BYTES", 0)
    loaded = [("Ada 1", 1), ("Ada", 11), ("Ada 3", 3)]
    for number in trial.faults(KINDS[kind]):
        is_loaded = None
        try:
            [summary] = small(f"{kind}-{size}-{number}")
            is_loaded = summary["status"] == "loaded"
        except OutcomeUnknown:
            pass
        except (DatabaseUnavailable, ConfigurationError):
            is_loaded = False

        found = trial.heroes()
        assert found in ([loaded] if is_loaded else [shown(BEFORE), loaded])
        assert is_loaded is not False or found == shown(BEFORE)
        trial.end_faults()
        if is_loaded is not None:  # of what nobody was told a reader may know nothing for a moment
            trial.assert_reads_are_right()
        [summary] = small(f"{kind}-{size}-{number}")
        assert summary["status"] == "loaded"
        assert trial.heroes() == loaded
        trial.assert_reads_are_right()


@pytest.mark.parametrize("code", ["BadRequestException", "InvalidResourceStateException"])
@pytest.mark.parametrize("name", ["insert", "replace", "delete"])
def test_a_commit_that_is_done_is_never_told_as_a_failure(
    service: InProcess, data_api: DataApi, name: str, code: str
) -> None:
    """Whatever error stands in the place of its answer."""
    service.post({"REQUEST": "write", "SQLS": BEFORE})
    service.read([1, 2])
    error = {"kind": "error after", "code": code, "message": "Communications link failure"}
    data_api.control(fault={**error, "operation": "CommitTransaction", "times": 1})

    answer = service.post(WRITES[name])

    assert (answer.status, answer.error) == (503, "OutcomeUnknown")
    ids = [1, 2, 3, 4]
    assert service.read(ids).rows == service.read(ids, use_cache=False).rows
