"""MySQL through PyMySQL: rows in, rows out, driver errors translated. Storage is the caller.

Identifiers in a statement come from the declared tables only; every value is a parameter.
Round trips: a read 1; an insert 1 (one statement that commits itself); a new connection 3.
"""

import ipaddress
import select
import ssl
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, TypeVar

import pymysql
from pymysql.constants import CR, ER

from chalicelib.config import Settings
from chalicelib.errors import (
    BadRequest,
    DatabaseUnavailable,
    HerocacheError,
    OutcomeUnknown,
    network_words,
)
from chalicelib.pool import Pool
from chalicelib.row_reader import RowReader
from chalicelib.tables import Column, Key, Row, Table

Result = TypeVar("Result")

CONNECT_TIMEOUT_SECONDS = 2
ANSWER_TIMEOUT_SECONDS = 2.5
LOCK_TIMEOUT_SECONDS = 2
ATTEMPTS = 2

# One statement a connection instead of the driver's three. Strict mode: nothing is cut to fit.
# READ COMMITTED: no gap locks, so that writers of different rows never wait for each other.
_SESSION = (
    "SET character_set_client=utf8mb4, character_set_connection=utf8mb4,"
    " character_set_results=utf8mb4, autocommit=1, sql_mode='STRICT_ALL_TABLES',"
    f" innodb_lock_wait_timeout={LOCK_TIMEOUT_SECONDS},"
)

_CONNECTION_KILLED = 1927
_TLS_REQUIRED = 3159
_LOGIN_NEEDS_TLS = ER.NOT_SUPPORTED_AUTH_MODE
_KEY_OUT_OF_RANGE = 167
_NO_NEXT_KEY = 1467
_NO_KEY_LEFT = frozenset({_KEY_OUT_OF_RANGE, _NO_NEXT_KEY, ER.DUP_ENTRY})
# A server that was demoted to a replica refuses writes with these. It is the wrong server now.
_DEMOTED = frozenset({1290, 1792, 1836})
_LOST = frozenset(
    {CR.CR_SERVER_GONE_ERROR, CR.CR_SERVER_LOST, ER.SERVER_SHUTDOWN, _CONNECTION_KILLED}
)
_WORTH_ANOTHER_TRY = _DEMOTED | _LOST | {ER.LOCK_DEADLOCK}

_IN_WORDS = {
    ER.ACCESS_DENIED_ERROR: "it refuses the user or the password (DB_USER, DB_PASS)",
    ER.DBACCESS_DENIED_ERROR: "the user has no rights on this database (DB_NAME)",
    ER.BAD_DB_ERROR: "it has no database of this name (DB_NAME)",
    ER.CON_COUNT_ERROR: "it has no connection left",
    ER.LOCK_WAIT_TIMEOUT: "another transaction holds the rows",
    ER.LOCK_DEADLOCK: "it broke a deadlock with another transaction",
    ER.SERVER_SHUTDOWN: "it is shutting down",
    _CONNECTION_KILLED: "it closed the connection",
    _TLS_REQUIRED: "it takes connections over TLS only",
    _LOGIN_NEEDS_TLS: "its way to log in needs TLS: use mysql_native_password, or TLS",
    **dict.fromkeys(_DEMOTED, "it is read-only now: a failover is going on"),
}


