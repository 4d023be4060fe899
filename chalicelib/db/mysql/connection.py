"""A connection to MySQL through PyMySQL: prepared, pipelined, its errors in words. `db` holds them.

The only importer of the driver, with `row_reader`. Who we are to the server comes from `identity`;
who the server is its certificate tells, where `DB_SSL_CA` says who signs it. A new connection costs
3 round trips, a batch of statements 1.
"""

import ipaddress
import re
import select
import ssl
import time
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import pymysql
from pymysql._auth import caching_sha2_password_auth, scramble_caching_sha2
from pymysql.constants import CLIENT, COMMAND, CR, ER

from chalicelib.config import DB_SSL_CA, Settings
from chalicelib.credentials.identity import Login
from chalicelib.db.mysql.row_reader import RowReader
from chalicelib.db.statements import COMMIT, Statement
from chalicelib.errors import (
    ConfigurationError,
    DatabaseUnavailable,
    OutcomeUnknown,
    network_words,
)
from chalicelib.network import reach

MySQLError = pymysql.MySQLError

CONNECT_TIMEOUT_SECONDS = 2
ANSWER_TIMEOUT_SECONDS = 2.5
LOCK_TIMEOUT_SECONDS = 2
LOAD_TIMEOUT_SECONDS = 120
"""For each answer while a file is loaded, each piece sent, each lock waited for."""
IDLE_TIMEOUT_SECONDS = 60
"""Then the server drops a connection: a container that vanished holds no row longer, and one that
idles keeps no Aurora awake."""
MAX_ATTEMPTS = 4
RESUME_RETRY_AFTER_SECONDS = 5
SYSTEM_AUTHORITIES = "system"

_PACKAGE = Path(__file__).parent.parent

# One statement a connection instead of the driver's three. Strict mode: nothing is cut to fit.
# READ COMMITTED: no gap locks, so that writers of different rows never wait for each other.
_SESSION = (
    "SET character_set_client=utf8mb4, character_set_connection=utf8mb4,"
    " character_set_results=utf8mb4, autocommit=1, sql_mode='STRICT_ALL_TABLES',"
    f" innodb_lock_wait_timeout={LOCK_TIMEOUT_SECONDS}, wait_timeout={IDLE_TIMEOUT_SECONDS},"
)

_CONNECTION_KILLED = 1927
_HOST_BLOCKED, _HOST_REFUSED = 1129, 1130
_CONNECTIONS_USED_UP = frozenset({1203, 1226})
_LOCKED = frozenset({3118, 4151})  # MySQL, MariaDB
_EXPIRED = frozenset({1820, 1862})
_NO_PASSWORD_TAKEN = 1698
_TLS_REQUIRED = 3159
_LOGIN_NEEDS_TLS = ER.NOT_SUPPORTED_AUTH_MODE
_PASSWORD_WITHHELD = CR.CR_AUTH_PLUGIN_ERR
_NATIVE = b"mysql_native_password"
_SHA2 = b"caching_sha2_password"
_PROVES_ONLY = frozenset({_NATIVE, _SHA2, b"client_ed25519"})
"""Ways to log in that prove that we know the password, and do not tell it. All others do, and so
does the second half of _SHA2: see `_Sha2Login`."""
_SHA2_IS_ENOUGH = b"\x01\x03"
_PRIMARY = "PRIMARY"
_KEY_OUT_OF_RANGE = 167
_NO_NEXT_KEY = 1467
# A server that was demoted to a replica refuses writes with these. It is the wrong server now.
_READ_ONLY = 1290
_DEMOTED = frozenset({_READ_ONLY, 1792, 1836})
_LOST = frozenset(
    {CR.CR_SERVER_GONE_ERROR, CR.CR_SERVER_LOST, ER.SERVER_SHUTDOWN, _CONNECTION_KILLED}
)
# The database undid the transaction because another one was in its way.
_UNDONE = frozenset({ER.LOCK_DEADLOCK, ER.DUP_ENTRY})

# The server refused the COMMIT, or never received it whole.
_CERTAINLY_NOT_COMMITTED = _DEMOTED | {CR.CR_SERVER_GONE_ERROR, ER.LOCK_DEADLOCK}

