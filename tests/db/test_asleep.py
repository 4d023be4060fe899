"""A database that sleeps: it takes connections at once and greets when it has woken up."""

import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from app import storage
from chalicelib import clocks, config
from chalicelib.cache import generations
from chalicelib.db import errors as database_errors
from chalicelib.db.mysql import connection as mysql_connection
from chalicelib.db.mysql import connector as mysql_connector
from chalicelib.db.mysql import driver as mysql_driver
from local.machine import LOOPBACK
from local.servers import MariaDB
from tests.conftest import Configure
from tests.support.client import InProcess, Row, as_stored, hero
from tests.support.leaks import assert_tells_nothing_internal
from tests.support.relay import PASS, Relay, relaying
from tests.support.topologies import wait_until
from tests.support.witness import Witness

ID = 1
# Longer than any wait for a database that is awake.
WAKES_AFTER_SECONDS = 3.5
API_GATEWAY_WAITS_SECONDS = 29
# The promises are 1 s and 3 s. This leaves room for a busy machine: who waits for a sleeper waits
# for 20 s.
QUICK_SECONDS = 10.0

REQUESTS: list[Row] = [
    {"REQUEST": "read", "SQLS": [ID], "USE_CACHE": "False"},
    {"REQUEST": "read", "SQLS": [404]},
    {"REQUEST": "write", "SQLS": [hero()]},
    {"REQUEST": "write", "SQLS": [{"id": 7, **hero()}]},
    {"REQUEST": "delete", "SQLS": [404]},
]


@pytest.fixture
def way(mariadb: MariaDB) -> Iterator[Relay]:
    """The way to the database; while it is silent the database sleeps."""
    with relaying(mariadb.port) as relay:
        yield relay


@pytest.fixture
def service(witness: Witness, configure: Configure, way: Relay) -> InProcess:
    """Warm; hero 1 is in the table and in the cache."""
    configure(DB_PORT=str(way.port), DB_RESUME_SECONDS="20")
    service = InProcess()
    service.write([{"id": ID, **hero()}])
    assert service.read([ID]).rows == [as_stored(ID, hero())]
    return service


def fall_asleep(way: Relay) -> None:
    """As Aurora does: only when nobody is connected."""
    way.silence()
    way.cut()


def test_the_first_requests_wait_until_it_is_awake(
    service: InProcess, way: Relay, configure: Configure, witness: Witness
) -> None:
    """In a cold container whose cache is empty too: nothing is known but the settings."""
    witness.redis.flushall()
    configure(DB_PORT=str(way.port), DB_RESUME_SECONDS="20")
    fall_asleep(way)
    begun = time.monotonic()
    alarm = threading.Timer(WAKES_AFTER_SECONDS, way.end_silence)
    alarm.start()

    with ThreadPoolExecutor(len(REQUESTS)) as threads:
        answers = list(threads.map(lambda request: storage(request, None), REQUESTS))
    alarm.join()

    assert [answer["statusCode"] for answer in answers] == [200] * len(REQUESTS)
    assert time.monotonic() - begun >= WAKES_AFTER_SECONDS


def test_a_write_with_an_idempotency_key_waits_once(
    service: InProcess, way: Relay, configure: Configure
) -> None:
    """The database wakes up, then goes silent in the middle of the COMMIT: it is away, and does not
    sleep. The second try waits for it as for any other database."""

    def fall_silent(piece: bytes) -> int:
        if b";COMMIT" in piece:
            way.silence()
        return PASS

    configure(DB_PORT=str(way.port), DB_RESUME_SECONDS="20")
    way.judge = fall_silent
    begun = time.monotonic()

    answer = service.post({"REQUEST": "write", "SQLS": [hero()], "IDEMPOTENCY_KEY": "once"})

    assert (answer.status, answer.error) == (503, "OutcomeUnknown")
    assert time.monotonic() - begun < QUICK_SECONDS


@pytest.mark.parametrize("passed", [(61, 0), (-3600, 61)], ids=["frozen", "set back"])
def test_one_that_greeted_long_ago_may_sleep_by_now(
    service: InProcess, way: Relay, monkeypatch: pytest.MonkeyPatch, passed: tuple[int, int]
) -> None:
    """Also where only one of the container's clocks went on."""
    now = clocks.clocks
    later = lambda: tuple(at + more for at, more in zip(now(), passed))  # noqa: E731
    monkeypatch.setattr(clocks, "clocks", later)
    monkeypatch.setattr(mysql_connector, "CONNECT_TIMEOUT_SECONDS", 0.1)
    fall_asleep(way)
    alarm = threading.Timer(0.5, way.end_silence)
    alarm.start()

    answer = service.read([ID], use_cache=False)
    alarm.join()

    assert answer.status == 200


