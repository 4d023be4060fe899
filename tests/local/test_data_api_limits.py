"""The limits of the Data API, each just under and just over, on a real database."""

import json
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any, cast

import pytest
from botocore.exceptions import ClientError

from local.data_api.database import Connection
from local.data_api.errors import ServiceError
from local.data_api.limits import Limits
from local.data_api.transactions import Clock, Transactions
from local.machine import LOOPBACK
from local.servers import DataApi, MariaDB
from local.servers.mariadb import integers
from tests.local.test_data_api_server import SIGNED
from tests.support.data_api import ARNS, Client, answered, parameter

# 17 rows of 60,000 characters, and one of `n`.
ROWS = f"SELECT REPEAT('x', 60000) AS x FROM {integers(1, 17)} UNION ALL SELECT REPEAT('x', :n)"
WAITS = "UPDATE numbers SET number = number + 1 WHERE id = 1"
WAITING = "SELECT COUNT(*) FROM information_schema.processlist WHERE state LIKE '%metadata lock'"


@pytest.fixture
def client(data_api: DataApi) -> Client:
    return Client(data_api)


@pytest.fixture
def numbers(data_api: DataApi, mariadb: MariaDB) -> Iterator[MariaDB]:
    """An empty table."""
    mariadb.query("DROP TABLE IF EXISTS numbers")
    mariadb.query("CREATE TABLE numbers (id INT AUTO_INCREMENT PRIMARY KEY, number INT)")
    yield mariadb
    data_api.control(reset=True)  # An open transaction would lock the table.
    mariadb.query("DROP TABLE numbers")


def n(value: int) -> list[dict[str, Any]]:
    return [parameter("n", value)]


def status_of(server: DataApi, size: int) -> int:
    """Of a request that has exactly so many bytes."""
    body = json.dumps({**ARNS, "sql": "SELECT 1"})
    lines = ["POST /Execute HTTP/1.1", "Host: localhost", "Content-Length: 4000000"]
    lines += [f"{name}: {value}" for name, value in SIGNED.items()]
    head = "\r\n".join([*lines, "", ""])
    length = size - len(head)
    head = head.replace("4000000", str(length))
    assert len(head) + length == size
    with socket.create_connection((LOOPBACK, server.port), timeout=30) as connection:
        connection.sendall(head.encode() + body.ljust(length).encode())
        return int(connection.recv(65_536).split()[1])


def test_a_request_has_at_most_4_mib_with_its_headers(data_api: DataApi, client: Client) -> None:
    assert status_of(data_api, 4 * 2**20) == 200
    assert status_of(data_api, 4 * 2**20 + 1) == 413
    with answered("RequestEntityTooLargeException"):
        client.execute("SELECT 1 = :n", parameters=[parameter("n", "x" * 4 * 2**20)])


def test_an_answer_has_at_most_1_mib(client: Client) -> None:
    def length(number: int) -> int:
        answer = client.execute(ROWS, parameters=n(number))
        return int(answer["ResponseMetadata"]["HTTPHeaders"]["content-length"])

    most = 1 + 2**20 - length(1)

    assert length(most) == 2**20
    with answered("UnsupportedResultException", "The result exceeds the size limit 1 MB."):
        length(most + 1)


def test_a_result_has_at_most_1_mib_as_the_database_sends_it(client: Client) -> None:
    most = 2**20 - 17 * 60_003 - 3

    def ask(number: int) -> dict[str, Any]:
        return client.execute(ROWS, parameters=n(number), formatRecordsAs="JSON")

    assert len(ask(most)["formattedRecords"]) > 2**20
    with answered("UnsupportedResultException", "The result exceeds the size limit 1 MB."):
        ask(most + 1)


def test_a_row_has_at_most_64_kib(client: Client) -> None:
    most = 65_533
    sql = "SELECT REPEAT('x', :n)"

    assert len(client.value(sql, parameters=n(most))["stringValue"]) == most
    with answered("DatabaseErrorException", "Packet for query is too large (65537 > 65536)"):
        client.execute(sql, parameters=n(most + 1))