class Database:
    """The writer endpoint. Safe for threads: each call has a connection of its own."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._pool: Pool[_Connection] = Pool(self._connect, _Connection.drop)

    def fetch_many(
        self, table: Table, column: Column, values: Sequence[Key], max_rows: int
    ) -> Sequence[Row]:
        """The rows whose `column` is one of `values`, `max_rows` at the most; by a lookup in the
        order of their keys. One SELECT. Raises DatabaseUnavailable."""
        sql = f"{_select(table)} WHERE {column.name} IN ({_marks(len(values))})"
        if column is not table.key:
            sql += f" ORDER BY {table.key.name} LIMIT {max_rows:d}"
        return self._run(lambda connection: connection.rows(sql, values))

    def insert_many(self, table: Table, rows: Sequence[Row]) -> list[Key]:
        """Insert rows that come without a key, all or none; their new keys, rising in the order
        of `rows`. One statement. Raises DatabaseUnavailable, OutcomeUnknown."""
        return self._run(lambda connection: _committing(lambda: connection.insert(table, rows)))

    def transact(self, work: Callable[["Transaction"], Result]) -> Result:
        """What `work` returns, once what it did is committed. `work` runs again when the database
        certainly undid the first try, so it must be safe to run twice. A COMMIT never is.
        Raises DatabaseUnavailable, OutcomeUnknown, and whatever `work` raises."""

        def run(connection: "_Connection") -> Result:
            connection.begin()
            try:
                result = work(Transaction(connection))
            except BaseException:
                connection.undo()
                raise
            _committing(connection.commit)
            return result

        return self._run(run)

    def check(self) -> None:
        """One statement on a kept connection or a new one. Raises DatabaseUnavailable."""
        self._run(lambda connection: connection.rows("SELECT 1", ()))

    def _connect(self) -> "_Connection":
        try:
            return _Connection(
                host=self._settings.db_host,
                port=self._settings.db_port,
                user=self._settings.db_user,
                password=self._settings.db_pass,
                database=self._settings.db_name,
                charset="utf8mb4",
                autocommit=None,
                connect_timeout=CONNECT_TIMEOUT_SECONDS,
                read_timeout=ANSWER_TIMEOUT_SECONDS,
                write_timeout=ANSWER_TIMEOUT_SECONDS,
                ssl_disabled=_is_loopback(self._settings.db_host),
            )
        except RuntimeError as error:  # the driver's word for a login it has no library for
            raise pymysql.OperationalError(_LOGIN_NEEDS_TLS, str(error)) from error

    def _run(self, work: Callable[["_Connection"], Result]) -> Result:
        for attempt in range(ATTEMPTS):
            try:
                connection = self._acquire()
            except pymysql.MySQLError as error:
                raise _translated(error) from error
            try:
                result = work(connection)
            except pymysql.MySQLError as error:
                self._put_back(connection, error)
                if attempt + 1 < ATTEMPTS and _is_worth_another_try(error):
                    continue
                raise _translated(error) from error
            except HerocacheError as error:
                self._put_back(connection, error.__cause__)
                raise
            except BaseException:
                self._pool.discard(connection)
                raise
            self._pool.release(connection)
            return result
        raise AssertionError("unreachable: the last attempt returns or raises")

    def _acquire(self) -> "_Connection":
        """A kept connection unless the server has closed it meanwhile: found out only by sending a
        write over it, nobody could tell whether that was done."""
        connection = self._pool.acquire()
        if not connection.was_closed_by_server():
            return connection
        self._pool.discard(connection)
        return self._pool.acquire()

    def _put_back(self, connection: "_Connection", error: BaseException | None) -> None:
        if connection.open and _code(error) not in _LOST | _DEMOTED:
            self._pool.release(connection)
        else:
            self._pool.discard(connection)


class Transaction:
    """What may be done between BEGIN and COMMIT. One round trip a call."""

    def __init__(self, connection: "_Connection") -> None:
        self._connection = connection

    def lock_many(self, table: Table, keys: Sequence[Key]) -> Sequence[Row]:
        """The rows with these keys as they are now; nobody else changes them before COMMIT."""
        sql = (
            f"{_select(table)} WHERE {table.key.name} IN ({_marks(len(keys))})"
            f" ORDER BY {table.key.name} FOR UPDATE"
        )
        return self._connection.rows(sql, keys)

    def upsert_many(self, table: Table, rows: Sequence[Row]) -> None:
        """Insert each row, or put it in the place of the row that has its key; in key order."""
        columns = [column.name for column in table.columns]
        updates = ",".join(f"{name}=VALUES({name})" for name in columns[1:])
        in_order = sorted(rows)
        sql = f"{_insert(table, columns, len(rows))} ON DUPLICATE KEY UPDATE {updates}"
        self._connection.execute(sql, [value for row in in_order for value in row])

    def insert_many(self, table: Table, rows: Sequence[Row]) -> list[Key]:
        """As `Database.insert_many`."""
        return self._connection.insert(table, rows)


class _Connection(pymysql.connections.Connection):
    """The driver's connection, prepared in one statement, with the few verbs used above."""

    def set_character_set(self, charset: str, collation: str | None = None) -> None:
        is_mariadb = "MariaDB" in self.get_server_info()  # type: ignore[no-untyped-call]
        isolation = "tx_isolation" if is_mariadb else "transaction_isolation"
        self.query(f"{_SESSION} {isolation}='READ-COMMITTED'")
        self.encoding = "utf8"

    def _read_query_result(self, unbuffered: bool = False) -> int | None:
        self._result: Any = None
        result: Any = RowReader(self)
        result.read()
        self._result = result
        if result.server_status is not None:
            self.server_status: Any = result.server_status
        return result.affected_rows  # type: ignore[no-any-return]

    @staticmethod
    def _create_ssl_ctx(options: object) -> ssl.SSLContext:
        return _tls()

    def execute(self, sql: str, parameters: Sequence[Key]) -> int:
        """Run one statement; the first key it generated, 0 where there is none."""
        cursor = self.cursor()
        cursor.execute(sql, tuple(parameters))
        return int(cursor.lastrowid or 0)

    def rows(self, sql: str, parameters: Sequence[Key]) -> Sequence[Row]:
        cursor = self.cursor()
        cursor.execute(sql, tuple(parameters))
        return cursor.fetchall()

    def insert(self, table: Table, rows: Sequence[Row]) -> list[Key]:
        """InnoDB numbers the rows of one plain multi-row INSERT without gaps in every
        `innodb_autoinc_lock_mode`, so the first key tells them all."""
        sql = _insert(table, [column.name for column in table.columns[1:]], len(rows))
        try:
            first = self.execute(sql, [value for row in rows for value in row[1:]])
        except pymysql.MySQLError as error:
            if _code(error) in _NO_KEY_LEFT:
                raise BadRequest(
                    f"TABLE {table.name}: no free {table.key.name} above the highest one is left;"
                    f" give each row a {table.key.name}"
                ) from error
            raise
        return list(range(first, first + len(rows)))

    def undo(self) -> None:
        """ROLLBACK; where even that fails the connection is closed, which does the same."""
        try:
            self.rollback()
        except pymysql.MySQLError:
            self.drop()

    def was_closed_by_server(self) -> bool:
        """An idle server has nothing to say but goodbye. Costs no round trip."""
        poll = select.poll()
        poll.register(self._sock, select.POLLIN)  # type: ignore[attr-defined]
        return bool(poll.poll(0))

    def drop(self) -> None:
        """Close without a word to the server, and without an error."""
        self._force_close()  # type: ignore[attr-defined]


