"""Watches on one row that have LEFT: what both sides had last of the row goes to the watch on every
row.

The request that ends such a watch leaves that to the next run: only the one who has the lease
changes `watched_ranges`.
"""

from collections.abc import Sequence
from contextlib import suppress

from chalicelib.db import Statement
from chalicelib.sync.runs import MAX_TRIES, Lease, Turned
from chalicelib.sync.seen_ranges import SeenRange, rows_by_range
from chalicelib.sync.step import without
from chalicelib.sync.watches import WatchedRow, Watches
from chalicelib.tables import TO_DATABASE, Table


def bring_along(table: Table, watches: Watches, lease: Lease) -> None:
    """Called before a run looks at rows of the table. Only direction TO_DATABASE needs it: in the
    other one the row counts, whatever both had. Raises Superseded, DatabaseUnavailable; Turned,
    where watches turn all the time."""
    if not watches.left(table):
        return
    for _ in range(MAX_TRIES):
        with suppress(Turned):
            _bring_along(table, watches, lease, lease.turns())
            return
    raise Turned


def _bring_along(table: Table, watches: Watches, lease: Lease, turns: int) -> None:
    """What has left behind `turns` may know other things of its row."""
    left = watches.left(table)
    for form in sorted({row.form for row in left}):
        own = [row for row in left if row.form == form]
        statements: list[Statement] = []
        if watches.of_every_row(table, form) == TO_DATABASE:
            for start, rows in rows_by_range(table, watches.ranges.starts(table, form), own):
                statements.append(_told(table, form, watches, start, rows))
        forgetting = watches.forgetting_left(table, form, [row.key for row in own])
        lease.run(*statements, *forgetting, turns=turns)


def _told(
    table: Table, form: str, watches: Watches, start: str, rows: Sequence[WatchedRow]
) -> Statement:
    known = watches.ranges.seen(table, form, start)
    # Of one that left before it was recorded what both had, the row from before it began.
    own = {row.key: row.row_then or row.seen for row in rows if row.row_then or row.seen}
    older = own.keys() | {row.key for row in rows if row.synced_at}
    seen = without(older, {**known.seen}) | own
    unfinished = without(older, {**known.unfinished})
    unfinished |= {row.key: row.unfinished for row in rows if row.unfinished}
    both = SeenRange(seen, unfinished)
    return watches.ranges.kept(table, form, TO_DATABASE, start, both)
