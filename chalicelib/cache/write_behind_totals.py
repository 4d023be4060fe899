"""Counter totals: what was added to write-behind counters, as Redis keeps it beside the entries.

The totals of a row stand under one Redis key, in the bucket of the row's entry: numbers, each
packed as a double, a line feed, and the names of the counters:

    194829346711023 1763794800000000 12 -5 3 LF QuantityInStock Sold

The number of the declaration, which is made of the names. An epoch (the time at which they were
made, in microseconds; a later one is higher), how many increments there were in it, and for each
counter the sum of them. They are never reduced. How much of them is in the row already (`applied`)
stands in the database, as a text:

    1763794800000000 12 QuantityInStock=-5 Sold=3

and, with the counters, behind the row in its entry (a `record`), as doubles too:

    194829346711023 1763794800000000 12 84 -5 7 3

What a counter shows is the row's value, plus the total, less what is applied: whoever adds totals
to the row changes nothing that a reader sees.

Totals that are behind what is applied (an earlier epoch, or fewer increments) are those of a Redis
that lost some: nothing of them counts, and the next increment begins another epoch.

Totals have no time to live until all of them is in the row. Then they are settled: their first
number is negative, and they live for SETTLED_SECONDS. A reader that has read the row before that
still finds them.
"""

import hashlib
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from chalicelib.cache import keys
from chalicelib.cache.commands import Command, NoClient, Words, packed_numbers, packed_words, sha1
from chalicelib.cache.keys import Keys
from chalicelib.cache.write_behind_scripts import SETTLE, add
from chalicelib.column_types import Integer
from chalicelib.counts import Counts
from chalicelib.db import Generation
from chalicelib.errors import AnotherServer, CacheUnavailable
from chalicelib.tables import Key, Table

if TYPE_CHECKING:
    from chalicelib.cache.client import Client

Item = TypeVar("Item")

SETTLED_SECONDS = 600
# A copy of a command may come so late. The second copy of an increment adds nothing.
COPY_SECONDS = 10
# ElastiCache Serverless takes no command of more than 3,999 words.
MAX_ROWS_A_SCRIPT = 1_000
# Requests of so many sizes are remembered.
MAX_CONSTANTS = 256


@dataclass(frozen=True)
class CounterTotals:
    """`sums`, by the name of the counter. `packed`: as Redis has them; empty where they come from
    the database."""

    epoch: int = 0
    count: int = 0
    sums: Mapping[str, int] = field(default_factory=dict)
    packed: bytes = b""

    @classmethod
    def parse(cls, text: str) -> "CounterTotals":
        """As the database has them. An empty text is no totals."""
        if not text:
            return NOTHING
        epoch, count, *sums = text.split(" ")
        pairs = (word.rpartition("=") for word in sums)
        return cls(int(epoch), int(count), {name: int(sum_) for name, _, sum_ in pairs})

    @classmethod
    def unpack(cls, packed: bytes) -> "CounterTotals":
        """As Redis has them."""
        numbers, _, names = packed.rpartition(b"\n")
        _, epoch, count, *sums = map(int, struct.unpack(f"<{len(numbers) // 8}d", numbers))
        return cls(epoch, count, dict(zip(names.decode().split(" "), sums)), packed)

    @property
    def text(self) -> str:
        """As the database has them."""
        sums = "".join([f" {name}={total}" for name, total in self.sums.items()])
        return f"{self.epoch} {self.count}{sums}" if self.epoch else ""

    def is_behind(self, applied: "CounterTotals") -> bool:
        """Whether Redis has lost some of them since they were `applied`."""
        return (self.epoch, self.count) < (applied.epoch, applied.count)

    def beyond(self, applied: "CounterTotals") -> Mapping[str, int]:
        """What is not in the row yet, by the name of the counter, where that is `applied`."""
        if self.is_behind(applied):
            return {}
        done = applied.sums if applied.epoch == self.epoch else {}
        left = {name: total - done.get(name, 0) for name, total in self.sums.items()}
        return {name: amount for name, amount in left.items() if amount}


NOTHING = CounterTotals()


class CounterRecord(NamedTuple):
    """The counters of a row, and what of their totals is in them already."""

    values: Mapping[str, int]
    applied: CounterTotals

    @classmethod
    def unpack(cls, names: Sequence[str], record: bytes) -> "CounterRecord":
        """From what `pack` made of counters with these names."""
        _, epoch, count, *pairs = map(int, struct.unpack(f"<{len(record) // 8}d", record))
        applied = CounterTotals(epoch, count, dict(zip(names, pairs[1::2])))
        return cls(dict(zip(names, pairs[0::2])), applied)

    def pack(self) -> bytes:
        """As an entry has it behind the row's JSON and a line feed."""
        sums = self.applied.sums
        pairs = [
            number for name, value in self.values.items() for number in (value, sums.get(name, 0))
        ]
        numbers = (self.applied.epoch, self.applied.count, *pairs)
        return declaration(tuple(self.values)) + struct.pack(f"<{len(numbers)}d", *numbers)


