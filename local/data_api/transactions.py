"""The open transactions of the service: found by their identifiers, one call at a time, rolled back
when they are left alone."""

import secrets
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic

from local.data_api.database import Connection
from local.data_api.errors import ServiceError, invalid
from local.data_api.limits import Limits

# User guide, data-api.troubleshooting: "The cause for this issue is appended to the error message".
EXPIRED = "Transaction may be expired."
ENDED = "One previous call resulted in a termination of your transaction."
ABORTED = "Transaction has been aborted due to an error from a previous call."

# So many transactions that are gone are remembered with the cause.
REMEMBERED = 10_000


class Clock:
    """The time in seconds. Tests move it on."""

    def __init__(self, read: Callable[[], float] = monotonic) -> None:
        self._read = read
        self._ahead = 0.0

    def now(self) -> float:
        """The time."""
        return self._read() + self._ahead

    def advance(self, seconds: float) -> None:
        """Moves all that is timed with it on."""
        self._ahead += seconds


@dataclass
class Transaction:
    """`is_busy` while a call uses it."""

    connection: Connection
    database: str | None
    began: float
    used: float
    id: str = field(default_factory=lambda: secrets.token_urlsafe(138))
    is_busy: bool = False


class Transactions:
    """Every open transaction, and why the others are gone."""

    def __init__(self, limits: Limits, clock: Clock) -> None:
        self._limits = limits
        self._clock = clock
        self._open: dict[str, Transaction] = {}
        self._gone: dict[str, str] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._open)

    def begin(self, connection: Connection, database: str | None) -> str:
        """The identifier of a new transaction on a connection of its own."""
        now = self._clock.now()
        transaction = Transaction(connection, database, now, now)
        with self._lock:
            self._open[transaction.id] = transaction
        return transaction.id

    def take(self, id: str, database: str | None = None) -> Transaction:
        """For one call, until `give_back` or `end`. Raises ServiceError where it is gone or
        busy."""
        self.expire()
        with self._lock:
            transaction = self._open.get(id)
            if transaction is None:
                cause = self._gone.get(id, EXPIRED)
                message = f"Transaction {id} is not found. {cause}"
                raise ServiceError("TransactionNotFoundException", message)
            if transaction.is_busy:
                # User guide, data-api.differences.
                message = "Transaction is still running a query"
                raise ServiceError("DatabaseErrorException", message)
            if database is not None and database != transaction.database:
                # Not documented.
                raise invalid("Database name is not the same as that of the transaction")
            transaction.is_busy = True
            return transaction

    def give_back(self, transaction: Transaction) -> None:
        """After a call. The time without calls begins."""
        with self._lock:
            transaction.used = self._clock.now()
            transaction.is_busy = False

    def end(self, transaction: Transaction, why: str) -> None:
        """Forgets it, rolls back what is not committed, and closes its connection."""
        with self._lock:
            self._forget(transaction, why)
        transaction.connection.close()

    def expire(self) -> None:
        """Rolls back those whose time is over and which no call uses."""
        now = self._clock.now()
        with self._lock:
            over = [each for each in self._open.values() if self._is_over(each, now)]
            for each in over:
                self._forget(each, EXPIRED)
        for each in over:
            each.connection.close()

    def abort_all(self) -> None:
        """Rolls back all that no call uses."""
        with self._lock:
            idle = [each for each in self._open.values() if not each.is_busy]
            for each in idle:
                self._forget(each, ABORTED)
        for each in idle:
            each.connection.close()

    def _is_over(self, transaction: Transaction, now: float) -> bool:
        idle, age = now - transaction.used, now - transaction.began
        is_over = idle > self._limits.idle_seconds or age > self._limits.transaction_seconds
        return is_over and not transaction.is_busy

    def _forget(self, transaction: Transaction, why: str) -> None:
        self._open.pop(transaction.id, None)
        self._gone[transaction.id] = why
        if len(self._gone) > REMEMBERED:
            del self._gone[next(iter(self._gone))]
