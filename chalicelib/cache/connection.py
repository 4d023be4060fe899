"""A connection to one Redis server: its name, commands packed and replies read.

`routing` decides which server a command goes to. `client` decides who may use a connection, and
what its failures mean.
"""

import logging
import math
import time
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import hiredis
import redis

from chalicelib.cache import timeouts
from chalicelib.cache.commands import Command, Words
from chalicelib.cache.redis_driver import Unusable, new_connection, wait_at_most

log = logging.getLogger("herocache.redis")

# How long a server's name is believed. After that, the next commands ask the server again who it
# is: it may have been a replica meanwhile, with another server's entries, in the same process and
# on the same connection.
NAMED_FOR_SECONDS = 0.5

# What is larger may take longer to send than a request waits for Redis.
LARGE_BYTES = 100_000

READ_ONLY = "it is a replica, which takes no writes (REDIS_URL)"

REPLICATION: Words = ("INFO", "replication")

# What a new connection asks first.
INTRODUCTION: tuple[Words, ...] = (("INFO", "server"), ("INFO", "memory"), REPLICATION)

# What Redis evicts under these is never what was set a moment ago: nothing at all, or of some keys
# the one that was used longest ago.
POLICIES_THAT_KEEP_NEW_KEYS = frozenset({"noeviction", "allkeys-lru", "volatile-lru"})


class NodeConnection:
    """A connection to one server, to be opened first. `name` names the data set that the server
    has. `keeps_new_keys`: whether the server evicts nothing that was set a moment ago."""

    def __init__(
        self,
        options: Mapping[str, Any],
        preparation: Sequence[Words],
        in_cluster: bool,
        timeout_seconds: float | None = None,
        fixed_name: str = "",
    ) -> None:
        """`preparation` is sent once the connection is open. `fixed_name`: the name, where a
        service hides its servers; then nothing that the server says of itself is needed."""
        self.name = fixed_name
        self.said = ""
        self.keeps_new_keys = False
        self._deadline = timeouts.Deadline()
        self._timeout_seconds = timeout_seconds or timeouts.TIMEOUT_SECONDS
        self._driver = new_connection(options, self._timeout_seconds, self._deadline)
        self._process = ""
        self._number = int(options.get("db") or 0)
        self._named_at = -math.inf
        self._name_replies = 0  # to the questions that ask for the name, and are not read yet
        self._left_replies = 0  # nobody waits for them
        self._may_be_denied: list[bool] = []  # of each reply that comes next
        self._is_checked = False  # whether the last of them is of a command for masters only
        self._preparation = preparation
        self._fixed_name = fixed_name
        self._in_cluster = in_cluster

    @property
    def is_name_due(self) -> bool:
        """Whether the name is so old that the next question asks for it too."""
        return not self._fixed_name and time.monotonic() - self._named_at >= NAMED_FOR_SECONDS

    def connect(self) -> None:
        """Connect and log in. Each step may take OPENING_SECONDS."""
        self._driver.connect()

    def introduce(self) -> None:
        """Learn who the server is, and load the scripts; then it can be used."""
        self._named_at = time.monotonic()
        self._send(b"".join(map(_pack, (*INTRODUCTION, *self._preparation))))
        self.wait_until(time.monotonic() + timeouts.OPENING_SECONDS)
        server, memory, replication = [self._receive_said() for _ in INTRODUCTION]
        self._receive(len(self._preparation))
        self._check_usable(server, replication)
        self.keeps_new_keys = _keeps_new_keys(memory)
        self._name(replication)
        self.said = _summary(server + memory + replication)
        wait_at_most(self._driver, self._timeout_seconds)

    def _receive_said(self) -> bytes:
        """What the server says of itself; empty where a service does not let it say that."""
        try:
            return bytes(self._driver.read_response())
        except redis.ResponseError:
            if not self._fixed_name:
                raise
            return b""

    def send(self, commands: Sequence[Command], *, wait: bool = True) -> None:
        """Send the commands at once. Where the name is due the questions for it go first. The
        last command is one that a replica rejects: a kept connection may lead to a server that was
        made a replica."""
        packed = [_pack(command.words) for command in commands]
        self._may_be_denied = [command.may_be_denied for command in commands]
        self._is_checked = bool(commands) and not commands[-1].is_write
        if self._is_checked:
            packed.append(_only_for_masters(commands[0].tag))
            self._may_be_denied.append(False)
        self._write(packed, wait)

    def ask(self, words: Words) -> Any:
        """The reply to a command that a replica may answer too, before `introduce`."""
        self._driver.send_packed_command([_pack(words)])
        self.wait_until(time.monotonic() + timeouts.OPENING_SECONDS)
        return self._receive(1)[0]

    def wait_until(self, until: float) -> None:
        """Wait so long for all replies together, in monotonic seconds."""
        self._deadline.until = until

    def receive_name(self) -> bool:
        """Read the server's name if it was asked for. Returns whether it was."""
        count, self._name_replies = self._name_replies, 0
        if not count:
            return False
        [replication] = self._receive(count)
        if _field(replication, b"role") == "slave":
            raise redis.exceptions.ReadOnlyError(READ_ONLY)
        self._name(replication)
        return True

    def _name(self, replication: bytes) -> None:
        if not self._fixed_name:
            history = _field(replication, b"master_replid")
            self.name = server_name(self._process, history, self._number)

    def receive(self, count: int) -> list[Any]:
        """The replies to the `count` commands that were sent last."""
        if True not in self._may_be_denied:
            return self._receive(count + self._is_checked)[:count]
        self._receive(0)
        return [self._receive_unless_denied(may_be) for may_be in self._may_be_denied][:count]

    def leave_replies(self, count: int) -> None:
        """Drop the replies to the `count` commands that were sent last, when the next are read."""
        self._left_replies += self._name_replies + count + self._is_checked
        if self._name_replies:  # the name is dropped too: ask for it again
            self._name_replies, self._named_at = 0, -math.inf

    def close(self) -> None:
        self._driver.disconnect()

    def _write(self, packed: list[bytes], wait: bool) -> None:
        if wait and self.is_name_due:
            self._named_at, self._name_replies = time.monotonic(), 1
            packed = [_pack(REPLICATION), *packed]
        if packed:
            self._send(b"".join(packed))

    def _send(self, packed: bytes) -> None:
        if len(packed) < LARGE_BYTES:
            self._driver.send_packed_command([packed])
            return
        wait_at_most(self._driver, self._timeout_seconds + timeouts.seconds_to_pass(len(packed)))
        self._driver.send_packed_command([packed])
        wait_at_most(self._driver, self._timeout_seconds)

    def _check_usable(self, server: bytes, replication: bytes) -> None:
        mode = _field(server, b"redis_mode") or _field(server, b"server_mode")  # as in Valkey
        if mode == "cluster" and not self._in_cluster:
            raise Unusable("it is part of a cluster: set REDIS_CLUSTER=1")
        if _field(replication, b"role") == "slave" and not self._fixed_name:
            raise Unusable(READ_ONLY)
        self._process = _field(server, b"run_id")

    def _receive_unless_denied(self, may_be_denied: bool) -> Any:
        try:
            return self._driver.read_response()
        except redis.ResponseError as error:
            if not (may_be_denied and is_denied(error)):
                raise
            log.warning("a public key is left to the sync: Redis says that its user lacks a right")
            return None

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


