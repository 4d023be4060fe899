"""Times the candidates by turns: one call of each in every round, so that noise falls on all alike.

A round has one batch of ids. The order of the candidates moves on by one each round. Three things
happen before each call, outside the timing: the request is made, the cache is emptied where the
workload says so, and garbage is collected. The collector stays on during the call, as in
production. The first calls fill caches and open connections; they are not counted.

Ours fills the cache after a miss without waiting for an answer, so the server may still work when
the call returns. That work is not counted, and does not disturb another call: the FLUSHDB before
each miss waits for it, and a warm-up reads each batch twice.
"""

import contextlib
import gc
import itertools
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from bench.candidates.candidate import Candidate
from bench.workloads import Row, Workload

# Seconds of each counted call, by the candidate's name.
Samples = dict[str, list[float]]
# Samples by workload and batch size.
Results = dict[tuple[Workload, int], Samples]

BATCHES = 4


@dataclass(frozen=True)
class Seeded:
    """The heroes in the table: `rows`, by id, are only read; `replaceable` are ids to replace."""

    rows: Mapping[int, Row]
    replaceable: Sequence[int]

    def batch(self, workload: Workload, n: int) -> list[int]:
        ids = self.replaceable if workload.verb == "replace" else list(self.rows)
        return random.sample(ids, n)


@dataclass(frozen=True)
class Limits:
    """When to stop timing a workload: at the first limit reached, but not before `min_rounds`."""

    seconds: float
    max_rounds: int
    max_written_rows: int
    min_rounds: int

    def rounds(self, workload: Workload, n: int) -> Iterator[int]:
        most = self.max_rounds
        if workload.verb != "read":
            most = min(most, self.max_written_rows // n)
        started = time.perf_counter()
        for i in itertools.count():
            late = i >= most or time.perf_counter() - started > self.seconds
            if late and i >= self.min_rounds:
                return
            yield i


def measure(
    workload: Workload,
    n: int,
    candidates: Sequence[Candidate],
    seeded: Seeded,
    limits: Limits,
) -> Samples:
    """Times `workload` with batches of `n`."""
    candidates = [candidate for candidate in candidates if workload in candidate.workloads]
    batches = [seeded.batch(workload, n) for _ in range(BATCHES)]
    for candidate in candidates:
        warm_up(workload, candidate, batches, seeded)
    samples: Samples = {candidate.name: [] for candidate in candidates}
    with quick_collections():
        started = time.perf_counter()
        for i in limits.rounds(workload, n):
            start = i % len(candidates)
            for candidate in (*candidates[start:], *candidates[:start]):
                if not _sits_out(candidate, samples[candidate.name], time.perf_counter() - started):
                    samples[candidate.name].append(timed(workload, candidate, batches[i % BATCHES]))
    return samples


@contextlib.contextmanager
def quick_collections() -> Iterator[None]:
    """Makes `gc.collect` fast: it passes over all objects that exist already."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def timed(workload: Workload, candidate: Candidate, batch: Sequence[int]) -> float:
    """Seconds of one call."""
    call = candidate.prepare(workload, batch)
    gc.collect()
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def warm_up(
    workload: Workload,
    candidate: Candidate,
    batches: Sequence[Sequence[int]],
    seeded: Seeded,
) -> None:
    """Runs the workload on every batch that must be cached before the timing, else on one batch,
    and checks the answers. Runs it twice, so that work of the first time is done which nobody waits
    for."""
    is_hit = workload.verb == "read" and workload.use_cache and not workload.is_cold
    for batch in batches if is_hit else batches[:1]:
        for _ in range(1 if candidate.waits else 2):
            answer = candidate.prepare(workload, batch)()
            if workload.verb == "read":
                _check(candidate, candidate.rows(answer), [seeded.rows[i] for i in batch])
            else:
                candidate.check_write(workload, answer, len(batch))


def _sits_out(candidate: Candidate, own: list[float], elapsed: float) -> bool:
    """Whether to skip a slow candidate: after three calls it gets at most a fifth of the time."""
    return candidate.waits and len(own) >= 3 and sum(own) > elapsed / 5


def _check(candidate: Candidate, rows: list[Row], expected: list[Row]) -> None:
    if candidate.keeps_order and rows == expected:
        return
    if candidate.keeps_order or sorted(rows, key=_id) != sorted(expected, key=_id):
        raise RuntimeError(f"{candidate.name} gave a wrong answer: it is not worth timing")


def _id(row: Row) -> int:
    return int(row["id"])
