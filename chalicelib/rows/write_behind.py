"""Write-behind counters: increments are kept in Redis, and every read adds them to the row.

`cache.write_behind_totals` says how. A reader reads the row first, and then the totals. It need not
care what a run of the sync adds to the row meanwhile: the row came with what was in it already
(`applied`).
"""

import json
from collections.abc import Mapping, Sequence

from chalicelib.cache import (
    Cache,
    CounterRecord,
    CounterTotals,
    Entry,
    EntryMissing,
    Generations,
    OutOfRange,
    Recovery,
    new_token,
)
from chalicelib.clocks import Clocks, clocks, seconds_since
from chalicelib.column_types import Integer
from chalicelib.counts import Counts
from chalicelib.db import Database, Generation
from chalicelib.error_text import shown
from chalicelib.errors import (
    AnotherServer,
    CacheUnavailable,
    CounterOutOfRange,
    CountersUnavailable,
    OutcomeUnknown,
    RowRejected,
)
from chalicelib.rows.counted_entries import split
from chalicelib.rows.lazy_loading import LazyLoading
from chalicelib.rows.pending_increments import read_totals
from chalicelib.tables import Key, Table

# Totals that are in the row live for longer than this after that. Who read the row so long ago may
# not find them any more.
MAX_READ_SECONDS = 300


class WriteBehind:
    """For tables with write-behind counters. Each method raises CountersUnavailable."""

    def __init__(
        self,
        database: Database,
        lazy_loading: LazyLoading,
        cache: Cache,
        generations: Generations,
        recovery: Recovery,
    ) -> None:
        self._database = database
        self._lazy_loading = lazy_loading
        self._totals = cache.counter_totals
        self._generations = generations
        self._recovery = recovery
        self.is_configured = cache.is_configured

    def takes(self, table: Table, deltas: Counts) -> bool:
        """Whether all of these are increments of write-behind counters."""
        names = {column.name for column in table.write_behind}
        return self.is_configured and deltas.columns.keys() <= names

    def increment(self, table: Table, deltas: Counts) -> Counts:
        """Add to the totals of rows, all or none; what the counters show then. One round trip to
        Redis where their entries are in the cache. Raises RowRejected, CounterOutOfRange,
        DatabaseUnavailable; OutcomeUnknown, also where not all of several servers did it."""
        server = ""
        if self._totals.is_one_script(deltas.keys):
            try:
                return self._add_to_cached(table, deltas)
            except EntryMissing as missing:
                server = missing.server
        read_at = clocks()
        server = server or self._server(table)
        records = self._records(table, deltas.keys)
        _reject_old_read(read_at)
        try:
            return self._add(table, None, deltas, server, records)
        except EntryMissing as error:
            raise CountersUnavailable(
                f"{table.name}: another Redis took over a moment ago; nothing was changed"
            ) from error

    def _add_to_cached(self, table: Table, deltas: Counts) -> Counts:
        """Raises EntryMissing where not all of their entries are in the cache."""
        if self._generations.remembered(table) is None:
            raise EntryMissing("")
        generation = self._generations.current(table)
        if not generation.enabled:
            self._recovery.start()
            raise EntryMissing("")
        return self._add(table, generation, deltas, generation.server_name)

    def _server(self, table: Table) -> str:
        try:
            return self._totals.server(table)
        except CacheUnavailable as error:
            self._recovery.start()
            raise CountersUnavailable(
                f"{table.name}: Redis, which counts, does not answer ({error}); nothing was changed"
            ) from error

    def _records(self, table: Table, keys: Sequence[Key]) -> list[bytes]:
        """Of each row. Raises RowRejected where one is not there."""
        records = []
        for i, entry in enumerate(self._lazy_loading.get_many(table, table.key, keys).entries):
            if entry is None:
                reason = f"{table.name} has no row {shown(keys[i])}; nothing was changed"
                raise RowRejected(i, table.key.name, reason)
            [(_, record)] = split(table, entry)
            records.append(record)
        return records

    def _add(
        self,
        table: Table,
        generation: Generation | None,
        deltas: Counts,
        server: str,
        records: Sequence[bytes] = (),
    ) -> Counts:
        if self._totals.is_down:
            self._recovery.start()
            raise CountersUnavailable(
                f"{table.name}: Redis, which counts, failed a moment ago; nothing was changed"
            )
        table = self._database.known(table)
        try:
            return self._totals.add_many(table, generation, deltas, new_token(), server, records)
        except OutOfRange as error:
            if not self._totals.is_one_script(deltas.keys):
                raise OutcomeUnknown(
                    "some rows were incremented and others not, because one would leave its range:"
                    " read them, and send the others again"
                ) from error
            raise _out_of_range(table, deltas, error) from error
        except CacheUnavailable as error:
            if generation and isinstance(error, AnotherServer):
                self._generations.use_server(table, generation, error.server)
            self._recovery.start()
            raise OutcomeUnknown(
                f"Redis did not confirm the increment ({error}): read the rows before you send it"
                " again"
            ) from error

    def shown_many(self, table: Table, entries: Sequence[Entry], read_at: Clocks) -> list[bytes]:
        """The JSON of the rows in each entry, with commas between, as they are now. `read_at`: of
        both `clocks`, a time before the entries were read. One round trip to Redis."""
        parts = [split(table, entry) for entry in entries]
        rows = [[json.loads(text) for text, _ in own] for own in parts]
        key = table.key.name
        totals = self.totals(table, list({row[key]: None for own in rows for row in own}))
        _reject_old_read(read_at)
        return [
            b",".join(
                [
                    _shown(table, text, record, row, totals[row[key]])
                    if row[key] in totals
                    else text
                    for (text, record), row in zip(own, own_rows)
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


def _reject_old_read(read_at: Clocks) -> None:
    """`read_at`: a time before rows were read."""
    if seconds_since(read_at) > MAX_READ_SECONDS:
        raise CountersUnavailable("this process slept while it read; nothing was changed")


def _shown(
    table: Table, text: bytes, record: bytes, row: dict[str, Key], totals: CounterTotals
) -> bytes:
    names = [column.name for column in table.write_behind]
    left = totals.beyond(CounterRecord.unpack(names, record).applied)
    if not left:
        return text
    for column in table.write_behind:
        row[column.name] += left.get(column.name, 0)  # type: ignore[operator]
    return table.encode(tuple(row.values()))


def _out_of_range(table: Table, deltas: Counts, error: OutOfRange) -> CounterOutOfRange:
    type_ = table.counters[error.name].type
    assert isinstance(type_, Integer)
    amount = deltas.columns[error.name][error.index] or 0
    limit = f"the minimum {type_.minimum}" if amount < 0 else f"the maximum {type_.maximum}"
    return CounterOutOfRange(error.index, error.name, error.value, amount, limit)
