"""The service over the Data API: what it answers where the Data API rejects a call, with many
requests at a time, and with other parameters of the cluster."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import botocore.session
import pytest

from chalicelib import services
from chalicelib.cache import generations
from chalicelib.cache.generations import REFRESH_TIMEOUT_SECONDS
from chalicelib.db.data_api import endpoint
from chalicelib.handlers import entry_points
from chalicelib.tables import HEROES
from local.servers import DataApi, MariaDB
from tests.conftest import Configure, running
from tests.support.client import InProcess, as_stored, hero
from tests.support.data_api import UNUSED
from tests.support.leaks import assert_tells_nothing_internal
from tests.support.witness import Witness

THREADS = 8
ALWAYS = 1_000


@pytest.fixture
def service(witness: Witness, configure: Configure, data_api: DataApi) -> Iterator[InProcess]:
    configure(**data_api.environment(), **UNUSED)
    yield InProcess()
    data_api.control(reset=True)  # an open transaction would keep the next test from its tables


# --- what the Data API refuses --------------------------------------------------------------------

ACCESS_DENIED = "Access denied for user 'u'@'h'; Error code: 1045; SQLState: 28000"
UNAVAILABLE, WRONG = (503, "DatabaseUnavailable"), (500, "ConfigurationError")
REFUSALS: dict[str, tuple[dict[str, Any], tuple[int, str], str]] = {
    "not allowed": (
        {"code": "AccessDeniedException"},
        WRONG,
        "its policy must allow rds-data:ExecuteStatement, BatchExecuteStatement,",
    ),
    "forbidden": ({"code": "ForbiddenException"}, WRONG, "secretsmanager:GetSecretValue"),
    "off": (
        {"code": "HttpEndpointNotEnabledException"},
        WRONG,
        "run aws rds enable-http-endpoint",
    ),
    "no secret": ({"code": "SecretsErrorException"}, WRONG, "DB_SECRET_ARN: the secret is not"),
    "another secret": (
        {"code": "InvalidSecretException"},
        WRONG,
        "not one with username and password",
    ),
    "wrong password": (
        {"code": "DatabaseErrorException", "message": ACCESS_DENIED},
        WRONG,
        "DB_SECRET_ARN, DB_NAME: the database rejects the user or the password",
    ),
    "wrong call": (
        {"code": "BadRequestException", "message": "Invalid cluster arn"},
        WRONG,
        "DB_CLUSTER_ARN, DB_SECRET_ARN, DB_NAME): Invalid cluster arn",
    ),
    "expired": ({"code": "ExpiredTokenException", "status": 403}, WRONG, "or they have expired"),
    "unknown": (
        {"code": "UnrecognizedClientException", "status": 403},
        WRONG,
        "does not know the caller's credentials",
    ),
    "stopped": (
        {"code": "InvalidResourceStateException", "status": 400},
        UNAVAILABLE,
        "the cluster is stopped, or has no instance",
    ),
    "no instance": ({"code": "DatabaseNotFoundException"}, UNAVAILABLE, "has no instance"),
    "unavailable": (
        {"code": "DatabaseUnavailableException"},
        UNAVAILABLE,
        "cannot be reached (DB_CLUSTER_ARN)",
    ),
    "slow": ({"code": "StatementTimeoutException"}, UNAVAILABLE, "no answer in time"),
    "broken": (
        {"code": "InternalServerErrorException"},
        UNAVAILABLE,
        "cannot be reached (DB_CLUSTER_ARN)",
    ),
    "away": ({"code": "ServiceUnavailableError"}, UNAVAILABLE, "(DB_CLUSTER_ARN)"),
    "asked too often": ({"code": "ThrottlingException"}, UNAVAILABLE, "send fewer at a time"),
    "asleep": (
        {"code": "DatabaseResumingException"},
        UNAVAILABLE,
        "the database is waking up: try again in a moment",
    ),
    "transaction lost": (
        {"code": "TransactionNotFoundException"},
        UNAVAILABLE,
        "cannot be reached (DB_CLUSTER_ARN)",
    ),
    "not found": ({"code": "NotFoundException"}, UNAVAILABLE, "cannot be reached (DB_CLUSTER_ARN)"),
    "result not taken": (
        {"code": "UnsupportedResultException"},
        (413, "TooLarge"),
        "too long for the database's answer",
    ),
    "error without a number": (
        {"code": "DatabaseErrorException", "message": "Communications link failure"},
        UNAVAILABLE,
        "cannot be reached (DB_CLUSTER_ARN)",
    ),
    "cut off": ({"kind": "cut"}, UNAVAILABLE, "cannot be reached (DB_CLUSTER_ARN)"),
}


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Those between the tries of a call, which are not waited for."""
    found: list[float] = []
    clock = SimpleNamespace(monotonic=lambda: time.monotonic() + sum(found), sleep=found.append)
    monkeypatch.setattr(endpoint, "time", clock)
    return found


