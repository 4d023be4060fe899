"""Real HTTP at a `chalice local` process: requests, curl, and many threads at once."""

import json
import random
import subprocess
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests

from chalicelib.cache.generations import MEMORY_SECONDS
from local.machine import PORTS, port_is_free
from local.servers import App
from tests.conftest import Configure, running
from tests.support.client import InProcess, OverHttp, Row, as_stored, hero, heroes
from tests.support.witness import Witness

THREADS = 8
SHARED = [as_stored(id, hero(name=f"shared {id}", xp=id)) for id in range(1, 11)]


@pytest.fixture
def service(witness: Witness, server_url: str) -> OverHttp:
    """With heroes 1 to 10, which nobody changes; as warm as the tests before left it."""
    service = OverHttp(server_url)
    service.write(SHARED)
    return service


def test_a_request_without_a_content_type_is_served(service: OverHttp) -> None:
    """As `requests.post(url, data=json.dumps(...))` sends it."""
    request = {"REQUEST": "read", "SQLS": [1, 3, 2], "USE_CACHE": "True"}

    response = requests.post(service.url, data=json.dumps(request), timeout=10)

    assert "Content-Type" not in response.request.headers
    assert response.status_code == 200
    assert response.headers["Content-Type"] == "application/json"
    assert response.json() == {"statusCode": 200, "body": [SHARED[0], SHARED[2], SHARED[1]]}


@pytest.mark.parametrize("use_cache", [True, False])
def test_rows_are_written_and_read_over_http(service: OverHttp, use_cache: bool) -> None:
    rows = heroes(100, hero="Zoë 黒豹 🦊")

    ids = service.write(rows, use_cache).ids

    expected = [as_stored(id, row) for id, row in zip(ids, rows)]
    for read_cached in (True, False):
        assert service.read(ids, read_cached).rows == expected


def test_an_error_is_an_error_over_http(service: OverHttp) -> None:
    answer = service.read([0])

    assert (answer.status, answer.error) == (400, "BadRequest")
    assert answer.headers["content-type"] == "application/json"


def test_bytes_that_are_not_utf_8_are_refused_over_http(service: OverHttp) -> None:
    answer = service.send(b'{"REQUEST": "\xff"}')

    assert (answer.status, answer.error) == (400, "BadRequest")
    assert answer.message == "body: not UTF-8 at byte 13"


def curl(*arguments: str) -> tuple[Row, str]:
    """The answer's JSON, its status and content type."""
    command = ["curl", "-sS", "--noproxy", "*", "-w", "\n%{http_code} %{content_type}", *arguments]
    ran = subprocess.run(command, check=True, capture_output=True, text=True)
    body, _, said = ran.stdout.rpartition("\n")
    answer = json.loads(body)
    assert isinstance(answer, dict)
    return answer, said


def test_curl_needs_no_content_type_option(service: OverHttp) -> None:
    """It then sends a form's."""
    read = json.dumps({"REQUEST": "read", "SQLS": [2, 99]})
    write = json.dumps({"REQUEST": "write", "SQLS": [hero()]})

    answer, said = curl(service.url, "-d", read)
    assert answer == {"statusCode": 200, "body": [SHARED[1]], "missing": [99]}
    assert said == "200 application/json"

    answer, said = curl(service.url, "-d", write)
    assert answer["body"] == "write success"
    assert said == "200 application/json"

    answer, said = curl(service.url, "-H", "Content-Type: text/plain", "-d", "no JSON")
    assert answer["statusCode"] == 400
    assert said == "400 application/json"


def test_curl_shows_the_health(service: OverHttp) -> None:
    answer, said = curl(f"{service.url}health?deep=1")

    assert answer["status"] == "ok"
    assert answer["database"]["ok"] is answer["cache"]["ok"] is True
    assert said == "200 application/json"


