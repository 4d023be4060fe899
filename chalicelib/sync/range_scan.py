"""Scans the watched rows of a table, some thousand at a time.

Each of these steps records what both sides have then. So the work of a run that is killed is not
lost. What it was about to do in a step is recorded too: see `UnfinishedStep`.
"""

from collections.abc import Callable, Collection, Sequence
from contextlib import closing

from chalicelib.db import Statement
from chalicelib.sync.idle_check import Note
from chalicelib.sync.range_reader import Page, RangeReader
from chalicelib.sync.reconciliation import Reconciliation
from chalicelib.sync.runs import Lease
from chalicelib.sync.seen_ranges import SeenRange
from chalicelib.sync.step import Step
from chalicelib.sync.unfinished_step import UnfinishedStep
from chalicelib.sync.watches import WatchedRow, Watches
from chalicelib.tables import Key, Table

# The rows of a step where rows are watched one by one.
BATCH_ROWS = 1_000

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

    def rows(self, watched: Sequence[WatchedRow]) -> None:
        """Reconcile rows that are watched one by one, in one direction. Where progress is recorded
        they come in the order of the texts of their keys."""
        direction = watched[0].direction
        keys = [row.key for row in watched]
        seen = {row.key: row.seen for row in watched}
        unfinished = UnfinishedStep(
            {row.key: row.unfinished for row in watched if row.unfinished},
            lambda prints: self._watches.begun(self._table, self._form, prints),
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
        self,
        direction: str,
        starts: Sequence[str],
        end: str | None,
        others: Others,
        max_rows: int | None = None,
    ) -> str | None:
        """Reconcile every row but the `others`, range by range. `starts`: the keys behind which
        ranges begin; `end`: the last key of the last one. A range that has become too large is
        split. Stops after `max_rows`, and returns the key behind which the rest begins; None where
        nothing is left."""
        reader = RangeReader(self._table, self._form, self._reconciliation, self._watches.ranges)
        following = None
        with closing(reader.pages(starts, end, max_rows)) as pages:
            for page in pages:
                self._page(direction, page, others)
                following = page.following
        return following

    def _page(self, direction: str, page: Page, others: Others) -> None:
        start, last, before = page.place
        keys = [*page.rows.keys]
        known = {**page.kept.seen, **page.kept.unfinished}
        if known and [*known] != keys:  # some rows are gone
            here = {*keys}
            keys += [key for key in known if key not in here]
        others_here = others(keys)
        asked = [key for key in keys if key not in others_here] if others_here else keys
        unfinished = self._unfinished(direction, start, before)
        step = Step(
            self._table, self._form, direction, asked, page.rows, page.kept.seen, unfinished
        )
        self._reconcile(step)
        seen = step.now.seen
        if "" in seen.values():
            seen = {key: digest for key, digest in seen.items() if digest}
        rest = page.rest
        kept = []
        if seen != {**before.seen, **unfinished.kept} or unfinished.is_recorded or rest:
            kept.append(self._kept(direction, start, SeenRange(seen, {})))
        if rest:
            kept.append(self._kept(direction, rest.start, rest.kept))
        progress = self._progress(rest.start if rest else last or start)
        if kept or progress or self._lease.is_due:
            self._lease.run(*kept, *progress)

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
