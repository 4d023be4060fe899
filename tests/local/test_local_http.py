"""HTTP at `chalice local`: kept connections, bodies of every kind, malformed requests."""

import gzip
import hashlib
import http.client
import json
import logging
import random
import socket
import subprocess
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any
from urllib.parse import urlsplit

import chalice.local
import pytest
import requests
from chalice.app import Chalice
from chalice.config import Config

from chalicelib.handlers.json_body import MAX_BODY_BYTES
from local.chalice_http import http_server, replace_server
from local.machine import LOOPBACK, PORTS, ROOT, port_is_free
from local.servers import App
from tests.conftest import running
from tests.house.test_house import run_python
from tests.support.client import Answer, OverHttp, heroes
from tests.support.witness import Witness

READ = b'{"REQUEST":"read","SQLS":[]}'
EMPTY = {"statusCode": 200, "body": []}


@pytest.fixture
def url(server_url: str, witness: Witness) -> str:
    """Of a `chalice local` process on empty servers, without a slash at its end."""
    return server_url.rstrip("/")


@pytest.fixture
def session() -> Iterator[requests.Session]:
    """It keeps its connection."""
    with requests.Session() as session:
        session.trust_env = False
        yield session


class Connection:
    """A bare one, which sends what no client would."""

    def __init__(self, url: str) -> None:
        address = urlsplit(url)
        assert address.hostname is not None
        assert address.port is not None
        self.socket = socket.create_connection((address.hostname, address.port), timeout=10)

    def __enter__(self) -> "Connection":
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def ask(self, request: bytes, method: str = "GET") -> Answer:
        self.socket.sendall(request)
        return self.answer(method)

    def answer(self, method: str = "GET") -> Answer:
        with http.client.HTTPResponse(self.socket, method=method) as response:
            response.begin()
            headers = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, response.read(), headers)

    def is_closed(self) -> bool:
        """In order: a reset would be an error."""
        return self.socket.recv(1) == b""


def post(*headers: str, body: bytes = b"", path: str = "/") -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", *headers, "", ""]
    return "\r\n".join(lines).encode("latin-1") + body


def chunked(*chunks: bytes) -> bytes:
    pieces = [b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in (*chunks, b"")]
    return b"".join(pieces)


# --- speed and many clients -----------------------------------------------------------------------


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


# --- bodies ---------------------------------------------------------------------------------------


def test_a_chunked_body_is_read(url: str, session: requests.Session) -> None:
    for _ in range(2):
        response = session.post(url, data=iter([READ[:5], READ[5:]]), timeout=10)

        assert response.request.headers["Transfer-Encoding"] == "chunked"
        assert response.json() == EMPTY


def test_extensions_and_trailers_of_a_chunked_body_are_passed_over(url: str) -> None:
    body = b"5;name=value\r\n%s\r\n%X \r\n%s\r\n0\r\nTrailer: 1\r\nAnother: 2\r\n\r\n"
    body %= (READ[:5], len(READ) - 5, READ[5:])
    with Connection(url) as connection:
        for _ in range(2):
            answer = connection.ask(post("Transfer-Encoding: Chunked", body=body))
            assert answer.fields == EMPTY


@pytest.mark.parametrize(
    "body",
    [
        b"zz\r\n{}\r\n0\r\n\r\n",
        b"-2\r\n{}\r\n0\r\n\r\n",
        b"0x2\r\n{}\r\n0\r\n\r\n",
        b"\r\n{}\r\n0\r\n\r\n",
        b"2\n{}\n0\n\n",
        b"1\r\n{}\r\n0\r\n\r\n",
        b"2;" + b"x" * 2_000 + b"\r\n{}\r\n0\r\n\r\n",
        b"2\r\n{}\r\n0\r\n" + b"A: 1\r\n" * 200 + b"\r\n",
    ],
)
def test_a_malformed_chunk_is_a_bad_request(url: str, body: bytes) -> None:
    with Connection(url) as connection:
        answer = connection.ask(post("Transfer-Encoding: chunked", body=body))

        assert (answer.status, answer.error) == (400, "BadRequest")
        assert answer.message.startswith("body: ")
        assert connection.is_closed()


@pytest.mark.parametrize("encoding", ["gzip", "gzip, chunked", "chunked, chunked", "identity"])
def test_another_transfer_encoding_is_refused_by_name(url: str, encoding: str) -> None:
    with Connection(url) as connection:
        answer = connection.ask(post(f"Transfer-Encoding: {encoding}", body=chunked(READ)))

        assert (answer.status, answer.error) == (501, "NotImplemented")
        assert encoding in answer.message
        assert connection.is_closed()


