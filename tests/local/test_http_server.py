"""The server of `chalice local`: kept connections, many clients, what it logs."""

import json
import logging
import random
import socket
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import pytest
import requests

from local.chalice_http import http_server
from local.machine import PORTS, port_is_free
from local.servers import App
from tests.conftest import running
from tests.support.client import OverHttp, heroes
from tests.support.raw_http import READ, Connection, post


def test_an_answer_does_not_wait_for_the_clients_acknowledgement(
    url: str, session: requests.Session
) -> None:
    """Which would take 40 ms for each request over a kept connection."""
    [first, *_, last] = OverHttp(f"{url}/").write(heroes(100)).ids
    request = json.dumps({"REQUEST": "read", "SQLS": list(range(first, last + 1))})

    def seconds() -> float:
        start = perf_counter()
        assert session.post(url, data=request, timeout=10).status_code == 200
        return perf_counter() - start

    assert median(seconds() for _ in range(41)) < 0.03


def test_requests_sent_at_once_are_answered_in_order_and_at_once(url: str) -> None:
    """The second answer would wait for the acknowledgement of the first."""
    requests_sent = post("Content-Length: 2", body=b"{}") + post(f"Content-Length: {len(READ)}")
    with Connection(url) as connection, connection.socket.makefile("rb") as answers:

        def seconds() -> float:
            start = perf_counter()
            connection.socket.sendall(requests_sent + READ)
            for status in (b"400", b"200"):
                lines = list(iter(answers.readline, b"\r\n"))
                assert lines[0].split()[1] == status
                [length] = [line for line in lines if line.startswith(b"Content-Length")]
                answers.read(int(length.split()[1]))
            return perf_counter() - start

        assert median(seconds() for _ in range(41)) < 0.03


@pytest.fixture
def paused_app(tmp_path: Path, environment: Mapping[str, str]) -> Iterator[App]:
    """It takes no connection."""
    port = next(port for port in random.sample(PORTS, len(PORTS)) if port_is_free(port))
    with running(App(tmp_path / "app", port, environment)) as app:
        app.pause()
        yield app


def test_a_hundred_clients_may_connect_at_the_same_moment(paused_app: App) -> None:
    connections = [Connection(paused_app.url) for _ in range(100)]
    paused_app.resume()

    for connection in connections:
        with connection:
            assert connection.ask(post(f"Content-Length: {len(READ)}", body=READ)).status == 200


def test_sixty_four_threads_of_new_connections_are_all_answered(url: str) -> None:
    def ask(_: int) -> int:
        with Connection(url) as connection:
            return connection.ask(post(f"Content-Length: {len(READ)}", body=READ)).status

    with ThreadPoolExecutor(64) as pool:
        assert set(pool.map(ask, range(512))) == {200}


def test_an_answer_goes_out_in_one_write(
    echo_url: str, session: requests.Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[bytes] = []
    write = socket.SocketIO.write

    def note(self: socket.SocketIO, data: Any) -> int | None:
        written.append(bytes(data))
        return write(self, data)

    monkeypatch.setattr(socket.SocketIO, "write", note)
    for path, status in (("", 200), ("/nowhere", 404)):
        written.clear()
        answer = session.post(echo_url + path, data=b"{}", timeout=10)
        assert answer.status_code == status
        [whole] = written
        assert whole.endswith(b"\r\n\r\n" + answer.content)


def test_what_the_app_answered_is_not_logged_and_what_it_never_saw_is(
    echo_url: str,
    session: requests.Session,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level(logging.INFO, "herocache.requests")
    assert session.post(echo_url, data=b"{}", timeout=10).status_code == 200
    assert session.get(f"{echo_url}/a\x1b", timeout=10).status_code == 404

    [line] = caplog.messages
    assert line.startswith('404 "GET /echo/a%1B HTTP/1.1": ')
    assert capfd.readouterr().err == ""


def test_an_idle_connection_is_closed_without_a_word(
    echo_url: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(http_server.Handler, "timeout", 0.05)
    with Connection(echo_url) as connection:
        assert connection.is_closed()
    with Connection(echo_url) as connection:
        connection.socket.sendall(b"POST /echo HTTP/1.1\r\nHost")
        assert connection.is_closed()
    assert capfd.readouterr().err == ""


def test_only_a_bug_leaves_a_traceback(
    echo_url: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_server.Listener, "__init__", lambda self: None)
    for error, traces in ((ConnectionResetError(), 0), (BrokenPipeError(), 0), (KeyError(), 1)):
        try:
            raise error
        except type(error):
            http_server.Listener().handle_error(None, "a client")  # type: ignore[call-arg]
        assert capfd.readouterr().err.count("Traceback") == traces


def test_a_page_of_an_allowed_origin_may_read_the_servers_own_errors(
    echo_url: str, session: requests.Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CORS_ORIGINS", "https://shop.example.com")
    for origin, shown in (("https://shop.example.com", True), ("https://evil.example.com", False)):
        answer = session.get(f"{echo_url}/nowhere", headers={"Origin": origin}, timeout=10)

        assert answer.status_code == 404
        assert ("Access-Control-Allow-Origin" in answer.headers) is shown
