"""Scans the watched rows of a table, some thousand at a time.

Each of these steps records what both sides have then. So the work of a run that is killed is not
lost. What it was about to do in a step is recorded too: see `UnfinishedStep`.
"""

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import TypeVar

from chalicelib.db import Statement
from chalicelib.sync.idle_check import Note
from chalicelib.sync.reconciliation import Reconciliation
from chalicelib.sync.runs import MAX_TRIES, Lease, Turned
from chalicelib.sync.seen_ranges import SeenRange
from chalicelib.sync.step import Rows, Step
from chalicelib.sync.unfinished_step import UnfinishedStep
from chalicelib.sync.watches import WatchedRow, Watches
from chalicelib.tables import Key, Table

# The rows of a step: the first where rows are watched one by one, the second where every row is.
BATCH_ROWS = 1_000
RANGE_ROWS = 5_000
# In `watched_ranges` a key stands up to three times, with 16 characters each time. So do keys of
# rows that are gone. JSON may need three times the bytes of UTF-8.
KEPT_TIMES = 5
PRINT_BYTES = 20

Result = TypeVar("Result")

# Returns statements to run, too, once everything up to this key is done.
Progress = Callable[[str], Sequence[Statement]]


class Scan:
    """For one table and one form of public keys, within one run."""

    def __init__(
        self,
        table: Table,
        form: str,
        reconciliation: Reconciliation,
        watches: Watches,
        lease: Lease,
        note: Note,
        turns: int,
        progress: Progress = lambda after: (),
    ) -> None:
        """`turns`: as `Lease` has them, before the caller listed watches."""
        self._table = table
        self._form = form
        self._reconciliation = reconciliation
        self._watches = watches
        self._lease = lease
        self._note = note
        self._turns = turns
        self._has_turned = False
        # The direction in which every row is watched, and which rows are watched alone: None where
        # these are too many to list.
        self._every: tuple[str, Collection[Key] | None] | None = None
        # What is kept of the rows behind this key, where that is known.
        self._left: tuple[str, SeenRange] | None = None
        self._progress = progress
        self._range_rows = RANGE_ROWS

    def rows(self, watched: Sequence[WatchedRow]) -> None:
        """Reconcile rows that are watched one by one, in one direction. Where progress is recorded
        they come in the order of the texts of their keys."""
        direction, keys = watched[0].direction, [row.key for row in watched]

        def do() -> None:
            rows = self._again(direction, keys) if self._has_turned else watched
            kept = self._rows(direction, rows) if rows else []
            self._lease.run(*kept, *self._progress(str(keys[-1])), turns=self._turns)

        self._until_no_watch_turns(do)

    def _again(self, direction: str, keys: Sequence[Key]) -> list[WatchedRow]:
        return self._watches.again(self._table, self._form, direction, keys)

    def _rows(self, direction: str, watched: Sequence[WatchedRow]) -> Sequence[Statement]:
        keys = [row.key for row in watched]
        unfinished = UnfinishedStep(
            {row.key: row.unfinished for row in watched if row.unfinished},
            lambda prints: self._watches.begun(self._table, self._form, prints),
            lambda digests, prints: self._watches.kept(self._table, self._form, direction, digests),
        )
        seen = {row.key: row.seen for row in watched}
        step = self._step(direction, keys, self._read(keys), seen, unfinished)
        self._reconcile(step)
        return self._watches.kept(self._table, self._form, direction, step.now.seen)

    def deleted(self, direction: str, keys: Sequence[Key]) -> None:
        """Reconcile those of the rows with `keys` that are not there any more, where every row is
        watched: perhaps no run has seen them."""

        def do() -> None:
            if not self._is_every(direction):
                return
            rows, others = self._read(keys), self._others(keys)
            here = {*rows.texts, *rows.odd}
            gone = [key for key in keys if key not in here and key not in others]
            if gone:
                nothing = UnfinishedStep({}, lambda prints: (), lambda digests, prints: ())
                self._reconcile(self._step(direction, gone, rows, {}, nothing))

        self._until_no_watch_turns(do)

    def every_row(self, direction: str, starts: Sequence[str], end: str | None) -> None:
        """Reconcile every row but those that are watched alone, range by range. `starts`: the keys
        behind which ranges begin; `end`: the last key of the last one. A range that has become too
        large is split."""
        for start, following in zip(starts, [*starts[1:], end]):
            at: str | None = start
            while at is not None:
                do = partial(self._begin_of_range, direction, at, following)
                at = self._until_no_watch_turns(do)

    def _begin_of_range(self, direction: str, start: str, end: str | None) -> str | None:
        """Reconcile the first rows behind the key `start`. The key up to which that is done; None
        where the range is."""
        if not self._is_every(direction):
            return None
        read = self._table.key.type.read
        last = None if end is None else read(end)
        place, left = self._left or (None, SeenRange({}, {}))
        self._left = None
        if place != start:
            left = self._watches.ranges.seen(self._table, self._form, start)
        before = left.seen
        rows, is_more = self._read_range(read(start) if start else None, last)
        keys = [*rows.keys]
        if keys and keys[-1] == last:
            # What is kept behind this key belongs to the next range.
            is_more = False
        after = keys[-1] if is_more else None
        part, left = left.parted(self._table, after)
        known = {**part.seen, **part.unfinished}
        if known and [*known] != keys:  # some rows are gone
            here = {*keys}
            keys += [key for key in known if key not in here]
        others = self._others(keys)
        asked = [key for key in keys if key not in others] if others else keys
        prints = {**part.unfinished, **left.unfinished}
        unfinished = self._unfinished(direction, start, SeenRange(before, prints))
        step = self._step(direction, asked, rows, part.seen, unfinished)
        self._reconcile(step)
        # What a watch of its own is told of a row comes from here.
        seen = step.now.seen | _of(others, part.seen)
        if "" in seen.values():
            seen = {key: digest for key, digest in seen.items() if digest}
        kept = []
        if seen != {**before, **unfinished.kept} or unfinished.is_recorded or is_more:
            begun = _of(others, part.unfinished)
            kept.append(self._kept(direction, start, SeenRange(seen, begun)))
        if is_more:
            kept.append(self._kept(direction, str(after), left))
        progress = self._progress(str(after) if is_more else end or start)
        if kept or progress or self._lease.is_due:
            self._lease.run(*kept, *progress, turns=self._turns)
        if not is_more:
            return None
        self._left = str(after), left
        return str(after)

    def _until_no_watch_turns(self, do: Callable[[], Result]) -> Result:
        """A step within which a watch turns is done anew, as behind a killed run."""
        for _ in range(MAX_TRIES):
            try:
                return do()
            except Turned:
                self._turns = self._lease.turns()
                self._has_turned, self._every = True, None
        raise Turned

    def _is_every(self, direction: str) -> bool:
        """Whether every row is watched, in this direction."""
        return self._listed()[0] == direction

    def _others(self, keys: Sequence[Key]) -> Collection[Key]:
        """Rows that are watched alone: all of them, or those of `keys`."""
        _, alone = self._listed()
        return self._watches.among(self._table, self._form, keys) if alone is None else alone

    def _listed(self) -> tuple[str, Collection[Key] | None]:
        if not self._every:
            self._every = (
                self._watches.of_every_row(self._table, self._form),
                self._watches.alone(self._table, self._form),
            )
        return self._every

    def _read(self, keys: Sequence[Key]) -> Rows:
        return self._reconciliation.read(self._table, keys)

    def _step(
        self,
        direction: str,
        keys: Sequence[Key],
        rows: Rows,
        seen: Mapping[Key, str],
        unfinished: UnfinishedStep,
    ) -> Step:
        return Step(self._table, self._form, direction, keys, rows, seen, unfinished, self._turns)

    def _read_range(self, after: Key | None, last: Key | None) -> tuple[Rows, bool]:
        """As `Reconciliation.read_range`; fewer rows where what is kept of so many is too long for
        one row of `watched_ranges`. So are all ranges after that."""
        limit = self._watches.ranges.max_bytes // KEPT_TIMES
        longest = PRINT_BYTES + 3 * self._table.key.type.max_bytes
        while True:
            rows, is_more = self._reconciliation.read_range(
                self._table, after, last, self._range_rows
            )
            count = len(rows.keys)
            if count < 2 or count * longest <= limit:
                return rows, is_more
            kept_bytes = len(json.dumps(rows.keys)) + count * PRINT_BYTES
            if kept_bytes <= limit:
                return rows, is_more
            self._range_rows = max(1, count * limit * 9 // (kept_bytes * 10))

    def _reconcile(self, step: Step) -> None:
        self._reconciliation.reconcile(step)
        self._note.add(self._form, step.now.found, step.now.is_known)

    def _unfinished(self, direction: str, start: str, before: SeenRange) -> UnfinishedStep:
        return UnfinishedStep(
            before.unfinished,
            lambda prints: self._watches.ranges.begun(
                self._table, self._form, direction, start, prints
            ),
            lambda digests, prints: [
                self._kept(direction, start, SeenRange({**before.seen, **digests}, prints))
            ],
        )

    def _kept(self, direction: str, start: str, kept: SeenRange) -> Statement:
        return self._watches.ranges.kept(self._table, self._form, direction, start, kept)


def _of(keys: Collection[Key], texts: Mapping[Key, str]) -> dict[Key, str]:
    return {key: text for key, text in texts.items() if key in keys} if keys else {}