@pytest.mark.parametrize(
    "headers",
    [
        ["Content-Length: ten"],
        ["Content-Length: -1"],
        ["Content-Length: +28"],
        ["Content-Length: 2 8"],
        ["Content-Length: 28, 28"],
        ["Content-Length: 0x1c"],
        ["Content-Length: ²"],
        ["Content-Length:"],
        ["Content-Length: " + "9" * 5_000],
        ["Content-Length: 28", "Content-Length: 28"],
        ["Content-Length: 28", "Content-Length: 29"],
        ["Content-Length: 28", "Transfer-Encoding: chunked"],
        ["Transfer-Encoding: chunked", "Transfer-Encoding: chunked"],
    ],
)
def test_a_length_that_cannot_be_believed_is_a_bad_request(url: str, headers: list[str]) -> None:
    with Connection(url) as connection:
        answer = connection.ask(post(*headers, body=READ))

        assert (answer.status, answer.error) == (400, "BadRequest")
        assert "Content-Length" in answer.message
        assert connection.is_closed()


@pytest.mark.parametrize(
    "headers",
    [
        ["Content-Length: 6000000000"],
        [f"Content-Length: {MAX_BODY_BYTES + 1}"],
        ["Content-Length: 6000000000", "Expect: 100-continue"],
    ],
)
def test_a_body_that_is_too_large_is_refused_unread(url: str, headers: list[str]) -> None:
    with Connection(url) as connection:
        answer = connection.ask(post(*headers))

        assert (answer.status, answer.error) == (413, "TooLarge")
        assert connection.is_closed()


def test_a_client_that_sends_too_much_sees_why_it_is_refused(
    url: str, session: requests.Session
) -> None:
    """A connection closed with bytes unread would be reset."""
    large = b" " * (MAX_BODY_BYTES + 1_000_000)
    for header, body in (
        (f"Content-Length: {len(large)}", large),
        ("Transfer-Encoding: chunked", chunked(large)),
    ):
        with Connection(url) as connection:
            assert connection.ask(post(header, body=body)).status == 413
            assert connection.is_closed()
    for data in (large, iter([large])):
        response = session.post(url, data=data, timeout=10)
        assert (response.status_code, response.json()["body"]["error"]) == (413, "TooLarge")
    for data in (large[:MAX_BODY_BYTES], iter([large[:MAX_BODY_BYTES]])):
        assert session.post(url, data=data, timeout=10).status_code == 400, "read, and no JSON"


