"""Counter totals: what was added to write-behind counters, as Redis keeps it beside the entries.

The totals of a row are a text under one Redis key, in the bucket of the row's entry:

    1763794800000000 12 QuantityInStock=-5 Sold=3

An epoch (the time at which they were made, in microseconds; a later one is higher), how many
increments there were in it, and for each counter the sum of them. They are never reduced. How much
of them is in the row already (`applied`) stands in the database, in the same form, and beside the
row in its entry. What a counter shows is the row's value, plus the total, less what is applied:
whoever adds totals to the row changes nothing that a reader sees.

Totals that are behind what is applied (an earlier epoch, or fewer increments) are those of a Redis
that lost some: nothing of them counts, and the next increment begins another epoch.

Totals have no time to live until all of them is in the row. Then they live for SETTLED_SECONDS: a
reader that has read the row before it got them still finds them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from chalicelib.cache import keys
from chalicelib.cache.commands import Command, NoClient, Words, sha1
from chalicelib.cache.counter_totals_scripts import ADD, SETTLE
from chalicelib.cache.keys import Keys
from chalicelib.column_types import Integer, InvalidValue
from chalicelib.db import Generation
from chalicelib.errors import AnotherServer
from chalicelib.tables import Key, Table

if TYPE_CHECKING:
    from chalicelib.cache.client import Client

SETTLED_SECONDS = 600
# A copy of a command may come so late. The second copy of an increment adds nothing.
COPY_SECONDS = 10
MAX_ROWS_A_SCRIPT = 1_000
# Of a cluster. ElastiCache Serverless takes no command of more than 3,999 words.
MAX_ROWS_A_SCRIPT_IN_CLUSTER = 400


@dataclass(frozen=True)
class CounterTotals:
    """`sums`, by the name of the counter. `text`: as Redis or the database has it."""

    epoch: int = 0
    count: int = 0
    sums: Mapping[str, int] = field(default_factory=dict)
    text: str = ""

    @classmethod
    def parse(cls, text: str) -> "CounterTotals":
        """An empty text is no totals."""
        if not text:
            return NOTHING
        epoch, count, *sums = text.split(" ")
        pairs = (word.rpartition("=") for word in sums)
        return cls(int(epoch), int(count), {name: int(sum_) for name, _, sum_ in pairs}, text)

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


class Increment(NamedTuple):
    """What is added to the counters of the row with `key`. `line`: the counters and what is
    applied, as the row's entry has them; empty to take them from the entry."""

    key: Key
    amounts: Mapping[str, int]
    line: str = ""


class EntryMissing(Exception):
    """Some rows have no entry: nothing was added."""


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

    @property
    def is_down(self) -> bool:
        """Whether Redis failed and is not asked."""
        return self._client.is_down

    def read_many(self, table: Table, row_keys: Sequence[Key]) -> Mapping[Key, CounterTotals]:
        """The totals of the rows that have some. One round trip."""
        chunks = self._keys.chunks(row_keys)
        commands = [
            Command(
                keys.tag(table, bucket),
                ("MGET", *[keys.counter_totals(table, bucket, row_keys[i]) for i in positions]),
            )
            for bucket, positions in chunks
        ]
        if not commands:
            return {}
        _, replies = self._client.ask_many(commands, is_patient=True)
        return {
            row_keys[i]: CounterTotals.parse(text.decode())
            for (_, positions), texts in zip(chunks, replies)
            for i, text in zip(positions, texts)
            if text
        }

    def buckets(self, table: Table, row_keys: Sequence[Key]) -> int:
        """How many scripts an increment of these rows takes: only one of them is all or none."""
        return len(self._chunks(row_keys))

    def add_many(
        self, table: Table, generation: Generation | None, adding: Sequence[Increment], token: str
    ) -> list[Mapping[str, int]]:
        """Add to the totals of rows; the new values of those counters. With a `generation`: whose
        entries stand in the data set that it names. `token`: another one for each call. Raises
        EntryMissing, OutOfRange, AnotherServer; CacheUnavailable, where it may have happened."""
        names = [column.name for column in table.write_behind]
        ranges: list[int] = []
        for column in table.write_behind:
            assert isinstance(column.type, Integer)
            ranges += (column.type.minimum, column.type.maximum)
        head: Words = (COPY_SECONDS * 1000, len(names), *names, *ranges)
        row_keys = [each.key for each in adding]
        number = generation.number if generation else 0
        entries = self._keys.entries(number, table, table.key, row_keys)
        chunks = self._chunks(row_keys)
        commands = []
        for bucket, positions in chunks:
            # A bucket may take several scripts: each has a copy key of its own.
            copy = keys.copy(table, bucket, f"{token}:{positions[0]}")
            named = [keys.pending_counters(table, bucket), copy]
            words: list[str | int] = []
            for i in positions:
                named += (entries[i], keys.counter_totals(table, bucket, row_keys[i]))
                amounts = [adding[i].amounts.get(name, 0) for name in names]
                words += (str(row_keys[i]), adding[i].line, *amounts)
            command: Words = ("EVALSHA", sha1(ADD), len(named), *named, *head, *words)
            commands.append(Command(keys.tag(table, bucket), command))
        reached, replies = self._client.ask_many(commands, is_patient=True)
        added: dict[int, Mapping[str, int]] = {}
        for (_, positions), reply in zip(chunks, replies):
            kind, *rest = reply
            if kind == b"lacking":
                raise EntryMissing
            if kind == b"range":
                index, place, value = map(int, rest)
                raise OutOfRange(positions[index], names[place], value)
            numbers = list(map(int, rest))
            for at, i in enumerate(positions):
                own = dict(zip(names, numbers[at * len(names) :]))
                added[i] = {name: own[name] for name in adding[i].amounts}
        if generation and reached != generation.server_name:
            raise AnotherServer(reached)
        return [added[i] for i in range(len(adding))]

    def pending_keys(self, table: Table) -> list[Key]:
        """The keys of rows whose totals may not be in the row yet."""
        commands = [
            Command(keys.tag(table, bucket), ("HKEYS", keys.pending_counters(table, bucket)))
            for bucket in self._keys.buckets
        ]
        _, replies = self._client.ask_many(commands)
        found: list[Key] = []
        for text in (each.decode() for reply in replies for each in reply):
            try:
                found.append(table.key.type.parse(text))
            except InvalidValue:  # of another declaration of the table
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

    def settle_many(self, table: Table, seen: Mapping[Key, str]) -> None:
        """All of the totals that were `seen` is in the rows, as every reader knows: where they are
        still the same, they are no longer pending, and expire after a while."""
        row_keys = list(seen)
        commands = []
        for bucket, positions in self._chunks(row_keys):
            own = [row_keys[i] for i in positions]
            named = [keys.pending_counters(table, bucket)]
            named += [keys.counter_totals(table, bucket, key) for key in own]
            words = [word for key in own for word in (str(key), seen[key])]
            command: Words = ("EVALSHA", sha1(SETTLE), len(named), *named)
            command += (SETTLED_SECONDS * 1000, *words)
            commands.append(Command(keys.tag(table, bucket), command))
        if commands:
            self._client.ask_many(commands)

    def _chunks(self, row_keys: Sequence[Key]) -> list[tuple[int, Sequence[int]]]:
        most = MAX_ROWS_A_SCRIPT_IN_CLUSTER if self._keys.is_cluster else MAX_ROWS_A_SCRIPT
        return self._keys.chunks(row_keys, most)
