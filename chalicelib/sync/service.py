"""A run of the sync: every 15 minutes it brings watched rows and their public keys in step."""

import itertools
import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from chalicelib.cache import Late, PublicStore
from chalicelib.db import Database
from chalicelib.errors import (
    BadRequest,
    CacheUnavailable,
    HerocacheError,
    SchemaMismatch,
    Superseded,
)
from chalicelib.rows import WriteThrough
from chalicelib.sync.apply_increments import ApplyIncrements
from chalicelib.sync.captured_changes import CapturedChanges
from chalicelib.sync.fan_out import MAX_ROWS_IN_RUN, FanOut, Put
from chalicelib.sync.idle_check import Note, Notes
from chalicelib.sync.left_watches import bring_along
from chalicelib.sync.range_scan import BATCH_ROWS, Scan
from chalicelib.sync.reconciliation import Reconciliation
from chalicelib.sync.runs import Lease, Record, take_lease
from chalicelib.sync.to_database import MIN_ROWS_AT_ONCE
from chalicelib.sync.watch_changes import WatchChanges
from chalicelib.sync.watches import WatchedRow, Watches
from chalicelib.tables import EVERY_ROW, FORMS, TO_CACHE, TO_DATABASE, Key, Table

log = logging.getLogger("herocache.sync")


