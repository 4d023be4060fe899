"""A pool of kept connections. Each has one user at a time. Lambda needs one, `chalice local` a
few."""

from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Generic, TypeVar

Connection = TypeVar("Connection")

MAX_IDLE_CONNECTIONS = 8


class Pool(Generic[Connection]):
    """Gives out the connection that was used last.

    `acquire` opens a connection where none is idle. `release` closes a connection where
    `MAX_IDLE_CONNECTIONS` are idle already. There is no lock, because each operation of a
    `deque` is atomic.
    """

    def __init__(
        self,
        open_connection: Callable[..., Connection],
        close_connection: Callable[[Connection], None],
    ) -> None:
        self._open = open_connection
        self._close = close_connection
        self._idle: deque[Connection] = deque()

    def acquire(self, **options: Any) -> Connection:
        """An idle connection, or a new one, which is opened with `options`."""
        idle = self.take()
        return self._open(**options) if idle is None else idle

    def take(self) -> Connection | None:
        """An idle connection, if there is one."""
        try:
            return self._idle.pop()
        except IndexError:
            return None

    @property
    def has_idle(self) -> bool:
        return bool(self._idle)

    def release(self, connection: Connection) -> None:
        """Give back a connection that is fit for the next user."""
        if len(self._idle) < MAX_IDLE_CONNECTIONS:
            self._idle.append(connection)
        else:
            self._close(connection)

    def discard(self, connection: Connection) -> None:
        """Close a connection that failed, and all idle ones, which would fail in the same way."""
        self._close(connection)
        self.clear()

    def clear(self) -> bool:
        """Close the idle connections. Returns whether there were any."""
        had_any = False
        with suppress(IndexError):
            while True:
                self._close(self._idle.pop())
                had_any = True
        return had_any
