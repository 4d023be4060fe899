"""A read that is sent now and waited for later, on a connection of its own."""

from collections.abc import Callable
from typing import Generic, TypeVar

from chalicelib.db.engine import Connection
from chalicelib.db.errors import DatabaseError
from chalicelib.db.retries import Retries
from chalicelib.errors import HerocacheError

Result = TypeVar("Result")


class SentRead(Generic[Result]):
    """Either `receive` or `close` must follow. What fails until then is not told: `receive` does it
    once more."""

    def __init__(
        self,
        retries: Retries,
        send: Callable[[Connection], None],
        receive: Callable[[Connection], Result],
        again: Callable[[], Result],
    ) -> None:
        self._retries = retries
        self._receive = receive
        self._again = again
        self._connection: Connection | None = None
        try:
            self._connection = retries.lend()
            send(self._connection)
        except (DatabaseError, HerocacheError):
            self.close()
        except BaseException:
            self.close()
            raise

    def receive(self) -> Result:
        """Its answer. Raises what `again` raises."""
        if self._connection:
            try:
                result = self._receive(self._connection)
            except (DatabaseError, HerocacheError):
                self.close()
            except BaseException:
                self.close()
                raise
            else:
                self._retries.take_back(self._connection)
                self._connection = None
                return result
        return self._again()

    def close(self) -> None:
        """Nobody wants the answer any more, or it is lost."""
        connection, self._connection = self._connection, None
        if connection:
            connection.drop()