@lru_cache(maxsize=64)
def declaration(names: tuple[str, ...]) -> bytes:
    """The number with which records and totals of these counters begin, packed. It is positive."""
    digest = hashlib.sha1(" ".join(names).encode(), usedforsecurity=False).digest()
    return struct.pack("<d", int.from_bytes(digest[:6], "big") + 1)


class EntryMissing(Exception):
    """Some rows have no entry, or another data set answers than the one with their entries: nothing
    was added. `server`: the one that answers."""

    def __init__(self, server: str) -> None:
        super().__init__(server)
        self.server = server


class OutOfRange(Exception):
    """Nothing was added. `index`: of the row."""

    def __init__(self, index: int, name: str, value: int) -> None:
        super().__init__(index, name, value)
        self.index, self.name, self.value = index, name, value


class CounterTotalsStore:
    """Each method raises CacheUnavailable."""

    def __init__(self, client: "Client | NoClient", names: Keys) -> None:
        self._client = client
        self._keys = names
        self._forms: dict[str, _Form] = {}

    @property
    def is_down(self) -> bool:
        """Whether Redis failed and is not asked."""
        return self._client.is_down

    def read_many(self, table: Table, row_keys: Sequence[Key]) -> Mapping[Key, CounterTotals]:
        """The totals of the rows that have some. One round trip."""
        names = self._keys.counter_totals(table, row_keys)
        chunks = self._keys.chunks(row_keys)
        commands = [
            Command(keys.tag(table, bucket), ("MGET", *[names[i] for i in positions]))
            for bucket, positions in chunks
        ]
        if not commands:
            return {}
        _, replies = self._client.ask_many(commands, is_patient=True)
        return {
            row_keys[i]: CounterTotals.unpack(packed)
            for (_, positions), found in zip(chunks, replies)
            for i, packed in zip(positions, found)
            if packed
        }

    def is_one_script(self, row_keys: Sequence[Key]) -> bool:
        """Whether an increment of these rows takes one script: only then it is all or none."""
        if not self._keys.is_cluster:
            return len(row_keys) <= MAX_ROWS_A_SCRIPT
        return len(self._keys.chunks(row_keys, MAX_ROWS_A_SCRIPT)) == 1

    def server(self, table: Table) -> str:
        """The data set that answers now."""
        tag = keys.tag(table, 0)
        reached, _ = self._client.ask(Command(tag, ("EXISTS", keys.probe(tag))), is_patient=True)
        return reached

    def add_many(
        self,
        table: Table,
        generation: Generation | None,
        deltas: Counts,
        token: str,
        server: str,
        records: Sequence[bytes] = (),
    ) -> Counts:
        """Add to the totals of rows; what those counters show then. Their `records` are given, or
        those of the entries of `generation` count. `server`: the data set that has these entries,
        or that answered before the records were read. Another one may have older totals, and what
        it lacks may be in the rows since: what is added to these, by an older record, would count
        as that. `token`: another one for each call. Raises EntryMissing, OutOfRange;
        CacheUnavailable, where it may have happened, and AnotherServer then."""
        form = self._form(table)
        amounts = form.amounts(deltas)
        chunks = self._keys.chunks(deltas.keys, MAX_ROWS_A_SCRIPT)
        commands = []
        for bucket, at in chunks:
            row_keys = _of(at, deltas.keys)
            # A bucket may take several scripts: each has a copy key of its own.
            copy = keys.copy(table, bucket, f"{token}:{at[0]}")
            named = [_packed_names(keys.totals_prefix(table, bucket), table, row_keys)]
            if generation:
                entries = keys.entry_prefix(generation.number, table, table.key, bucket)
                named.append(_packed_names(entries, table, row_keys))
            last: Words = (_packed_amounts([_of(at, column) for column in amounts]),)
            if records:
                last += (b"".join(_of(at, records)),)
            first, middle = form.constant(bucket, 2 + len(named) * len(at), len(last))
            packed = (first, packed_words((copy,)), *named, middle, packed_words(last))
            commands.append(Command(keys.tag(table, bucket), b"".join(packed), is_write=True))
        try:
            reached, replies = self._client.ask_many(commands, is_patient=True, only_on=server)
        except AnotherServer as error:
            raise EntryMissing(error.server) from error
        shown = {name: [0] * len(deltas.keys) for name in form.names}
        for (_, at), reply in zip(chunks, replies):
            if type(reply[0]) is bytes:
                if reply[0] == b"missing":
                    raise EntryMissing(reached)
                if reply[0] == b"done":
                    raise CacheUnavailable("it was added, but what the counters show is not known")
                index, place, value = map(int, reply[1:])
                raise OutOfRange(at[index], form.names[place], value)
            for place, column in enumerate(shown.values()):
                own = reply[place :: len(shown)]
                if len(own) == len(column):
                    column[:] = own
                else:
                    for i, number in zip(at, own):
                        column[i] = number
        if reached != server:
            raise AnotherServer(reached)
        return deltas.with_numbers(shown)

    def _form(self, table: Table) -> "_Form":
        form = self._forms.get(table.name)
        if form is None or form.table is not table:
            form = self._forms[table.name] = _Form(table)
        return form

    def pending_keys(self, table: Table) -> list[Key]:
        """The keys of rows whose totals may not be in the row yet."""
        commands = [
            Command(keys.tag(table, bucket), ("HKEYS", keys.pending_counters(table, bucket)))
            for bucket in self._keys.buckets
        ]
        _, replies = self._client.ask_many(commands)
        found: list[Key] = []
        is_number = isinstance(table.key.type, Integer)
        for text in (each.decode() for reply in replies for each in reply):
            try:  # integers are padded
                found.append(table.key.type.parse(int(text) if is_number else text))
            except ValueError:  # of another declaration of the table
                continue
        return sorted(found)

    def is_any_pending(self, table: Table) -> bool:
        """Whether there are any."""
        commands = [
            Command(keys.tag(table, bucket), ("HLEN", keys.pending_counters(table, bucket)))
            for bucket in self._keys.buckets
        ]
        _, replies = self._client.ask_many(commands)
        return any(replies)

    def settle_many(self, table: Table, seen: Mapping[Key, bytes]) -> None:
        """All of the totals that were `seen` is in the rows, as every reader knows: where they are
        still the same, they are no longer pending, and expire after a while."""
        row_keys = list(seen)
        names = self._keys.counter_totals(table, row_keys)
        commands = []
        for bucket, positions in self._keys.chunks(row_keys, MAX_ROWS_A_SCRIPT):
            prefix = keys.totals_prefix(table, bucket)
            named = [keys.pending_counters(table, bucket), *[names[i] for i in positions]]
            words = [
                word
                for i in positions
                for word in (names[i].removeprefix(prefix), seen[row_keys[i]])
            ]
            command: Words = ("EVALSHA", sha1(SETTLE), len(named), *named)
            command += (SETTLED_SECONDS * 1000, *words)
            commands.append(Command(keys.tag(table, bucket), command))
        if commands:
            self._client.ask_many(commands)


