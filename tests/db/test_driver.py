"""The private parts of PyMySQL on which the service depends exist, and do what we rely on.

A new version of the driver must pass these tests before `driver.CHECKED_VERSIONS` names it.
"""

import ast
import inspect
import io
import struct
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pymysql
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pymysql.constants import CLIENT, CR
from pymysql.cursors import Cursor

from chalicelib.db.mysql import driver, result_reader
from local.servers import MariaDB
from tests.conftest import Configure
from tests.support.client import InProcess
from tests.support.relay import Relay, relaying

CHALICELIB = Path(__file__).parent.parent.parent / "chalicelib"
VALUES = st.one_of(
    st.none(),
    st.integers(-(2**63), 2**63 - 1),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=300),
    st.sampled_from([250, 251, 255, 65_535, 65_536, 70_000]).map(lambda size: "ñ" * size),
)
ESCAPED = st.text("\0\\\n\r\x1a\"'%a", max_size=2)
EOF_PACKET = b"\xfe\x00\x00\x02\x00"
LONG_END_PACKET = b"\xfe\x00\x00\x02\x00\x00\x00" + b"\x07message"
ERROR_PACKET = b"\xff" + struct.pack("<H", 1317) + b"#70100interrupted"
ROW = b"\x0242"


def connect(mariadb: MariaDB, kind: Any, **options: object) -> Any:
    environment = mariadb.environment()
    return kind(
        host=environment["DB_HOST"],
        user=environment["DB_USER"],
        password=environment["DB_PASS"],
        database=environment["DB_NAME"],
        charset="utf8mb4",
        ssl_disabled=True,
        **{"port": int(environment["DB_PORT"]), "read_timeout": 10, **options},
    )


def test_each_private_part_is_there() -> None:
    for owner, parts in driver.PRIVATE_PARTS.items():
        for name, parameters in parts.items():
            found = inspect.signature(vars(owner)[name])
            assert tuple(found.parameters) == parameters, f"{owner.__name__}.{name}"


def test_each_private_attribute_is_there(mariadb: MariaDB) -> None:
    with connect(mariadb, pymysql.connections.Connection) as connection:
        assert [name for name in driver.PRIVATE_ATTRIBUTES if not hasattr(connection, name)] == []


def test_all_private_parts_are_in_the_lists() -> None:
    """No other module reaches for one, and these two reach for no other."""
    listed = {name for parts in driver.PRIVATE_PARTS.values() for name in parts}
    listed |= set(driver.PRIVATE_ATTRIBUTES)
    listed |= {"_answer", "_connection", "_is_short", "_pieces", "_reader", "_until"}  # our own
    for name in ("driver", "result_reader"):
        own = {node.name for node in ast.walk(tree(name)) if isinstance(node, ast.FunctionDef)}
        assert private_names(tree(name)) - own <= listed, name

    for name in ("connection", "tls"):
        used = private_names(tree(name))
        assert used <= {"_is_reading"}, name


def run_all(connection: Any, text: str, answers: list[Any]) -> None:
    connection.send_all(text)
    connection.receive_all(answers)


def tree(module: str) -> ast.Module:
    return ast.parse((CHALICELIB / "db" / "mysql" / f"{module}.py").read_text())


def private_names(tree: ast.Module) -> set[str]:
    names = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    return {name for name in names if name.startswith("_") and not name.startswith("__")}


def test_another_version_of_the_driver_is_refused(
    service: InProcess, configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pymysql, "VERSION", (9, 8, 7, "final"))
    configure()

    answer = service.read([1], use_cache=False)

    assert (answer.status, answer.error) == (500, "ConfigurationError")
    assert answer.message == (
        "PyMySQL 9.8.7 is installed, and this service works with"
        f" {driver.CHECKED_VERSIONS[0]} only: install the packages of requirements.txt"
    )


def test_the_pinned_version_is_the_checked_one() -> None:
    requirements = (CHALICELIB.parent / "requirements.txt").read_text()

    assert f"pymysql=={driver.CHECKED_VERSIONS[-1]} " in requirements


@pytest.fixture(scope="module")
def both_drivers(mariadb: MariaDB) -> Iterator[list[Cursor]]:
    """A cursor of ours, and one of the driver's own."""
    kinds = (driver.DriverConnection, pymysql.connections.Connection)
    with ExitStack() as stack:
        connections = [stack.enter_context(connect(mariadb, kind)) for kind in kinds]
        yield [stack.enter_context(connection.cursor()) for connection in connections]


