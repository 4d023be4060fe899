"""Connections to one Redis server, or to each master of a cluster: packed commands out, replies in.

`link` decides who may use a line and what its failures mean. With it the only importer of redis.
"""

import hashlib
import logging
import math
import socket
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import hiredis
import redis
from redis.backoff import NoBackoff
from redis.connection import AbstractConnection, DefaultParser, parse_url
from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot
from redis.retry import Retry

from chalicelib.errors import ConfigurationError
from chalicelib.network import reach

log = logging.getLogger("herocache.line")

TIMEOUT_SECONDS = 0.1
_SLACK_SECONDS = 0.001
"""A wait may end so much late. One that just began has the socket's own timeout: to set another
one takes two system calls."""
NAMED_FOR_SECONDS = 0.5
"""Then a server is asked again who it is, with the next commands: one that was a replica meanwhile
has another's entries, though it is the same process and the same connection."""
READ_ONLY = "it is a replica, which takes no writes (REDIS_URL)"

Words = tuple[str | int | bytes, ...]
_REPLICATION: Words = ("INFO", "replication")


class Command(NamedTuple):
    """`tag`: the hash tag its keys share; it picks the server where Redis is a cluster. A command
    that was packed already brings its bytes instead of `words`."""

    tag: str
    words: Words | bytes


class Line:
    """One user's connections: to the server, or to each master of the cluster. They open with
    the first exchange."""

    def __init__(
        self,
        url: str,
        scripts: Sequence[str],
        is_cluster: bool,
        mint: Callable[[], tuple[str, str]] | None = None,
    ) -> None:
        """`mint` makes user and password for each connection, in place of the URL's."""
        self.server = ""
        self._options = parse_url(url)
        if mint:
            self._options.pop("username", None)
            self._options["credential_provider"] = _Minted(mint)
        self._options.setdefault("host", "localhost")
        self._options.setdefault("port", 6379)
        self._preparation = [
            ("INFO", "server"),
            _REPLICATION,
            *(("SCRIPT", "LOAD", text) for text in scripts),
        ]
        self._is_cluster = is_cluster
        self._nodes: list[Node] = []
        self._node_of_slot: list[Node] = []
        self._sent: list[tuple[Node, Sequence[int]]] = []

    @property
    def is_open(self) -> bool:
        return bool(self._nodes)

    def exchange(self, commands: Sequence[Command], wait: bool) -> Sequence[Any]:
        self.send(commands, wait=wait)
        if wait:
            return self.receive()
        self._begin_waiting()
        for node, _ in self._sent:
            node.greet()
        self._name_server()
        self.owe()
        return ()

    def send(self, commands: Sequence[Command], *, wait: bool = True) -> None:
        if not self._nodes:
            self._open()
        if not self._is_cluster:
            self._sent = [(self._nodes[0], range(len(commands)))]
            self._nodes[0].send(commands, wait=wait)
            return
        positions: dict[Node, list[int]] = {}
        for position, command in enumerate(commands):
            positions.setdefault(self._node_of_slot[_slot(command.tag)], []).append(position)
        self._sent = list(positions.items())
        for node, mine in self._sent:
            node.send([commands[position] for position in mine], wait=wait)

    def owe(self) -> None:
        """The replies are read with the next ones. A server that was not greeted yet is left."""
        if not all(node.name for node, _ in self._sent):
            self.close()
            return
        for node, positions in self._sent:
            node.owe(len(positions))

    def receive(self) -> Sequence[Any]:
        """The reply to each command that `send` sent, in order."""
        self._begin_waiting()
        if not self._is_cluster:
            [(node, positions)] = self._sent
            if node.greet():
                self._name_server()
            return node.replies(len(positions))
        replies: dict[int, Any] = {}
        for node, positions in self._sent:
            node.greet()
            replies.update(zip(positions, node.replies(len(positions))))
        self._name_server()
        return [replies[position] for position in range(len(replies))]

    def _begin_waiting(self) -> None:
        until = time.monotonic() + TIMEOUT_SECONDS
        for node, _ in self._sent:
            node.wait_until(until)

    def close(self) -> None:
        for node in self._nodes:
            node.connection.disconnect()
        self._nodes = []

    def _name_server(self) -> None:
        names = sorted(node.name for node in self._nodes)
        self.server = names[0]
        if self._is_cluster:
            self.server = hashlib.sha1("".join(names).encode(), usedforsecurity=False).hexdigest()

    def _open(self) -> None:
        entry = Node(self._options, self._preparation, self._is_cluster)
        if not self._is_cluster:
            self._nodes = [entry]
            return
        try:
            ranges = entry.ask(("CLUSTER", "SLOTS"))
        finally:
            entry.connection.disconnect()
        masters: dict[tuple[str, int], Node] = {}
        node_of_slot: list[Any] = [None] * REDIS_CLUSTER_HASH_SLOTS
        for first, last, (host, port, *_), *_replicas in ranges:
            # Without a host it is at the one that was asked, whatever that is called from here.
            address = ((host or b"").decode() or self._options["host"], port)
            if address not in masters:
                place = {"host": address[0], "port": address[1]}
                masters[address] = Node({**self._options, **place}, self._preparation, True)
            node_of_slot[first : last + 1] = [masters[address]] * (last + 1 - first)
        if None in node_of_slot:
            raise redis.exceptions.ClusterDownError("a slot has no server")
        self._nodes = list(masters.values())
        self._node_of_slot = node_of_slot
        for node in self._nodes:
            node.send([])
        for node in self._nodes:
            node.greet()
        self._name_server()


