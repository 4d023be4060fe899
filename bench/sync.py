"""`python -m bench.sync`: how fast a run of the sync brings rows and their public keys in step.

    to Redis: limit     the database's client streams the rows, as commands; `redis-cli --pipe`
                        stores them: two processes
    to Redis: ours      a run that hands ranges out, and two processes that work them off
    to MariaDB: limit   multi-row upserts of prepared rows over two connections
    to MariaDB: ours    the same two processes; each public key was changed

They take turns, each once in a round. The time that S3 takes to tell is not counted.
"""

import argparse
import contextlib
import os
import queue
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest.mock import patch

import boto3
import redis

from bench.candidates.raw_drivers import connect
from bench.progress import progress
from bench.servers.mariadb_and_redis import servers, setting
from bench.servers.moto_s3 import S3
from chalicelib import services
from chalicelib.sync.watches import Watches
from chalicelib.tables import JSON, PRODUCTS, TO_CACHE, TO_DATABASE
from grader.text_table import table
from local.lambda_function.container import Container
from local.machine import find_program
from local.servers import MariaDB, Redis

TO_REDIS_AT_LEAST = 0.5
TO_MARIADB_AT_LEAST = 0.6
GROWTH_AT_MOST_MB = 64
PROCESSES = 2
UPSERTED_ROWS = 1_000
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

Seconds = dict[str, list[float]]


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
        self.redis = redis.Redis(port=cache.port)
        self._redis_port = str(cache.port)
        self.containers = [Container(environment, log) for _ in range(PROCESSES)]

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
        container = services.container()
        Watches(container.database, container.public_store).add(PRODUCTS, None, JSON, direction)


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
    to_redis: Seconds = {"limit": [], "ours": []}
    to_mariadb: Seconds = {"limit": [], "ours": []}
    bench.watch(TO_CACHE)
    bench.run()  # imports, connections
    for n in range(rounds):
        progress(f"round {n + 1}: rows to public keys")
        bench.redis.flushall()
        to_redis["limit"].append(timed(bench.stream))
        bench.redis.flushall()
        bench.watch(TO_CACHE)
        to_redis["ours"].append(timed(bench.run, rows))
        progress(f"round {n + 1}: public keys to rows")
        bench.watch(TO_DATABASE)
        bench.run()
        to_mariadb["limit"].append(upserted(bench, rows))
        bench.run()
        bench.stream(more=1)
        to_mariadb["ours"].append(timed(bench.run, rows))
    progress("a run with nothing to do")
    statements = idle(bench)
    progress("memory")
    growth = [memory_growth(bench, count) for count in memory_rows]
    head = [
        f"seconds for {rows:,} products",
        "limit",
        "ours",
        "rows a second",
        "ratio",
        "asked",
        "",
    ]
    return "\n\n".join(
        [
            table(
                [
                    head,
                    row("database to public keys", rows, to_redis, TO_REDIS_AT_LEAST),
                    row("public keys to database", rows, to_mariadb, TO_MARIADB_AT_LEAST),
                ]
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
        f" 400 FROM seq_1_to_{rows}"
    )


def timed(work: Callable[[], Any], expected: int | None = None) -> float:
    started = time.perf_counter()
    found = work()
    seconds = time.perf_counter() - started
    assert expected is None or found == expected, (found, expected)
    return seconds


def upserted(bench: Stage, rows: int) -> float:
    """The limit: each row again, with another price, by statements that were made before."""
    bench.query("UPDATE products SET Price = Price - 1")
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
    ready = threading.Barrier(PROCESSES + 1)

    def upsert(statements: Sequence[str]) -> None:
        with connect(bench.environment) as connection, connection.cursor() as cursor:
            ready.wait()
            for statement in statements:
                cursor.execute(statement)
                connection.commit()

    threads = [threading.Thread(target=upsert, args=(half,)) for half in halves]
    for thread in threads:
        thread.start()
    ready.wait()
    started = time.perf_counter()
    for thread in threads:
        thread.join()
    return time.perf_counter() - started


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


def row(what: str, rows: int, found: Seconds, at_least: float) -> list[str]:
    limit, ours = (statistics.median(found[name]) for name in ("limit", "ours"))
    ratio = limit / ours
    verdict = "PASS" if ratio >= at_least else "FAIL"
    times = [f"{seconds:.2f}" for seconds in (limit, ours)]
    return [what, *times, f"{rows / ours:,.0f}", f"{ratio:.2f}", f">= {at_least:.2f}", verdict]


def count(what: str, found: float, at_most: float) -> list[str]:
    verdict = "PASS" if found <= at_most else "FAIL"
    return [what, f"{found:.0f}", f"<= {at_most:.0f}", verdict]


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("stopped; its servers too")