def test_where_it_never_sleeps_silence_is_not_waited_for(
    service: InProcess, way: Relay, configure: Configure
) -> None:
    configure(DB_PORT=str(way.port))
    fall_asleep(way)
    begun = time.monotonic()

    answer = service.read([ID], use_cache=False)

    assert time.monotonic() - begun < QUICK_SECONDS
    assert "waking up" not in answer.message
    assert answer.headers["retry-after"] == "2"


def test_one_that_sleeps_on_is_a_503_that_says_so(
    service: InProcess, way: Relay, configure: Configure
) -> None:
    configure(DB_PORT=str(way.port), DB_RESUME_SECONDS="1")
    fall_asleep(way)

    with ThreadPoolExecutor(len(REQUESTS)) as threads:
        begun = time.monotonic()
        answers = list(threads.map(lambda request: InProcess().post(request), REQUESTS))
        seconds = time.monotonic() - begun

    assert seconds < QUICK_SECONDS
    for answer in answers:
        assert (answer.status, answer.error) == (503, "DatabaseUnavailable")
        assert answer.message.endswith("Or it is waking up: try again in a moment")
        assert answer.headers["retry-after"] == str(database_errors.RESUME_RETRY_AFTER_SECONDS)
        assert_tells_nothing_internal(answer)


@pytest.mark.parametrize("is_warm", [True, False], ids=["warm", "cold"])
def test_cached_reads_do_not_wait(
    service: InProcess,
    way: Relay,
    configure: Configure,
    monkeypatch: pytest.MonkeyPatch,
    is_warm: bool,
) -> None:
    """A cold container believes the hint that another one left in Redis. Each read here asks for
    the generation, as the first in half a second does."""
    monkeypatch.setattr(generations, "MEMORY_SECONDS", 0.0)
    if not is_warm:
        configure(DB_PORT=str(way.port), DB_RESUME_SECONDS="20")
    fall_asleep(way)

    for _ in range(2):
        begun = time.monotonic()
        assert service.read([ID]).rows == [as_stored(ID, hero())]
        assert time.monotonic() - begun < QUICK_SECONDS


def test_a_host_that_takes_no_connection_is_not_waited_for(
    service: InProcess, configure: Configure
) -> None:
    """Aurora takes them while it wakes up; a closed way (subnet, security group) takes none."""
    with socket.create_server((LOOPBACK, 0), backlog=0) as listener:
        waiting = []
        for _ in range(4):  # the queue is full then
            client = socket.socket()
            client.setblocking(False)
            client.connect_ex(listener.getsockname())
            waiting.append(client)
        configure(DB_PORT=str(listener.getsockname()[1]), DB_RESUME_SECONDS="20", REDIS_URL=None)
        begun = time.monotonic()

        answer = service.read([ID], use_cache=False)

        assert answer.status == 503
        assert time.monotonic() - begun < QUICK_SECONDS
        for client in waiting:
            client.close()


@pytest.mark.own_deadlines
def test_the_longest_wait_ends_before_api_gateway_hangs_up() -> None:
    longest = (
        generations.REFRESH_TIMEOUT_SECONDS
        + mysql_driver.CONNECT_TIMEOUT_SECONDS  # the network
        + config.MAX_RESUME_SECONDS  # the greeting
        + mysql_driver.CONNECT_TIMEOUT_SECONDS  # the login
    )

    assert longest < API_GATEWAY_WAITS_SECONDS


def connections(mariadb: MariaDB) -> set[int]:
    """Their ids."""
    rows = mariadb.query("SELECT id FROM information_schema.processlist WHERE user = 'herocache'")
    return {id for (id,) in rows}


def test_an_app_that_idles_holds_no_connection(
    service: InProcess, configure: Configure, mariadb: MariaDB, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A frozen container cannot close it: the server does, and Aurora may sleep."""
    whole = f"wait_timeout={mysql_connection.IDLE_TIMEOUT_SECONDS},"
    assert whole in mysql_connection._SESSION
    monkeypatch.setattr(
        mysql_connection, "_SESSION", mysql_connection._SESSION.replace(whole, "wait_timeout=1,")
    )
    configure()
    before = connections(mariadb)
    service.read([ID], use_cache=False)
    ours = connections(mariadb) - before
    assert len(ours) == 1

    wait_until(lambda: not ours & connections(mariadb))

    assert service.read([ID], use_cache=False).rows == [as_stored(ID, hero())]
    assert len(service.write([hero()]).ids) == 1
