"""`python -m bench.sync`: how fast a run of the sync brings rows and their public keys in step.

    to Redis: limit     the database's client streams the rows, as commands; `redis-cli --pipe`
                        stores them: two processes
    to Redis: ours      a run that hands ranges out, and two processes that work them off
    to MariaDB: limit   multi-row upserts of prepared rows over two connections
    to MariaDB: ours    the same two processes; each public key was changed

They take turns, each once in a round. The time that S3 takes to tell is not counted. Beside
seconds by the clock it measures processor time, of both servers and their clients together: that
says more where others use the machine too.
"""

import argparse
import contextlib
import os
import queue
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import boto3
import redis

from bench.candidates.raw_drivers import connect
from bench.progress import progress
from bench.servers.mariadb_and_redis import servers, setting
from bench.servers.moto_s3 import S3
from chalicelib import services
from chalicelib.tables import JSON, PRODUCTS, TO_CACHE, TO_DATABASE
from grader.text_table import table
from local.lambda_function.container import Container
from local.machine import find_program
from local.servers import MariaDB, Redis
from local.servers.mariadb import integers

TO_REDIS_AT_LEAST = 0.5
TO_MARIADB_AT_LEAST = 0.6
GROWTH_AT_MOST_MB = 64
PROCESSES = 2
UPSERTED_ROWS = 1_000
PRICE = 400
BUCKET = "ranges"

COLUMNS = ", ".join(column.name for column in PRODUCTS.columns)
# A row as a command of Redis's protocol. The client ends a line with the last line feed.
AS_COMMAND = """
SELECT CONCAT('*3\\r\\n$3\\r\\nSET\\r\\n$', LENGTH(name), '\\r\\n', name, '\\r\\n$', LENGTH(json),
    '\\r\\n', json, '\\r')
FROM (SELECT CONCAT('Product:', ProductId) AS name, CONCAT('{"ProductId":', ProductId,
    ',"ProductName":"', ProductName, '","Description":"', Description, '","QuantityInStock":',
    QuantityInStock, ',"Price":', Price + %d, '}') AS json FROM products) AS commands
"""

# A process of its own: what `ru_maxrss` says is inherited from the one that started it.
MEASURE_MEMORY = """
import json, re, sys
from chalicelib import services

def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])

run = services.container().sync.run
run("employees", alone=True)
before = peak()
record = run("products", alone=True)
assert record["outcome"] == "done", record
print((peak() - before) / 1024, record["to_cache"]["changed"])
"""


class Took(NamedTuple):
    """Seconds by the clock, and of processor time."""

    clock: float
    processor: float


Rounds = dict[str, list[Took]]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.sync", description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--memory-rows", type=int, nargs="*", default=[100_000, 1_000_000])
    asked = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended before it was done"))
    with servers() as (home, database, cache), S3(home / "s3") as s3:
        environment = {**database.environment(), **cache.environment(), **s3.environment()}
        environment["RANGES_BUCKET"] = BUCKET
        print(setting(environment), "", sep="\n", flush=True)
        with patch.dict(os.environ, environment), stage(database, cache, environment) as bench:
            boto3.client("s3").create_bucket(Bucket=BUCKET)
            print(measured(bench, asked.rows, asked.rounds, asked.memory_rows))


