"""The entries of the cache: what Redis keeps, and the verbs of the protocol.

An entry holds a row's JSON, or for a lookup the JSON rows with commas between. The entries of a
batch, joined with commas, are the body of an answer: a hit is never decoded. While an entry has no
value it may hold a mark: a lease (one reader fills it) or a fence (a writer changes what it would
show, so nobody believes or fills it). See `scripts` for their form.

Each verb costs one round trip. Each names the generation whose entries it means.
"""

import hashlib
import itertools
import math
import secrets
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from chalicelib.cache import keys, scripts
from chalicelib.cache.commands import Command, NoClient, Words, packed_series
from chalicelib.cache.configured_client import new_client
from chalicelib.cache.keys import MAX_KEYS_AN_MGET, Keys
from chalicelib.cache.public_keys import PublicWrite, delete_note
from chalicelib.config import Settings
from chalicelib.db import Generation
from chalicelib.tables import Column, Key, Table, tables_with

if TYPE_CHECKING:
    from chalicelib.cache.client import Client
    from chalicelib.cache.routing import Connection

Result = TypeVar("Result")
Entry = bytes
Token = str

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
TOMBSTONE_MILLISECONDS = 6_000
HINT_MILLISECONDS = 24 * 3600 * 1000
WATERMARK_MILLISECONDS = 24 * 3600 * 1000
# Later than every COMMIT: Redis may have lost the time of the latest one.
UNKNOWN_COMMIT = math.inf
# Entries that are stored together must not expire together: by how much of TTL they may differ from
# it, up and down.
TTL_JITTER = 0.1


@dataclass
class Leases:
    """What `lease_many` found: entries that have a value (`found`), that are ours to fill
    (`granted`), that another reader fills (`waiting`), that a writer changes (`fenced`), or whose
    writer died and left this fence (`abandoned`)."""

    found: dict[Key, Entry] = field(default_factory=dict)
    granted: list[Key] = field(default_factory=list)
    waiting: list[Key] = field(default_factory=list)
    fenced: list[Key] = field(default_factory=list)
    abandoned: dict[Key, Entry] = field(default_factory=dict)