@settings(max_examples=100, deadline=None)
@given(rows=st.integers(1, 4).flatmap(lambda width: st.lists(st.tuples(*[VALUES] * width))))
def test_rows_are_those_of_the_driver(
    both_drivers: list[Cursor], rows: list[tuple[object, ...]]
) -> None:
    if not rows:
        return
    query = " UNION ALL ".join(f"SELECT {','.join(['%s'] * len(row))}" for row in rows)
    values = [value for row in rows for value in row]
    found = []
    for cursor in both_drivers:
        cursor.execute(query, values)
        found.append(cursor.fetchall())

    assert found[0] == found[1]


@settings(max_examples=50, deadline=None)
@given(values=st.lists(st.one_of(VALUES, ESCAPED, st.binary(), st.floats(0, 1))))
def test_literals_are_those_of_the_driver(both_drivers: list[Cursor], values: list[object]) -> None:
    text = ",".join(["%s"] * len(values))
    ours: Any = both_drivers[0].connection

    assert ours.sql(text, values) == both_drivers[1].mogrify(text, values)


def test_a_text_full_of_quotes_is_escaped_at_c_speed(connection: Any) -> None:
    """A request may hold millions of them."""
    calls = 0

    def count(*_: object) -> None:
        nonlocal calls
        calls += 1

    sys.setprofile(count)
    try:
        literal = connection.sql("%s", ["'" * 10_000])
    finally:
        sys.setprofile(None)

    assert literal == "'" + "\\'" * 10_000 + "'"
    assert calls < 100


def test_a_quote_ends_no_literal_where_backslashes_escape_nothing(connection: Any) -> None:
    connection.query("SET sql_mode = 'NO_BACKSLASH_ESCAPES'")
    answers: list[Any] = []

    run_all(connection, connection.sql("SELECT %s, %s", ["\\'", 7]), answers)

    assert answers == [(("\\'", 7),)]


def test_values_of_every_type_are_those_of_the_driver(both_drivers: list[Cursor]) -> None:
    query = (
        "SELECT 1.5, 1e0, NULL, DATE '2020-02-03', TIMESTAMP '2020-02-03 04:05:06',"
        " TIME '01:02:03', CAST('é' AS BINARY), JSON_OBJECT('a', 'é'), 18446744073709551615, TRUE,"
        " ''"
    )
    found = []
    for cursor in both_drivers:
        cursor.execute(query)
        found.append(cursor.fetchall())

    assert found[0] == found[1]


def test_each_statement_has_its_answer_however_long_its_counts_are(connection: Any) -> None:
    rows = ",".join(f"({n})" for n in range(70_000))
    answers: list[Any] = []

    run_all(
        connection,
        "CREATE TEMPORARY TABLE counted (id INT AUTO_INCREMENT PRIMARY KEY, n INT);"
        "INSERT INTO counted (n) VALUES (1);"
        f"INSERT INTO counted (n) VALUES {','.join(['(2)'] * 300)};"
        f"INSERT INTO counted (n) VALUES {rows};SELECT COUNT(*) FROM counted;DO 1",
        answers,
    )

    assert answers == [(), (), (), (), ((70_301,),), ()]


@pytest.fixture
def dripping(mariadb: MariaDB) -> Iterator[Relay]:
    with relaying(mariadb.port) as relay:
        relay.drip_seconds = 0.005
        yield relay


@pytest.mark.parametrize("is_fast_enough", [True, False])
def test_one_limit_holds_for_an_answer_however_many_pieces_it_comes_in(
    mariadb: MariaDB, dripping: Relay, monkeypatch: pytest.MonkeyPatch, is_fast_enough: bool
) -> None:
    """With a limit for each piece, this one would be read to its end."""
    dripping.drip_seconds = 0
    with connect(mariadb, driver.DriverConnection, port=dripping.port) as connection:
        dripping.drip_seconds = 0.005
        connection.wait_at_most(0.2)
        if is_fast_enough:
            monkeypatch.setattr(driver, "MIN_BYTES_A_SECOND", 0.5)
            answers: list[Any] = []
            for text in ("a long text that takes a while", "another one"):
                run_all(connection, f"SELECT '{text}'", answers)
                assert answers[-1] == ((text,),)
        else:
            with pytest.raises(pymysql.OperationalError) as lost:
                run_all(connection, "SELECT 'a long text that takes a while'", [])
            assert lost.value.args[0] == CR.CR_SERVER_LOST
            assert isinstance(lost.value.__cause__, TimeoutError)
            assert not connection.open


def test_one_limit_holds_for_the_greeting(mariadb: MariaDB, dripping: Relay) -> None:
    with pytest.raises(pymysql.OperationalError):
        connect(mariadb, driver.DriverConnection, port=dripping.port, read_timeout=0.1)


