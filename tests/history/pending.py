"""Increments of write-behind counters against what reads showed of them.

All add something, and nothing else changes these counters. So a read shows at least the sum of the
increments that were acknowledged before it began, and at most the sum of those that were sent
before it ended and were not refused. Where Redis lost data, increments may be lost too: then only
the second holds, because no increment may ever count twice.
"""

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping
from itertools import accumulate
from pathlib import Path

from tests.history.records import ACKNOWLEDGED, REFUSED, Adding, Outcome, Ran, Shown, recorded
from tests.history.verdict import Verdict

LOST = "pending increment lost"
EXTRA = "pending increment done twice, or though refused"


class _Sums:
    """The sum of amounts up to a time."""

    def __init__(self, amounts: Iterable[tuple[int, int]]) -> None:
        """`amounts`: (time, amount)."""
        ordered = sorted(amounts)
        self._times = [at for at, _ in ordered]
        self._sums = [0, *accumulate(amount for _, amount in ordered)]

    def before(self, time: int) -> int:
        return self._sums[bisect_left(self._times, time)]

    def until(self, time: int) -> int:
        return self._sums[bisect_right(self._times, time)]


def check_pending(folder: Path, pages: Mapping[int, int], *, may_lose: bool) -> Verdict:
    """`folder` has the records; `pages` the counters in the database once a run was done after
    all was quiet. `may_lose`: Redis lost data."""
    verdict = Verdict()
    records = list(recorded(folder))
    outcomes = {record.operation: record for record in records if isinstance(record, Outcome)}
    told: defaultdict[int, list[tuple[int, int]]] = defaultdict(list)
    sent: defaultdict[int, list[tuple[int, int]]] = defaultdict(list)
    for record in records:
        if isinstance(record, Adding):
            outcome = outcomes.get(record.operation)
            how = outcome.outcome if outcome else "cut off"
            verdict.checked[f"increments of write-behind counters {how}"] += 1
            for nr, amount in record.amounts:
                if outcome and how == ACKNOWLEDGED:
                    told[nr].append((outcome.end, amount))
                if how != REFUSED:
                    sent[nr].append((record.start, amount))
    lowest = {nr: _Sums(() if may_lose else told[nr]) for nr in pages}
    highest = {nr: _Sums(sent[nr]) for nr in pages}
    last = 2**63
    once_quiet = Shown("once quiet", last, last, list(pages.items()))
    for shown in (*records, once_quiet):
        if isinstance(shown, Ran):
            verdict.checked[f"runs {shown.outcome}"] += 1
        if isinstance(shown, Shown):
            verdict.checked[f"write-behind counters {shown.how}"] += 1
            for nr, value in shown.rows:
                least, most = lowest[nr].before(shown.start), highest[nr].until(shown.end)
                if not least <= value <= most:
                    what = f"page {nr} with {value}, not {least} to {most}: {shown}"
                    verdict.violated(LOST if value < least else EXTRA, what)
                    verdict.stale_at.append(shown.start)
    return verdict
