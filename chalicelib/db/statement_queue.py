"""The statements of one transaction, and how they are sent: many in one round trip.

Statements whose answers nobody needs yet wait in a queue and go with the next ones. BEGIN goes with
the first ones, COMMIT with the last. Where one fails, the error says why: a guard that does not
hold, or a row that the database rejects.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from chalicelib.db import statements
from chalicelib.db.engine import Connection, Rows
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
        self._committed_at = 0
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
        self._guards.append((statement, error))
        self._queue.append(statement)

    def wait_at_most(self, seconds: float) -> None:
        """Wait so many seconds for each answer from now on."""
        self._connection.wait_at_most(seconds)

    def run(self, *statements: Statement) -> list[Rows]:
        """The answers to `statements`: the rows that each selected. One round trip."""
        queue, self._queue = self._queue, []
        with self._telling_guards(queue):
            return self._connection.batch([*queue, *statements])[len(queue) :]

    def commit(self) -> None:
        """COMMIT, and what is left to do before it. Raises DatabaseUnavailable where the server was
        made a replica meanwhile: some users may write there."""
        if not self._connection.is_surely_writer:
            self.queue_guard(statements.GUARD_WRITER, came_too_late)
        self._commit(is_timed=False)

    def _commit(self, *statements: Statement, is_timed: bool = True) -> list[Rows]:
        """The answers to what was left to do, and to `statements`."""
        queue, self._queue = self._queue, []
        with self._telling_rejected(), self._telling_guards(queue):
            answers, self._committed_at = self._connection.batch_and_commit(
                [*queue, *statements], is_timed
            )
        self.is_over = True
        return answers

    @contextmanager
    def _telling_guards(self, queue: Sequence[Statement]) -> Iterator[None]:
        """For statements that begin with `queue`: where a guard in it fails, raises its error."""
        try:
            yield
        except DatabaseError as error:
            failed = queue[self._connection.answered :][:1]
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