def test_formatted_records_have_at_most_10_megabytes(client: Client) -> None:
    label = "x" * 64
    sql = f"SELECT '1' AS {label} FROM {integers(1, 136_500)} UNION ALL SELECT REPEAT('x', :n)"

    def ask(number: int) -> int:
        answer = client.execute(sql, parameters=n(number), formatRecordsAs="JSON")
        return len(answer["formattedRecords"])

    most = 1 + 10_000_000 - ask(1)

    assert ask(most) == 10_000_000
    with answered("BadRequestException", "larger than 10 megabytes"):
        ask(most + 1)


def test_the_answer_of_a_batch_is_limited_too(
    data_api: DataApi, client: Client, numbers: MariaDB
) -> None:
    insert = "INSERT INTO numbers (number) VALUES (1)"
    # `{"updateResults":[]}`, then `{"generatedFields":[{"longValue":1}]}` for each set.
    data_api.control(limits={"result_bytes": 20 + 3 * 37 + 2})

    assert len(client.batch(insert, [[]] * 3)) == 3
    with answered("BadRequestException", "allowed response size limit"):
        client.batch(insert, [[]] * 4)
    # Without a transaction the work is done all the same.
    assert numbers.query("SELECT COUNT(*) FROM numbers") == [(7,)]


@pytest.mark.parametrize(
    ("sql", "code"),
    [
        ("SELECT REPEAT('x', 65534)", "DatabaseErrorException"),
        (ROWS.replace(":n", "60000"), "UnsupportedResultException"),
    ],
)
def test_a_result_that_is_too_large_ends_the_transaction(
    client: Client, numbers: MariaDB, sql: str, code: str
) -> None:
    id = client.begin()
    client.execute("INSERT INTO numbers (number) VALUES (1)", transactionId=id)
    with answered(code):
        client.execute(sql, transactionId=id)
    with answered("TransactionNotFoundException", "has been aborted due to an error"):
        client.commit(id)

    assert numbers.query("SELECT * FROM numbers") == []


@contextmanager
def held(numbers: MariaDB) -> Iterator[None]:
    """Makes a row. WAITS waits for its table until the end of the block: a wait for the row itself
    ends after 2 s."""
    numbers.query("INSERT INTO numbers (number) VALUES (0)")
    with numbers.connect_as_root() as holder, holder.cursor() as cursor:
        cursor.execute("LOCK TABLES numbers WRITE")
        yield


@pytest.mark.parametrize("in_a_transaction", [True, False])
def test_a_statement_that_takes_too_long_is_undone(
    data_api: DataApi, client: Client, numbers: MariaDB, in_a_transaction: bool
) -> None:
    data_api.control(limits={"call_seconds": 0.3})
    members = {"transactionId": client.begin()} if in_a_transaction else {}
    with held(numbers), pytest.raises(ClientError) as caught:
        client.execute(WAITS, **members)

    assert caught.value.response["Error"]["Code"] == "StatementTimeoutException"
    assert cast(Any, caught.value.response)["dbConnectionId"] > 0
    assert numbers.query("SELECT number FROM numbers") == [(0,)]
    assert data_api.control()["transactions"] == 0
    if in_a_transaction:
        with answered("TransactionNotFoundException", "has been aborted"):
            client.commit(members["transactionId"])


@pytest.mark.parametrize("in_a_transaction", [True, False])
def test_a_statement_continues_after_the_timeout_where_that_is_asked_for(
    data_api: DataApi, client: Client, numbers: MariaDB, in_a_transaction: bool
) -> None:
    data_api.control(limits={"call_seconds": 0.3})
    members = {"transactionId": client.begin()} if in_a_transaction else {}
    with held(numbers):
        with answered("StatementTimeoutException", "Request timed out"):
            client.execute(WAITS, continueAfterTimeout=True, **members)
        if in_a_transaction:
            with answered("DatabaseErrorException", "still running a query"):
                client.commit(members["transactionId"])
    while in_a_transaction:
        with suppress(client.boto.exceptions.DatabaseErrorException):
            client.commit(members["transactionId"])
            break
    while numbers.query("SELECT number FROM numbers") != [(1,)]:
        pass  # The test's own timeout ends this.