class Node:
    """A connection to one server, and the replies it still owes. `name`: which data it has."""

    def __init__(
        self, options: Mapping[str, Any], preparation: Sequence[Words], in_cluster: bool
    ) -> None:
        self.name = ""
        self.connection = _connection(options)
        self._process = ""
        self._named_at = 0.0
        self._owed = 0
        self._asked = 0
        self._preparation = preparation
        self._in_cluster = in_cluster

    def send(self, commands: Sequence[Command], *, wait: bool = True) -> None:
        """In one piece: behind what asks who the server is, where that is to be known, and before
        what only a master does. A kept connection may lead to one that was made a replica since."""
        packed = [_pack(command.words) for command in commands]
        if commands:
            packed.append(_only_of_masters(commands[0].tag))
        self._write(packed, wait)

    def ask(self, words: Words) -> Any:
        """The reply to a command that any server may answer."""
        self._write([_pack(words)], wait=True)
        self.wait_until(time.monotonic() + TIMEOUT_SECONDS)
        self.greet()
        return self._receive(1)[0]

    def wait_until(self, until: float) -> None:
        """For all replies, however many pieces they come in; in monotonic seconds."""
        self.connection._parser.until = until

    def greet(self) -> bool:
        """Read who the server is; false where it was not asked."""
        asked, self._asked = self._asked, 0
        if not asked:
            return False
        *first, replication = self._receive(asked)[:2]
        if first:
            self._meet(first[0], replication)
        elif _field(replication, b"role") == "slave":
            raise redis.exceptions.ReadOnlyError(READ_ONLY)
        self.name = server_name(self._process, _field(replication, b"master_replid"))
        return True

    def replies(self, count: int) -> list[Any]:
        """To the `count` commands that were sent last."""
        return self._receive(count + 1)[:-1] if count else []

    def owe(self, count: int) -> None:
        """What `count` commands are answered is read with the next replies."""
        self._owed += self._asked + (count + 1 if count else 0)
        if self._asked:  # nobody reads who the server is: ask again
            self._asked, self._named_at = 0, 0.0

    def _write(self, packed: list[bytes], wait: bool) -> None:
        now = time.monotonic()
        questions: Sequence[Words] = []
        if not self.name:
            questions = self._preparation
        elif wait and now - self._named_at >= NAMED_FOR_SECONDS:
            questions = [_REPLICATION]
        if questions:
            self._named_at = now
            self._asked = len(questions)
        if questions or packed:
            self.wait_until(now + 2 * TIMEOUT_SECONDS)  # for the login of a new connection
            self.connection.send_packed_command([b"".join([*map(_pack, questions), *packed])])

    def _meet(self, server: bytes, replication: bytes) -> None:
        mode = _field(server, b"redis_mode") or _field(server, b"server_mode")  # as in Valkey
        if mode == "cluster" and not self._in_cluster:
            raise Unfit("it is part of a cluster: set REDIS_CLUSTER=1")
        if _field(replication, b"role") == "slave":
            raise Unfit(READ_ONLY)
        self._process = _field(server, b"run_id")

    def _receive(self, count: int) -> list[Any]:
        while self._owed:
            self._owed -= 1
            try:
                self.connection.read_response()
            except redis.exceptions.ReadOnlyError:
                raise  # a master that was made a replica since: its entries may be another's
            except redis.ResponseError as error:
                log.info("Redis refused what nobody waited for: %s", error.status_code)
        return [self.connection.read_response() for _ in range(count)]


