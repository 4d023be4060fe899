"""The commands of each verb of `entries`: which script runs, on which Redis keys, and how long what
it leaves lives.

In a cluster a verb has a command for each chunk of a bucket, because a script may use the Redis
keys of one bucket only.
"""

import itertools
from collections.abc import Collection, Iterable, Mapping, Sequence

from chalicelib.cache import entry_scripts, keys
from chalicelib.cache.commands import Command, Words, packed_series, sha1
from chalicelib.cache.keys import MAX_KEYS_AN_MGET, Keys
from chalicelib.db import Generation
from chalicelib.tables import Column, Key, Table

Entry = bytes
Token = str
Fenced = Mapping[Column, Mapping[Key, Entry | None]]

# A larger entry is not stored.
MAX_ENTRY_BYTES = 64 * 1024
LEASE_MILLISECONDS = 5_000
FENCE_MILLISECONDS = 86_400_000
# After so long a fence counts as left behind by a writer that died.
DEAD_WRITER_SECONDS = 10
# What another writer puts in place of a new row, be it a tombstone or a value of the shortest TTL
# (1 s, less TTL_JITTER), must outlive every witness that was set before it. That writer may have
# another TTL than this one.
WITNESS_MILLISECONDS = 900
TOMBSTONE_MILLISECONDS = 2_000
HINT_MILLISECONDS = 24 * 3600 * 1000
# Each write renews it. Where it has ended, as where Redis lost it, the next request that needs it
# begins another incarnation.
MARKER_MILLISECONDS = 30 * 24 * 3600 * 1000
# Entries that are stored together must not expire together: by how much of TTL they may differ from
# it, up and down.
TTL_JITTER = 0.1


