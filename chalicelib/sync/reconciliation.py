"""Reconciliation: the watched rows of one step are brought in step with their public keys.

For each row there are three things: the row R in the database, the value P under its public key,
and S, the row as both had it last. Where R and P differ, S tells which of them was changed. A range
may be done again at any time: what is in step already is left alone.
"""

from collections.abc import Sequence

from chalicelib.cache import PublicStore
from chalicelib.db import Database
from chalicelib.rows import WriteThrough
from chalicelib.sync.public_side import PublicSide
from chalicelib.sync.runs import Lease, Record
from chalicelib.sync.step import Rows, Step, rows_of
from chalicelib.sync.to_cache import ToCache
from chalicelib.sync.to_database import ToDatabase
from chalicelib.sync.watches import Watches
from chalicelib.tables import JSON, TO_CACHE, TO_DATABASE, Key, Row, Table


class Reconciliation:
    """For one run."""

    def __init__(
        self,
        database: Database,
        write_through: WriteThrough,
        store: PublicStore,
        watches: Watches,
        lease: Lease,
        record: Record,
        *,
        is_alone: bool = True,
    ) -> None:
        """`is_alone`: nobody else looks at rows of the table meanwhile."""
        self._database = database
        self._record = record
        self._public_side = side = PublicSide(store, lease, record)
        to_database = ToDatabase(write_through, side, watches, lease, record, is_alone=is_alone)
        self._to_cache = ToCache(side, record)
        self._follow = {
            TO_CACHE: self._to_cache.follow,
            TO_DATABASE: to_database.follow,
        }

    def read(self, table: Table, keys: Sequence[Key]) -> Rows:
        until = self._public_side.deadline()
        read_at, rows = self._database.fetch_dated(table, keys)
        return rows_of(read_at, until, table, {row[0]: None for row in rows}, rows)

    def read_range(
        self, table: Table, after: Key | None, last: Key | None, max_rows: int
    ) -> tuple[Rows, bool]:
        """Rows behind the key `after` and up to the key `last`, in the order of their keys; and
        whether there may be more."""
        until = self._public_side.deadline()
        read_at, texts, is_more = self._database.fetch_range(table, after, last, max_rows)
        rows: Sequence[Row] = ()
        if None in texts.values():
            left = [key for key, text in texts.items() if text is None]
            _, rows = self._database.fetch_dated(table, left)
        return rows_of(read_at, until, table, texts, rows), is_more

    def reconcile(self, step: Step) -> None:
        """`step.now` tells what it has come to. Raises Late, Superseded, CacheUnavailable,
        DatabaseUnavailable, OutcomeUnknown, SchemaMismatch; Turned, where a watch has turned: the
        step may be done anew, as behind a killed run."""
        keys, now = step.keys, step.now
        is_new = step.direction == TO_CACHE and step.form == JSON and keys and not step.seen
        if not (is_new and self._to_cache.set_new(step)):
            now.found = self._public_side.read_many(step.table, step.form, keys)
            now.seen |= step.seen
            if len(now.seen) > len(keys):  # others are watched one by one
                now.seen = {key: now.seen[key] for key in keys}
            self._follow[step.direction](step)
        self._record.tallies[step.direction].looked += len(keys)
        self._record.progress(self._record)