# A table or a column that a statement names is not there, one that it does not name needs a value.
_MISFIT = frozenset({ER.NO_SUCH_TABLE, ER.BAD_FIELD_ERROR, ER.NO_DEFAULT_FOR_FIELD})
_CHECK_VIOLATED = frozenset({3819, 4025})  # MySQL, MariaDB
_CHILD_WITHOUT_PARENT, _PARENT_WITH_CHILD = 1452, 1451
_SIGNAL, _SIGNAL_STATE = 1644, "45000"
_NO_PARTITION = frozenset({1526, 1591})
_NO_DEFINER = 1449
_GUARD_FAILED = 1242  # a subquery in place of a value gave two rows
_VALUE_REFUSED = _CHECK_VIOLATED | {
    *(ER.DATA_TOO_LONG, ER.WARN_DATA_OUT_OF_RANGE, ER.TRUNCATED_WRONG_VALUE_FOR_FIELD),
    *(ER.WARN_DATA_TRUNCATED, _CHILD_WITHOUT_PARENT, _PARENT_WITH_CHILD, _SIGNAL),
    *(ER.BAD_NULL_ERROR, *_NO_PARTITION),
}
# "INSERT command denied to user 'u'@'h' for table `herocache`.`heroes`", or "for column 'xp' in
# table 'heroes'".
_DENIED = frozenset({1142, 1143})
_RIGHT = re.compile(r"^([A-Z, ]+) command denied ")
_DENIED_TABLE = re.compile(r"table ['`](?:[^'`]*`\.`)?([^'`]+)['`]$")
# "for column 'xp' at row 2", in places "for column `herocache`.`heroes`.`xp` at row 2".
# A value that is quoted ahead of it may look the same: the end is what counts.
_COLUMN = re.compile(r"for column ['`](?:[^'`]*`\.`)*([^'`]+)['`] at row \d+$")
_NULL_COLUMN = re.compile(r"^Column '([^']+)' cannot be null")
_MISSING_TABLE = re.compile(r"^Table '(?:[^']*\.)?([^'.]+)' doesn't exist$")
_FOREIGN_KEY = re.compile(r"FOREIGN KEY \(`([^`]+)`\) REFERENCES `([^`]+)`")
_INDEX = re.compile(r"for key '(?:[^']*\.)?([^'.]+)'$")
_CONSTRAINT = re.compile(r"onstraint ['`](?:[^'`]*\.)?([^'`.]+)['`]", re.IGNORECASE)

_IN_WORDS = {
    ER.ACCESS_DENIED_ERROR: "it refuses the user or the password (DB_USER, DB_PASS)",
    CR.CR_SSL_CONNECTION_ERROR: "it speaks no TLS, and DB_SSL_CA asks for it",
    _PASSWORD_WITHHELD: "it asks for the password itself, which only a server with a checked"
    " certificate is told: set DB_SSL_CA, or log in with mysql_native_password",
    ER.DBACCESS_DENIED_ERROR: "the user has no rights on this database (DB_NAME)",
    ER.BAD_DB_ERROR: "it has no database of this name (DB_NAME)",
    ER.CON_COUNT_ERROR: "it has no connection left",
    **dict.fromkeys(
        _CONNECTIONS_USED_UP,
        "the user has reached a limit of its account, such as max_user_connections: raise it for"
        " DB_USER, or have fewer containers",
    ),
    **dict.fromkeys(_LOCKED, "the account of the user is locked (DB_USER): ALTER USER unlocks it"),
    **dict.fromkeys(_EXPIRED, "the user's password has expired (DB_USER, DB_PASS): set a new one"),
    _HOST_REFUSED: "the user may not log in from this host: create DB_USER for it, or for '%'",
    _HOST_BLOCKED: "it blocks this host after too many failed logins: FLUSH HOSTS ends that",
    _NO_PASSWORD_TAKEN: "the user has no password to log in with (DB_USER): give it one",
    ER.LOCK_WAIT_TIMEOUT: "another transaction holds the rows",
    ER.LOCK_DEADLOCK: "it broke a deadlock with another transaction",
    ER.DUP_ENTRY: "other writers insert the same keys at the same time; where that does not end, a"
    " trigger inserts a key that its table has already",
    ER.SERVER_SHUTDOWN: "it is shutting down",
    _CONNECTION_KILLED: "it closed the connection",
    _TLS_REQUIRED: "it takes connections over TLS only",
    _LOGIN_NEEDS_TLS: "its way to log in needs TLS: use mysql_native_password, or TLS",
    **dict.fromkeys(_DEMOTED, "it is read-only now: a failover is going on"),
}