class EntryCommands:
    """One method for each verb, with the arguments of the verb."""

    def __init__(self, names: Keys, ttl_seconds: int) -> None:
        self._keys = names
        ttl = ttl_seconds * 1000
        self._ttl = (max(1, round(ttl * (1 - TTL_JITTER))), round(ttl * 2 * TTL_JITTER))

    def set_markers(self, table: Table, incarnation: str) -> list[Command]:
        return [
            Command(keys.tag(table, bucket), ("SET", marker, 0, "PX", MARKER_MILLISECONDS))
            for bucket in self._keys.buckets
            for marker in [keys.marker(table, bucket, incarnation)]
        ]

    def hint(self, table: Table) -> Command:
        return Command(keys.tag(table, 0), ("GET", keys.hint(table)))

    def leave_hint(self, table: Table, number: int, server: str) -> Command:
        words = ("EVALSHA", sha1(entry_scripts.LEAVE_HINT), 1, keys.hint(table))
        return Command(keys.tag(table, 0), (*words, number, server, HINT_MILLISECONDS))

    def get_many(
        self, generation: Generation, table: Table, column: Column, values: Sequence[Key]
    ) -> list[Command]:
        """One MGET; in a cluster one for each chunk of a bucket."""
        if series := self._keys.series(generation.number, table, column):
            packed = packed_series("MGET", *series, values)  # type: ignore[arg-type]
            return [Command(keys.tag(table, 0), packed)]
        names = self._keys.entries(generation.number, table, column, values)
        return [
            Command(keys.tag(table, bucket), ("MGET", *[names[i] for i in positions]))
            for bucket, positions in self.mget_chunks(values)
        ]

    def mget_chunks(self, values: Sequence[Key]) -> list[tuple[int, Sequence[int]]]:
        """The positions of `values` in each MGET, behind their bucket."""
        most = MAX_KEYS_AN_MGET if self._keys.is_cluster else len(values)
        return self._keys.chunks(values, most)

    def lease_many(
        self,
        generation: Generation,
        table: Table,
        column: Column,
        values: Sequence[Key],
        token: Token,
    ) -> list[Command]:
        head = (token, LEASE_MILLISECONDS, DEAD_WRITER_SECONDS)
        arguments: dict[Key, tuple[str | bytes, ...]] = dict.fromkeys(values, ())
        return self._commands(
            *(entry_scripts.LEASE_MANY, generation, table, {column: arguments}, head),
            is_marked=True,
        )

    def fill_many(
        self,
        generation: Generation,
        table: Table,
        column: Column,
        values: Mapping[Key, Entry | None],
        token: Token,
    ) -> list[Command]:
        entries = dict(zip(values, zip(_storable(values.values()))))
        head = (token, *self._ttl)
        return self._commands(entry_scripts.FILL_MANY, generation, table, {column: entries}, head)

    def settle_many(
        self,
        generation: Generation,
        table: Table,
        column: Column,
        values: Mapping[Key, tuple[Entry, Entry | None]],
    ) -> list[Command]:
        fences, found = zip(*values.values())
        entries = dict(zip(values, zip(fences, _storable(found))))
        head = (*self._ttl, FENCE_MILLISECONDS)
        return self._commands(entry_scripts.SETTLE_MANY, generation, table, {column: entries}, head)

    def fence_many(
        self,
        generation: Generation,
        table: Table,
        fenced: Fenced,
        new: Collection[Key] | None,
        token: Token,
    ) -> tuple[list[Command], list[Command]]:
        """Those that fence, each answered with a watermark, or nil where its marker is lost; and
        those that set the witnesses."""
        if new is None:
            buckets: Collection[int] = self._keys.buckets
        else:
            buckets = [bucket for bucket, _ in self._keys.groups(list(new))]
        kinds = {column: dict.fromkeys(values, ()) for column, values in fenced.items()}
        head = (token, FENCE_MILLISECONDS)
        fences = self._commands(
            *(entry_scripts.FENCE_MANY, generation, table, kinds, head),
            is_marked=True,
            buckets=buckets,
        )
        witnesses = []
        for bucket in buckets:
            witness = keys.witness(table, bucket, token)
            words: Words = ("SET", witness, token, "PX", WITNESS_MILLISECONDS)
            witnesses.append(Command(keys.tag(table, bucket), words))
        return fences, witnesses

    def publish_many(
        self,
        generation: Generation,
        table: Table,
        fenced: Fenced,
        new: Mapping[Key, Entry | None],
        token: Token,
        committed_at: int,
    ) -> list[Command]:
        published = {
            column: dict(zip(own, zip(itertools.repeat(kind), _storable(own.values()))))
            for column, own in fenced.items()
            for kind in ["row" if column is table.key else "lookup"]
        }
        head = (
            *(token, FENCE_MILLISECONDS, MARKER_MILLISECONDS, committed_at),
            *(*self._ttl, TOMBSTONE_MILLISECONDS),
        )
        commands = self._commands(
            *(entry_scripts.PUBLISH_MANY, generation, table, published, head), is_marked=True
        )
        names = self._keys.entries(generation.number, table, table.key, new)
        stored = _storable(new.values())
        chunks = self._keys.chunks(list(new))
        last = dict(chunks)
        for bucket, positions in chunks:
            named = [keys.witness(table, bucket, token), *[names[i] for i in positions]]
            words: Words = ("EVALSHA", sha1(entry_scripts.STORE_NEW_MANY), len(named), *named)
            words += (token, *self._ttl, int(positions is last[bucket]))
            words += tuple(stored[i] for i in positions)
            commands.append(Command(keys.tag(table, bucket), words))
        return commands

    def _commands(
        self,
        script: str,
        generation: Generation,
        table: Table,
        arguments: Mapping[Column, Mapping[Key, tuple[str | bytes, ...]]],
        head: tuple[str | int, ...],
        is_marked: bool = False,
        buckets: Iterable[int] = (),
    ) -> list[Command]:
        """Commands that run `script` on entries, one for each chunk of a bucket. `arguments` are
        those of each entry, behind the `head` that all share. Where it `is_marked` the last Redis
        key is the bucket's marker. The script also runs in `buckets` without an entry."""
        values = [value for own in arguments.values() for value in own]
        words = [own for values in arguments.values() for own in values.values()]
        names = [
            name
            for column, own in arguments.items()
            for name in self._keys.entries(generation.number, table, column, own)
        ]
        chunks = self._keys.chunks(values)
        used = {bucket for bucket, _ in chunks}
        chunks += [(bucket, ()) for bucket in buckets if bucket not in used]
        commands = []
        for bucket, positions in chunks:
            named = [names[i] for i in positions]
            if is_marked:
                named.append(keys.marker(table, bucket, generation.incarnation))
            own = itertools.chain.from_iterable([words[i] for i in positions])
            command: Words = ("EVALSHA", sha1(script), len(named), *named, *head, *own)
            commands.append(Command(keys.tag(table, bucket), command))
        return commands


def probe(tables: Mapping[str, Table], is_cluster: bool) -> list[Command]:
    """Commands that write to each server with entries, and leave nothing behind."""
    buckets = Keys(is_cluster).buckets
    tags = [keys.tag(table, bucket) for table in tables.values() for bucket in buckets]
    return [
        Command(tag, words)
        for tag in (tags if is_cluster else tags[:1])
        for words in (("SET", keys.probe(tag), "", "PX", 1000), ("DEL", keys.probe(tag)))
    ]


def _storable(entries: Iterable[Entry | None]) -> list[Entry]:
    """Without those that are not there or too large."""
    return [entry if entry and len(entry) <= MAX_ENTRY_BYTES else b"" for entry in entries]