class Sync:
    def __init__(
        self,
        database: Database,
        write_through: WriteThrough,
        store: PublicStore,
        captured_changes: CapturedChanges,
        tables: Mapping[str, Table],
        *,
        has_cache: bool,
        put: Put | None = None,
    ) -> None:
        """`put` writes the objects that hand ranges out; None: a run works off everything
        itself."""
        self._database = database
        self._write_through = write_through
        self._store = store
        self._captured_changes = captured_changes
        self._tables = tables
        self._has_cache = has_cache
        self._put = put
        self._watches = Watches(database)
        self._watch_changes = WatchChanges(database, store, self._watches)
        self._notes = Notes(store)
        self._increments = ApplyIncrements(database, write_through, store.counter_totals)

    def run(
        self,
        table: str | None = None,
        *,
        must_look: bool = False,
        alone: bool = False,
        record: Record | None = None,
    ) -> dict[str, Any]:
        """Bring the watched rows of all tables, or of one, in step. The record of the run. With a
        `table`, or where it `must_look`, it does not believe that there is nothing to do. `alone`
        it hands nothing out. Raises BadRequest, BucketUnavailable, CacheUnavailable,
        DatabaseUnavailable, OutcomeUnknown, SchemaMismatch."""
        record = record or Record()
        if not self._has_cache:
            return record.end("no cache").answer()
        server = self._store.wake()
        due = [
            each
            for each in self._asked(table)
            if must_look or table or self._has_work(each, server)
        ]
        if not due:
            return record.end("idle").answer()
        lease = take_lease(self._database)
        if lease is None:
            return record.end("overlap").answer()
        record.run = lease.token
        fan_out = None
        if self._put and not alone:
            fan_out = FanOut(self._database, self._watches, lease, server, self._put)
        self._look(due, lease, record, server, fan_out)
        return record.answer()

    def _asked(self, table: str | None) -> Sequence[Table]:
        if table is not None and table not in [*self._tables]:
            raise BadRequest(f"table: {table!r:.80} is none; there are {', '.join(self._tables)}")
        names = self._tables if table is None else [table]
        return [self._tables[name] for name in names]

    def _has_work(self, table: Table, server: str) -> bool:
        """As far as Redis knows."""
        return not self._notes.is_in_step(table, server) or self._increments.are_any(table)

    def _look(
        self,
        due: Sequence[Table],
        lease: Lease,
        record: Record,
        server: str,
        fan_out: FanOut | None,
    ) -> None:
        """Works on the tables, from the begin of the lease to its end, or until the rest is handed
        out. Where this fails, what was done stays done."""
        failures: list[Exception | None] = []
        handed: list[tuple[Table, Note]] = []
        try:
            lease.begin_record()
            for place, why in self._watches.invalid(self._tables):
                record.report("", place, why)
            for table in due:
                failures.append(self._failure_of(table, lease, record, server, fan_out, handed))
            if fan_out and handed:
                record.ranges = fan_out.hand_over(record, handed, is_failed=any(failures))
            for failure in filter(None, failures):
                raise failure
            if record.ranges:
                return
        except (Superseded, Late):
            log.warning("run %s lost its lease, or was too slow, and ends", lease.token)
            record.end("superseded")
        except Exception as error:
            if record.ranges:  # without this table; who ends the run says so
                raise
            if error not in failures:
                record.report("", "run", _words(error))
            record.end("failed")
            with suppress(HerocacheError):
                self._database.run(*record.statements())
            raise
        else:
            record.end("done")
        self._database.run(*record.statements())

    def _failure_of(
        self,
        table: Table,
        lease: Lease,
        record: Record,
        server: str,
        fan_out: FanOut | None,
        handed: list[tuple[Table, Note]],
    ) -> Exception | None:
        """Works on one table, and adds it to `handed` where ranges of it are handed out. Returns
        what failed, so that the run goes on with the other tables. Raises Superseded, Late;
        CacheUnavailable where Redis is still away."""
        try:
            table = self._database.with_order(table)
            note = self._notes.begin(table, lease.token)
            self._drain(table, lease, record, note)
            self._increments.apply(table, lease, record)
            looked = record.tallies[TO_DATABASE].looked
            if table.public:
                self._reconcile(table, lease, record, note, fan_out)
            if fan_out and fan_out.has(table):
                handed.append((table, note))
            else:
                if record.tallies[TO_DATABASE].looked - looked >= MIN_ROWS_AT_ONCE:
                    self._write_through.wait_for_readers(table)
                note.finish(server)
        except (Superseded, Late):
            raise
        except Exception as error:
            if not isinstance(error, HerocacheError):
                log.exception("a bug, or an error of the database that is not known here")
            record.report("", table.name, _words(error))
            if fan_out:
                fan_out.forget(table)
            self._store.wake()
            return error
        return None

    def _drain(self, table: Table, lease: Lease, record: Record, note: Note) -> None:
        """Changes that other clients of the database made leave the cache. Their records are
        deleted once the public keys of deleted rows are gone: nobody else may know these rows."""
        if why := self._captured_changes.unrecorded(table):
            record.unrecorded[table.name] = why

        def follow(keys: Sequence[Key] | None) -> None:
            if keys and table.public:
                self._look_at_deleted(table, lease, record, note, keys)

        try:
            self._captured_changes.drain(table, follow)
        except SchemaMismatch as error:
            record.unrecorded[table.name] = str(error)

    def _look_at_deleted(
        self, table: Table, lease: Lease, record: Record, note: Note, changed: Sequence[Key]
    ) -> None:
        """Those of the rows `changed` that are gone, where every row is watched."""
        reconciliation = self._reconciliation(lease, record)
        turns = lease.turns()
        for form in FORMS:
            if self._watches.of_every_row(table, form) == TO_CACHE:
                scan = Scan(table, form, reconciliation, self._watches, lease, note, turns)
                scan.deleted(TO_CACHE, changed)

    def _reconciliation(self, lease: Lease, record: Record) -> Reconciliation:
        return Reconciliation(
            self._database, self._write_through, self._store, self._watches, lease, record
        )

    def _reconcile(
        self,
        table: Table,
        lease: Lease,
        record: Record,
        note: Note,
        fan_out: FanOut | None,
    ) -> None:
        """What it does not look at itself is in `fan_out`, where there is one."""
        reconciliation = self._reconciliation(lease, record)
        self._watch_changes.finish(table)
        self._watch_changes.beginnings.record(table, between=lease.renew)
        bring_along(table, self._watches, lease)
        turns = lease.turns()
        watched = self._watches.of(table)
        for form in FORMS:
            if not any(row.key == EVERY_ROW for row in watched if row.form == form):
                self._watches.ranges.clear(table, form)
        # First what changes rows: then what follows rows is looked at once.
        for direction, form in itertools.product((TO_DATABASE, TO_CACHE), FORMS):
            scan = Scan(table, form, reconciliation, self._watches, lease, note, turns)
            own = [row for row in watched if (row.form, row.direction) == (form, direction)]
            single = [row for row in own if row.key != EVERY_ROW and row.is_ready]
            self._look_at_rows(scan, table, single, fan_out)
            for every in own:
                if every.key == EVERY_ROW:
                    self._look_at_every_row(scan, table, every, lease, fan_out)

    def _look_at_rows(
        self,
        scan: Scan,
        table: Table,
        rows: Sequence[WatchedRow],
        fan_out: FanOut | None,
    ) -> None:
        """Rows that are watched one by one, with one form and direction."""
        if fan_out and len(rows) > MAX_ROWS_IN_RUN:
            fan_out.add_rows(table, rows)
            return
        for start in range(0, len(rows), BATCH_ROWS):
            scan.rows(rows[start : start + BATCH_ROWS])

    def _look_at_every_row(
        self,
        scan: Scan,
        table: Table,
        every: WatchedRow,
        lease: Lease,
        fan_out: FanOut | None,
    ) -> None:
        if fan_out and self._database.key_behind(table, None, MAX_ROWS_IN_RUN) is not None:
            fan_out.add_every_row(table, every.form, every.direction)
            return
        starts = self._watches.ranges.starts_between(table, every.form, "", None)
        scan.every_row(every.direction, starts, None)
        lease.run(self._watches.looked_at_every_row(table, every.form, every.direction))


def _words(error: Exception) -> str:
    if isinstance(error, CacheUnavailable):
        return f"Redis: {error}"
    return str(error) if isinstance(error, HerocacheError) else "a bug: see the log"
