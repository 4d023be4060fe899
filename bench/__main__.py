"""`python -m bench`: everything measured in one run on servers of its own, and printed."""

import argparse
import contextlib
import os
import platform
import signal
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from urllib.parse import urlsplit

import redis

from bench import report
from bench.cold_start import connection_talks, import_seconds, third_party_packages
from bench.contenders import COLUMNS, Contender, Hero, Ours, Raw, connect, encode
from bench.delay_proxy import delayed
from bench.measure import FLOWS, Limits, measure
from bench.template import Kept, Template
from local.servers import MariaDB, Redis
from seed.generate_heroes import hero_lines

NETWORK_SECONDS = 0.001


@dataclass(frozen=True)
class Plan:
    """`near` directly, `far` behind the network; `import_rounds` fresh processes of each kind."""

    seeded_rows: int
    near_sizes: Sequence[int]
    near: Limits
    far_sizes: Sequence[int]
    far: Limits
    import_rounds: int


FULL = Plan(
    seeded_rows=20_000,
    near_sizes=(1, 10, 100, 1000),
    near=Limits(seconds=6, max_rounds=300, max_written_rows=50_000, min_rounds=25),
    far_sizes=(1, 100),
    far=Limits(seconds=4, max_rounds=60, max_written_rows=5_000, min_rounds=25),
    import_rounds=15,
)
QUICK = Plan(
    seeded_rows=2_000,
    near_sizes=(1, 100),
    near=Limits(seconds=0.8, max_rounds=20, max_written_rows=2_000, min_rounds=8),
    far_sizes=(1,),
    far=Limits(seconds=0.2, max_rounds=5, max_written_rows=100, min_rounds=5),
    import_rounds=3,
)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="too short to trust, to see it work")
    plan = QUICK if parser.parse_args().quick else FULL
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended before it was done"))
    started = time.perf_counter()
    with servers() as (environment, database):
        truth = seed(database, plan.seeded_rows)
        run(plan, environment, truth)
        rows = database.query("SELECT COUNT(*) FROM heroes")[0][0]
    print(f"\n{rows:,} heroes at the end. The run took {time.perf_counter() - started:.0f} s.")


def run(plan: Plan, environment: Mapping[str, str], truth: Mapping[int, Hero]) -> None:
    print(setting(environment))
    cells = timed("Medians in ms, servers on this machine", plan, False, environment, truth)
    with far_away(environment) as far:
        network = f"{NETWORK_SECONDS * 1000:g} ms of network added to both servers"
        pings = f"a PING takes {ping(far):.2f} ms, without it {ping(environment):.2f}"
        timed(f"Medians in ms, {network} ({pings})", plan, True, far, truth)
    talks = connection_talks(environment)
    print(f"\n{report.talks_table(talks)}")
    imports = import_seconds(plan.import_rounds)
    print(f"\n{report.imports_table(imports, third_party_packages())}")
    print(f"\n{report.targets_table(report.targets(cells, imports), talks)}")


def timed(
    title: str,
    plan: Plan,
    is_far: bool,
    environment: Mapping[str, str],
    truth: Mapping[int, Hero],
) -> report.Cells:
    sizes, limits = (plan.far_sizes, plan.far) if is_far else (plan.near_sizes, plan.near)
    with contending(environment, truth) as contenders:
        cells = {
            (flow, n): measure(flow, n, contenders, truth, limits) for flow in FLOWS for n in sizes
        }
    print(f"\n{title}\n{report.flows_table(cells)}", flush=True)
    return cells


@contextlib.contextmanager
def servers() -> Iterator[tuple[dict[str, str], MariaDB]]:
    """Servers of this run alone, gone with their data afterwards."""
    with (
        tempfile.TemporaryDirectory(prefix="herocache-bench-") as home,
        MariaDB(Path(home) / "mariadb") as database,
        Redis(Path(home) / "redis") as cache,
    ):
        database.apply_schema()
        yield {**database.environment(), **cache.environment()}, database


@contextlib.contextmanager
def contending(
    environment: Mapping[str, str], truth: Mapping[int, Hero]
) -> Iterator[list[Contender]]:
    encoded = {i: encode(hero) for i, hero in truth.items()}
    contenders = [
        Ours(environment),
        Raw(environment, encoded),
        Kept(environment),
        Template(environment),
    ]
    try:
        yield contenders
    finally:
        for contender in contenders:
            contender.close()


@contextlib.contextmanager
def far_away(environment: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """The same servers, a network away."""
    address = urlsplit(environment["REDIS_URL"])
    with (
        delayed(environment["DB_HOST"], int(environment["DB_PORT"]), NETWORK_SECONDS) as mysql,
        delayed(str(address.hostname), address.port or 0, NETWORK_SECONDS) as cache,
    ):
        url = address._replace(netloc=f"{address.hostname}:{cache}").geturl()
        yield {**environment, "DB_PORT": str(mysql), "REDIS_URL": url}


def seed(database: MariaDB, rows: int) -> dict[int, Hero]:
    """Fills the table; returns its rows by id."""
    lines = (line for chunk in hero_lines(rows, seed=1) for line in chunk.splitlines())
    parts = [line.split(",") for line in lines]
    heroes = [
        (int(i), hero, power, name, int(xp), color) for i, hero, power, name, xp, color in parts
    ]
    with database.connect_as_root() as connection, connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO heroes (id, hero, power, name, xp, color) VALUES (%s, %s, %s, %s, %s, %s)",
            heroes,
        )
    return {hero[0]: dict(zip(COLUMNS, hero)) for hero in heroes}


def setting(environment: Mapping[str, str]) -> str:
    """What the figures were measured with."""
    with connect(environment) as database, database.cursor() as cursor:
        cursor.execute("SELECT VERSION(), @@innodb_flush_log_at_trx_commit")
        mysql, flush = cursor.fetchone()
    with redis.Redis.from_url(environment["REDIS_URL"]) as cache:
        info = cache.info("server")
    packages = ", ".join(
        f"{name} {version(name)}" for name in ("chalice", "PyMySQL", "redis", "hiredis")
    )
    return (
        f"{os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}, "
        f"{packages}\n"
        f"{mysql} (innodb_flush_log_at_trx_commit = {flush}), Redis {info['redis_version']}\n"
        f"load average before the run {os.getloadavg()[0]:.1f}: what else runs here adds noise"
    )


def ping(environment: Mapping[str, str], times: int = 100) -> float:
    """Median milliseconds of a PING to Redis on a bare socket."""
    address = urlsplit(environment["REDIS_URL"])
    samples = []
    with socket.create_connection((str(address.hostname), address.port or 0)) as cache:
        for _ in range(times):
            started = time.perf_counter()
            cache.sendall(b"PING\r\n")
            cache.recv(64)
            samples.append(time.perf_counter() - started)
    return statistics.median(samples) * 1000


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("stopped; its servers too")
