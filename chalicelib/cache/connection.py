"""Connections to Redis: timeouts, and the routing of commands to the masters of a cluster.

Commands are sent packed, and replies are read. `client` decides who may use a connection, and what
its failures mean.
"""

import hashlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import hiredis
import redis
from redis.connection import parse_url
from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot

from chalicelib.cache.commands import Command, Words
from chalicelib.cache.redis_driver import Deadline, Unusable, new_connection
from chalicelib.errors import ConfigurationError

log = logging.getLogger("herocache.redis")

# How long a request waits for the replies of one call, or for a new connection.
TIMEOUT_SECONDS = 0.1

# How long a server's name is believed. After that, the next commands ask the server again who it
# is: it may have been a replica meanwhile, with another server's entries, in the same process and
# on the same connection.
NAMED_FOR_SECONDS = 0.5

READ_ONLY = "it is a replica, which takes no writes (REDIS_URL)"

_REPLICATION: Words = ("INFO", "replication")


class Connection:
    """One user's connection to Redis: to the server, or to each master of the cluster. It opens
    with the first command. `server`: the name of the data set that it reached."""

    def __init__(
        self,
        url: str,
        scripts: Sequence[str],
        is_cluster: bool,
        credentials: Callable[[], tuple[str, str]] | None = None,
    ) -> None:
        """`scripts` are loaded into each server. `credentials` gives user and password for each
        new connection, in place of the URL's."""
        self.server = ""
        self._options = parse_url(url)
        if credentials:
            self._options.pop("username", None)
            self._options["credential_provider"] = _CredentialProvider(credentials)
        self._options.setdefault("host", "localhost")
        self._options.setdefault("port", 6379)
        self._preparation = [
            ("INFO", "server"),
            _REPLICATION,
            *(("SCRIPT", "LOAD", text) for text in scripts),
        ]
        self._is_cluster = is_cluster
        self._nodes: list[NodeConnection] = []
        self._node_of_slot: list[NodeConnection] = []
        self._sent: list[tuple[NodeConnection, Sequence[int]]] = []

    @property
    def is_open(self) -> bool:
        return bool(self._nodes)

    def exchange(self, commands: Sequence[Command], wait: bool) -> Sequence[Any]:
        """Send the commands; the reply to each. Without `wait` none: the next exchange reads
        them."""
        self.send(commands, wait=wait)
        if wait:
            return self.receive()
        self._start_waiting()
        for node, _ in self._sent:
            node.receive_name()
        self._name_server()
        self.leave_replies()
        return ()

    def send(self, commands: Sequence[Command], *, wait: bool = True) -> None:
        if not self._nodes:
            self._open()
        if not self._is_cluster:
            self._sent = [(self._nodes[0], range(len(commands)))]
            self._nodes[0].send(commands, wait=wait)
            return
        positions: dict[NodeConnection, list[int]] = {}
        for position, command in enumerate(commands):
            positions.setdefault(self._node_of_slot[_slot(command.tag)], []).append(position)
        self._sent = list(positions.items())
        for node, own in self._sent:
            node.send([commands[position] for position in own], wait=wait)

    def receive(self) -> Sequence[Any]:
        """The reply to each command that `send` sent, in order."""
        self._start_waiting()
        if not self._is_cluster:
            [(node, positions)] = self._sent
            if node.receive_name():
                self._name_server()
            return node.receive(len(positions))
        replies: dict[int, Any] = {}
        for node, positions in self._sent:
            node.receive_name()
            replies.update(zip(positions, node.receive(len(positions))))
        self._name_server()
        return [replies[position] for position in range(len(replies))]

    def leave_replies(self) -> None:
        """Nobody waits for the replies: they are read with the next ones, and dropped. A connection
        that has no name yet is closed instead."""
        if not all(node.name for node, _ in self._sent):
            self.close()
            return
        for node, positions in self._sent:
            node.leave_replies(len(positions))

    def close(self) -> None:
        for node in self._nodes:
            node.close()
        self._nodes = []

    def _start_waiting(self) -> None:
        until = time.monotonic() + TIMEOUT_SECONDS
        for node, _ in self._sent:
            node.wait_until(until)

    def _name_server(self) -> None:
        names = sorted(node.name for node in self._nodes)
        self.server = names[0]
        if self._is_cluster:
            self.server = hashlib.sha1("".join(names).encode(), usedforsecurity=False).hexdigest()

    def _open(self) -> None:
        first_node = NodeConnection(self._options, self._preparation, self._is_cluster)
        if not self._is_cluster:
            self._nodes = [first_node]
            return
        try:
            ranges = first_node.ask(("CLUSTER", "SLOTS"))
        finally:
            first_node.close()
        masters: dict[tuple[str, int], NodeConnection] = {}
        node_of_slot: list[Any] = [None] * REDIS_CLUSTER_HASH_SLOTS
        for first, last, (host, port, *_), *_replicas in ranges:
            # A server that names no host means itself, by whatever name it is known here.
            address = ((host or b"").decode() or self._options["host"], port)
            if address not in masters:
                options = {**self._options, "host": address[0], "port": address[1]}
                masters[address] = NodeConnection(options, self._preparation, True)
            node_of_slot[first : last + 1] = [masters[address]] * (last + 1 - first)
        if None in node_of_slot:
            raise redis.exceptions.ClusterDownError("a slot has no server")
        self._nodes = list(masters.values())
        self._node_of_slot = node_of_slot
        for node in self._nodes:
            node.send([])
        for node in self._nodes:
            node.receive_name()
        self._name_server()


