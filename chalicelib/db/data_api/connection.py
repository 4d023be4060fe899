"""Statements by way of the Data API: each is a request, and so are BEGIN, COMMIT and ROLLBACK.

There is no connection to keep. This class stands for the transaction that is under way.
"""

import time
from collections.abc import Iterable, Sequence

from chalicelib.db.change_capture import PLACE_TO_MARK
from chalicelib.db.data_api.endpoint import Endpoint
from chalicelib.db.data_api.errors import SURELY_NOT_RUN, name_of
from chalicelib.db.data_api.values import named, rows_of
from chalicelib.db.engine import Rows, Sent
from chalicelib.db.errors import CERTAINLY_NOT_COMMITTED, Code, DatabaseError
from chalicelib.db.statements import NOW, ROLLBACK, START, Statement
from chalicelib.errors import ConfigurationError, DatabaseUnavailable, OutcomeUnknown

# The limits of a request and of an answer are 4 MiB and 1 MiB; the rest is for what stands around
# the values. https://docs.aws.amazon.com/AmazonRDS/latest/AuroraUserGuide/data-api.html
MAX_STATEMENT_BYTES = 3_500_000
MAX_ANSWER_BYTES = 1_000_000
ROLLBACK_TRIES = 2


class Connection:
    """As `engine.Connection` has it."""

    is_surely_writer = True  # the Data API sends every statement to the writer
    takes_files = False
    max_statement_bytes = MAX_STATEMENT_BYTES
    max_answer_bytes = MAX_ANSWER_BYTES
    open = True

    def __init__(
        self,
        endpoint: Endpoint,
        key_step: int,
        holds_keys: bool,
        session: Sequence[Statement],
        mark: str = "",
    ) -> None:
        """`session`: what each transaction begins with. `mark`: what stands in PLACE_TO_MARK. The
        Data API resets a session before another caller gets it
        (https://docs.aws.amazon.com/AmazonRDS/latest/AuroraUserGuide/data-api.session-management.html)."""
        self.key_step = key_step
        self.holds_keys = holds_keys
        self.answered = 0
        self.sent_at = 0.0
        self._endpoint = endpoint
        self._session = session
        self._mark = mark
        self._transaction = ""
        self._seconds = 0.0

    def rows(self, statement: Statement) -> Rows:
        """The answer to one statement."""
        return self.batch([statement])[0]

    def batch(self, statements: Sequence[Statement]) -> list[Rows]:
        """Run these one after the other, up to the first that fails: a request each."""
        self.answered, self.sent_at = 0, time.monotonic()
        answers: list[Rows] = []
        for statement in statements:
            if self.answered and statements[self.answered - 1] == START:
                self.sent_at = time.monotonic()  # BEGIN may have waited for a database that slept
            answers.append(self._run(statement))
            self.answered += 1
        return answers

    def send_commit(self, statements: Sequence[Statement], is_timed: bool = True) -> Sent:
        """Nothing yet: a request ends with its answer."""
        return Sent(statements, is_timed)

    def receive_commit(self, sent: Sent) -> tuple[list[Rows], int]:
        """Run these and COMMIT. A time behind it costs a request more."""
        answers = self.batch(sent.statements)
        try:
            self._endpoint.end("commit_transaction", self._transaction, self._seconds)
        except Exception as error:  # whatever it is, the COMMIT may have been done
            if _is_certain(error):
                raise
            # It may not have arrived: then its locks would be held for three minutes.
            self.undo()
            raise OutcomeUnknown(
                "the answer to the COMMIT was lost: the write may or may not have happened; read"
                " the rows before you write them again"
            ) from error
        self._transaction = ""
        return answers, self._time() if sent.is_timed else 0

    def _time(self) -> int:
        """A time after a COMMIT."""
        try:
            [(now,)] = self._run(NOW)
        except (DatabaseError, DatabaseUnavailable, ConfigurationError) as error:
            raise OutcomeUnknown(
                "the rows are written, but the database did not say when; read them before you"
                " write them again"
            ) from error
        return int(now)

    def load(self, statement: Statement, feed: Iterable[bytes]) -> None:
        """Never called: the Data API takes no files."""
        raise AssertionError("the Data API takes no files")

    def undo(self) -> None:
        """ROLLBACK, and once more where the first one is lost. Where it fails the transaction holds
        its locks for three minutes."""
        transaction, self._transaction = self._transaction, ""
        for _ in range(ROLLBACK_TRIES if transaction else 0):
            try:
                self._endpoint.end("rollback_transaction", transaction, self._seconds)
                return
            except DatabaseError as error:
                if (
                    isinstance(error.origin, TimeoutError)
                    or error.code == Code.CR_SERVER_GONE_ERROR
                ):
                    return  # most errors of a statement have ended it already
            except (DatabaseUnavailable, ConfigurationError):
                return

    def wait_at_most(self, seconds: float) -> None:
        """Wait so many seconds for each answer from now on."""
        self._seconds = seconds

    def was_closed_by_server(self) -> bool:
        """Each request may open a connection of its own."""
        return False

    def drop(self) -> None:
        """Nothing is open."""

    def _run(self, statement: Statement) -> Rows:
        if statement == START:
            self._transaction = self._endpoint.begin(self._seconds)
            self.batch_of_session()
            return ()
        if statement == ROLLBACK:
            self.undo()
            return ()
        sql, parameters = named(statement)
        sql = sql.replace(PLACE_TO_MARK, self._mark if self._transaction else "")
        return rows_of(self._endpoint.execute(sql, parameters, self._transaction, self._seconds))

    def batch_of_session(self) -> None:
        """Statements for what the cluster's parameters do not set."""
        for statement in self._session:
            self._run(statement)


def _is_certain(error: Exception) -> bool:
    """Whether a COMMIT that failed so did certainly not happen."""
    if isinstance(error, DatabaseError):
        return error.code in CERTAINLY_NOT_COMMITTED
    return name_of(error.__cause__) in SURELY_NOT_RUN
