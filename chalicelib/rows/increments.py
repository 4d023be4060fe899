"""Increments that are written to the row: the row after them, and why one is rejected."""

from collections.abc import Sequence

from chalicelib.column_types import Integer
from chalicelib.counts import Counts
from chalicelib.error_text import shown
from chalicelib.errors import CounterOutOfRange, RowRejected
from chalicelib.tables import Column, Key, Row, Table


def incremented(table: Table, deltas: Counts, rows: Sequence[Row]) -> list[Row]:
    """The `rows` after the `deltas`, in the order of these. `table`: with its real limits. Raises
    RowRejected where a row is not there, CounterOutOfRange where a counter would leave its range,
    NotAsDeclared."""
    table.encode_many(rows)  # for what it raises
    by_key = {row[0]: row for row in rows}
    changed = []
    for i, (key, amounts) in enumerate(zip(deltas.keys, deltas.rows())):
        row = by_key.get(key)
        if row is None:
            reason = f"{table.name} has no row {shown(key)}; nothing was changed"
            raise RowRejected(i, table.key.name, reason)
        values = list(row)
        for name, amount in amounts.items():
            place = table.positions[name]
            values[place] = _added(table.counters[name], int(values[place]), amount, i)
        changed.append(tuple(values))
    return changed


def counted(table: Table, deltas: Counts, rows: Sequence[Row]) -> list[dict[str, Key]]:
    """The key and the counters of each row that was incremented, in the order of `deltas`."""
    return [
        {table.key.name: row[0]} | {name: row[table.positions[name]] for name in amounts}
        for amounts, row in zip(deltas.rows(), rows)
    ]


def _added(column: Column, value: int, amount: int, index: int) -> int:
    """A counter that is below its minimum already may still go up."""
    assert column.counter
    assert isinstance(column.type, Integer)
    lowest, highest, total = column.type.minimum, column.type.maximum, value + amount
    if column.counter.minimum is not None:
        lowest = max(lowest, column.counter.minimum)
    if amount < 0 and total < lowest:
        raise CounterOutOfRange(index, column.name, value, amount, f"the minimum {lowest}")
    if total > highest:
        raise CounterOutOfRange(index, column.name, value, amount, f"the maximum {highest}")
    return total