class Answer(NamedTuple):
    """Of one statement: the rows it selected, the first key it generated (0: none)."""

    rows: Sequence[Any]
    first_key: int


class Loaded(NamedTuple):
    """What the server says of a LOAD DATA: rows that came, rows in whose place others are now, rows
    it left out, values it changed to fit."""

    rows: int
    deleted: int
    skipped: int
    warnings: int


class Connection(pymysql.connections.Connection):
    """The driver's connection, prepared in one statement, with the few verbs `db` uses. `feed`:
    what the server gets that asks for a file to load, in pieces of 16 MB at most."""

    feed: Iterable[bytes] = ()
    key_step: int = 1
    """How far apart the keys are that the server gives: servers that take writes side by side are
    set to give each its own."""
    answered = 0
    """How many of the statements that were sent last gave an answer."""
    sent_at = 0.0
    """When these were ready to go, in monotonic seconds: the server began with none before."""
    _owes_answers = False
    _auth_plugin_name: str
    _result: Any

    def connect(self, sock: Any = None) -> None:
        """With one time for the look-up of the host's name and all addresses that it has."""
        try:
            seconds = self.connect_timeout or CONNECT_TIMEOUT_SECONDS
            sock = reach(self.host, self.port, seconds)
        except OSError as error:
            raise pymysql.OperationalError(CR.CR_CONN_HOST_ERROR, "no connection") from error
        super().connect(sock)

    def set_character_set(self, charset: str, collation: str | None = None) -> None:
        is_mariadb = "MariaDB" in self.get_server_info()  # type: ignore[no-untyped-call]
        isolation = "tx_isolation" if is_mariadb else "transaction_isolation"
        session = (f"{_SESSION} {isolation}='READ-COMMITTED'", ())
        *_, found = self.batch([session, ("SELECT @@auto_increment_increment", ())])
        [(self.key_step,)] = found.rows
        self.encoding = "utf8"

    def _read_query_result(self, unbuffered: bool = False) -> int | None:
        self._result = None
        result: Any = RowReader(self)
        result.read()
        self._result = result
        if result.server_status is not None:
            self.server_status: Any = result.server_status
        return result.affected_rows  # type: ignore[no-any-return]

    @staticmethod
    def _create_ssl_ctx(options: object) -> ssl.SSLContext:
        return options if isinstance(options, ssl.SSLContext) else _tls("")

    def _get_server_information(self) -> None:
        """The greeting: a server that is waking up takes the connection and is silent. One that
        has greeted is awake; what is left of the patience goes to the login, which never begins
        with what tells the password: a server that wants it asks for it then."""
        begun = time.monotonic()
        super()._get_server_information()  # type: ignore[misc]
        left = self._read_timeout - (time.monotonic() - begun)
        self.wait_at_most(max(left, min(self._read_timeout, CONNECT_TIMEOUT_SECONDS)))
        self._sock.settimeout(self._read_timeout)  # type: ignore[attr-defined]
        self._current_timeout = self._read_timeout
        if self._auth_plugin_name.encode() not in _PROVES_ONLY:
            self._auth_plugin_name = _NATIVE.decode()

    def _process_auth(self, plugin_name: bytes, packet: Any, handler: Any = None) -> Any:
        if plugin_name not in _PROVES_ONLY:
            self.refuse_stranger()
        return super()._process_auth(plugin_name, packet, handler)  # type: ignore[misc]

    def refuse_stranger(self) -> None:
        """A password, or a token that is as good as one, is told to nobody whose certificate was
        not checked, whatever they ask for: neither in clear text nor under a key that they send.
        Raises MySQLError."""
        context: ssl.SSLContext | None = getattr(self, "ctx", None)
        is_tls = isinstance(self._sock, ssl.SSLSocket)  # type: ignore[attr-defined]
        if not (is_tls and context is not None and context.verify_mode == ssl.CERT_REQUIRED):
            raise pymysql.OperationalError(_PASSWORD_WITHHELD, "the password is withheld")

    def rows(self, statement: Statement) -> Sequence[Any]:
        return self.batch([statement])[0].rows

    def batch(self, statements: Sequence[Statement]) -> list[Answer]:
        """Run these one after the other, up to the first that fails: one round trip."""
        self.send(statements)
        return self.receive()

    def send(self, statements: Sequence[Statement]) -> None:
        """Have the server begin with these; `receive` waits for it."""
        text = ";".join(text for text, _ in statements)
        values = [value for _, values in statements for value in values]
        self.answered, self._owes_answers = 0, True
        piece = self.cursor().mogrify(text, values).encode(self.encoding, "surrogateescape")
        self.sent_at = time.monotonic()
        self._execute_command(COMMAND.COM_QUERY, piece)  # type: ignore[attr-defined]

    def receive(self) -> list[Answer]:
        """The answer to each statement that `send` sent."""
        answers = []
        try:
            while self._owes_answers:
                self._read_query_result()
                result = self._result
                answers.append(Answer(result.rows or (), int(result.insert_id or 0)))
                self._owes_answers = result.has_next
        except MySQLError:
            self._owes_answers = False  # the server runs none of the rest
            raise
        finally:
            self.answered = len(answers)
        return answers

    def batch_and_commit(self, statements: Sequence[Statement]) -> list[Answer]:
        """Run these and COMMIT, in one round trip; nothing is committed where one of them fails.
        Raises OutcomeUnknown where the connection is lost meanwhile."""
        self.send([*statements, COMMIT])
        try:
            return self.receive()[:-1]
        except Exception as error:  # whatever it is, the server may have gone on to the COMMIT
            is_before_commit = self.answered < len(statements) and _is_said_by_server(error)
            if is_before_commit or code_of(error) in _CERTAINLY_NOT_COMMITTED:
                raise
            raise OutcomeUnknown(
                "the connection to the database was lost while it committed: the write may or may"
                " not have happened; read the rows before you write them again"
            ) from error

    def load(self, statement: Statement, feed: Iterable[bytes]) -> None:
        """Run a LOAD DATA LOCAL of what `feed` brings. Whatever that raises goes up; the rows so
        far are then in the table. The server only warns of a row that it leaves out or changes:
        its first warning is raised as the error it is."""
        self.feed = feed
        try:
            with self.cursor() as cursor:
                cursor.execute(*statement)
        finally:
            self.feed = ()
        loaded = Loaded(*map(int, re.findall(rb": (\d+)", self._result.message)))
        if loaded.skipped or loaded.warnings:
            [(_, code, message), *_] = self.rows(("SHOW WARNINGS LIMIT 1", ()))
            raise pymysql.DataError(code, str(loaded), message)

    def wait_at_most(self, seconds: float) -> None:
        """For each answer from here on."""
        self._read_timeout: float = seconds

    def be_patient(self, seconds: float) -> None:
        """With an answer, with what is sent, and with other transactions; the server likewise."""
        self._read_timeout = self._write_timeout = seconds
        self.query(
            f"SET innodb_lock_wait_timeout={seconds:.0f}, net_read_timeout={seconds:.0f},"
            f" wait_timeout={seconds:.0f}"
        )

    def undo(self) -> None:
        """ROLLBACK; where that cannot be asked the connection is closed, which does the same."""
        if self._owes_answers:
            self.drop()
            return
        try:
            self.rollback()
        except MySQLError:
            self.drop()

    def was_closed_by_server(self) -> bool:
        """An idle server has nothing to say but goodbye. Costs no round trip."""
        poll = select.poll()
        poll.register(self._sock, select.POLLIN)  # type: ignore[attr-defined]
        return bool(poll.poll(0))

    def drop(self) -> None:
        """Close without a word to the server, and without an error."""
        self._force_close()  # type: ignore[attr-defined]


