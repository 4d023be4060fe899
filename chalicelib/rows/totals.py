"""Totals of write-behind counters, and rows with them."""

from collections.abc import Mapping, Sequence

from chalicelib.cache import Totals, TotalsStore
from chalicelib.errors import CacheUnavailable, CountersUnavailable
from chalicelib.tables import Key, Row, Table


def read_totals(store: TotalsStore, table: Table, keys: Sequence[Key]) -> Mapping[Key, Totals]:
    """As `TotalsStore.read_many`, for who cannot do without. Raises CountersUnavailable."""
    try:
        return store.read_many(table, keys)
    except CacheUnavailable as error:
        raise CountersUnavailable(
            f"{table.name} has write-behind counters, and Redis cannot tell what was added to them"
            f" ({error}); nothing was changed"
        ) from error


def with_totals(table: Table, row: Row, totals: Totals) -> Row:
    """A row that came with what is `applied`: with all of `totals` in it, and so told behind its
    columns. Totals that are behind that change nothing."""
    values = list(row)
    applied = Totals.parse(str(row[-1]))
    if totals.is_behind(applied):
        return row
    left = totals.beyond(applied)
    for column in table.write_behind:
        values[table.positions[column.name]] += left.get(column.name, 0)  # type: ignore[operator]
    values[-1] = totals.text
    return tuple(values)
