"""What the figures should be, next to what they are. No time is ever asserted."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bench.cold_start import FIRST_CACHED, FIRST_UNCACHED, LEAST_OF_DRIVERS, Talk
from bench.flows import HIT, INSERT_HEROES, INSERT_PRODUCTS, MISS, UNCACHED, Flow
from bench.headers import WITH, WITHOUT
from bench.http import ROWS, Crowd, OverHttp
from bench.measure import Samples
from bench.report import LIMIT, OURS, Cells
from bench.round_trips import Counts
from grader.text_table import table

NEAR: Sequence[tuple[Flow, int, float]] = (
    (HIT, 100, 1.1),
    (HIT, 1000, 1.2),
    (MISS, 100, 1.2),
    (INSERT_HEROES, 100, 0.8),
    (INSERT_PRODUCTS, 100, 0.8),
    (UNCACHED, 100, 1.1),
    (UNCACHED, 1000, 1.1),
)
"""Flow, batch size, the most that ours may take, raw being 1."""
FAR: Sequence[tuple[Flow, int, float]] = ((MISS, 100, 1.2),)
HTTP_AT_MOST = 1 / 1.8
"""Of a kept connection: a cached read is at least 1.8 times as fast as an uncached one."""
HEADERS_AT_MOST = 1.02
IMPORT_AT_MOST = 1.15
INSERT_TRIPS = 2
HINTS = 1
"""A cold container leaves one in Redis after its answer; nobody waits for it."""

Row = list[str]


@dataclass(frozen=True)
class Target:
    """A ratio of two medians of one run, and the most it should be. On a machine that others use,
    the ratio of the fastest tenths is closer to what it would be alone."""

    what: str
    ours: Sequence[float]
    limit: Sequence[float]
    at_most: float

    def row(self) -> Row:
        ratio = statistics.median(self.ours) / statistics.median(self.limit)
        undisturbed = _fastest_tenth(self.ours) / _fastest_tenth(self.limit)
        low, _, high = statistics.quantiles(
            [ours / limit for ours, limit in zip(self.ours, self.limit)], n=4
        )
        shown = [f"{ratio:.2f}", f"<= {self.at_most:.2f}", _verdict(ratio, self.at_most)]
        return [self.what, *shown, f"{low:.2f} to {high:.2f}", f"{undisturbed:.2f}"]


@dataclass(frozen=True)
class Measured:
    """What a run found."""

    near: Cells
    far: Cells
    over_http: Cells
    crowds: Sequence[Crowd]
    headers: Samples
    imports: Mapping[str, Sequence[float]]
    counts: Counts
    talks: Sequence[Talk]


def targets_table(found: Measured) -> str:
    head = ["target", "measured", "asked", "", "middle half of the rounds", "fastest tenths"]
    imports = found.imports
    targets = [
        *_ratios(found.near, NEAR, "ours / raw"),
        *_ratios(found.far, FAR, "ours / raw, with the network"),
        _over_http(found.over_http),
        _headers(found.headers),
        Target("import of app / its packages", imports["app"], imports["alone"], IMPORT_AT_MOST),
    ]
    rows = [target.row() for target in targets]
    counted = [*_broken(found.crowds), *_flow_trips(found.counts), *_first_trips(found.talks)]
    return table([head, *rows, *counted])


def _over_http(cells: Cells) -> Target:
    cached, uncached = (cells[flow, ROWS][OverHttp.name] for flow in (HIT, UNCACHED))
    what = f"HTTP, kept connection, N = {ROWS}, cached / uncached"
    return Target(what, cached, uncached, HTTP_AT_MOST)


def _headers(samples: Samples) -> Target:
    what = f"full hit, N = {ROWS}, with Cache-Status and Server-Timing / without"
    return Target(what, samples[WITH], samples[WITHOUT], HEADERS_AT_MOST)


def _broken(crowds: Sequence[Crowd]) -> list[Row]:
    return [
        _count(f"HTTP, {met.threads} threads: connections that broke", met.failed.total(), 0)
        for met in crowds
    ]


def _ratios(cells: Cells, asked: Sequence[tuple[Flow, int, float]], of_what: str) -> list[Target]:
    return [
        Target(f"{flow.name}, N = {n}, {of_what}", cell[OURS], cell[LIMIT], at_most)
        for flow, n, at_most in asked
        if (cell := cells.get((flow, n)))
    ]


def _flow_trips(counts: Counts) -> list[Row]:
    hit = counts[HIT, OURS]
    rows = [_count("full hit: round trips, MariaDB", hit.mysql, 0)]
    rows.append(_count("full hit: round trips, Redis", hit.redis, 1))
    for flow in (INSERT_HEROES, INSERT_PRODUCTS):
        trips = counts[flow, OURS].in_a_row
        rows.append(_count(f"{flow.name}: round trips in a row", trips, INSERT_TRIPS))
    return rows


def _first_trips(talks: Sequence[Talk]) -> list[Row]:
    by_name = {talk.what: talk for talk in talks}
    least = by_name[LEAST_OF_DRIVERS]
    cached, uncached = by_name[FIRST_CACHED], by_name[FIRST_UNCACHED]
    return [
        _count("first request: round trips, Redis", cached.redis_trips - HINTS, least.redis_trips),
        _count("first request: round trips, MariaDB", uncached.mysql_trips, least.mysql_trips),
    ]


def _count(what: str, ours: int, at_most: int) -> Row:
    return [what, str(ours), f"<= {at_most}", _verdict(ours, at_most), "", ""]


def _verdict(measured: float, at_most: float) -> str:
    return "PASS" if measured <= at_most else "FAIL"


def _fastest_tenth(times: Sequence[float]) -> float:
    return statistics.median(sorted(times)[: max(1, len(times) // 10)])
