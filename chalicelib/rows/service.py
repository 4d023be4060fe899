"""The use cases: read with lazy loading, write with write-through. Knows no wire and no driver.

Handlers call in. The cache may fail at any time and the answer is the same, only slower; the
database's errors go up to the caller.
"""

import logging
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from chalicelib.cache.entries import Cache, Entry
from chalicelib.cache.generations import Generations
from chalicelib.cache.recovery import Recovery
from chalicelib.db import Change, Database
from chalicelib.errors import (
    AlreadyClaimed,
    BadRequest,
    DatabaseUnavailable,
    KeyTooFar,
    NoKeyLeft,
    OutcomeUnknown,
    RowRejected,
    SchemaMismatch,
    TooLarge,
)
from chalicelib.rows.idempotency import IdempotentChange, prune_claims
from chalicelib.rows.lazy_loading import LazyLoading
from chalicelib.rows.write_through import Work, WriteThrough
from chalicelib.tables import Column, Key, NotAsDeclared, Row, Table

log = logging.getLogger("herocache.storage")

PRUNE_SHARE = 0.02
"""One idempotent write in so many forgets old keys."""

REPLICA_RESTS_SECONDS = 5
"""How long a replica is left alone that did not answer: nobody else waits for it."""

MAX_RESULT_BYTES = 6_000_000
"""The most JSON one answer may hold; Lambda sends at most 6 MB."""


@dataclass(frozen=True)
class Rows:
    """`json`: the rows as JSON objects with commas between, in the order asked; `missing`: the
    values no row has, each once. Of the `asked` distinct values `hits` came from the cache; None
    where it was not in use."""

    json: bytes
    missing: Sequence[Key] = ()
    asked: int = 0
    hits: int | None = None


@dataclass(frozen=True)
class Page:
    """At most `limit` rows of one value, those after the key `after`; None: from the first on."""

    limit: int
    after: Key | None