class Stage:
    """The servers, and processes that run the functions of app.py."""

    def __init__(
        self, database: MariaDB, cache: Redis, environment: Mapping[str, str], log: Any
    ) -> None:
        self.database = database
        self.environment = environment
        self._cache = cache
        self.redis = redis.Redis(port=cache.port)
        self._redis_port = str(cache.port)
        self.containers = [Container(environment, log) for _ in range(PROCESSES)]

    def processor_seconds(self) -> float:
        """Of the servers, the containers, this process and the programs it has waited for."""
        pids = [self.database.pid, self._cache.pid, *[each.pid for each in self.containers]]
        stats = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in pids]
        ticks = sum(int(fields[11]) + int(fields[12]) for fields in stats)
        return ticks / os.sysconf("SC_CLK_TCK") + sum(os.times()[:4])

    def query(self, sql: str) -> Any:
        return self.database.query(sql)

    def run(self) -> Any:
        """A run, and its ranges, worked off by all containers. What the run has changed."""
        first = self.containers[0]
        record = first.invoke("sync", {"table": PRODUCTS.name})
        numbers: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        for number in [*range(1, record["ranges"] + 1), *[None] * PROCESSES]:
            numbers.put(number)

        def work_off(container: Container) -> None:
            while (number := numbers.get()) is not None:
                [done] = container.invoke("sync_range", event(record["run"], number))
                assert done["outcome"] == "done", done

        with ThreadPoolExecutor(PROCESSES) as threads:
            list(threads.map(work_off, self.containers))
        [(outcome, to_cache, to_database)] = self.query(
            "SELECT outcome, to_cache_changed, to_database_changed FROM sync_runs"
            f" WHERE id = {record['run']}"
        )
        assert outcome == "done", outcome
        return to_cache + to_database

    def stream(self, more: int = 0) -> None:
        """The limit: rows into public keys, with a price that is so much higher."""
        program = find_program("mariadb", "mysql")
        assert program is not None, "no client of the database is installed"
        server = self.database
        where = [f"--host={server.address}", f"--port={server.port}", f"--user={server.user}"]
        how = ["--skip-column-names", "--raw", "--quick", "-e", AS_COMMAND % more]
        with subprocess.Popen(
            [program, "--no-defaults", *where, server.database, *how],
            env={**os.environ, "MYSQL_PWD": server.password},
            stdout=subprocess.PIPE,
        ) as rows:
            pipe = ["redis-cli", "-p", self._redis_port, "--pipe"]
            subprocess.run(pipe, stdin=rows.stdout, check=True, stdout=subprocess.DEVNULL)
        assert rows.returncode == 0

    def watch(self, direction: str) -> None:
        """Every row, as if no run had ever looked."""
        self.query("DELETE FROM watched_ranges")
        self.query("DELETE FROM watched")
        services.container().watch_changes.add(PRODUCTS, None, JSON, direction)


@contextlib.contextmanager
def stage(database: MariaDB, cache: Redis, environment: Mapping[str, str]) -> Iterator[Stage]:
    with (database.home / "functions.log").open("wb") as log:
        made = Stage(database, cache, environment, log)
        try:
            yield made
        finally:
            for container in made.containers:
                container.kill()


def event(run: int, number: int) -> dict[str, Any]:
    stored = {"bucket": {"name": BUCKET}, "object": {"key": f"{run}/{number}.json"}}
    return {"Records": [{"eventName": "ObjectCreated:Put", "s3": stored}]}


def measured(bench: Stage, rows: int, rounds: int, memory_rows: Sequence[int]) -> str:
    """Measures everything. Returns tables as text."""
    fill(bench, rows)
    halves = prepared(bench)
    to_redis: Rounds = {"limit": [], "ours": []}
    to_mariadb: Rounds = {"limit": [], "ours": []}
    bench.watch(TO_CACHE)
    bench.run()  # imports, connections
    for n in range(rounds):
        progress(f"round {n + 1}: rows to public keys")
        bench.redis.flushall()
        to_redis["limit"].append(timed(bench, bench.stream))
        bench.redis.flushall()
        bench.watch(TO_CACHE)
        to_redis["ours"].append(timed(bench, bench.run, rows))
        progress(f"round {n + 1}: public keys to rows")
        bench.watch(TO_DATABASE)
        bench.run()
        to_mariadb["limit"].append(timed(bench, lambda: upsert(bench, halves)))
        bench.query(f"UPDATE products SET Price = {PRICE}")
        bench.stream(more=1)
        to_mariadb["ours"].append(timed(bench, bench.run, rows))
        bench.query(f"UPDATE products SET Price = {PRICE}")
    progress("a run with nothing to do")
    statements = idle(bench)
    progress("memory")
    growth = [memory_growth(bench, count) for count in memory_rows]
    head = ["limit", "ours", "rows a second", "ratio", "asked", ""]
    ways = [
        ("database to public keys", to_redis, TO_REDIS_AT_LEAST),
        ("public keys to database", to_mariadb, TO_MARIADB_AT_LEAST),
    ]
    return "\n\n".join(
        [
            *(
                table(
                    [
                        [f"{what}, {rows:,} products", *head],
                        *(
                            row(name, rows, seconds(found, at), asked)
                            for name, found, asked in ways
                        ),
                    ]
                )
                for at, what in enumerate(("seconds by the clock", "processor seconds"))
            ),
            table(
                [
                    ["", "measured", "asked", ""],
                    count("nothing to do: statements for the database", statements, 0),
                    *(
                        count(f"memory of a run, {n:,} rows: MB more", mb, GROWTH_AT_MOST_MB)
                        for n, mb in zip(memory_rows, growth)
                    ),
                ]
            ),
        ]
    )


