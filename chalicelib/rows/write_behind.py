"""Write-behind counters: increments are kept in Redis, and every read adds them to the row.

`cache.counter_totals` says how. A reader reads the row first, and then the totals. It need not care
what a run of the sync adds to the row meanwhile: the row came with what was in it already
(`applied`).
"""

import json
from collections.abc import Mapping, Sequence

from chalicelib.cache import (
    Cache,
    CounterTotals,
    Entry,
    EntryMissing,
    Generations,
    Increment,
    OutOfRange,
    Recovery,
    new_token,
)
from chalicelib.column_types import Integer
from chalicelib.db import Generation
from chalicelib.error_text import shown
from chalicelib.errors import (
    AnotherServer,
    CacheUnavailable,
    CounterOutOfRange,
    CountersUnavailable,
    OutcomeUnknown,
    RowRejected,
)
from chalicelib.rows.fences import clocks
from chalicelib.rows.lazy_loading import LazyLoading
from chalicelib.rows.pending_increments import read_totals
from chalicelib.tables import Delta, Key, Table

# Totals that are in the row live for longer than this after that. Who read the row so long ago may
# not find them any more.
MAX_READ_SECONDS = 300


class WriteBehind:
    """For tables with write-behind counters. Each method raises CountersUnavailable."""

    def __init__(
        self,
        lazy_loading: LazyLoading,
        cache: Cache,
        generations: Generations,
        recovery: Recovery,
    ) -> None:
        self._lazy_loading = lazy_loading
        self._totals = cache.counter_totals
        self._generations = generations
        self._recovery = recovery
        self.is_configured = cache.is_configured

    def takes(self, table: Table, deltas: Sequence[Delta]) -> bool:
        """Whether all of these are increments of write-behind counters."""
        names = {column.name for column in table.write_behind}
        return self.is_configured and all(delta.amounts.keys() <= names for delta in deltas)

    def increment(self, table: Table, deltas: Sequence[Delta]) -> list[dict[str, Key]]:
        """Add to the totals of rows, all or none; each row's key and new values. One round trip to
        Redis where their entries are in the cache. Raises RowRejected, CounterOutOfRange,
        DatabaseUnavailable; OutcomeUnknown, also where not all of several servers did it."""
        token = new_token()
        adding = [Increment(delta.key, delta.amounts) for delta in deltas]
        values = None
        if self._totals.buckets(table, [delta.key for delta in deltas]) == 1:
            values = self._add_to_cached(table, adding, token)
        if values is None:
            read_at = clocks()
            adding = self._read_in(table, adding)
            _reject_sleeper(read_at)
            values = self._add(table, None, adding, token)
        return [{table.key.name: delta.key, **own} for delta, own in zip(deltas, values)]

    def _add_to_cached(
        self, table: Table, adding: Sequence[Increment], token: str
    ) -> Sequence[Mapping[str, int]] | None:
        """None where not all of their entries are in the cache."""
        if self._generations.remembered(table) is None:
            return None
        generation = self._generations.current(table)
        if not generation.enabled:
            self._recovery.start()
            return None
        try:
            return self._add(table, generation, adding, token)
        except EntryMissing:
            return None

    def _read_in(self, table: Table, adding: Sequence[Increment]) -> list[Increment]:
        """With the line of each row's entry. Raises RowRejected where a row is not there."""
        entries = self._lazy_loading.get_many(table, table.key, [each.key for each in adding])
        found = []
        for i, (each, entry) in enumerate(zip(adding, entries.entries)):
            if entry is None:
                reason = f"{table.name} has no row {shown(each.key)}; nothing was changed"
                raise RowRejected(i, table.key.name, reason)
            [(_, line)] = _split(entry)
            found.append(each._replace(line=line.decode()))
        return found

    def _add(
        self,
        table: Table,
        generation: Generation | None,
        adding: Sequence[Increment],
        token: str,
    ) -> Sequence[Mapping[str, int]]:
        if self._totals.is_down:
            self._recovery.start()
            raise CountersUnavailable(
                f"{table.name}: Redis, which counts, failed a moment ago; nothing was changed"
            )
        try:
            return self._totals.add_many(table, generation, adding, token)
        except OutOfRange as error:
            if self._totals.buckets(table, [each.key for each in adding]) > 1:
                raise OutcomeUnknown(
                    "some rows were incremented and others not, because one would leave its range:"
                    " read them, and send the others again"
                ) from error
            raise _out_of_range(table, adding, error) from error
        except CacheUnavailable as error:
            if generation and isinstance(error, AnotherServer):
                self._generations.use_server(table, generation, error.server)
            self._recovery.start()
            raise OutcomeUnknown(
                f"Redis did not confirm the increment ({error}): read the rows before you send it"
                " again"
            ) from error

    def shown_many(
        self, table: Table, entries: Sequence[Entry], read_at: Sequence[float]
    ) -> list[bytes]:
        """The JSON of the rows in each entry, with commas between, as they are now. `read_at`: of
        both `clocks`, a time before the entries were read. One round trip to Redis."""
        parts = [_split(entry) for entry in entries]
        rows = [[json.loads(text) for text, _ in own] for own in parts]
        key = table.key.name
        totals = self.totals(table, list({row[key]: None for own in rows for row in own}))
        _reject_sleeper(read_at)
        return [
            b",".join(
                [
                    _shown(table, text, line, row, totals[row[key]]) if row[key] in totals else text
                    for (text, line), row in zip(own, own_rows)
                ]
            )
            for own, own_rows in zip(parts, rows)
        ]

    def totals(self, table: Table, keys: Sequence[Key]) -> Mapping[Key, CounterTotals]:
        """Of the rows that have some."""
        if not self.is_configured:
            return {}
        try:
            return read_totals(self._totals, table, keys)
        except CountersUnavailable:
            self._recovery.start()
            raise


def _reject_sleeper(read_at: Sequence[float]) -> None:
    """`read_at`: of both `clocks`, a time before rows were read."""
    if max(now - before for now, before in zip(clocks(), read_at)) > MAX_READ_SECONDS:
        raise CountersUnavailable("this process slept while it read; nothing was changed")


def _split(entry: Entry) -> list[tuple[bytes, bytes]]:
    """The JSON of each row in the entry, and the line behind it."""
    lines = entry.split(b"\n")
    return [(text.lstrip(b","), line) for text, line in zip(lines[0::2], lines[1::2])]


def _shown(
    table: Table, text: bytes, line: bytes, row: dict[str, Key], totals: CounterTotals
) -> bytes:
    left = totals.beyond(CounterTotals.parse(line.decode().partition("|")[2]))
    if not left:
        return text
    for column in table.write_behind:
        row[column.name] += left.get(column.name, 0)  # type: ignore[operator]
    return table.encode(tuple(row.values()))


def _out_of_range(
    table: Table, adding: Sequence[Increment], error: OutOfRange
) -> CounterOutOfRange:
    type_ = table.counters[error.name].type
    assert isinstance(type_, Integer)
    amount = adding[error.index].amounts[error.name]
    limit = f"the minimum {type_.minimum}" if amount < 0 else f"the maximum {type_.maximum}"
    return CounterOutOfRange(error.index, error.name, error.value, amount, limit)