class _Sha2Login:
    """The driver's way to log in by `caching_sha2_password`. A server that does not remember the
    password (the first login since it was started) asks for it."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def authenticate(self, packet: Any) -> Any:
        connection = self._connection
        if packet.is_auth_switch_request():
            connection.salt = packet.read_all().removesuffix(b"\0")
            connection.write_packet(scramble_caching_sha2(connection.password, connection.salt))
            packet = connection._read_packet()
        if not packet.get_all_data().startswith(_SHA2_IS_ENOUGH):
            connection.refuse_stranger()
        return caching_sha2_password_auth(connection, packet)


def connect(
    settings: Settings, login: Login, patience_seconds: float, *, for_loads: bool
) -> Connection:
    """`patience_seconds` for the server's greeting; the network and the login have less. One for
    loads may be asked for files: see `Connection.feed`. Raises MySQLError, ConfigurationError."""
    authority = settings.db_ssl_ca
    try:
        connection = Connection(
            host=settings.db_host,
            port=settings.db_port,
            user=login.user,
            password=login.password,
            database=settings.db_name,
            charset="utf8mb4",
            autocommit=None,
            client_flag=CLIENT.MULTI_STATEMENTS,
            connect_timeout=min(patience_seconds, CONNECT_TIMEOUT_SECONDS),
            read_timeout=patience_seconds,
            write_timeout=ANSWER_TIMEOUT_SECONDS,
            ssl=_tls(authority) if authority else None,
            ssl_disabled=not authority and _is_loopback(settings.db_host),
            local_infile=for_loads,
            auth_plugin_map={_SHA2.decode(): _Sha2Login},
        )
        if for_loads:
            connection.be_patient(LOAD_TIMEOUT_SECONDS)
        return connection
    except RuntimeError as error:  # the driver's word for a login it has no library for
        raise pymysql.OperationalError(_LOGIN_NEEDS_TLS, str(error)) from error


def refuse_replica(is_read_only: int) -> None:
    """A replica answers reads, with what it has so far: raises what it says to a write."""
    if is_read_only:
        raise pymysql.OperationalError(_READ_ONLY, "the server is read-only")


def _is_said_by_server(error: BaseException) -> bool:
    """Not by the driver, which numbers from 2000 on what became of the connection."""
    return code_of(error) > 0 and code_of(error) // 1000 != 2


def is_refused(error: MySQLError) -> bool:
    """Whether the server knows no such user, or another password."""
    return code_of(error) == ER.ACCESS_DENIED_ERROR


def translated_from_connecting(error: MySQLError, settings: Settings) -> Exception:
    """As `translated`. A database that may sleep, and takes a connection without a word, may be
    waking up because of it."""
    found = translated(error)
    if found is error:
        found = DatabaseUnavailable(
            f"the database refuses the connection (DB_HOST, DB_USER): its error {code_of(error)}"
        )
    is_silent = isinstance(_origin(error), TimeoutError)
    if settings.db_resume_seconds and is_silent and isinstance(found, DatabaseUnavailable):
        found = DatabaseUnavailable(f"{found} Or it is waking up: try again in a moment")
        found.retry_after_seconds = RESUME_RETRY_AFTER_SECONDS
    return found


def translated(error: MySQLError) -> Exception:
    """The error for storage's callers; what is not about reaching the database is a bug."""
    code = code_of(error)
    if code in _IN_WORDS:
        found = DatabaseUnavailable(f"the database cannot be used now: {_IN_WORDS[code]}")
        found.has_other_writer = code in _DEMOTED
        return found
    if code == _NO_DEFINER:
        return ConfigurationError(
            "a trigger of the table belongs to a user (its DEFINER) that is not there any more:"
            " create the trigger again"
        )
    if code in _DENIED:
        right, table = _refusal_part(_RIGHT, error), _refusal_part(_DENIED_TABLE, error)
        return ConfigurationError(
            f"DB_USER: the user lacks a right ({right}) on the table {table} or on a column of it:"
            f" have an operator run GRANT SELECT, INSERT, UPDATE, DELETE ON `{table}` TO that user"
        )
    if code in _LOST or code == CR.CR_CONN_HOST_ERROR or isinstance(error, pymysql.InterfaceError):
        origin = _origin(error)
        is_stranger = isinstance(origin, ssl.SSLCertVerificationError)
        where = DB_SSL_CA if is_stranger else "DB_HOST, DB_PORT"
        return DatabaseUnavailable(
            f"the database cannot be reached ({where}): {network_words(origin)}"
        )
    return error


