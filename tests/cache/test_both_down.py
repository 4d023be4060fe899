"""Redis fails a writer, and right after it the database fails everyone.

The writer has retired the entries. A reader that reaches Redis but not the database does not know
that. No write may be acknowledged that such a reader does not show.
"""

import dataclasses
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest

from app import storage
from chalicelib import services
from chalicelib.cache import generations
from chalicelib.db import Transaction
from chalicelib.db.mysql.connection import Connection
from chalicelib.db.retries import Retries
from chalicelib.errors import DatabaseUnavailable
from chalicelib.rows.service import RowService
from chalicelib.tables import HEROES
from local.servers import MariaDB, Redis
from tests import conftest
from tests.conftest import Configure
from tests.support.client import InProcess, Row, hero
from tests.support.relay import Relay, relaying
from tests.support.topologies import wait_until
from tests.support.witness import Witness

ID = 1
AFTER: Row = {"REQUEST": "write", "SQLS": [{"id": ID, **hero(name="after")}]}
COMMIT_SECONDS = 0.1
# Longer than in production, because the test machine may be busy.
MEMORY_SECONDS = 1.5
WITHIN_SECONDS = 60
LOCKED_SECONDS = 1.2


mariadb = conftest.breakable_mariadb  # the fixture


@pytest.fixture
def way(redis_server: Redis) -> Iterator[Relay]:
    """The writer's to Redis."""
    with relaying(redis_server.port) as relay:
        yield relay


@pytest.fixture
def reader(service: InProcess, monkeypatch: pytest.MonkeyPatch) -> RowService:
    """A container that has read hero 1, "before", from the cache."""
    monkeypatch.setattr(generations, "MEMORY_SECONDS", MEMORY_SECONDS)
    service.write([{"id": ID, **hero(name="before")}])
    assert name_in(services.container().rows) == "before"
    return services.container().rows


@pytest.fixture
def writer(reader: RowService, way: Relay, configure: Configure) -> RowService:
    """Another one, which knows the generation; Redis does not answer it any more. Requests go to
    it."""
    configure(REDIS_URL=f"redis://127.0.0.1:{way.port}")
    assert name_in(services.container().rows) == "before"
    way.silence()
    return services.container().rows


def name_in(container: RowService) -> str:
    row = container.read(HEROES, HEROES.key, [ID], True).json
    return "before" if b'"before"' in row else "after"


@pytest.mark.usefixtures("writer")
@pytest.mark.parametrize("is_back", [False, True], ids=["stays away", "comes back"])
def test_a_write_that_a_reader_misses_is_not_acknowledged(
    reader: RowService,
    witness: Witness,
    mariadb: MariaDB,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    is_back: bool,
) -> None:
    if is_back:
        monkeypatch.setattr(generations, "PATIENCE_SECONDS", 20)
    number, *_ = witness.generation()
    with ThreadPoolExecutor(1) as thread:
        writing = thread.submit(storage, AFTER, None)
        while witness.generation()[0] == number:
            assert not writing.done(), writing.result()
            assert name_in(reader) == "before"
        time.sleep(COMMIT_SECONDS)
        mariadb.kill()
        while "was not to be had" not in caplog.text:
            assert not writing.done(), "acknowledged, although the reader has not heard of it"
            assert name_in(reader) == "before"
        if is_back:
            mariadb.start()
        answer = writing.result()

    if is_back:
        assert answer["statusCode"] == 200
        assert name_in(reader) == "after"
    else:
        assert (answer["statusCode"], answer["body"]["error"]) == (503, "OutcomeUnknown")
        assert "are written" in answer["body"]["message"]


@pytest.mark.usefixtures("writer")
def test_the_first_write_after_the_database_was_away_waits_once_more(mariadb: MariaDB) -> None:
    """A reader that asked a moment before it came back goes on with what it knew."""

    def write() -> tuple[int, float]:
        begun = time.monotonic()
        answer = storage(AFTER, None)
        return answer["statusCode"], time.monotonic() - begun

    assert write()[0] == 200
    assert min(write() for _ in range(3)) < (200, MEMORY_SECONDS / 2), "once is enough"
    mariadb.kill()
    assert write()[0] == 503
    mariadb.start()

    status, seconds = write()

    assert status == 200
    assert seconds >= MEMORY_SECONDS


