"""Which server a command goes to: the only one, or in a cluster the master that has its slot."""

import hashlib
import time
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import redis
from redis.connection import parse_url
from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot

from chalicelib.cache import timeouts
from chalicelib.cache.commands import Command
from chalicelib.cache.connection import NodeConnection
from chalicelib.cache.redis_driver import Unusable
from chalicelib.errors import ConfigurationError


class Connection:
    """One user's connection to Redis: to the server, or to each master of the cluster. It is to be
    opened first. `server`: the name of the data set that it reached. `is_kept`: whether it may have
    been closed by the other side since it was used last."""

    def __init__(
        self,
        url: str,
        scripts: Sequence[str],
        is_cluster: bool,
        credentials: Callable[[], tuple[str, str]] | None = None,
        timeout_seconds: float | None = None,
        fixed_name: str = "",
    ) -> None:
        """`scripts` are loaded into each server. `credentials` gives user and password for each
        new connection, in place of the URL's. `timeout_seconds`: as `client` has it. `fixed_name`:
        the name of the data set, where a service hides its servers."""
        self.server = ""
        self.is_kept = False
        self._timeout_seconds = timeout_seconds
        self._options = parse_url(url)
        if credentials:
            self._options.pop("username", None)
            self._options["credential_provider"] = _CredentialProvider(credentials)
        self._options.setdefault("host", "localhost")
        self._options.setdefault("port", 6379)
        self._fixed_name = fixed_name
        self._preparation = [("SCRIPT", "LOAD", text) for text in scripts]
        self._is_cluster = is_cluster
        self._nodes: list[NodeConnection] = []
        self._node_of_slot: list[NodeConnection] = []
        self._sent: list[tuple[NodeConnection, Sequence[int]]] = []

    @property
    def keeps_new_keys(self) -> bool:
        """Whether the servers evict nothing that was set a moment ago."""
        return all(node.keeps_new_keys for node in self._nodes)

    @property
    def said(self) -> str:
        """What the first server said of itself when it was opened, in a line for the log."""
        return self._nodes[0].said if self._nodes else ""

    def open(self) -> None:
        """Open it to all of its servers. Raises RedisError; then nothing is open."""
        try:
            self._connect()
            for node in self._nodes:
                node.introduce()
        except BaseException:
            self.close()
            raise
        self._name_server()

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

    def name_server(self) -> None:
        """Have a name in `server` that is not older than one which comes with replies. One round
        trip where it is, as after some silence."""
        if any(node.is_name_due for node in self._nodes):
            self._sent = [(node, ()) for node in self._nodes]
            for node in self._nodes:
                node.send(())
            self.receive()

    def send(self, commands: Sequence[Command], *, wait: bool = True) -> None:
        if not self._nodes:
            raise redis.ConnectionError("closed")
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
        """Nobody waits for the replies: they are read with the next ones, and dropped."""
        for node, positions in self._sent:
            node.leave_replies(len(positions))

    def close(self) -> None:
        for node in self._nodes:
            node.close()
        self._nodes = []

    def _start_waiting(self) -> None:
        until = time.monotonic() + (self._timeout_seconds or timeouts.TIMEOUT_SECONDS)
        for node, _ in self._sent:
            node.wait_until(until)

    def _name_server(self) -> None:
        names = sorted(node.name for node in self._nodes)
        self.server = names[0]
        if self._is_cluster and not self._fixed_name:
            self.server = hashlib.sha1("".join(names).encode(), usedforsecurity=False).hexdigest()

    def _connect(self) -> None:
        first_node = self._node(self._options)
        if not self._is_cluster:
            return
        masters = {(self._options["host"], self._options["port"]): first_node}
        node_of_slot: list[Any] = [None] * REDIS_CLUSTER_HASH_SLOTS
        for first, last, (host, port, *_), *_replicas in first_node.ask(("CLUSTER", "SLOTS")):
            # A server that names no host means itself, by whatever name it is known here.
            address = ((host or b"").decode() or self._options["host"], port)
            if address not in masters:
                masters[address] = self._node(
                    {**self._options, "host": address[0], "port": address[1]}
                )
            node_of_slot[first : last + 1] = [masters[address]] * (last + 1 - first)
        if None in node_of_slot:
            raise redis.exceptions.ClusterDownError("a slot has no server")
        if first_node not in node_of_slot:  # it has another name there, or is a replica
            self._nodes.remove(first_node)
            first_node.close()
        self._node_of_slot = node_of_slot

    def _node(self, options: dict[str, Any]) -> NodeConnection:
        node = NodeConnection(
            options, self._preparation, self._is_cluster, self._timeout_seconds, self._fixed_name
        )
        self._nodes.append(node)
        node.connect()
        return node


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


@lru_cache(maxsize=1024)
def _slot(tag: str) -> int:
    return int(key_slot(tag.encode()))