def code_of(error: BaseException | None) -> int:
    """0 for what has none, as some errors of the driver."""
    code = error.args[0] if isinstance(error, MySQLError) and error.args else 0
    return code if isinstance(code, int) else 0


def is_key_space_exhausted(error: MySQLError, highest_key: int) -> bool:
    """Whether an INSERT failed because AUTO_INCREMENT has no key left. MySQL gives the highest one
    again then, and calls that a duplicate."""
    if code_of(error) == ER.DUP_ENTRY:
        is_key = duplicate_index(error) == _PRIMARY
        return is_key and str(error.args[-1]).startswith(f"Duplicate entry '{highest_key}' ")
    return code_of(error) in (_KEY_OUT_OF_RANGE, _NO_NEXT_KEY)


def is_guard_failed(error: BaseException | None) -> bool:
    """Whether the statement was an error because what it guards does not hold."""
    return code_of(error) == _GUARD_FAILED


def is_misfit(error: MySQLError) -> bool:
    """Whether the database's tables are not those that the statement was made for."""
    return code_of(error) in _MISFIT


def is_forbidden(error: MySQLError) -> bool:
    """Whether the user lacks the right for a statement in this database."""
    return code_of(error) == ER.DBACCESS_DENIED_ERROR


def is_value_refused(error: MySQLError) -> bool:
    """Whether a row was refused for what is in it: it would be again."""
    if code_of(error) == ER.DUP_ENTRY:
        return duplicate_index(error) not in ("", _PRIMARY)
    return code_of(error) in _VALUE_REFUSED or _is_signal(error)


