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
from chalicelib.sync.captured import Captured
from chalicelib.sync.notes import Note, Notes
from chalicelib.sync.ranges import Ranges
from chalicelib.sync.runs import Lease, Record, take_lease
from chalicelib.sync.watches import WatchedRow, Watches
from chalicelib.tables import EVERY_ROW, FORMS, TO_CACHE, TO_DATABASE, Key, Table

log = logging.getLogger("herocache.sync")

# Of rows that are watched one by one, and where every row is watched.
PIECE_ROWS = 1_000
RANGE_ROWS = 5_000


class Sync:
    def __init__(
        self,
        database: Database,
        write_through: WriteThrough,
        store: PublicStore,
        captured: Captured,
        tables: Mapping[str, Table],
        *,
        has_cache: bool,
    ) -> None:
        self._database = database
        self._write_through = write_through
        self._store = store
        self._captured = captured
        self._tables = tables
        self._has_cache = has_cache
        self._watches = Watches(database, store)
        self._notes = Notes(store)

    def run(
        self, table: str | None = None, *, must_look: bool = False, record: Record | None = None
    ) -> dict[str, Any]:
        """Bring the watched rows of all tables, or of one, in step. The record of the run. With a
        `table`, or where it `must_look`, it does not believe that there is nothing to do. Raises
        BadRequest, CacheUnavailable, DatabaseUnavailable, OutcomeUnknown, SchemaMismatch."""
        record = record or Record()
        if not self._has_cache:
            return record.end("no cache").answer()
        server = self._store.wake()
        due = [
            each
            for each in self._asked(table)
            if must_look or table or not self._notes.is_in_step(each, server)
        ]
        if not due:
            return record.end("idle").answer()
        lease = take_lease(self._database)
        if lease is None:
            return record.end("overlap").answer()
        record.run = lease.token
        self._look(due, lease, record, server)
        return record.answer()

    def _asked(self, table: str | None) -> Sequence[Table]:
        if table is not None and table not in [*self._tables]:
            raise BadRequest(f"table: {table!r:.80} is none; there are {', '.join(self._tables)}")
        names = self._tables if table is None else [table]
        return [self._tables[name] for name in names if self._tables[name].public]

    def _look(self, due: Sequence[Table], lease: Lease, record: Record, server: str) -> None:
        """From the lease to its end. What was done stays done where this fails."""
        failures: list[HerocacheError | None] = []
        try:
            lease.begin_record()
            for place, why in self._watches.senseless(self._tables):
                record.report("", place, why)
            for table in due:
                failures.append(self._failure_of(table, lease, record, server))
            for failure in filter(None, failures):
                raise failure
        except (Superseded, Late):
            log.warning("run %s lost its lease, or was too slow, and ends", lease.token)
            record.end("superseded")
        except Exception as error:
            if error not in failures:
                is_known = isinstance(error, HerocacheError)
                record.report("", "run", str(error) if is_known else "a bug: see the log")
            record.end("failed")
            with suppress(HerocacheError):
                self._database.run(*record.statements())
            raise
        else:
            record.end("done")
        self._database.run(*record.statements())

    def _failure_of(
        self, table: Table, lease: Lease, record: Record, server: str
    ) -> HerocacheError | None:
        """Looks at one table. What keeps only this one from being looked at is returned, so that
        the others do not wait for it."""
        try:
            note = self._notes.begin(table, lease.token)
            self._drain(table, record)
            self._bring_in_step(table, lease, record, note)
            note.finish(server)
        except (SchemaMismatch, CacheUnavailable) as error:
            record.report("", table.name, str(error))
            self._store.wake()
            return error
        return None

    def _drain(self, table: Table, record: Record) -> None:
        """Changes that other clients of the database made leave the cache."""
        if why := self._captured.unrecorded(table):
            record.unrecorded[table.name] = why
        try:
            self._captured.drain(table)
        except SchemaMismatch as error:
            record.unrecorded[table.name] = str(error)

    def _bring_in_step(self, table: Table, lease: Lease, record: Record, note: Note) -> None:
        ranges = Ranges(
            self._database, self._write_through, self._store, self._watches, lease, record
        )
        watched = self._watches.of(table)
        for form in FORMS:
            if not any(row.key == EVERY_ROW for row in watched if row.form == form):
                self._watches.clear_ranges(table, form)
        # First what changes rows: then what follows rows is looked at once.
        for direction, form in itertools.product((TO_DATABASE, TO_CACHE), FORMS):
            own = [row for row in watched if row.form == form]
            single = [row for row in own if row.key != EVERY_ROW]
            rows = [row for row in single if row.direction == direction]
            for start in range(0, len(rows), PIECE_ROWS):
                self._look_at_rows(table, rows[start : start + PIECE_ROWS], ranges, lease, note)
            for every in own:
                if every.key == EVERY_ROW and every.direction == direction:
                    keys = {row.key for row in single}
                    self._look_at_every_row(table, every, keys, ranges, lease, note)

    def _look_at_rows(
        self,
        table: Table,
        watched: Sequence[WatchedRow],
        ranges: Ranges,
        lease: Lease,
        note: Note,
    ) -> None:
        """Rows that are watched one by one, with one form and direction."""
        _, form, direction, _, _ = watched[0]
        keys = [row.key for row in watched]
        seen = {row.key: row.seen for row in watched}
        rows = ranges.read(table, keys)
        now = ranges.bring_in_step(table, form, direction, keys, rows, seen)
        note.add(form, now.found, now.is_known)
        lease.run(*self._watches.kept(table, form, now.seen))

    def _look_at_every_row(
        self,
        table: Table,
        watched: WatchedRow,
        others: set[Key],
        ranges: Ranges,
        lease: Lease,
        note: Note,
    ) -> None:
        """Every row but the `others`, range by range. A range of the last run that has become too
        large is split. Rows that are not there any more come with the last part of their range."""
        _, form, direction, _, _ = watched
        starts = self._watches.ranges(table, form) or [""]
        if starts[0]:
            starts.insert(0, "")
        for start, following in zip(starts, [*starts[1:], None]):
            last = None if following is None else table.key.type.parse(following)
            after: Key | None = table.key.type.parse(start) if start else None
            before = self._watches.range(table, form, start)
            left = dict(before)
            is_more = True
            while is_more:
                rows, is_more = ranges.read_range(table, after, last, RANGE_ROWS)
                keys = list(rows.by_key)
                part = {key: left.pop(key) for key in keys if key in left}
                if not is_more:
                    keys += left
                    part |= left
                asked = [key for key in keys if key not in others]
                now = ranges.bring_in_step(table, form, direction, asked, rows, part)
                note.add(form, now.found, now.is_known)
                seen = {key: digest for key, digest in now.seen.items() if digest}
                kept = [self._watches.kept_range(table, form, direction, start, seen)]
                if is_more:
                    after = keys[-1]
                    kept.append(self._watches.kept_range(table, form, direction, str(after), left))
                if seen != before or is_more or lease.is_due:
                    lease.run(*kept)
                if is_more:
                    start, before = str(after), dict(left)
        lease.run(self._watches.looked_at_every_row(table, form))
