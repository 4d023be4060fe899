"""Opening a connection takes longer than a request waits for Redis, fails once, or is frozen with
its container: no table is switched off, and no read waits for it."""

import logging
import socket
import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import redis

from chalicelib import services
from chalicelib.cache import Generations, Recovery, recovery, timeouts
from chalicelib.cache import client as cache_client
from chalicelib.cache.entries import Cache
from chalicelib.cache.openings import Openings, StillOpening
from chalicelib.cache.routing import Connection
from chalicelib.errors import CacheUnavailable
from chalicelib.tables import TABLES
from local.servers import Redis
from tests.conftest import Configure
from tests.support.certificates import Authority
from tests.support.client import InProcess, Row, as_stored, hero
from tests.support.redis_client import client_of
from tests.support.relay import relaying
from tests.support.serverless_cache import (
    Info,
    ServerlessCache,
    another_server_each_time,
    little,
    nothing,
)
from tests.support.topologies import wait_until
from tests.support.witness import Witness

ROW: Row = {"id": 7, **hero(xp=70)}
# Longer than a request waits for Redis, and shorter than opening may take.
SLOW_SECONDS = 0.15


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("serverless") / "ca")


@pytest.fixture
def cache(redis_server: Redis, authority: Authority) -> Iterator[ServerlessCache]:
    with ServerlessCache(redis_server, authority) as cache:
        yield cache


