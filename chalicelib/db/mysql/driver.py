"""A PyMySQL connection that waits and logs in as we want it to.

This module and `result_reader` depend on private parts of PyMySQL, and no other one does. PyMySQL
has no public interface for what is here: how long to wait for a server's greeting, to whom the
password is told, where LOAD DATA gets its rows from, and a faster way to read rows. Any release may
change these parts without notice, and a changed part could give a wrong answer instead of an error.
So `require_checked_driver` accepts only the versions in CHECKED_VERSIONS. To add a version:
install it, run tests/db/test_driver.py, which checks each part in PRIVATE_PARTS, and name it here.
"""

import io
import re
import select
import ssl
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pymysql
from pymysql import _auth
from pymysql.connections import MySQLResult
from pymysql.constants import COMMAND, CR, SERVER_STATUS

from chalicelib.db.mysql.result_reader import ResultReader
from chalicelib.db.mysql.tls import tls_context
from chalicelib.errors import ConfigurationError

CHECKED_VERSIONS = ("1.2.4",)

CONNECT_TIMEOUT_SECONDS = 2
# An answer that comes slower counts as silence. So many bytes of it give it one more second.
MIN_BYTES_A_SECOND = 250_000
# To set a timeout takes two system calls. A wait may end so much later without them.
_SLACK_SECONDS = 0.02
# What has come is read after the time is over, too: the process may have had no CPU.
_SHORTEST_SECONDS = 0.001

PRIVATE_PARTS: Mapping[Any, Mapping[str, tuple[str, ...]]] = {
    pymysql.connections.Connection: {
        "_create_ssl_ctx": ("self", "sslp"),
        "_execute_command": ("self", "command", "sql"),
        "_force_close": ("self",),
        "_get_server_information": ("self",),
        "_process_auth": ("self", "plugin_name", "auth_packet", "handler"),
        "_read_packet": ("self", "packet_type"),
        "_read_query_result": ("self", "unbuffered"),
        "_write_bytes": ("self", "data"),
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
# The first one first: the others make it.
_ESCAPES = (
    *(("\\", "\\\\"), ("\0", "\\0"), ("\n", "\\n"), ("\r", "\\r")),
    *(("\x1a", "\\Z"), ("'", "\\'"), ('"', '\\"')),
)


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
    _answer: "_Answer | None" = None
    _reader: io.BufferedReader | None = None

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
            else f"'{value if is_plain or value.isalnum() else _escaped(value)}'"
            if type(value) is str
            else self.escape(value)
            for value in values
        ]
        return text % tuple(literals)

    def send_all(self, text: str) -> None:
        """Send the statements of `text`. `receive_all` must follow."""
        self._execute_command(COMMAND.COM_QUERY, text.encode())  # type: ignore[attr-defined]

    def receive_all(self, answers: list[Sequence[Any]]) -> None:
        """Add the rows of each statement that was sent to `answers`, as they come."""
        self._read_query_result()
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

    @property
    def _rfile(self) -> io.BufferedReader | None:
        """Where the driver reads. It makes one for each socket."""
        return self._reader

    @_rfile.setter
    def _rfile(self, file: io.BufferedReader | None) -> None:
        self._answer = _Answer(self, file.detach()) if file else None
        self._reader = io.BufferedReader(self._answer) if self._answer else None

    def _write_bytes(self, data: bytes) -> None:
        super()._write_bytes(data)  # type: ignore[misc]
        if self._answer:
            self._answer.begin()

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
        if self._answer:
            self._answer.begin()
        result: Any = ResultReader(self)
        result.read()
        self._result = result
        self.message = result.message
        if result.server_status is not None:
            self.server_status: Any = result.server_status
        return result.affected_rows  # type: ignore[no-any-return]


class _Answer(io.RawIOBase):
    """What comes from the server. The socket's timeout counts anew with each piece that comes. Here
    one limit holds for an answer as a whole, and each byte that comes moves it."""

    def __init__(self, connection: Any, pieces: Any) -> None:
        self._connection = connection
        self._pieces = pieces
        self.begin()

    def begin(self) -> None:
        """The time for an answer begins with the next wait."""
        self._until = 0.0
        self._is_short = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        connection, now = self._connection, time.monotonic()
        whole = connection._read_timeout
        self._until = self._until or now + whole
        left = min(self._until - now, whole)
        if self._is_short or left < whole - _SLACK_SECONDS:
            self._is_short = True
            connection._current_timeout = None  # the driver sets another one for the next answer
            connection._sock.settimeout(max(left, _SHORTEST_SECONDS))
        count: int | None = self._pieces.readinto(buffer)
        self._until += (count or 0) / MIN_BYTES_A_SECOND
        return count

    def close(self) -> None:
        self._pieces.close()
        super().close()


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


def _escaped(value: str) -> str:
    """At C speed, also where each character is escaped."""
    for character, escape in _ESCAPES:
        value = value.replace(character, escape)
    return value
