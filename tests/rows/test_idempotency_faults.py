"""Idempotent writes under faults: concurrent retries, lost answers, failed writes, expired keys."""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from chalicelib import services
from chalicelib.handlers import entry_points
from chalicelib.rows import service as row_service
from chalicelib.tables import HEROES
from local.servers import MariaDB
from tests.conftest import Configure
from tests.support.client import InProcess, Row, hero
from tests.support.database_users import PASSWORD, user_who_sees_no_triggers
from tests.support.relay import CUT_AFTER, CUT_BEFORE, PASS, relaying
from tests.support.retries import (
    BEFORE,
    INSERT,
    REPLACE,
    REQUESTS,
    claimed,
    each_request,
    with_header,
)
from tests.support.topologies import wait_until
from tests.support.witness import Witness

THREADS = 8


@pytest.fixture
def service(service: InProcess) -> InProcess:
    """With heroes 1 and 2 in the table and in the cache."""
    service.write(BEFORE)
    return service


def at_once(payloads: list[Row]) -> list[dict[str, Any]]:
    """The answers of the `storage` Lambda function to calls that start together."""
    together = threading.Barrier(len(payloads))

    def call(payload: Row) -> dict[str, Any]:
        together.wait()
        return entry_points.invoke(payload)

    with ThreadPoolExecutor(len(payloads)) as threads:
        return list(threads.map(call, payloads))


@each_request
def test_concurrent_retries_write_once(
    service: InProcess, witness: Witness, request_name: str
) -> None:
    for times in range(1, 6):
        payload = {**REQUESTS[request_name], "IDEMPOTENCY_KEY": f"order-{times}"}

        answers = at_once([payload] * THREADS)

        assert [answer["statusCode"] for answer in answers] == [200] * THREADS
        assert all(answer == answers[0] for answer in answers)
        assert answers[0].get("deleted") in (None, [2, 1])
        service.write(BEFORE)
        assert witness.count() == 2 + (2 * times if request_name == "insert" else 0)


def test_of_concurrent_requests_with_one_key_one_wins(service: InProcess, witness: Witness) -> None:
    payloads: list[Row] = [
        {"REQUEST": "write", "SQLS": [hero(name=f"Ada {i}")], "IDEMPOTENCY_KEY": "order-1"}
        for i in range(THREADS)
    ]

    answers = at_once(payloads)

    statuses = sorted(answer["statusCode"] for answer in answers)
    assert statuses == [200] + [409] * (THREADS - 1)
    [winner] = [i for i, answer in enumerate(answers) if answer["statusCode"] == 200]
    [name] = witness.query("SELECT name FROM heroes WHERE id > 2")
    assert name == (f"Ada {winner}",)


@each_request
@pytest.mark.parametrize("cut", [CUT_BEFORE, CUT_AFTER], ids=["before", "after"])
def test_a_retry_after_a_lost_answer_gets_it(
    service: InProcess,
    witness: Witness,
    mariadb: MariaDB,
    configure: Configure,
    request_name: str,
    cut: int,
) -> None:
    """The connection breaks before the COMMIT arrives, or before its answer does: it happened or
    not. The retry makes it once."""
    with relaying(mariadb.port) as relay:
        configure(DB_PORT=str(relay.port))
        service.read([1], use_cache=False)
        relay.judge = lambda piece: cut if b";COMMIT" in piece else PASS
        lost = with_header(service, REQUESTS[request_name], "order-1")
        assert (lost.status, lost.error) == (503, "OutcomeUnknown")
        happened = ["order-1"] if cut == CUT_AFTER else []
        wait_until(lambda: claimed(witness) == happened)
        relay.judge = lambda piece: PASS

        answer = with_header(service, REQUESTS[request_name], "order-1")
        assert answer.status == 200
        after = witness.database_state()
        assert with_header(service, REQUESTS[request_name], "order-1").content == answer.content

        assert witness.database_state() == after
        assert witness.count() == {"insert": 4, "replace": 2, "delete": 0}[request_name]
        for use_cache in (True, True, False):
            names = [row["name"] for row in service.read([1], use_cache).rows]
            assert names == {"insert": ["Ada"], "replace": ["replaced"], "delete": []}[request_name]


@pytest.mark.parametrize(
    ("meanwhile", "undo"),
    [
        ("RENAME TABLE idempotency TO elsewhere", "RENAME TABLE elsewhere TO idempotency"),
        ("REVOKE INSERT ON herocache.* FROM blind@'127.0.0.1'", ""),
    ],
    ids=["a table is missing", "a right is missing"],
)
def test_no_error_of_the_second_try_hides_that_the_first_one_may_have_happened(
    service: InProcess,
    witness: Witness,
    mariadb: MariaDB,
    configure: Configure,
    meanwhile: str,
    undo: str,
) -> None:
    """Such an error says of a first try that nothing was written. Here it was."""
    cut: list[bytes] = []

    def judge(piece: bytes) -> int:
        if not cut and b";COMMIT" in piece:
            cut.append(piece)
            return CUT_AFTER
        if len(cut) == 1:  # the service's own second try begins
            wait_until(lambda: claimed(witness) == ["order-1"])
            cut.append(piece)
            witness.query(meanwhile)
        return PASS

    with user_who_sees_no_triggers(mariadb, configure), relaying(mariadb.port) as relay:
        configure(DB_USER="blind", DB_PASS=PASSWORD, DB_PORT=str(relay.port))
        service.read([1], use_cache=False)
        relay.judge = judge
        try:
            answer = with_header(service, INSERT, "order-1")
        finally:
            if undo:
                witness.query(undo)

    assert len(cut) == 2
    assert (answer.status, answer.error) == (503, "OutcomeUnknown")
    assert witness.count() == 4


