"""The interleaved run: every contender's call in every round, so that noise falls on all alike.

A round times one call of each contender, in an order that moves on by one each round, on the same
batch of ids. Before each call, outside the timing, its request is made, the cache is emptied where
the flow says so, and garbage is collected; the collector stays on during the call, as in
production. The first calls, which fill caches and open connections, are not counted.
"""

import gc
import itertools
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from bench.contenders import Call, Contender, Hero

Samples = dict[str, list[float]]
"""Seconds of each counted call, by the contender's name."""

BATCHES = 4
WORDS = ("Comet", "Onyx", "Zéphyr", "Ember", "frost", "echo", "magnet", "Bao", "Iván", "黒豹")


@dataclass(frozen=True)
class Flow:
    name: str
    writes: bool = False
    use_cache: bool = True
    cold: bool = False

    def prepare(self, contender: Contender, batch: Sequence[int]) -> Call:
        if self.cold:
            contender.forget()
        if self.writes:
            return contender.write(fresh_heroes(len(batch)), self.use_cache)
        return contender.read(batch, self.use_cache)


HIT = Flow("cached hit")
MISS = Flow("cold miss", cold=True)
UNCACHED = Flow("uncached read", use_cache=False)
WRITE_CACHED = Flow("write, cache", writes=True)
WRITE_UNCACHED = Flow("write, no cache", writes=True, use_cache=False)
FLOWS = (HIT, MISS, UNCACHED, WRITE_CACHED, WRITE_UNCACHED)


@dataclass(frozen=True)
class Limits:
    """When a flow has been timed enough: whichever comes first, but never before `min_rounds`."""

    seconds: float
    max_rounds: int
    max_written_rows: int
    min_rounds: int

    def rounds(self, flow: Flow, n: int) -> Iterator[int]:
        most = min(self.max_rounds, self.max_written_rows // n if flow.writes else self.max_rounds)
        started = time.perf_counter()
        for i in itertools.count():
            late = i >= most or time.perf_counter() - started > self.seconds
            if late and i >= self.min_rounds:
                return
            yield i


def measure(
    flow: Flow,
    n: int,
    contenders: Sequence[Contender],
    truth: Mapping[int, Hero],
    limits: Limits,
) -> Samples:
    """Times `flow` with batches of `n` out of `truth`, the seeded rows by id."""
    batches = [random.sample(list(truth), n) for _ in range(BATCHES)]
    for contender in contenders:
        _warm_up(flow, contender, batches, truth)
    gc.collect()
    gc.freeze()
    samples: Samples = {contender.name: [] for contender in contenders}
    started = time.perf_counter()
    for i in limits.rounds(flow, n):
        start = i % len(contenders)
        for contender in (*contenders[start:], *contenders[:start]):
            if not _sits_out(contender, samples[contender.name], time.perf_counter() - started):
                samples[contender.name].append(_timed(flow, contender, batches[i % BATCHES]))
    gc.unfreeze()
    return samples


def _sits_out(contender: Contender, own: list[float], elapsed: float) -> bool:
    """A slow baseline takes at most a fifth of the run, once it has been timed three times."""
    return contender.waits and len(own) >= 3 and sum(own) > elapsed / 5


def _timed(flow: Flow, contender: Contender, batch: Sequence[int]) -> float:
    call = flow.prepare(contender, batch)
    gc.collect()
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def _warm_up(
    flow: Flow,
    contender: Contender,
    batches: Sequence[Sequence[int]],
    truth: Mapping[int, Hero],
) -> None:
    """Runs the flow on every batch, and the first again, and checks the answers."""
    for batch in (*batches, batches[0]):
        answer = flow.prepare(contender, batch)()
        if flow.writes:
            contender.check_write(answer, len(batch))
        else:
            _check(contender, contender.rows(answer), [truth[i] for i in batch])


def _check(contender: Contender, rows: list[Hero], expected: list[Hero]) -> None:
    if contender.keeps_order and rows == expected:
        return
    if contender.keeps_order or sorted(rows, key=_id) != sorted(expected, key=_id):
        raise RuntimeError(f"{contender.name} gave a wrong answer: it is not worth timing")


def _id(row: Hero) -> int:
    return int(row["id"])


def fresh_heroes(count: int) -> list[Hero]:
    return [
        {
            "hero": random.choice(WORDS),
            "power": random.choice(WORDS),
            "name": f"{random.choice(WORDS)} {random.getrandbits(32):08x}",
            "xp": random.randint(-(2**31), 2**31 - 1),
            "color": random.choice(WORDS),
        }
        for _ in range(count)
    ]
