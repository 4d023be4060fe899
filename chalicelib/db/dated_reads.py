"""Reads of rows that tell when they began: what is read later than that may be newer."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from chalicelib.db import batches, statements
from chalicelib.db.engine import Connection, Rows
from chalicelib.db.errors import AnswerTooLarge, reject_replica
from chalicelib.db.statements import Statement
from chalicelib.tables import Key, Row, Table


class AskedRange(NamedTuple):
    """Rows in the order of their keys, `max_rows` at the most: behind the key `after` and up to the
    key `last`, where these are given."""

    table: Table
    after: Key | None
    last: Key | None
    max_rows: int


class FoundRange(NamedTuple):
    """`read_at`: a time before the SELECT, in microseconds of the writer's clock. `texts`: the JSON
    of each row, as `Table.encode` has it, by its key; None where only `encode` knows. `is_more`:
    whether there may be more rows."""

    read_at: int
    texts: Mapping[Key, bytes | None]
    is_more: bool


def rows_of_keys(
    connection: Connection, table: Table, keys: Sequence[Key]
) -> tuple[int, Sequence[Row]]:
    """A time before the SELECT, and the rows with `keys`, in any order."""
    cut = batches.cut(keys, batches.most_rows(connection, table))
    selects = [statements.rows_of_keys(table, batch) for batch in cut if batch]
    try:
        now, answers = _dated(connection.batch([*_BEFORE, *selects]))
    except AnswerTooLarge:
        if len(keys) == 1:
            raise
        middle = len(keys) // 2
        now, rows = rows_of_keys(connection, table, keys[:middle])
        return now, [*rows, *rows_of_keys(connection, table, keys[middle:])[1]]
    return now, [row for answer in answers for row in answer]


def send_range(connection: Connection, asked: AskedRange) -> None:
    """Ask for these rows, where the engine need not wait for them. `receive_range` must follow."""
    if _are_joined(connection, asked.table):
        connection.send([*_BEFORE, *statements.join_range(*asked)])


def receive_range(connection: Connection, asked: AskedRange) -> FoundRange:
    table, after, last, max_rows = asked
    as_json = _are_joined(connection, table)
    if as_json:
        now, [_, [(end,)], [(joined, count)]] = _dated(connection.receive_batch())
        joined_texts = batches.joined_texts(table, joined, count)
        # Where rows were deleted meanwhile, there may be others behind them.
        if joined_texts is not None and (count >= max_rows or end is None):
            return FoundRange(now, joined_texts, end is not None)
    limit = min(max_rows, batches.most_rows(connection, table) or max_rows)
    while True:
        select = statements.select_range(table, limit, after, last, as_json=as_json)
        try:
            now, [rows] = _dated(connection.batch([*_BEFORE, select]))
            break
        except AnswerTooLarge:
            if limit == 1:
                raise
            limit //= 2
    texts = batches.texts(rows) if as_json else table.encode_each(rows)
    return FoundRange(now, texts, len(rows) == limit)


def _are_joined(connection: Connection, table: Table) -> bool:
    """Whether rows come as JSON: it may not fit into an answer that holds their values."""
    return not batches.most_rows(connection, table)


_BEFORE: Sequence[Statement] = (statements.IS_READ_ONLY, statements.NOW)


def _dated(answers: Sequence[Rows]) -> tuple[int, Sequence[Rows]]:
    """When the writer began, and its answers to what stood behind `_BEFORE`."""
    is_read_only, now, *others = answers
    reject_replica(is_read_only[0][0])
    return int(now[0][0]), others
