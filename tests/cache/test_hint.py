"""A container that starts while the database is away answers cached reads all the same."""

import time

import pytest

from chalicelib import services
from chalicelib.cache import Cache, generations, keys
from chalicelib.cache.openings import Openings, StillOpening
from chalicelib.cache.routing import Connection
from chalicelib.db import Generation
from chalicelib.errors import DatabaseUnavailable
from chalicelib.rows.service import RowService
from chalicelib.tables import HEROES, Table
from local.servers import MariaDB, Redis
from tests import conftest
from tests.conftest import Configure
from tests.support.client import InProcess, heroes
from tests.support.topologies import wait_until
from tests.support.witness import Witness

mariadb = conftest.own_mariadb  # the fixture


@pytest.fixture
def ids(service: InProcess) -> list[int]:
    ids = service.write(heroes(5)).ids
    service.read(ids)
    assert len(service.read(ids).rows) == 5
    return ids


@pytest.mark.parametrize("fault", [MariaDB.kill, MariaDB.pause])
def test_cached_reads_of_a_new_container_need_no_database(
    configure: Configure, service: InProcess, mariadb: MariaDB, ids: list[int], fault: object
) -> None:
    fault(mariadb)  # type: ignore[operator]
    try:
        configure()  # forgets all that a container remembers
        assert [row["id"] for row in service.read(ids).rows] == ids
        assert service.post({"REQUEST": "read", "SQLS": [*ids, 4_000_000]}).status == 503
    finally:
        mariadb.resume()
        mariadb.start()