class Storage:
    """Reads and writes batches of rows of any declared table."""

    def __init__(self, database: Database, cache: Cache, replica: Database | None = None) -> None:
        """`replica` answers reads without the cache, as of a moment ago; the writer all else."""
        self._database = database
        self._replica = replica
        self._replica_rests_until = 0.0
        generations = Generations(database, cache)
        recovery = Recovery(database, cache, generations)
        self._lazy_loading = LazyLoading(self._load, cache, generations, recovery)
        self._write_through = WriteThrough(database, cache, generations, recovery)

    def read(
        self,
        table: Table,
        column: Column,
        values: Sequence[Key],
        use_cache: bool,
        page: Page | None = None,
    ) -> Rows:
        """The rows whose `column` is each of `values`, in their order, repeats repeated; by a
        lookup every row with that value, by key. Lazy loading: one MGET, and one SELECT for what
        it missed. With `page` a part of the rows of one value. Raises TooLarge,
        DatabaseUnavailable."""
        if not values:
            return Rows(b"", hits=0 if use_cache else None)
        if page:
            return self._read_page(table, column, values, page, use_cache)
        is_distinct = len(set(values)) == len(values)
        unique = values if is_distinct else list(dict.fromkeys(values))
        hits = None
        if use_cache:
            entries, joined, hits = self._lazy_loading.get_many(table, column, unique)
            if joined and is_distinct:
                return Rows(joined, (), len(unique), hits)
            found = {value: entry for value, entry in zip(unique, entries) if entry}
        else:
            found = self._entries(table, column, self._rows_of_replica(table, column, unique))
        return Rows(
            b",".join([found[value] for value in values if value in found]),
            [value for value in unique if value not in found],
            len(unique),
            hits,
        )

    def invalidate(self, table: Table, keys: Sequence[Key] | None = None) -> None:
        """Rows of the table were changed by somebody else: those with `keys`, or any. Every read
        that starts after this has returned sees them as they are now. All cached rows of the table
        become unreachable: which lookups showed a row before it was changed, nobody can tell.
        Raises DatabaseUnavailable, OutcomeUnknown."""
        if keys is None or keys:
            self._write_through.replace_all(table, lambda transaction: None)

    def write(
        self, table: Table, rows: Sequence[Row], use_cache: bool, idempotency_key: str = ""
    ) -> Sequence[Key]:
        """Write all rows or none: a row with a key is inserted or takes that row's place, a row
        with NO_KEY gets the next one. The keys, in the order of `rows`. Without `use_cache` the
        rows do not enter the cache; none is stale there either way. With an `idempotency_key` at
        most once. Raises DatabaseUnavailable, OutcomeUnknown, Conflict."""
        if not rows:
            return ()

        def keys_in(change: Change) -> Sequence[Key]:
            return [row[0] for row in change.after]

        return self._change(table, rows, (), keys_in, use_cache, idempotency_key)

    def delete(self, table: Table, keys: Sequence[Key], idempotency_key: str = "") -> Sequence[Key]:
        """Delete the rows with these keys, all or none; the keys that existed, in the order of
        `keys`. Raises as `write`."""
        if not keys:
            return ()

        def keys_in(change: Change) -> Sequence[Key]:
            deleted = {row[0] for row in change.before}
            return [key for key in dict.fromkeys(keys) if key in deleted]

        return self._change(table, (), keys, keys_in, False, idempotency_key)

    def _read_page(
        self, table: Table, column: Column, values: Sequence[Key], page: Page, use_cache: bool
    ) -> Rows:
        """Never from the cache, which has the rows of a value as a whole."""
        if use_cache:
            rows = self._rows(table, column, values, page=page)
        else:
            rows = self._rows_of_replica(table, column, values, page)
        is_missing = not rows and page.after is None
        encoded = b",".join(self._encoded(table, rows))
        return Rows(encoded, values if is_missing else (), len(values))

    def _change(
        self,
        table: Table,
        rows: Sequence[Row],
        keys: Sequence[Key],
        answer: Callable[[Change], Sequence[Key]],
        store: bool,
        idempotency_key: str,
    ) -> Sequence[Key]:
        """What `answer` makes of the change; or, where `idempotency_key` was seen before, what it
        made of the first one."""
        if not idempotency_key:
            return answer(self._changed(table, Work(rows, keys), store))
        claim = IdempotentChange(idempotency_key, table, rows, keys, answer)

        def once() -> Sequence[Key]:
            try:
                return answer(self._changed(table, Work(rows, keys, claim), store))
            except AlreadyClaimed:
                return self._write_through.show_again(table, claim.recorded).answer

        try:
            done = once()
        except OutcomeUnknown as unknown:
            try:
                done = once()  # the key tells whether it happened
            except DatabaseUnavailable:
                raise unknown from None
        if random.random() < PRUNE_SHARE:
            self._prune_claims()
        return done

    def _changed(self, table: Table, work: Work, store: bool) -> Change:
        try:
            return self._write_through.change(table, work, store=store)
        except NotAsDeclared as error:
            raise self._mismatch(table, error) from error
        except RowRejected as error:
            place = f"SQLS[{error.index}]{'.' * bool(error.column)}{error.column}"
            raise BadRequest(f"{place}: {error.reason}") from error
        except (KeyTooFar, NoKeyLeft) as error:
            raise BadRequest(f"TABLE {error}") from error

    def _prune_claims(self) -> None:
        """What keeps it from that is no news for a caller whose write is done."""
        try:
            prune_claims(self._database)
        except DatabaseUnavailable as error:
            log.warning("old idempotency keys stay for now: %s", error)

    def _load(
        self, table: Table, column: Column, values: Sequence[Key], *, after_writers: bool = False
    ) -> dict[Key, Entry]:
        """The entries of those values that have rows. Raises as `_rows`."""
        rows = self._rows(table, column, values, after_writers=after_writers)
        return self._entries(table, column, rows)

    def _rows_of_replica(
        self, table: Table, column: Column, values: Sequence[Key], page: Page | None = None
    ) -> Sequence[Row]:
        if self._replica is not None and time.monotonic() >= self._replica_rests_until:
            try:
                return self._rows(table, column, values, page=page, database=self._replica)
            except DatabaseUnavailable as error:
                self._replica_rests_until = time.monotonic() + REPLICA_RESTS_SECONDS
                log.warning("the writer answers for the replica (DB_READER_HOST): %s", error)
        return self._rows(table, column, values, page=page)

    def _rows(
        self,
        table: Table,
        column: Column,
        values: Sequence[Key],
        *,
        after_writers: bool = False,
        page: Page | None = None,
        database: Database | None = None,
    ) -> Sequence[Row]:
        """The rows of these values. One SELECT, by default of the writer. Raises TooLarge where
        they could never fit into an answer, DatabaseUnavailable."""
        too_many = MAX_RESULT_BYTES // table.min_row_bytes + 1
        rows = (database or self._database).fetch_many(
            table,
            column,
            values,
            page.limit if page else too_many,
            after=page.after if page else None,
            after_writers=after_writers,
        )
        if len(rows) >= too_many:
            raise TooLarge(
                f"SQLS: more than {too_many - 1} rows have these {column.name} values; ask for"
                " fewer values at a time, or for one value with LIMIT and AFTER"
            )
        return rows

    def _entries(self, table: Table, column: Column, rows: Sequence[Row]) -> dict[Key, Entry]:
        """Each value's rows as one entry, in the order of `rows`. Raises SchemaMismatch."""
        position = table.positions[column.name]
        encoded_rows = zip([row[position] for row in rows], self._encoded(table, rows))
        if column is table.key:
            return dict(encoded_rows)
        grouped: dict[Key, list[bytes]] = {}
        for value, encoded in encoded_rows:
            grouped.setdefault(value, []).append(encoded)
        return {value: b",".join(encoded) for value, encoded in grouped.items()}

    def _encoded(self, table: Table, rows: Sequence[Row]) -> Sequence[bytes]:
        try:
            return table.encode_many(rows)
        except NotAsDeclared as error:
            raise self._mismatch(table, error) from error

    def _mismatch(self, table: Table, error: NotAsDeclared) -> SchemaMismatch:
        """For a row that the database should not have. Where somebody changed the table meanwhile,
        the words for that are raised instead."""
        self._database.as_stored(table)
        return SchemaMismatch(str(error))
