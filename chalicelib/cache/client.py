"""The client of Redis: gives out connections, and decides what their failures mean.

A call sends its commands to each server at once, so it costs one round trip. Every command may
run twice. So where a kept connection turns out to be closed, the call is tried again, and no error
is raised. After a failure nobody uses Redis until it has answered probes. That a connection takes
long to open is no failure: who cannot wait does without Redis.

A connection knows which data set it reached (`connection.server_name`; of a cluster, all its
masters). Entries are believed only in the data set they were written to: a promoted replica or a
restored server is another one. A serverless cache hides its servers: its name is that of the cache,
and the markers tell whether its entries are still those of before.
"""

import hashlib
import logging
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from queue import SimpleQueue
from typing import Any
from urllib.parse import urlsplit

import redis

from chalicelib.cache import timeouts
from chalicelib.cache.commands import LACKS_A_RIGHT, Command, Received
from chalicelib.cache.connection import READ_ONLY, is_denied
from chalicelib.cache.openings import Openings, StillOpening
from chalicelib.cache.redis_driver import Unusable, check_driver
from chalicelib.cache.routing import Connection
from chalicelib.clocks import clocks, seconds_since
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

# Redis failed so lately that a write does not try it.
FAILED_SECONDS = 5

# What must be done once is not sent again later: Redis may have forgotten the first copy. See
# `write_behind_totals`.
SENT_AGAIN_SECONDS = 5