def test_a_client_that_asks_first_is_told_to_go_on(url: str) -> None:
    headers = [f"Content-Length: {len(READ)}", "Expect: 100-continue"]
    with Connection(url) as connection:
        connection.socket.sendall(post(*headers))
        assert connection.socket.recv(1_000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        assert connection.ask(READ).fields == EMPTY


def test_a_body_that_ends_early_never_reaches_the_app(url: str) -> None:
    whole = b'{"REQUEST":"write","SQLS":[]}          '
    for headers, body in (
        ([f"Content-Length: {len(whole)}"], whole[:-5]),
        (["Transfer-Encoding: chunked"], chunked(whole).removesuffix(b"0\r\n\r\n")),
        (["Transfer-Encoding: chunked"], chunked(whole)[:-20]),
    ):
        with Connection(url) as connection:
            connection.socket.sendall(post(*headers, body=body))
            connection.socket.shutdown(socket.SHUT_WR)
            answer = connection.answer()
            assert (answer.status, answer.error) == (400, "BadRequest")
            assert connection.is_closed()


def curl(url: str, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    """It shows on stderr what goes over the wire."""
    command = ["curl", "-sSv", "--noproxy", "*", "--max-time", "10", *arguments, url]
    return subprocess.run(command, check=True, capture_output=True)


def test_curl_sends_chunks_and_asks_first_and_offers_to_decompress(
    url: str, tmp_path: Path
) -> None:
    large = tmp_path / "large.json"
    large.write_bytes(READ + b" " * 2_000_000)
    body = ["--data-binary", f"@{large}"]

    asked = curl(url, *body, "-H", "Expect: 100-continue")
    assert b"< HTTP/1.1 100 Continue" in asked.stderr
    in_chunks = curl(url, *body, "-H", "Transfer-Encoding: chunked")
    assert b"> Transfer-Encoding: chunked" in in_chunks.stderr
    compressed = curl(url, *body, "--compressed")

    for done in (asked, in_chunks, compressed):
        assert json.loads(done.stdout) == EMPTY


# --- paths, methods, malformed requests -----------------------------------------------------------


def test_head_has_the_headers_of_get_and_no_body(url: str) -> None:
    with Connection(url) as connection:
        head = connection.ask(b"HEAD /health HTTP/1.1\r\nHost: 127.1.2.3\r\n\r\n", method="HEAD")
        get = connection.ask(b"GET /health HTTP/1.1\r\nHost: [::1]:80\r\n\r\n")

    assert (head.status, head.content) == (200, b"")
    assert int(head.headers["content-length"]) == len(get.content) > 0
    with Connection(url) as connection, connection.socket.makefile("rb") as answer:
        connection.socket.sendall(b"HEAD /nowhere HTTP/1.0\r\n\r\n")
        whole = answer.read()
        assert whole.startswith(b"HTTP/1.1 404 ")
        assert whole.index(b"\r\n\r\n") == len(whole) - 4
    shown = curl(f"{url}/health", "--head").stdout
    assert shown.startswith(b"HTTP/1.1 200 OK\r\n")
    assert shown.endswith(b"\r\n\r\n")


def test_a_path_that_is_not_there_is_not_found(url: str, session: requests.Session) -> None:
    for path in ("/nowhere", "/nowhere?a=1", "/health/deeper", "/a//b", "/%2e%2e/", "/zoë\x1b"):
        for headers in ({}, {"Authorization": "Bearer a"}):
            for method in ("GET", "POST", "PUT"):
                answer = session.request(method, url + path, data=READ, headers=headers, timeout=10)
                assert (answer.status_code, answer.json()["body"]["error"]) == (404, "NotFound")
                message = answer.json()["body"]["message"]
                paths = "/, /health, /health/deep, /read"
                assert message.endswith(f"there is no such path; there are {paths}")
    assert session.head(f"{url}/nowhere", timeout=10).status_code == 404
    assert session.get(f"{url}/health", timeout=10).status_code == 200


@pytest.mark.parametrize("path", ["/", "//", "/?a=1", "/?", "//?a=%zz&a=2"])
def test_a_doubled_slash_and_a_query_change_no_path(url: str, path: str) -> None:
    with Connection(url) as connection:
        for _ in range(2):
            request = post(f"Content-Length: {len(READ)}", body=READ, path=path)
            assert connection.ask(request).fields == EMPTY


@pytest.mark.parametrize("method", ["DELETE", "PROPFIND", "TRACE", "get", "X"])
def test_a_method_that_nobody_knows_is_not_allowed(url: str, method: str) -> None:
    with Connection(url) as connection:
        for _ in range(2):
            request = post(f"Content-Length: {len(READ)}", body=READ).replace(
                b"POST", method.encode(), 1
            )
            assert connection.ask(request).status == 405, "and the connection stays"


@pytest.mark.parametrize(
    ("request_bytes", "status", "error"),
    [
        (b"HELLO\r\n\r\n", 400, "BadRequest"),
        (b"POST /\r\n\r\n", 400, "BadRequest"),
        (b"GET / and more HTTP/1.1\r\n\r\n", 400, "BadRequest"),
        (b"GET / HTTP/one\r\n\r\n", 400, "BadRequest"),
        (b"GET / FTP/1.1\r\n\r\n", 400, "BadRequest"),
        (b"\x16\x03\x01\x02\x00\x01\n", 400, "BadRequest"),
        (b"\r\nGET / HTTP/one\r\n\r\n", 400, "BadRequest"),
        (b"GET /health HTTP/0.9\r\nHost: localhost\r\n\r\n", 505, "HttpVersionNotSupported"),
        (b"GET / HTTP/2.0\r\n\r\n", 505, "HttpVersionNotSupported"),
        (b"GET /?" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n", 414, "UriTooLong"),
        (post(*[f"A{i}: 1" for i in range(150)]), 431, "HeadersTooLarge"),
        (post("A: " + "a" * 100_000), 431, "HeadersTooLarge"),
        (post("no colon", "Content-Length: 2", body=b"{}"), 400, "BadRequest"),
        (post("Content-Length : 2", body=b"{}"), 400, "BadRequest"),
        (post("A: 1", " folded: 2", "Content-Length: 2", body=b"{}"), 400, "BadRequest"),
        (post(": no name", "Content-Length: 2", body=b"{}"), 400, "BadRequest"),
        (post().replace(b"Host", b" Host"), 400, "BadRequest"),
    ],
)
def test_a_malformed_request_gets_the_one_error_shape(
    url: str, request_bytes: bytes, status: int, error: str
) -> None:
    with Connection(url) as connection:
        answer = connection.ask(request_bytes)

        assert (answer.status, answer.error) == (status, error)
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["connection"] == "close"
        assert answer.headers["server"] == "herocache"
        assert connection.is_closed()


def test_an_empty_line_ahead_of_a_request_is_passed_over(url: str) -> None:
    with Connection(url) as connection:
        for empty in (b"\r\n", b"", b"\n", b"\r\n"):
            request = post(f"Content-Length: {len(READ)}", body=READ)
            assert connection.ask(empty + request).fields == EMPTY


def test_of_two_empty_lines_the_second_one_ends_the_connection(url: str) -> None:
    with Connection(url) as connection:
        connection.socket.sendall(b"\r\n\r\n")
        assert connection.is_closed()


# --- whom a request was sent to -------------------------------------------------------------------


@pytest.mark.parametrize(
    "host",
    ["localhost", "LocalHost:8000", "localhost:", "127.0.0.1", "10.1.2.3:80", "[::1]", "[::1]:80"],
)
def test_a_request_to_localhost_or_an_address_is_answered(url: str, host: str) -> None:
    request = post(f"Content-Length: {len(READ)}", body=READ)
    with Connection(url) as connection:
        answer = connection.ask(request.replace(b"localhost", host.encode(), 1))
        assert answer.fields == EMPTY


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8000",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "127.0.0.1@evil.example",
        "evil.example#127.0.0.1",
        "[evil.example]",
        "::1",
        "[::1",
        "a,localhost",
        "",
    ],
)
def test_a_name_that_a_page_can_have_lead_here_is_refused_and_deletes_nothing(
    url: str, witness: Witness, host: str
) -> None:
    """Its own origin, then, is the one that the request is sent to: no other check stops it."""
    OverHttp(f"{url}/").write([{"id": 1, **heroes(1)[0]}])
    delete = b'{"REQUEST":"delete","SQLS":[1]}'
    for extra in ([], ["Expect: 100-continue"]):
        headers = [f"Origin: http://{host}", f"Content-Length: {len(delete)}", *extra]
        request = post(*headers, body=delete).replace(b"localhost", host.encode(), 1)
        with Connection(url) as connection:
            answer = connection.ask(request)

            assert (answer.status, answer.error) == (421, "MisdirectedRequest")
            assert answer.message.startswith(f"Host: {host!r} is not answered here")
            assert connection.is_closed()
    assert witness.count() == 1


def test_a_host_is_sent_once_and_only_http_1_0_may_leave_it_out(url: str) -> None:
    without = b"GET /health HTTP/1.1\r\n\r\n"
    twice = b"GET /health HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n"
    for request, count in ((without, 0), (twice, 2), (twice.replace(b"1.1", b"1.0"), 2)):
        with Connection(url) as connection:
            answer = connection.ask(request)
            assert (answer.status, answer.error) == (400, "BadRequest")
            assert answer.message == f"Host: expected one such header, got {count}"
    with Connection(url) as connection:
        assert connection.ask(without.replace(b"1.1", b"1.0")).status == 200


# --- in this process: what an app gets, what is logged, how long a client may take ----------------


def echo_app() -> Chalice:
    """It tells what it got."""
    app = Chalice(app_name="echo", configure_logs=False)

    @app.route("/echo", methods=["POST"], content_types=["*/*"])
    def echo() -> dict[str, Any]:
        request = app.current_request
        assert request is not None
        body = request.raw_body
        assert isinstance(body, bytes)
        return {"sha256": hashlib.sha256(body).hexdigest(), "headers": dict(request.headers)}

    return app


@pytest.fixture
def echo_url(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(chalice.local, "LocalDevServer", http_server.DevServer)
    server = chalice.local.create_local_server(echo_app(), Config(), LOOPBACK, 0)
    serving = threading.Thread(target=server.server.serve_forever, args=(0.02,))
    serving.start()
    yield f"http://{LOOPBACK}:{server.server.server_port}/echo"
    server.shutdown()
    serving.join()
    server.server.server_close()


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


@pytest.mark.parametrize("content_type", ["application/json", "application/octet-stream", None])
def test_the_app_gets_a_compressed_body_as_it_was_sent(
    echo_url: str, session: requests.Session, content_type: str | None
) -> None:
    body = gzip.compress(bytes(range(256)) * 1_000)
    headers = {"Content-Encoding": "gzip"} | (
        {"Content-Type": content_type} if content_type else {}
    )
    for data in (body, iter([body[:10], body[10:]])):
        got = session.post(echo_url, data=data, headers=headers, timeout=10).json()

        assert got["sha256"] == hashlib.sha256(body).hexdigest()
        assert got["headers"]["content-encoding"] == "gzip"


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


def test_a_client_that_stops_in_the_middle_of_its_body_is_hung_up_on(
    echo_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_server, "QUIET_SECONDS", 0.05)
    for headers, body in (
        (["Content-Length: 10"], b"12345"),
        (["Transfer-Encoding: chunked"], b"5\r\n123"),
        (["Transfer-Encoding: chunked"], b"5"),
    ):
        with Connection(echo_url) as connection:
            answer = connection.ask(post(*headers, body=body, path="/echo"))
            assert (answer.status, answer.error) == (408, "RequestTimeout")
            assert connection.is_closed()


def test_a_client_that_sends_its_body_drop_by_drop_is_hung_up_on(
    echo_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though it is never silent for long."""
    monkeypatch.setattr(http_server, "BODY_SECONDS", 0.1)
    with Connection(echo_url) as connection:
        connection.socket.sendall(post("Content-Length: 1000000", path="/echo"))
        assert first_bytes_while_dripping(connection, b" ") == b"HTTP/1.1 408"


@pytest.mark.parametrize(
    ("before", "byte"), [(b"", b"0"), (b"0\r\n", b"A"), (b"1\r\na\r\n0\r\n", b"A")]
)
def test_a_chunked_body_has_the_same_deadline_in_its_lines(
    echo_url: str, monkeypatch: pytest.MonkeyPatch, before: bytes, byte: bytes
) -> None:
    """Of sizes and of trailers."""
    monkeypatch.setattr(http_server, "BODY_SECONDS", 0.1)
    with Connection(echo_url) as connection:
        connection.socket.sendall(post("Transfer-Encoding: chunked", path="/echo", body=before))
        assert first_bytes_while_dripping(connection, byte) == b"HTTP/1.1 408"


def first_bytes_while_dripping(connection: Connection, byte: bytes) -> bytes:
    connection.socket.settimeout(0.01)
    start = perf_counter()
    while perf_counter() - start < 5:
        connection.socket.sendall(byte)
        try:
            return connection.socket.recv(12, socket.MSG_PEEK)
        except TimeoutError:
            continue
    raise AssertionError("the server waits for a client that never ends its body")


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


# --- how it comes into `chalice local` ------------------------------------------------------------


@pytest.mark.parametrize("name", replace_server.PARTS)
def test_another_chalice_is_refused_and_what_differs_is_named(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def with_other_parameters(renamed: object) -> None: ...

    monkeypatch.setattr(f"chalice.local.{name}", with_other_parameters)
    with pytest.raises(SystemExit, match=rf"has another {name}.* than 1\.34\.0"):
        replace_server.install()
    monkeypatch.delattr(f"chalice.local.{name}")
    with pytest.raises(SystemExit, match=rf"has another {name}.* than 1\.34\.0"):
        replace_server.install()


def test_the_terminal_shows_warnings_only_of_redis_and_the_aws_client() -> None:
    names = ("herocache.redis", "botocore.credentials", "herocache.generations")
    code = f"""
import logging, app
logging.getLogger().setLevel("INFO")
def levels(): return [logging.getLogger(name).getEffectiveLevel() for name in {names}]
print(levels())
from local.chalice_http import replace_server
replace_server.install()
print(levels())
"""
    on_lambda, on_a_laptop = run_python(code, {"API_AUTH": "none"}).splitlines()
    assert on_lambda == "[20, 20, 20]"
    assert on_a_laptop == "[30, 30, 20]"


def test_a_port_that_is_taken_is_told_with_words() -> None:
    """Chalice's reloader makes the server in a thread of another process."""
    with socket.create_server((LOOPBACK, 0)) as taken:
        port = str(taken.getsockname()[1])
        command = [str(ROOT / ".venv/bin/chalice"), "--project-dir", str(ROOT), "local"]
        started = [
            subprocess.Popen([*command, "--port", port, *option], stderr=subprocess.PIPE, text=True)
            for option in ([], ["--no-autoreload"])
        ]
        for process in started:
            _, said = process.communicate(timeout=60)
            assert said.startswith(f"herocache: cannot listen on port {port} of {LOOPBACK}: Addres")
            assert said.count("\n") == 1


def test_the_deployed_app_never_asks_for_it() -> None:
    code = "import sys, app; print({'local', 'chalice.local'} & set(sys.modules))"

    assert run_python(code, {}) == "set()\n"
    assert "'chalice.local'" in run_python(
        code, {"AWS_CHALICE_CLI_MODE": "true", "API_AUTH": "none"}
    )
