"""The client of Redis: gives out connections, and decides what their failures mean.

A call sends its commands to each server at once, so it costs one round trip. Every command may
run twice. So where a kept connection turns out to be closed, the call is tried again, and no error
is raised. After a failure nobody uses Redis until it has answered probes.

A connection knows which data set it reached (`connection.server_name`; of a cluster, all its
masters). Entries are believed only in the data set they were written to: a promoted replica or a
restored server is another one.
"""

import logging
import threading
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from queue import SimpleQueue
from typing import Any

import redis

from chalicelib.cache.commands import Command, Received
from chalicelib.cache.connection import READ_ONLY, is_denied
from chalicelib.cache.redis_driver import Unusable, check_driver
from chalicelib.cache.routing import Connection
from chalicelib.cache.timeouts import TIMEOUT_SECONDS
from chalicelib.config import Settings
from chalicelib.credentials import cache_credentials
from chalicelib.errors import CONNECTION_LOST, AnotherServer, CacheUnavailable, network_words
from chalicelib.pool import Pool

log = logging.getLogger("herocache.redis")

# More threads wait for their turn: a thousand at once would only time out together.
MAX_CONNECTIONS_IN_USE = 8
# Besides these, connections whose user waits for the database first. Where all are in use, commands
# are not sent early.
MAX_EARLY_CONNECTIONS = 4

# Errors of a kept connection that a new connection does not have.
_KEPT_TOO_LONG = (
    *(redis.ConnectionError, redis.exceptions.ReadOnlyError),
    *(redis.exceptions.MovedError, redis.exceptions.NoScriptError),
)


class Client:
    """Safe for threads: each call has a connection of its own. After a failure `is_down` is true
    and nobody calls, until `probe` succeeds and `resume` is called. `on_down` is called when it
    becomes true."""

    def __init__(
        self,
        settings: Settings,
        scripts: Sequence[str],
        probe: Sequence[Command],
        timeout_seconds: float | None = None,
    ) -> None:
        """`probe`: commands that change no entry and fail where others would. `timeout_seconds`:
        how long to wait for the replies of a call, where not as a request does. Raises
        ConfigurationError where the driver is not the expected one."""
        check_driver()
        self.is_cluster = settings.redis_cluster
        self.is_down = False
        self.on_down: Callable[[], None] = lambda: None
        self._url = settings.redis_url
        self._credentials = cache_credentials(settings)
        self._scripts = scripts
        self._probe = probe
        self._timeout_seconds = timeout_seconds
        self._pool: Pool[Connection] = Pool(self._open, Connection.close)
        self._turns = _Turns(MAX_CONNECTIONS_IN_USE)
        self._early_turns = threading.BoundedSemaphore(MAX_EARLY_CONNECTIONS)

    def call(self, commands: Sequence[Command], server: str, *, wait: bool = True) -> Sequence[Any]:
        """The reply to each command. Without `wait` none: they are read with the next call's.
        Raises CacheUnavailable; AnotherServer where another data set than `server` was reached."""
        reached, replies = self._exchange(commands, wait)
        if reached != server and self._pool.clear():
            # A kept connection may lead to a server that was replaced: see where a new one leads.
            reached, replies = self._exchange(commands, wait)
        if reached != server:
            raise AnotherServer(reached)
        return replies

    def send(self, commands: Sequence[Command]) -> Connection | None:
        """Send the commands and return at once; None where they cannot be sent now. The connection
        must be given to `receive` or `abandon`."""
        if self.is_down or not self._early_turns.acquire(blocking=False):
            return None
        connection = self._pool.acquire()
        try:
            connection.send(commands)
        except redis.RedisError as error:
            self._fail_early(connection, error)
            return None
        except BaseException:
            self._discard_early(connection)
            raise
        return connection

    def receive(self, connection: Connection, server: str) -> Received | None:
        """The replies to what `send` sent; None where the commands must be sent again."""
        try:
            replies = connection.receive()
        except redis.RedisError as error:
            self._fail_early(connection, error)
            return None
        except BaseException:
            self._discard_early(connection)
            raise
        # Before another thread may use the connection.
        reached, received = connection.server, Received(replies, connection.keeps_new_keys)
        self._pool.release(connection)
        self._early_turns.release()
        return received if reached == server else None

    def abandon(self, connection: Connection) -> None:
        """Drop the replies to what `send` sent."""
        connection.leave_replies()
        self._pool.release(connection)
        self._early_turns.release()

    def _fail_early(self, connection: Connection, error: redis.RedisError) -> None:
        """The commands may be sent again, unless the server was silent."""
        self._discard_early(connection)
        if isinstance(error, redis.TimeoutError):
            self._mark_down(error)

    def _discard_early(self, connection: Connection) -> None:
        self._pool.discard(connection)
        self._early_turns.release()

    def ask(self, command: Command) -> tuple[str, Any]:
        """The data set that answers now, whichever it is, and its reply. Raises
        CacheUnavailable."""
        reached, [reply] = self.ask_many([command])
        return reached, reply

    def ask_many(self, commands: Sequence[Command]) -> tuple[str, Sequence[Any]]:
        """The same for several commands."""
        return self._exchange(commands, wait=True)

    def probe(self) -> str:
        """The data set that answers now and can be used. Raises CacheUnavailable."""
        reached, _ = self._exchange_now(self._probe, wait=True)
        return reached

    def resume(self) -> None:
        """Call Redis again, after `probe` has succeeded."""
        self.is_down = False

    def _exchange(self, commands: Sequence[Command], wait: bool) -> tuple[str, Sequence[Any]]:
        """As `_exchange_now`, but not while Redis is down, and only so many threads at a time. A
        sender that does not wait for replies does not wait for its turn: others may be waiting for
        what it sends."""
        with self._turns if wait else _NO_TURN:
            if self.is_down:
                raise CacheUnavailable("it failed a moment ago and is being probed")
            return self._exchange_now(commands, wait)

    def _exchange_now(self, commands: Sequence[Command], wait: bool) -> tuple[str, Sequence[Any]]:
        """The data set that was reached, and its replies."""
        try:
            connection = self._pool.acquire()
        except redis.RedisError as error:
            raise self._mark_down(error) from error
        was_kept = connection.is_open
        try:
            try:
                replies = connection.exchange(commands, wait)
            except _KEPT_TOO_LONG:
                if not was_kept:
                    raise
                connection.close()
                replies = connection.exchange(commands, wait)
        except redis.RedisError as error:
            self._pool.discard(connection)
            raise self._mark_down(error) from error
        except BaseException:
            self._pool.discard(connection)
            raise
        reached = connection.server  # before another thread may use the connection
        self._pool.release(connection)
        return reached, replies

    def _mark_down(self, error: redis.RedisError) -> CacheUnavailable:
        if not self.is_down:
            self.is_down = True
            log.warning("Redis is left alone until it answers probes: %s", self._words(error))
            self.on_down()
        return CacheUnavailable(self._words(error))

    def _words(self, error: redis.RedisError) -> str:
        seconds = self._timeout_seconds or TIMEOUT_SECONDS
        return _words(error, self._url.startswith("rediss:"), seconds)

    def _open(self) -> Connection:
        return Connection(
            self._url, self._scripts, self.is_cluster, self._credentials, self._timeout_seconds
        )


