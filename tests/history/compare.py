"""The same requests and faults for the service and for what people use today, a fault at a time."""

import tempfile
from collections.abc import Mapping
from pathlib import Path

from tests.history.nemesis import FAULTS
from tests.history.round import Report, play, servers
from tests.history.systems import COMMIT_THEN_SET, DOGPILE, HEROCACHE

COMPARED = (HEROCACHE, COMMIT_THEN_SET, DOGPILE)
NO_FAULT = "no fault"
STALE = "stale read (cached)"
TITLE = "reads that showed older data than a write which was acknowledged before them"
LABELS = {COMMIT_THEN_SET: "commit, then SET in the cache"}
LONGEST_BAR = 40


def compare(seconds: float, seed: int) -> dict[str, Report]:
    """A report per system over all faults. Prints a table, a row per fault and a column per system,
    and a picture of all faults together."""
    print(f"| | {' | '.join(COMPARED)} |")
    print("|---" * (len(COMPARED) + 1) + "|")
    totals = {system: Report() for system in COMPARED}
    with tempfile.TemporaryDirectory() as home, servers(Path(home)) as on:
        for number, kind in enumerate((NO_FAULT, *FAULTS)):
            entries = []
            for system in COMPARED:
                kinds = [] if kind == NO_FAULT else [kind]
                folder = Path(home) / f"{number} {system}"
                report = play(on, folder, seconds, system=system, kinds=kinds, seed=seed)
                totals[system] += report
                entries.append(_found(report))
            print(f"| {kind} | {' | '.join(entries)} |", flush=True)
    print(f"| all | {' | '.join(_found(total) for total in totals.values())} |\n")
    print(picture({system: stale_reads(total) for system, total in totals.items()}), flush=True)
    return totals


def stale_reads(report: Report) -> tuple[int, int]:
    """Reads older than a write that was acknowledged before they began; of how many."""
    checked = report.verdict.checked
    reads = checked["reads by id"] + checked["reads by xp"]
    return report.verdict.violations.get(STALE, 0), reads


def picture(found: Mapping[str, tuple[int, int]]) -> str:
    """As on README's first screen: a line per system, the largest share of stale reads first, with
    a bar for that share."""
    shares = {system: stale / max(reads, 1) for system, (stale, reads) in found.items()}
    worst = max(shares.values()) or 1
    lines = [TITLE, ""]
    for system in sorted(found, key=lambda system: -shares[system]):
        stale, reads = found[system]
        bar = "█" * round(LONGEST_BAR * shares[system] / worst)
        lines.append(f"{LABELS.get(system, system):29}  {stale:>5,} of {reads:>6,}  {bar}".rstrip())
    return "\n".join(lines)


def _found(report: Report) -> str:
    """Stale reads of how many, entries that stay stale, and whatever else was wrong."""
    stale, reads = stale_reads(report)
    others = {kind: n for kind, n in report.verdict.violations.items() if kind != STALE}
    return ", ".join([f"{stale} stale of {reads}", *(f"{n} {kind}" for kind, n in others.items())])