@pytest.fixture
def service(witness: Witness, configure: Configure, cache: ServerlessCache) -> InProcess:
    """Cold, with nothing cached."""
    witness.give_cache_to("")
    configure(**cache.settings())
    return InProcess()


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Until it is set, no connection is open."""
    may_open = threading.Event()
    opening = Connection.open

    def open_when_allowed(self: Connection) -> None:
        assert may_open.wait(timeout=30)
        opening(self)

    monkeypatch.setattr(Connection, "open", open_when_allowed)
    return may_open


def assert_in_use(witness: Witness, *, caplog: pytest.LogCaptureFixture) -> None:
    assert witness.query("SELECT COUNT(*) FROM cache_generation WHERE NOT enabled") == [(0,)]
    assert "left alone" not in caplog.text
    assert "switched off" not in caplog.text


# --- a login that takes long ----------------------------------------------------------------------


@pytest.mark.own_deadlines
def test_a_slow_login_switches_nothing_off_for_a_write_that_comes_first(
    service: InProcess, cache: ServerlessCache, witness: Witness, caplog: pytest.LogCaptureFixture
) -> None:
    cache.login_seconds = SLOW_SECONDS

    assert service.write([ROW]).ids == [7]

    assert service.read([7]).rows == [ROW]
    assert_in_use(witness, caplog=caplog)
    assert len(cache.logins) == 1


def test_a_read_does_not_wait_for_a_connection_and_the_next_one_uses_it(
    service: InProcess,
    witness: Witness,
    opened: threading.Event,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    witness.query("INSERT INTO heroes VALUES (7, 'Nova', 'light', 'Ada', 70, 'red')")
    stored = service.read([7], use_cache=False).rows
    monkeypatch.setattr(timeouts, "TIMEOUT_SECONDS", 0)

    assert [service.read([7]).rows for _ in range(3)] == [stored] * 3
    opening = [thread for thread in threading.enumerate() if thread.name == "opening"]
    assert len(opening) == 1, "they wait for the same one"
    assert not [thread for thread in threading.enumerate() if thread.name == "recovery"]
    assert not witness.entries()
    monkeypatch.setattr(timeouts, "TIMEOUT_SECONDS", 5)
    opened.set()
    opening[0].join(timeout=30)

    assert_in_use(witness, caplog=caplog)
    for _ in range(2):
        assert service.read([7]).rows == stored
    wait_until(lambda: bool(witness.entries()))  # a read does not wait until it is stored
    assert not [thread for thread in threading.enumerate() if thread.name == "opening"]


def test_a_write_that_waits_for_a_connection_holds_no_row(
    witness: Witness, configure: Configure, opened: threading.Event
) -> None:
    configure()
    service = InProcess()
    writing = threading.Thread(target=service.write, args=([ROW],))
    writing.start()
    wait_until(lambda: any(thread.name == "opening" for thread in threading.enumerate()))

    begun = "SELECT COUNT(*) FROM information_schema.innodb_trx"
    assert witness.query(begun) == [(0,)]
    opened.set()
    writing.join(timeout=30)

    assert service.read([7]).rows == [ROW]


# --- an opening that fails ------------------------------------------------------------------------


@pytest.mark.parametrize("failures", [1, 2])
def test_an_opening_that_fails_is_tried_once_more(failures: int) -> None:
    tries = list[int]()
    down = list[redis.RedisError]()
    connection = Connection("redis://localhost", [], is_cluster=False)

    def open_after_failures() -> Connection:
        tries.append(1)
        if len(tries) <= failures:
            raise redis.ConnectionError("for this test")
        return connection

    openings = Openings(open_after_failures, lambda _: None, down.append)

    if failures == 1:
        assert openings.wait(30) is connection
    else:
        with pytest.raises(redis.ConnectionError):
            openings.wait(30)
    assert len(tries) == 2
    assert len(down) == failures - 1


def test_a_connection_that_opens_for_nobody_is_kept() -> None:
    may_open, kept = threading.Event(), list[Connection]()
    connection = Connection("redis://localhost", [], is_cluster=False)

    def open_when_allowed() -> Connection:
        assert may_open.wait(timeout=30)
        return connection

    openings = Openings(open_when_allowed, kept.append, lambda _: None)
    for _ in range(2):
        with pytest.raises(StillOpening):
            openings.wait(0)
        openings.begin()
    may_open.set()
    wait_until(lambda: bool(kept))

    assert kept == [connection], "one was opened for all of them"


def test_a_bug_in_opening_reaches_who_waits() -> None:
    def fail() -> Connection:
        raise KeyError("for this test")

    with pytest.raises(KeyError):
        Openings(fail, lambda _: None, lambda _: None).wait(30)


def test_a_connection_that_is_cut_while_it_opens_is_opened_again(
    witness: Witness,
    configure: Configure,
    redis_server: Redis,
    caplog: pytest.LogCaptureFixture,
) -> None:
    cut = list[int]()
    with relaying(redis_server.port) as relay:

        def cut_the_first(piece: bytes) -> int:
            cut.append(1)
            return 1 if len(cut) == 1 else 0

        relay.judge = cut_the_first
        configure(REDIS_URL=f"redis://127.0.0.1:{relay.port}")
        service = InProcess()

        assert service.write([ROW]).ids == [7]
        assert service.read([7]).rows == [ROW]

    assert cut
    assert_in_use(witness, caplog=caplog)


# --- a container that is frozen most of the time --------------------------------------------------


def test_what_came_while_the_process_was_frozen_is_read(
    witness: Witness, configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time to wait is over by then. Redis was not silent."""
    configure()
    link = client_of(services.container().cache)
    link.probe()
    monkeypatch.setattr(timeouts.Deadline, "seconds_left", lambda self: 0.0)
    receive = Connection.receive

    def sleep_and_receive(self: Connection) -> object:
        end: Any = self._nodes[0]._driver._sock
        end.recv(1, socket.MSG_PEEK)  # waits until something has come
        return receive(self)

    monkeypatch.setattr(Connection, "receive", sleep_and_receive)

    link.probe()

    assert not link.is_down


