"""A connection to MySQL that sends many statements in one round trip.

A new connection costs 3 round trips, a batch of statements 1. `credentials` gives user and
password. Where `DB_SSL_CA` is set, the server's certificate is checked."""

import re
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import pymysql
from pymysql.constants import CR

from chalicelib.db.change_capture import MARK_OWN
from chalicelib.db.engine import LOCK_TIMEOUT_SECONDS, Rows, Sent
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

# After this time the server closes an idle connection. So a container that vanished does not keep
# its row locks, and an idle container does not keep Aurora awake.
IDLE_TIMEOUT_SECONDS = 60

# The driver reads no packet of 16 MiB.
MAX_JOINED_BYTES = 8_000_000

# One statement for each new connection; the driver alone would send three. Strict mode: a value
# that does not fit is an error, it is not cut. READ COMMITTED: there are no gap locks, so writers
# of different rows never wait for each other. Where a statement names more than 20 values of an
# index, the server plans it by its statistics, and does not look up each of them for that (it does
# up to 200 otherwise). Many rows may be joined in one value. Our own changes need no record of a
# trigger. A COMMIT neither begins another transaction nor ends the connection. Errors come in the
# language in which `errors` reads them.
_SESSION = (
    "SET character_set_client=utf8mb4, character_set_connection=utf8mb4,"
    " character_set_results=utf8mb4, autocommit=1, sql_mode='STRICT_ALL_TABLES',"
    f" innodb_lock_wait_timeout={LOCK_TIMEOUT_SECONDS}, lock_wait_timeout={LOCK_TIMEOUT_SECONDS},"
    f" wait_timeout={IDLE_TIMEOUT_SECONDS},"
    f" eq_range_index_dive_limit=21, group_concat_max_len={MAX_JOINED_BYTES}, {MARK_OWN},"
    " sql_select_limit=18446744073709551615, sql_big_selects=1, completion_type='NO_CHAIN',"
    " lc_messages='en_US',"
)
_KEYS: Statement = ("SELECT @@auto_increment_increment, @@innodb_autoinc_lock_mode < 2", ())


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
    by side use steps, so that each gives other keys. `holds_keys`: as `engine.Connection`
    has it; by default in MariaDB, not in MySQL 8. `answered`: how many of the statements that
    were sent last have an answer. `sent_at`: a time before the server began with them, in monotonic
    seconds."""

    key_step = 1
    holds_keys = False
    answered = 0
    sent_at = 0.0
    is_surely_writer = False
    takes_files = True
    max_statement_bytes = 0
    max_answer_bytes = 0
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
        *_, [keys] = self.batch([session, _KEYS])
        self.key_step, self.holds_keys = keys
        self.encoding = "utf8"

    def rows(self, statement: Statement) -> Rows:
        """The answer to one statement."""
        return self.batch([statement])[0]

    def batch(self, statements: Sequence[Statement]) -> list[Rows]:
        """Run the statements in order, up to the first that fails. One round trip."""
        self.send_batch(self.batch_text(statements))
        return self.receive_batch()

    def batch_text(self, statements: Sequence[Statement]) -> str:
        """The statements as one text of SQL, with their values in place."""
        text = ";".join([text for text, _ in statements])
        return self.sql(text, [value for _, values in statements for value in values])

    def send_batch(self, text: str) -> None:
        """Send a text of several statements. `receive_batch` must follow."""
        self.answered, self._is_reading = 0, True
        self.sent_at = time.monotonic()
        try:
            self.send_all(text)
        except pymysql.MySQLError as error:
            raise as_database_error(error) from error

    def receive_batch(self) -> list[Rows]:
        """The answer to each statement of the text that was sent."""
        answers: list[Rows] = []
        try:
            self.receive_all(answers)
            self._is_reading = False
        except pymysql.MySQLError as error:
            self._is_reading = False  # the server runs none of the rest
            raise as_database_error(error) from error
        finally:
            self.answered = len(answers)
        return answers

    def send_commit(self, statements: Sequence[Statement], is_timed: bool = True) -> Sent:
        """Send the statements and COMMIT, for one round trip. Nothing is committed where one of
        them fails."""
        behind = [COMMIT, NOW] if is_timed else [COMMIT]
        text = self.batch_text([*statements, *behind])
        with _telling_outcome(self, len(statements)):
            self.send_batch(text)
        return Sent(statements, is_timed)

    def receive_commit(self, sent: Sent) -> tuple[list[Rows], int]:
        """The answers to the statements, and where it `is_timed` a time after the COMMIT in
        microseconds of the database's clock. Raises OutcomeUnknown where the connection is lost
        meanwhile."""
        count = len(sent.statements)
        with _telling_outcome(self, count):
            answers = self.receive_batch()
        return answers[:count], answers[-1][0][0] if sent.is_timed else 0

    def load(self, statement: Statement, feed: Iterable[bytes]) -> None:
        """Run a LOAD DATA LOCAL that reads from `feed`. Raises what `feed` raises; the rows before
        that are then in the table, until a ROLLBACK. Where the server leaves out or changes a row,
        it only warns: the first warning is raised as an error."""
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
        """Wait up to `seconds` for each answer, each packet that is sent, and each lock. The server
        waits as long for us."""
        self.wait_at_most(seconds)
        self.send_for_at_most(seconds)
        self.query(
            f"SET innodb_lock_wait_timeout={seconds:.0f}, lock_wait_timeout={seconds:.0f},"
            f" net_read_timeout={seconds:.0f}, wait_timeout={seconds:.0f}"
        )

    def undo(self) -> None:
        """ROLLBACK. Where that cannot be sent, closes the connection, which has the same effect."""
        if self._is_reading:
            self.drop()
            return
        try:
            self.rollback()
        except pymysql.MySQLError:
            self.drop()


@contextmanager
def _telling_outcome(connection: Connection, count: int) -> Iterator[None]:
    """For `count` statements and their COMMIT. Whatever happens, the server may have gone on to the
    COMMIT, unless it is certain that it has not."""
    try:
        yield
    except Exception as error:
        is_before_commit = connection.answered < count and is_said_by_server(error)
        is_undone = connection.answered <= count and code_of(error) in CERTAINLY_NOT_COMMITTED
        if is_before_commit or is_undone:
            raise
        raise OutcomeUnknown(
            "the connection to the database was lost while it committed: the write may or may"
            " not have happened; read the rows before you write them again"
        ) from error


def as_database_error(error: pymysql.MySQLError) -> DatabaseError:
    """The driver's error. It calls a connection that it has closed itself an InterfaceError, with
    the number 0. GONE is for what it could not send: where a proxy has sent that number, nobody
    knows what was done."""
    code = error.args[0] if error.args and isinstance(error.args[0], int) else 0
    code %= 65536  # the driver takes a high one, as a trigger may choose it, for a negative one
    if isinstance(error, pymysql.InterfaceError):
        code = Code.CR_SERVER_GONE_ERROR
    words = str(error.args[-1]) if error.args else ""
    found = DatabaseError(code, words, getattr(error, "sqlstate", "") or "")
    found.origin = getattr(error, "original_exception", None) or error.__context__
    # The context is the network's error, none, or one that the caller was handling already.
    is_our_own = isinstance(error, pymysql.InterfaceError) or isinstance(found.origin, OSError)
    if not is_our_own and code == Code.CR_SERVER_GONE_ERROR:
        found.code = Code.CR_SERVER_LOST
    return found
