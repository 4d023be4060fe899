"""The line to Redis: one server or a cluster; commands in, replies out. The only importer of redis.

Commands come packed and go out in one piece a server: one round trip a call. Every command sent
here may run twice, so what meets a connection that was closed meanwhile is sent once more.

A line knows which server it reached (its `run_id`; of a cluster: of all masters). Cells are
believed only on the server they were written to: a promoted replica or a restored server is
another one.
"""

import hashlib
import logging
import socket
import ssl
import threading
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import hiredis
import redis
from redis.backoff import NoBackoff
from redis.connection import AbstractConnection, parse_url
from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot
from redis.retry import Retry

from chalicelib.config import Settings
from chalicelib.errors import CONNECTION_LOST, AnotherServer, CacheUnavailable, network_words
from chalicelib.pool import Pool

log = logging.getLogger("herocache.link")

TIMEOUT_SECONDS = 0.1
MAX_LINES_IN_USE = 8
"""More threads than this wait for their turn: a thousand at once would only time out together."""

_CLOSED = (redis.ConnectionError, redis.exceptions.MovedError, redis.exceptions.NoScriptError)


Words = tuple[str | int | bytes, ...]


class Command(NamedTuple):
    """`tag`: the hash tag its keys share; it picks the server where Redis is a cluster."""

    tag: str
    words: Words


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
        self._scripts = scripts
        self._probe = probe
        self._pool: Pool[_Line] = Pool(self._open, _Line.close)
        self._turns = threading.BoundedSemaphore(MAX_LINES_IN_USE)

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
        """The server that was reached, and its replies. In turn, and only while it is not down."""
        with self._turns:
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
            except _CLOSED:
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

    def _open(self) -> "_Line":
        return _Line(self._url, self._scripts, self.is_cluster)


class _Line:
    """One thread's connections: to the server, or to each master of the cluster. They open with
    the first exchange."""

    def __init__(self, url: str, scripts: Sequence[str], is_cluster: bool) -> None:
        self.server = ""
        self._options = parse_url(url)
        self._options.setdefault("host", "localhost")
        self._options.setdefault("port", 6379)
        self._preparation = [
            ("INFO", "server"),
            ("INFO", "replication"),
            *(("SCRIPT", "LOAD", text) for text in scripts),
        ]
        self._is_cluster = is_cluster
        self._nodes: list[_Node] = []
        self._node_of_slot: list[_Node] = []

    @property
    def is_open(self) -> bool:
        return bool(self._nodes)

    def exchange(self, commands: Sequence[Command], wait: bool) -> Sequence[Any]:
        if not self._nodes:
            self._open()
        positions: dict[_Node, list[int]] = {}
        for position, command in enumerate(commands):
            positions.setdefault(self._node(command.tag), []).append(position)
        for node, mine in positions.items():
            node.send([commands[position].words for position in mine])
        replies: list[Any] = [None] * len(commands)
        for node, mine in positions.items():
            node.greet()
            if wait:
                for position, reply in zip(mine, node.receive(len(mine))):
                    replies[position] = reply
            else:
                node.owed += len(mine)
        if not self._is_cluster:
            self.server = self._nodes[0].run_id
        return replies

    def close(self) -> None:
        for node in self._nodes:
            node.connection.disconnect()
        self._nodes = []

    def _node(self, tag: str) -> "_Node":
        if not self._is_cluster:
            return self._nodes[0]
        return self._node_of_slot[_slot(tag)]

    def _open(self) -> None:
        entry = _Node(self._options, self._preparation, self._is_cluster)
        if not self._is_cluster:
            self._nodes = [entry]
            return
        try:
            entry.send([("CLUSTER", "SLOTS")])
            entry.greet()
            [ranges] = entry.receive(1)
        finally:
            entry.connection.disconnect()
        masters: dict[tuple[str, int], _Node] = {}
        node_of_slot: list[Any] = [None] * REDIS_CLUSTER_HASH_SLOTS
        for first, last, (host, port, *_), *_replicas in ranges:
            # Without a host it is at the one that was asked, whatever that is called from here.
            address = ((host or b"").decode() or self._options["host"], port)
            if address not in masters:
                place = {"host": address[0], "port": address[1]}
                masters[address] = _Node({**self._options, **place}, self._preparation, True)
            node_of_slot[first : last + 1] = [masters[address]] * (last + 1 - first)
        if None in node_of_slot:
            raise redis.exceptions.ClusterDownError("a slot has no server")
        self._nodes = list(masters.values())
        self._node_of_slot = node_of_slot
        for node in self._nodes:
            node.send([])
        for node in self._nodes:
            node.greet()
        run_ids = sorted(node.run_id for node in self._nodes)
        self.server = hashlib.sha1("".join(run_ids).encode(), usedforsecurity=False).hexdigest()


