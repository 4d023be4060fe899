"""A connection to MySQL that sends many statements in one round trip.

A new connection costs 3 round trips, a batch of statements 1. `credentials` gives user and
password. Where `DB_SSL_CA` is set, the server's certificate is checked."""

import re
import time
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import pymysql
from pymysql.constants import CLIENT, CR

from chalicelib.config import Settings
from chalicelib.credentials import Login
from chalicelib.db.mysql.driver import CONNECT_TIMEOUT_SECONDS, DriverConnection
from chalicelib.db.mysql.errors import (
    CERTAINLY_NOT_COMMITTED,
    LOGIN_NEEDS_TLS,
    MySQLError,
    code_of,
    is_said_by_server,
)
from chalicelib.db.mysql.tls import is_loopback, tls_context
from chalicelib.db.statements import COMMIT, NOW, Statement
from chalicelib.errors import OutcomeUnknown
from chalicelib.network import reach

ANSWER_TIMEOUT_SECONDS = 2.5
LOCK_TIMEOUT_SECONDS = 2
# While a file is loaded: for each answer, each piece that is sent, each lock.
LOAD_TIMEOUT_SECONDS = 120
# After this time the server closes an idle connection. So a container that vanished does not keep
# its row locks, and an idle container does not keep Aurora awake.
IDLE_TIMEOUT_SECONDS = 60

# One statement for each new connection; the driver alone would send three. Strict mode: a value
# that does not fit is an error, it is not cut. READ COMMITTED: there are no gap locks, so writers
# of different rows never wait for each other.
_SESSION = (
    "SET character_set_client=utf8mb4, character_set_connection=utf8mb4,"
    " character_set_results=utf8mb4, autocommit=1, sql_mode='STRICT_ALL_TABLES',"
    f" innodb_lock_wait_timeout={LOCK_TIMEOUT_SECONDS}, wait_timeout={IDLE_TIMEOUT_SECONDS},"
)


class Answer(NamedTuple):
    """The answer to one statement: the rows it selected, and the first key it generated (0:
    none)."""

    rows: Sequence[Any]
    first_key: int


class Loaded(NamedTuple):
    """The server's counts after LOAD DATA: rows that came, rows that were replaced, rows that were
    left out, and values that were changed to fit."""

    rows: int
    deleted: int
    skipped: int
    warnings: int