def fill(bench: Stage, rows: int) -> None:
    progress(f"making {rows:,} products")
    bench.query("TRUNCATE products")
    bench.query(
        "INSERT INTO products SELECT seq, CONCAT('Product ', seq), 'One of very many', seq % 1000,"
        f" {PRICE} FROM {integers(1, rows)}"
    )


def timed(bench: Stage, work: Callable[[], Any], expected: int | None = None) -> Took:
    started, used = time.perf_counter(), bench.processor_seconds()
    found = work()
    took = Took(time.perf_counter() - started, bench.processor_seconds() - used)
    assert expected is None or found == expected, (found, expected)
    return took


def prepared(bench: Stage) -> list[list[str]]:
    """Statements that write each row again, with another price: for each connection its own."""
    halves: list[list[str]] = [[] for _ in range(PROCESSES)]
    found = bench.query(f"SELECT {COLUMNS} FROM products ORDER BY ProductId")
    half = -(-len(found) // PROCESSES)
    updates = ", ".join(f"{c.name} = VALUES({c.name})" for c in PRODUCTS.columns[1:])
    for start in range(0, len(found), UPSERTED_ROWS):
        values = ",".join(
            f"({key},'{name}','{text}',{stock},{price + 1})"
            for key, name, text, stock, price in found[start : start + UPSERTED_ROWS]
        )
        halves[start // half].append(
            f"INSERT INTO products ({COLUMNS}) VALUES {values} ON DUPLICATE KEY UPDATE {updates}"
        )
    return halves


def upsert(bench: Stage, halves: Sequence[Sequence[str]]) -> None:
    """The limit."""

    def run(statements: Sequence[str]) -> None:
        with connect(bench.environment) as connection, connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
                connection.commit()

    with ThreadPoolExecutor(PROCESSES) as threads:
        list(threads.map(run, halves))


def idle(bench: Stage) -> int:
    """How many statements a run that has nothing to do sends."""
    bench.watch(TO_CACHE)
    bench.run()
    for _ in range(2):
        record = bench.containers[0].invoke("sync", {})
    own = questions(bench) - questions(bench)
    before = questions(bench)
    record = bench.containers[0].invoke("sync", {})
    assert record["outcome"] == "idle", record
    return questions(bench) - before + own


def questions(bench: Stage) -> int:
    [(_, value)] = bench.query("SHOW GLOBAL STATUS LIKE 'Questions'")
    return int(value)


def memory_growth(bench: Stage, rows: int) -> float:
    """Megabytes by which a run raises the peak of its process."""
    fill(bench, rows)
    bench.redis.flushall()
    bench.watch(TO_CACHE)
    done = subprocess.run(
        [sys.executable, "-c", MEASURE_MEMORY],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        capture_output=True,
        text=True,
        check=True,
    )
    growth, changed = done.stdout.splitlines()[-1].split()
    assert int(changed) == rows, done.stdout
    return float(growth)


def seconds(found: Rounds, at: int) -> list[float]:
    """The median of the limit, and of ours; `at`: a place in `Took`."""
    return [statistics.median(took[at] for took in found[name]) for name in ("limit", "ours")]


def row(what: str, rows: int, found: Sequence[float], at_least: float) -> list[str]:
    limit, ours = found
    ratio = limit / ours
    verdict = "PASS" if ratio >= at_least else "FAIL"
    times = [f"{each:.2f}" for each in found]
    return [what, *times, f"{rows / ours:,.0f}", f"{ratio:.2f}", f">= {at_least:.2f}", verdict]


def count(what: str, found: float, at_most: float) -> list[str]:
    verdict = "PASS" if found <= at_most else "FAIL"
    return [what, f"{found:.0f}", f"<= {at_most:.0f}", verdict]


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("stopped; its servers too")
