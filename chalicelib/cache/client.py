"""The link to Redis: commands in, replies out; who may use a line, and what its failures mean.

Commands come packed and go out in one piece a server: one round trip a call. Every command sent
here may run twice, so what meets a connection that was closed meanwhile is sent once more.

A connection knows which server it reached (see `connection.server_name`; of a cluster: all its
masters). Entries are believed only on the server they were written to: a promoted replica or a
restored server is another one.
"""

import logging
import threading
from collections.abc import Sequence
from contextlib import nullcontext
from queue import SimpleQueue
from typing import Any

import redis

from chalicelib.cache.connection import READ_ONLY, TIMEOUT_SECONDS, Command, Line, Unfit
from chalicelib.config import Settings
from chalicelib.credentials.identity import cache_identity
from chalicelib.errors import CONNECTION_LOST, AnotherServer, CacheUnavailable, network_words
from chalicelib.pool import Pool

log = logging.getLogger("herocache.link")

MAX_LINES_IN_USE = 8
"""More threads than this wait for their turn: a thousand at once would only time out together."""
MAX_EARLY_LINES = 4
"""Besides these: lines whose user waits for the database first. More wait for neither."""

_STALE = (
    *(redis.ConnectionError, redis.exceptions.ReadOnlyError),
    *(redis.exceptions.MovedError, redis.exceptions.NoScriptError),
)
"""What a kept connection may meet and a new one not."""


class Link:
    """Safe for threads: each call has a line of its own. After a failure `is_down` is true and
    nobody calls, until `probe` succeeds and `resume` is called."""

    def __init__(
        self, settings: Settings, scripts: Sequence[str], probe: Sequence[Command]
    ) -> None:
        """`probe`: commands that take part in nothing and fail where others would."""
        self.is_cluster = settings.redis_cluster
        self.is_down = False
        self._url = settings.redis_url
        self._mint = cache_identity(settings)
        self._scripts = scripts
        self._probe = probe
        self._pool: Pool[Line] = Pool(self._open, Line.close)
        self._turns = _Turns(MAX_LINES_IN_USE)
        self._early_turns = threading.BoundedSemaphore(MAX_EARLY_LINES)

    def call(self, commands: Sequence[Command], server: str, *, wait: bool = True) -> Sequence[Any]:
        """The reply to each command. Without `wait` none: they are read with the next call's.
        Raises AnotherServer where it is not `server` that was reached, CacheUnavailable."""
        if not self._url:
            raise CacheUnavailable("this process has no REDIS_URL")
        reached, replies = self._exchange(commands, wait)
        if reached != server and self._pool.clear():
            # A kept line may lead to a server that was replaced: look where a new one leads.
            reached, replies = self._exchange(commands, wait)
        if reached != server:
            raise AnotherServer(reached)
        return replies

    def begin(self, commands: Sequence[Command]) -> Line | None:
        """Send them, for `finish` or `abandon`; None where they cannot be sent now."""
        if not self._url or self.is_down or not self._early_turns.acquire(blocking=False):
            return None
        line = self._pool.acquire()
        try:
            line.send(commands)
        except redis.RedisError as error:
            self._broken(line, error)
            return None
        except BaseException:
            self._drop(line)
            raise
        return line

    def finish(self, line: Line, server: str) -> Sequence[Any] | None:
        """What `begin` is owed; None where it must be sent again."""
        try:
            replies = line.receive()
        except redis.RedisError as error:
            self._broken(line, error)
            return None
        except BaseException:
            self._drop(line)
            raise
        reached = line.server
        self._pool.release(line)
        self._early_turns.release()
        return replies if reached == server else None

    def abandon(self, line: Line) -> None:
        """What `begin` is owed is of no interest any more."""
        line.owe()
        self._pool.release(line)
        self._early_turns.release()

    def _broken(self, line: Line, error: redis.RedisError) -> None:
        """Silence is not asked again."""
        self._drop(line)
        if isinstance(error, redis.TimeoutError):
            self._failed(error)

    def _drop(self, line: Line) -> None:
        self._pool.discard(line)
        self._early_turns.release()

    def ask(self, command: Command) -> tuple[str, Any]:
        """The server that answers now, whichever it is, and its reply. Raises CacheUnavailable."""
        if not self._url:
            raise CacheUnavailable("it is not in use")
        reached, [reply] = self._exchange([command], wait=True)
        return reached, reply

    def probe(self) -> str:
        """The server that answers now and can be used. Raises CacheUnavailable in words."""
        reached, _ = self._exchange_now(self._probe, wait=True)
        return reached

    def resume(self) -> None:
        self.is_down = False

    def _exchange(self, commands: Sequence[Command], wait: bool) -> tuple[str, Sequence[Any]]:
        """The server that was reached, and its replies. In turn, but for what others may wait for
        and its sender does not; and only while it is not down."""
        with self._turns if wait else _NO_TURN:
            if self.is_down:
                raise CacheUnavailable("it failed a moment ago and is being probed")
            return self._exchange_now(commands, wait)

    def _exchange_now(self, commands: Sequence[Command], wait: bool) -> tuple[str, Sequence[Any]]:
        try:
            line = self._pool.acquire()
        except redis.RedisError as error:
            raise self._failed(error) from error
        was_kept = line.is_open
        try:
            try:
                replies = line.exchange(commands, wait)
            except _STALE:
                if not was_kept:
                    raise
                line.close()
                replies = line.exchange(commands, wait)
        except redis.RedisError as error:
            self._pool.discard(line)
            raise self._failed(error) from error
        except BaseException:
            self._pool.discard(line)
            raise
        reached = line.server  # before another thread may use the line
        self._pool.release(line)
        return reached, replies

    def _failed(self, error: redis.RedisError) -> CacheUnavailable:
        if not self.is_down:
            self.is_down = True
            log.warning("Redis is left alone until it answers probes: %s", self._words(error))
        return CacheUnavailable(self._words(error))

    def _words(self, error: redis.RedisError) -> str:
        return _words(error, is_tls=self._url.startswith("rediss:"))

    def _open(self) -> Line:
        return Line(self._url, self._scripts, self.is_cluster, self._mint)