def test_a_thread_that_is_frozen_between_its_probes_finds_redis_all_the_same(
    witness: Witness, configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each time it wakes an hour has passed."""
    now = [0.0]

    def freeze(_: float) -> None:
        now[0] += 3600

    configure()
    container = services.container()
    monkeypatch.setattr(recovery, "time", SimpleNamespace(monotonic=lambda: now[0], sleep=freeze))
    witness.query("DELETE FROM cache_generation WHERE table_name NOT IN %s", [[*TABLES]])
    witness.query("UPDATE cache_generation SET enabled = 0")
    known = Generations(container.database, container.cache)
    recovering = Recovery(container.database, container.cache, known)
    recovering.start()
    wait_until(lambda: recovering._thread is None)

    assert witness.query("SELECT COUNT(*) FROM cache_generation WHERE NOT enabled") == [(0,)]


def test_a_table_that_a_frozen_container_switched_off_comes_back_by_another_one(
    witness: Witness, configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first never runs again."""
    configure()
    service = InProcess()
    with pytest.MonkeyPatch.context() as frozen:
        frozen.setattr(Recovery, "start", lambda self: None)
        client_of(services.container().cache)._mark_down(redis.TimeoutError("for this test"))
        service.write([ROW])
    assert not witness.generation()[1]
    monkeypatch.setattr(recovery, "PROBE_SECONDS", 0)
    configure()

    assert service.read([7]).rows == [ROW]
    wait_until(lambda: witness.generation()[1])


@pytest.mark.parametrize("verb", ["begin_fence_many", "publish_many"])
@pytest.mark.parametrize("row", [ROW, hero(xp=70)], ids=["replace", "insert"])
def test_a_write_that_loses_its_connection_waits_for_another_one_as_long_as_it_may_take(
    witness: Witness,
    configure: Configure,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    verb: str,
    row: Row,
) -> None:
    """Who can do without Redis waits less; a write would switch the cache off."""
    configure()
    service = InProcess()
    service.write([ROW])
    link = client_of(services.container().cache)
    do, wait = getattr(Cache, verb), Openings.wait
    waited: list[object] = []

    def lose_and_do(self: Cache, *arguments: Any) -> object:
        link._pool.clear()
        return do(self, *arguments)

    def wait_so_long(self: Openings, seconds: float, *, since_it_began: bool = False) -> Connection:
        waited.append((seconds, since_it_began))
        return wait(self, seconds, since_it_began=since_it_began)

    monkeypatch.setattr(Cache, verb, lose_and_do)
    monkeypatch.setattr(Openings, "wait", wait_so_long)
    service.write([row])

    assert waited == [(timeouts.OPENING_SECONDS, False)]
    assert_in_use(witness, caplog=caplog)


@pytest.mark.parametrize("seconds_ago", [0, 3600])
def test_a_write_after_a_long_freeze_asks_redis_before_it_switches_the_cache_off(
    witness: Witness, configure: Configure, monkeypatch: pytest.MonkeyPatch, seconds_ago: int
) -> None:
    """Others have used it all the while. A failure of a moment ago is believed."""
    configure()
    service = InProcess()
    service.write([ROW])
    link = client_of(services.container().cache)
    monkeypatch.setattr(Recovery, "start", lambda self: None)
    link._mark_down(redis.TimeoutError("for this test"))
    link._failed_at = time.monotonic() - seconds_ago

    changed = {**ROW, "name": "changed"}
    service.write([changed])

    assert witness.generation()[1] == bool(seconds_ago)
    assert service.read([7]).rows == [changed]
    assert seconds_ago != 0 or link._failed_at > time.monotonic() - cache_client.FAILED_SECONDS


def test_a_probe_that_failed_a_moment_ago_is_believed_however_long_ago_redis_failed_first(
    witness: Witness, configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else each write waits for a silent Redis that is being probed."""
    configure()
    service = InProcess()
    service.write([ROW])
    link = client_of(services.container().cache)
    monkeypatch.setattr(Recovery, "start", lambda self: None)
    link._mark_down(redis.TimeoutError("for this test"))
    link._failed_at = time.monotonic() - 3600

    def fail(self: Connection) -> None:
        raise redis.ConnectionError("for this test")

    with monkeypatch.context() as patch:
        patch.setattr(Connection, "open", fail)
        link._pool.clear()
        with pytest.raises(CacheUnavailable):
            link.probe()
    changed = {**ROW, "name": "changed"}
    service.write([changed])

    assert link.is_down
    assert not witness.generation()[1]
    assert service.read([7]).rows == [changed]


# --- replies and batches of megabytes -------------------------------------------------------------


def test_each_byte_that_comes_gives_the_rest_the_time_that_it_took() -> None:
    """One deadline, which a sender that is slower than that cannot move for long."""
    deadline = timeouts.Deadline()
    deadline.until = 100.0

    deadline.received(timeouts.MIN_BYTES_A_SECOND)
    deadline.received(1)

    assert deadline.until == pytest.approx(101.0, abs=0.001)


def test_a_reply_of_megabytes_may_take_longer_than_a_short_one(
    witness: Witness, configure: Configure, redis_server: Redis
) -> None:
    with relaying(redis_server.port) as relay:
        configure(REDIS_URL=f"redis://127.0.0.1:{relay.port}")
        link = client_of(services.container().cache)
        link.probe()
        [connection] = link._pool._idle
        driver = connection._nodes[0]._driver
        until = connection._nodes[0]._deadline.until
        size = 3_000_000
        witness.redis.set("{heroes.0}:big", b"x" * size)
        driver.send_command("GET", "{heroes.0}:big")
        assert len(driver.read_response()) == size

    moved = connection._nodes[0]._deadline.until - until
    assert moved == pytest.approx(size / timeouts.MIN_BYTES_A_SECOND, rel=0.01)


# --- servers that a service hides -----------------------------------------------------------------


@pytest.mark.parametrize("info", [another_server_each_time, little, nothing])
def test_a_service_that_hides_its_servers_is_one_data_set(
    service: InProcess,
    cache: ServerlessCache,
    witness: Witness,
    configure: Configure,
    caplog: pytest.LogCaptureFixture,
    info: Info,
) -> None:
    """Whichever of them a connection reaches. The markers tell whether it was emptied."""
    caplog.set_level(logging.INFO, "herocache.redis")
    cache.info = info
    service.write([ROW])
    number, _, server = witness.generation()
    assert server.startswith("serverless-")
    wait_until(lambda: witness.fences() == 0)  # a publish that is cut off is lost

    for _ in range(3):
        cache.cut()
        assert service.read([7]).rows == [ROW]
        configure(**cache.settings())
        with witness.logged() as statements:
            assert service.read([7]).rows == [ROW]
        assert not [sql for sql in statements if " FROM heroes " in sql]
    assert witness.generation()[0] == number
    assert len(cache.logins) >= 4

    witness.redis.flushall()
    service.write([{**ROW, "name": "after a flush"}])
    assert service.read([7]).rows == [{**ROW, "name": "after a flush"}]
    assert witness.generation()[0] > number
    assert_in_use(witness, caplog=caplog)


@pytest.mark.parametrize(
    ("info", "waits"), [(another_server_each_time, False), (little, True), (nothing, True)]
)
def test_a_write_waits_for_its_publish_where_nobody_knows_what_the_service_evicts(
    service: InProcess,
    cache: ServerlessCache,
    monkeypatch: pytest.MonkeyPatch,
    info: Info,
    waits: bool,
) -> None:
    """One of them says that it has no limit of memory."""
    told, publish_many = list[object](), Cache.publish_many

    def publish(self: Cache, *arguments: Any) -> None:
        told.append(arguments[5])
        publish_many(self, *arguments)

    cache.info = info
    service.read([7])
    service.read([7])
    monkeypatch.setattr(Cache, "publish_many", publish)
    service.write([ROW])

    assert told == [waits]


@pytest.mark.parametrize(
    ("info", "told"),
    [
        (another_server_each_time, "redis_version 7.1, redis_mode cluster, run_id "),
        (nothing, "nothing of itself"),
    ],
)
def test_what_redis_says_of_itself_is_logged_once(
    service: InProcess,
    cache: ServerlessCache,
    caplog: pytest.LogCaptureFixture,
    info: Info,
    told: str,
) -> None:
    caplog.set_level(logging.INFO, "herocache.redis")
    cache.info = info

    for _ in range(3):
        service.read([7])
        cache.cut()

    lines = [line for line in caplog.messages if line.startswith("Redis says: ")]
    assert len(lines) == 1
    assert told in lines[0]


def test_a_cache_that_names_many_servers_is_told_which_setting_it_lacks(
    service: InProcess,
    cache: ServerlessCache,
    configure: Configure,
    caplog: pytest.LogCaptureFixture,
) -> None:
    cache.info = another_server_each_time
    configure(**{**cache.settings(), "REDIS_SERVERLESS": "0"})
    service.write([ROW])

    for _ in range(cache_client.MANY_SERVERS):
        cache.cut()
        assert service.read([7]).rows == [ROW]

    assert caplog.text.count("set REDIS_SERVERLESS=1") == 1


def test_the_row_is_as_it_is_stored() -> None:
    assert as_stored(7, hero(xp=70)) == ROW
