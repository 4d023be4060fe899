"""Everything in this service that depends on private parts of PyMySQL, and nothing else.

PyMySQL has no public interface for what is here: how long to wait for a server's greeting, to whom
the password is told, where LOAD DATA gets its rows from, and a faster way to read rows. Any release
may change these parts without notice, and a changed part could give a wrong answer instead of an
error. So `require_checked_driver` accepts only the versions in CHECKED_VERSIONS. To add a version:
install it, run tests/db/test_driver.py, which checks each part in PRIVATE_PARTS, and name it here.
"""

import re
import select
import ssl
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import pymysql
from pymysql import MySQLError, _auth, converters
from pymysql.connections import TEXT_TYPES, MySQLResult
from pymysql.constants import CR, FIELD_TYPE, SERVER_STATUS
from pymysql.protocol import MysqlPacket

from chalicelib.db.mysql.tls import tls_context
from chalicelib.errors import ConfigurationError

CHECKED_VERSIONS = ("1.2.4",)

CONNECT_TIMEOUT_SECONDS = 2

PRIVATE_PARTS: Mapping[Any, Mapping[str, tuple[str, ...]]] = {
    pymysql.connections.Connection: {
        "_create_ssl_ctx": ("self", "sslp"),
        "_force_close": ("self",),
        "_get_server_information": ("self",),
        "_process_auth": ("self", "plugin_name", "auth_packet", "handler"),
        "_read_packet": ("self", "packet_type"),
        "_read_query_result": ("self", "unbuffered"),
    },
    MySQLResult: {
        "_get_descriptions": ("self",),
        "_read_load_local_packet": ("self", "first_packet"),
        "_read_rowdata_packet": ("self",),
    },
    _auth: {
        "caching_sha2_password_auth": ("conn", "pkt"),
        "scramble_caching_sha2": ("password", "nonce"),
    },
}
PRIVATE_ATTRIBUTES = (
    *("_auth_plugin_name", "_current_timeout", "_next_seq_id", "_read_timeout", "_result"),
    *("_rfile", "_sock", "_write_timeout"),
)

_NATIVE = "mysql_native_password"
_SHA2 = "caching_sha2_password"
# Logins that prove that we know the password without sending it. All others send the password, and
# so does the second half of _SHA2: see `_Sha2Login`.
_PROVES_ONLY = frozenset({_NATIVE, _SHA2, "client_ed25519"})
_SHA2_IS_ENOUGH = b"\x01\x03"
PASSWORD_WITHHELD = CR.CR_AUTH_PLUGIN_ERR

# What the driver writes another way within a literal.
_ESCAPED = re.compile("[\0\\\\\n\r\x1a\"']")

_OK, _FILE, _END, _ERROR = 0, 0xFB, 0xFE, 0xFF
_NULL = 0xFB
# By its first byte, in how many more bytes a number stands that does not fit into that one.
_WIDTHS: Mapping[int, int] = {0xFC: 2, 0xFD: 3, 0xFE: 8}
_LONGEST_PACKET = 0xFFFFFF
# What every definition of a column begins with, and how many bytes of it say what the values are:
# the length of the rest, the character set, the longest value, the type, flags and so on.
_COLUMN = b"\x03def"
_COLUMN_END = 13
_BINARY = 63
_CLOSED = "the server closed the connection"


def require_checked_driver() -> None:
    """Raises ConfigurationError where another PyMySQL is installed than this module knows."""
    installed = ".".join(map(str, pymysql.VERSION[:3]))
    if installed not in CHECKED_VERSIONS:
        raise ConfigurationError(
            f"PyMySQL {installed} is installed, and this service works with"
            f" {' or '.join(CHECKED_VERSIONS)} only: install the packages of requirements.txt"
        )


