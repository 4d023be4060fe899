"""Request lines and headers at `chalice local`: paths, methods, hosts, malformed ones."""

import socket

import pytest
import requests

from tests.support.client import OverHttp, heroes
from tests.support.raw_http import EMPTY, READ, Connection, curl, post
from tests.support.witness import Witness


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


def test_a_head_that_ends_early_never_reaches_the_app(url: str) -> None:
    for head in (b"GET /health HTTP/1.1\r\nHost: localhost\r\n", b"GET /health HTTP/1.0\r\nHo"):
        with Connection(url) as connection:
            connection.socket.sendall(head)
            connection.socket.shutdown(socket.SHUT_WR)
            answer = connection.answer()
            assert (answer.status, answer.error) == (400, "BadRequest")
            assert connection.is_closed()


@pytest.mark.parametrize("value", [" " * 60_000, "a" + " \t" * 30_000 + "b", " " * 60_000 + "\rb"])
def test_a_header_of_blanks_is_read_in_one_pass(url: str, value: str) -> None:
    """A pattern that may begin at each blank would take hours, and no other thread would run."""
    request = f"GET /health HTTP/1.1\r\nHost: localhost\r\nA:{value}\r\n\r\n".encode()
    with Connection(url) as connection:
        assert connection.ask(request).status == (400 if "\r" in value else 200)


def test_a_connection_ends_where_the_client_says_so_or_knows_no_other_way(url: str) -> None:
    """What the answer says of the connection is what HTTP/1.0 and HTTP/1.1 do not mean anyhow."""
    for version, header, is_kept, answered in (
        ("1.1", "A: 1", True, None),
        ("1.1", "Connection: close", False, "close"),
        ("1.1", "Connection: TE, Close", False, "close"),
        ("1.0", "A: 1", False, None),
        ("1.0", "Connection: Keep-Alive", True, "keep-alive"),
    ):
        request = f"GET /health HTTP/{version}\r\nHost: localhost\r\n{header}\r\n\r\n".encode()
        with Connection(url) as connection:
            answer = connection.ask(request)
            assert (answer.status, answer.headers.get("connection")) == (200, answered)
            if is_kept:
                assert connection.ask(request).status == 200
            else:
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