class _Parser(DefaultParser):  # type: ignore[misc, valid-type]
    """The driver's, with one end for all it waits for: the driver itself begins anew with each byte
    that comes. `until` is in monotonic seconds."""

    until = math.inf

    def read_from_socket(self, timeout: object = None, raise_on_timeout: bool = True) -> bool:
        left = self.until - time.monotonic()
        if left <= 0:
            raise redis.TimeoutError("Timeout reading from socket")
        if left > TIMEOUT_SECONDS - _SLACK_SECONDS:
            return bool(super().read_from_socket(raise_on_timeout=raise_on_timeout))
        return bool(super().read_from_socket(timeout=left, raise_on_timeout=raise_on_timeout))


class Unfit(redis.RedisError):
    """It cannot be used as it is configured. The text says why."""


class _Minted(redis.CredentialProvider):
    """A token lives 15 minutes and opens one connection; ElastiCache ends that after 12 hours."""

    def __init__(self, mint: Callable[[], tuple[str, str]]) -> None:
        self._mint = mint

    def get_credentials(self) -> tuple[str, str]:
        try:
            return self._mint()
        except ConfigurationError as error:  # trouble of the cache is never the caller's
            raise Unfit(str(error)) from error


def _reached(host: str, port: int) -> socket.socket:
    connection = reach(host, port, TIMEOUT_SECONDS)
    connection.settimeout(TIMEOUT_SECONDS)
    return connection


class _Connection(redis.Connection):
    """The driver's, with one time for the look-up of the name and all addresses that it has."""

    def _connect(self) -> socket.socket:
        return _reached(self.host, self.port)


class _TlsConnection(redis.SSLConnection):
    """With a context that all connections share."""

    def _connect(self) -> ssl.SSLSocket:
        connection = _reached(self.host, self.port)
        try:
            return self._wrap_socket_with_ssl(connection)
        except (OSError, redis.RedisError):
            connection.close()
            raise

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
        raise Unfit("the files that its ssl_ options name cannot be read (REDIS_URL)") from error
    context.check_hostname = check_hostname
    return context


def _connection(options: Mapping[str, Any]) -> AbstractConnection:
    """It opens with its first command, in as few round trips as Redis allows."""
    options = dict(options)
    is_tls = options.pop("connection_class", None) is redis.SSLConnection
    connection_class = _TlsConnection if is_tls else _Connection
    connection: AbstractConnection = connection_class(
        socket_timeout=TIMEOUT_SECONDS,
        retry=Retry(NoBackoff(), 0),
        protocol=2,
        driver_info=None,
        parser_class=_Parser,
        **options,
    )
    return connection


def server_name(process: str, history: str) -> str:
    """Of the data that a server has: by its `run_id`, which a restart changes, and by its
    `master_replid`, which changes when a replica takes over: also back to the same process. Where a
    service hides its servers there is one name for all."""
    return f"{process[:20]}-{history[:20]}" if process else "unnamed"


def packed_series(verb: str, prefix: str, width: int, numbers: Sequence[int]) -> bytes:
    """A command whose arguments differ in a number of at most `width` characters only. One
    formatting at C speed: word by word it takes as long as an MGET of these keys."""
    argument = f"${len(prefix) + width}\r\n{prefix}%0{width}d\r\n"
    head = f"*{len(numbers) + 1}\r\n${len(verb)}\r\n{verb}\r\n"
    return (head + argument * len(numbers) % tuple(numbers)).encode()


def _pack(words: Words | bytes) -> bytes:
    packed: bytes = words if isinstance(words, bytes) else hiredis.pack_command(words)  # type: ignore[arg-type]
    return packed


@lru_cache(maxsize=1024)
def _only_of_masters(tag: str) -> bytes:
    """A command that changes nothing, and that a replica refuses."""
    return _pack(("PERSIST", f"{{{tag}}}:probe"))


@lru_cache(maxsize=1024)
def _slot(tag: str) -> int:
    return int(key_slot(tag.encode()))


def _field(info: bytes, name: bytes) -> str:
    lines = dict(line.partition(b":")[::2] for line in info.splitlines())
    return lines.get(name, b"").decode().strip()