class Cache:
    """The verbs of the protocol. Each raises CacheUnavailable, or AnotherServer where Redis is not
    the server whose entries the generation means."""

    def __init__(self, settings: Settings) -> None:
        self.is_configured = bool(settings.redis_url)
        self.tables = tables_with(settings.default_table)
        self._client = new_client(settings, self.tables)
        self._keys = Keys(settings.redis_cluster)
        ttl = settings.ttl_seconds * 1000
        self._ttl = (max(1, round(ttl * (1 - TTL_JITTER))), round(ttl * 2 * TTL_JITTER))
        self._lives: dict[str, bytes] = {}  # of each watermark, by its hash tag

    @property
    def is_down(self) -> bool:
        """Whether Redis failed and is not asked until `resume`."""
        return self._client.is_down

    def on_down(self, call: Callable[[], None]) -> None:
        """Call this whenever Redis fails, whoever found out."""
        self._client.on_down = call

    def probe(self) -> str:
        """The name of the server that answers now and can be used. Raises CacheUnavailable, also
        where Redis failed before."""
        return self._client.probe()

    def resume(self) -> None:
        """Use Redis again, after `probe` has succeeded."""
        self._client.resume()

    def leave_hint(self, table: Table, generation: Generation) -> None:
        """Tell containers that cannot ask the database which generation was the last one."""
        command = _hint_command(table, generation.number, generation.server)
        self._client.call([command], generation.server, wait=False)

    def retire_hint(self, table: Table, number: int) -> None:
        """Tell the server that answers now, whichever it is, that generation `number` and all
        before it are not to be used any more. Rows may have changed meanwhile: the next run of the
        sync looks at the table."""
        self._client.ask_many([_hint_command(table, number, ""), delete_note(table)])

    def delete_note(self, table: Table) -> None:
        """Let the next run of the sync look at the table."""
        self._client.ask(delete_note(table))

    def hint(self, table: Table) -> Generation | None:
        """The generation that `leave_hint` named last, as the server that answers now has it."""
        server, found = self._client.ask(Command(keys.tag(table, 0), ("GET", keys.hint(table))))
        number, _, hinted_server = (found or b"").decode().partition(" ")
        return Generation(int(number), True, server, 0) if hinted_server == server else None

    def get_many(
        self, generation: Generation, table: Table, column: Column, values: Sequence[Key]
    ) -> Sequence[Entry | None]:
        """What the entry of each value holds, be it a mark; None where there is none. One MGET."""
        commands = self._mget(generation, table, column, values)
        return self._got(values, self._client.call(commands, generation.server))

    def begin_get_many(
        self, generation: Generation, table: Table, column: Column, values: Sequence[Key]
    ) -> "Pending[Sequence[Entry | None]]":
        """Send `get_many` and return at once."""
        commands = self._mget(generation, table, column, values)
        return Pending(
            self._client, generation, commands, lambda replies: self._got(values, replies)
        )

    def _mget(
        self, generation: Generation, table: Table, column: Column, values: Sequence[Key]
    ) -> list[Command]:
        if series := self._keys.series(generation.number, table, column):
            packed = packed_series("MGET", *series, values)  # type: ignore[arg-type]
            return [Command(keys.tag(table, 0), packed)]
        names = self._keys.entries(generation.number, table, column, values)
        return [
            Command(keys.tag(table, bucket), ("MGET", *[names[i] for i in positions]))
            for bucket, positions in self._mget_chunks(values)
        ]

    def _got(self, values: Sequence[Key], replies: Sequence[Any]) -> Sequence[Entry | None]:
        if not self._client.is_cluster:
            return replies[0]  # type: ignore[no-any-return]
        return _in_order([positions for _, positions in self._mget_chunks(values)], replies)

    def _mget_chunks(self, values: Sequence[Key]) -> list[tuple[int, Sequence[int]]]:
        most = MAX_KEYS_AN_MGET if self._client.is_cluster else len(values)
        return self._keys.chunks(values, most)

    def lease_many(
        self,
        generation: Generation,
        table: Table,
        column: Column,
        values: Sequence[Key],
        token: Token,
    ) -> Leases:
        """Take a lease, the right to fill the entry, on each entry that is absent."""
        commands = self._leases(generation, table, column, values, token)
        return self._leased(values, self._client.call(commands, generation.server))

    def begin_lease_many(
        self,
        generation: Generation,
        table: Table,
        column: Column,
        values: Sequence[Key],
        token: Token,
    ) -> "Pending[Leases]":
        """Send `lease_many` and return at once."""
        commands = self._leases(generation, table, column, values, token)
        return Pending(
            self._client, generation, commands, lambda replies: self._leased(values, replies)
        )

    def _leases(
        self,
        generation: Generation,
        table: Table,
        column: Column,
        values: Sequence[Key],
        token: Token,
    ) -> list[Command]:
        head = (token, LEASE_MILLISECONDS, DEAD_WRITER_SECONDS)
        arguments: dict[Key, tuple[str | bytes, ...]] = dict.fromkeys(values, ())
        return self._commands(scripts.LEASE_MANY, generation, table, {column: arguments}, head)

    def _leased(self, values: Sequence[Key], replies: Sequence[Any]) -> Leases:
        leases = Leases()
        listed = {
            scripts.GRANTED: leases.granted,
            scripts.WAIT: leases.waiting,
            scripts.FENCED: leases.fenced,
        }
        chunks = self._keys.chunks(list(values))
        states = _in_order([positions for _, positions in chunks], replies)
        for value, state in zip(values, states):
            if isinstance(state, int):
                listed[state].append(value)
            elif state.startswith(scripts.FENCE):
                leases.abandoned[value] = state
            else:
                leases.found[value] = state
        return leases

    def fill_many(
        self,
        generation: Generation,
        table: Table,
        column: Column,
        values: Mapping[Key, Entry | None],
        token: Token,
    ) -> None:
        """Store each value where our lease still stands. None gives the lease back, and so does a
        value that is too large to store. Returns before it has happened."""
        entries = {value: (_storable(entry),) for value, entry in values.items()}
        self._run(scripts.FILL_MANY, generation, table, column, entries, (token, *self._ttl))

    def settle_many(
        self,
        generation: Generation,
        table: Table,
        column: Column,
        values: Mapping[Key, tuple[Entry, Entry | None]],
    ) -> None:
        """Settle abandoned fences: replace the fence that a dead writer left by what the database
        holds. `values` has for each value the fence that was found, which must still stand, and the
        entry that was read once no writer held its rows; MARK in its place makes the fence a new
        one. Returns before it has happened."""
        entries = {value: (fence, _storable(entry)) for value, (fence, entry) in values.items()}
        head = (*self._ttl, FENCE_MILLISECONDS)
        self._run(scripts.SETTLE_MANY, generation, table, column, entries, head)

    def knows_watermarks(self, table: Table) -> bool:
        """Whether this process has read the watermarks of `table` before."""
        return all(keys.tag(table, bucket) in self._lives for bucket in self._keys.buckets)

    def learn_watermarks(self, table: Table, server: str) -> None:
        """Read the watermarks of `table` for the first time, so that the next write can tell
        whether Redis has lost one since."""
        no_entry = Generation(0, True, server, 0)
        self.begin_fence_many(no_entry, table, {}, None, new_token()).wait()

    def begin_fence_many(
        self,
        generation: Generation,
        table: Table,
        fenced: "Fenced",
        new: Collection[Key] | None,
        token: Token,
    ) -> "Pending[float]":
        """Send a fence for each entry and return at once. While a fence stands, until
        `publish_many`, no reader believes or fills the entry. `new` are the database keys of rows
        that `publish_many` will store, None where nobody knows them yet.

        The result is the watermark: when the latest change was committed that a writer had
        published before, in microseconds of the database's clock; UNKNOWN_COMMIT where Redis may
        have lost it."""
        if new is None:
            buckets: Collection[int] = self._keys.buckets
        else:
            buckets = [bucket for bucket, _ in self._keys.groups(list(new))]
        kinds = {column: dict.fromkeys(values, ()) for column, values in fenced.items()}
        head = (token, FENCE_MILLISECONDS, WATERMARK_MILLISECONDS)
        commands = self._commands(
            scripts.FENCE_MANY, generation, table, kinds, head, keys.watermark, buckets
        )
        tags = [command.tag for command in commands]
        for bucket in buckets:
            witness = keys.witness(table, bucket, token)
            words: Words = ("SET", witness, token, "PX", WITNESS_MILLISECONDS)
            commands.append(Command(keys.tag(table, bucket), words))
        if generation.is_watched:
            commands.append(delete_note(table))
        known = dict(self._lives)
        return Pending(
            self._client, generation, commands, lambda got: self._published(known, tags, got)
        )

    def _published(
        self, known: Mapping[str, bytes], tags: Sequence[str], watermarks: Sequence[bytes]
    ) -> float:
        """The latest of `watermarks`, one for each of `tags`. `known` are the lives that this
        process knew before it asked: a watermark with another life has lost what came before."""
        latest: float = 0
        for tag, watermark in zip(tags, watermarks):
            life = watermark[: scripts.TOKEN_LENGTH]
            committed_at = watermark[scripts.TOKEN_LENGTH :]
            self._lives[tag] = life
            is_known = known.get(tag) == life
            latest = max(latest, int(committed_at) if is_known else UNKNOWN_COMMIT)
        return latest

    def publish_many(
        self,
        generation: Generation,
        table: Table,
        entries: "Affected",
        token: Token,
        committed_at: int,
        public: PublicWrite | None = None,
    ) -> None:
        """Replace our fences: an entry that has a value gets it, one with None goes. Store new
        rows, in place of what their database keys showed; where that is all, return before it has
        happened. `committed_at`: a time not before the COMMIT, in microseconds of the database's
        clock; 0 where the change was undone. `public`: public keys to set."""
        published = {
            column: {
                value: (_kind(table, column), _storable(entry)) for value, entry in own.items()
            }
            for column, own in entries.fenced.items()
        }
        head = (
            *(token, FENCE_MILLISECONDS, WATERMARK_MILLISECONDS, committed_at),
            *(*self._ttl, TOMBSTONE_MILLISECONDS),
        )
        commands = self._commands(
            scripts.PUBLISH_MANY, generation, table, published, head, keys.watermark
        )
        names = self._keys.entries(generation.number, table, table.key, entries.new)
        stored = [_storable(entry) for entry in entries.new.values()]
        for bucket, positions in self._keys.chunks(list(entries.new)):
            named = [keys.witness(table, bucket, token), *[names[i] for i in positions]]
            words: Words = ("EVALSHA", _sha1(scripts.STORE_NEW_MANY), len(named), *named)
            words += (token, *self._ttl, *[stored[i] for i in positions])
            commands.append(Command(keys.tag(table, bucket), words))
        if public:
            commands += public.commands(table, self._client.is_cluster)
        if generation.is_watched:
            commands.append(delete_note(table))
        is_awaited = bool(entries.fenced or public)
        self._client.call(commands, generation.server, wait=is_awaited)

    def _run(
        self,
        script: str,
        generation: Generation,
        table: Table,
        column: Column,
        arguments: Mapping[Key, tuple[str | bytes, ...]],
        head: tuple[str | int, ...],
    ) -> None:
        """Send `script` on entries of one column; return before it has run."""
        commands = self._commands(script, generation, table, {column: arguments}, head)
        self._client.call(commands, generation.server, wait=False)

    def _commands(
        self,
        script: str,
        generation: Generation,
        table: Table,
        arguments: Mapping[Column, Mapping[Key, tuple[str | bytes, ...]]],
        head: tuple[str | int, ...],
        last: Callable[[Table, int], str] | None = None,
        buckets: Iterable[int] = (),
    ) -> list[Command]:
        """Commands that run `script` on entries, one for each chunk of a bucket. `arguments` are
        those of each entry, behind the `head` that all share. `last` names one more Redis key of
        the bucket. The script also runs in `buckets` without an entry."""
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
            if last:
                named.append(last(table, bucket))
            own = itertools.chain.from_iterable([words[i] for i in positions])
            command: Words = ("EVALSHA", _sha1(script), len(named), *named, *head, *own)
            commands.append(Command(keys.tag(table, bucket), command))
        return commands