@each_request
def test_what_a_retry_acknowledges_every_reader_sees(
    service: InProcess,
    witness: Witness,
    mariadb: MariaDB,
    configure: Configure,
    request_name: str,
) -> None:
    """Redis evicts the fences while the first try commits; a reader, who finds none, stores the
    rows as they were; and the answer to the COMMIT is lost."""
    configure()
    reader = services.container().rows
    asked = [("id", [1, 2]), ("xp", [10, 11])]

    def read(use_cache: bool = True) -> list[bytes]:
        return [
            reader.read(HEROES, HEROES.readable[by], values, use_cache).json for by, values in asked
        ]

    def lose_all(piece: bytes) -> int:
        if before:
            return CUT_BEFORE  # the service's own second try
        if b";COMMIT" not in piece:
            return PASS
        wait_until(lambda: witness.fences() > 0)
        witness.forget_cached()
        before.extend(read())
        return CUT_AFTER

    before: list[bytes] = []
    read()
    with relaying(mariadb.port) as relay:
        configure(DB_PORT=str(relay.port))
        service.read([1], use_cache=False)
        relay.judge = lose_all
        assert with_header(service, REQUESTS[request_name], "order-1").error == "OutcomeUnknown"
        wait_until(lambda: claimed(witness) == ["order-1"])
        relay.judge = lambda piece: PASS
        assert read() == before, "nobody has acknowledged anything"

        assert with_header(service, REQUESTS[request_name], "order-1").status == 200

    assert read() == read(use_cache=False) != before


@each_request
def test_a_write_that_fails_leaves_no_claim(
    service: InProcess, witness: Witness, request_name: str
) -> None:
    """Another transaction holds a row, or the whole table."""
    with_header(service, REPLACE, "order-0")
    before = witness.database_state()
    witness.query("LOCK TABLES heroes WRITE" if request_name == "insert" else "START TRANSACTION")
    if request_name != "insert":
        witness.query("SELECT * FROM heroes FOR UPDATE")
    failed = with_header(service, REQUESTS[request_name], "order-1")
    witness.query("UNLOCK TABLES" if request_name == "insert" else "ROLLBACK")
    assert (failed.status, failed.error) == (503, "DatabaseUnavailable")

    assert claimed(witness) == ["order-0"]
    assert witness.database_state() == before
    assert with_header(service, REQUESTS[request_name], "order-1").status == 200
    assert claimed(witness) == ["order-0", "order-1"]


@each_request
def test_a_key_works_without_redis(
    service: InProcess, witness: Witness, configure: Configure, request_name: str
) -> None:
    """The write is tried with the cache first, and then done without."""
    configure(REDIS_URL="redis://127.0.0.1:1")

    first = with_header(service, REQUESTS[request_name], "order-1")

    assert first.status == 200
    assert with_header(service, REQUESTS[request_name], "order-1").content == first.content
    assert witness.count() == {"insert": 4, "replace": 2, "delete": 0}[request_name]


def grow_old(witness: Witness, key: str, hours: int) -> None:
    sql = "UPDATE idempotency SET claimed_at = claimed_at - INTERVAL %s HOUR"
    witness.query(f"{sql} WHERE idempotency_key = %s", [hours, key])


def test_keys_are_forgotten_after_a_day(
    service: InProcess, witness: Witness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_service, "PRUNE_SHARE", 0)
    first = {key: with_header(service, INSERT, key).ids for key in ("old", "young")}
    grow_old(witness, "old", 25)
    grow_old(witness, "young", 23)
    monkeypatch.setattr(row_service, "PRUNE_SHARE", 1)
    with_header(service, REPLACE, "any")

    assert claimed(witness) == ["any", "young"]
    assert with_header(service, INSERT, "young").ids == first["young"]
    assert with_header(service, INSERT, "old").ids > first["old"]


def test_a_write_is_acknowledged_although_old_keys_cannot_be_forgotten(
    service: InProcess, witness: Witness, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_header(service, REPLACE, "old")
    grow_old(witness, "old", 25)
    witness.query("START TRANSACTION")
    witness.query("SELECT * FROM idempotency WHERE idempotency_key = 'old' FOR UPDATE")
    monkeypatch.setattr(row_service, "PRUNE_SHARE", 1)
    answer = with_header(service, INSERT, "new")
    witness.query("ROLLBACK")

    assert len(answer.ids) == 2
    assert claimed(witness) == ["new", "old"]
