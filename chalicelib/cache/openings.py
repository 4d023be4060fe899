"""Opens connections to Redis, each in a thread of its own.

A login over TLS may take longer than a request waits for Redis. So whoever needs a connection waits
for it only as long as that one may. The thread goes on, and what it opens is for whoever comes
next. Where Lambda freezes the container, the thread goes on with the next request.
"""

import concurrent.futures
import logging
import threading
import time
from collections import deque
from collections.abc import Callable

import redis

from chalicelib.cache.routing import Connection

log = logging.getLogger("herocache.redis")


class StillOpening(Exception):
    """The connection is not open yet, and no failure is known."""


class _Opening:
    def __init__(self) -> None:
        self.began = time.monotonic()
        self.outcome: concurrent.futures.Future[Connection] = concurrent.futures.Future()


class Openings:
    """Safe for threads."""

    def __init__(
        self,
        open_connection: Callable[[], Connection],
        keep: Callable[[Connection], None],
        fail: Callable[[redis.RedisError], object],
    ) -> None:
        """`open_connection` may raise RedisError; then it is called once more. `keep` gets each
        connection that nobody waits for. `fail` is told of each second failure."""
        self._open_connection = open_connection
        self._keep = keep
        self._fail = fail
        # Where nobody waits for the outcome.
        self._left: deque[_Opening] = deque()
        self._changing = threading.Lock()

    def begin(self) -> None:
        """Open a connection that is kept, unless one is on its way already."""
        with self._changing:
            if not self._left:
                self._left.append(self._begun())

    def wait(self, seconds: float, *, since_it_began: bool = False) -> Connection:
        """A new connection. `seconds`: how long to wait for it, from now on or since it began.
        Raises RedisError where it failed twice; StillOpening."""
        with self._changing:
            opening = self._left.popleft() if self._left else self._begun()
        began = opening.began if since_it_began else time.monotonic()
        try:
            return opening.outcome.result(max(0.0, began + seconds - time.monotonic()))
        except concurrent.futures.TimeoutError:
            with self._changing:
                if not opening.outcome.done():
                    self._left.append(opening)
                    raise StillOpening from None
            return opening.outcome.result()

    def _begun(self) -> _Opening:
        opening = _Opening()
        threading.Thread(target=self._run, args=(opening,), name="opening", daemon=True).start()
        return opening

    def _run(self, opening: _Opening) -> None:
        try:
            connection = self._opened()
        except redis.RedisError as error:
            self._fail(error)
            with self._changing:
                self._drop(opening)
                opening.outcome.set_exception(error)
        except BaseException as error:
            log.exception("opening a connection to Redis failed on a bug")
            with self._changing:
                self._drop(opening)
                opening.outcome.set_exception(error)
        else:
            with self._changing:
                is_left = self._drop(opening)
                opening.outcome.set_result(connection)
            if is_left:
                self._keep(connection)

    def _opened(self) -> Connection:
        try:
            return self._open_connection()
        except redis.RedisError as error:
            kind = type(error).__name__
            log.info("a connection to Redis did not open, and is tried once more: %s", kind)
            return self._open_connection()

    def _drop(self, opening: _Opening) -> bool:
        """Whether nobody waits for it."""
        if opening in self._left:
            self._left.remove(opening)
            return True
        return False
