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
from bench.flows import FLOWS, HIT, MISS
from bench.lineup import clustered, contending
from bench.measure import Limits, Seeded, measure
from bench.round_trips import BATCH, count_trips
from bench.servers import copy, far_away, ping, seed, servers, setting
from bench.targets import targets_table
from local.servers import MariaDB

NETWORK_SECONDS = 0.001


@dataclass(frozen=True)
class Plan:
    """`near` directly, `far` behind the network; `import_rounds` fresh processes of each kind;
    a call's round trips are those of most of `trip_rounds`, a cold process's of `cold_rounds`."""

    seeded_rows: int
    near_sizes: Sequence[int]
    near: Limits
    far_sizes: Sequence[int]
    far: Limits
    has_far_template: bool
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
    with servers() as (home, database, cache):
        environment = {**database.environment(), **cache.environment()}
        seeded = seed(database, plan.seeded_rows)
        show(setting(environment))
        near = measure_near(plan, environment, seeded)
        far = measure_far(plan, environment, seeded)
        measure_cluster(plan, environment, seeded, database, home)
        counts = count_trips(environment, seeded, plan.trip_rounds)
        show(report.trips_table(counts))
        talks = connection_talks(environment, plan.cold_rounds)
        show(report.talks_table(talks))
        imports = import_seconds(plan.import_rounds)
        show(report.imports_table(imports, third_party_packages()))
        show(targets_table(near, far, imports, counts, talks))
    show(f"The run took {time.perf_counter() - started:.0f} s.")


def measure_near(plan: Plan, environment: Environment, seeded: Seeded) -> report.Cells:
    with contending(environment, seeded) as contenders:
        cells = _measured(contenders, plan.near_sizes, seeded, plan.near)
    show("Medians in ms, servers on this machine", report.flows_table(cells))
    return cells


def measure_far(plan: Plan, environment: Environment, seeded: Seeded) -> report.Cells:
    with far_away(environment, NETWORK_SECONDS) as far:
        with contending(far, seeded, plan.has_far_template) as contenders:
            cells = _measured(contenders, plan.far_sizes, seeded, plan.far)
        pings = f"a PING takes {ping(far):.2f} ms, without it {ping(environment):.2f}"
    network = f"{NETWORK_SECONDS * 1000:g} ms of network added to both servers"
    show(f"Medians in ms, {network} ({pings})", report.flows_table(cells))
    return cells


def measure_cluster(
    plan: Plan, environment: Environment, seeded: Seeded, database: MariaDB, home: Path
) -> None:
    with cluster(home) as masters:
        own = {**copy(database, "clustered"), **masters}
        with clustered(environment, own, seeded) as contenders:
            cells = {
                (flow, BATCH): measure(flow, BATCH, contenders, seeded, plan.near)
                for flow in (HIT, MISS)
            }
    clients = (
        "raw x3 is redis-py's RedisCluster: mget_nonatomic, with our 16 hash tags or plain keys"
    )
    title = "Medians in ms, x3: a cluster of three Redis masters, on this machine"
    show(f"{title} ({clients})", report.flows_table(cells, report.AGAINST_CLUSTER))


def _measured(
    contenders: Sequence[Contender], sizes: Sequence[int], seeded: Seeded, limits: Limits
) -> report.Cells:
    return {
        (flow, n): measure(flow, n, contenders, seeded, limits) for flow in FLOWS for n in sizes
    }


def show(*texts: str) -> None:
    print(*texts, "", sep="\n", flush=True)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("stopped; its servers too")