def _of(positions: Sequence[int], items: Sequence[Item]) -> Sequence[Item]:
    """The items at these positions."""
    return items if len(positions) == len(items) else [items[i] for i in positions]


def _packed_names(prefix: str, table: Table, row_keys: Sequence[Key]) -> bytes:
    """The Redis keys of rows, as words of a command."""
    if isinstance(table.key.type, Integer):
        return packed_numbers(prefix, table.key.type.width, row_keys)  # type: ignore[arg-type]
    return packed_words([f"{prefix}{key}" for key in row_keys])


class _Form:
    """What increments of a table have in common."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self.names = tuple([column.name for column in table.write_behind])
        self._script = sha1(add(self.names))
        types = [column.type for column in table.write_behind if isinstance(column.type, Integer)]
        limits = [limit for type_ in types for limit in (type_.minimum, type_.maximum)]
        self._head = declaration(self.names) + struct.pack(f"<{len(limits)}d", *limits)
        self._constants: dict[tuple[int, int, int], tuple[bytes, bytes]] = {}

    def constant(self, bucket: int, named: int, amounts: int) -> tuple[bytes, bytes]:
        """What stands before the names of a command, and between them and the amounts, with so many
        words of each."""
        if found := self._constants.get((bucket, named, amounts)):
            return found
        place = len(keys.totals_prefix(self.table, bucket).encode()) + 1
        names = b"\n" + " ".join(self.names).encode()
        between: Words = (COPY_SECONDS * 1000, self._head, names, place)
        first = ("EVALSHA", self._script, named, keys.pending_counters(self.table, bucket))
        count = 3 + named + len(between) + amounts
        made = b"*%d\r\n%b" % (count, packed_words(first)), packed_words(between)
        if len(self._constants) >= MAX_CONSTANTS:
            self._constants.clear()
        self._constants[bucket, named, amounts] = made
        return made

    def amounts(self, deltas: Counts) -> list[Sequence[int]]:
        """For each counter what is added to it in each row."""
        none = [0] * len(deltas.keys)
        named = [deltas.columns.get(name, none) for name in self.names]
        if deltas.is_whole:
            return named  # type: ignore[return-value]
        return [[amount or 0 for amount in own] for own in named]


def _packed_amounts(columns: Sequence[Sequence[int]]) -> bytes:
    """Row after row, or once where each row gets the same."""
    count = len(columns[0])
    if all(own.count(own[0]) == count for own in columns):
        numbers = [own[0] for own in columns]
    else:
        numbers = [0] * (len(columns) * count)
        for place, column in enumerate(columns):
            numbers[place :: len(columns)] = column
    return struct.pack(f"<{len(numbers)}d", *numbers)


def scripts_of(tables: Iterable[Table]) -> list[str]:
    """The scripts that these tables need."""
    counted = {tuple(c.name for c in table.write_behind) for table in tables if table.write_behind}
    return [*map(add, counted), SETTLE] if counted else []
