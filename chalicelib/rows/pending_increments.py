"""Increments of write-behind counters that are in Redis and not in the row yet."""

from collections.abc import Mapping, Sequence

from chalicelib.cache import CounterTotals, CounterTotalsStore
from chalicelib.errors import CacheUnavailable, CountersUnavailable
from chalicelib.tables import Key, Row, Table


def read_totals(
    store: CounterTotalsStore, table: Table, keys: Sequence[Key]
) -> Mapping[Key, CounterTotals]:
    """As `CounterTotalsStore.read_many`. Raises CountersUnavailable where Redis cannot answer."""
    try:
        return store.read_many(table, keys)
    except CacheUnavailable as error:
        raise CountersUnavailable(
            f"{table.name} has write-behind counters, and Redis cannot tell what was added to them"
            f" ({error}); nothing was changed"
        ) from error


def with_pending(table: Table, row: Row, totals: CounterTotals) -> Row:
    """The row with all of `totals` added, and `totals` behind its columns. It came with the totals
    that were applied before, behind its columns. Where `totals` are behind those, the row stays as
    it is. Raises NotAsDeclared where a counter is NULL."""
    table.encode(row)  # for what it raises
    values = list(row)
    applied = CounterTotals.parse(str(row[-1]))
    if totals.is_behind(applied):
        return row
    left = totals.beyond(applied)
    for column in table.write_behind:
        values[table.positions[column.name]] += left.get(column.name, 0)  # type: ignore[operator]
    values[-1] = totals.text
    return tuple(values)
