"""What an engine must do: take statements, give answers. `mysql` is one, `data_api` another."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, Protocol

from chalicelib.db.statements import Statement

# The rows that a statement selected; of other statements nothing.
Rows = Sequence[Any]
ANSWER_TIMEOUT_SECONDS = 2.5
LOCK_TIMEOUT_SECONDS = 2
# For each answer while a file is loaded, each packet sent, each lock waited for.
LOAD_TIMEOUT_SECONDS = 120
# The longest pause before a transaction is tried again that another one was in the way of.
PAUSE_SECONDS = 0.1
LOAD_PAUSE_SECONDS = 10


class Sent(NamedTuple):
    """Statements that were sent with a COMMIT, and are not waited for yet. `is_timed`: a time
    behind the COMMIT is asked for."""

    statements: Sequence[Statement]
    is_timed: bool


class Connection(Protocol):
    """One at a time uses it. Each method raises DatabaseError where the server rejects a statement
    or is lost.

    `key_step`: how far apart the keys are that the server gives; servers that take writes side by
    side are set to give each its own. `holds_keys`: whether a bulk insert holds the counter of the
    keys until it ends. `answered`: how many of the statements that were sent last
    gave an answer. `sent_at`: when these were ready to go, in monotonic seconds; the server began
    with none before. `is_surely_writer`: no replica can be at the other end. `takes_files`: whether
    it can `load`. `max_statement_bytes`, `max_answer_bytes`: what the values of one statement and
    the rows of one answer may take; 0: no limit that matters."""

    key_step: int
    holds_keys: bool
    answered: int
    sent_at: float
    is_surely_writer: bool
    takes_files: bool
    max_statement_bytes: int
    max_answer_bytes: int

    @property
    def open(self) -> bool:
        """Whether it may be used again."""

    def rows(self, statement: Statement) -> Rows:
        """The answer to one statement."""

    def batch(self, statements: Sequence[Statement]) -> list[Rows]:
        """Run these one after the other, up to the first that fails."""

    def send_commit(self, statements: Sequence[Statement], is_timed: bool = True) -> Sent:
        """Have these run and COMMIT; nothing is committed where one of them fails. Nothing else may
        be asked before `receive_commit`, which may be what runs them. Raises as that."""

    def receive_commit(self, sent: Sent) -> tuple[list[Rows], int]:
        """The answers, and a time behind the COMMIT, in microseconds of the database's clock, where
        it `is_timed`. Raises OutcomeUnknown where nobody can tell whether it was committed."""

    def load(self, statement: Statement, feed: Iterable[bytes]) -> None:
        """Run a LOAD DATA LOCAL of what `feed` brings. The rows so far are in the table where that
        raises."""

    def undo(self) -> None:
        """ROLLBACK, as far as that can be asked."""

    def wait_at_most(self, seconds: float) -> None:
        """Wait so many seconds for each answer from now on."""

    def was_closed_by_server(self) -> bool:
        """Costs no round trip."""

    def drop(self) -> None:
        """Close at once, without an error."""


# Opens a connection; waits for the server's first word so many seconds, by default as the settings
# have it. Raises DatabaseError, ConfigurationError.
Connect = Callable[[float | None], Connection]
