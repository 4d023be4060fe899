"""A thousand readers miss the same entry before anyone has filled it: the database is asked once.

There are four processes with 250 threads each, like four busy `chalice local`. The table is locked
until every reader either waits for the one that has the lease, or has sent a SELECT too. So all of
them have missed by then, however slow the machine is. No deadline of the app ends in that time: the
test is about leases, and tests/cache/test_cache_steps.py has those who wait no longer.
"""

import multiprocessing
import os
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest

from local.servers import MariaDB, Redis
from tests.conftest import running
from tests.support.topologies import wait_until
from tests.support.witness import Witness

PROCESSES = 4
THREADS = 250
READERS = PROCESSES * THREADS
ROWS = 10
# Values of xp: the first is read by each process as a warm-up, the second by all at once.
WARM, HOT = 1, 2
# Longer than any machine takes.
LONG_SECONDS = 120
# The first pause of a reader that waits; by its length it is known. Then the others: long ones,
# because a thousand readers that look often keep the machine from starting the rest.
FIRST_PAUSE, PAUSE = 0.001, 0.5
BLOCKED = "SELECT COUNT(*) FROM information_schema.processlist WHERE state LIKE '%%metadata lock'"

Shared = Any


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


def settle_in(environment: Mapping[str, str], all_are_here: Shared, waiting: Shared) -> None:
    """The beginning of each process: no deadline of the app ends, and who waits is counted."""
    from chalicelib.cache import entry_commands, generations, timeouts
    from chalicelib.db import database
    from chalicelib.db.engine import LOCK_TIMEOUT_SECONDS
    from chalicelib.db.mysql import connection, connector
    from chalicelib.rows import lazy_loading

    os.environ.update(environment)
    os.nice(19)
    timeouts.TIMEOUT_SECONDS = LONG_SECONDS
    entry_commands.LEASE_MILLISECONDS = LONG_SECONDS * 1000
    generations.REFRESH_TIMEOUT_SECONDS = LONG_SECONDS
    for module in (database, connector):
        module.ANSWER_TIMEOUT_SECONDS = LONG_SECONDS  # type: ignore[attr-defined]
    short, long = (f"lock_wait_timeout={n}" for n in (LOCK_TIMEOUT_SECONDS, LONG_SECONDS))
    vars(connection)["_SESSION"] = connection._SESSION.replace(short, long)
    pauses = (FIRST_PAUSE, *[PAUSE] * int(LONG_SECONDS / PAUSE))
    lazy_loading.POLL_SECONDS = pauses  # type: ignore[assignment]

    def pause(seconds: float) -> None:
        if seconds == FIRST_PAUSE:
            with waiting:
                waiting.value += 1
        threading.Event().wait(seconds)

    vars(lazy_loading)["time"] = SimpleNamespace(sleep=pause)
    global here
    here = all_are_here


here: Shared = None


def read_at_once(_: int) -> list[tuple[int, int]]:
    """(status, rows) of each thread's read. They set out when all processes have come."""
    from chalicelib.handlers.entry_points import invoke

    answers: list[tuple[int, int]] = []

    def read() -> None:
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


@pytest.mark.proof
def test_a_thousand_misses_at_once_cost_the_database_one_read(
    environment: Mapping[str, str], mariadb: MariaDB, witness: Witness
) -> None:
    rows = ", ".join(["('Nova', 'light', 'Ada', %s, 'red')"] * ROWS)
    for xp in (WARM, HOT):
        insert = f"INSERT INTO heroes (hero, power, name, xp, color) VALUES {rows}"
        witness.query(insert, [xp] * ROWS)
    spawn = multiprocessing.get_context("spawn")
    all_are_here = spawn.Barrier(PROCESSES + 1, timeout=LONG_SECONDS)
    waiting = spawn.Value("i", 0)
    settings = (environment, all_are_here, waiting)

    def blocked() -> int:
        [(count,)] = mariadb.query(BLOCKED)
        return int(count)

    with (
        witness.logged() as statements,
        ProcessPoolExecutor(PROCESSES, spawn, settle_in, settings) as pool,
    ):
        reading = pool.map(read_at_once, range(PROCESSES))
        try:
            wait_until(lambda: all_are_here.n_waiting == PROCESSES, LONG_SECONDS)
            witness.query("LOCK TABLES heroes WRITE")
            all_are_here.wait()
            wait_until(lambda: waiting.value + blocked() >= READERS, LONG_SECONDS)
        finally:
            witness.query("UNLOCK TABLES")
        answers = [answer for own in reading for answer in own]

    selects = [text for text in statements if "FROM heroes" in text and f"({HOT})" in text]
    print(f"{len(answers)} reads, {waiting.value} waited, {len(selects)} SELECTs")
    assert Counter(answers) == {(200, ROWS): READERS}
    assert len(selects) == 1
