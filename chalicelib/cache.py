"""Redis: cells of JSON text under keys that name table, column and value. Storage is the caller.

A cell holds a row's JSON, or for a lookup the JSON rows with commas between; joined with commas
the cells of a batch are the answer's body, so a hit is never decoded.

Commands are packed by hiredis and sent in one piece over redis-py's connection: one round trip a
call. Whatever goes wrong is CacheUnavailable, soon; for `PAUSE_SECONDS` after it nobody asks.
"""

import logging
import random
import time
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import cast
from zlib import crc32

import hiredis
import redis
from redis.backoff import NoBackoff
from redis.connection import AbstractConnection, parse_url
from redis.retry import Retry

from chalicelib.config import Settings
from chalicelib.errors import CONNECTION_LOST, CacheUnavailable, network_words
from chalicelib.pool import Pool
from chalicelib.tables import Column, Integer, Key, Table

log = logging.getLogger("herocache.cache")

TIMEOUT_SECONDS = 0.1
PAUSE_SECONDS = 1.0
BUCKETS = 16
MAX_CELL_BYTES = 64 * 1024
TTL_JITTER = 0.1

_TLS_HINT = "A server that takes TLS only needs rediss://"

Cell = bytes


class Cache:
    """The cells of one Redis. Safe for threads: each call has a connection of its own."""

    def __init__(self, settings: Settings) -> None:
        self._url = settings.redis_url
        self._ttl_seconds = settings.ttl_seconds
        self._pool: Pool[AbstractConnection] = Pool(self._connect, _close)
        self._paused_until = 0.0

    @property
    def is_configured(self) -> bool:
        return bool(self._url)

    def get_many(self, table: Table, column: Column, values: Sequence[Key]) -> list[Cell | None]:
        """The cell of each value, None where there is none, in the order of `values`. One MGET."""
        keys = _keys(table, column, values)
        [cells] = self._call([_pack(("MGET", *keys))])
        return cells  # type: ignore[return-value]

    def replace_many(
        self,
        table: Table,
        stored: Mapping[Column, Mapping[Key, Cell]],
        removed: Mapping[Column, Iterable[Key]],
    ) -> None:
        """Store these cells for about TTL seconds and remove those, by column; a cell too large to
        be worth it is left out. One round trip."""
        commands = [
            _pack(("SET", key, cell, "EX", self._ttl_with_jitter()))
            for column, cells in stored.items()
            for key, cell in zip(_keys(table, column, cells), cells.values())
            if len(cell) <= MAX_CELL_BYTES
        ]
        gone = [key for column, values in removed.items() for key in _keys(table, column, values)]
        if gone:
            commands.append(_pack(("DEL", *gone)))
        if commands:
            self._call(commands)

    def check(self) -> None:
        """One PING. Raises CacheUnavailable in words."""
        self._paused_until = 0.0
        self._call([_pack(("PING",))])

    def _call(self, commands: Sequence[bytes]) -> list[object]:
        """The reply to each command; all are sent in one piece. Every command here may run twice,
        so a kept connection that was closed meanwhile is opened again, once."""
        if time.monotonic() < self._paused_until:
            raise CacheUnavailable("it failed a moment ago and is left alone for a second")
        connection = self._pool.acquire()
        was_kept = connection.is_connected
        try:
            try:
                replies = _exchange(connection, commands)
            except redis.ConnectionError:
                if not was_kept:
                    raise
                replies = _exchange(connection, commands)
        except redis.RedisError as error:
            self._pool.discard(connection)
            self._paused_until = time.monotonic() + PAUSE_SECONDS
            log.warning("Redis is left alone for %s s: %s", PAUSE_SECONDS, _words(error))
            raise CacheUnavailable(_words(error)) from error
        except BaseException:
            self._pool.discard(connection)
            raise
        self._pool.release(connection)
        return replies

    def _connect(self) -> AbstractConnection:
        """A connection that opens with its first command, in as few round trips as Redis allows."""
        options = parse_url(self._url)
        connection_class = options.pop("connection_class", redis.Connection)
        connection: AbstractConnection = connection_class(
            **options,
            socket_timeout=TIMEOUT_SECONDS,
            socket_connect_timeout=TIMEOUT_SECONDS,
            retry=Retry(NoBackoff(), 0),
            protocol=2,
            driver_info=None,
        )
        return connection

    def _ttl_with_jitter(self) -> int:
        """Cells stored together do not all expire together."""
        return max(1, round(self._ttl_seconds * random.uniform(1 - TTL_JITTER, 1 + TTL_JITTER)))


def _pack(words: tuple[str | int | bytes, ...]) -> bytes:
    packed: bytes = hiredis.pack_command(words)  # type: ignore[arg-type]
    return packed


def _exchange(connection: AbstractConnection, commands: Sequence[bytes]) -> list[object]:
    connection.send_packed_command([b"".join(commands)])
    return [connection.read_response() for _ in commands]


def _close(connection: AbstractConnection) -> None:
    connection.disconnect()


def _keys(table: Table, column: Column, values: Iterable[Key]) -> list[str]:
    """`{<table>.<bucket>}:<column>:<value>`; all keys of a bucket live on one cluster node."""
    prefixes = _prefixes(table, column)
    if isinstance(column.type, Integer):
        return [f"{prefixes[value % BUCKETS]}{value}" for value in cast(Iterable[int], values)]
    return [f"{prefixes[crc32(str(value).encode()) % BUCKETS]}{value}" for value in values]


@lru_cache
def _prefixes(table: Table, column: Column) -> tuple[str, ...]:
    return tuple(f"{{{table.name}.{bucket}}}:{column.name}:" for bucket in range(BUCKETS))


def _words(error: redis.RedisError) -> str:
    """What is wrong, for an operator; no host and no password in it."""
    if isinstance(error, redis.AuthenticationError):
        return "it refuses the user or the password (REDIS_URL)"
    if isinstance(error, redis.TimeoutError):
        return (
            f"no answer within {TIMEOUT_SECONDS} s (REDIS_URL): is there a route (subnet, security"
            f" group)? {_TLS_HINT}"
        )
    if isinstance(error, redis.ResponseError):
        return f"it answers with an error: {str(error).split(' ')[0][:20]}"
    words = network_words(error.__cause__ or error.__context__)
    return f"{words} (REDIS_URL)" + (f". {_TLS_HINT}" if words == CONNECTION_LOST else "")