class _Turns:
    """A semaphore whose steps run in C: Python's own takes 2 % of a hit's time."""

    def __init__(self, count: int) -> None:
        self._free: SimpleQueue[None] = SimpleQueue()
        for _ in range(count):
            self._free.put(None)

    def __enter__(self) -> None:
        self._free.get()

    def __exit__(self, *_: object) -> None:
        self._free.put(None)


_NO_TURN = nullcontext()

_LOGIN_REJECTED = "it rejects the user or the password, or misses one (REDIS_URL)"
_IN_WORDS = {
    "READONLY": READ_ONLY,
    "MISCONF": "it takes no writes because it cannot save them: see its log",
    "OOM": "it is full and may throw nothing away: set its maxmemory-policy",
    "CLUSTERDOWN": "the cluster is down: some slots have no server",
}


def _words(error: redis.RedisError, is_tls: bool, timeout_seconds: float) -> str:
    """What is wrong, in an operator's words, without a host or a password."""
    text = str(error)
    code = error.status_code or text.partition(" ")[0]
    hint = "A server without TLS needs redis://" if is_tls else "One with TLS needs rediss://"
    if isinstance(error, Unusable):
        return text
    if isinstance(error, redis.AuthenticationError):
        return _LOGIN_REJECTED
    if is_denied(error):
        return "its user lacks a right that is needed (REDIS_URL)"
    if code in _IN_WORDS:
        return _IN_WORDS[code]
    if "SELECT" in text or "DB index" in text:
        return "it has no database of this number: take the number out of REDIS_URL"
    if "cluster support disabled" in text:
        return "it is not a cluster: take REDIS_CLUSTER out of the settings"
    if isinstance(error, redis.TimeoutError):
        return (
            f"no answer within {timeout_seconds} s (REDIS_URL): is there a route (subnet, security"
            f" group)? {hint}"
        )
    if isinstance(error, redis.ResponseError):
        return f"it answers with an error: {code[:20]}"
    words = network_words(error.__cause__ or error.__context__)
    return f"{words} (REDIS_URL)" + (f". {hint}" if words == CONNECTION_LOST else "")
