"""The measurements as text tables."""

import statistics
from collections.abc import Mapping, Sequence

from bench.candidates.groups import (
    CLUSTER,
    CONNECTION,
    DATA_API,
    ONE_NODE,
    RAW_PLAIN,
    RAW_TAGGED,
)
from bench.measurements.cold_start import Talk
from bench.measurements.interleaved import Results
from bench.measurements.over_http import OverHttp
from bench.measurements.round_trips import Counts, Trips
from grader.text_table import milliseconds, table

LIMIT = "raw"
OURS = "ours"
# Pairs of candidates whose ratio gets a column.
AGAINST = ((OURS, LIMIT), ("dogpile", OURS), ("kept", OURS), ("template", OURS))
AGAINST_CLUSTER = ((CLUSTER, ONE_NODE), (CLUSTER, RAW_TAGGED), (CLUSTER, RAW_PLAIN))
AGAINST_ENGINES = ((DATA_API, CONNECTION),)
AGAINST_HTTP = ((OverHttp.name, OURS),)


def workloads_table(results: Results, against: Sequence[tuple[str, str]] = AGAINST) -> str:
    """Medians in ms, then the ratio of each pair in `against`."""
    names = list(dict.fromkeys(name for samples in results.values() for name in samples))
    ratios = [f"{one}/{other}" for one, other in against]
    rows = [["flow", "N", *names, *ratios, "rounds"]]
    for (workload, n), samples in results.items():
        median = {name: statistics.median(times) for name, times in samples.items()}
        times = [milliseconds(median[name]) if name in median else "-" for name in names]
        shown = [_ratio(median.get(one), median.get(other)) for one, other in against]
        rounds = max(map(len, samples.values()))
        rows.append([workload.name, str(n), *times, *shown, str(rounds)])
    return table(rows)


def trips_table(counts: Counts) -> str:
    names = list(dict.fromkeys(name for _, name in counts))
    columns = [f"{name}: {server}" for name in names for server in ("MariaDB", "Redis", "in a row")]
    rows = [["round trips of a call (+ not waited for)", *columns]]
    for workload in dict.fromkeys(workload for workload, _ in counts):
        trips = [counts.get((workload, name)) for name in names]
        rows.append([workload.name, *[text for t in trips for text in _trips(t)]])
    return table(rows)


def talks_table(talks: Sequence[Talk]) -> str:
    head = ["round trips of a cold process", "MariaDB", "conn.", "Redis", "conn."]
    return table([head, *(_talk_row(talk) for talk in talks)])


def imports_table(imports: Mapping[str, Sequence[float]], packages: Sequence[str]) -> str:
    what = {"app": "import app", "alone": "import " + ", ".join(packages)}
    rows = [
        [what[name], milliseconds(statistics.median(times)), milliseconds(min(times))]
        for name, times in imports.items()
    ]
    return table([["import in a fresh process, ms", "median", "least"], *rows])


def _ratio(one: float | None, other: float | None) -> str:
    if not one or not other:
        return "-"
    ratio = one / other
    return f"{ratio:.2f}" if ratio < 10 else f"{ratio:.1f}"


def _trips(trips: Trips | None) -> tuple[str, str, str]:
    if trips is None:
        return "-", "-", "-"
    redis = f"{trips.redis} + 1" if trips.unread else str(trips.redis)
    return str(trips.mysql), redis, str(trips.in_a_row)


def _talk_row(talk: Talk) -> list[str]:
    mysql = [str(talk.mysql_trips), str(talk.mysql_connections)]
    return [talk.what, *mysql, str(talk.redis_trips), str(talk.redis_connections)]