class NodeConnection:
    """A connection to one server. `name` names the data set that the server has; empty until the
    server has told it."""

    def __init__(
        self, options: Mapping[str, Any], preparation: Sequence[Words], in_cluster: bool
    ) -> None:
        """`preparation` is sent ahead of the first commands."""
        self.name = ""
        self._deadline = Deadline()
        self._driver = new_connection(options, TIMEOUT_SECONDS, self._deadline)
        self._process = ""
        self._number = int(options.get("db") or 0)
        self._named_at = 0.0
        self._name_replies = 0  # to the questions that ask for the name, and are not read yet
        self._left_replies = 0  # nobody waits for them
        self._preparation = preparation
        self._in_cluster = in_cluster

    def send(self, commands: Sequence[Command], *, wait: bool = True) -> None:
        """Send the commands in one piece. Where the name is due the questions for it go first. The
        last command is one that a replica rejects: a kept connection may lead to a server that was
        made a replica."""
        packed = [_pack(command.words) for command in commands]
        if commands:
            packed.append(_only_for_masters(commands[0].tag))
        self._write(packed, wait)

    def ask(self, words: Words) -> Any:
        """The reply to a command that a replica may answer too."""
        self._write([_pack(words)], wait=True)
        self.wait_until(time.monotonic() + TIMEOUT_SECONDS)
        self.receive_name()
        return self._receive(1)[0]

    def wait_until(self, until: float) -> None:
        """Wait so long for all replies together, in monotonic seconds."""
        self._deadline.until = until

    def receive_name(self) -> bool:
        """Read the server's name if it was asked for; whether it was."""
        count, self._name_replies = self._name_replies, 0
        if not count:
            return False
        *first, replication = self._receive(count)[:2]
        if first:
            self._check_usable(first[0], replication)
        elif _field(replication, b"role") == "slave":
            raise redis.exceptions.ReadOnlyError(READ_ONLY)
        history = _field(replication, b"master_replid")
        self.name = server_name(self._process, history, self._number)
        return True

    def receive(self, count: int) -> list[Any]:
        """The replies to the `count` commands that were sent last."""
        return self._receive(count + 1)[:-1] if count else []

    def leave_replies(self, count: int) -> None:
        """Drop the replies to the `count` commands that were sent last, when the next are read."""
        self._left_replies += self._name_replies + (count + 1 if count else 0)
        if self._name_replies:  # the name is dropped too: ask for it again
            self._name_replies, self._named_at = 0, 0.0

    def close(self) -> None:
        self._driver.disconnect()

    def _write(self, packed: list[bytes], wait: bool) -> None:
        now = time.monotonic()
        questions: Sequence[Words] = []
        if not self.name:
            questions = self._preparation
        elif wait and now - self._named_at >= NAMED_FOR_SECONDS:
            questions = [_REPLICATION]
        if questions:
            self._named_at = now
            self._name_replies = len(questions)
        if questions or packed:
            self.wait_until(now + 2 * TIMEOUT_SECONDS)  # for the login of a new connection
            self._driver.send_packed_command([b"".join([*map(_pack, questions), *packed])])

    def _check_usable(self, server: bytes, replication: bytes) -> None:
        mode = _field(server, b"redis_mode") or _field(server, b"server_mode")  # as in Valkey
        if mode == "cluster" and not self._in_cluster:
            raise Unusable("it is part of a cluster: set REDIS_CLUSTER=1")
        if _field(replication, b"role") == "slave":
            raise Unusable(READ_ONLY)
        self._process = _field(server, b"run_id")

    def _receive(self, count: int) -> list[Any]:
        while self._left_replies:
            self._left_replies -= 1
            try:
                self._driver.read_response()
            except redis.exceptions.ReadOnlyError:
                raise  # the server was made a replica: its entries may be another server's
            except redis.ResponseError as error:
                log.info("Redis rejected what nobody waited for: %s", error.status_code)
        return [self._driver.read_response() for _ in range(count)]


class _CredentialProvider(redis.CredentialProvider):
    """Gives the driver a new token for each connection: a token is valid for 15 minutes, and
    ElastiCache ends a connection after 12 hours."""

    def __init__(self, credentials: Callable[[], tuple[str, str]]) -> None:
        self._credentials = credentials

    def get_credentials(self) -> tuple[str, str]:
        try:
            return self._credentials()
        except ConfigurationError as error:  # the cache's trouble is never the caller's
            raise Unusable(str(error)) from error


def server_name(process: str, history: str, number: int = 0) -> str:
    """The name of the data set that a server has. `process` is its `run_id`, which a restart
    changes. `history` is its `master_replid`, which changes when a replica takes over, and again
    when the old master does. `number`: which of the server's databases is used. One name for all
    where a service hides its servers."""
    name = f"{process[:20]}-{history[:20]}" if process else "unnamed"
    return f"{name}/{number}" if number else name


def _pack(words: Words | bytes) -> bytes:
    packed: bytes = words if isinstance(words, bytes) else hiredis.pack_command(words)  # type: ignore[arg-type]
    return packed


@lru_cache(maxsize=1024)
def _only_for_masters(tag: str) -> bytes:
    """A command that changes nothing, and that a replica rejects."""
    return _pack(("PERSIST", f"{{{tag}}}:probe"))


@lru_cache(maxsize=1024)
def _slot(tag: str) -> int:
    return int(key_slot(tag.encode()))


def _field(info: bytes, name: bytes) -> str:
    lines = dict(line.partition(b":")[::2] for line in info.splitlines())
    return lines.get(name, b"").decode().strip()
