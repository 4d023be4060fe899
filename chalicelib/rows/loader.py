"""Reads rows from the database, and encodes them as the JSON that answers and entries hold."""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass

from chalicelib.config import MAX_RESULT_BYTES
from chalicelib.db import Database
from chalicelib.errors import DatabaseUnavailable, SchemaMismatch, TooManyRows
from chalicelib.rows import counted_entries
from chalicelib.tables import Column, Key, NotAsDeclared, Row, Table

log = logging.getLogger("herocache.loader")

# After a replica did not answer, it is not asked again for so long: one request has waited, others
# need not.
REPLICA_RESTS_SECONDS = 5


@dataclass(frozen=True)
class Page:
    """A page of the rows that have one value: at most `limit` rows, after the key `after`; from the
    first row on where `after` is None."""

    limit: int
    after: Key | None


class RowLoader:
    """One SELECT a call, on the writer unless the caller says that a replica will do."""

    def __init__(self, database: Database, replica: Database | None = None) -> None:
        self._database = database
        self._replica = replica
        self._replica_rests_until = 0.0

    def load(
        self,
        table: Table,
        column: Column,
        values: Sequence[Key],
        *,
        after_writers: bool = False,
        from_replica: bool = False,
    ) -> dict[Key, bytes]:
        """For each of the distinct `values` that has rows: its rows, each as `counted_entries` has
        it, with commas between, in the order of their keys. With `after_writers` it waits for
        transactions that have changed these rows. Raises TooManyRows, DatabaseUnavailable,
        SchemaMismatch."""
        too_many = MAX_RESULT_BYTES // table.min_row_bytes + 1
        rows = self._fetch(
            table, column, values, too_many, after_writers=after_writers, from_replica=from_replica
        )
        if len(rows) >= too_many:
            raise TooManyRows(column.name, too_many - 1)
        position = table.positions[column.name]
        encoded_rows = zip([row[position] for row in rows], self._entries(table, rows))
        if column is table.key:
            return dict(encoded_rows)
        grouped: dict[Key, list[bytes]] = {}
        for value, encoded in encoded_rows:
            grouped.setdefault(value, []).append(encoded)
        return {value: b",".join(encoded) for value, encoded in grouped.items()}

    def load_page(
        self, table: Table, column: Column, value: Key, page: Page, *, from_replica: bool
    ) -> Sequence[bytes]:
        """Some of the rows whose `column` is `value`, by key, each as `counted_entries` has it.
        Raises as `load`."""
        rows = self._fetch(
            table, column, [value], page.limit, after=page.after, from_replica=from_replica
        )
        return self._entries(table, rows)

    def _fetch(
        self,
        table: Table,
        column: Column,
        values: Sequence[Key],
        limit: int,
        *,
        after: Key | None = None,
        after_writers: bool = False,
        from_replica: bool = False,
    ) -> Sequence[Row]:
        if from_replica and self._replica and time.monotonic() >= self._replica_rests_until:
            try:
                return self._replica.fetch_many(table, column, values, limit, after=after)
            except DatabaseUnavailable as error:
                self._replica_rests_until = time.monotonic() + REPLICA_RESTS_SECONDS
                log.warning("the writer answers for the replica (DB_READER_HOST): %s", error)
        return self._database.fetch_many(
            table, column, values, limit, after=after, after_writers=after_writers
        )

    def _entries(self, table: Table, rows: Sequence[Row]) -> Sequence[bytes]:
        try:
            return counted_entries.encode_many(table, rows)  # type: ignore[return-value]  # each row came by a SELECT
        except NotAsDeclared as error:
            raise mismatch(self._database, table, error) from error


def mismatch(database: Database, table: Table, error: NotAsDeclared) -> SchemaMismatch:
    """The error for a row that holds what its column does not declare. Compares the table with its
    declaration first: where somebody changed the table, that comparison raises the better error."""
    database.as_stored(table)
    return SchemaMismatch(str(error))