class Connection(DriverConnection):
    """The driver's connection, with the few methods that the database needs.

    `key_step`: the distance between two keys that the server gives. Servers that take writes side
    by side use steps, so that each gives other keys. `answered`: how many of the statements that
    were sent last have an answer. `sent_at`: a time before the server began with them, in monotonic
    seconds."""

    key_step = 1
    answered = 0
    sent_at = 0.0
    _is_reading = False

    def connect(self, sock: Any = None) -> None:
        """Connect. One time limit holds for the look-up of the host's name and all its
        addresses."""
        try:
            seconds = self.connect_timeout or CONNECT_TIMEOUT_SECONDS
            sock = reach(self.host, self.port, seconds)
        except OSError as error:
            raise pymysql.OperationalError(CR.CR_CONN_HOST_ERROR, "no connection") from error
        super().connect(sock)

    def set_character_set(self, charset: str, collation: str | None = None) -> None:
        """Prepare the session. The driver calls this after the login."""
        is_mariadb = "MariaDB" in self.get_server_info()  # type: ignore[no-untyped-call]
        isolation = "tx_isolation" if is_mariadb else "transaction_isolation"
        session = (f"{_SESSION} {isolation}='READ-COMMITTED'", ())
        *_, found = self.batch([session, ("SELECT @@auto_increment_increment", ())])
        [(self.key_step,)] = found.rows
        self.encoding = "utf8"

    def rows(self, statement: Statement) -> Sequence[Any]:
        return self.batch([statement])[0].rows

    def batch(self, statements: Sequence[Statement]) -> list[Answer]:
        """Run the statements in order, up to the first that fails. One round trip."""
        return self.run_piece(self.piece_of(statements))

    def piece_of(self, statements: Sequence[Statement]) -> str:
        """The statements as one text of SQL, with their values in place."""
        text = ";".join(text for text, _ in statements)
        return self.cursor().mogrify(text, [value for _, values in statements for value in values])

    def run_piece(self, piece: str) -> list[Answer]:
        """Run a text of several statements. Returns the answer to each."""
        cursor = self.cursor()
        answers: list[Answer] = []
        self.answered, self._is_reading = 0, True
        self.sent_at = time.monotonic()
        try:
            cursor.execute(piece)
            while True:
                answers.append(Answer(cursor.fetchall(), int(cursor.lastrowid or 0)))
                if not cursor.nextset():
                    break
            self._is_reading = False
        except MySQLError:
            self._is_reading = False  # the server runs none of the rest
            raise
        finally:
            self.answered = len(answers)
        return answers

    def batch_and_commit(self, statements: Sequence[Statement]) -> tuple[list[Answer], int]:
        """Run the statements and COMMIT, in one round trip. Nothing is committed where one of them
        fails. Returns their answers, and a time after the COMMIT in microseconds of the database's
        clock. Raises OutcomeUnknown where the connection is lost meanwhile."""
        piece = self.piece_of([*statements, COMMIT, NOW])
        try:
            *answers, _, now = self.run_piece(piece)
        except Exception as error:  # whatever it is, the server may have gone on to the COMMIT
            is_before_commit = self.answered < len(statements) and is_said_by_server(error)
            is_undone = (
                self.answered <= len(statements) and code_of(error) in CERTAINLY_NOT_COMMITTED
            )
            if is_before_commit or is_undone:
                raise
            raise OutcomeUnknown(
                "the connection to the database was lost while it committed: the write may or may"
                " not have happened; read the rows before you write them again"
            ) from error
        [(committed_at,)] = now.rows
        return answers, committed_at

    def load(self, statement: Statement, feed: Iterable[bytes]) -> None:
        """Run a LOAD DATA LOCAL that reads from `feed`. Raises what `feed` raises; the rows before
        that are then in the table, until a ROLLBACK. Where the server leaves out or changes a row,
        it only warns: the first warning is raised as an error."""
        self.feed = feed
        try:
            with self.cursor() as cursor:
                cursor.execute(*statement)
        finally:
            self.feed = ()
        loaded = Loaded(*map(int, re.findall(rb": (\d+)", self.message)))
        if loaded.skipped or loaded.warnings:
            [(_, code, message), *_] = self.rows(("SHOW WARNINGS LIMIT 1", ()))
            raise pymysql.DataError(code, str(loaded), message)

    def be_patient(self, seconds: float) -> None:
        """Wait up to `seconds` for each answer, each piece that is sent, and each lock. The server
        waits as long for us."""
        self.wait_at_most(seconds)
        self.send_for_at_most(seconds)
        self.query(
            f"SET innodb_lock_wait_timeout={seconds:.0f}, net_read_timeout={seconds:.0f},"
            f" wait_timeout={seconds:.0f}"
        )

    def undo(self) -> None:
        """ROLLBACK. Where that cannot be sent, closes the connection, which has the same effect."""
        if self._is_reading:
            self.drop()
            return
        try:
            self.rollback()
        except MySQLError:
            self.drop()


def connect(
    settings: Settings, login: Login, patience_seconds: float, *, for_loads: bool
) -> Connection:
    """A new connection. Waits up to `patience_seconds` for the server's greeting, and less for the
    network and the login. With `for_loads` it can run `Connection.load`. Raises MySQLError,
    ConfigurationError."""
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
            ssl=tls_context(authority) if authority else None,
            ssl_disabled=not authority and is_loopback(settings.db_host),
            local_infile=for_loads,
        )
        if for_loads:
            connection.be_patient(LOAD_TIMEOUT_SECONDS)
        return connection
    except RuntimeError as error:  # the driver raises it for a login that needs a missing library
        raise pymysql.OperationalError(LOGIN_NEEDS_TLS, str(error)) from error
