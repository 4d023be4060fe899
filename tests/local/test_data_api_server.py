"""The Data API of this machine: operations, transactions and errors, through boto3.

What it is measured against is AWS's documentation; local/data_api names the page for each answer.
"""

import http.client
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from botocore.exceptions import ClientError

from local.machine import LOOPBACK
from local.servers import DataApi, MariaDB
from local.servers.data_api import CLUSTER_ARN
from tests.support.data_api import ARNS, Client, answered, parameter

INSERT = "INSERT INTO notes (note) VALUES (:note)"


@pytest.fixture
def notes(data_api: DataApi, mariadb: MariaDB) -> Iterator[MariaDB]:
    """An empty table."""
    mariadb.query("DROP TABLE IF EXISTS notes")
    mariadb.query(
        "CREATE TABLE notes (id INT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,"
        " note VARCHAR(255) NOT NULL UNIQUE)"
    )
    yield mariadb
    data_api.control(reset=True)  # An open transaction would lock the table.
    mariadb.query("DROP TABLE notes")


@pytest.fixture
def client(data_api: DataApi, notes: MariaDB) -> Client:
    return Client(data_api)


def stored(notes: MariaDB) -> list[str]:
    return [note for (note,) in notes.query("SELECT note FROM notes ORDER BY id")]


def note(text: str) -> list[dict[str, Any]]:
    return [parameter("note", text)]


def add(client: Client, text: str, **members: Any) -> dict[str, Any]:
    return client.execute(INSERT, parameters=note(text), **members)


def raw(server: DataApi, path: str, body: bytes, headers: dict[str, str]) -> tuple[int, Any]:
    """Status and answer of a request that boto3 would not send."""
    connection = http.client.HTTPConnection(LOOPBACK, server.port, timeout=30)
    try:
        connection.request("POST", path, body, headers)
        answer = connection.getresponse()
        return answer.status, (answer.getheader("x-amzn-ErrorType"), answer.read())
    finally:
        connection.close()


def test_an_insert_answers_its_key_and_a_select_its_rows(client: Client) -> None:
    inserted = add(client, "one")
    selected = client.execute("SELECT id, note FROM notes")
    updated = client.execute("UPDATE notes SET note = 'two'")

    assert inserted["numberOfRecordsUpdated"] == 1
    assert inserted["generatedFields"] == [{"longValue": 1}]
    assert "records" not in inserted
    assert selected["records"] == [[{"longValue": 1}, {"stringValue": "one"}]]
    assert selected["numberOfRecordsUpdated"] == 0
    assert {"generatedFields", "columnMetadata"} & set(selected) == set()
    assert (updated["numberOfRecordsUpdated"], updated["generatedFields"]) == (1, [])


def test_an_insert_of_many_rows_answers_only_the_first_key(client: Client) -> None:
    answer = client.execute("INSERT INTO notes (note) VALUES ('a'), ('b'), ('c')")

    assert answer["numberOfRecordsUpdated"] == 3
    assert answer["generatedFields"] == [{"longValue": 1}]


def test_an_update_counts_the_rows_that_it_found(client: Client) -> None:
    add(client, "same")

    assert client.execute("UPDATE notes SET note = 'same'")["numberOfRecordsUpdated"] == 1


def test_a_batch_answers_a_key_for_each_set(client: Client, notes: MariaDB) -> None:
    keys = client.batch(INSERT, [note("a"), note("b")])

    assert keys == [[{"longValue": 1}], [{"longValue": 2}]]
    assert stored(notes) == ["a", "b"]
    renamed = client.batch("UPDATE notes SET note = :note WHERE id = 1", [note("c")])
    assert renamed == [[]]


def test_a_batch_runs_once_for_each_set_also_for_an_empty_one(client: Client) -> None:
    sql = "INSERT INTO notes (note) VALUES (UUID())"

    assert client.batch(sql, []) == []
    assert len(client.batch(sql, [[], []])) == 2
    assert client.value("SELECT COUNT(*) FROM notes") == {"longValue": 2}


def test_a_batch_without_a_transaction_keeps_what_came_before_the_error(
    client: Client, notes: MariaDB
) -> None:
    with answered("DatabaseErrorException", "Error code: 1062; SQLState: 23000"):
        client.batch(INSERT, [note("a"), note("a"), note("b")])

    assert stored(notes) == ["a"]


@pytest.mark.parametrize(
    ("sql", "words"), [("SELECT 1", "BatchExecuteStatement runs only"), ("DELETE FROM notes;", ";")]
)
def test_a_batch_takes_only_changes_of_data(client: Client, sql: str, words: str) -> None:
    with answered("ValidationException", "" if words == ";" else words):
        client.batch(sql, [[]])


