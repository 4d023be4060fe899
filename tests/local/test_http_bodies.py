"""Bodies at `chalice local`: with a length, in chunks, too large, compressed, late."""

import gzip
import hashlib
import json
import socket
from pathlib import Path
from time import perf_counter

import pytest
import requests

from chalicelib.handlers.json_body import MAX_BODY_BYTES
from local.chalice_http import http_server
from tests.support.raw_http import EMPTY, READ, Connection, chunked, curl, post


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
