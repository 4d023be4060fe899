"""Works off a range that a run has handed out. The function that finishes the last range ends the
run.

An event may come more than once, late, or to two functions at a time: the database says whose the
range is, and what is left of it. A function that fails raises, so that Lambda calls it again; then
it goes on where the last call stopped.
"""

import logging
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from chalicelib.cache import Late, PublicStore
from chalicelib.db import Database, Statement
from chalicelib.errors import CacheUnavailable, HerocacheError, Superseded
from chalicelib.rows import WriteThrough
from chalicelib.sync.idle_check import Note
from chalicelib.sync.range_claims import (
    DONE,
    Range,
    RangeLease,
    RangeProgress,
    claim,
    names_of,
    ranges_of,
)
from chalicelib.sync.range_scan import BATCH_ROWS, Scan
from chalicelib.sync.reconciliation import Reconciliation
from chalicelib.sync.runs import LEASE_SECONDS, Lease, Record
from chalicelib.sync.to_database import MIN_ROWS_AT_ONCE
from chalicelib.sync.watches import Watches
from chalicelib.tables import TO_DATABASE, Table

log = logging.getLogger("herocache.sync")

POLL_SECONDS = 0.5


class RangeWorker:
    def __init__(
        self,
        database: Database,
        write_through: WriteThrough,
        store: PublicStore,
        tables: Mapping[str, Table],
    ) -> None:
        self._database = database
        self._write_through = write_through
        self._store = store
        self._tables = tables
        self._watches = Watches(database)

    def work_off(self, run: int, number: int) -> dict[str, Any]:
        """What was done of range `number` of a run. `outcome`: `done`; `superseded`, where a later
        run has begun; `taken`, where another function works it off. Raises BucketUnavailable,
        CacheUnavailable, DatabaseUnavailable, OutcomeUnknown, SchemaMismatch."""
        give_up = time.monotonic() + LEASE_SECONDS + 1
        while True:
            found = claim(self._database, run, number)
            if found.is_over or found.lease or time.monotonic() > give_up:
                break
            # Its holder may be dead. Then its claim expires soon, and perhaps no other event comes.
            time.sleep(POLL_SECONDS)
        outcome = "done" if found.is_done else "superseded" if found.is_over else "taken"
        record = Record(run=run)
        if found.range and found.lease:
            outcome = self._work(found.range, found.lease, record)
        if outcome == "done":
            self._end(run)
        return {"range": number, **record.end(outcome).answer()}

    def progress(self, run: int) -> tuple[Record, int]:
        """What a run and its ranges have done so far, and how many of these are done."""
        record, ranges = recorded(self._database, run)
        return record, sum(each.outcome == DONE for each in ranges[1:])

    def _work(self, own: Range, lease: RangeLease, record: Record) -> str:
        try:
            self._store.wake()
            self._look(own, lease, record)
        except Superseded:
            log.warning("range %s of run %s is another function's now", own.number, lease.token)
            return "superseded"
        except (HerocacheError, Late) as error:
            with suppress(HerocacheError):
                self._database.run(lease.release())
            if isinstance(error, Late):
                raise CacheUnavailable("this process was too slow to set public keys") from error
            raise
        return "done"

    def _look(self, own: Range, lease: RangeLease, record: Record) -> None:
        work, did = own.work, own.did
        did.add_to(record)
        table = self._database.with_order(self._tables[work.table])
        names = did.names.get(table.name, ())
        note = Note(self._store, table, lease.token, lease.holder, names)

        def progress(after: str, outcome: str = "waiting") -> Sequence[Statement]:
            return lease.progress(
                after, RangeProgress.of(record, {table.name: note.names}), outcome
            )

        turns = lease.turns()
        reconciliation = Reconciliation(
            self._database,
            self._write_through,
            self._store,
            self._watches,
            lease,
            record,
            is_alone=False,
        )
        scan = Scan(table, work.form, reconciliation, self._watches, lease, note, turns, progress)
        if work.is_every:
            starts = self._watches.ranges.starts_between(table, work.form, own.after, work.last)
            scan.every_row(work.direction, starts, work.last)
        else:
            assert work.last is not None
            for page in self._watches.between(
                table, work.form, work.direction, own.after, work.last
            ):
                for start in range(0, len(page), BATCH_ROWS):
                    scan.rows(page[start : start + BATCH_ROWS])
        lease.run(*progress(work.last or "", DONE))

    def _end(self, run: int) -> None:
        """End the run where all of its ranges are done, and nobody has ended it."""
        record, ranges = recorded(self._database, run)
        if record.outcome != "running" or not all(each.outcome == DONE for each in ranges):
            return
        own, *handed = ranges
        for name, names in names_of(ranges):
            if record.tallies[TO_DATABASE].looked >= MIN_ROWS_AT_ONCE:
                self._write_through.wait_for_readers(self._tables[name])
            Note(self._store, self._tables[name], run, names=names).finish(own.did.server)
        looked = dict.fromkeys(
            (self._tables[e.work.table], e.work.form, e.work.direction)
            for e in handed
            if e.work.is_every
        )
        record.end("failed" if own.did.is_failed else "done")
        with suppress(Superseded):
            Lease(self._database, run).end(
                *[self._watches.looked_at_every_row(*each) for each in looked],
                *record.statements(),
            )


def recorded(database: Database, run: int) -> tuple[Record, list[Range]]:
    """What a run and its ranges have done so far, and the ranges. The outcome is asked for first:
    where it says that the run has ended, all that was done is told."""
    [rows] = database.run(("SELECT outcome FROM sync_runs WHERE id = %s", (run,)))
    record = Record(run=run, outcome="superseded")
    for (outcome,) in rows:
        record.outcome = outcome
    ranges = ranges_of(database, run)
    for each in ranges:
        each.did.add_to(record)
    record.ranges = max(0, len(ranges) - 1)
    return record, ranges