def mixed_work(service: OverHttp, worker: int) -> list[int]:
    """Each answer is checked; the ids of all rows inserted."""
    choose = random.Random(worker)
    mine: dict[int, Row] = {}

    def some(rows: list[Row]) -> list[Row]:
        return choose.choices(rows, k=choose.randint(1, 8))

    for turn in range(15):
        use_cache = choose.random() < 0.7
        xp = 1_000_000 * (worker + 1) + turn
        sent = [hero(name=f"{worker}/{turn}/{i}", xp=xp) for i in range(choose.randint(1, 20))]
        ids = service.write(sent, use_cache).ids
        written = [as_stored(id, row) for id, row in zip(ids, sent)]
        assert ids == sorted(set(ids) - set(mine)), "new ids, rising"
        mine |= zip(ids, written)

        expected = [*some(list(mine.values())), *some(SHARED)]
        answer = service.read([*(row["id"] for row in expected), 4_000_000_000], use_cache)
        assert answer.rows == expected
        assert answer.missing == [4_000_000_000]
        assert service.read([xp, 5, xp], use_cache, BY="xp").rows == [*written, SHARED[4], *written]

        changed = {row["id"]: {**row, "color": f"{turn}"} for row in some(list(mine.values()))}
        service.write(list(changed.values()), choose.random() < 0.7)
        mine |= changed
        assert service.read(list(changed)).rows == list(changed.values())
        assert service.read([True], use_cache).status == 400
    return list(mine)


def test_eight_threads_of_mixed_requests_get_right_answers(
    service: OverHttp, witness: Witness
) -> None:
    with ThreadPoolExecutor(THREADS) as pool:
        working = [pool.submit(mixed_work, service, worker) for worker in range(THREADS)]
        ids = [id for work in working for id in work.result()]

    assert len(ids) == len(set(ids))
    assert witness.count() == len(ids) + len(SHARED)


def test_concurrent_writers_never_get_the_same_id(service: OverHttp, witness: Witness) -> None:
    """Some bring keys of their own along, below all that are given."""
    service.write([{"id": 500_000, **hero()}])

    def write(worker: int) -> list[int]:
        ids: list[int] = []
        for turn in range(20):
            own = {"id": 1_000 * (worker + 1) + turn, **hero(name=f"{worker}")}
            rows = [*heroes(3, name=f"{worker}"), *([own] if turn % 5 == 0 else [])]
            answer = service.write(rows)
            assert answer.ids[:3] == sorted(answer.ids[:3])
            ids += answer.ids
        return ids

    with ThreadPoolExecutor(THREADS) as pool:
        per_worker = list(pool.map(write, range(THREADS)))

    everything = [id for ids in per_worker for id in ids]
    assert len(everything) == len(set(everything)) == THREADS * 64
    for worker, ids in enumerate(per_worker):
        assert {row["name"] for row in service.read(ids).rows} == {f"{worker}"}


def wait_until_cached(service: OverHttp, witness: Witness) -> None:
    """Hero 1 is: a read of it asks the database for no hero."""
    deadline = time.monotonic() + 10
    while True:
        with witness.logged() as statements:
            assert len(service.read([1]).rows) == 1
        if not any(" FROM heroes " in sql for sql in statements):
            return
        assert time.monotonic() < deadline, "the cache is not used"


def test_a_process_without_redis_does_not_write_behind_the_back_of_one_that_has_it(
    witness: Witness, environment: Mapping[str, str], configure: Configure, tmp_path: Path
) -> None:
    configure(REDIS_URL=None)
    port = next(port for port in random.sample(PORTS, 100) if port_is_free(port))
    with running(App(tmp_path / "app", port, environment)) as app:
        with_redis, without = OverHttp(f"{app.url}/"), InProcess()
        with_redis.write([{"id": 1, **hero()}])
        for turn in range(2):
            wait_until_cached(with_redis, witness)

            start = time.monotonic()
            without.write([{"id": 1, **hero(name=f"turn {turn}")}])
            seconds = time.monotonic() - start

            assert [row["name"] for row in with_redis.read([1]).rows] == [f"turn {turn}"]
            assert seconds >= MEMORY_SECONDS, "until nobody remembers that there were entries"
