"""The Redis keys of entries, and how many of them one command may name.

A key is `{<table>.<bucket>}:<generation>:<column>:<value>`. The text in the braces is its hash tag:
Redis Cluster keeps all keys with one hash tag, so all keys of a bucket, on one server. A single
server needs only one bucket. Integers are padded to the width of their column, so that all keys of
a batch have the same length.
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import cast
from zlib import crc32

from chalicelib.column_types import Integer
from chalicelib.tables import Column, Key, Table

BUCKETS = 16
MAX_KEYS_A_SCRIPT = 1000
# In a cluster. ElastiCache Serverless takes no command of more than 3,999 words.
MAX_KEYS_AN_MGET = 3_900


class Keys:
    """The keys of entries, on one server or in a cluster."""

    def __init__(self, is_cluster: bool) -> None:
        self.is_cluster = is_cluster
        self._bucket_count = BUCKETS if is_cluster else 1

    @property
    def buckets(self) -> range:
        return range(self._bucket_count)

    def entries(
        self, generation: int, table: Table, column: Column, values: Iterable[Key]
    ) -> list[str]:
        """The key of each value's entry."""
        return self._named(_prefixes(table.name, generation, column.name), column, values)

    def counter_totals(self, table: Table, row_keys: Iterable[Key]) -> list[str]:
        """The key of the totals of each row's write-behind counters."""
        return self._named(_totals_prefixes(table.name), table.key, row_keys)

    def _named(self, prefixes: Sequence[str], column: Column, values: Iterable[Key]) -> list[str]:
        if not isinstance(column.type, Integer):
            return [f"{prefixes[self._bucket(value)]}{value}" for value in values]
        width, count = column.type.width, self._bucket_count
        if count == 1:
            return list(map(f"{prefixes[0]}%0{width}d".__mod__, values))
        return [f"{prefixes[v % count]}{v:0{width}d}" for v in cast(Iterable[int], values)]

    def series(self, generation: int, table: Table, column: Column) -> tuple[str, int] | None:
        """The prefix of a column's keys and the width of their number, where the keys differ only
        in that number; else None."""
        if self._bucket_count > 1 or not isinstance(column.type, Integer):
            return None
        return _prefixes(table.name, generation, column.name)[0], column.type.width

    def groups(self, values: Sequence[Key]) -> list[tuple[int, Sequence[int]]]:
        """Each bucket with the positions of its values."""
        if self._bucket_count == 1:
            return [(0, range(len(values)))] if values else []
        positions: dict[int, list[int]] = {}
        for position, value in enumerate(values):
            positions.setdefault(self._bucket(value), []).append(position)
        return list(positions.items())

    def chunks(
        self, values: Sequence[Key], most: int = MAX_KEYS_A_SCRIPT
    ) -> list[tuple[int, Sequence[int]]]:
        """As `groups`, but with at most `most` positions in each: one command may name so many
        keys."""
        return [
            (bucket, positions[start : start + most])
            for bucket, positions in self.groups(values)
            for start in range(0, len(positions), most)
        ]

    def _bucket(self, value: Key) -> int:
        return (value if isinstance(value, int) else crc32(value.encode())) % self._bucket_count


@lru_cache(maxsize=64)
def _prefixes(table: str, generation: int, column: str) -> tuple[str, ...]:
    """The text before the value in a key, for each bucket."""
    return tuple(f"{{{table}.{bucket}}}:{generation}:{column}:" for bucket in range(BUCKETS))


def entry_prefix(generation: int, table: Table, column: Column, bucket: int) -> str:
    """What stands before the value in the key of an entry."""
    return _prefixes(table.name, generation, column.name)[bucket]


def witness(table: Table, bucket: int, token: str) -> str:
    """The witness of a write: while its key is there, Redis has lost nothing since the write set
    it, and only little time has passed."""
    return f"{{{tag(table, bucket)}}}:witness:{token}"


def marker(table: Table, bucket: int, incarnation: str) -> str:
    """The marker of an incarnation: while its key is there, Redis has not lost all of the bucket's
    entries since that incarnation began."""
    return f"{{{tag(table, bucket)}}}:marker:{incarnation}"


def totals_prefix(table: Table, bucket: int) -> str:
    """What stands before the row's key in the key of its totals."""
    return _totals_prefixes(table.name)[bucket]


@lru_cache(maxsize=64)
def _totals_prefixes(table: str) -> tuple[str, ...]:
    return tuple(f"{{{table}.{bucket}}}:totals:" for bucket in range(BUCKETS))


def pending_counters(table: Table, bucket: int) -> str:
    """A Hash with a field for each row whose totals may not be in the row yet."""
    return f"{{{tag(table, bucket)}}}:totals"


def copy(table: Table, bucket: int, token: str) -> str:
    """While this key is there, a second copy of the increment with `token` adds nothing."""
    return f"{{{tag(table, bucket)}}}:copy:{token}"


def hint(table: Table) -> str:
    """The hint: the last generation known, for containers that cannot ask the database."""
    return f"{{{tag(table, 0)}}}:generation"


def probe(tag: str) -> str:
    """A Redis key for probes: no entry has it."""
    return f"{{{tag}}}:probe"


def tag(table: Table, bucket: int) -> str:
    """The hash tag of the bucket's keys."""
    return f"{table.name}.{bucket}"
