"""MariaDB and Redis for one run: started, seeded, and behind a slower network where asked."""

import contextlib
import os
import platform
import socket
import statistics
import tempfile
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from urllib.parse import urlsplit

import redis

from bench.candidates.candidate import Environment
from bench.candidates.raw_drivers import COLUMNS, INSERT_HERO, connect
from bench.measurements.interleaved import Seeded
from bench.proxies.delay import delayed
from local.machine import ROOT
from local.servers import MariaDB, Redis
from seed.generate_heroes import hero_lines

# One seeded row in so many is kept for the workload that replaces rows.
REPLACEABLE_SHARE = 5
PACKAGES = ("chalice", "PyMySQL", "redis", "hiredis", "dogpile.cache")


@contextlib.contextmanager
def servers() -> Iterator[tuple[Path, MariaDB, Redis]]:
    """Starts servers for this run only. Gives their folder too."""
    with (
        tempfile.TemporaryDirectory(prefix="herocache-bench-") as home,
        MariaDB(Path(home) / "mariadb") as database,
        Redis(Path(home) / "redis") as cache,
    ):
        database.apply_schema()
        yield Path(home), database, cache


def seed(database: MariaDB, rows: int) -> Seeded:
    """Fills the table heroes."""
    lines = (line for chunk in hero_lines(rows, seed=1) for line in chunk.splitlines())
    parts = [line.split(",") for line in lines]
    heroes = [
        (int(i), hero, power, name, int(xp), color) for i, hero, power, name, xp, color in parts
    ]
    with database.connect_as_root() as connection, connection.cursor() as cursor:
        cursor.executemany(INSERT_HERO, heroes)
    kept = len(heroes) // REPLACEABLE_SHARE
    by_id = {hero[0]: dict(zip(COLUMNS, hero)) for hero in heroes[kept:]}
    return Seeded(by_id, [hero[0] for hero in heroes[:kept]])


def copy(database: MariaDB, name: str) -> dict[str, str]:
    """Makes a second database with the same heroes on the same server, and returns its settings. A
    second Redis needs it, because a database's generation belongs to one Redis."""
    schema = (ROOT / "seed" / "schema.sql").read_text(encoding="utf-8")
    script = (
        f"CREATE DATABASE {name} CHARACTER SET utf8mb4;"
        f"GRANT ALL ON {name}.* TO '{database.user}'@'127.0.0.1';"
        f"USE {name};{schema}INSERT INTO heroes SELECT * FROM {database.database}.heroes"
    )
    database.run_script(script)
    return {**database.environment(), "DB_NAME": name}


@contextlib.contextmanager
def far_away(environment: Environment, seconds: float) -> Iterator[dict[str, str]]:
    """Settings of the same servers, each `seconds` of round trip away."""
    address = urlsplit(environment["REDIS_URL"])
    there = [
        (environment["DB_HOST"], int(environment["DB_PORT"])),
        (str(address.hostname), address.port or 0),
    ]
    with delayed(there, seconds) as (mysql, cache):
        url = address._replace(netloc=f"{address.hostname}:{cache}").geturl()
        yield {**environment, "DB_PORT": str(mysql), "REDIS_URL": url}


def setting(environment: Environment) -> str:
    """The machine and the versions of the run, as text."""
    with connect(environment) as database, database.cursor() as cursor:
        cursor.execute("SELECT VERSION(), @@innodb_flush_log_at_trx_commit")
        mysql, flush = cursor.fetchone()
    with redis.Redis.from_url(environment["REDIS_URL"]) as cache:
        info = cache.info("server")
    packages = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    return (
        f"{os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}, "
        f"{packages}\n"
        f"{mysql} (innodb_flush_log_at_trx_commit = {flush}), Redis {info['redis_version']}\n"
        f"load average before the run {os.getloadavg()[0]:.1f}: what else runs here adds noise"
    )


def ping(environment: Environment, times: int = 100) -> float:
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