@pytest.mark.parametrize("is_warm", [True, False], ids=["warm", "cold"])
@pytest.mark.parametrize("name", REFUSALS)
@pytest.mark.usefixtures("pauses")
def test_a_refusal_says_what_to_do(
    service: InProcess, data_api: DataApi, name: str, is_warm: bool
) -> None:
    if is_warm:
        service.read([1], use_cache=False)
    fault, expected, words = REFUSALS[name]
    data_api.control(fault={"kind": "error", **fault, "times": ALWAYS})

    read = service.read([1], use_cache=False)
    write = service.write([hero()])

    for answer in (read, write):
        assert (answer.status, answer.error) == expected
        assert words in answer.message
        asleep = "DatabaseResumingException" in fault.values()
        retry_after = {503: "5" if asleep else "2"}.get(answer.status)
        assert answer.headers.get("retry-after") == retry_after
        assert_tells_nothing_internal(answer)


def test_every_error_that_aws_lists_is_one_of_these() -> None:
    """A newer botocore that lists another one fails here."""
    model = botocore.session.get_session().get_service_model("rds-data")
    used = ("BeginTransaction", "ExecuteStatement", "CommitTransaction", "RollbackTransaction")
    listed = {each.name for name in used for each in model.operation_model(name).error_shapes}

    assert listed
    assert listed - {fault.get("code") for fault, _, _ in REFUSALS.values()} == set()


@pytest.mark.parametrize("code", ["DatabaseResumingException", "ThrottlingException"])
@pytest.mark.parametrize("is_warm", [True, False], ids=["warm", "cold"])
def test_what_was_not_done_is_tried_again_after_longer_and_longer_pauses(
    service: InProcess,
    data_api: DataApi,
    witness: Witness,
    pauses: list[float],
    code: str,
    is_warm: bool,
) -> None:
    if is_warm:
        service.read([1], use_cache=False)
    data_api.control(fault={"kind": "error", "code": code, "times": 3})

    assert service.read([1], use_cache=False).missing == [1]
    assert pauses == [0.1, 0.2, 0.4]

    for operation in ("BeginTransaction", "ExecuteStatement"):
        data_api.control(fault={"kind": "error", "code": code, "times": 2, "operation": operation})
        answer = service.write([hero()])
        assert answer.status == 200, (operation, answer)
    assert witness.count() == 2


def test_a_sleeper_is_waited_for_as_long_as_it_may_take(
    service: InProcess, data_api: DataApi, pauses: list[float]
) -> None:
    """Aurora needs 15 s; API Gateway hangs up after 29 s."""
    service.read([1], use_cache=False)
    data_api.control(fault={"kind": "error", "code": "DatabaseResumingException", "times": ALWAYS})

    assert "waking up" in service.read([1], use_cache=False).message

    assert 15 < sum(pauses) < 25
    assert max(pauses) == endpoint.LONGEST_PAUSE_SECONDS


