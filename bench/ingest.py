"""`python -m bench.ingest`: how fast an uploaded file is loaded, beside other ways to load it.

    client       the database's own client loads the same file (LOAD DATA LOCAL INFILE)
    ours         the handler of S3's event: from its call to the COMMIT, and to its return, after
                 which no reader sees older rows
    INSERTs      PyMySQL, 1,000 rows in a statement, one transaction; fewer rows
    row by row   PyMySQL, a statement and a COMMIT for each row; fewer rows

`client` and `ours` take turns, each once in a round. In "empty" the table is emptied before each
load. In "existing" it has all the rows, and the client replaces them.
"""

import argparse
import contextlib
import io
import itertools
import json
import logging
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

from bench.candidates.raw_drivers import INSERT_HERO, connect
from bench.progress import progress
from bench.servers.mariadb_and_redis import servers, setting
from bench.servers.moto_s3 import S3, Uploads
from chalicelib import services
from chalicelib.cache.generations import Generations
from chalicelib.handlers import entry_points
from chalicelib.ingest import service as ingest_service
from chalicelib.tables import HEROES
from grader.text_table import milliseconds, table
from local.machine import find_program
from local.servers import MariaDB
from seed.generate_heroes import hero_lines, write_heroes

EMPTY_AT_LEAST = 0.85
EXISTING_AT_LEAST = 0.7
GROWTH_AT_MOST_MB = 64
BATCH_ROWS = 1_000
SMALL_ROWS = 25
SMALL_ROUNDS = 20
WAYS_ROWS = (1_000, 5_000, 20_000)
WAYS_ROUNDS = 3

MEASURE_MEMORY = """
import json, re, sys
from chalicelib.handlers import entry_points

def peak():  # not ru_maxrss, which a process inherits from the one that started it
    return int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])

events = json.loads(sys.argv[1])
entry_points.ingest(events[0])
before = peak()
[summary] = entry_points.ingest(events[1])
assert summary["status"] == "loaded", summary
print((peak() - before) / 1024, summary["rows"])
"""

Seconds = dict[str, list[float]]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.ingest", description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--memory-rows", type=int, nargs="*", default=[100_000, 1_000_000])
    asked = parser.parse_args()
    with servers() as (home, database, cache):
        environment = {**database.environment(), **cache.environment()}
        print(setting(environment), "", sep="\n", flush=True)
        print(measured(home, database, environment, asked.rows, asked.rounds, asked.memory_rows))


