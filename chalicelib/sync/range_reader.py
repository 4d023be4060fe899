"""Reads the rows of a table where every row is watched, some thousand at a time.

While a step is reconciled the database reads the rows of the next one. What is remembered of rows
is always read before the rows: if a row is changed in between, it looks like a row that was changed
since, which is right.
"""

import json
from collections.abc import Generator, Iterator, Sequence
from typing import NamedTuple

from chalicelib.clocks import seconds_since
from chalicelib.db import AskedRange
from chalicelib.sync.reconciliation import Reconciliation, SentRows
from chalicelib.sync.runs import RANGE_SECONDS
from chalicelib.sync.seen_ranges import SeenRange, SeenRanges
from chalicelib.sync.step import Rows
from chalicelib.tables import Table

PAGE_ROWS = 5_000
# In `watched_ranges` a key stands up to three times, with 16 characters each time. So do keys of
# rows that are gone. JSON may need three times the bytes of UTF-8.
KEPT_TIMES = 5
PRINT_BYTES = 20
# Rows that were read so long ago are read again: most of the time in which public keys may be set
# is to be left.
MAX_AHEAD_SECONDS = RANGE_SECONDS / 3


class Place(NamedTuple):
    """Behind the key `start` a range begins, or the rest of one. `last`: the last key of the range;
    None where that is the end of the table. `kept`: what is remembered of its rows."""

    start: str
    last: str | None
    kept: SeenRange


class Page(NamedTuple):
    """The first rows behind `place`, and what is remembered of them. `rest`: what is left of the
    range. `following`: the key behind which the next page begins; None behind the last one."""

    place: Place
    rows: Rows
    kept: SeenRange
    rest: Place | None
    following: str | None


class RangeReader:
    """For one table and one form of public keys, within one run."""

    def __init__(
        self, table: Table, form: str, reconciliation: Reconciliation, ranges: SeenRanges
    ) -> None:
        self._table = table
        self._form = form
        self._reconciliation = reconciliation
        self._ranges = ranges
        self._page_rows = PAGE_ROWS

    def pages(
        self, starts: Sequence[str], end: str | None, max_rows: int | None = None
    ) -> Generator[Page, None, None]:
        """The rows of the ranges that begin behind the keys `starts`, in order; `end`: the last key
        of the last one. Stops once there were `max_rows`. The caller closes it."""
        left = iter(zip(starts, [*starts[1:], end]))
        looked = 0
        place = self._begin(left)
        sent = self._send(place) if place else None
        try:
            while place and sent:
                rows, is_more = self._receive(place, sent)
                sent = None
                looked += len(rows.keys)
                kept, rest = self._parted(place, rows, is_more=is_more)
                following = rest or self._begin(left)
                if following and (max_rows is None or looked < max_rows):
                    sent = self._send(following)
                yield Page(place, rows, kept, rest, following and following.start)
                place = following
        finally:
            if sent:
                sent.close()

    def _begin(self, left: Iterator[tuple[str, str | None]]) -> Place | None:
        for start, last in left:
            return Place(start, last, self._ranges.seen(self._table, self._form, start))
        return None

    def _parted(self, place: Place, rows: Rows, *, is_more: bool) -> tuple[SeenRange, Place | None]:
        last = rows.keys[-1] if is_more else None
        if last is None or str(last) == place.last:
            # What is kept behind this key belongs to the next range.
            return place.kept, None
        kept, behind = place.kept.parted(self._table, last)
        return kept, Place(str(last), place.last, behind)

    def _send(self, place: Place) -> SentRows:
        read = self._table.key.type.read
        after = read(place.start) if place.start else None
        last = None if place.last is None else read(place.last)
        return self._reconciliation.send(AskedRange(self._table, after, last, self._page_rows))

    def _receive(self, place: Place, sent: SentRows) -> tuple[Rows, bool]:
        """The rows, and whether there may be more; fewer rows where what is kept of so many is too
        long for one row of `watched_ranges`. So are all pages after that."""
        if seconds_since(sent.sent_at) > MAX_AHEAD_SECONDS:
            sent.close()
            sent = self._send(place)
        limit = self._ranges.max_bytes // KEPT_TIMES
        longest = PRINT_BYTES + 3 * self._table.key.type.max_bytes
        while True:
            rows, is_more = self._reconciliation.receive(sent)
            count = len(rows.keys)
            if count < 2 or count * longest <= limit:
                return rows, is_more
            kept_bytes = len(json.dumps(rows.keys)) + count * PRINT_BYTES
            if kept_bytes <= limit:
                return rows, is_more
            self._page_rows = max(1, count * limit * 9 // (kept_bytes * 10))
            sent = self._send(place)