@pytest.mark.usefixtures("service")
@pytest.mark.parametrize("met_by", ["write", "cached read", "uncached read"])
def test_whatever_meets_an_outage_lets_the_next_write_wait(
    mariadb: MariaDB, monkeypatch: pytest.MonkeyPatch, met_by: str
) -> None:
    """A write whose COMMIT lost its connection, or a read that had no need to ask for the
    generation: the container has noticed the outage. So has a reader elsewhere, which goes on with
    a generation that was retired just before it."""
    monkeypatch.setattr(generations, "MEMORY_SECONDS", MEMORY_SECONDS)
    committing = Connection.send_commit

    def lose(self: Connection, *arguments: Any, **named: Any) -> Any:
        mariadb.kill()
        return committing(self, *arguments, **named)

    assert storage(AFTER, None)["statusCode"] == 200
    if met_by == "write":
        with monkeypatch.context() as patch:
            patch.setattr(Connection, "send_commit", lose)
            answer = storage(AFTER, None)
        assert answer["body"]["error"] == "OutcomeUnknown"
    else:
        mariadb.kill()
        body = {"REQUEST": "read", "SQLS": [4_000_000], "USE_CACHE": met_by == "cached read"}
        assert storage(body, None)["statusCode"] == 503
    mariadb.start()
    begun = time.monotonic()

    assert storage(AFTER, None)["statusCode"] == 200

    assert time.monotonic() - begun >= MEMORY_SECONDS


@pytest.mark.usefixtures("service")
def test_an_outage_that_a_waiting_write_meets_lets_the_next_one_wait_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A reader that asked a moment before the database came back goes on with what it knew."""

    def fail(*_: object, **__: object) -> None:
        raise DatabaseUnavailable("for this test")

    known = generations.Generations(services.container().database, services.container().cache)
    held = known.current(HEROES)
    raised = dataclasses.replace(held, number=held.number + 1, age_seconds=0)
    with monkeypatch.context() as patch:
        patch.setattr(Retries, "run", fail)
        patch.setattr(generations, "PATIENCE_SECONDS", 0)
        with pytest.raises(DatabaseUnavailable):
            known.wait_until_known(HEROES, raised, time.monotonic())
    time.sleep(generations.MEMORY_SECONDS)
    begun = time.monotonic()

    known.wait_until_known(HEROES, raised, begun)

    assert time.monotonic() - begun >= generations.MEMORY_SECONDS


@pytest.mark.own_deadlines
@pytest.mark.usefixtures("service")
def test_a_write_that_sleeps_while_it_waits_waits_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """The database may have been away meanwhile. A reader that could not ask goes on with what it
    knew."""
    known = generations.Generations(services.container().database, services.container().cache)
    held = known.current(HEROES)
    raised = dataclasses.replace(held, number=held.number + 1, age_seconds=0)
    left, woke = [generations.MEMORY_SECONDS], []

    def sleep(seconds: float) -> None:
        time.sleep(left.pop() if left else seconds)
        woke.append(time.monotonic())

    monkeypatch.setattr(generations, "time", SimpleNamespace(monotonic=time.monotonic, sleep=sleep))

    known.wait_until_known(HEROES, raised, time.monotonic())

    assert time.monotonic() - woke[0] >= generations.MEMORY_SECONDS


@pytest.mark.own_deadlines
@pytest.mark.usefixtures("service")
def test_a_write_whose_process_sleeps_at_every_step_does_not_wait_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It has too little CPU to ask as often as it must. The next write does not rely on what this
    one has seen."""
    known = generations.Generations(services.container().database, services.container().cache)
    held = known.current(HEROES)
    raised = dataclasses.replace(held, number=held.number + 1, age_seconds=0)
    naps = iter(range(30))

    def sleep(seconds: float) -> None:
        assert next(naps, None) is not None, "it waits for ever"
        time.sleep(seconds + generations.REFRESH_TIMEOUT_SECONDS)

    with monkeypatch.context() as patch:
        patch.setattr(generations, "time", SimpleNamespace(monotonic=time.monotonic, sleep=sleep))
        with pytest.raises(DatabaseUnavailable, match="too slow"):
            known.wait_until_known(HEROES, raised, time.monotonic())
    begun = time.monotonic()

    known.wait_until_known(HEROES, raised, begun)

    assert time.monotonic() - begun >= generations.MEMORY_SECONDS


