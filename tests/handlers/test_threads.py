"""Many threads in one process, at the same moment as far as that is possible."""

import random
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Barrier
from typing import Any

from app import storage
from tests.conftest import Configure
from tests.support.client import InProcess, as_stored, hero
from tests.support.witness import Witness

THREADS = 8


def ask(request: str, items: object, **fields: object) -> Any:
    return storage({"REQUEST": request, "SQLS": items, **fields}, None)


def in_step(work: Callable[[int, Callable[[], object]], None]) -> None:
    """Run `work(worker, wait)` in every thread; `wait()` returns when all have called it."""
    barrier = Barrier(THREADS, timeout=60)

    def release_others(done: "Future[None]") -> None:
        if done.exception():
            barrier.abort()

    with ThreadPoolExecutor(THREADS) as pool:
        working = [pool.submit(work, worker, barrier.wait) for worker in range(THREADS)]
        for future in working:
            future.add_done_callback(release_others)
    for future in working:
        future.result()


def test_writers_of_the_same_rows_all_succeed_one_after_the_other(
    service: InProcess, witness: Witness
) -> None:
    """Rows that are new to all of them at first, each in an order of its own."""

    def write(worker: int, wait: Callable[[], object]) -> None:
        for turn in range(40):
            first = 1 + 10 * (turn // 2)
            ids = random.Random(100 * worker + turn).sample(range(first, first + 10), 10)
            wait()
            rows = [{"id": id, **hero(name=f"{worker}/{turn}", xp=turn)} for id in ids]
            assert ask("write", rows) == {"statusCode": 200, "body": "write success", "ids": ids}

    in_step(write)

    names = witness.query(
        "SELECT COUNT(*), COUNT(DISTINCT name) FROM heroes GROUP BY (id - 1) DIV 10"
    )
    assert names == [(10, 1)] * 20, "the rows of one write stay together"


def test_writers_of_new_rows_never_get_the_same_id(service: InProcess, witness: Witness) -> None:
    given: list[list[int]] = []

    def write(worker: int, wait: Callable[[], object]) -> None:
        for _ in range(40):
            wait()
            ids = ask("write", [hero(name=f"{worker}"), hero(name=f"{worker}")])["ids"]
            assert ids[0] < ids[1]
            read = ask("read", ids)
            assert read["body"] == [as_stored(id, hero(name=f"{worker}")) for id in ids]
            given.append(ids)

    in_step(write)

    ids = [id for pair in given for id in pair]
    assert len(set(ids)) == len(ids) == witness.count() == THREADS * 80


def test_the_first_requests_of_a_cold_app_can_come_at_once(
    service: InProcess, configure: Configure
) -> None:
    rows = [as_stored(id, hero(name=f"{id}", xp=id)) for id in range(1, THREADS + 1)]
    service.write(rows)

    def read(worker: int, wait: Callable[[], object]) -> None:
        for _ in range(20):
            if worker == 0:
                configure()
            wait()
            expected = [rows[worker], rows[0], rows[-1]]
            for use_cache in (True, False):
                answer = ask("read", [row["id"] for row in expected], USE_CACHE=use_cache)
                assert answer == {"statusCode": 200, "body": expected}
            wait()

    in_step(read)