def is_denied(error: redis.RedisError) -> bool:
    """Whether the user lacks a right, be it within a script, or to end a transaction."""
    no_permission = isinstance(error, redis.exceptions.NoPermissionError)
    # Within a script: as Redis 7.0, Valkey 9 and a transaction say it.
    words = ("executing the script can't", "ACL failure in script", "NOPERM")
    return no_permission or any(each in str(error) for each in words)


# What is worth logging of it. None of this is a secret.
_TOLD = (
    *("redis_version", "valkey_version", "redis_mode", "server_mode", "run_id", "role"),
    *("master_replid", "maxmemory_policy"),
)


def _summary(info: bytes) -> str:
    found = [(name, _field(info, name.encode())) for name in _TOLD]
    return ", ".join(f"{name} {text}" for name, text in found if text) or "nothing of itself"


def server_name(process: str, history: str, number: int = 0) -> str:
    """The name of the data set that a server has. `process` is its `run_id`, which a restart
    changes. `history` is its `master_replid`, which changes when a replica takes over, and again
    when the old master does. `number`: which of the server's databases is used. One name for all
    where a service hides its servers."""
    name = f"{process[:20]}-{history[:20]}" if process else "unnamed"
    return f"{name}/{number}" if number else name


def _keeps_new_keys(memory: bytes) -> bool:
    has_room = _field(memory, b"maxmemory") == "0"
    return has_room or _field(memory, b"maxmemory_policy") in POLICIES_THAT_KEEP_NEW_KEYS


def _pack(words: Words | bytes) -> bytes:
    packed: bytes = words if isinstance(words, bytes) else hiredis.pack_command(words)  # type: ignore[arg-type]
    return packed


@lru_cache(maxsize=1024)
def _only_for_masters(tag: str) -> bytes:
    """A command that changes nothing, and that a replica rejects. A tag with a brace is a public
    key, which does not expire."""
    return _pack(("PERSIST", tag if "}" in tag else f"{{{tag}}}:probe"))


def _field(info: bytes, name: bytes) -> str:
    lines = dict(line.partition(b":")[::2] for line in info.splitlines())
    return lines.get(name, b"").decode().strip()