class DriverConnection(pymysql.connections.Connection):
    """A PyMySQL connection whose waiting, logging in and reading of rows are ours. `feed` is what
    the server gets when it asks for a file to load, in pieces of at most 16 MB."""

    feed: Iterable[bytes] = ()
    message = b""
    _auth_plugin_name: str

    def __init__(self, **options: Any) -> None:
        super().__init__(auth_plugin_map={_SHA2: _Sha2Login}, **options)

    def wait_at_most(self, seconds: float) -> None:
        """Wait so long for each answer from now on."""
        self._read_timeout: float = seconds

    def send_for_at_most(self, seconds: float) -> None:
        """Give the server so long to take each packet that is sent."""
        self._write_timeout: float = seconds

    def was_closed_by_server(self) -> bool:
        """A readable idle socket means that the server closed it. Costs no round trip."""
        poll = select.poll()
        poll.register(self._sock, select.POLLIN)  # type: ignore[attr-defined]
        return bool(poll.poll(0))

    def sql(self, text: str, values: Sequence[Any]) -> str:
        """The text with a literal in the place of each %s."""
        if self.server_status & SERVER_STATUS.SERVER_STATUS_NO_BACKSLASH_ESCAPES:
            return text % tuple(map(self.escape, values))
        is_plain = not _ESCAPED.search("".join([value for value in values if type(value) is str]))
        literals = [  # as the driver has them, in a third of the time
            str(value)
            if type(value) is int
            else f"'{value}'"
            if is_plain and type(value) is str
            else self.escape(value)
            for value in values
        ]
        return text % tuple(literals)

    def run_all(self, text: str, answers: list[Sequence[Any]]) -> None:
        """Run the statements of `text`. Adds the rows of each to `answers` as they come."""
        self.query(text)
        answers.append(self._result.rows or ())
        while self._result.has_next:
            self.next_result()
            answers.append(self._result.rows or ())

    def drop(self) -> None:
        """Close at once, without an error: the server may be gone, so it is not told."""
        self._force_close()  # type: ignore[attr-defined]

    def withhold_password_from_stranger(self) -> None:
        """Only a server whose certificate was checked is told the password, or a token that is as
        good as one: others get it neither in clear text nor under a key that they sent. Raises
        MySQLError."""
        context: ssl.SSLContext | None = getattr(self, "ctx", None)
        is_tls = isinstance(self._sock, ssl.SSLSocket)  # type: ignore[attr-defined]
        if not (is_tls and context is not None and context.verify_mode == ssl.CERT_REQUIRED):
            raise pymysql.OperationalError(PASSWORD_WITHHELD, "the password is withheld")

    @staticmethod
    def _create_ssl_ctx(options: object) -> ssl.SSLContext:
        """A context that exists already: to build one takes 19 ms."""
        return options if isinstance(options, ssl.SSLContext) else tls_context("")

    def _get_server_information(self) -> None:
        """Read the greeting. A server that is waking up takes the connection and is silent, so the
        greeting may use all of the read timeout. A server that has greeted is awake: the login
        gets what is left, or CONNECT_TIMEOUT_SECONDS if that is more. The login begins with a way
        that does not tell the password; a server that wants the password asks for it then."""
        begun = time.monotonic()
        super()._get_server_information()  # type: ignore[misc]
        left = self._read_timeout - (time.monotonic() - begun)
        self.wait_at_most(max(left, min(self._read_timeout, CONNECT_TIMEOUT_SECONDS)))
        self._sock.settimeout(self._read_timeout)  # type: ignore[attr-defined]
        self._current_timeout = self._read_timeout
        if self._auth_plugin_name not in _PROVES_ONLY:
            self._auth_plugin_name = _NATIVE

    def _process_auth(self, plugin_name: bytes, packet: Any, handler: Any = None) -> Any:
        if plugin_name.decode("latin-1") not in _PROVES_ONLY:
            self.withhold_password_from_stranger()
        return super()._process_auth(plugin_name, packet, handler)  # type: ignore[misc]

    def _read_query_result(self, unbuffered: bool = False) -> int | None:
        """As the driver's, with our reader of rows."""
        self._result: Any = None
        if self._current_timeout != self._read_timeout:
            self._sock.settimeout(self._read_timeout)  # type: ignore[attr-defined]
            self._current_timeout = self._read_timeout
        result: Any = ResultReader(self)
        result.read()
        self._result = result
        self.message = result.message
        if result.server_status is not None:
            self.server_status: Any = result.server_status
        return result.affected_rows  # type: ignore[no-any-return]


