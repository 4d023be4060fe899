"""The checker checked: it must find what is wrong where an ingredient is missing."""

from collections.abc import Iterator
from pathlib import Path

from tests.history.round import Report, Servers, play
from tests.history.systems import COMMIT_THEN_SET, NO_FENCE, NO_LEASE_CHECK

SECONDS = 5
MOST_ROUNDS = 5
FAULTS = ["reader asleep before storing", "writer asleep before publishing"]
"""Readers and writers fall asleep where the ingredient would have helped."""
EXPECTED = frozenset({"stale read (cached)", "stale read (uncached)", "cell differs once quiet"})


def wrong_verdicts(on: Servers, folder: Path) -> Iterator[str]:
    """Of each system without one, what it was: nothing stale, or something else too."""
    for system in (NO_LEASE_CHECK, NO_FENCE, COMMIT_THEN_SET):
        report = _report_of(system, on, folder / system)
        print(f"{system}: {report}\n", flush=True)
        found = set(report.verdict.violations)
        if "stale read (cached)" not in found or not found <= EXPECTED:
            yield f"{system}: found {found or 'nothing'}"


def _report_of(system: str, on: Servers, folder: Path) -> Report:
    """On a busy machine few do in so many seconds: then for once more."""
    report = Report()
    for seed in range(MOST_ROUNDS):
        report += play(on, folder / str(seed), SECONDS, system=system, kinds=FAULTS, seed=seed)
        if report.verdict.violations["stale read (cached)"]:
            break
    return report
