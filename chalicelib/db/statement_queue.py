"""The statements of one transaction, and how they are sent: many in one round trip.

Statements whose answers nobody needs yet wait in a queue and go with the next ones. BEGIN goes with
the first ones, COMMIT with the last. Where one fails, the error says why: a guard that does not
hold, or a row that the database rejects.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from chalicelib.db import statements
from chalicelib.db.engine import Connection, Rows, Sent
from chalicelib.db.errors import DatabaseError, is_guard_failed, is_value_rejected
from chalicelib.db.rejected_row import Writes, find_rejected
from chalicelib.db.statements import Statement
from chalicelib.errors import DatabaseUnavailable, HerocacheError


class StatementQueue:
    """`is_over`: whether it was committed."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._queue: list[Statement] = [statements.START]
        self._writes: Writes | None = None
        self._guards: list[tuple[Statement, Callable[[], HerocacheError]]] = []
        self.is_over = False

    @property
    def has_begun(self) -> bool:
        """Whether the database has heard of it."""
        return self._queue[:1] != [statements.START]

    def queue(self, *statements: Statement) -> None:
        """Run these with the next statements that somebody waits for."""
        self._queue += statements

    def queue_guard(self, statement: Statement, error: Callable[[], HerocacheError]) -> None:
        """As `queue`. Where the database says that what `statement` guards does not hold, nothing
        behind it is run, and what `error` makes is raised."""
        self._queue.append(self._guard(statement, error))

    def _guard(self, statement: Statement, error: Callable[[], HerocacheError]) -> Statement:
        """The statement, which is sent later. Every guard is registered here: another error with
        the number of a failed guard is that of a row."""
        self._guards.append((statement, error))
        return statement

    def wait_at_most(self, seconds: float) -> None:
        """Wait so many seconds for each answer from now on."""
        self._connection.wait_at_most(seconds)

    def run(self, *statements: Statement) -> list[Rows]:
        """The answers to `statements`: the rows that each selected. One round trip."""
        queue, self._queue = self._queue, []
        sent = [*queue, *statements]
        with self._telling_guards(sent):
            return self._connection.batch(sent)[len(queue) :]

    def commit(self) -> None:
        """COMMIT, and what is left to do before it. Raises DatabaseUnavailable where the server was
        made a replica meanwhile: some users may write there."""
        if not self._connection.is_surely_writer:
            self.queue_guard(statements.GUARD_WRITER, came_too_late)
        self._commit()

    def _commit(self, *statements: Statement) -> list[Rows]:
        """COMMIT. The answers to what was left to do, and to `statements`."""
        answers, _ = self._receive_commit(self._send_commit(*statements, is_timed=False))
        return answers

    def _send_commit(self, *statements: Statement, is_timed: bool = True) -> Sent:
        """Send what was left to do, `statements` and COMMIT, and return at once."""
        queue, self._queue = self._queue, []
        return self._connection.send_commit([*queue, *statements], is_timed)

    def _receive_commit(self, sent: Sent) -> tuple[list[Rows], int]:
        """The answers, and where it `is_timed` a time behind the COMMIT."""
        with self._telling_rejected(), self._telling_guards(sent.statements):
            received = self._connection.receive_commit(sent)
        self.is_over = True
        return received

    @contextmanager
    def _telling_guards(self, sent: Sequence[Statement]) -> Iterator[None]:
        """For the statements that are `sent`: where a guard among them fails, raises its error."""
        try:
            yield
        except DatabaseError as error:
            failed = sent[self._connection.answered :][:1]
            for guard, own_error in self._guards:
                if is_guard_failed(error) and failed == [guard]:
                    raise own_error() from error
            raise

    @contextmanager
    def _telling_rejected(self) -> Iterator[None]:
        """For the statements with the writes that are left to do. Raises RowRejected where the
        database rejects a row for its values; the transaction is of no more use then."""
        writes, self._writes = self._writes, None
        try:
            yield
        except DatabaseError as error:
            if writes is None or not is_value_rejected(error):
                raise
            if found := find_rejected(self.run, writes):
                raise found from error
            raise  # what was in its way has gone meanwhile


def came_too_late() -> DatabaseUnavailable:
    return DatabaseUnavailable(
        "the database came to the COMMIT too late, or is a replica by now; nothing was written"
    )