class _Sha2Login:
    """The driver's way to log in by `caching_sha2_password`. A server that does not remember the
    password (the first login since it was started) asks for the password itself."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def authenticate(self, packet: Any) -> Any:
        connection = self._connection
        if packet.is_auth_switch_request():
            connection.salt = packet.read_all().removesuffix(b"\0")
            scrambled = _auth.scramble_caching_sha2(connection.password, connection.salt)
            connection.write_packet(scrambled)
            packet = connection._read_packet()
        if not packet.get_all_data().startswith(_SHA2_IS_ENOUGH):
            connection.withhold_password_from_stranger()
        return _auth.caching_sha2_password_auth(connection, packet)


class ResultReader(MySQLResult):
    """A result that is read straight off the driver's buffer, because a request spends most of its
    time there: the driver makes an object of every packet, names each column, and looks up a codec
    for every value. Through the whole app an uncached read takes 22 % less time with this reader, a
    miss 13 % less, and an insert of one row 10 % less of this process's time. It reads integers,
    text in UTF-8 and bytes: our tables have nothing else. The rows are equal to the driver's. The
    layout is that of the text protocol: https://dev.mysql.com/doc/dev/mysql-server/latest/
    page_protocol_com_query_response_text_resultset.html."""

    decoders: Sequence[Callable[[bytes], Any]] = ()

    def read(self) -> None:
        """Where that ends in the middle of an answer the connection is closed."""
        connection: Any = self.connection
        try:
            packet = _packet(connection)
            if _OK < packet[0] < _FILE:
                self.field_count = packet[0]
                self._get_descriptions()
                self._read_rowdata_packet()
            elif packet[0] == _OK:
                self._see_ok(packet)
            elif packet[0] != _FILE:
                self._end(packet)
                raise _broken(connection, "rows ended before they began")
        except MySQLError:
            raise
        except OSError as error:
            connection._force_close()
            raise pymysql.OperationalError(CR.CR_SERVER_LOST, f"lost: {error}") from error
        except BaseException:
            connection._force_close()
            raise
        if packet[0] == _FILE:
            self._read_load_local_packet(MysqlPacket(packet, connection.encoding))
        self.connection = None

    def _read_load_local_packet(self, first_packet: MysqlPacket) -> None:
        """The server asks for the file of a LOAD DATA LOCAL. It gets what this connection was
        given to feed, whatever file it names. Where that fails the server is told that the file
        ends, so that it can be asked to roll back, and the failure goes up."""
        connection: Any = self.connection
        try:
            for piece in connection.feed:
                connection.write_packet(piece)
        except MySQLError:
            raise  # the connection is lost: nobody can be told anything
        except BaseException:
            self._end_file()
            raise
        self._see_ok(self._end_file())

    def _end_file(self) -> bytes:
        """What the server says of the file as a whole."""
        connection: Any = self.connection
        connection.write_packet(b"")
        packet: bytes = connection._read_packet().get_all_data()
        return packet

    def _see_ok(self, packet: bytes) -> None:
        self.affected_rows, at = _integer(packet, 1)
        _, at = _integer(packet, at)
        self._see_status(packet[at : at + 2])
        self.server_status = int.from_bytes(packet[at : at + 2], "little")
        self.message: Any = packet[at + 4 :]

    def _get_descriptions(self) -> None:
        """How the values of each column are read. The name of a column is left out."""
        connection: Any = self.connection
        decoders = []
        for _ in range(self.field_count):
            column = _packet(connection)
            if not column.startswith(_COLUMN):
                self._end(column)
                raise _broken(connection, "a column has no definition")
            decoders.append(_decoder(column[-_COLUMN_END:]))
        self._end(_packet(connection))
        self.decoders = decoders

    def _read_rowdata_packet(self) -> None:
        connection: Any = self.connection
        read, decoders = connection._rfile.read, self.decoders
        rows = []
        sequence = connection._next_seq_id
        while True:
            header = read(4)
            size = int.from_bytes(header[:3], "little")
            packet = read(size)
            if len(header) < 4 or len(packet) < size:
                raise ConnectionError(_CLOSED)
            if header[3] != sequence:
                raise _out_of_order(connection, header[3], sequence)
            sequence = (sequence + 1) % 256
            if size == _LONGEST_PACKET:
                connection._next_seq_id = sequence
                rows.append(_row(_continued(connection, packet), decoders))
                sequence = connection._next_seq_id
                continue
            if packet[0] >= _END:
                break
            rows.append(_row(packet, decoders))
        connection._next_seq_id = sequence
        self._end(packet)
        self.affected_rows = len(rows)
        self.rows = tuple(rows)

    def _end(self, packet: bytes) -> None:
        """The packet behind the columns or the rows. With DEPRECATE_EOF, which this driver does not
        ask for, it is longer."""
        connection: Any = self.connection
        if packet[0] == _ERROR:
            MysqlPacket(packet, connection.encoding).raise_for_error()
        if packet[0] != _END or len(packet) != 5:
            raise _broken(connection, "columns or rows ended with another packet than EOF")
        self._see_status(packet[3:])

    def _see_status(self, status: bytes) -> None:
        self.has_next = bool(status[0] & SERVER_STATUS.SERVER_MORE_RESULTS_EXISTS)


def _packet(connection: Any) -> bytes:
    """The next one; of more than 16 MiB only the first part."""
    header = connection._rfile.read(4)
    if len(header) < 4:
        raise ConnectionError(_CLOSED)
    if header[3] != connection._next_seq_id:
        raise _out_of_order(connection, header[3], connection._next_seq_id)
    connection._next_seq_id = (header[3] + 1) % 256
    size = int.from_bytes(header[:3], "little")
    packet: bytes = connection._rfile.read(size)
    if len(packet) < size:
        raise ConnectionError(_CLOSED)
    return packet


def _continued(connection: Any, packet: bytes) -> bytes:
    """A row that begins with `packet`, which is as long as one can be. Its last one is shorter."""
    parts = [packet]
    while len(parts[-1]) == _LONGEST_PACKET:
        parts.append(_packet(connection))
    return b"".join(parts)


def _out_of_order(connection: Any, number: int, expected: int) -> MySQLError:
    """As the driver has it. MariaDB numbers an error 0 when it shuts down."""
    error = _broken(connection, f"packet {number} came in place of packet {expected}")
    if number == 0:
        return pymysql.OperationalError(CR.CR_SERVER_LOST, "lost while it sent rows")
    return error


def _broken(connection: Any, words: str) -> MySQLError:
    connection._force_close()
    return pymysql.InternalError(words)


def _row(packet: bytes, decoders: Sequence[Callable[[bytes], Any]]) -> tuple[Any, ...]:
    """Each value is its length, then its text."""
    row: list[Any] = []
    at = 0
    for decode in decoders:
        length = packet[at]
        at += 1
        if length >= _NULL:
            if length == _NULL:
                row.append(None)
                continue
            width = _WIDTHS[length]
            length = int.from_bytes(packet[at : at + width], "little")
            at += width
        end = at + length
        row.append(decode(packet[at:end]))
        at = end
    return tuple(row)


def _integer(packet: bytes, at: int) -> tuple[int, int]:
    """The one that begins there, in as many bytes as it needs, and where the next part begins."""
    first = packet[at]
    if first < _NULL:
        return first, at + 1
    end = at + 1 + _WIDTHS[first]
    return int.from_bytes(packet[at + 1 : end], "little"), end


@lru_cache(maxsize=256)
def _decoder(column: bytes) -> Callable[[bytes], Any]:
    """How values are read, by the end of their column's definition."""
    charset, kind = int.from_bytes(column[1:3], "little"), column[7]
    if kind in TEXT_TYPES or kind == FIELD_TYPE.JSON:
        is_binary = charset == _BINARY and kind != FIELD_TYPE.JSON
        return bytes if is_binary else bytes.decode
    converter = converters.decoders.get(kind, str)
    return int if converter is int else lambda text: converter(text.decode())
