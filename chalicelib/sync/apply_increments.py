"""Write-behind counters: a run adds the totals in Redis to the rows.

That is an ordinary write. Its transaction also says how much of the totals is in the rows then, so
that a run which is repeated adds nothing twice, wherever it was killed.
"""

import random
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress

from chalicelib.cache import CounterTotals, CounterTotalsStore
from chalicelib.column_types import InvalidValue
from chalicelib.db import Change, Database, Transaction, applied_deltas
from chalicelib.errors import BadRequest, TooLarge
from chalicelib.rows import Work, WriteThrough, read_totals, with_pending
from chalicelib.sync.runs import Lease, Record
from chalicelib.tables import Key, NotAsDeclared, Row, Table

# In one transaction.
MAX_ROWS = 500
# So many of the runs that count something also prune.
PRUNE_SHARE = 0.1
PRUNED_ROWS = 1_000
# The clocks of Redis and of this process may differ.
KEPT_SECONDS = 24 * 3600


class ApplyIncrements:
    def __init__(
        self, database: Database, write_through: WriteThrough, totals: CounterTotalsStore
    ) -> None:
        self._database = database
        self._write_through = write_through
        self._totals = totals

    def are_any(self, table: Table) -> bool:
        """Whether there may be increments that are not in their rows. Asks Redis only. Raises
        CacheUnavailable."""
        return bool(table.write_behind) and self._totals.is_any_pending(table)

    def apply(self, table: Table, lease: Lease, record: Record) -> None:
        """Add what was counted to the rows. Reads show the same before, meanwhile and after. Raises
        Superseded, CacheUnavailable, CountersUnavailable, DatabaseUnavailable, OutcomeUnknown,
        SchemaMismatch."""
        if not table.write_behind:
            return
        keys = self._totals.pending_keys(table)
        for start in range(0, len(keys), MAX_ROWS):
            self._apply(table, keys[start : start + MAX_ROWS], lease, record)
        if keys and random.random() < PRUNE_SHARE:
            self.prune(table, lease)

    def _apply(self, table: Table, keys: Sequence[Key], lease: Lease, record: Record) -> None:
        """Of rows with these keys, in one transaction. Where the database rejects a row, the others
        are changed without it; where it cannot give all at once, fewer are."""
        batch = _Batch(self._database, table, keys, self._totals, lease)
        work = Work(keys=keys, edit=batch, claim=batch, is_of_sync=True)
        try:
            self._write_through.change(table, work, store=True)
        except (BadRequest, NotAsDeclared, TooLarge) as error:
            if len(keys) == 1:
                record.report("", f"{table.name} {keys[0]}", f"{error}: nothing was added")
                return
            middle = len(keys) // 2
            for half in (keys[:middle], keys[middle:]):
                self._apply(table, half, lease, record)
            return
        back = self._come_back(table, batch.absent)
        for key in batch.absent - back:
            why = "there is no such row: what was counted for it is dropped"
            record.report("", f"{table.name} {key}", why)
        for key in batch.wrong:
            why = "a counter would leave its range: nothing was added"
            record.report("", f"{table.name} {key}", why)
        record.counted += batch.counted
        left = batch.wrong | back
        done = {key: own.packed for key, own in batch.totals.items()}
        self._totals.settle_many(
            table, {key: done.get(key, b"") for key in batch.keys if key not in left}
        )

    def _come_back(self, table: Table, absent: Collection[Key]) -> set[Key]:
        """Rows that were `absent` when the others were locked, and are there now. Some of their
        totals may have been counted for them in between: that is left to the next run."""
        if not absent:
            return set()
        found = self._database.fetch_many(table, table.key, list(absent), len(absent))
        return {row[0] for row in found}

    def prune(self, table: Table, lease: Lease) -> None:
        """Delete what `applied_deltas` says of rows in which nothing was counted for a day. Their
        totals have expired, so an increment begins a later epoch, and the floor holds for all that
        were before: it stays below every epoch that is pending. Raises as `apply`."""
        pending = read_totals(self._totals, table, self._totals.pending_keys(table))
        epochs = [own.epoch for own in pending.values()]
        newest = min([round((time.time() - KEPT_SECONDS) * 1_000_000), *[e - 1 for e in epochs]])
        after = ""
        while True:
            [found] = self._database.run(applied_deltas.old(table, newest, after, PRUNED_ROWS))
            texts: dict[str, str] = dict(found)
            keys = _by_key(table, texts)
            counted = read_totals(self._totals, table, list(keys))
            gone = {text: texts[text] for key, text in keys.items() if key not in counted}
            if gone:
                floor = max(CounterTotals.parse(text).epoch for text in gone.values())
                lease.run(*applied_deltas.forget(table, gone, floor))
            if len(found) < PRUNED_ROWS:
                return
            after, _ = found[-1]


def _by_key(table: Table, texts: Iterable[str]) -> dict[Key, str]:
    """The texts of row keys, by the key; without those of another declaration."""
    found = {}
    for text in texts:
        with suppress(InvalidValue):
            found[table.key.type.parse(text)] = text
    return found


class _Batch:
    """What is done to the rows of one transaction, and its `work.Claim`. It may be done
    several times until one is committed: the last one counts."""

    def __init__(
        self,
        database: Database,
        table: Table,
        keys: Sequence[Key],
        store: CounterTotalsStore,
        lease: Lease,
    ) -> None:
        self._database = database
        self._table = table
        self._store = store
        self._lease = lease
        self.keys = keys
        self.totals: Mapping[Key, CounterTotals] = {}
        self.counted = 0
        self.wrong: set[Key] = set()
        self.absent: set[Key] = set()

    def __call__(self, locked: Sequence[Row]) -> Sequence[Row]:
        """The rows with their totals; also rows to which nothing is left to add, because the run
        that added it may have died before every reader knew."""
        self.totals = read_totals(self._store, self._table, self.keys)
        self.counted, self.wrong = 0, set()
        after = []
        for row in locked:
            if (totals := self.totals.get(row[0])) is None:
                continue
            counted = with_pending(self._table, row, totals)
            if not self._fits(counted):
                self.wrong.add(row[0])
                continue
            after.append(counted)
            self.counted += counted[-1] != row[-1]
        self.absent = self.totals.keys() - {row[0] for row in locked}
        return after

    def _fits(self, row: Row) -> bool:
        columns = self._database.known(self._table).write_behind
        return all(
            column.type.takes_all([row[self._table.positions[column.name]]]) for column in columns
        )

    def begin(self, transaction: Transaction) -> None:
        """Called before the change."""
        self._lease.begin(transaction)

    def record(
        self, transaction: Transaction, change: Change, entries: Mapping[str, Sequence[Key]]
    ) -> None:
        """Called before its COMMIT: `edit_many` has recorded what is in the rows then."""