def test_the_seconds_of_a_write_count_from_when_the_sleeper_is_awake(
    service: InProcess, data_api: DataApi, pauses: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A COMMIT that comes later than these is rejected: readers may have settled its fences."""
    awake_at: list[float] = []
    begin = endpoint.Endpoint.begin

    def begun(self: endpoint.Endpoint, seconds: float) -> str:
        transaction = begin(self, seconds)
        awake_at.append(time.monotonic())
        return transaction

    monkeypatch.setattr(endpoint.Endpoint, "begin", begun)
    service.read([1], use_cache=False)
    fault = {"kind": "error", "code": "DatabaseResumingException", "times": 3}
    data_api.control(fault={**fault, "operation": "BeginTransaction"})

    held = services.container().database.transact(lambda transaction: transaction.end(HEROES))

    assert len(pauses) == 3
    assert held.asked_at >= awake_at[-1]


def test_a_cached_read_does_not_wait_for_a_sleeper(
    service: InProcess,
    data_api: DataApi,
    pauses: list[float],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(generations, "REFRESH_TIMEOUT_SECONDS", REFRESH_TIMEOUT_SECONDS)
    monkeypatch.setattr(generations, "MEMORY_SECONDS", 0)
    [id] = service.write([hero()]).ids
    data_api.control(fault={"kind": "error", "code": "DatabaseResumingException", "times": ALWAYS})

    assert service.read([id]).rows == [as_stored(id, hero())]
    assert 0 < sum(pauses) < 1


@pytest.mark.proof
def test_silence_is_told(
    service: InProcess, data_api: DataApi, witness: Witness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoint, "CALL_TIMEOUT_SECONDS", 0.0)
    service.write([hero()])
    data_api.control(fault={"kind": "hang", "operation": "ExecuteStatement"})
    read = service.read([1], use_cache=False)
    assert (read.status, read.error) == UNAVAILABLE
    assert "no answer in time" in read.message

    data_api.control(fault={"kind": "hang", "operation": "CommitTransaction"})
    write = service.write([hero()])
    assert (write.status, write.error) == (503, "OutcomeUnknown")
    assert witness.count() == 1
    assert data_api.control()["transactions"] == 0, "rolled back: nobody waits for its locks"


def test_who_has_no_credentials_is_told(
    service: InProcess, data_api: DataApi, configure: Configure
) -> None:
    without = {**data_api.environment(), "AWS_ACCESS_KEY_ID": None, "AWS_SECRET_ACCESS_KEY": None}
    configure(**without, **UNUSED, AWS_EC2_METADATA_DISABLED="true")

    answer = service.read([1], use_cache=False)

    assert (answer.status, answer.error) == WRONG
    assert "the RDS Data API cannot be called: Unable to locate credentials" in answer.message


# --- many at a time, and other parameters of the cluster ------------------------------------------


@pytest.mark.proof
def test_threads_do_not_get_into_each_others_way(service: InProcess, witness: Witness) -> None:
    """Each replaces the same rows, and adds and deletes rows of its own."""
    together = threading.Barrier(THREADS)

    def work(number: int) -> None:
        together.wait()
        for turn in range(3):
            shared = [{"id": id, **hero(name=f"{number} {turn}")} for id in (1, 2, 3)]
            own = [hero(name=f"own {number}", xp=100 + number), hero(xp=100 + number)]
            answers = [service.write(shared[:: 1 if turn % 2 else -1]), service.write(own)]
            kept, gone = answers[1].ids
            assert gone == kept + 1
            assert service.delete([gone]).deleted == [gone]
            assert service.read([kept]).rows == [as_stored(kept, own[0])]

    with ThreadPoolExecutor(THREADS) as threads:
        list(threads.map(work, range(THREADS)))

    shared = service.read([1, 2, 3]).rows
    assert len({row["name"] for row in shared}) == 1, "all of one write"
    assert shared == service.read([1, 2, 3], use_cache=False).rows
    assert witness.count() == 3 + 3 * THREADS


DEADLOCK = "Deadlock found when trying to get lock; Error code: 1213; SQLState: 40001"


@pytest.mark.parametrize("times", [1, 3, ALWAYS])
def test_a_deadlock_is_tried_again_a_few_times(
    service: InProcess, data_api: DataApi, witness: Witness, times: int
) -> None:
    service.write([{"id": 1, **hero()}])
    data_api.control(
        fault={
            "kind": "error",
            "code": "DatabaseErrorException",
            "message": DEADLOCK,
            "times": times,
            "operation": "ExecuteStatement",
        }
    )

    answer = service.write([{"id": 1, **hero(name="new")}])

    assert answer.status == (503 if times == ALWAYS else 200)
    assert witness.query("SELECT name FROM heroes") == [("Ada" if times == ALWAYS else "new",)]
    assert data_api.control()["transactions"] == 0


@pytest.fixture
def plain_cluster(
    tmp_path: Path, mariadb: MariaDB, witness: Witness, configure: Configure
) -> Iterator[DataApi]:
    """Its parameters are MySQL's defaults, or worse. The service has no cache."""
    parameters = "transaction_isolation='REPEATABLE-READ', sql_mode='', innodb_lock_wait_timeout=50"
    database = {**mariadb.environment(), "DATA_API_PARAMETERS": parameters}
    with running(DataApi(tmp_path, lambda: database)) as server:
        configure(**server.environment(), **UNUSED, REDIS_URL=None)
        yield server


def test_with_a_cache_the_isolation_must_be_set(
    plain_cluster: DataApi, configure: Configure
) -> None:
    configure(**plain_cluster.environment(), **UNUSED)
    answer = InProcess().read([1], use_cache=False)
    assert (answer.status, answer.error) == WRONG
    assert (
        "must set transaction_isolation to READ-COMMITTED, and it is REPEATABLE" in answer.message
    )


@pytest.mark.parametrize("limit", [2, 50])
def test_no_parameter_of_the_cluster_may_cut_what_is_read(
    tmp_path: Path, mariadb: MariaDB, configure: Configure, limit: int
) -> None:
    parameters = f"transaction_isolation='READ-COMMITTED', sql_select_limit={limit}"
    database = {**mariadb.environment(), "DATA_API_PARAMETERS": parameters}
    with running(DataApi(tmp_path, lambda: database)) as server:
        configure(**server.environment(), **UNUSED)
        answer = InProcess().read([1], use_cache=False)
    assert (answer.status, answer.error) == WRONG
    assert "must not set sql_select_limit" in answer.message


@pytest.mark.proof
def test_without_a_cache_the_parameters_may_be_any(
    plain_cluster: DataApi, witness: Witness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A value that does not fit is rejected, and a lock is waited for as long as elsewhere."""
    service = InProcess()
    ids = service.write([{"id": 1, **hero()}, hero()]).ids
    assert service.read(ids).rows == [as_stored(id, hero()) for id in ids]
    witness.query("ALTER TABLE heroes MODIFY name VARCHAR(5) NOT NULL")
    try:
        rejected = service.write([hero(name="longer")])
    finally:
        witness.query("ALTER TABLE heroes MODIFY name VARCHAR(255) NOT NULL")
    assert (rejected.status, rejected.error) == (400, "BadRequest")
    assert witness.count() == 2

    witness.query("BEGIN")
    witness.query("SELECT * FROM heroes WHERE id = 1 FOR UPDATE")
    try:
        held = service.write([{"id": 1, **hero(name="new")}])
    finally:
        witness.query("ROLLBACK")
    assert (held.status, held.error) == UNAVAILABLE
    assert "another transaction holds the rows" in held.message
    assert service.write([{"id": 1, **hero(name="new")}]).ids == [1]


@pytest.mark.proof
def test_without_a_cache_threads_get_along_on_any_cluster(plain_cluster: DataApi) -> None:
    def work(number: int) -> Any:
        rows = [{"id": 1 + (number + i) % 4, **hero(name=f"{number}")} for i in range(3)]
        return entry_points.invoke({"REQUEST": "write", "SQLS": [*rows, hero(xp=number)]})

    with ThreadPoolExecutor(THREADS) as threads:
        answers = list(threads.map(work, range(2 * THREADS)))

    assert [answer["statusCode"] for answer in answers] == [200] * 2 * THREADS
    assert len({answer["ids"][-1] for answer in answers}) == 2 * THREADS