Fenced = Mapping[Column, Mapping[Key, Entry | None]]


class Pending(Generic[Result]):
    """A verb that was sent and not yet waited for. Its owner calls `wait`, `wait_under` or
    `close`."""

    def __init__(
        self,
        client: "Client | NoClient",
        generation: Generation,
        commands: Sequence[Command],
        result: Callable[[Sequence[Any]], Result],
    ) -> None:
        self._client = client
        self._generation = generation
        self._commands = commands
        self._result = result
        self._connection: Connection | None = client.send(commands)

    @property
    def is_sent(self) -> bool:
        """False where the commands could not be sent yet: then `wait` sends them."""
        return self._connection is not None

    def wait(self) -> Result:
        """What the verb returns. The commands are sent again where they did not get through. Raises
        as the verb."""
        connection, self._connection = self._connection, None
        server = self._generation.server
        replies = self._client.receive(connection, server) if connection is not None else None
        return self._result(replies or self._client.call(self._commands, server))

    def wait_under(self, held: Generation) -> Result | None:
        """What the verb returns, if `held` is the generation that it was sent under; else None."""
        ours = self._generation
        if (ours.number, ours.server) != (held.number, held.server):
            self.close()
            return None
        return self.wait()

    def close(self) -> None:
        """Nobody wants the result any more."""
        connection, self._connection = self._connection, None
        if connection is not None:
            self._client.abandon(connection)


