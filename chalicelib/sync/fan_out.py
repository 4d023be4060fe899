"""A run hands a watch with too many rows out, in ranges of rows: an object in a bucket for each.

S3 calls the function `sync_range` for each object, once or more. The object key names the range;
the work to do stands in the database.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import unquote_plus

from chalicelib.column_types import STRING_KEY
from chalicelib.db import Database
from chalicelib.sync.idle_check import Note
from chalicelib.sync.range_claims import (
    DONE,
    NOTHING,
    WAITING,
    RangeProgress,
    RangeRows,
    forget_before,
    insert,
)
from chalicelib.sync.runs import Lease, Record
from chalicelib.sync.watches import WatchedRow, Watches
from chalicelib.tables import Key, Table

# A run looks at so many rows of a watch itself. Of more it looks at none.
MAX_ROWS_IN_RUN = 20_000
# So that a function needs seconds, and is far from its time limit over the Data API, too.
MAX_ROWS_IN_RANGE = 50_000

_KEY = re.compile(r"([0-9]{1,20})/([0-9]{1,9})\.json")

# Writes an object: its object key and its content. Raises BucketUnavailable.
Put = Callable[[str, bytes], None]


def ranges_in(event: Mapping[str, Any]) -> Iterator[tuple[str, int, int]]:
    """The bucket, the run and the number of each range in an event of S3."""
    for record in event.get("Records", ()):
        key = unquote_plus(record["s3"]["object"]["key"])
        if found := _KEY.fullmatch(key):
            yield record["s3"]["bucket"]["name"], int(found[1]), int(found[2])


class FanOut:
    """For one run. `server`: the Redis that it began with."""

    def __init__(
        self, database: Database, watches: Watches, lease: Lease, server: str, put: Put
    ) -> None:
        self._database = database
        self._watches = watches
        self._lease = lease
        self._server = server
        self._put = put
        self._work: list[RangeRows] = []

    def has(self, table: Table) -> bool:
        return any(work.table == table.name for work in self._work)

    def forget(self, table: Table) -> None:
        """Hand out nothing of this table: the next run looks at all of it."""
        self._work = [work for work in self._work if work.table != table.name]

    def add_rows(self, table: Table, watched: Sequence[WatchedRow]) -> None:
        """Rows that are watched one by one, with one form and direction."""
        form, direction = watched[0].form, watched[0].direction
        texts = sorted((str(row.key) for row in watched), key=STRING_KEY.order)
        after = ""
        for start in range(0, len(texts), MAX_ROWS_IN_RANGE):
            last = texts[start : start + MAX_ROWS_IN_RANGE][-1]
            work = RangeRows(table.name, form, direction, after, last, is_every=False)
            self._work.append(work)
            after = last

    def add_every_row(self, table: Table, form: str, direction: str) -> None:
        bounds = self._bounds(table, form, direction)
        for after, last in zip(bounds, [*bounds[1:], None]):
            work = RangeRows(table.name, form, direction, after, last, is_every=True)
            self._work.append(work)

    def hand_over(
        self, record: Record, notes: Sequence[tuple[Table, Note]], *, is_failed: bool
    ) -> int:
        """Record the ranges, and write an object for each. Returns how many there are. `is_failed`:
        whether the run failed at a table. Raises Superseded, BucketUnavailable,
        DatabaseUnavailable."""
        names = {table.name: note.names for table, note in notes}
        run = self._lease.token
        did = RangeProgress.of(record, names, self._server, is_failed=is_failed)
        self._lease.hand_over(
            forget_before(run),
            insert(run, 0, NOTHING, DONE, did),
            *(
                insert(run, n, work, WAITING, RangeProgress())
                for n, work in enumerate(self._work, 1)
            ),
        )
        for number, work in enumerate(self._work, 1):
            text = json.dumps({"run": run, "range": number, "table": work.table})
            self._put(f"{run}/{number}.json", text.encode())
        return len(self._work)

    def _bounds(self, table: Table, form: str, direction: str) -> list[str]:
        """The keys behind which the ranges begin. A range of digests that the last run has kept
        stays whole, unless it has become too large."""
        read, order = table.key.type.read, table.key.type.order
        starts = self._watches.ranges.starts_between(table, form, "", None)[1:]
        bounds = [""]
        while True:
            after = read(bounds[-1]) if bounds[-1] else None
            bound = self._database.key_behind(table, after, MAX_ROWS_IN_RANGE)
            if bound is None:
                return bounds
            within = [text for text in starts if order(read(text)) <= order(bound)]  # type: ignore[operator]
            starts = starts[len(within) :]
            if within:
                bounds.append(within[-1])
            else:
                self._split(table, form, direction, bounds[-1], bound)
                bounds.append(str(bound))
            self._lease.renew()

    def _split(self, table: Table, form: str, direction: str, start: str, bound: Key) -> None:
        """Split a range of digests in two."""
        before = self._watches.ranges.seen(table, form, start)
        left, right = before.parted(table, bound)
        if any(right):
            self._lease.run(
                self._watches.ranges.kept(table, form, direction, start, left),
                self._watches.ranges.kept(table, form, direction, str(bound), right),
            )