class _Node:
    """A connection to one server, and the replies it still owes."""

    def __init__(
        self, options: Mapping[str, Any], preparation: Sequence[Words], in_cluster: bool
    ) -> None:
        self.run_id = ""
        self.owed = 0
        self.connection = _connection(options)
        self._preparation = preparation
        self._in_cluster = in_cluster

    def send(self, commands: Sequence[Words]) -> None:
        """In one piece; on a new connection after what prepares it."""
        if not self.run_id:
            commands = [*self._preparation, *commands]
        if commands:
            self.connection.send_packed_command([b"".join(map(_pack, commands))])

    def greet(self) -> None:
        """Read who the server is, where the connection is new."""
        if not self.run_id:
            server, replication, *_ = self.receive(len(self._preparation))
            mode = _field(server, b"redis_mode") or _field(server, b"server_mode")  # as in Valkey
            if mode == "cluster" and not self._in_cluster:
                raise _Unfit("it is part of a cluster: set REDIS_CLUSTER=1")
            if _field(replication, b"role") == "slave":
                raise _Unfit(_READ_ONLY)
            self.run_id = _field(server, b"run_id") or "unnamed"

    def receive(self, count: int) -> list[Any]:
        while self.owed:
            self.owed -= 1
            try:
                self.connection.read_response()
            except redis.exceptions.ReadOnlyError:
                raise  # a master that was made a replica since: its cells may be another's
            except redis.ResponseError as error:
                log.info("Redis refused what nobody waited for: %s", error.status_code)
        return [self.connection.read_response() for _ in range(count)]


class _Unfit(redis.RedisError):
    """It cannot be used as it is configured. The text says why."""


class _TlsConnection(redis.SSLConnection):
    """With a context that all connections share."""

    def _wrap_socket_with_ssl(self, sock: socket.socket) -> ssl.SSLSocket:
        context = _tls(self.ca_certs, self.certfile, self.keyfile, self.check_hostname)
        return context.wrap_socket(sock, server_hostname=self.host)


@lru_cache
def _tls(
    ca_certs: str | None, certfile: str | None, keyfile: str | None, check_hostname: bool
) -> ssl.SSLContext:
    """Made once a process: to load the system's authorities takes 30 ms."""
    try:
        context = ssl.create_default_context(cafile=ca_certs)
        if certfile:
            context.load_cert_chain(certfile, keyfile)
    except OSError as error:
        raise _Unfit("the files that its ssl_ options name cannot be read (REDIS_URL)") from error
    context.check_hostname = check_hostname
    return context


def _connection(options: Mapping[str, Any]) -> AbstractConnection:
    """It opens with its first command, in as few round trips as Redis allows."""
    options = dict(options)
    is_tls = options.pop("connection_class", None) is redis.SSLConnection
    connection_class = _TlsConnection if is_tls else redis.Connection
    connection: AbstractConnection = connection_class(
        socket_timeout=TIMEOUT_SECONDS,
        socket_connect_timeout=TIMEOUT_SECONDS,
        retry=Retry(NoBackoff(), 0),
        protocol=2,
        driver_info=None,
        **options,
    )
    return connection


def _pack(words: Words) -> bytes:
    packed: bytes = hiredis.pack_command(words)  # type: ignore[arg-type]
    return packed


@lru_cache(maxsize=1024)
def _slot(tag: str) -> int:
    return int(key_slot(tag.encode()))


def _field(info: bytes, name: bytes) -> str:
    lines = dict(line.partition(b":")[::2] for line in info.splitlines())
    return lines.get(name, b"").decode().strip()


_NO_ENTRY = "it refuses the user or the password, or misses one (REDIS_URL)"
_READ_ONLY = "it is a replica, which takes no writes (REDIS_URL)"
_IN_WORDS = {
    "NOPERM": "its user lacks a right that is needed (REDIS_URL)",
    "READONLY": _READ_ONLY,
    "MISCONF": "it takes no writes because it cannot save them: see its log",
    "OOM": "it is full and may throw nothing away: set its maxmemory-policy",
    "CLUSTERDOWN": "the cluster is down: some slots have no server",
}


def _words(error: redis.RedisError, is_tls: bool) -> str:
    """What is wrong, for an operator; no host and no password in it."""
    text = str(error)
    code = error.status_code or text.partition(" ")[0]
    hint = "A server without TLS needs redis://" if is_tls else "One with TLS needs rediss://"
    if isinstance(error, _Unfit):
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
