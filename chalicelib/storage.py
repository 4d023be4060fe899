"""The use cases: read with lazy loading, write with write-through. Knows no wire and no driver.

Handlers call in; the database and the cache are called out to. The cache may fail at any time and
the answer is the same, only slower; the database's errors go up to the caller.
"""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from chalicelib.cache import Cache, Cell
from chalicelib.db import Database, Transaction
from chalicelib.errors import CacheUnavailable, TooLarge
from chalicelib.tables import NO_KEY, Column, Key, Row, Table

log = logging.getLogger("herocache.storage")

MAX_RESULT_BYTES = 6_000_000
"""The most JSON one answer may hold; Lambda sends at most 6 MB."""


@dataclass(frozen=True)
class Rows:
    """`cells` joined with commas are the rows as JSON, in the order asked; `missing` are the values
    no row has, each once."""

    cells: Sequence[Cell]
    missing: Sequence[Key]


class Storage:
    """Reads and writes batches of rows of any declared table."""

    def __init__(self, database: Database, cache: Cache) -> None:
        self._database = database
        self._cache = cache

    def read(self, table: Table, column: Column, values: Sequence[Key], use_cache: bool) -> Rows:
        """The rows whose `column` is each of `values`, in their order, repeats repeated; by a
        lookup every row with that value, by key. Lazy loading: one MGET, and one SELECT for what
        it missed. Raises TooLarge, DatabaseUnavailable."""
        if not values:
            return Rows((), ())
        unique = list(dict.fromkeys(values))
        if use_cache and self._cache.is_configured:
            cells = self._cached(table, column, unique)
        else:
            loaded = self._loaded(table, column, unique)
            cells = [loaded.get(value) for value in unique]
        if len(unique) == len(values) and None not in cells:
            return Rows(cells, ())  # type: ignore[arg-type]
        found = {value: cell for value, cell in zip(unique, cells) if cell is not None}
        return Rows(
            [found[value] for value in values if value in found],
            [value for value in unique if value not in found],
        )

    def write(self, table: Table, rows: Sequence[Row], use_cache: bool) -> list[Key]:
        """Write all rows or none: a row with a key is inserted or takes that row's place, a row
        with NO_KEY gets the next one. The keys, in the order of `rows`. Write-through when
        `use_cache`; what became stale is removed either way. Raises DatabaseUnavailable."""
        if not rows:
            return []
        before: Sequence[Row] = ()
        if any(row[0] != NO_KEY for row in rows):
            before, keys = self._database.transact(lambda tx: _replace(tx, table, rows))
        else:
            keys = self._database.insert_many(table, rows)
        written = [(key, *row[1:]) for key, row in zip(keys, rows)]
        if self._cache.is_configured:
            self._write_through(table, before, written, use_cache)
        return keys

    def _cached(self, table: Table, column: Column, values: Sequence[Key]) -> list[Cell | None]:
        try:
            cells = self._cache.get_many(table, column, values)
        except CacheUnavailable:
            loaded = self._loaded(table, column, values)
            return [loaded.get(value) for value in values]
        if None not in cells:
            return cells
        loaded = self._loaded(
            table, column, [value for value, cell in zip(values, cells) if cell is None]
        )
        try:
            self._cache.replace_many(table, {column: loaded}, {})
        except CacheUnavailable as error:
            log.info("not cached: %s", error)
        return [loaded.get(value) if cell is None else cell for value, cell in zip(values, cells)]

    def _loaded(self, table: Table, column: Column, values: Sequence[Key]) -> dict[Key, Cell]:
        """The cells of those values that have rows, from one SELECT."""
        max_rows = MAX_RESULT_BYTES // table.min_row_bytes + 1
        rows = self._database.fetch_many(table, column, values, max_rows)
        if len(rows) >= max_rows:
            raise TooLarge(
                f"SQLS: more than {max_rows - 1} rows have these {column.name} values; ask for"
                " fewer values at a time"
            )
        return _cells(table, column, rows)

    def _write_through(
        self, table: Table, before: Iterable[Row], written: Sequence[Row], use_cache: bool
    ) -> None:
        stale: dict[Column, set[Key]] = {
            column: {table.value(row, column) for row in (*before, *written)}
            for column in table.lookup_columns
        }
        stored = {table.key: _cells(table, table.key, written)} if use_cache else {}
        if not use_cache:
            stale[table.key] = {row[0] for row in before}
        try:
            self._cache.replace_many(table, stored, stale)
        except CacheUnavailable as error:
            log.warning("cells of %s may be stale until they expire: %s", table.name, error)


def _replace(
    transaction: Transaction, table: Table, rows: Sequence[Row]
) -> tuple[Sequence[Row], list[Key]]:
    """The rows as they were, and the keys of the rows as written. Those with a key go first: no
    inserted row can then be given a key that another row of the batch brings along."""
    keyed = [row for row in rows if row[0] != NO_KEY]
    before = transaction.lock_many(table, [row[0] for row in keyed])
    transaction.upsert_many(table, keyed)
    keyless = [row for row in rows if row[0] == NO_KEY]
    given = iter(transaction.insert_many(table, keyless) if keyless else ())
    return before, [row[0] if row[0] != NO_KEY else next(given) for row in rows]


def _cells(table: Table, column: Column, rows: Iterable[Row]) -> dict[Key, Cell]:
    """Each value's rows as one cell, in the order of `rows`."""
    position = table.positions[column.name]
    encode = table.encode
    if column is table.key:
        return {row[position]: encode(row) for row in rows}
    grouped: dict[Key, list[bytes]] = {}
    for row in rows:
        grouped.setdefault(row[position], []).append(encode(row))
    return {value: b",".join(encoded) for value, encoded in grouped.items()}