def test_a_transaction_shows_nothing_before_its_commit(client: Client, notes: MariaDB) -> None:
    id = client.begin()
    add(client, "one", transactionId=id)
    client.batch(INSERT, [note("two")], transactionId=id)

    assert len(id) <= 192
    assert stored(notes) == []
    assert client.commit(id) == "Transaction Committed"
    assert stored(notes) == ["one", "two"]


def test_a_transaction_that_is_rolled_back_leaves_nothing(client: Client, notes: MariaDB) -> None:
    id = client.begin()
    add(client, "one", transactionId=id)

    assert client.roll_back(id) == "Rollback Complete"
    assert stored(notes) == []


def test_a_transaction_that_has_ended_is_not_found(client: Client) -> None:
    for end in (client.commit, client.roll_back):
        id = client.begin()
        end(id)
        for use in (client.commit, client.roll_back, lambda id: add(client, "x", transactionId=id)):
            with answered("TransactionNotFoundException", "One previous call resulted in"):
                use(id)


def test_a_transaction_that_never_was_is_not_found(client: Client) -> None:
    with answered("TransactionNotFoundException", "Transaction abc is not found. Transaction may"):
        client.commit("abc")


def test_a_transaction_goes_on_after_an_error_of_a_statement(
    client: Client, notes: MariaDB
) -> None:
    id = client.begin()
    add(client, "one", transactionId=id)
    with answered("DatabaseErrorException", "Duplicate entry 'one'"):
        add(client, "one", transactionId=id)
    client.commit(id)

    assert stored(notes) == ["one"]


def test_errors_of_statements_end_a_transaction_where_a_test_wants_it(
    data_api: DataApi, client: Client, notes: MariaDB
) -> None:
    data_api.control(limits={"errors_abort": True})
    id = client.begin()
    add(client, "one", transactionId=id)
    with answered("DatabaseErrorException"):
        client.execute("SELECT * FROM nowhere", transactionId=id)
    with answered("TransactionNotFoundException", "has been aborted due to an error"):
        client.commit(id)

    assert stored(notes) == []


def test_ddl_commits_and_the_transaction_goes_on(client: Client, notes: MariaDB) -> None:
    id = client.begin()
    add(client, "one", transactionId=id)
    client.execute("ALTER TABLE notes COMMENT 'x'", transactionId=id)
    add(client, "two", transactionId=id)
    client.roll_back(id)

    assert stored(notes) == ["one"]


@contextmanager
def waiting(client: Client, mariadb: MariaDB, **members: Any) -> Iterator[threading.Thread]:
    """A statement waits in the database, until the end of the block at the latest."""
    with mariadb.connect_as_root() as holder, holder.cursor() as cursor:
        cursor.execute("SELECT GET_LOCK('held', 0)")
        sql = "INSERT INTO notes (note) SELECT GET_LOCK('held', 30)"
        thread = threading.Thread(target=quietly, args=(client, sql, members))
        thread.start()
        waits = "SELECT 1 FROM information_schema.processlist WHERE state = 'User lock'"
        while not mariadb.query(waits):
            assert thread.is_alive()
        yield thread
    thread.join()


def quietly(client: Client, sql: str, members: dict[str, Any]) -> None:
    with suppress(ClientError):
        client.execute(sql, **members)


def test_a_second_call_at_once_for_a_transaction_is_rejected(
    client: Client, notes: MariaDB
) -> None:
    id = client.begin()
    with waiting(client, notes, transactionId=id):
        for use in (client.commit, client.roll_back, lambda id: add(client, "x", transactionId=id)):
            with answered("DatabaseErrorException", "Transaction is still running a query"):
                use(id)
    client.commit(id)

    assert stored(notes) == ["1"]


def test_transactions_do_not_wait_for_one_another(client: Client, notes: MariaDB) -> None:
    first, second = client.begin(), client.begin()
    add(client, "first", transactionId=first)
    add(client, "second", transactionId=second)
    client.commit(second)
    client.commit(first)

    assert stored(notes) == ["first", "second"]


def test_calls_without_a_transaction_share_no_session(client: Client) -> None:
    add(client, "one")
    client.execute("SET @kept = 1")

    assert client.value("SELECT LAST_INSERT_ID()") == {"longValue": 0}
    assert client.value("SELECT @kept") == {"isNull": True}


def test_a_transaction_can_choose_its_isolation_first(client: Client, notes: MariaDB) -> None:
    id = client.begin()
    client.execute("SET TRANSACTION ISOLATION LEVEL READ COMMITTED", transactionId=id)
    count = "SELECT COUNT(*) FROM notes"
    before = client.value(count, transactionId=id)
    add(client, "one")

    assert before == {"longValue": 0}
    assert client.value(count, transactionId=id) == {"longValue": 1}


