"""Checks the checker: it must find a violation where an ingredient of the protocol is missing."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.history import counters, pending
from tests.history.round import Report, Servers, play
from tests.history.systems import (
    COMMIT_THEN_SET,
    NO_APPLIED,
    NO_FENCE,
    NO_LEASE_CHECK,
    NO_RAISE,
    NO_REDELIVERY,
    NO_REPLAY,
    NO_ROW_LOCK,
    NO_SERVER_NAME,
    NO_WATERMARK,
    NO_WRITER_CHECK,
)
from tests.history.worker import (
    COUNT,
    DELETE,
    INCREMENT,
    INSERT,
    MIX,
    MIX_OF_COUNTERS,
    READ,
    REPLACE,
    UPLOAD,
)

SECONDS = 5
MOST_ROUNDS = 12
STALE = frozenset({"stale read (cached)", "stale read (uncached)"})
# The last one happens on a busy machine, where Redis counts as silent again and again.
EXPECTED = STALE | {"entry differs once quiet", "cache not in use once quiet"}
INSERTS = {READ: 90, INSERT: 10}
# Few writes, because each write repairs the entries of the rows that it changes.
FEW_WRITES = {READ: 99, REPLACE: 0.5, DELETE: 0.5}
# Enough writes while a reader sleeps, and too few to repair at once the entry that it stores.
MOSTLY_READS = {READ: 85, REPLACE: 12, DELETE: 3}
FEW_FILES = {READ: 99, UPLOAD: 1}
COUNTS = {COUNT: 50, INCREMENT: 50}
# A value that comes twice may also look like one that was read too early.
NOT_EXACT = frozenset({counters.LOST, counters.EXTRA, "read before it was written"})


@dataclass(frozen=True)
class Play:
    """Where the ingredient would have helped: what clients do, and which `faults` meet them."""

    system: str
    faults: tuple[str, ...]
    mix: Mapping[str, float]
    finds: frozenset[str] = STALE


ASLEEP = ("reader asleep before storing", "writer asleep before publishing")
LOST = ("redis evicts before a commit whose answer is lost",)
PLAYS = (
    Play(NO_LEASE_CHECK, ("reader asleep before storing",), MOSTLY_READS),
    Play(NO_FENCE, ASLEEP, MIX),
    Play(NO_FENCE, ("writer asleep before commit", "writer asleep before publishing"), INSERTS),
    Play(NO_WATERMARK, ("redis late with fences",), INSERTS),
    Play(NO_REPLAY, LOST, FEW_WRITES),
    Play(NO_REDELIVERY, LOST, FEW_FILES),
    Play(NO_RAISE, (), FEW_FILES),
    Play(NO_WRITER_CHECK, ("database switched over and back",), FEW_WRITES),
    Play(NO_SERVER_NAME, ("redis failed over and back",), MIX),
    Play(NO_ROW_LOCK, (), COUNTS, NOT_EXACT),
    Play(NO_APPLIED, (), MIX_OF_COUNTERS, frozenset({pending.EXTRA})),
    Play(COMMIT_THEN_SET, ASLEEP, MIX),
)


def wrong_verdicts(on: Servers, folder: Path) -> Iterator[str]:
    """Of each system without one, what it was: nothing stale, or something else too, or that a
    fault met nobody."""
    for number, one in enumerate(PLAYS):
        report = _report_of(one, on, folder / str(number))
        print(f"{one.system}: {report}\n", flush=True)
        found = set(report.verdict.violations)
        if not found & one.finds or not found <= EXPECTED | one.finds:
            yield f"{one.system}: found {found or 'nothing'}"
        for fault in set(one.faults) - set(report.injected):
            yield f"{one.system}: nobody met {fault}"


def _report_of(one: Play, on: Servers, folder: Path) -> Report:
    """On a busy machine few do in so many seconds: then for once more."""
    report = Report()
    for seed in range(MOST_ROUNDS):
        report += play(
            on,
            folder / str(seed),
            SECONDS,
            system=one.system,
            kinds=list(one.faults),
            seed=seed,
            mix=one.mix,
        )
        is_found = bool(one.finds & set(report.verdict.violations))
        if is_found and set(one.faults) <= set(report.injected):
            break
    return report