def duplicate_index(error: MySQLError) -> str:
    """The unique index that has the value of the row already; empty for other errors."""
    return _refusal_part(_INDEX, error) if code_of(error) == ER.DUP_ENTRY else ""


def missing_table(error: MySQLError) -> str:
    """The table that a statement, or a trigger that it set off, did not find; or empty."""
    return _refusal_part(_MISSING_TABLE, error)


def _is_signal(error: MySQLError) -> bool:
    """Whether a trigger raised it, which may choose the number."""
    return code_of(error) == _SIGNAL or getattr(error, "sqlstate", "") == _SIGNAL_STATE


def refusal(error: MySQLError) -> tuple[str, str]:
    """The column that an error of `is_value_refused` names, empty where it names none; and the
    reason. A duplicate names an index, which may be called like any column."""
    code = code_of(error)
    column = _refusal_part(_COLUMN, error)
    if code == ER.DUP_ENTRY:
        reason = f"another row has this value already (unique index {duplicate_index(error)})"
        return "", reason
    if code in _CHECK_VIOLATED:
        rule = _refusal_part(_CONSTRAINT, error)
        return rule, f"the table does not take this row (CHECK constraint {rule})"
    if code == _CHILD_WITHOUT_PARENT:
        other = _refusal_part(_FOREIGN_KEY, error, 2)
        return _refusal_part(_FOREIGN_KEY, error), f"no row of {other} has this value (foreign key)"
    if code == _PARENT_WITH_CHILD:
        return "", "rows of another table refer to this one (foreign key)"
    if code == ER.BAD_NULL_ERROR:
        return _refusal_part(_NULL_COLUMN, error), "a trigger gives it NULL, which it does not take"
    if code in _NO_PARTITION:
        return "", "the table has no partition for this row"
    if _is_signal(error):
        return "", f"a trigger refuses this row: {error.args[-1]}"
    return column, "the database does not take this value"


def _refusal_part(pattern: re.Pattern[str], error: MySQLError, group: int = 1) -> str:
    found = pattern.search(str(error.args[-1]))
    return found[group] if found else ""


def is_unfit(error: BaseException | None) -> bool:
    """Whether the connection that met this error is of no more use."""
    return code_of(error) in _LOST | _DEMOTED


def _origin(error: BaseException) -> BaseException | None:
    return getattr(error, "original_exception", None) or error.__context__


def is_worth_another_try(error: MySQLError, attempt: int) -> bool:
    """On a new connection once, unless the server was silent: it would be silent again."""
    if code_of(error) in _UNDONE:
        return attempt + 1 < MAX_ATTEMPTS
    is_lost = code_of(error) in _LOST | _DEMOTED
    return is_lost and attempt == 0 and not isinstance(_origin(error), TimeoutError)


@lru_cache
def _tls(authority: str) -> ssl.SSLContext:
    """Built once a process: it takes 19 ms. `authority` signs the server's certificate: a file,
    from the package's folder on, or the system's; the server's name is checked too. Empty: as the
    driver's own context it encrypts and asks nobody."""
    is_file = authority not in ("", SYSTEM_AUTHORITIES)
    try:
        context = ssl.create_default_context(cafile=_PACKAGE / authority if is_file else None)
    except OSError as error:
        raise ConfigurationError(
            f"{DB_SSL_CA}: expected {SYSTEM_AUTHORITIES}, or a file of PEM certificates that can be"
            " read, its path from the folder of app.py on"
        ) from error
    # As the driver does: authorities that databases make themselves fail Python 3.13's strict mode.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if not authority:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
