"""Redis is killed, hangs, is full or does not exist: every answer is right, and comes soon.

A hanging Redis is waited for once. Only the first write that does not reach Redis takes longer: it
waits until no container remembers the old generation.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace

import pytest

from chalicelib.cache import generations, timeouts
from chalicelib.cache.generations import CHECK_SECONDS
from local.servers import Redis
from tests import conftest
from tests.conftest import Configure
from tests.support.client import InProcess, Row, as_stored, hero, heroes
from tests.support.witness import Witness

# How long a request waits for Redis here: ten times as long as in production, so that this wait is
# longer than anything else takes on a busy machine.
TIMEOUT_SECONDS = 1.0
# How long a generation is remembered where nobody really waits for that: longer than a test takes.
MEMORY_SECONDS = 20.0
# Then something hangs.
BACK_WITHIN_SECONDS = 60

FAULTS: dict[str, Callable[[Redis], None]] = {"killed": Redis.kill, "hanging": Redis.pause}
each_fault = pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)


redis_server = conftest.breakable_redis  # the fixture


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Those of a write until nobody remembers a generation. They pass at once: the clock is set."""
    monkeypatch.setattr(generations, "MEMORY_SECONDS", MEMORY_SECONDS)
    found: list[float] = []
    clock = SimpleNamespace(monotonic=lambda: time.monotonic() + sum(found), sleep=found.append)
    monkeypatch.setattr(generations, "time", clock)
    return found


def assert_nobody_remembers(waits: Sequence[float], begun: float) -> None:
    """Since `begun` one write has waited for so long, in steps; and not twice."""
    assert MEMORY_SECONDS - (time.monotonic() - begun) <= sum(waits) <= MEMORY_SECONDS
    assert max(waits) <= CHECK_SECONDS


@pytest.fixture(autouse=True)
def timeout(patient: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timeouts, "TIMEOUT_SECONDS", TIMEOUT_SECONDS)


@pytest.fixture
def service(service: InProcess, witness: Witness, redis_server: Redis) -> Iterator[InProcess]:
    """Warm, with heroes 1 to 20 in the table, the first ten in the cache."""
    service.write([{"id": row["xp"], **row} for row in heroes(20)], use_cache=False)
    witness.forget_cached()
    for _ in range(2):
        service.read(range(1, 11))
    assert len(witness.entries()) == 10
    yield service
    redis_server.resume()  # else the end of the app waits for one that hangs


def assert_all_answers_are_right(service: InProcess) -> None:
    for use_cache in (True, False):
        old = [as_stored(row["xp"], row) for row in heroes(20)]
        assert service.read([*range(20, 0, -1), 99], use_cache).rows == old[::-1]
        assert service.read([3, 3, 12], use_cache, BY="xp").rows == [old[2], old[2], old[11]]

        new = heroes(3, name=f"new {use_cache}", xp=1000)
        ids = service.write(new, use_cache).ids
        stored = [as_stored(id, row) for id, row in zip(ids, new)]
        assert service.read(ids, use_cache).rows == stored

        changed: list[Row] = [{**row, "name": "changed"} for row in stored]
        service.write(changed, use_cache)
        assert service.read(ids, use_cache).rows == changed
        by_xp = service.read([1000], use_cache, BY="xp").rows
        assert [row for row in by_xp if row["id"] in ids] == changed


