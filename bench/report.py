"""What was measured as text tables, and the targets next to it. No time is ever asserted."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bench.cold_start import FIRST_CACHED, FIRST_UNCACHED, LEAST_OF_DRIVERS, Talk
from bench.measure import HIT, UNCACHED, WRITE_CACHED, Flow, Samples
from bench.text import milliseconds, table

Cells = Mapping[tuple[Flow, int], Samples]
"""What `measure` gave, by flow and batch size."""

LIMIT = "raw"
OURS = "ours"
BASELINES = ("kept", "template")


@dataclass(frozen=True)
class Target:
    """A ratio of two medians of one run, and the most it should be."""

    what: str
    ours: Sequence[float]
    limit: Sequence[float]
    at_most: float

    @property
    def ratio(self) -> float:
        return statistics.median(self.ours) / statistics.median(self.limit)

    def row(self) -> list[str]:
        pairs = [ours / limit for ours, limit in zip(self.ours, self.limit)]
        low, _, high = statistics.quantiles(pairs, n=4)
        verdict = "PASS" if self.ratio <= self.at_most else "FAIL"
        spread = f"{low:.2f} to {high:.2f}"
        return [self.what, f"{self.ratio:.2f}", f"<= {self.at_most:.2f}", verdict, spread]


def targets(cells: Cells, imports: Mapping[str, Sequence[float]]) -> list[Target]:
    asked = [(HIT, 100, 1.2), (HIT, 1000, 1.3), *((WRITE_CACHED, n, 1.0) for n in (100, 1000))]
    asked += [(UNCACHED, n, 1.1) for n in (100, 1000)]
    found = [
        Target(f"{flow.name}, N = {n}, ours / raw", cell[OURS], cell[LIMIT], at_most)
        for flow, n, at_most in asked
        if (cell := cells.get((flow, n)))
    ]
    app, alone = imports["app"], imports["third-party"]
    return [*found, Target("import of app / third-party packages", app, alone, 1.15)]


def flows_table(cells: Cells) -> str:
    """Medians in ms, then ours against the limit, and the baselines against ours."""
    names = list(dict.fromkeys(name for samples in cells.values() for name in samples))
    baselines = [name for name in BASELINES if name in names]
    ratios = [f"{OURS}/{LIMIT}", *(f"{name}/{OURS}" for name in baselines)]
    rows = [["flow", "N", *names, *ratios, "rounds"]]
    for (flow, n), samples in cells.items():
        median = {name: statistics.median(times) for name, times in samples.items()}
        against = [median[OURS] / median[LIMIT]]
        shown = [f"{ratio:.2f}" for ratio in against]
        shown += [
            f"{median[name] / median[OURS]:.1f}" if name in median else "-" for name in baselines
        ]
        times = [milliseconds(median[name]) if name in median else "-" for name in names]
        rows.append([flow.name, str(n), *times, *shown, str(len(samples[OURS]))])
    return table(rows)


def targets_table(found: Sequence[Target], talks: Sequence[Talk]) -> str:
    head = ["target", "measured", "asked", "", "middle half of the rounds"]
    return table([head, *(target.row() for target in found), *_trip_rows(talks)])


def _trip_rows(talks: Sequence[Talk]) -> list[list[str]]:
    by_name = {talk.what: talk for talk in talks}
    least = by_name[LEAST_OF_DRIVERS]
    counts = {
        "round trips, Redis": (by_name[FIRST_CACHED].redis_trips, least.redis_trips),
        "round trips, MariaDB": (by_name[FIRST_UNCACHED].mysql_trips, least.mysql_trips),
    }
    return [
        [f"first request: {what}", str(ours), f"<= {most}", "PASS" if ours <= most else "FAIL", ""]
        for what, (ours, most) in counts.items()
    ]


def talks_table(talks: Sequence[Talk]) -> str:
    head = ["round trips of a cold process", "MariaDB", "conn.", "Redis", "conn."]
    return table([head, *(_talk_row(talk) for talk in talks)])


def _talk_row(talk: Talk) -> list[str]:
    mysql = [str(talk.mysql_trips), str(talk.mysql_connections)]
    return [talk.what, *mysql, str(talk.redis_trips), str(talk.redis_connections)]


def imports_table(imports: Mapping[str, Sequence[float]], packages: Sequence[str]) -> str:
    what = {"app": "import app", "third-party": "import " + ", ".join(packages)}
    rows = [
        [what[name], milliseconds(statistics.median(times)), milliseconds(min(times))]
        for name, times in imports.items()
    ]
    return table([["import in a fresh process, ms", "median", "least"], *rows])
