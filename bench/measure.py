"""The interleaved run: every contender's call in every round, so that noise falls on all alike.

A round times one call of each contender, in an order that moves on by one each round, on the same
batch of ids. Before each call, outside the timing, its request is made, the cache is emptied where
the flow says so, and garbage is collected; the collector stays on during the call, as in
production. The first calls, which fill caches and open connections, are not counted.

What is sent without waiting for an answer is not counted either, where the server still works on
it when the call returns: ours fills the cache so after a miss. No other call is timed meanwhile:
the FLUSHDB before each miss is answered after it, and a warm-up reads each batch twice.
"""

import contextlib
import gc
import itertools
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from bench.contenders import Contender
from bench.flows import Flow, Row

Samples = dict[str, list[float]]
"""Seconds of each counted call, by the contender's name."""

BATCHES = 4


@dataclass(frozen=True)
class Seeded:
    """The heroes in the table: `rows` by id, which only reads ask for, and ids to replace."""

    rows: Mapping[int, Row]
    replaceable: Sequence[int]

    def batch(self, flow: Flow, n: int) -> list[int]:
        ids = self.replaceable if flow.verb == "replace" else list(self.rows)
        return random.sample(ids, n)


@dataclass(frozen=True)
class Limits:
    """When a flow has been timed enough: whichever comes first, but never before `min_rounds`."""

    seconds: float
    max_rounds: int
    max_written_rows: int
    min_rounds: int

    def rounds(self, flow: Flow, n: int) -> Iterator[int]:
        most = self.max_rounds
        if flow.verb != "read":
            most = min(most, self.max_written_rows // n)
        started = time.perf_counter()
        for i in itertools.count():
            late = i >= most or time.perf_counter() - started > self.seconds
            if late and i >= self.min_rounds:
                return
            yield i


def measure(
    flow: Flow, n: int, contenders: Sequence[Contender], seeded: Seeded, limits: Limits
) -> Samples:
    """Times `flow` with batches of `n`."""
    contenders = [contender for contender in contenders if flow in contender.flows]
    batches = [seeded.batch(flow, n) for _ in range(BATCHES)]
    for contender in contenders:
        warm_up(flow, contender, batches, seeded)
    samples: Samples = {contender.name: [] for contender in contenders}
    with quick_collections():
        started = time.perf_counter()
        for i in limits.rounds(flow, n):
            start = i % len(contenders)
            for contender in (*contenders[start:], *contenders[:start]):
                if not _sits_out(contender, samples[contender.name], time.perf_counter() - started):
                    samples[contender.name].append(timed(flow, contender, batches[i % BATCHES]))
    return samples


@contextlib.contextmanager
def quick_collections() -> Iterator[None]:
    """What is there before is no garbage: a collection before each call looks at the rest alone."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def timed(flow: Flow, contender: Contender, batch: Sequence[int]) -> float:
    """Seconds of one call."""
    call = contender.prepare(flow, batch)
    gc.collect()
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def warm_up(
    flow: Flow, contender: Contender, batches: Sequence[Sequence[int]], seeded: Seeded
) -> None:
    """Runs the flow on every batch that has to be cached before it is timed, else on one; twice,
    so that what the first time sent without waiting is done. Checks the answers."""
    is_hit = flow.verb == "read" and flow.use_cache and not flow.is_cold
    for batch in batches if is_hit else batches[:1]:
        for _ in range(1 if contender.waits else 2):
            answer = contender.prepare(flow, batch)()
            if flow.verb == "read":
                _check(contender, contender.rows(answer), [seeded.rows[i] for i in batch])
            else:
                contender.check_write(flow, answer, len(batch))


def _sits_out(contender: Contender, own: list[float], elapsed: float) -> bool:
    """A slow baseline takes at most a fifth of the run, once it has been timed three times."""
    return contender.waits and len(own) >= 3 and sum(own) > elapsed / 5


def _check(contender: Contender, rows: list[Row], expected: list[Row]) -> None:
    if contender.keeps_order and rows == expected:
        return
    if contender.keeps_order or sorted(rows, key=_id) != sorted(expected, key=_id):
        raise RuntimeError(f"{contender.name} gave a wrong answer: it is not worth timing")


def _id(row: Row) -> int:
    return int(row["id"])
