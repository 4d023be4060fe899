"""A connection to MySQL: prepared in one statement, many statements in one round trip.

A new connection costs 3 round trips, a batch of statements 1. Who we are to the server comes from
`credentials`; who the server is its certificate tells, where `DB_SSL_CA` says who signs it.
"""

import re
import time
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import pymysql
from pymysql.constants import CR

from chalicelib.db.engine import (
    LOCK_TIMEOUT_SECONDS,
    Rows,
)
from chalicelib.db.errors import (
    CERTAINLY_NOT_COMMITTED,
    Code,
    DatabaseError,
    code_of,
    is_said_by_server,
)
from chalicelib.db.mysql.driver import (
    CONNECT_TIMEOUT_SECONDS,
    DriverConnection,
)
from chalicelib.db.statements import COMMIT, NOW, Statement
from chalicelib.errors import OutcomeUnknown
from chalicelib.network import reach

# Then the server drops a connection: a container that vanished holds no row longer, and one that
# idles keeps no Aurora awake.
IDLE_TIMEOUT_SECONDS = 60

# One statement a connection instead of the driver's three. Strict mode: nothing is cut to fit.
# READ COMMITTED: no gap locks, so that writers of different rows never wait for each other.
_SESSION = (
    "SET character_set_client=utf8mb4, character_set_connection=utf8mb4,"
    " character_set_results=utf8mb4, autocommit=1, sql_mode='STRICT_ALL_TABLES',"
    f" innodb_lock_wait_timeout={LOCK_TIMEOUT_SECONDS}, wait_timeout={IDLE_TIMEOUT_SECONDS},"
)


class Loaded(NamedTuple):
    """What the server says of a LOAD DATA: rows that came, rows in whose place others are now, rows
    it left out, values it changed to fit."""

    rows: int
    deleted: int
    skipped: int
    warnings: int


class Connection(DriverConnection):
    """The driver's connection with the few verbs of `engine.Connection`. A batch is one round
    trip."""

    key_step = 1
    answered = 0
    sent_at = 0.0
    is_surely_writer = False
    takes_files = True
    max_statement_bytes = 0
    max_answer_bytes = 0
    _is_reading = False

    def connect(self, sock: Any = None) -> None:
        """With one time limit for the look-up of the host's name and all addresses that it has."""
        try:
            seconds = self.connect_timeout or CONNECT_TIMEOUT_SECONDS
            sock = reach(self.host, self.port, seconds)
        except OSError as error:
            raise pymysql.OperationalError(CR.CR_CONN_HOST_ERROR, "no connection") from error
        super().connect(sock)

    def set_character_set(self, charset: str, collation: str | None = None) -> None:
        """The driver calls this once it is logged in: here the session gets all it needs."""
        is_mariadb = "MariaDB" in self.get_server_info()  # type: ignore[no-untyped-call]
        isolation = "tx_isolation" if is_mariadb else "transaction_isolation"
        session = (f"{_SESSION} {isolation}='READ-COMMITTED'", ())
        *_, found = self.batch([session, ("SELECT @@auto_increment_increment", ())])
        [(self.key_step,)] = found
        self.encoding = "utf8"

    def rows(self, statement: Statement) -> Rows:
        """The answer to one statement."""
        return self.batch([statement])[0]

    def batch(self, statements: Sequence[Statement]) -> list[Rows]:
        """Run these one after the other, up to the first that fails: one round trip."""
        return self.run_piece(self.piece_of(statements))

    def piece_of(self, statements: Sequence[Statement]) -> str:
        """One piece of SQL, with the values in place."""
        text = ";".join(text for text, _ in statements)
        return self.cursor().mogrify(text, [value for _, values in statements for value in values])

    def run_piece(self, piece: str) -> list[Rows]:
        """The answer to each statement of a piece of SQL."""
        cursor = self.cursor()
        answers: list[Rows] = []
        self.answered, self._is_reading = 0, True
        self.sent_at = time.monotonic()
        try:
            cursor.execute(piece)
            while True:
                answers.append(cursor.fetchall())
                if not cursor.nextset():
                    break
            self._is_reading = False
        except pymysql.MySQLError as error:
            self._is_reading = False  # the server runs none of the rest
            raise as_database_error(error) from error
        finally:
            self.answered = len(answers)
        return answers

    def batch_and_commit(
        self, statements: Sequence[Statement], is_timed: bool = True
    ) -> tuple[list[Rows], int]:
        """Run these and COMMIT, in one round trip. The time costs nothing, so it is always told.
        Raises OutcomeUnknown where the connection is lost meanwhile."""
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
        [(committed_at,)] = now
        return answers, committed_at

    def load(self, statement: Statement, feed: Iterable[bytes]) -> None:
        """Run a LOAD DATA LOCAL of what `feed` brings. Whatever that raises goes up; the rows so
        far are then in the table. The server only warns of a row that it leaves out or changes:
        its first warning is raised as the error it is."""
        self.feed = feed
        try:
            with self.cursor() as cursor:
                cursor.execute(*statement)
        except pymysql.MySQLError as error:
            raise as_database_error(error) from error
        finally:
            self.feed = ()
        loaded = Loaded(*map(int, re.findall(rb": (\d+)", self.message)))
        if loaded.skipped or loaded.warnings:
            [(_, code, message), *_] = self.rows(("SHOW WARNINGS LIMIT 1", ()))
            raise DatabaseError(code, message)

    def be_patient(self, seconds: float) -> None:
        """With an answer, with what is sent, and with other transactions; the server likewise."""
        self.wait_at_most(seconds)
        self.send_for_at_most(seconds)
        self.query(
            f"SET innodb_lock_wait_timeout={seconds:.0f}, net_read_timeout={seconds:.0f},"
            f" wait_timeout={seconds:.0f}"
        )

    def undo(self) -> None:
        """ROLLBACK; where that cannot be asked the connection is closed, which does the same."""
        if self._is_reading:
            self.drop()
            return
        try:
            self.rollback()
        except pymysql.MySQLError:
            self.drop()


def as_database_error(error: pymysql.MySQLError) -> DatabaseError:
    """The driver's error. It calls a connection that it has closed itself an InterfaceError, with
    the number 0."""
    code = error.args[0] if error.args and isinstance(error.args[0], int) else 0
    if isinstance(error, pymysql.InterfaceError):
        code = Code.CR_SERVER_GONE_ERROR
    words = str(error.args[-1]) if error.args else ""
    found = DatabaseError(code, words, getattr(error, "sqlstate", "") or "")
    found.origin = getattr(error, "original_exception", None) or error.__context__
    return found