def test_a_transaction_ends_after_three_minutes_without_a_call(
    data_api: DataApi, client: Client, numbers: MariaDB
) -> None:
    insert = "INSERT INTO numbers (number) VALUES (1)"
    kept, left = client.begin(), client.begin()
    client.execute(insert, transactionId=left)
    data_api.control(advance_seconds=100)
    client.execute(insert, transactionId=kept)

    # Nobody asks for it: its locks go all the same.
    assert data_api.control(advance_seconds=100)["transactions"] == 1
    assert numbers.query("SELECT * FROM numbers WHERE id = 1 FOR UPDATE NOWAIT") == []
    with answered("TransactionNotFoundException", "Transaction may be expired."):
        client.commit(left)
    client.commit(kept)

    assert numbers.query("SELECT COUNT(*) FROM numbers") == [(1,)]


class Closed:
    """A connection that tells whether it was closed."""

    is_closed = False

    def close(self) -> None:
        self.is_closed = True


def opened() -> tuple[Clock, Transactions, Closed, str]:
    clock, connection = Clock(lambda: 0.0), Closed()
    transactions = Transactions(Limits(), clock)
    return clock, transactions, connection, transactions.begin(cast(Connection, connection), "x")


def test_three_minutes_without_a_call_are_allowed_and_not_more() -> None:
    clock, transactions, connection, id = opened()
    clock.advance(180)
    transactions.give_back(transactions.take(id))
    clock.advance(180)
    transactions.expire()
    assert not connection.is_closed
    clock.advance(0.001)
    with pytest.raises(ServiceError, match=r"Transaction may be expired\."):
        transactions.take(id)

    assert connection.is_closed


def test_the_time_without_calls_begins_at_the_end_of_a_call() -> None:
    clock, transactions, connection, id = opened()
    taken = transactions.take(id)
    clock.advance(10_000)
    transactions.expire()
    transactions.give_back(taken)
    clock.advance(180)
    transactions.expire()

    assert not connection.is_closed


def test_a_transaction_has_24_hours_and_not_more() -> None:
    clock, transactions, connection, id = opened()
    for _ in range(24 * 20):
        clock.advance(180)
        transactions.give_back(transactions.take(id))
    assert not connection.is_closed
    clock.advance(0.001)
    transactions.expire()

    assert connection.is_closed


def test_the_cause_is_remembered_for_the_last_transactions_only() -> None:
    _, transactions, connection, id = opened()
    transactions.end(transactions.take(id), "the cause")
    with pytest.raises(ServiceError, match="the cause"):
        transactions.take(id)
    for _ in range(10_000):
        other = transactions.begin(cast(Connection, connection), "x")
        transactions.end(transactions.take(other), "another cause")
    with pytest.raises(ServiceError, match=r"Transaction may be expired\."):
        transactions.take(id)


def test_a_thousand_rows_with_the_longest_strings_fit_in_requests_of_their_size(
    client: Client, numbers: MariaDB
) -> None:
    """255 characters of four bytes: what a batch of the service has to cut up."""
    longest = "🌠" * 255
    numbers.query("ALTER TABLE numbers ADD a VARCHAR(255) CHARACTER SET utf8mb4")
    insert = "INSERT INTO numbers (number, a) VALUES (:n, :a)"
    sets = [[parameter("n", number), parameter("a", longest)] for number in range(1000)]
    keys = client.batch(insert, sets)

    assert len(keys) == 1000
    with answered("UnsupportedResultException"):
        client.execute("SELECT a FROM numbers, (SELECT 1 UNION SELECT 2) AS twice")
    rows = client.execute("SELECT a FROM numbers WHERE id <= 900")["records"]
    assert rows == [[{"stringValue": longest}]] * 900


def test_calls_wait_in_threads_of_their_own(client: Client, numbers: MariaDB) -> None:
    with ThreadPoolExecutor(8) as threads, held(numbers):
        calls = [threads.submit(client.execute, WAITS) for _ in range(8)]
        while numbers.query(WAITING) != [(8,)]:
            assert not any(call.done() for call in calls)
        assert client.value("SELECT 1") == {"longValue": 1}

    assert numbers.query("SELECT number FROM numbers") == [(8,)]