class _Turns:
    """As a semaphore, but each step runs in C: Python's own takes 2 % of a hit."""

    def __init__(self, count: int) -> None:
        self._free: SimpleQueue[None] = SimpleQueue()
        for _ in range(count):
            self._free.put(None)

    def __enter__(self) -> None:
        self._free.get()

    def __exit__(self, *_: object) -> None:
        self._free.put(None)


_NO_TURN = nullcontext()

_NO_ENTRY = "it refuses the user or the password, or misses one (REDIS_URL)"
_IN_WORDS = {
    "NOPERM": "its user lacks a right that is needed (REDIS_URL)",
    "READONLY": READ_ONLY,
    "MISCONF": "it takes no writes because it cannot save them: see its log",
    "OOM": "it is full and may throw nothing away: set its maxmemory-policy",
    "CLUSTERDOWN": "the cluster is down: some slots have no server",
}


def _words(error: redis.RedisError, is_tls: bool) -> str:
    """What is wrong, for an operator; no host and no password in it."""
    text = str(error)
    code = error.status_code or text.partition(" ")[0]
    hint = "A server without TLS needs redis://" if is_tls else "One with TLS needs rediss://"
    if isinstance(error, Unfit):
        return text
    if isinstance(error, redis.AuthenticationError):
        return _NO_ENTRY
    if code in _IN_WORDS:
        return _IN_WORDS[code]
    if "executing the script can't" in text:
        return _IN_WORDS["NOPERM"]
    if "SELECT" in text or "DB index" in text:
        return "it has no database of this number: take the number out of REDIS_URL"
    if "cluster support disabled" in text:
        return "it is not a cluster: take REDIS_CLUSTER out of the settings"
    if isinstance(error, redis.TimeoutError):
        return (
            f"no answer within {TIMEOUT_SECONDS} s (REDIS_URL): is there a route (subnet, security"
            f" group)? {hint}"
        )
    if isinstance(error, redis.ResponseError):
        return f"it answers with an error: {code[:20]}"
    words = network_words(error.__cause__ or error.__context__)
    return f"{words} (REDIS_URL)" + (f". {hint}" if words == CONNECTION_LOST else "")
