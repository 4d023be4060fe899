"""What both sides had last of a row moves with its watch: from the watch on every row to a watch of
its own, and back.

The request that adds or ends a watch leaves that to the next run, which has the lease: a run that
looks at the row meanwhile keeps what it comes to. Only the one that ends the watch on every row
tells the others itself, before it forgets.
"""

from bisect import bisect_left
from collections.abc import Callable, Collection, Iterator, Sequence

from chalicelib.db import Statement
from chalicelib.sync.runs import Lease
from chalicelib.sync.seen_ranges import SeenRange
from chalicelib.sync.step import without
from chalicelib.sync.watches import LEFT, WatchedRow, Watches
from chalicelib.tables import EVERY_ROW, TO_DATABASE, Key, Table


def bring_along(table: Table, watches: Watches, lease: Lease) -> None:
    """Called before a run looks at rows of the table. Only direction TO_DATABASE needs it: in the
    other one the row counts, whatever both had. Raises Superseded, DatabaseUnavailable."""
    moved = watches.moved(table)
    for form in sorted({row.form for row in moved}):
        own = [row for row in moved if row.form == form]
        statements: list[Statement] = []
        if watches.still(table, form, TO_DATABASE, [EVERY_ROW]):
            for start, rows in _by_range(table, watches.ranges.starts(table, form), own):
                statements += _moving(table, form, watches, start, rows)
        left = [row.key for row in own if row.direction == LEFT]
        lease.run(*statements, *watches.forgetting_left(table, form, left))


def before_the_end(
    table: Table, form: str, watches: Watches, with_order: Callable[[Table], Table]
) -> list[Statement]:
    """Statements to run before the watch on every row ends. They change no watch that a run has
    looked at meanwhile. `with_order`: as `Database.with_order`, which is asked where needed."""
    return [
        statement
        for start, rows in _new_by_range(table, form, watches, with_order)
        for statement in _moving(table, form, watches, start, rows)
    ]


def seen_with_every_row(
    table: Table,
    form: str,
    watches: Watches,
    keys: Collection[Key],
    with_order: Callable[[Table], Table],
) -> SeenRange:
    """What the watch on every row remembers of those of the rows with `keys` to whose own watches
    it is not told yet."""
    asked = {*keys}
    seen: dict[Key, str] = {}
    unfinished: dict[Key, str] = {}
    for start, rows in _new_by_range(table, form, watches, with_order):
        own = asked.intersection(row.key for row in rows)
        known = watches.ranges.seen(table, form, start) if own else SeenRange({}, {})
        seen |= {key: known.seen[key] for key in own & known.seen.keys()}
        unfinished |= {key: known.unfinished[key] for key in own & known.unfinished.keys()}
    return SeenRange(seen, unfinished)


def _new_by_range(
    table: Table, form: str, watches: Watches, with_order: Callable[[Table], Table]
) -> list[tuple[str, list[WatchedRow]]]:
    """The watches that no run has looked at, while every row is watched."""
    if not watches.still(table, form, TO_DATABASE, [EVERY_ROW]):
        return []
    new = [row for row in watches.moved(table) if row.form == form and row.direction != LEFT]
    if not new:
        return []
    return [*_by_range(with_order(table), watches.ranges.starts(table, form), new)]


def _moving(
    table: Table, form: str, watches: Watches, start: str, rows: Sequence[WatchedRow]
) -> list[Statement]:
    known = watches.ranges.seen(table, form, start)
    new = [row.key for row in rows if row.direction != LEFT]
    statements = watches.told(table, form, known, new)
    left = [row for row in rows if row.direction == LEFT]
    if left:
        older = {row.key for row in left if row.synced_at}
        seen = without(older, {**known.seen}) | {r.key: r.seen for r in left if r.seen}
        unfinished = without(older, {**known.unfinished})
        unfinished |= {row.key: row.unfinished for row in left if row.unfinished}
        both = SeenRange(seen, unfinished)
        statements.append(watches.ranges.kept(table, form, TO_DATABASE, start, both))
    return statements


def _by_range(
    table: Table, starts: Sequence[str], rows: Sequence[WatchedRow]
) -> Iterator[tuple[str, list[WatchedRow]]]:
    """The rows of each range that has some, and the key behind which it begins."""
    order = table.key.type.order
    behind = [start for start in starts if start]
    bounds = [order(table.key.type.read(start)) for start in behind]
    ranges: dict[str, list[WatchedRow]] = {}
    for row in rows:
        place = bisect_left(bounds, order(row.key))
        ranges.setdefault(["", *behind][place], []).append(row)
    yield from ranges.items()
