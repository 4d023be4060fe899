"""Does the cache load lazily, and is it written through? The course's graders judge both.

Each check compares two kinds of reads: reads that the cache must answer, and reads that it cannot
answer. Where the service sends `Cache-Status`, the header says which reads were hits, and hits only
must not be clearly slower. Without that header only time can tell. Then nearly every hit must be
faster than nearly every other read: without a cache, either kind is faster by chance.
`Server-Timing` gives the time within the service, where it is sent.
"""

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

from grader.http_client import Answer, Way, Wrong
from grader.row_checks import Check, Grader
from grader.text_table import milliseconds

# By time alone, the hit must be faster in this share of all pairs of a hit and another read. A
# service without a cache reaches it in one of 80 gradings with ten reads of each kind (Mann-Whitney
# test).
FASTER_SHARE = 0.8


@dataclass
class Reads:
    """Cached reads of batches that nobody asked for before, one of each kind in a round.

    `first`: rows that were written without the cache. `second`: the same rows again. `written`:
    rows that were written with the cache.
    """

    first: list[Answer] = field(default_factory=list)
    second: list[Answer] = field(default_factory=list)
    written: list[Answer] = field(default_factory=list)

    def play(self, grader: Grader, way: Way, rounds: int) -> None:
        """Does `rounds` rounds, after one that opens connections and is not counted."""
        for _ in range(rounds + 1):
            for use_cache, kinds in {
                False: (self.first, self.second),
                True: (self.written,),
            }.items():
                rows = grader.write(grader.fresh_heroes(grader.batch), use_cache)
                values = [row[way.by] for row in rows]
                for answers in kinds:
                    answers.append(grader.service.read(way, values, use_cache=True))
                    answers[-1].expect_rows(rows)
        for answers in (self.first, self.second, self.written):
            del answers[0]


def cache_checks(grader: Grader, rounds: int) -> Iterator[Check]:
    for way in grader.ways:
        reads = Reads()
        name = f"lazy loading, {way}: the second read of the same rows is a hit"
        yield name, partial(_check_lazy_loading, grader, way, rounds, reads)
        name = f"write-through, {way}: the read right after a cached write is a hit"
        yield name, partial(_check_write_through, reads)


def _check_lazy_loading(grader: Grader, way: Way, rounds: int, reads: Reads) -> str:
    reads.play(grader, way, rounds)
    return hits_compared(reads.second, reads.first, "the first read")


def _check_write_through(reads: Reads) -> str:
    if not reads.written:
        raise Wrong("see the check before: its rows were not written and read as they should be")
    return hits_compared(reads.written, reads.first, "a read of rows written without the cache")


def hits_compared(hits: Sequence[Answer], others: Sequence[Answer], what: str) -> str:
    """Why `hits` count as hits and `others`, which `what` describes, do not. Raises Wrong."""
    statuses = [answer.cache_status for answer in hits]
    missed = [a.cache_status for a in hits if a.cache_status is not None and not a.is_hit]
    if missed:
        raise Wrong(f"{len(missed)} of {len(hits)} were no hits. Cache-Status: {missed[-1]}")
    untrue = [a.cache_status for a in others if a.is_hit]
    if untrue:
        raise Wrong(
            f"Cache-Status cannot be believed: {len(untrue)} of {len(others)} times it called"
            f" {what} a hit too, which no cache can answer: {untrue[-1]}"
        )
    clock, times, slow = _times(hits, others)
    median, slow_median = statistics.median(times), statistics.median(slow)
    compared = f"{milliseconds(median)} ms, {what} {milliseconds(slow_median)} ({clock})"
    faster = statistics.mean(own < other for own in times for other in slow)
    if faster <= 1 - FASTER_SHARE:
        raise Wrong(f"expected it to be faster than {what}: {compared}")
    if None not in statuses:
        return compared
    if faster < FASTER_SHARE:
        raise Wrong(
            f"not clearly faster than {what}: {compared}. There is no Cache-Status, so that only"
            " time can tell: grade it again while little else runs"
        )
    return f"{compared}; judged by time alone: no Cache-Status"


def _times(
    hits: Sequence[Answer], others: Sequence[Answer]
) -> tuple[str, Sequence[float], Sequence[float]]:
    """What was timed, then the seconds of each."""
    within = [
        [answer.service_seconds for answer in answers if answer.service_seconds is not None]
        for answers in (hits, others)
    ]
    if [len(times) for times in within] == [len(hits), len(others)]:
        return "Server-Timing", within[0], within[1]
    return "whole requests", [a.seconds for a in hits], [a.seconds for a in others]