class Server:
    """As far as a reader of rows sees one: it sends these packets."""

    encoding = "utf8"
    _next_seq_id = 250

    def __init__(self, *packets: bytes, first_number: int = 250) -> None:
        self.is_closed = False
        sent = [
            len(packet).to_bytes(3, "little") + bytes([(first_number + i) % 256]) + packet
            for i, packet in enumerate(packets)
        ]
        self._rfile = io.BytesIO(b"".join(sent))

    def _force_close(self) -> None:
        self.is_closed = True


def rows_of(server: Server) -> Any:
    reader: Any = result_reader.ResultReader(cast(Any, server))
    reader.decoders = [int]
    reader._read_rowdata_packet()
    return reader.rows


def test_the_numbers_of_packets_go_on_from_0_after_255() -> None:
    server = Server(*[ROW] * 9, EOF_PACKET)

    assert rows_of(server) == ((42,),) * 9
    assert server._next_seq_id == 4


@pytest.mark.parametrize("length", range(9, 40))
def test_a_row_that_is_longer_than_a_packet_is_read_from_several(
    monkeypatch: pytest.MonkeyPatch, length: int
) -> None:
    """The length of a value of 16 MiB begins with the byte that also begins an end of rows."""
    monkeypatch.setattr(result_reader, "_LONGEST_PACKET", 10)
    row = b"\xfe" + length.to_bytes(8, "little") + b"7" * length
    packets = [row[at : at + 10] for at in range(0, len(row) + 1, 10)]
    server = Server(ROW, *packets, *packets, ROW, EOF_PACKET)

    assert rows_of(server) == ((42,), *[(int("7" * length),)] * 2, (42,))
    assert server._next_seq_id == (250 + 3 + 2 * len(packets)) % 256


def test_a_row_whose_next_packet_is_out_of_order_is_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(result_reader, "_LONGEST_PACKET", 3)
    server = Server(b"\x0342", b"")
    server._rfile = io.BytesIO(server._rfile.getvalue()[:-1] + b"\x07")

    with pytest.raises(pymysql.InternalError):
        rows_of(server)
    assert server.is_closed


def test_a_packet_out_of_order_is_an_error_and_no_row() -> None:
    server = Server(ROW, EOF_PACKET, first_number=251)

    with pytest.raises(pymysql.InternalError):
        rows_of(server)
    assert server.is_closed


def test_a_server_that_shuts_down_among_rows_is_a_lost_connection() -> None:
    server = Server(ERROR_PACKET, first_number=0)

    with pytest.raises(pymysql.OperationalError) as lost:
        rows_of(server)
    assert lost.value.args[0] == CR.CR_SERVER_LOST


def test_an_error_among_rows_is_raised() -> None:
    with pytest.raises(pymysql.MySQLError) as error:
        rows_of(Server(ROW, ERROR_PACKET))
    assert error.value.args[0] == 1317


def test_a_long_end_packet_is_an_error_and_no_row() -> None:
    """It is what a server sends to a client that asks for DEPRECATE_EOF."""
    server = Server(ROW, LONG_END_PACKET)

    with pytest.raises(pymysql.InternalError):
        rows_of(server)
    assert server.is_closed


COLUMN = b"\x03def" + bytes(4) + b"\x01n\x00" + b"\x0c\x3f\x00\x0b\x00\x00\x00\x03" + bytes(5)


def columns_of(server: Server, count: int) -> Any:
    reader: Any = result_reader.ResultReader(cast(Any, server))
    reader.field_count = count
    reader._get_descriptions()
    return reader.decoders


def test_each_column_has_a_way_to_read_it() -> None:
    assert columns_of(Server(COLUMN, COLUMN, EOF_PACKET), 2) == [int, int]


@pytest.mark.parametrize(
    "packets",
    [(COLUMN, EOF_PACKET, EOF_PACKET), (COLUMN, COLUMN, LONG_END_PACKET), (COLUMN, COLUMN, ROW)],
)
def test_columns_that_are_not_as_many_as_announced_are_an_error(packets: list[bytes]) -> None:
    server = Server(*packets)

    with pytest.raises(pymysql.InternalError):
        columns_of(server, 2)
    assert server.is_closed


def test_a_column_out_of_order_is_an_error() -> None:
    server = Server(COLUMN, EOF_PACKET, first_number=251)

    with pytest.raises(pymysql.InternalError):
        columns_of(server, 1)
    assert server.is_closed


def test_an_error_in_place_of_a_column_is_raised() -> None:
    with pytest.raises(pymysql.MySQLError) as error:
        columns_of(Server(ERROR_PACKET), 2)
    assert error.value.args[0] == 1317


