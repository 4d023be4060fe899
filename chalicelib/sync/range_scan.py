"""Scans the watched rows of a table, some thousand at a time.

Each of these steps records what both sides have then. So the work of a run that is killed is not
lost. What it was about to do in a step is recorded too: see `UnfinishedStep`.
"""

import json
from collections.abc import Callable, Collection, Mapping, Sequence

from chalicelib.db import Statement
from chalicelib.sync.idle_check import Note
from chalicelib.sync.reconciliation import Reconciliation
from chalicelib.sync.runs import Lease
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

# Returns those of the keys that are watched one by one.
Others = Callable[[Sequence[Key]], Collection[Key]]
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
        progress: Progress = lambda after: (),
    ) -> None:
        self._table = table
        self._form = form
        self._reconciliation = reconciliation
        self._watches = watches
        self._lease = lease
        self._note = note
        self._progress = progress
        self._range_rows = RANGE_ROWS

    def rows(self, watched: Sequence[WatchedRow]) -> None:
        """Reconcile rows that are watched one by one, in one direction. Where progress is recorded
        they come in the order of the texts of their keys."""
        direction = watched[0].direction
        keys = [row.key for row in watched]
        seen = {row.key: row.seen for row in watched}
        earlier = {row.key: row.unfinished for row in watched if row.unfinished}
        unfinished = UnfinishedStep(
            earlier,
            # Of the others a `watch` may have recorded something else meanwhile.
            lambda prints: self._watches.begun(
                self._table,
                self._form,
                {key: own for key, own in prints.items() if own != earlier.get(key)},
            ),
            lambda digests, prints: self._watches.kept(self._table, self._form, direction, digests),
        )
        rows = self._reconciliation.read(self._table, keys)
        step = Step(self._table, self._form, direction, keys, rows, seen, unfinished)
        self._reconcile(step)
        kept = self._watches.kept(self._table, self._form, direction, step.now.seen)
        self._lease.run(*kept, *self._progress(str(keys[-1])))

    def deleted(self, direction: str, keys: Sequence[Key]) -> None:
        """Reconcile those of the rows with `keys` that are not there any more: perhaps no run has
        seen them."""
        rows = self._reconciliation.read(self._table, keys)
        gone = [key for key in keys if key not in rows.texts and key not in rows.odd]
        if gone:
            nothing = UnfinishedStep({}, lambda prints: (), lambda digests, prints: ())
            self._reconcile(Step(self._table, self._form, direction, gone, rows, {}, nothing))

    def every_row(
        self, direction: str, starts: Sequence[str], end: str | None, others: Others
    ) -> None:
        """Reconcile every row but the `others`, range by range. `starts`: the keys behind which
        ranges begin; `end`: the last key of the last one. A range that has become too large is
        split."""
        read = self._table.key.type.read
        for start, following in zip(starts, [*starts[1:], end]):
            last = None if following is None else read(following)
            after: Key | None = read(start) if start else None
            left = self._watches.ranges.seen(self._table, self._form, start)
            before = left.seen
            is_more = True
            while is_more:
                rows, is_more = self._read_range(after, last)
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
                others_here = others(keys)
                asked = [key for key in keys if key not in others_here] if others_here else keys
                prints = {**part.unfinished, **left.unfinished}
                unfinished = self._unfinished(direction, start, SeenRange(before, prints))
                step = Step(
                    self._table,
                    self._form,
                    direction,
                    asked,
                    rows,
                    part.seen,
                    unfinished,
                    of_every=True,
                )
                self._reconcile(step)
                seen = step.now.seen
                # What its own watch is told of a row comes from here.
                seen |= _of(step.now.left, part.seen)
                if "" in seen.values():
                    seen = {key: digest for key, digest in seen.items() if digest}
                kept = []
                if seen != {**before, **unfinished.kept} or unfinished.is_recorded or is_more:
                    begun = _of(step.now.left, part.unfinished)
                    kept.append(self._kept(direction, start, SeenRange(seen, begun)))
                if is_more:
                    kept.append(self._kept(direction, str(after), left))
                progress = self._progress(str(after) if is_more else following or start)
                if kept or progress or self._lease.is_due:
                    self._lease.run(*kept, *progress)
                if is_more:
                    start, before = str(after), left.seen

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
    return {key: texts[key] for key in keys if key in texts}
