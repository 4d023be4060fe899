"""One round: workers and nemesis for a while on servers of their own, then the verdict."""

import contextlib
import ctypes
import math
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import redis

from chalicelib.config import DbEngine
from local.servers import DataApi, MariaDB, Redis
from tests.history.checker import check
from tests.history.counters import check_counts
from tests.history.final_check import check_entries
from tests.history.ledger import (
    open_ledger,
    read_counts,
    read_ledger,
    read_pages,
    read_products,
    read_table,
)
from tests.history.nemesis import FAULTS, LOSING, Nemesis, Scene
from tests.history.pending import check_pending
from tests.history.standbys import database_pair, redis_pair
from tests.history.stop_points import Orders
from tests.history.systems import HEROCACHE
from tests.history.verdict import Verdict
from tests.history.worker import MIX, NEWS, SYNC, Plan
from tests.history.worker_processes import CONTEXT, Crew
from tests.support.relay import Relay, relaying

PROCESSES = 5
# How long the Data API keeps the row locks of a writer that was killed. AWS waits for three
# minutes, which is longer than a round.
IDLE_SECONDS = 5


@dataclass
class Report:
    verdict: Verdict = field(default_factory=Verdict)
    injected: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0

    def __iadd__(self, other: "Report") -> "Report":
        self.verdict += other.verdict
        self.injected += other.injected
        self.seconds += other.seconds
        return self

    @property
    def operations(self) -> int:
        return sum(self.verdict.checked.values())

    def __str__(self) -> str:
        lines = [f"{self.operations} operations checked in {self.seconds:.0f} s"]
        lines += [f"  {count:8} {what}" for what, count in sorted(self.verdict.checked.items())]
        lines.append(f"{sum(self.injected.values())} faults injected")
        lines += [f"  {count:8} {kind}" for kind, count in sorted(self.injected.items())]
        lines.append(f"{sum(self.verdict.violations.values())} violations")
        lines += [f"  {count:8} {kind}" for kind, count in self.verdict.violations.most_common()]
        return "\n".join([*lines, *self.verdict.examples])


@dataclass(frozen=True)
class Servers:
    """Of one's own: they are killed."""

    mariadb: MariaDB
    mariadb_standby: MariaDB
    redis: Redis
    redis_standby: Redis


@contextlib.contextmanager
def servers(home: Path) -> Iterator[Servers]:
    with database_pair(home) as databases, redis_pair(home) as caches:
        yield Servers(*databases, *caches)


@contextlib.contextmanager
def reaching(
    database: MariaDB, endpoint: Relay, engine: DbEngine, folder: Path
) -> Iterator[Mapping[str, str]]:
    """The settings that lead workers to the database behind `endpoint`."""
    direct = {**database.environment(), "DB_PORT": str(endpoint.port)}
    if engine is DbEngine.MYSQL:
        yield direct
        return
    with DataApi(folder / "data_api", lambda: direct) as server:
        server.control(limits={"idle_seconds": IDLE_SECONDS})
        yield server.environment()


def play(
    on: Servers,
    folder: Path,
    seconds: float,
    *,
    system: str = HEROCACHE,
    kinds: list[str] | None = None,
    seed: int = 0,
    settings: Mapping[str, str] | None = None,
    mix: Mapping[str, float] = MIX,
    engine: DbEngine = DbEngine.MYSQL,
) -> Report:
    """`kinds` of faults, all by default; a `mix` of requests; the `engine` that the workers use.
    `folder` is new and holds the records afterwards."""
    started = time.monotonic()
    folder.mkdir(parents=True)
    open_ledger(on.mariadb)
    on.redis.start()
    with redis.Redis(host="127.0.0.1", port=on.redis.port) as client:
        client.flushall()
        client.save()  # else it begins with an earlier round's data when it is started again
    environment = {**on.mariadb.environment(), **on.redis.environment(), **(settings or {})}
    report = Report()
    orders = Orders(CONTEXT, PROCESSES)
    until = CONTEXT.RawValue(ctypes.c_double, math.inf)
    news = CONTEXT.RawArray(ctypes.c_uint64, NEWS)
    with (
        relaying(on.redis.port) as relay,
        relaying(on.mariadb.port) as endpoint,
        reaching(on.mariadb, endpoint, engine, folder) as way,
    ):

        def own_settings(process: int) -> Mapping[str, str]:
            far = {"REDIS_URL": f"redis://127.0.0.1:{relay.port}"}
            return far if process < PROCESSES // 2 else {}

        through = {**on.redis.environment(), **way, **(settings or {})}
        plan = Plan(str(seed), system, through, folder, until, orders, news, mix, threads=2)
        crew = Crew(plan, PROCESSES, own_settings)
        servers_of_all = (on.mariadb, on.mariadb_standby, on.redis, on.redis_standby)
        try:
            crew.wait_until_all_begun()
            until.value = time.monotonic() + seconds
            scene = Scene(*servers_of_all, relay, endpoint, crew, orders, PROCESSES, until.value)
            nemesis = Nemesis(scene, seed)
            nemesis.run(list(FAULTS) if kinds is None else kinds)
            hung = crew.join()
        finally:
            on.redis.start()
            on.mariadb.start()
            crew.end()
    report.injected = nemesis.injected
    for number in range(hung):
        report.verdict.violated("worker never came back", str(number))
    for code in crew.unexpected_deaths():
        report.verdict.violated("worker died on a bug", f"exit code {code}, see {folder}")
    report.verdict += check_entries(system, environment, on.mariadb, has_runs=SYNC in mix)
    report.verdict += check(
        folder, read_ledger(on.mariadb), read_table(on.mariadb), nemesis.crashes
    )
    report.verdict += check_counts(
        folder, read_counts(on.mariadb), read_products(on.mariadb), nemesis.crashes
    )
    may_lose = not LOSING.isdisjoint(nemesis.injected)
    report.verdict += check_pending(folder, read_pages(on.mariadb), may_lose=may_lose)
    report.seconds = time.monotonic() - started
    return report
