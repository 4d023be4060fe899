"""Host names: a look-up that hangs delays a request no longer than a connection may take."""

import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from chalicelib.cache import timeouts
from chalicelib.db.mysql import driver
from chalicelib.network import reach
from local.machine import LOOPBACK
from local.servers import MariaDB, Redis
from tests.conftest import Configure
from tests.support.client import InProcess, as_stored, hero

SLOW, SHORT = "slow.example", 0.05
# A look-up that hangs takes 30 s.
LATE_SECONDS = 10


@pytest.fixture(autouse=True)
def slow_names(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """The resolver does not answer for SLOW before the test is over."""
    look_up = socket.getaddrinfo
    is_over = threading.Event()

    def hang(host: Any, *arguments: Any, **named: Any) -> Any:
        if host == SLOW:
            is_over.wait(30)
            raise socket.gaierror("too late")
        return look_up(host, *arguments, **named)

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    yield is_over
    is_over.set()


def test_a_redis_whose_name_is_not_found_in_time_delays_a_read_once(
    service: InProcess, configure: Configure, redis_server: Redis
) -> None:
    [id] = service.write([hero()]).ids
    configure(REDIS_URL=f"redis://{SLOW}:{redis_server.port}")
    begun = time.monotonic()

    assert service.read([id]).rows == [as_stored(id, hero())]

    assert time.monotonic() - begun < timeouts.TIMEOUT_SECONDS + LATE_SECONDS


def test_a_database_whose_name_is_not_found_in_time_is_a_503(
    service: InProcess, configure: Configure
) -> None:
    configure(DB_HOST=SLOW)
    begun = time.monotonic()

    answer = service.read([1], use_cache=False)

    assert time.monotonic() - begun < driver.CONNECT_TIMEOUT_SECONDS + LATE_SECONDS
    assert (answer.status, answer.error) == (503, "DatabaseUnavailable")
    assert "no answer in time" in answer.message


def test_each_address_of_a_name_is_tried(mariadb: MariaDB, monkeypatch: pytest.MonkeyPatch) -> None:
    """localhost is often two, of which servers listen on one."""
    [found] = socket.getaddrinfo(LOOPBACK, mariadb.port, type=socket.SOCK_STREAM)
    deaf = (*found[:4], (LOOPBACK, 1))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [deaf, found])

    with reach("two.example", mariadb.port, 1) as connection:
        assert connection.getpeername() == (LOOPBACK, mariadb.port)


def test_why_a_host_is_not_reached_is_told() -> None:
    for host, error in ((SLOW, TimeoutError), (LOOPBACK, ConnectionRefusedError)):
        with pytest.raises(error):
            reach(host, 1, SHORT)
