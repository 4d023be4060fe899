"""The grader passes the real service and fails a wrong one; the delay proxy costs only time."""

import json
import random
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from bench.delay_proxy import delayed
from bench.flows import FLOWS
from tests.beside import Done

ROOT = Path(__file__).parent.parent
Hero = dict[str, Any]


def grade(url: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run in `folder`, so that the note it leaves is found there."""
    return subprocess.run(
        [sys.executable, "-m", "bench.grade", url, "--batch", "20", "--rounds", "2"],
        cwd=folder,
        env={"PYTHONPATH": str(ROOT), "NO_PROXY": "*"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


class HeroesInMemory:
    """The contract in a dict, with one fault of choice."""

    def __init__(self, fault: str) -> None:
        self._fault = fault
        self._rows: list[Hero] = []
        self._cached: dict[int, list[Hero]] = {}

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        if request["REQUEST"] == "write":
            ids = [self._insert(row) for row in request["SQLS"]]
            return {"statusCode": 200, "body": "write success", "ids": ids}
        return self._read(request)

    def _insert(self, row: Hero) -> int:
        stored = {"id": len(self._rows) + 1, **row, "xp": int(row["xp"])}
        if self._fault == "xp as a string":
            stored["xp"] = str(stored["xp"])
        if self._fault == "columns in another order":
            stored = dict(reversed(stored.items()))
        self._rows.append(stored)
        return len(self._rows)

    def _read(self, request: dict[str, Any]) -> dict[str, Any]:
        by = request.get("BY", "id")
        use_cache = request["USE_CACHE"] == "True"
        found: list[Hero] = []
        missing = []
        for value in map(int, request["SQLS"]):
            rows = [row for row in self._rows if int(row[by]) == value]
            if self._fault == "a stale cache" and by == "xp" and use_cache:
                rows = self._cached.setdefault(value, rows)
            found += rows
            missing += [] if rows else [value]
        if self._fault == "wrong order":
            found.sort(key=lambda row: int(row["id"]))
        told = {} if self._fault == "missing not told" else {"missing": missing}
        return {"statusCode": 200, "body": found, **(told if missing else {})}


@contextmanager
def serving(answer: Any) -> Iterator[str]:
    """The URL of a server that answers each POST with `answer(payload)`, bytes as they are."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            payload = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            assert "Content-Type" not in self.headers, "the course grader sends none"
            answered = answer(payload)
            body = answered if isinstance(answered, bytes) else json.dumps(answered).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()


def test_the_service_passes_the_course_grader(server_url: str, tmp_path: Path) -> None:
    graded = grade(server_url, tmp_path)

    assert graded.returncode == 0, graded.stdout + graded.stderr
    assert "FAIL" not in graded.stdout
    for flow in ("read by id", "read by xp", "write"):
        assert re.search(rf"^{flow} +[\d.]+ +[\d.]+ +[\d.]+$", graded.stdout, re.MULTILINE)


def test_a_note_says_what_was_inserted(tmp_path: Path) -> None:
    service = HeroesInMemory(fault="none")
    (tmp_path / ".local").mkdir()
    with serving(service.answer) as url:
        graded = grade(url, tmp_path)

    assert graded.returncode == 0, graded.stdout + graded.stderr
    [path] = (tmp_path / ".local").glob("grade-*.json")
    note = json.loads(path.read_text())
    assert note["url"] == url
    assert (note["first_id"], note["last_id"]) == (1, note["rows"])
    assert note["marker"] in graded.stdout
    assert all(row["name"].startswith(note["marker"]) for row in service._rows)


@pytest.mark.parametrize(
    "fault",
    [
        "wrong order",
        "xp as a string",
        "columns in another order",
        "missing not told",
        "a stale cache",
    ],
)
def test_a_wrong_service_fails(fault: str, tmp_path: Path) -> None:
    with serving(HeroesInMemory(fault).answer) as url:
        graded = grade(url, tmp_path)

    assert graded.returncode == 1, graded.stdout + graded.stderr
    assert "FAIL" in graded.stdout
    assert not graded.stderr


def test_a_service_that_refuses_everything_fails_and_leaves_no_note(tmp_path: Path) -> None:
    with serving(lambda _: {"statusCode": 500, "body": {"error": "InternalError"}}) as url:
        graded = grade(url, tmp_path)

    assert graded.returncode == 1
    assert "PASS" not in graded.stdout
    assert "Traceback" not in graded.stderr
    assert not list(tmp_path.iterdir())


def test_no_service_is_one_sentence_and_exit_code_2(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        closed = taken.getsockname()[1]
    for url in (f"http://127.0.0.1:{closed}/", "http://no-such-host.invalid/", "127.0.0.1"):
        graded = grade(url, tmp_path)

        assert graded.returncode == 2
        assert graded.stderr.count("\n") == 1
        assert url in graded.stderr


def test_an_answer_that_is_not_json_is_one_sentence_and_exit_code_2(tmp_path: Path) -> None:
    with serving(lambda _: b"<html>It works!</html>") as url:
        graded = grade(url, tmp_path)

    assert graded.returncode == 2
    assert graded.stderr.count("\n") == 1
    assert "did not answer with JSON" in graded.stderr


def test_the_benchmark_measures_every_flow_on_servers_of_its_own(quick_bench: Done) -> None:
    measured = quick_bench.stdout.decode()

    assert quick_bench.returncode == 0, measured + quick_bench.stderr.decode()
    tables = dict(text.split("\n", 1) for text in measured.split("\n\n") if "\n" in text)
    for title, sizes in {"on this machine": 2, "1 ms of network": 1}.items():
        [timed] = [table for head, table in tables.items() if title in head and "x3" not in head]
        for flow in FLOWS:
            rows = re.findall(rf"^{flow.name} +\d+ +[\d.]+ +[\d.]+ ", timed, re.MULTILINE)
            assert len(rows) == sizes, flow
    for target in ("full hit, N = 100", "insert heroes, N = 100", "uncached read, N = 100"):
        assert re.search(rf"^{target}, .* (PASS|FAIL) ", measured, re.MULTILINE)
    assert re.search(r"^full hit: round trips, Redis +1 .* PASS$", measured, re.MULTILINE)


@contextmanager
def echoing() -> Iterator[int]:
    """The port of a server that sends back what one client sends, until that client is done."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def echo() -> None:
            with listener.accept()[0] as client:
                while data := client.recv(1 << 16):
                    client.sendall(data)

        thread = threading.Thread(target=echo)
        thread.start()
        yield listener.getsockname()[1]
        thread.join()


def test_the_delay_proxy_adds_at_least_its_delay() -> None:
    round_trip_seconds = 0.02
    with (
        echoing() as port,
        delayed("127.0.0.1", port, round_trip_seconds) as far_port,
        socket.create_connection(("127.0.0.1", far_port)) as client,
    ):
        for _ in range(5):
            started = time.time()
            client.sendall(b"ping")
            assert client.recv(16) == b"ping"
            assert time.time() - started >= round_trip_seconds


def test_the_delay_proxy_passes_every_byte_on_in_order() -> None:
    sent = random.randbytes(5_000_000)
    received = bytearray()
    with (
        echoing() as port,
        delayed("127.0.0.1", port, 0.002) as far_port,
        socket.create_connection(("127.0.0.1", far_port)) as client,
    ):
        sender = threading.Thread(target=client.sendall, args=(sent,))
        sender.start()
        while len(received) < len(sent) and (data := client.recv(1 << 16)):
            received += data
        sender.join()
        client.shutdown(socket.SHUT_WR)
        assert client.recv(16) == b"", "the end of a stream is passed on too"
    same = received == sent  # pytest would take hours to show how 5 MB differ
    assert same
