"""The faults that a test can ask of the Data API, and what it counts."""

import threading
import urllib.error
from collections.abc import Iterator

import pytest
from botocore.exceptions import ConnectionClosedError, ReadTimeoutError

from local.servers import DataApi, MariaDB
from tests.support.data_api import Client, answered

INSERT = "INSERT INTO marks VALUES (1)"


@pytest.fixture
def marks(data_api: DataApi, mariadb: MariaDB) -> Iterator[MariaDB]:
    """An empty table."""
    mariadb.query("DROP TABLE IF EXISTS marks")
    mariadb.query("CREATE TABLE marks (mark INT)")
    yield mariadb
    data_api.control(reset=True)  # An open transaction would lock the table.
    mariadb.query("DROP TABLE marks")


@pytest.fixture
def client(data_api: DataApi, marks: MariaDB) -> Client:
    return Client(data_api)


def count(marks: MariaDB) -> int:
    [(number,)] = marks.query("SELECT COUNT(*) FROM marks")
    return int(number)


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("DatabaseResumingException", 400),
        ("ThrottlingException", 400),
        ("AccessDeniedException", 403),
        ("InternalServerErrorException", 500),
        ("ServiceUnavailableError", 503),
        ("DatabaseUnavailableException", 504),
    ],
)
def test_the_next_calls_are_answered_with_an_error(
    data_api: DataApi, client: Client, marks: MariaDB, code: str, status: int
) -> None:
    data_api.control(fault={"kind": "error", "code": code, "message": "as asked", "times": 2})
    for _ in range(2):
        with pytest.raises(client.boto.exceptions.ClientError) as caught:
            client.execute(INSERT)
        response = caught.value.response
        assert response["Error"]["Code"] == code
        assert response["ResponseMetadata"]["HTTPStatusCode"] == status
    client.execute(INSERT)

    assert count(marks) == 1


def test_an_error_of_any_status_can_be_asked_for(data_api: DataApi, client: Client) -> None:
    data_api.control(fault={"kind": "error", "code": "Odd", "status": 418})
    with pytest.raises(client.boto.exceptions.ClientError, match="Odd"):
        client.execute(INSERT)


def test_an_error_can_come_after_the_work(
    data_api: DataApi, client: Client, marks: MariaDB
) -> None:
    data_api.control(fault={"kind": "error after", "code": "InternalServerErrorException"})
    with answered("InternalServerErrorException"):
        client.execute(INSERT)

    assert count(marks) == 1


@pytest.mark.parametrize(("kind", "rows"), [("cut", 0), ("cut after", 1)])
def test_a_connection_is_cut_before_or_after_the_work(
    data_api: DataApi, client: Client, marks: MariaDB, kind: str, rows: int
) -> None:
    id = client.begin()
    client.execute(INSERT, transactionId=id)
    data_api.control(fault={"kind": kind, "operation": "CommitTransaction"})
    with pytest.raises(ConnectionClosedError):
        client.commit(id)

    assert count(marks) == rows
    if kind == "cut":
        client.commit(id)
    else:
        with answered("TransactionNotFoundException", "One previous call"):
            client.commit(id)


def test_a_transaction_is_lost_before_a_call(
    data_api: DataApi, client: Client, marks: MariaDB
) -> None:
    data_api.control(fault={"kind": "lose transaction", "operation": "CommitTransaction"})
    id = client.begin()
    client.execute(INSERT, transactionId=id)
    with answered("TransactionNotFoundException", "has been aborted"):
        client.commit(id)

    assert count(marks) == 0


def test_a_call_hangs_until_it_is_released(data_api: DataApi, marks: MariaDB) -> None:
    impatient = Client(data_api, read_timeout=0.3)
    data_api.control(fault={"kind": "hang"})
    with pytest.raises(ReadTimeoutError):
        impatient.execute(INSERT)
    patient = Client(data_api)
    data_api.control(fault={"kind": "hang"})
    raised: list[bool] = []

    def hang() -> None:
        with pytest.raises(ConnectionClosedError):
            patient.execute(INSERT)
        raised.append(True)

    thread = threading.Thread(target=hang)
    thread.start()
    while data_api.control()["faults"]:
        pass
    assert thread.is_alive()
    data_api.control(reset=True)
    thread.join()

    assert raised
    assert count(marks) == 0


def test_work_is_done_after_the_client_has_given_up(data_api: DataApi, marks: MariaDB) -> None:
    impatient = Client(data_api, read_timeout=0.3)
    data_api.control(fault={"kind": "delay", "seconds": 0.6})
    with pytest.raises(ReadTimeoutError):
        impatient.execute(INSERT)
    while not count(marks):
        pass


def test_every_request_can_be_delayed(data_api: DataApi, marks: MariaDB) -> None:
    impatient = Client(data_api, read_timeout=0.3)
    data_api.control(delay_seconds=0.6)
    for _ in range(2):
        with pytest.raises(ReadTimeoutError):
            impatient.execute("SELECT 1")


def test_a_fault_may_skip_calls_and_operations(
    data_api: DataApi, client: Client, marks: MariaDB
) -> None:
    fault = {"kind": "error", "code": "ThrottlingException", "operation": "ExecuteStatement"}
    data_api.control(fault={**fault, "skip": 1})
    client.begin()
    client.execute(INSERT)
    with answered("ThrottlingException"):
        client.execute(INSERT)
    client.execute(INSERT)

    assert count(marks) == 2


def test_requests_are_counted_by_operation(data_api: DataApi, client: Client) -> None:
    id = client.begin()
    client.execute(INSERT, transactionId=id)
    client.batch(INSERT, [[], []], transactionId=id)
    assert data_api.control()["transactions"] == 1
    client.commit(id)
    client.roll_back(client.begin())
    state = data_api.control()

    assert state == {
        "requests": {
            "BeginTransaction": 2,
            "ExecuteStatement": 1,
            "BatchExecuteStatement": 1,
            "CommitTransaction": 1,
            "RollbackTransaction": 1,
        },
        "faults": 0,
        "transactions": 0,
    }
    assert data_api.control(reset=True)["requests"] == {}


def test_a_reset_rolls_back_what_is_open(data_api: DataApi, client: Client, marks: MariaDB) -> None:
    id = client.begin()
    client.execute(INSERT, transactionId=id)
    data_api.control(reset=True, limits={"row_bytes": 1})
    data_api.control(reset=True)
    with answered("TransactionNotFoundException"):
        client.commit(id)

    assert client.value("SELECT 'more than a byte'") == {"stringValue": "more than a byte"}
    assert count(marks) == 0


@pytest.mark.parametrize(
    "command", [{"fault": {"kind": "odd"}}, {"limits": {"odd": 1}}, {"odd": 1}]
)
def test_a_command_that_is_not_known_is_rejected(
    data_api: DataApi, command: dict[str, object]
) -> None:
    with pytest.raises(urllib.error.HTTPError):
        data_api.control(**command)
