"""A thousand readers miss the same key at the same moment: the database is asked once, or nearly.

There are eight processes with 125 threads each, like eight busy `chalice local`. The log of the
database tells how often it was asked.
"""

import multiprocessing
import os
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import pytest

from local.servers import MariaDB, Redis
from tests.conftest import running
from tests.support.witness import Witness

PROCESSES = 4
THREADS = 250
MAX_SELECTS = 3
ROWS = 10
# Values of xp: the first is read by each process as a warm-up, the second by all at once.
WARM, HOT = 1, 2

Waiting = Any


@pytest.fixture(scope="module")
def mariadb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MariaDB]:
    """Takes a connection from every thread, should they all come."""
    home = tmp_path_factory.mktemp("stampede") / "mariadb"
    with running(MariaDB(home, arguments=["--max-connections=1500"])) as server:
        server.apply_schema()
        yield server


@pytest.fixture
def environment(mariadb: MariaDB, redis_server: Redis) -> dict[str, str]:
    return {**mariadb.environment(), **redis_server.environment()}


def settle_in(environment: Mapping[str, str], all_are_here: Waiting) -> None:
    """The beginning of each process."""
    os.environ.update(environment)
    os.nice(19)
    global here
    here = all_are_here


here: Waiting = None


def read_at_once(_: int) -> list[tuple[int, int]]:
    """(status, rows) of each thread's read. They set out when all processes have come."""
    from chalicelib.cache import timeouts
    from chalicelib.handlers.entry_points import invoke

    timeouts.TIMEOUT_SECONDS = 2

    answers: list[tuple[int, int]] = []
    together = threading.Barrier(THREADS)

    def read() -> None:
        together.wait()
        answer = invoke({"REQUEST": "read", "SQLS": [HOT], "BY": "xp"})
        answers.append((answer["statusCode"], len(answer["body"])))

    invoke({"REQUEST": "read", "SQLS": [WARM], "BY": "xp"})
    threads = [threading.Thread(target=read) for _ in range(THREADS)]
    here.wait()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


def test_a_thousand_misses_at_once_cost_the_database_three_reads_at_most(
    environment: Mapping[str, str], witness: Witness
) -> None:
    rows = ", ".join(["('Nova', 'light', 'Ada', %s, 'red')"] * ROWS)
    for xp in (WARM, HOT):
        insert = f"INSERT INTO heroes (hero, power, name, xp, color) VALUES {rows}"
        witness.query(insert, [xp] * ROWS)
    spawn = multiprocessing.get_context("spawn")
    all_are_here = spawn.Barrier(PROCESSES, timeout=60)
    with (
        witness.logged() as statements,
        ProcessPoolExecutor(PROCESSES, spawn, settle_in, (environment, all_are_here)) as pool,
    ):
        start = time.monotonic()
        answers = [answer for own in pool.map(read_at_once, range(PROCESSES)) for answer in own]
        seconds = time.monotonic() - start

    selects = [text for text in statements if "FROM heroes" in text and f"({HOT})" in text]
    print(f"{len(answers)} reads, {len(selects)} SELECTs, {seconds:.1f} s with starting processes")
    assert Counter(answers) == {(200, ROWS): PROCESSES * THREADS}
    assert len(selects) <= MAX_SELECTS