@pytest.mark.parametrize("sql", ["COMMIT", "ROLLBACK", "BEGIN", "START TRANSACTION", "/**/ commit"])
def test_statements_that_control_transactions_are_rejected(client: Client, sql: str) -> None:
    with answered("ValidationException", "use the operation for it"):
        client.execute(sql, transactionId=client.begin())


def test_a_savepoint_works(client: Client, notes: MariaDB) -> None:
    id = client.begin()
    add(client, "one", transactionId=id)
    client.execute("SAVEPOINT here", transactionId=id)
    add(client, "two", transactionId=id)
    client.execute("ROLLBACK TO SAVEPOINT here", transactionId=id)
    client.commit(id)

    assert stored(notes) == ["one"]


@pytest.mark.parametrize(
    "sql", ["SELECT 1; SELECT 2", "DELETE FROM notes; -- x\nSELECT 2", "SELECT ';'; SELECT 1"]
)
def test_multistatements_are_rejected(client: Client, notes: MariaDB, sql: str) -> None:
    add(client, "one")
    with answered("ValidationException", "Multistatements aren't supported."):
        client.execute(sql)

    assert stored(notes) == ["one"]


@pytest.mark.parametrize(
    "sql",
    ["SELECT 1;", "SELECT 1 ; -- done; really", "SELECT ';x' # ;\n", 'SELECT /*;*/ 1 AS ";"'],
)
def test_a_semicolon_that_ends_or_is_quoted_is_allowed(client: Client, sql: str) -> None:
    assert len(client.execute(sql)["records"]) == 1


def test_a_trigger_may_hold_statements(client: Client, notes: MariaDB) -> None:
    body = "BEGIN SET NEW.note = CONCAT(NEW.note, 1); SET NEW.note = CONCAT(NEW.note, 2); END"
    notes.query("SET GLOBAL log_bin_trust_function_creators = 1")
    client.execute(f"CREATE TRIGGER t BEFORE INSERT ON notes FOR EACH ROW {body}")
    add(client, "x")

    assert stored(notes) == ["x12"]


def test_returning_is_not_known_as_in_mysql(client: Client, notes: MariaDB) -> None:
    with answered("DatabaseErrorException", "Error code: 1064; SQLState: 42000"):
        client.execute("INSERT INTO notes (note) VALUES ('x') RETURNING id")

    assert stored(notes) == []


def test_schema_is_rejected(client: Client) -> None:
    with answered("ValidationException", "The schema parameter isn't supported"):
        client.execute("SELECT 1", schema="herocache")


def test_another_database_than_that_of_the_transaction_is_rejected(client: Client) -> None:
    with answered("ValidationException", "Database name is not the same"):
        client.execute("SELECT 1", transactionId=client.begin(), database="mysql")


def test_without_a_database_tables_need_its_name(client: Client) -> None:
    with answered("DatabaseErrorException", "No database selected; Error code: 1046"):
        client.boto.execute_statement(**ARNS, sql="SELECT * FROM notes")
    client.boto.execute_statement(**ARNS, sql="SELECT * FROM herocache.notes")


@pytest.mark.parametrize(
    ("member", "arn", "code"),
    [
        ("resourceArn", "herocache-cluster", "BadRequestException"),
        ("resourceArn", f"{CLUSTER_ARN}2", "HttpEndpointNotEnabledException"),
        ("resourceArn", CLUSTER_ARN.replace("herocache", "Herocache"), "HttpEndpointNotEnabled"),
        ("resourceArn", CLUSTER_ARN.replace("us-east-1", "us-west-1"), "AccessDeniedException"),
        ("secretArn", CLUSTER_ARN, "SecretsErrorException"),
    ],
)
def test_another_cluster_or_secret_is_rejected(
    client: Client, member: str, arn: str, code: str
) -> None:
    expected = code if code.endswith("Exception") else f"{code}Exception"
    with answered(expected):
        client.execute("SELECT 1", **{member: arn})
    with answered(expected):
        client.boto.begin_transaction(**{**ARNS, member: arn})


@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [
        ("/Execute", b"{", 400, "SerializationException"),
        ("/Execute", b"[]", 400, "ValidationException"),
        ("/Execute", b'{"sql": "SELECT 1"}', 400, "ValidationException"),
        ("/ExecuteSql", b"{}", 404, "UnknownOperationException"),
        ("/execute", b"{}", 404, "UnknownOperationException"),
    ],
)
def test_a_request_against_the_model_is_rejected(
    data_api: DataApi, path: str, body: bytes, status: int, code: str
) -> None:
    assert raw(data_api, path, body, SIGNED)[0] == status
    assert raw(data_api, path, body, SIGNED)[1][0] == code


