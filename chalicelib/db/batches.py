"""Cuts what is written and read to what one statement and one answer of an engine may hold.

An engine without such limits gets one batch, whatever is in it.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

from chalicelib.column_types import Integer
from chalicelib.db import statements
from chalicelib.db.engine import Connection, Rows
from chalicelib.db.errors import AnswerTooLarge
from chalicelib.db.statements import Statement
from chalicelib.errors import TooLarge
from chalicelib.tables import Column, Key, Row, Table

Item = TypeVar("Item")

# Of all rows of a table at a time, where answers have no limit.
PAGE_ROWS = 5_000
# Of each value in a statement, beside its JSON: its name, its type and its place in the SQL.
_BYTES_BESIDE_VALUE = 64
# Where a statement has a limit, its SQL has one too: 65,536 characters, of which a value takes 9.
_MAX_VALUES = 6_000
# By a lookup: of text each value is named twice, once as bytes.
_MAX_LOOKUP_VALUES = 1_500
# Of each value in an answer: the name of its type, and JSON.
_BYTES_AROUND_VALUE = 32


def cut(items: Sequence[Item], most: int) -> list[Sequence[Item]]:
    """In batches of at most `most` items; 0: in one batch."""
    if not most or len(items) <= most:
        return [items]
    return [items[start : start + most] for start in range(0, len(items), most)]


def cut_by_bytes(items: Sequence[Any], most: int) -> list[Sequence[Any]]:
    """In batches whose values take at most `most` bytes in a request; 0: in one batch. An item is a
    row or a key."""
    if not most:
        return [items]
    batches: list[list[Any]] = []
    bytes_left = values_left = 0
    for item in items:
        values = item if isinstance(item, tuple) else (item,)
        size = len(json.dumps(values)) + len(values) * _BYTES_BESIDE_VALUE
        if size > bytes_left or len(values) > values_left:
            batches.append([])
            bytes_left, values_left = most, _MAX_VALUES
        batches[-1].append(item)
        bytes_left -= size
        values_left -= len(values)
    return [*batches]


def fits(connection: Connection, values: int) -> bool:
    """Whether one statement can hold so many keys."""
    return not connection.max_statement_bytes or values <= _MAX_VALUES


def most_rows(connection: Connection, table: Table) -> int:
    """How many rows of `table` surely fit into one answer; 0: any number. JSON takes six bytes for
    a control character, where `max_row_bytes` counts four."""
    if not connection.max_answer_bytes:
        return 0
    row_bytes = table.max_row_bytes * 3 // 2 + len(table.columns) * _BYTES_AROUND_VALUE
    return max(1, connection.max_answer_bytes // row_bytes)


def texts(rows: Rows) -> Mapping[Key, bytes | None]:
    """The JSON of rows by key, as a SELECT made it; None where that is not sure to be what
    `Table.encode` makes."""
    return {key: text.encode() if text and "\\" not in text else None for key, text in rows}


def joined_texts(table: Table, joined: str | None, count: int) -> Mapping[Key, bytes | None] | None:
    """The same of `count` rows that `statements.join_range` has joined. None where some of them are
    not there, the last one is cut, or they are in another order than their keys."""
    lines = joined.split("\n") if joined else []
    if len(lines) != 2 * count:
        return None
    try:
        keys: Sequence[Key] = json.loads(f"[{','.join(lines[::2])}]")
        json.loads(lines[-1] if lines else "null")
    except ValueError:
        return None
    if isinstance(table.key.type, Integer) and keys != sorted(keys):
        return None
    if joined and "\\" in joined:
        return texts(list(zip(keys, lines[1::2])))
    return dict(zip(keys, map(str.encode, lines[1::2])))


def select(
    connection: Connection,
    run: Callable[[Statement], Rows],
    table: Table,
    column: Column,
    values: Sequence[Key],
    max_rows: int,
    *,
    after: Key | None = None,
    after_writers: bool = False,
) -> Sequence[Row]:
    """As `statements.select`, in as many answers as it takes. By a lookup of so many values that
    one statement does not hold them, the rows of the first values come first."""
    most = most_rows(connection, table)

    def ask(values: Sequence[Key], limit: int, after: Key | None) -> Rows:
        return run(
            statements.select(
                table, column, values, limit, after=after, after_writers=after_writers
            )
        )

    if not most:
        return ask(values, max_rows, after)
    if column is table.key:
        return [
            row
            for batch in cut(values, most)
            for row in _by_halves(lambda keys: ask(keys, len(keys), None), batch)
        ]
    rows: list[Row] = []
    for batch in cut(values, _MAX_LOOKUP_VALUES):
        left = max_rows - len(rows)
        for page in _pages(partial(ask, batch), most, left, after):
            rows += page
    return rows


def select_all(
    connection: Connection, run: Callable[[Statement], Rows], table: Table, max_bytes: int
) -> Sequence[Row]:
    """Every row, in the order of the keys. Raises TooLarge where their JSON takes more than
    `max_bytes`."""

    def ask(limit: int, after: Key | None) -> Rows:
        return run(statements.select_page(table, limit, after))

    rows: list[Row] = []
    left = max_bytes
    most = most_rows(connection, table) or PAGE_ROWS
    for page in _pages(ask, most, max_bytes, None):
        left -= sum(map(len, table.encode_many(page))) + len(page)
        if left < 0:
            raise TooLarge(f"{table.name}: the rows take more than {max_bytes} bytes")
        rows += page
    return rows


def _by_halves(ask: Callable[[Sequence[Key]], Rows], keys: Sequence[Key]) -> Rows:
    """In more answers where a row is longer than its declaration says."""
    try:
        return ask(keys)
    except AnswerTooLarge:
        if len(keys) == 1:
            raise
        middle = len(keys) // 2
        return [*_by_halves(ask, keys[:middle]), *_by_halves(ask, keys[middle:])]


def _pages(
    ask: Callable[[int, Key | None], Rows], most: int, max_rows: int, after: Key | None
) -> Iterator[Rows]:
    """Rows in the order of their keys, `most` at a time: `ask` is told how many, and after which
    key."""
    while max_rows > 0:
        limit = min(most, max_rows)
        try:
            page = ask(limit, after)
        except AnswerTooLarge:
            if limit == 1:
                raise
            most = limit // 2
            continue
        if page:
            yield page
        if len(page) < limit:
            return
        after = page[-1][0]
        max_rows -= len(page)