@pytest.mark.usefixtures("service")
def test_a_write_under_an_earlier_generation_than_is_known_does_not_wait_for_ever() -> None:
    """Another thread learnt of the later one, and then that the database did not answer."""
    known = generations.Generations(services.container().database, services.container().cache)
    held = known.current(HEROES)
    raised = dataclasses.replace(held, number=held.number + 1, age_seconds=0)
    known.saw(HEROES, raised, time.monotonic())
    known.mark_stale()
    begun = time.monotonic()

    known.wait_until_known(HEROES, dataclasses.replace(held, age_seconds=0), begun)

    assert generations.MEMORY_SECONDS <= time.monotonic() - begun < WITHIN_SECONDS


@pytest.mark.usefixtures("service")
@pytest.mark.parametrize("knows", [False, True], ids=["a new container", "one that knew it"])
def test_after_an_outage_no_generation_is_old_enough_to_acknowledge_at_once(knows: bool) -> None:
    """It was retired long ago, just before the outage: readers who could not ask went on with the
    one before it."""
    known = generations.Generations(services.container().database, services.container().cache)
    old = known.current(HEROES)
    assert old.age_seconds >= generations.SURELY_KNOWN_SECONDS
    if not knows:
        known = generations.Generations(services.container().database, services.container().cache)
    known.mark_stale()
    begun = time.monotonic()

    known.wait_until_known(HEROES, old, begun)

    assert time.monotonic() - begun >= generations.MEMORY_SECONDS
    begun = time.monotonic()
    known.wait_until_known(HEROES, old, begun)
    assert time.monotonic() - begun < generations.MEMORY_SECONDS / 2, "once is enough"


@pytest.mark.usefixtures("service")
@pytest.mark.parametrize("how", ["raise_generation", "switch_off"])
def test_a_generation_that_waited_for_its_lock_is_not_older_than_that(
    witness: Witness, how: str
) -> None:
    """A load waits for its lock for up to two minutes. Counted from before that wait, everybody
    would know a generation that nobody has heard of."""

    def work(transaction: Transaction) -> None:
        getattr(transaction, how)(HEROES)
        transaction.end(HEROES)

    witness.query("START TRANSACTION")
    witness.query("SELECT * FROM cache_generation LOCK IN SHARE MODE")
    with ThreadPoolExecutor(1) as thread:
        raising = thread.submit(services.container().database.transact, work)
        time.sleep(LOCKED_SECONDS)
        witness.query("COMMIT")
        raising.result()
    assert services.container().database.generation(HEROES).age_seconds < int(LOCKED_SECONDS)


@pytest.mark.parametrize("fails", ["before it is used again", "once it is used again"])
def test_a_container_that_starts_later_does_not_go_by_what_was_retired(
    writer: RowService,
    way: Relay,
    witness: Witness,
    mariadb: MariaDB,
    configure: Configure,
    fails: str,
) -> None:
    hint = witness.redis.get("{heroes.0}:generation")
    assert storage(AFTER, None)["statusCode"] == 200
    if fails == "before it is used again":
        mariadb.kill()
    way.end_silence()
    deadline = time.monotonic() + WITHIN_SECONDS
    while witness.redis.get("{heroes.0}:generation") == hint:
        assert time.monotonic() < deadline, "the hint still names what was retired"
        time.sleep(0.05)
    mariadb.kill()

    configure()
    with pytest.raises(DatabaseUnavailable):
        name_in(services.container().rows)


def test_who_invalidates_without_redis_leaves_the_hint_once_redis_is_back(
    writer: RowService, way: Relay, witness: Witness, mariadb: MariaDB, configure: Configure
) -> None:
    """The cache stays on, under another generation; nobody reads before the database goes away."""

    def hinted() -> int:
        hint: bytes = witness.redis.get("{heroes.0}:generation")  # type: ignore[assignment]
        return int(hint.split(b" ")[0])

    assert name_in(writer) == "before"
    witness.query("UPDATE heroes SET name = 'after'")
    writer.invalidate(HEROES)
    number, is_on, *_ = witness.generation()
    assert is_on
    assert hinted() < number
    way.end_silence()
    wait_until(lambda: hinted() == number)
    mariadb.kill()

    configure()
    with pytest.raises(DatabaseUnavailable):
        name_in(services.container().rows)
