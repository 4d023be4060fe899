"""Kept connections, one user at a time: Lambda holds one, the threads of `chalice local` a few."""

from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Generic, TypeVar

Connection = TypeVar("Connection")

MAX_IDLE_CONNECTIONS = 8


class Pool(Generic[Connection]):
    """Last in, first out, so that the warmest connection is used first.

    `acquire` never waits: where none is idle it opens one. More than `MAX_IDLE_CONNECTIONS` that
    come back are closed. `deque` makes each step atomic; there is no lock to hold.
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
        """`options` are for opening one."""
        try:
            return self._idle.pop()
        except IndexError:
            return self._open(**options)

    def release(self, connection: Connection) -> None:
        """Give back a connection that is fit for the next user."""
        if len(self._idle) < MAX_IDLE_CONNECTIONS:
            self._idle.append(connection)
        else:
            self._close(connection)

    def discard(self, connection: Connection) -> None:
        """Close a connection that failed, and the idle ones: what broke it broke them too."""
        self._close(connection)
        self.clear()

    def clear(self) -> bool:
        """Close the idle connections; whether there were any."""
        had_any = False
        with suppress(IndexError):
            while True:
                self._close(self._idle.pop())
                had_any = True
        return had_any