def test_a_new_container_whose_connection_takes_long_to_open_waits_for_the_hint(
    configure: Configure,
    service: InProcess,
    mariadb: MariaDB,
    ids: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Who goes on without Redis, because the database answers, would be answered 503."""
    waiting = Openings.wait

    def wait(self: Openings, seconds: float, *, since_it_began: bool = False) -> Connection:
        if since_it_began:
            raise StillOpening
        return waiting(self, seconds)

    monkeypatch.setattr(Openings, "wait", wait)
    mariadb.kill()
    try:
        configure()
        assert [row["id"] for row in service.read(ids).rows] == ids
    finally:
        mariadb.start()


def test_a_hint_of_another_server_is_not_taken(
    configure: Configure,
    service: InProcess,
    mariadb: MariaDB,
    redis_server: Redis,
    witness: Witness,
    ids: list[int],
) -> None:
    """As after a restore: the entries are as old as the hint."""
    [hint] = witness.redis.keys("*:generation")
    number, _, data_set = witness.redis.get(hint).decode().partition(" ")  # type: ignore[union-attr]
    witness.redis.set(hint, f"{number} another{data_set}")
    mariadb.kill()
    try:
        configure()
        assert service.post({"REQUEST": "read", "SQLS": ids}).status == 503
    finally:
        mariadb.start()


def test_a_container_that_slept_takes_the_later_generation_of_the_hint(
    configure: Configure,
    service: InProcess,
    mariadb: MariaDB,
    witness: Witness,
    ids: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What it remembers was retired, and rows were changed, before the database went away."""
    monkeypatch.setattr(generations, "MEMORY_SECONDS", 0)
    service.write(heroes(1))
    service.read(ids)
    sleeper = services.container().rows
    witness.query("UPDATE cache_generation SET generation = generation + 1")
    witness.query("UPDATE heroes SET name = 'after'")
    configure()
    for _ in range(2):
        assert {row["name"] for row in service.read(ids).rows} == {"after"}
    mariadb.kill()
    try:
        assert sleeper.read(HEROES, HEROES.key, ids, True).json.count(b'"after"') == len(ids)
    finally:
        mariadb.start()


def assert_asks_the_database(sleeper: RowService, mariadb: MariaDB, ids: list[int]) -> None:
    """And not Redis alone, once the generation that it remembers is too old."""
    mariadb.kill()
    try:
        time.sleep(generations.MEMORY_SECONDS)
        with pytest.raises(DatabaseUnavailable):
            sleeper.read(HEROES, HEROES.key, ids, True)
    finally:
        mariadb.start()


@pytest.mark.parametrize("hint", ["retired", "lost"])
def test_a_container_that_slept_does_not_go_by_what_it_remembers_alone(
    service: InProcess, mariadb: MariaDB, witness: Witness, ids: list[int], hint: str
) -> None:
    """A writer without Redis retired it; Redis was taken back into use, or has evicted the hint.
    Then the database went away."""
    sleeper, cache = services.container().rows, services.container().cache
    witness.query("UPDATE cache_generation SET generation = generation + 1, enabled = 0")
    witness.query("UPDATE heroes SET name = 'after'")
    if hint == "retired":
        number, *_ = witness.generation()
        cache.retire_hint(HEROES, number)
    else:
        witness.redis.delete(*witness.redis.keys("*:generation"))
    assert_asks_the_database(sleeper, mariadb, ids)


@pytest.mark.parametrize("change", ["write", "invalidate"])
def test_who_changes_rows_while_the_cache_is_off_has_the_hint_retired(
    service: InProcess, witness: Witness, ids: list[int], change: str
) -> None:
    """A writer without Redis switched the cache off, and nobody reads. If the database went away
    now, an idle container would go by the hint."""
    witness.query("UPDATE cache_generation SET generation = generation + 1, enabled = 0")
    number, *_ = witness.generation()

    if change == "write":
        service.write(heroes(1))
    else:
        service.invalidate()

    wait_until(lambda: witness.generation()[1])
    hint: bytes = witness.redis.get("{heroes.0}:generation")  # type: ignore[assignment]
    assert int(hint.split(b" ")[0]) >= number


def test_an_invalidate_is_answered_once_the_hint_tells_of_it(
    configure: Configure, service: InProcess, mariadb: MariaDB, witness: Witness, ids: list[int]
) -> None:
    """Its container's kept connection to Redis was closed meanwhile. Then the database falls asleep
    before anybody else reads."""
    sleeper = services.container().rows
    configure()
    service.read(ids)
    witness.query("UPDATE heroes SET name = 'after'")
    witness.redis.client_kill_filter(_type="normal", skipme=True)
    services.container().rows.invalidate(HEROES)
    assert_asks_the_database(sleeper, mariadb, ids)


def test_whatever_a_stranger_left_in_the_place_of_the_hint_is_replaced(
    service: InProcess, witness: Witness, ids: list[int]
) -> None:
    """Else each new generation would count as a failure of Redis."""
    witness.redis.delete(keys.hint(HEROES))
    witness.redis.rpush(keys.hint(HEROES), "of another type")

    service.invalidate()

    assert witness.redis.type(keys.hint(HEROES)) == b"string"
    service.read(ids)
    assert "hit" in service.read(ids).headers["cache-status"]


def test_a_text_of_a_stranger_is_no_hint(
    configure: Configure,
    service: InProcess,
    mariadb: MariaDB,
    witness: Witness,
    ids: list[int],
) -> None:
    mariadb.kill()
    try:
        for text in (b"", b"x", b"-1 x", b"1.5", b"\xff", b"1 \xff"):
            configure()
            witness.redis.set(keys.hint(HEROES), text)
            answer = service.post({"REQUEST": "read", "SQLS": ids})
            assert (answer.status, answer.error) == (503, "DatabaseUnavailable"), text
    finally:
        mariadb.start()


def test_the_wait_behind_a_new_generation_begins_once_the_hint_tells_of_it(
    ids: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who took the hint a moment before goes by it for as long as by what it is told."""
    leave_hint = Cache.leave_hint
    left: list[float] = []

    def leave_late(self: Cache, table: Table, generation: Generation, *, wait: bool) -> None:
        if wait:
            time.sleep(generations.MEMORY_SECONDS / 2)
            left.append(time.monotonic())
        leave_hint(self, table, generation, wait=wait)

    monkeypatch.setattr(Cache, "leave_hint", leave_late)
    services.container().rows.invalidate(HEROES)

    assert time.monotonic() - left[0] >= generations.MEMORY_SECONDS


@pytest.mark.parametrize("retired_by", ["a reader", "a recovery"])
def test_a_slow_container_does_not_bring_back_the_hint_of_a_retired_generation(
    configure: Configure,
    service: InProcess,
    mariadb: MariaDB,
    witness: Witness,
    ids: list[int],
    retired_by: str,
) -> None:
    """It learnt of the generation before it was retired, and tells Redis after everybody else."""
    cache = services.container().cache
    slow = generations.Generations(services.container().database, cache)
    slow.current(HEROES)
    witness.query("UPDATE cache_generation SET generation = generation + 1")
    witness.query("UPDATE heroes SET name = 'after'")
    if retired_by == "a reader":
        configure()
        for _ in range(2):
            service.read(ids)
    else:
        number, *_ = witness.generation()
        cache.retire_hint(HEROES, number)
    slow.leave_hint(HEROES)
    cache.probe()  # whatever was sent before it has arrived
    mariadb.kill()
    try:
        configure()
        answer = service.post({"REQUEST": "read", "SQLS": ids})
        if retired_by == "a reader":
            assert {row["name"] for row in answer.rows} == {"after"}
        else:
            assert answer.status == 503
    finally:
        mariadb.start()


def test_a_generation_that_another_thread_forgot_leaves_no_hint(
    service: InProcess, witness: Witness, ids: list[int]
) -> None:
    known = generations.Generations(services.container().database, services.container().cache)
    known.current(HEROES)
    known.forget(HEROES)
    witness.redis.delete(*witness.redis.keys("*:generation"))

    known.leave_hint(HEROES)

    assert witness.redis.keys("*:generation") == []


def test_the_first_use_of_a_cache_is_no_warning_and_its_move_is_one(
    configure: Configure,
    service: InProcess,
    witness: Witness,
    caplog: pytest.LogCaptureFixture,
) -> None:
    witness.query("UPDATE cache_generation SET server = ''")
    ids = service.write(heroes(1)).ids
    assert len(service.read(ids).rows) == 1
    assert [entry for entry in caplog.records if entry.levelname == "WARNING"] == []
    witness.query("UPDATE cache_generation SET server = 'another' WHERE table_name = 'heroes'")
    configure()  # forgets the server that it knew
    service.read(ids)
    [moved] = [entry for entry in caplog.records if entry.levelname == "WARNING"]
    assert "heroes: the cache moved to another server" in moved.getMessage()