def test_an_error_in_place_of_an_answer_is_raised() -> None:
    with pytest.raises(pymysql.MySQLError) as error:
        cast(Any, result_reader.ResultReader(cast(Any, Server(ERROR_PACKET)))).read()
    assert error.value.args[0] == 1317


SENT = Server(b"\x01", COLUMN, EOF_PACKET, ROW, EOF_PACKET)._rfile.getvalue()


@pytest.mark.parametrize("count", range(len(SENT)))
def test_a_server_that_closes_in_the_middle_of_an_answer_is_a_lost_connection(count: int) -> None:
    server = Server()
    server._rfile = io.BytesIO(SENT[:count])

    with pytest.raises(pymysql.OperationalError) as lost:
        cast(Any, result_reader.ResultReader(cast(Any, server))).read()
    assert lost.value.args[0] == CR.CR_SERVER_LOST
    assert server.is_closed


def test_who_is_interrupted_in_the_middle_of_an_answer_closes_the_connection() -> None:
    server = Server()
    server._rfile = cast(Any, SimpleNamespace(read=interrupt))

    with pytest.raises(KeyboardInterrupt):
        cast(Any, result_reader.ResultReader(cast(Any, server))).read()
    assert server.is_closed


def interrupt(_: int) -> bytes:
    raise KeyboardInterrupt


def test_an_end_in_place_of_an_answer_is_an_error() -> None:
    server = Server(EOF_PACKET)

    with pytest.raises(pymysql.InternalError):
        cast(Any, result_reader.ResultReader(cast(Any, server))).read()
    assert server.is_closed


@pytest.fixture
def connection(mariadb: MariaDB) -> Iterator[Any]:
    flags = CLIENT.MULTI_STATEMENTS
    connection = connect(mariadb, driver.DriverConnection, local_infile=True, client_flag=flags)
    yield connection
    connection.drop()


def test_an_answer_is_waited_for_as_long_as_was_said(connection: Any) -> None:
    connection.wait_at_most(0.1)

    with pytest.raises(pymysql.OperationalError) as error, connection.cursor() as cursor:
        cursor.execute("SELECT SLEEP(20)")
    assert isinstance(error.value.__context__, TimeoutError)
    assert not connection.open


def test_a_server_that_takes_nothing_is_given_as_long_as_was_said(connection: Any) -> None:
    """One that is busy reads nothing meanwhile: what does not fit into the buffers waits."""
    connection.send_for_at_most(0.1)
    busy = connection.cursor().mogrify("SELECT SLEEP(5)").encode()
    connection._sock.sendall(struct.pack("<iB", len(busy) + 1, 3) + busy)

    with pytest.raises(pymysql.OperationalError) as error:
        connection.query("DO '" + "x" * 15_000_000 + "'")
    assert isinstance(error.value.__context__, TimeoutError)


def test_a_dropped_connection_is_closed(connection: Any) -> None:
    connection.drop()

    assert not connection.open


def test_a_closed_connection_is_noticed_before_it_is_used(
    mariadb: MariaDB, connection: Any
) -> None:
    assert not connection.was_closed_by_server()

    with mariadb.connect_as_root() as root, root.cursor() as cursor:
        cursor.execute(f"KILL {connection.thread_id()}")

    connection.wait_at_most(5)
    connection._sock.settimeout(5)
    assert connection._sock.recv(1, 2) is not None  # MSG_PEEK: it waits for the goodbye
    assert connection.was_closed_by_server()


def test_a_load_gets_what_it_is_fed_whatever_file_it_names(connection: Any) -> None:
    connection.feed = [b"1\n", b"2\n3\n"]
    with connection.cursor() as cursor:
        cursor.execute("CREATE TEMPORARY TABLE fed (n INT)")
        cursor.execute("LOAD DATA LOCAL INFILE '/etc/passwd' INTO TABLE fed")
        assert b"Records: 3" in connection.message
        cursor.execute("SELECT n FROM fed ORDER BY n")
        assert cursor.fetchall() == ((1,), (2,), (3,))


@pytest.mark.parametrize("plugin", [b"mysql_clear_password", b"sha256_password", b"dialog", b"x"])
def test_a_stranger_is_not_told_the_password(connection: Any, plugin: bytes) -> None:
    packet = cast(Any, SimpleNamespace())

    with pytest.raises(pymysql.OperationalError, match="withheld"):
        connection._process_auth(plugin, packet)


def test_without_an_authority_no_context_is_built_anew(connection: Any) -> None:
    assert connection._create_ssl_ctx({}) is connection._create_ssl_ctx({})
