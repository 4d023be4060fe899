"""Over HTTP: cached and uncached reads of `chalice local`, beside the same calls without HTTP.

kept     one kept connection; http.client sets TCP_NODELAY on it
crowd    threads that each open a new connection for every cached read, as fast as they can
"""

import contextlib
import http.client
import json
import math
import random
import statistics
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from bench.candidates.candidate import Call, Candidate, Environment
from bench.candidates.groups import closing
from bench.candidates.ours import Ours
from bench.measurements.interleaved import (
    BATCHES,
    Limits,
    Results,
    Seeded,
    quick_collections,
    timed,
    warm_up,
)
from bench.workloads import HIT, UNCACHED, Row
from grader.text_table import milliseconds, table
from local.machine import LOOPBACK
from local.servers.app import QuietApp

ROWS = 100
WORKLOADS = (HIT, UNCACHED)
CROWDS = (16, 64)
TIMEOUT_SECONDS = 30


class OverHttp(Candidate):
    """Ours over a kept connection. It shares the Redis database with ours in this process, as two
    containers of one deployment do."""

    name = "http"
    redis_database = Ours.redis_database
    workloads = WORKLOADS

    def __init__(self, environment: Environment, port: int) -> None:
        super().__init__(environment)
        self._connection = http.client.HTTPConnection(LOOPBACK, port, timeout=TIMEOUT_SECONDS)

    def read(self, ids: Sequence[int], use_cache: bool) -> Call:
        body = read_request(ids, use_cache)
        return lambda: post(self._connection, body)

    def insert(self, table: str, rows: Sequence[Row], use_cache: bool) -> Call:
        raise TypeError("only reads are measured over HTTP")

    def close(self) -> None:
        self._connection.close()
        super().close()


@dataclass(frozen=True)
class Crowd:
    """What `threads` saw in `seconds`: the time of each answer, and the errors by name."""

    threads: int
    seconds: float
    times: Sequence[float]
    failed: Counter[str]


def read_request(ids: Sequence[int], use_cache: bool) -> bytes:
    request = {"REQUEST": "read", "SQLS": list(ids), "USE_CACHE": str(use_cache)}
    return json.dumps(request).encode()


def post(connection: http.client.HTTPConnection, body: bytes) -> bytes:
    connection.request("POST", "/", body)
    response = connection.getresponse()
    answer = response.read()
    assert response.status == 200, answer
    return answer


@contextlib.contextmanager
def local_app(environment: Environment, home: Path) -> Iterator[int]:
    """Runs `chalice local`. Gives its port."""
    ours = Ours(environment)
    ours.close()
    with QuietApp(home / "app", settings=ours.environment) as app:
        yield app.port


def time_kept(environment: Environment, port: int, seeded: Seeded, limits: Limits) -> Results:
    """Times four calls by turns, so that noise falls on all of them alike."""
    candidates: list[Candidate] = [OverHttp(environment, port), Ours(environment)]
    results: Results = {
        (workload, ROWS): {c.name: [] for c in candidates} for workload in WORKLOADS
    }
    batches = [seeded.batch(HIT, ROWS) for _ in range(BATCHES)]
    turns = [(workload, candidate) for workload in WORKLOADS for candidate in candidates]
    with closing(candidates):
        for workload, candidate in turns:
            warm_up(workload, candidate, batches, seeded)
        with quick_collections():
            for i in limits.rounds(HIT, ROWS):
                for workload, candidate in random.sample(turns, len(turns)):
                    seconds = timed(workload, candidate, batches[i % BATCHES])
                    results[workload, ROWS][candidate.name].append(seconds)
    return results


def crowd(port: int, seeded: Seeded, threads: int, seconds: float) -> Crowd:
    body = read_request(seeded.batch(HIT, ROWS), use_cache=True)
    start = threading.Barrier(threads)
    times: list[float] = []
    failed: Counter[str] = Counter()

    def read_until_the_end() -> None:
        start.wait()
        end = time.perf_counter() + seconds
        while (started := time.perf_counter()) < end:
            connection = http.client.HTTPConnection(LOOPBACK, port, timeout=TIMEOUT_SECONDS)
            try:
                post(connection, body)
                times.append(time.perf_counter() - started)
            except (OSError, http.client.HTTPException) as error:
                failed[type(error).__name__] += 1
            finally:
                connection.close()

    with ThreadPoolExecutor(threads) as pool:
        for done in [pool.submit(read_until_the_end) for _ in range(threads)]:
            done.result()
    return Crowd(threads, seconds, times, failed)


def crowds_table(crowds: Sequence[Crowd]) -> str:
    rows = [["threads", "requests/s", "median ms", "p99", "worst", "connections that broke"]]
    for met in crowds:
        times = sorted(met.times) or [math.nan]
        shown = (statistics.median(times), times[len(times) * 99 // 100], times[-1])
        broken = ", ".join(f"{count} {name}" for name, count in met.failed.items()) or "none"
        speed = f"{len(met.times) / met.seconds:.0f}"
        rows.append([str(met.threads), speed, *map(milliseconds, shown), broken])
    return table(rows)