@dataclass(frozen=True)
class Affected:
    """The entries that a write changes. `fenced`, by column: entries that others may read or fill,
    each with its new JSON, or None where the entry goes. `new`: rows that nobody else knows of
    before the COMMIT, by database key, with their JSON, or None where it is not to be stored."""

    fenced: Fenced = field(default_factory=dict)
    new: Mapping[Key, Entry | None] = field(default_factory=dict)


def new_token() -> Token:
    return secrets.token_hex(scripts.TOKEN_LENGTH // 2)


def _hint_command(table: Table, number: int, server: str) -> Command:
    words = ("EVALSHA", _sha1(scripts.LEAVE_HINT), 1, keys.hint(table))
    return Command(keys.tag(table, 0), (*words, number, server, HINT_MILLISECONDS))


def _kind(table: Table, column: Column) -> str:
    return "row" if column is table.key else "lookup"


def _in_order(groups: Iterable[Sequence[int]], replies: Sequence[Any]) -> list[Any]:
    """The replies in the order of their positions: `replies` has a list for each group."""
    placed = [
        (position, reply)
        for positions, group in zip(groups, replies)
        for position, reply in zip(positions, group or ())
    ]
    return [reply for _, reply in sorted(placed, key=itemgetter(0))]


@lru_cache
def _sha1(script: str) -> str:
    return hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()


def _storable(entry: Entry | None) -> Entry:
    return entry if entry is not None and len(entry) <= MAX_ENTRY_BYTES else b""