SIGNED = {
    "Authorization": "AWS4-HMAC-SHA256 Credential=x/20261121/us-east-1/rds-data/aws4_request, "
    f"SignedHeaders=host;x-amz-date, Signature={'0' * 64}",
    "X-Amz-Date": "20261121T000000Z",
}


@pytest.mark.parametrize(
    "members",
    [
        {"unknown": 1},
        {"sql": 1},
        {"sql": "x" * 65_537},
        {"transactionId": "x" * 193},
        {"database": "x" * 65},
        {"formatRecordsAs": "XML"},
        {"parameters": [{"name": "a", "value": {"longValue": 1, "stringValue": "1"}}]},
        {"parameters": [{"name": "a", "value": {}}]},
        {"parameters": [{"name": "a", "value": {"longValue": 2**63}}]},
        {"parameters": [{"name": "a", "value": {"longValue": True}}]},
        {"parameters": [{"name": "a", "value": {"longValue": 1.0}}]},
        {"parameters": [{"name": "a", "value": {"doubleValue": True}}]},
        {"parameters": [{"name": "a", "value": {"stringValue": "x"}, "typeHint": "YEAR"}]},
        {"parameters": [{"name": "a", "value": {"stringValue": "\ud800"}}]},
    ],
    ids=str,
)
def test_members_against_the_model_are_rejected(data_api: DataApi, members: dict[str, Any]) -> None:
    body = json.dumps({**ARNS, "sql": "SELECT :a", **members}).encode()
    status, (code, _) = raw(data_api, "/Execute", body, SIGNED)

    assert (status, code) == (400, "ValidationException")


def test_the_longest_statement_reaches_the_database(data_api: DataApi) -> None:
    body = json.dumps({**ARNS, "sql": "x" * 65_536}).encode()

    assert raw(data_api, "/Execute", body, SIGNED)[1][0] == "DatabaseErrorException"


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({}, "MissingAuthenticationTokenException"),
        ({**SIGNED, "Authorization": "Bearer x"}, "IncompleteSignatureException"),
        ({"Authorization": SIGNED["Authorization"]}, "IncompleteSignatureException"),
        ({**SIGNED, "Origin": "https://evil.example"}, "AccessDeniedException"),
        ({**SIGNED, "Host": "evil.example"}, "AccessDeniedException"),
    ],
)
def test_a_request_that_is_not_signed_or_comes_from_a_web_page_is_rejected(
    data_api: DataApi, headers: dict[str, str], code: str
) -> None:
    body = json.dumps({**ARNS, "sql": "SELECT 1"}).encode()

    assert raw(data_api, "/Execute", body, SIGNED)[0] == 200
    assert raw(data_api, "/Execute", body, headers)[1][0] == code


def test_a_database_that_is_away_is_answered_as_such(mariadb: MariaDB, tmp_path: Any) -> None:
    nowhere = {**mariadb.environment(), "DB_PORT": "1"}
    with DataApi(tmp_path / "away", lambda: nowhere) as server:
        client = Client(server)
        for ask in (lambda: client.execute("SELECT 1"), client.begin):
            with answered("DatabaseUnavailableException"):
                ask()


def test_a_wrong_password_is_an_invalid_secret(mariadb: MariaDB, tmp_path: Any) -> None:
    wrong = {**mariadb.environment(), "DB_PASS": "wrong"}
    with DataApi(tmp_path / "wrong", lambda: wrong) as server, answered("InvalidSecretException"):
        Client(server).begin()


def test_a_transaction_whose_connection_is_lost_is_gone(client: Client, notes: MariaDB) -> None:
    id = client.begin()
    number = client.value("SELECT CONNECTION_ID()", transactionId=id)["longValue"]
    notes.query(f"KILL {number}")
    with answered("DatabaseUnavailableException"):
        add(client, "one", transactionId=id)
    with answered("TransactionNotFoundException", "has been aborted"):
        client.commit(id)


def test_a_server_that_ends_leaves_no_transaction_in_the_database(
    notes: MariaDB, tmp_path: Any
) -> None:
    with DataApi(tmp_path / "own", notes.environment) as server:
        client = Client(server)
        add(client, "one", transactionId=client.begin())
    rows = "SELECT COUNT(*) FROM notes FOR UPDATE"

    assert notes.query(rows) == [(0,)]
    assert stored(notes) == []


def test_many_clients_at_once_get_keys_of_their_own(client: Client, notes: MariaDB) -> None:
    keys: list[int] = []

    def work(name: str) -> None:
        for number in range(5):
            id = client.begin()
            keys.append(
                add(client, f"{name} {number}", transactionId=id)["generatedFields"][0]["longValue"]
            )
            client.commit(id)

    threads = [threading.Thread(target=work, args=(f"t{n}",)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(keys) == list(range(1, 41))
    assert len(stored(notes)) == 40