def _committing(commit: Callable[[], Result]) -> Result:
    """Run what commits. Where its answer is lost nobody knows whether it happened."""
    try:
        return commit()
    except pymysql.MySQLError as error:
        if _code(error) == CR.CR_SERVER_LOST:
            raise OutcomeUnknown(
                "the connection to the database was lost while it committed: the write may or may"
                " not have happened; read the rows before you write them again"
            ) from error
        raise


def _translated(error: pymysql.MySQLError) -> Exception:
    """The error for storage's callers; what is not about reaching the database is a bug."""
    code = _code(error)
    if code in _IN_WORDS:
        return DatabaseUnavailable(f"the database cannot be used now: {_IN_WORDS[code]}")
    if code in _LOST or code == CR.CR_CONN_HOST_ERROR or isinstance(error, pymysql.InterfaceError):
        return DatabaseUnavailable(
            f"the database cannot be reached (DB_HOST, DB_PORT): {network_words(_origin(error))}"
        )
    return error


def _code(error: BaseException | None) -> int:
    return error.args[0] if isinstance(error, pymysql.MySQLError) and error.args else 0


def _origin(error: BaseException) -> BaseException | None:
    return getattr(error, "original_exception", None) or error.__context__


def _is_worth_another_try(error: pymysql.MySQLError) -> bool:
    return _code(error) in _WORTH_ANOTHER_TRY and not isinstance(_origin(error), TimeoutError)


def _select(table: Table) -> str:
    return f"SELECT {','.join(column.name for column in table.columns)} FROM {table.name}"


def _insert(table: Table, columns: Sequence[str], rows: int) -> str:
    row = f"({_marks(len(columns))})"
    return f"INSERT INTO {table.name} ({','.join(columns)}) VALUES {','.join([row] * rows)}"


def _marks(count: int) -> str:
    return ",".join(["%s"] * count)


@lru_cache(maxsize=1)
def _tls() -> ssl.SSLContext:
    """Built once a process: it takes 19 ms. As the driver's own it encrypts and does not ask who
    signed the certificate; Aurora's authority is known to no system."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
