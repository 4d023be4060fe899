"""The same requests and faults for the service and for what people use today, a fault at a time."""

import tempfile
from pathlib import Path

from tests.history.nemesis import FAULTS
from tests.history.round import Report, play, servers
from tests.history.systems import COMMIT_THEN_SET, DOGPILE, HEROCACHE

COMPARED = (HEROCACHE, COMMIT_THEN_SET, DOGPILE)
NO_FAULT = "no fault"


def compare(seconds: float, seed: int) -> dict[str, Report]:
    """A report per system over all faults. Prints a table: a row per fault, a column per system."""
    print(f"| | {' | '.join(COMPARED)} |")
    print("|---" * (len(COMPARED) + 1) + "|")
    totals = {system: Report() for system in COMPARED}
    with tempfile.TemporaryDirectory() as home, servers(Path(home)) as on:
        for number, kind in enumerate((NO_FAULT, *FAULTS)):
            cells = []
            for system in COMPARED:
                kinds = [] if kind == NO_FAULT else [kind]
                folder = Path(home) / f"{number} {system}"
                report = play(on, folder, seconds, system=system, kinds=kinds, seed=seed)
                totals[system] += report
                cells.append(_found(report))
            print(f"| {kind} | {' | '.join(cells)} |", flush=True)
    print(f"| all | {' | '.join(_found(total) for total in totals.values())} |", flush=True)
    return totals


def _found(report: Report) -> str:
    """Stale reads of how many, cells that stay stale, and whatever else was wrong."""
    checked, violations = report.verdict.checked, dict(report.verdict.violations)
    reads = checked["reads by id"] + checked["reads by xp"]
    stale = violations.pop("stale read (cached)", 0)
    found = [f"{stale} stale of {reads}"]
    found += [f"{count} {kind}" for kind, count in violations.items()]
    return ", ".join(found)
