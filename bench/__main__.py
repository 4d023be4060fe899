"""`python -m bench`: everything measured in one run on servers of its own, and printed."""

import argparse
import logging
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from app import app
from bench import report
from bench.cluster import cluster
from bench.cold_start import connection_talks, import_seconds, third_party_packages
from bench.contenders import Contender, Environment
from bench.flows import FLOWS, HIT, MISS, Flow
from bench.headers import time_headers
from bench.http import CROWDS, Crowd, crowd, crowds_table, local_app, time_kept
from bench.lineup import clustered, contending
from bench.measure import Limits, Seeded, measure
from bench.progress import progress
from bench.round_trips import BATCH, count_trips
from bench.servers import copy, far_away, ping, seed, servers, setting
from bench.targets import Measured, targets_table
from local.servers import MariaDB

NETWORK_SECONDS = 0.001


@dataclass(frozen=True)
class Plan:
    """`near` directly, `far` behind the network; `headers` for a small difference; each crowd for
    `crowd_seconds`; `import_rounds` fresh processes of each kind;
    a call's round trips are those of most of `trip_rounds`, a cold process's of `cold_rounds`."""

    seeded_rows: int
    near_sizes: Sequence[int]
    near: Limits
    far_sizes: Sequence[int]
    far: Limits
    has_far_template: bool
    headers: Limits
    crowd_seconds: float
    trip_rounds: int
    cold_rounds: int
    import_rounds: int


FULL = Plan(
    seeded_rows=20_000,
    near_sizes=(1, 10, 100, 1000),
    near=Limits(seconds=3.5, max_rounds=300, max_written_rows=40_000, min_rounds=25),
    far_sizes=(1, 100),
    far=Limits(seconds=3, max_rounds=100, max_written_rows=5_000, min_rounds=25),
    has_far_template=True,
    headers=Limits(seconds=10, max_rounds=5_000, max_written_rows=0, min_rounds=500),
    crowd_seconds=5,
    trip_rounds=5,
    cold_rounds=5,
    import_rounds=15,
)
QUICK = Plan(
    seeded_rows=2_000,
    near_sizes=(1, 100),
    near=Limits(seconds=0.4, max_rounds=20, max_written_rows=2_000, min_rounds=5),
    far_sizes=(100,),
    far=Limits(seconds=0.2, max_rounds=5, max_written_rows=500, min_rounds=3),
    has_far_template=False,
    headers=Limits(seconds=0.2, max_rounds=50, max_written_rows=0, min_rounds=5),
    crowd_seconds=0.2,
    trip_rounds=3,
    cold_rounds=1,
    import_rounds=2,
)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="too short to trust, to see it work")
    plan = QUICK if parser.parse_args().quick else FULL
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended before it was done"))
    for handler in app.log.handlers:  # warnings of the app under test do not belong in tables
        if isinstance(handler, logging.StreamHandler):
            handler.setStream(sys.stderr)
    started = time.perf_counter()
    progress("starting servers")
    with servers() as (home, database, cache):
        environment = {**database.environment(), **cache.environment()}
        progress(f"seeding {plan.seeded_rows:,} heroes")
        seeded = seed(database, plan.seeded_rows)
        show(setting(environment))
        near = measure_near(plan, environment, seeded)
        far = measure_far(plan, environment, seeded)
        measure_cluster(plan, environment, seeded, database, home)
        over_http, crowds = measure_http(plan, environment, seeded, home)
        progress("headers of a cached read")
        headers = time_headers(environment, seeded, plan.headers)
        progress("counting round trips")
        counts = count_trips(environment, seeded, plan.trip_rounds)
        show(report.trips_table(counts))
        progress("counting what a cold process sends")
        talks = connection_talks(environment, plan.cold_rounds)
        show(report.talks_table(talks))
        progress("timing imports")
        imports = import_seconds(plan.import_rounds)
        show(report.imports_table(imports, third_party_packages()))
        measured = Measured(near, far, over_http, crowds, headers, imports, counts, talks)
        show(targets_table(measured))
    show(f"The run took {time.perf_counter() - started:.0f} s.")


def measure_near(plan: Plan, environment: Environment, seeded: Seeded) -> report.Cells:
    with contending(environment, seeded) as contenders:
        cells = _measured("near", contenders, plan.near_sizes, seeded, plan.near)
    show("Medians in ms, servers on this machine", report.flows_table(cells))
    return cells


def measure_far(plan: Plan, environment: Environment, seeded: Seeded) -> report.Cells:
    with far_away(environment, NETWORK_SECONDS) as far:
        with contending(far, seeded, plan.has_far_template) as contenders:
            cells = _measured("far", contenders, plan.far_sizes, seeded, plan.far)
        pings = f"a PING takes {ping(far):.2f} ms, without it {ping(environment):.2f}"
    network = f"{NETWORK_SECONDS * 1000:g} ms of network added to both servers"
    show(f"Medians in ms, {network} ({pings})", report.flows_table(cells))
    return cells


def measure_cluster(
    plan: Plan, environment: Environment, seeded: Seeded, database: MariaDB, home: Path
) -> None:
    progress("starting a cluster")
    with cluster(home) as masters:
        own = {**copy(database, "clustered"), **masters}
        with clustered(environment, own, seeded) as contenders:
            cells = _measured("cluster", contenders, [BATCH], seeded, plan.near, [HIT, MISS])
    clients = (
        "raw x3 is redis-py's RedisCluster: mget_nonatomic, with our 16 hash tags or plain keys"
    )
    title = "Medians in ms, x3: a cluster of three Redis masters, on this machine"
    show(f"{title} ({clients})", report.flows_table(cells, report.AGAINST_CLUSTER))


def measure_http(
    plan: Plan, environment: Environment, seeded: Seeded, home: Path
) -> tuple[report.Cells, Sequence[Crowd]]:
    progress("HTTP: starting chalice local")
    with local_app(environment, home) as port:
        progress("HTTP: one kept connection")
        cells = time_kept(environment, port, seeded, plan.near)
        crowds = []
        for threads in CROWDS:
            progress(f"HTTP: {threads} threads")
            crowds.append(crowd(port, seeded, threads, plan.crowd_seconds))
    title = "Medians in ms over HTTP: chalice local and one kept connection; ours: without HTTP"
    show(title, report.flows_table(cells, report.AGAINST_HTTP))
    title = (
        f"chalice local with threads that open a connection for each cached read of {BATCH} rows"
    )
    show(title, crowds_table(crowds))
    return cells, crowds


def _measured(
    where: str,
    contenders: Sequence[Contender],
    sizes: Sequence[int],
    seeded: Seeded,
    limits: Limits,
    flows: Sequence[Flow] = FLOWS,
) -> report.Cells:
    cells = {}
    for flow in flows:
        for n in sizes:
            progress(f"{where}: {flow.name}, batches of {n}")
            cells[flow, n] = measure(flow, n, contenders, seeded, limits)
    return cells


def show(*texts: str) -> None:
    print(*texts, "", sep="\n", flush=True)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("stopped; its servers too")