# Fewer failovers than that in the life of a process are nothing to wonder at.
MANY_SERVERS = 5

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
        self._fixed_name = _name_of_service(settings)
        self._failed_at = 0.0
        self._has_told = False
        self._servers_met: set[str] = set()
        self._openings = Openings(self._open, self._keep, self._mark_down)
        self._pool: Pool[Connection] = Pool(self._openings.wait, Connection.close)
        self._turns = _Turns(MAX_CONNECTIONS_IN_USE)
        self._early_turns = threading.BoundedSemaphore(MAX_EARLY_CONNECTIONS)

    def call(
        self,
        commands: Sequence[Command],
        server: str,
        *,
        wait: bool = True,
        is_patient: bool = False,
    ) -> Sequence[Any]:
        """The reply to each command. Without `wait` none: they are read with the next call's. Who
        `is_patient` waits longer where no connection is open. Raises CacheUnavailable;
        AnotherServer where another data set than `server` was reached."""
        reached, replies = self._exchange(commands, wait, is_patient)
        if reached != server and self._pool.clear():
            # A kept connection may lead to a server that was replaced: see where a new one leads.
            reached, replies = self._exchange(commands, wait, is_patient)
        if reached != server:
            self._meet(reached)
            raise AnotherServer(reached)
        return replies

    def open_soon(self) -> None:
        """Have a connection opened, where none is open, and return at once."""
        if not (self.is_down or self._pool.has_idle):
            self._openings.begin()

    def open(self) -> None:
        """Have a connection open, or know that Redis is down. Where it was down some time ago, and
        nobody has probed it since, it is used again if it answers: this process may have been
        frozen."""
        try:
            if self.is_down and time.monotonic() - self._failed_at > FAILED_SECONDS:
                self.probe()
                self.resume()
            elif not (self.is_down or self._pool.has_idle):
                self._keep(self._pool.acquire(seconds=2 * timeouts.OPENING_SECONDS))
        except CacheUnavailable:
            pass
        except StillOpening:
            self._mark_down(_Late())
        except redis.RedisError as error:
            self._mark_down(error)

    def send(self, commands: Sequence[Command]) -> Connection | None:
        """Send the commands and return at once; None where they cannot be sent now. The connection
        must be given to `receive` or `abandon`."""
        if self.is_down or not self._early_turns.acquire(blocking=False):
            return None
        connection = self._pool.take()
        if connection is None:
            self._early_turns.release()
            self._openings.begin()
            return None
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
        self._keep(connection)
        self._early_turns.release()
        return received if reached == server else None

    def abandon(self, connection: Connection) -> None:
        """Drop the replies to what `send` sent."""
        connection.leave_replies()
        self._keep(connection)
        self._early_turns.release()

    def _fail_early(self, connection: Connection, error: redis.RedisError) -> None:
        """The commands may be sent again, unless the server was silent."""
        self._discard_early(connection)
        if isinstance(error, redis.TimeoutError):
            self._mark_down(error)

    def _discard_early(self, connection: Connection) -> None:
        self._pool.discard(connection)
        self._early_turns.release()

    def ask(self, command: Command, *, is_patient: bool = False) -> tuple[str, Any]:
        """The data set that answers now, whichever it is, and its reply. Raises
        CacheUnavailable."""
        reached, [reply] = self.ask_many([command], is_patient=is_patient)
        return reached, reply

    def ask_many(
        self, commands: Sequence[Command], *, is_patient: bool = False, only_on: str = ""
    ) -> tuple[str, Sequence[Any]]:
        """The same for several commands. `only_on`: the data set that the commands are for. Raises
        AnotherServer where no connection leads to it: then nothing was sent."""
        try:
            return self._exchange(commands, True, is_patient, only_on)
        except AnotherServer:
            # A kept connection may lead to a server that was replaced.
            if not self._pool.clear():
                raise
            return self._exchange(commands, True, is_patient, only_on)

    def probe(self) -> str:
        """The data set that answers now and can be used. Raises CacheUnavailable."""
        reached, _ = self._exchange_now(self._probe, True, 2 * timeouts.OPENING_SECONDS)
        return reached

    def resume(self) -> None:
        """Call Redis again, after `probe` has succeeded."""
        self.is_down = False

    def _exchange(
        self, commands: Sequence[Command], wait: bool, is_patient: bool, only_on: str = ""
    ) -> tuple[str, Sequence[Any]]:
        """As `_exchange_now`, but not while Redis is down, and only so many threads at a time. A
        sender that does not wait for replies does not wait for its turn: others may be waiting for
        what it sends."""
        with self._turns if wait else _NO_TURN:
            if self.is_down:
                raise CacheUnavailable("it failed a moment ago and is being probed")
            patience = timeouts.OPENING_SECONDS if is_patient else None
            return self._exchange_now(commands, wait, patience, only_on)

    def _exchange_now(
        self,
        commands: Sequence[Command],
        wait: bool,
        patience_seconds: float | None,
        only_on: str = "",
    ) -> tuple[str, Sequence[Any]]:
        """The data set that was reached, and its replies. Where no connection opens within the
        patience, Redis is down. Without patience it is not: then nobody knows."""
        try:
            connection = self._pool.take() or self._opened(patience_seconds)
            if only_on:
                connection = self._only_on(only_on, connection, patience_seconds)
            sent_at = clocks()
            try:
                replies = self._replies(connection, commands, wait)
            except _KEPT_TOO_LONG:
                if not connection.is_kept:
                    raise
                connection = self._opened(patience_seconds)
                if only_on and connection.server != only_on:
                    self._keep(connection)
                    raise CacheUnavailable("another server took over while it was asked") from None
                if only_on and seconds_since(sent_at) > SENT_AGAIN_SECONDS:
                    self._keep(connection)
                    raise CacheUnavailable("this process slept while it was asked") from None
                replies = self._replies(connection, commands, wait)
        except redis.RedisError as error:
            raise self._mark_down(error) from error
        reached = connection.server  # before another thread may use the connection
        self._keep(connection)
        return reached, replies

    def _only_on(
        self, server: str, connection: Connection, patience_seconds: float | None
    ) -> Connection:
        """The connection, or another one where it was kept too long. Raises AnotherServer where it
        leads to another data set now."""
        try:
            connection.name_server()
        except _KEPT_TOO_LONG:
            self._pool.discard(connection)
            if not connection.is_kept:
                raise
            connection = self._opened(patience_seconds)
        except BaseException:
            self._pool.discard(connection)
            raise
        reached = connection.server
        if reached != server:
            self._keep(connection)
            raise AnotherServer(reached)
        return connection

    def _replies(
        self, connection: Connection, commands: Sequence[Command], wait: bool
    ) -> Sequence[Any]:
        try:
            return connection.exchange(commands, wait)
        except BaseException:
            self._pool.discard(connection)
            raise

    def _opened(self, patience_seconds: float | None) -> Connection:
        """A new connection. Raises RedisError; CacheUnavailable where it is not open at once."""
        try:
            if patience_seconds is None:
                seconds = self._timeout_seconds or timeouts.TIMEOUT_SECONDS
                return self._openings.wait(seconds, since_it_began=True)
            return self._openings.wait(patience_seconds)
        except StillOpening:
            if patience_seconds is not None:
                raise _Late() from None
            # Whoever waits longer than a request does tells an operator why it failed.
            is_long = self._timeout_seconds is not None
            words = self._words(_Late()) if is_long else "a connection to it is being opened"
            raise CacheUnavailable(words) from None

    def _keep(self, connection: Connection) -> None:
        connection.is_kept = True
        self._pool.release(connection)

    def _mark_down(self, error: redis.RedisError) -> CacheUnavailable:
        self._failed_at = time.monotonic()
        if not self.is_down:
            self.is_down = True
            log.warning("Redis is left alone until it answers probes: %s", self._words(error))
            self.on_down()
        return CacheUnavailable(self._words(error))

    def _words(self, error: redis.RedisError) -> str:
        seconds = self._timeout_seconds or timeouts.TIMEOUT_SECONDS
        if isinstance(error, _Late):
            seconds = timeouts.OPENING_SECONDS
        return _words(error, self._url.startswith("rediss:"), seconds)

    def _open(self) -> Connection:
        connection = Connection(
            self._url,
            self._scripts,
            self.is_cluster,
            self._credentials,
            self._timeout_seconds,
            self._fixed_name,
        )
        try:
            connection.open()
        except redis.TimeoutError as error:
            raise _Late() from error
        if not self._has_told:
            self._has_told = True
            log.info("Redis says: %s", connection.said)
        return connection

    def _meet(self, server: str) -> None:
        """Another one than the entries are in. Where that goes on, nobody has the cache's use."""
        self._servers_met.add(server)
        if len(self._servers_met) == MANY_SERVERS:
            log.warning(
                "Redis has named %d servers to this process: if it is a service that hides its"
                " servers, set REDIS_SERVERLESS=1",
                MANY_SERVERS,
            )


def _name_of_service(settings: Settings) -> str:
    """The name of the data set of a serverless cache: its host's. Empty for other caches."""
    if not settings.redis_serverless:
        return ""
    parts = urlsplit(settings.redis_url)
    place = f"{parts.hostname}:{parts.port}".encode()
    return f"serverless-{hashlib.sha1(place, usedforsecurity=False).hexdigest()[:20]}"


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


class _Late(redis.TimeoutError):
    """No connection opened in time."""


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
        return LACKS_A_RIGHT
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
