"""Finds the row that the database rejected, among many that were written in one statement.

No server names the statement of the rejected row, and few name the row. So the rows are written
again in halves, until one row is left.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from chalicelib.column_types import InvalidValue
from chalicelib.db import information_schema, statements
from chalicelib.db.engine import Rows
from chalicelib.db.errors import DatabaseError, duplicate_index, is_value_rejected, rejection
from chalicelib.db.information_schema import Found
from chalicelib.db.schema import narrowed
from chalicelib.db.statements import Statement
from chalicelib.errors import RowRejected
from chalicelib.tables import Table

Item = TypeVar("Item")
Make = Callable[[Table, Sequence[Any]], Sequence[Statement]]
Run = Callable[..., list[Rows]]


@dataclass(frozen=True)
class Writes:
    """What a transaction writes. `items`: rows to write, or keys of rows to delete. `groups`: the
    same items in groups, each with the function that makes its statement."""

    table: Table
    items: Sequence[Any]
    groups: Iterable[tuple[Make, Sequence[Any]]]


def find_rejected(run: Run, writes: Writes) -> RowRejected | None:
    """Do the `writes` again in new transactions, up to the first item that the database rejects.
    None where it does not reject any this time. The transaction cannot be used after that."""
    done: list[Statement] = []
    for make, group in writes.groups:
        if found := _first_rejected(run, done, partial(make, writes.table), group):
            item, error = found
            index = next(i for i, other in enumerate(writes.items) if other is item)
            run(statements.ROLLBACK, statements.START)
            return _row_rejected(run, writes.table, item, index, error)
        done += make(writes.table, group) if group else ()
    return None


def _first_rejected(
    run: Run,
    done: Sequence[Statement],
    make: Callable[[Sequence[Item]], Sequence[Statement]],
    items: Sequence[Item],
) -> tuple[Item, DatabaseError] | None:
    """The first item that is rejected, and its error: by halves. Each try is a new transaction,
    because an error may end one. It writes what is `done` and the items before, because one of them
    may be the reason."""
    passed, found = 0, None
    failed = len(items) + 1
    while passed + 1 < failed:
        count = (passed + failed) // 2
        run(statements.ROLLBACK, statements.START)
        try:
            run(*done, *make(items[:count]))
            passed = count
        except DatabaseError as error:
            if not is_value_rejected(error):
                raise
            failed, found = count, (items[count - 1], error)
    return found


def _row_rejected(
    run: Run, table: Table, item: object, index: int, error: DatabaseError
) -> RowRejected:
    """The error for one rejected item. Its reason names the limit of the column, where the value is
    beyond that limit."""
    name, reason = rejection(error)
    if unique := duplicate_index(error):
        [columns] = run(information_schema.index_columns(table, unique))
        name = columns[0][0] if len(columns) == 1 else ""
    by_name = {column.name.lower(): column.name for column in table.columns}
    name = by_name.get(name.lower(), "")
    if name and isinstance(item, tuple):
        [found] = run(information_schema.describe([table.name]))
        real = narrowed(table, [Found(*row) for row in found])
        position = table.positions[name]
        try:
            real.columns[position].type.parse(item[position])
        except InvalidValue as invalid:
            reason = str(invalid)
    return RowRejected(index, name, reason)
