"""`python -m bench`: measures everything in one run, on servers of its own, and prints it."""

import argparse
import logging
import os
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

from app import app
from bench import report
from bench.candidates.candidate import Candidate, Environment
from bench.candidates.groups import (
    cluster_candidates,
    engine_candidates,
    one_node_candidates,
)
from bench.measurements.cold_start import connection_talks, import_seconds, third_party_packages
from bench.measurements.header_cost import time_headers
from bench.measurements.interleaved import Limits, Results, Seeded, measure
from bench.measurements.over_http import CROWDS, Crowd, crowd, crowds_table, local_app, time_kept
from bench.measurements.round_trips import BATCH, count_trips
from bench.progress import progress
from bench.servers.mariadb_and_redis import copy, far_away, ping, seed, servers, setting
from bench.servers.redis_cluster import cluster
from bench.thresholds import Measured, targets_table
from bench.workloads import HIT, MISS, WORKLOADS, Workload
from local.servers import DataApi, MariaDB

NETWORK_SECONDS = 0.001


@dataclass(frozen=True)
class Plan:
    """How long to measure.

    `near`: limits for servers on this machine. `far`: limits for servers behind the added network.
    `headers`: limits for the cost of headers, a small difference. `crowd_seconds`: for each number
    of threads. `trip_rounds`, `cold_rounds`: how often round trips are counted; the most frequent
    count is shown. `import_rounds`: fresh processes of each kind.
    """

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
        measure_engines(plan, environment, seeded, database, home)
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
        imports = import_seconds(plan.import_rounds, environment)
        show(report.imports_table(imports, third_party_packages()))
        measured = Measured(near, far, over_http, crowds, headers, imports, counts, talks)
        show(targets_table(measured))
    show(f"The run took {time.perf_counter() - started:.0f} s.")


def measure_near(plan: Plan, environment: Environment, seeded: Seeded) -> Results:
    with one_node_candidates(environment, seeded) as candidates:
        results = _measured("near", candidates, plan.near_sizes, seeded, plan.near)
    show("Medians in ms, servers on this machine", report.workloads_table(results))
    return results


def measure_far(plan: Plan, environment: Environment, seeded: Seeded) -> Results:
    with far_away(environment, NETWORK_SECONDS) as far:
        with one_node_candidates(far, seeded, plan.has_far_template) as candidates:
            results = _measured("far", candidates, plan.far_sizes, seeded, plan.far)
        pings = f"a PING takes {ping(far):.2f} ms, without it {ping(environment):.2f}"
    network = f"{NETWORK_SECONDS * 1000:g} ms of network added to both servers"
    show(f"Medians in ms, {network} ({pings})", report.workloads_table(results))
    return results


def measure_cluster(
    plan: Plan, environment: Environment, seeded: Seeded, database: MariaDB, home: Path
) -> None:
    progress("starting a cluster")
    with cluster(home) as masters:
        own = {**copy(database, "clustered"), **masters}
        with cluster_candidates(environment, own, seeded) as candidates:
            results = _measured("cluster", candidates, [BATCH], seeded, plan.near, [HIT, MISS])
    clients = (
        "raw x3 is redis-py's RedisCluster: mget_nonatomic, with our 16 hash tags or plain keys"
    )
    title = "Medians in ms, x3: a cluster of three Redis masters, on this machine"
    show(f"{title} ({clients})", report.workloads_table(results, report.AGAINST_CLUSTER))


def measure_engines(
    plan: Plan, environment: Environment, seeded: Seeded, database: MariaDB, home: Path
) -> None:
    progress("starting a Data API")
    own = copy(database, "by_data_api")
    with (
        DataApi(home / "data_api", lambda: own) as server,
        patch.dict(os.environ, server.environment()),  # for boto3
        engine_candidates(environment, {**environment, **server.environment()}) as candidates,
    ):
        results = _measured("engines", candidates, plan.near_sizes, seeded, plan.near)
    title = "Medians in ms by engine, on this machine; the Data API is the local one on MariaDB"
    show(title, report.workloads_table(results, report.AGAINST_ENGINES))


def measure_http(
    plan: Plan, environment: Environment, seeded: Seeded, home: Path
) -> tuple[Results, Sequence[Crowd]]:
    progress("HTTP: starting chalice local")
    with local_app(environment, home) as port:
        progress("HTTP: one kept connection")
        results = time_kept(environment, port, seeded, plan.near)
        crowds = []
        for threads in CROWDS:
            progress(f"HTTP: {threads} threads")
            crowds.append(crowd(port, seeded, threads, plan.crowd_seconds))
    title = "Medians in ms over HTTP: chalice local and one kept connection; ours: without HTTP"
    show(title, report.workloads_table(results, report.AGAINST_HTTP))
    title = (
        f"chalice local with threads that open a connection for each cached read of {BATCH} rows"
    )
    show(title, crowds_table(crowds))
    return results, crowds


def _measured(
    where: str,
    candidates: Sequence[Candidate],
    sizes: Sequence[int],
    seeded: Seeded,
    limits: Limits,
    workloads: Sequence[Workload] = WORKLOADS,
) -> Results:
    results = {}
    for workload in workloads:
        for n in sizes:
            progress(f"{where}: {workload.name}, batches of {n}")
            results[workload, n] = measure(workload, n, candidates, seeded, limits)
    return results


def show(*texts: str) -> None:
    print(*texts, "", sep="\n", flush=True)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("stopped; its servers too")
