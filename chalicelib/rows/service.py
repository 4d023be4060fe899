"""The use cases: read rows, write rows, delete rows, drop what is cached of them.

They know neither HTTP nor the driver. Without Redis every answer is the same, only slower. Errors
of the database go up to the caller.
"""

import logging
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from chalicelib.cache import CounterTotals
from chalicelib.clocks import clocks
from chalicelib.counts import Counts
from chalicelib.db import Change, Database
from chalicelib.errors import (
    AlreadyClaimed,
    ConfigurationError,
    DatabaseUnavailable,
    OutcomeUnknown,
    SchemaMismatch,
)
from chalicelib.rows.idempotency import Answer, IdempotentChange, prune_claims
from chalicelib.rows.increments import counted, incremented
from chalicelib.rows.lazy_loading import LazyLoading
from chalicelib.rows.loader import Page, RowLoader, mismatch
from chalicelib.rows.pending_increments import with_pending
from chalicelib.rows.work import Work
from chalicelib.rows.write_behind import WriteBehind
from chalicelib.rows.write_through import WriteThrough
from chalicelib.tables import Column, Key, NotAsDeclared, Row, Table

log = logging.getLogger("herocache.rows")

# The share of changes with an idempotency key that also delete old keys.
PRUNE_SHARE = 0.02

AnswerTo = Callable[[Change], Answer]


@dataclass(frozen=True)
class Rows:
    """`json`: the rows as JSON objects with commas between, in the order asked. `missing`: the
    values that no row has, each once. `asked`: how many distinct values were asked for. `hits`: how
    many of them the cache answered; None where it was not in use."""

    json: bytes
    missing: Sequence[Key] = ()
    asked: int = 0
    hits: int | None = None


