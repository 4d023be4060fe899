"""Increments of a few products against what the database noted of them.

Every increment adds something, so each value that a counter ever had is one version of it, and a
read shows no less than what was acknowledged before it began. `rows` has the reasoning.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.history.ledger import Count
from tests.history.records import ACKNOWLEDGED, REFUSED, Counted, Intent, Outcome, recorded
from tests.history.rows import ALWAYS, NEVER, Ghost, RowHistory, Version
from tests.history.verdict import Verdict

LOST = "increment lost"
EXTRA = "increment done twice, or though refused"


def check_counts(
    folder: Path, counts: Sequence[Count], products: dict[int, int], crashes: Sequence[int]
) -> Verdict:
    """`folder` has the records, `counts` what was committed, in its order; `products` the counters
    once all was quiet; `crashes` are the times at which the database was killed."""
    verdict = Verdict()
    records = list(recorded(folder))
    intents = {r.operation: r for r in records if isinstance(r, Intent) and r.amounts}
    outcomes = {r.operation: r for r in records if isinstance(r, Outcome)}
    _check_sums(counts, products, verdict)
    versions: defaultdict[int, list[Version]] = defaultdict(list)
    for id in products:
        versions[id].append(Version("0", 0, ALWAYS, ALWAYS))
    writers = _writers(intents, outcomes, counts, verdict)
    for count, (start, told) in zip(counts, writers):
        versions[count.id].append(Version(str(count.value), count.value, start, told))
    ghosts = _ghosts(intents, outcomes, crashes)
    rows = {id: RowHistory(own, ghosts.get(id, ())) for id, own in versions.items()}
    for read in records:
        if isinstance(read, Counted):
            verdict.checked["reads of counters"] += 1
            for id, value in read.rows:
                fault = rows[id].fault_of(str(value), value, read.start, read.end)
                if fault == "stale read":
                    fault += " (cached)" if read.cached else " (uncached)"
                elif rows[id].ghosts(read.start, read.end):
                    continue
                if fault:
                    verdict.violated(fault, f"product {id} with {value} in {read}")
                    verdict.stale_at.append(read.start)
    return verdict


def _check_sums(counts: Sequence[Count], products: dict[int, int], verdict: Verdict) -> None:
    """Each increment began where the one before it ended, and the last one stands."""
    last = dict.fromkeys(products, 0)
    for count in counts:
        if count.value - count.amount != last[count.id]:
            verdict.violated(LOST, f"{count} came to {last[count.id]}")
        last[count.id] = count.value
    if last != products:
        verdict.violated("table differs from its commits", f"{products}, committed {last}")


def _writers(
    intents: dict[str, Intent],
    outcomes: dict[str, Outcome],
    counts: Sequence[Count],
    verdict: Verdict,
) -> Iterator[tuple[int, int]]:
    """When the writer of each version set out, and when it was told that it is committed."""
    acknowledged: dict[tuple[int, int, int], tuple[int, int]] = {}
    open_ones: Counter[tuple[int, int]] = Counter()
    starts: dict[tuple[int, int], int] = {}
    for operation, intent in intents.items():
        outcome = outcomes.get(operation)
        how = outcome.outcome if outcome else "cut off"
        verdict.checked[f"increments {how}"] += 1
        if outcome and how == ACKNOWLEDGED:
            for (id, amount), value in zip(intent.amounts, outcome.ids):
                if (id, value, amount) in acknowledged:
                    verdict.violated(LOST, f"{operation}: product {id} had {value} before")
                acknowledged[id, value, amount] = intent.start, outcome.end
        elif how != REFUSED:
            for id, amount in intent.amounts:
                open_ones[id, amount] += 1
                starts[id, amount] = min(intent.start, starts.get((id, amount), NEVER))
    found = [(count.id, count.value, count.amount) for count in counts]
    for lost in acknowledged.keys() - set(found):
        verdict.violated(LOST, f"product {lost[0]} never had {lost[1]}, by {lost[2]} more")
    for id, value, amount in found:
        if (id, value, amount) in acknowledged:
            yield acknowledged[id, value, amount]
            continue
        open_ones[id, amount] -= 1
        if open_ones[id, amount] < 0:
            verdict.violated(EXTRA, f"product {id}: {amount} more, to {value}")
        yield starts.get((id, amount), ALWAYS), NEVER


def _ghosts(
    intents: dict[str, Intent], outcomes: dict[str, Outcome], crashes: Sequence[int]
) -> dict[int, list[Ghost]]:
    """By id: what was under way when the database crashed, which it may have shown and lost."""
    ghosts: defaultdict[int, list[Ghost]] = defaultdict(list)
    for operation, intent in intents.items():
        outcome = outcomes.get(operation)
        until = max((crash for crash in crashes if crash > intent.start), default=ALWAYS)
        if until != ALWAYS and not (outcome and outcome.outcome == ACKNOWLEDGED):
            for id, _ in intent.amounts:
                ghosts[id].append(Ghost(None, None, intent.start, until))
    return ghosts
