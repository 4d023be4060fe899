"""The rows that a load brought into a table: how many, and the first ones as they were stored.

Here the texts of a file become rows, and rows become the objects that a read returns.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from chalicelib.column_types import Integer
from chalicelib.db import Transaction
from chalicelib.ingest.load_data import Batch
from chalicelib.tables import NO_KEY, Column, Key, Row, Table

RowObject = Mapping[str, Key]


class Loaded(NamedTuple):
    """How many rows were loaded and rejected, in how many lines the rejected ones stand, and the
    first loaded rows."""

    rows: int
    rejected: int
    rejected_lines: int
    first_rows: Sequence[RowObject]


def rows_of(table: Table, columns: Sequence[Column], batch: Batch) -> Iterator[Row]:
    """The rows in a batch of checked texts, as the API would make them; NO_KEY where there is no
    key."""
    makers = [int if isinstance(column.type, Integer) else str for column in columns]
    order = [columns.index(column) for column in table.columns if column in columns]
    no_key = (NO_KEY,) * (table.key not in columns)
    for texts in batch:
        values = [make(text) for make, text in zip(makers, texts)]
        yield (*no_key, *[values[position] for position in order])


def first_stored(
    transaction: Transaction, table: Table, columns: Sequence[Column], first: Batch
) -> Sequence[RowObject]:
    """The `first` rows of a file as the table holds them, just after the load. Keys that the
    database gave rise by one, unless others insert at the same time. So a row is left out where
    another row has the key that it should have."""
    if not first:
        return ()
    rows = list(rows_of(table, columns, first))
    is_keyed = table.key in columns
    keys = [row[0] for row in rows] if is_keyed else _given_keys(transaction, len(rows))
    wanted = dict(zip(keys, rows))
    return [
        as_object(table, row)
        for row in stored(transaction, table, list(wanted))
        if is_keyed or row[1:] == wanted[row[0]][1:]
    ]


def stored(transaction: Transaction, table: Table, keys: Sequence[Key]) -> Sequence[Row]:
    """The rows with these keys, in this order, as the table holds them: a trigger may have changed
    them. One SELECT."""
    rows: Mapping[Key, Row] = {row[0]: row for row in transaction.rows_of(table, keys)}
    return [rows[key] for key in keys if key in rows]


def as_object(table: Table, row: Row) -> RowObject:
    return {column.name: value for column, value in zip(table.columns, row)}


def _given_keys(transaction: Transaction, count: int) -> Sequence[Key]:
    first = transaction.first_loaded_key()
    return range(first, first + count)