def seconds_of(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def wait_until_cached(service: InProcess, witness: Witness) -> None:
    """Ask until an answer comes from the cache again, for a limited time."""
    deadline = time.monotonic() + BACK_WITHIN_SECONDS
    while True:
        with witness.spent() as spent:
            assert len(service.read(range(1, 11)).rows) == 10
        if spent.statements == 0 and spent.commands == {"mget": 1}:
            return
        assert time.monotonic() < deadline, "the cache is not used although it is back"


@each_fault
def test_every_answer_is_right_without_redis(
    service: InProcess, redis_server: Redis, fault: Callable[[Redis], None]
) -> None:
    fault(redis_server)

    assert_all_answers_are_right(service)


@each_fault
@pytest.mark.parametrize("is_warm", [True, False], ids=["warm", "cold"])
def test_a_read_without_redis_waits_for_it_once(
    service: InProcess,
    redis_server: Redis,
    configure: Configure,
    fault: Callable[[Redis], None],
    is_warm: bool,
) -> None:
    """For as long as a call may take where Redis hangs; not at all where it refuses."""
    if not is_warm:
        configure()
        service.read([1], use_cache=False)  # the way to the database is open

    def request() -> None:
        assert len(service.read(range(1, 21)).rows) == 20

    fault(redis_server)
    first = seconds_of(request)
    others = [seconds_of(request) for _ in range(5)]

    print(f"first {first * 1000:.1f} ms, others {others}")
    waited = 1 if fault is Redis.pause else 0
    assert waited * TIMEOUT_SECONDS <= first < (waited + 1) * TIMEOUT_SECONDS
    assert min(others) < TIMEOUT_SECONDS / 2


@each_fault
@pytest.mark.parametrize("is_warm", [True, False], ids=["warm", "cold"])
@pytest.mark.parametrize("kind", ["insert", "replace", "delete"])
def test_the_first_write_without_redis_waits_until_nobody_reads_what_it_changed(
    service: InProcess,
    redis_server: Redis,
    witness: Witness,
    configure: Configure,
    waits: list[float],
    caplog: pytest.LogCaptureFixture,
    fault: Callable[[Redis], None],
    is_warm: bool,
    kind: str,
) -> None:
    """And only the first one: from then on the cache is known to be out of use."""
    if not is_warm:
        configure()

    def request() -> None:
        if kind == "delete":
            assert service.delete([20]).status == 200
        else:
            rows = [hero()] if kind == "insert" else [{"id": 20, **hero()}]
            assert len(service.write(rows).ids) == 1

    number, *_ = witness.generation()
    fault(redis_server)
    begun = time.monotonic()
    request()
    assert_nobody_remembers(waits, begun)
    assert caplog.text.count("Redis is left alone") == 1
    others = [seconds_of(request) for _ in range(5)]

    print(f"others {others}")
    assert sum(waits) <= MEMORY_SECONDS, "nobody waits twice"
    assert min(others) < TIMEOUT_SECONDS / 2
    now, is_in_use, _ = witness.generation()
    assert (now > number, is_in_use) == (True, False)


@each_fault
def test_another_process_that_writes_meanwhile_waits_for_the_same_second(
    service: InProcess,
    redis_server: Redis,
    configure: Configure,
    waits: list[float],
    fault: Callable[[Redis], None],
) -> None:
    """It cannot know when the old generation was retired: within a minute, so it waits too."""
    fault(redis_server)
    service.write([hero()])
    configure()
    earlier, begun = len(waits), time.monotonic()

    service.write([hero()])

    assert_nobody_remembers(waits[earlier:], begun)


@each_fault
@pytest.mark.parametrize("is_written_to", [False, True], ids=["read", "written"])
def test_redis_is_used_again_once_it_is_back(
    service: InProcess,
    redis_server: Redis,
    witness: Witness,
    fault: Callable[[Redis], None],
    is_written_to: bool,
) -> None:
    fault(redis_server)
    for _ in range(3):
        service.read(range(1, 11))
    if is_written_to:
        service.write([{"id": 7, **hero(name="written meanwhile", xp=7)}])
    redis_server.start()

    wait_until_cached(service, witness)
    assert (service.read([7]).rows[0]["name"] == "written meanwhile") == is_written_to
    service.write([{"id": 7, **hero(name="Ada 7", xp=7)}])
    assert_all_answers_are_right(service)


def test_a_redis_that_was_restarted_unnoticed_is_another_one(
    service: InProcess, redis_server: Redis, witness: Witness
) -> None:
    """Nobody can tell what it lost, so its entries begin anew: the first read finds that out, the
    second one fills, the third one hits."""
    before = witness.generation()
    redis_server.kill()
    redis_server.start()

    for asked in (1, 1, 0):
        with witness.logged() as statements:
            assert len(service.read(range(1, 11)).rows) == 10
        assert len([sql for sql in statements if " FROM heroes " in sql]) == asked

    assert witness.generation() != before
    assert_all_answers_are_right(service)


def test_an_emptied_redis_changes_no_answer(service: InProcess, witness: Witness) -> None:
    for _ in range(2):
        assert_all_answers_are_right(service)
        witness.forget_cached()


@pytest.mark.parametrize("url", [None, ""])
def test_every_answer_is_right_when_no_cache_is_configured(
    service: InProcess, witness: Witness, configure: Configure, url: str | None
) -> None:
    configure(REDIS_URL=url)
    witness.redis.flushall()

    assert_all_answers_are_right(service)
    assert witness.redis.dbsize() == 0


def test_a_write_without_a_cache_waits_where_others_have_one(
    service: InProcess, witness: Witness, configure: Configure, waits: list[float]
) -> None:
    """They must not go on reading what it changed: it takes theirs out of use."""
    configure(REDIS_URL=None)
    begun = time.monotonic()

    service.write([hero()])

    assert_nobody_remembers(waits, begun)
    _, is_in_use, _ = witness.generation()
    assert not is_in_use


def test_a_write_without_a_cache_does_not_wait_where_nobody_ever_had_one(
    service: InProcess, witness: Witness, configure: Configure, waits: list[float]
) -> None:
    witness.give_cache_to("")
    before = witness.generation()
    configure(REDIS_URL=None)

    service.write([hero()])

    assert waits == []
    assert witness.generation() == before


def test_every_answer_is_right_when_redis_refuses_what_it_is_asked(
    service: InProcess, witness: Witness
) -> None:
    """Full, with nothing it may throw away."""
    limits = witness.redis.config_get("maxmemory*")
    witness.redis.config_set("maxmemory-policy", "noeviction")
    witness.redis.config_set("maxmemory", "1")
    try:
        assert_all_answers_are_right(service)
    finally:
        for name in ("maxmemory", "maxmemory-policy"):
            witness.redis.config_set(name, str(limits[name]))


@pytest.mark.parametrize("host", ["no-such-host.invalid", "127.0.0.1:1"])
def test_every_answer_is_right_when_redis_cannot_be_reached(
    service: InProcess, configure: Configure, host: str
) -> None:
    configure(REDIS_URL=f"redis://{host}")

    assert_all_answers_are_right(service)
