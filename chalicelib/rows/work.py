"""The work of one transaction: which rows it changes, and what is committed with them."""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

from chalicelib.cache import CounterTotals, CounterTotalsStore
from chalicelib.db import Change, Transaction, applied_deltas
from chalicelib.errors import CountersUnavailable
from chalicelib.rows import changed_entries
from chalicelib.rows.pending_increments import read_totals
from chalicelib.tables import MAX_COUNTED, NO_KEY, Key, Row, Table


class Claim(Protocol):
    """Makes sure that a change is done once."""

    def begin(self, transaction: Transaction) -> None:
        """Called before the change. Raises whatever ends it, here or with the next statements."""

    def record(
        self, transaction: Transaction, change: Change, entries: Mapping[str, Sequence[Key]]
    ) -> None:
        """Called before the COMMIT. `entries`, by column: the values of the entries that show or
        showed one of the rows, except rows that nobody else knows of yet."""


@dataclass(frozen=True)
class Work:
    """What one transaction does: write `rows`, or lock the rows with `keys` and write what `edit`
    makes of them, or delete them where there is none; at most once where there is a `claim`.
    `is_of_sync`: a run of the sync does it, and need not be told of it."""

    rows: Sequence[Row] = ()
    keys: Sequence[Key] = ()
    edit: Callable[[Sequence[Row]], Sequence[Row]] | None = None
    claim: Claim | None = None
    is_of_sync: bool = False

    @cached_property
    def inserts_only(self) -> bool:
        """Whether the database gives all keys."""
        return bool(self.rows) and all(row[0] == NO_KEY for row in self.rows)


def begin(
    transaction: Transaction, table: Table, work: Work, totals: CounterTotalsStore | None
) -> Change:
    """Insert the rows, or lock and read them. The rest is left to the next statements. `totals`: of
    write-behind counters; None without Redis."""
    if work.claim:
        work.claim.begin(transaction)
    named = work.keys if work.edit else [row[0] for row in work.rows]
    transaction.reject_far_keys(table, named)
    if work.inserts_only:
        change = transaction.insert(table, work.rows)
    elif work.rows:
        change = transaction.write_many(table, work.rows)
        _count_anew(transaction, table, totals, change, [row[0] for row in change.after])
    elif work.edit:
        change = transaction.edit_many(table, work.keys, work.edit)
        added = {row[0] for row in change.after} - {row[0] for row in change.before}
        _count_anew(transaction, table, totals, change, added)
    else:
        change = transaction.delete_many(table, work.keys)
        with suppress(CountersUnavailable):  # a delete goes on without Redis
            _count_anew(transaction, table, totals, change, [row[0] for row in change.before])
    if work.claim:
        entries = changed_entries.of_change(table, change, store=False).fenced
        values = {column.name: list(own) for column, own in entries.items()}
        work.claim.record(transaction, change, values)
    return change


def _count_anew(
    transaction: Transaction,
    table: Table,
    store: CounterTotalsStore | None,
    change: Change,
    keys: Collection[Key],
) -> None:
    """The rows with `keys` are written whole, or end here: of their write-behind counters only
    what is added from now on counts. Of a row that was not there nobody has read what was applied:
    Redis may have lost some of that, so no totals that began before now count. Raises
    CountersUnavailable."""
    named = [key for key in keys if key not in change.new_keys]
    if not (named and table.write_behind and store):
        return
    totals = read_totals(store, table, named)
    before = {row[0]: CounterTotals.parse(str(row[-1])) for row in change.before}
    now = round(time.time() * 1_000_000)
    texts = {
        key: own.text if key in before else CounterTotals(max(now, own.epoch), MAX_COUNTED).text
        for key, own in totals.items()
        if key not in before or not own.is_behind(before[key])
    }
    transaction.queue(*applied_deltas.put(table, texts))