class RowService:
    """Reads and changes batches of rows of any declared table."""

    def __init__(
        self,
        database: Database,
        loader: RowLoader,
        lazy_loading: LazyLoading,
        write_through: WriteThrough,
        write_behind: WriteBehind,
    ) -> None:
        self._database = database
        self._loader = loader
        self._lazy_loading = lazy_loading
        self._write_through = write_through
        self._write_behind = write_behind

    def read(
        self,
        table: Table,
        column: Column,
        values: Sequence[Key],
        use_cache: bool,
        page: Page | None = None,
        is_fresh: bool = False,
    ) -> Rows:
        """The rows whose `column` is one of `values`, in the order of `values`, repeats repeated.
        By a lookup: all rows of each value, by key; with a `page`, some of the rows of the first
        value. Without the cache a replica may answer, unless `is_fresh`. Raises TooManyRows,
        DatabaseUnavailable, CountersUnavailable, SchemaMismatch."""
        if not values:
            return Rows(b"", hits=0 if use_cache else None)
        if page:
            return self._read_page(table, column, values[0], page, use_cache or is_fresh)
        is_distinct = len(set(values)) == len(values)
        unique = values if is_distinct else list(dict.fromkeys(values))
        hits = None
        read_at = clocks()
        if use_cache:
            entries, joined, hits = self._lazy_loading.get_many(table, column, unique)
            if joined and is_distinct and not table.write_behind:
                return Rows(joined, (), len(unique), hits)
            found = {value: entry for value, entry in zip(unique, entries) if entry}
        else:
            found = self._loader.load(table, column, unique, from_replica=not is_fresh)
        if table.write_behind and found:
            entries = self._write_behind.shown_many(table, [*found.values()], read_at)
            found = dict(zip(found, entries))
        return Rows(
            b",".join([found[value] for value in values if value in found]),
            [value for value in unique if value not in found],
            len(unique),
            hits,
        )

    def all_rows(self, table: Table, max_bytes: int) -> Sequence[Row]:
        """Every row of the table, in the order of the keys, from the database. Raises TooLarge
        where they take more than `max_bytes` of JSON, DatabaseUnavailable, SchemaMismatch."""
        return self._database.fetch_all(table, max_bytes)

    def _read_page(
        self, table: Table, column: Column, value: Key, page: Page, from_writer: bool
    ) -> Rows:
        """From the database: an entry of the cache holds all rows of a value."""
        read_at = clocks()
        rows = self._loader.load_page(table, column, value, page, from_replica=not from_writer)
        if table.write_behind and rows:
            rows = self._write_behind.shown_many(table, rows, read_at)
        is_missing = not rows and page.after is None
        return Rows(b",".join(rows), [value] if is_missing else (), 1)

    def write(
        self, table: Table, rows: Sequence[Row], use_cache: bool, idempotency_key: str = ""
    ) -> Sequence[Key]:
        """Write all rows or none. Returns their keys, in the order of `rows`. A row with a key is
        inserted or replaces the row with that key. A row with NO_KEY gets the next key. With
        `use_cache` the rows enter the cache; without it their old entries leave it. With an
        `idempotency_key` the rows are written at most once. Raises RowRejected, Conflict,
        DatabaseUnavailable, OutcomeUnknown, SchemaMismatch."""
        if not rows:
            return ()

        def written(change: Change) -> Sequence[Key]:
            return [row[0] for row in change.after]

        request = ("write", rows)
        return self._change(table, Work(rows), written, use_cache, idempotency_key, request)

    def delete(self, table: Table, keys: Sequence[Key], idempotency_key: str = "") -> Sequence[Key]:
        """Delete the rows with these keys, all or none. Returns the keys that existed, in the order
        of `keys`. Raises as `write`."""
        if not keys:
            return ()

        def deleted(change: Change) -> Sequence[Key]:
            existed = {row[0] for row in change.before}
            return [key for key in dict.fromkeys(keys) if key in existed]

        request = ("delete", keys)
        return self._change(table, Work(keys=keys), deleted, False, idempotency_key, request)

    def increment(
        self, table: Table, deltas: Counts, use_cache: bool, idempotency_key: str = ""
    ) -> Counts:
        """Add to counters of rows, all or none; their new values. `deltas` name a row once.
        Increments of write-behind counters are kept in Redis, unless others go with them, or an
        idempotency key, which must be committed with its change. Raises as `write`; RowRejected
        where a row is not there, CounterOutOfRange, CountersUnavailable."""
        if not deltas.keys:
            return deltas
        if table.write_behind and not idempotency_key and self._write_behind.takes(table, deltas):
            return self._write_behind.increment(table, deltas)
        keys = deltas.keys

        def edit(rows: Sequence[Row]) -> Sequence[Row]:
            if table.write_behind:
                totals, none = self._write_behind.totals(table, keys), CounterTotals()
                rows = [with_pending(table, row, totals.get(row[0], none)) for row in rows]
            return incremented(self._database.known(table), deltas, rows)

        def answer(change: Change) -> Answer:
            return counted(table, deltas, change.after)

        request = ("increment", list(zip(keys, deltas.rows())))
        work = Work(keys=keys, edit=edit)
        rows = self._change(table, work, answer, use_cache, idempotency_key, request)
        return Counts.of_rows(keys, rows, deltas.columns)

    def invalidate(self, table: Table, keys: Sequence[Key] | None = None) -> None:
        """Somebody else changed the rows with `keys`; None: any rows. Every read that starts after
        this has returned shows them as they are now. All cached rows of the table become
        unreachable, because nobody knows by which lookups a row was found before it was changed.
        Raises DatabaseUnavailable, OutcomeUnknown."""
        if keys is None or keys:
            self._write_through.replace_all(table, lambda transaction: None)

    def _change(
        self,
        table: Table,
        work: Work,
        answer: AnswerTo,
        store: bool,
        idempotency_key: str,
        request: tuple[str, Sequence[Any]],
    ) -> Answer:
        """The answer to the change; where a request with `idempotency_key` came before, the answer
        to that one."""
        if not idempotency_key:
            return answer(self._changed(table, work, store))
        claim = IdempotentChange(idempotency_key, table, request, answer)
        try:
            done = self._change_once(table, claim, work, answer, store)
        except OutcomeUnknown as unknown:
            try:  # the idempotency key tells whether the first try was committed
                done = self._change_once(table, claim, work, answer, store)
            except (DatabaseUnavailable, ConfigurationError, SchemaMismatch):
                raise unknown from None  # the second try may have failed before it came to the key
        if random.random() < PRUNE_SHARE:
            self._prune_claims()
        return done

    def _change_once(
        self, table: Table, claim: IdempotentChange, work: Work, answer: AnswerTo, store: bool
    ) -> Answer:
        try:
            return answer(self._changed(table, replace(work, claim=claim), store))
        except AlreadyClaimed:
            return self._write_through.show_again(table, claim.recorded).answer

    def _changed(self, table: Table, work: Work, store: bool) -> Change:
        try:
            return self._write_through.change(table, work, store=store)
        except NotAsDeclared as error:
            raise mismatch(self._database, table, error) from error

    def _prune_claims(self) -> None:
        """The caller's change is done: a failure here is only logged."""
        try:
            prune_claims(self._database)
        except Exception:
            log.warning("old idempotency keys stay for now", exc_info=True)