def measured(
    home: Path,
    database: MariaDB,
    environment: Mapping[str, str],
    rows: int,
    rounds: int,
    memory_rows: Sequence[int],
) -> str:
    """Measures everything. Returns tables as text, and leaves other heroes in the table."""
    logging.getLogger("herocache").setLevel(logging.WARNING)
    file = home / "heroes.csv"
    progress(f"making a file of {rows:,} rows")
    write_heroes(file, rows, seed=1)
    with S3(home / "s3") as s3, patch.dict(os.environ, {**environment, **s3.environment()}):
        services.forget()
        uploads = Uploads("loads")
        empty = race(database, uploads, file, rounds, is_empty=True)
        existing = race(database, uploads, file, rounds, is_empty=False)
        progress("other ways to load rows")
        fewer = {"INSERTs": rows // 5, "row by row": min(rows, 2_000)}
        others = {
            "INSERTs": insert_batches(environment, fewer["INSERTs"]),
            "row by row": insert_one_by_one(environment, fewer["row by row"]),
        }
        progress("files of few rows")
        small = readable_after(uploads)
        ways = {count: both_ways(uploads, count) for count in WAYS_ROWS}
        progress("memory of large loads")
        growth = [memory_growth(home, uploads, count) for count in memory_rows]
    megabytes = file.stat().st_size / 1e6
    return "\n\n".join(
        [
            f"Loading {rows:,} heroes ({megabytes:.0f} MB), medians of {rounds} rounds\n"
            + _loads_table(rows, empty, existing, fewer, others),
            _targets_table(empty, existing, growth, memory_rows),
            f"From the upload of {SMALL_ROWS} rows to the cached read that sees them:"
            f" {milliseconds(statistics.median(small))} ms"
            f" (median of {SMALL_ROUNDS}, without the time S3 takes to tell)",
            "From the event to its end, rows that exist, by what becomes of their entries"
            f" (medians of {WAYS_ROUNDS})\n" + _ways_table(ways),
        ]
    )


def race(
    database: MariaDB, uploads: Uploads, file: Path, rounds: int, *, is_empty: bool
) -> Seconds:
    """Seconds of each load, by its name. `ours, to COMMIT` is a part of `ours`."""
    rows = sum(1 for _ in file.open("rb"))
    found: Seconds = {"client": [], "ours, to COMMIT": [], "ours": []}

    def client() -> None:
        started = time.perf_counter()
        load_with_client(database, file, replace=not is_empty)
        found["client"].append(time.perf_counter() - started)

    def ours() -> None:
        event = uploads.put_file(file)
        started = time.perf_counter()
        with _waits() as waited:
            ingested(event)
        took = time.perf_counter() - started
        found["ours"].append(took)
        found["ours, to COMMIT"].append(took - sum(waited))

    candidates: list[Callable[[], None]] = [client, ours]
    for i in range(-1, rounds):  # the first one warms up
        progress(
            f"load {rows:,} rows, {'empty table' if is_empty else 'existing rows'}: round {i + 1}"
        )
        for candidate in candidates[:: -1 if i % 2 else 1]:
            if is_empty:
                database.query("TRUNCATE heroes")
            candidate()
            assert database.query("SELECT COUNT(*) FROM heroes") == [(rows,)]
    return {name: seconds[1:] for name, seconds in found.items()}


def ingested(event: Mapping[str, object]) -> None:
    """Loads the file, and hides the metrics that the function prints."""
    with contextlib.redirect_stdout(io.StringIO()):
        [summary] = entry_points.ingest(event)
    assert summary["status"] == "loaded", summary


def load_with_client(database: MariaDB, file: Path, *, replace: bool) -> None:
    program = find_program("mariadb", "mysql")
    assert program is not None, "no client of the database is installed"
    load = (
        f"LOAD DATA LOCAL INFILE '{file}' {'REPLACE ' * replace}INTO TABLE heroes"
        " CHARACTER SET utf8mb4 FIELDS TERMINATED BY ',' OPTIONALLY ENCLOSED BY '\"'"
    )
    where = [f"--host={database.address}", f"--port={database.port}", f"--user={database.user}"]
    subprocess.run(
        [program, "--no-defaults", *where, "--local-infile=1", database.database, "-e", load],
        env={**os.environ, "MYSQL_PWD": database.password},
        check=True,
        stdout=subprocess.DEVNULL,
    )


def insert_batches(environment: Mapping[str, str], rows: int) -> float:
    with connect(environment, autocommit=False) as database, database.cursor() as cursor:
        cursor.execute("TRUNCATE heroes")
        lines = _split_lines(rows)
        started = time.perf_counter()
        while batch := list(itertools.islice(lines, BATCH_ROWS)):
            cursor.executemany(INSERT_HERO, batch)
        database.commit()
        return time.perf_counter() - started


def insert_one_by_one(environment: Mapping[str, str], rows: int) -> float:
    with connect(environment) as database, database.cursor() as cursor:
        cursor.execute("TRUNCATE heroes")
        lines = list(_split_lines(rows))
        started = time.perf_counter()
        for line in lines:
            cursor.execute(INSERT_HERO, line)
        return time.perf_counter() - started


def readable_after(uploads: Uploads) -> list[float]:
    """Seconds from the PUT to the answer of a cached read, for files of a few rows that exist."""
    samples = []
    for i in range(SMALL_ROUNDS + 3):
        lines = "".join(f"{n},Nova,light,Ada,{i},red\n" for n in range(1, SMALL_ROWS + 1))
        started = time.perf_counter()
        ingested(uploads.put(lines.encode()))
        answer = services.container().rows.read(HEROES, HEROES.key, [SMALL_ROWS], True)
        samples.append(time.perf_counter() - started)
        assert f'"xp":{i},'.encode() in answer.json
    return samples[3:]


def both_ways(uploads: Uploads, rows: int) -> Seconds:
    """Seconds from the event to the return: handled as a small file, and as a large one."""
    found: Seconds = {"published": [], "emptied": []}
    limits = (ingest_service.MAX_SMALL_BYTES, ingest_service.MAX_SMALL_ROWS)
    try:
        for i in range(WAYS_ROUNDS + 1):
            lines = "".join(f"{n},Nova,light,Ada {n},{n},r{i}\n" for n in range(1, rows + 1))
            for way, seconds in found.items():
                ingest_service.MAX_SMALL_BYTES = 10**9 if way == "published" else 0
                ingest_service.MAX_SMALL_ROWS = 10**9
                event = uploads.put(lines.encode())
                started = time.perf_counter()
                ingested(event)
                seconds.append(time.perf_counter() - started)
    finally:
        ingest_service.MAX_SMALL_BYTES, ingest_service.MAX_SMALL_ROWS = limits
    return {way: seconds[1:] for way, seconds in found.items()}


def memory_growth(home: Path, uploads: Uploads, rows: int) -> float:
    """How many MB the peak memory of a process grows while it loads so many rows."""
    file = home / "memory.csv"
    write_heroes(file, rows, seed=1)
    events = [uploads.put(b"1,Nova,light,Ada,1,red\n"), uploads.put_file(file)]
    file.unlink()
    ran = subprocess.run(
        [sys.executable, "-c", MEASURE_MEMORY, json.dumps(events)],
        check=True,
        capture_output=True,
        text=True,
    )
    growth, loaded = ran.stdout.splitlines()[-1].split()
    assert int(loaded) == rows
    return float(growth)


def _split_lines(rows: int) -> Iterator[list[str]]:
    return (line.split(",") for chunk in hero_lines(rows, seed=1) for line in chunk.splitlines())


@contextlib.contextmanager
def _waits() -> Iterator[list[float]]:
    """Collects the seconds of each wait after a COMMIT for containers to forget the generation."""
    waited: list[float] = []
    original = Generations.wait_until_known

    def timed(*arguments: Any) -> None:
        started = time.perf_counter()
        original(*arguments)
        waited.append(time.perf_counter() - started)

    Generations.wait_until_known = timed  # type: ignore[method-assign, assignment]
    try:
        yield waited
    finally:
        Generations.wait_until_known = original  # type: ignore[method-assign]


def _loads_table(
    rows: int,
    empty: Seconds,
    existing: Seconds,
    fewer: Mapping[str, int],
    others: Mapping[str, float],
) -> str:
    found = [["", "empty table, s", "rows/s", "existing rows, s", "rows/s"]]
    for name in empty:
        found.append([name, *_speed(rows, empty[name]), *_speed(rows, existing[name])])
    for name, seconds in others.items():
        found.append([f"{name}, {fewer[name]:,}", *_speed(fewer[name], [seconds]), "-", "-"])
    return table(found)


def _ways_table(ways: Mapping[int, Seconds]) -> str:
    found = [["rows", "published, ms", "table emptied, ms"]]
    for rows, seconds in ways.items():
        found.append(
            [f"{rows:,}", *(milliseconds(statistics.median(each)) for each in seconds.values())]
        )
    return table(found)


def _speed(rows: int, seconds: Sequence[float]) -> tuple[str, str]:
    median = statistics.median(seconds)
    return f"{median:.2f}", f"{rows / median:,.0f}"


def _targets_table(
    empty: Seconds, existing: Seconds, growth: Sequence[float], memory_rows: Sequence[int]
) -> str:
    found = [["target", "measured", "asked", "", "each round"]]
    for what, seconds, at_least in (
        ("empty table", empty, EMPTY_AT_LEAST),
        ("existing rows", existing, EXISTING_AT_LEAST),
    ):
        for name in ("ours, to COMMIT", "ours"):
            ratio = statistics.median(seconds["client"]) / statistics.median(seconds[name])
            each = [c / o for c, o in zip(seconds["client"], seconds[name])]
            verdict = "PASS" if ratio >= at_least else "FAIL"
            found.append(
                [
                    f"{what}: rows/s, {name} / client",
                    *(f"{ratio:.2f}", f">= {at_least:.2f}", verdict),
                    " ".join(f"{r:.2f}" for r in each),
                ]
            )
    for count, grown in zip(memory_rows, growth):
        verdict = "PASS" if grown <= GROWTH_AT_MOST_MB else "FAIL"
        asked = f"<= {GROWTH_AT_MOST_MB}"
        found.append([f"memory grown, MB, {count:,} rows", f"{grown:.0f}", asked, verdict, ""])
    return table(found)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("stopped; its servers too")
