"""The grader passes the real service and fails a wrong one; the delay proxy costs only time."""

import io
import itertools
import json
import os
import random
import re
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

import grader.__main__
from bench.measurements.interleaved import Seeded
from bench.measurements.over_http import crowd, crowds_table
from bench.proxies.delay import delayed
from bench.workloads import WORKLOADS
from grader.cache_checks import hits_compared
from grader.http_client import Answer, Wrong, with_scheme
from local.machine import PORTS, port_is_free
from local.servers import App
from tests.conftest import running
from tests.support.background_commands import Done

ROOT = Path(__file__).parents[2]
Hero = dict[str, Any]


Graded = subprocess.CompletedProcess[str]


def grade(url: str, folder: Path, *arguments: str, **environment: str) -> Graded:
    """Run in `folder`, so that the note it leaves is found there. Not in a process of its own: that
    takes a fifth of a second to import things."""
    words = command(arguments)[2:]
    settings = {"PYTHONPATH": str(ROOT), "NO_PROXY": "*", "URL": url, **environment}
    output, errors = io.StringIO(), io.StringIO()
    with (
        pytest.MonkeyPatch.context() as patch,
        redirect_stdout(output),
        redirect_stderr(errors),
    ):
        patch.setattr(sys, "argv", words)
        patch.setattr(os, "environ", settings)
        patch.chdir(folder)
        try:
            code = grader.__main__.main()
        except SystemExit as end:
            code = int(str(end.code))
    return subprocess.CompletedProcess(words, code, output.getvalue(), errors.getvalue())


def grade_in_a_process(url: str, folder: Path, *arguments: str) -> Graded:
    return subprocess.run(
        command(arguments),
        cwd=folder,
        env={"PYTHONPATH": str(ROOT), "NO_PROXY": "*", "URL": url},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def command(arguments: Sequence[str]) -> list[str]:
    return [sys.executable, "-m", "grader", "--batch", "20", "--rounds", "2", *arguments]


def verdicts(graded: Graded) -> dict[str, str]:
    """PASS or FAIL by the name of the check."""
    lines = re.findall(r"^(PASS|FAIL)  (.+)$", graded.stdout, re.MULTILINE)
    return {name: verdict for verdict, name in lines}


def failed(graded: Graded) -> set[str]:
    """The names of the checks that failed, up to their colon."""
    return {name.split(":")[0] for name, verdict in verdicts(graded).items() if verdict == "FAIL"}


@dataclass(frozen=True)
class Asked:
    payload: dict[str, Any]
    client_port: int


@dataclass(frozen=True)
class Reply:
    body: object
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def content(self) -> bytes:
        return self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()


class HeroesInMemory:
    """The contract in a dict, with one fault of choice. Its cache only says what it does."""

    def __init__(self, fault: str = "none", *, read_by: str = "id", tells: bool = True) -> None:
        self._fault = fault
        self._read_by = read_by
        self._tells = tells
        self.rows: dict[int, Hero] = {}
        self._stale: dict[int, list[Hero]] = {}
        self._cached: set[tuple[str, int]] = set()
        self.requests_of: Counter[int] = Counter()

    def answer(self, asked: Asked) -> Reply:
        self.requests_of[asked.client_port] += 1
        request = asked.payload
        match request["REQUEST"]:
            case "read":
                return self._read(request)
            case "write":
                ids = [self._insert(row) for row in request["SQLS"]]
                if self._fault != "no write-through" and request["USE_CACHE"] == "True":
                    self._cached |= {("id", i) for i in ids}
                    if self._fault != "no write-through by xp":
                        self._cached |= {("xp", int(self.rows[i]["xp"])) for i in ids}
                return Reply({"statusCode": 200, "body": "write success", "ids": ids})
            case _:
                for i in request["SQLS"]:
                    del self.rows[i]
                deleted = {"body": "delete success", "deleted": request["SQLS"]}
                return Reply({"statusCode": 200, **deleted})

    def _insert(self, row: Hero) -> int:
        new = max(self.rows, default=0) + 1
        stored = {"id": new, **row, "xp": int(row["xp"])}
        if self._fault == "xp as a string":
            stored["xp"] = str(stored["xp"])
        if self._fault == "columns in another order":
            stored = dict(reversed(stored.items()))
        self.rows[new] = stored
        return new if self._fault != "ids of others" else new - 1

    def _read(self, request: dict[str, Any]) -> Reply:
        by = request.get("BY", self._read_by)
        use_cache = request["USE_CACHE"] == "True"
        found: list[Hero] = []
        missing = []
        for value in map(int, request["SQLS"]):
            rows = [row for row in self.rows.values() if int(row[by]) == value]
            if self._fault == "a stale cache" and by == "xp" and use_cache:
                rows = self._stale.setdefault(value, rows)
            found += rows
            missing += [] if rows else [value]
        if self._fault == "wrong order":
            found.sort(key=lambda row: int(row["id"]))
        told = {} if self._fault == "missing not told" else {"missing": missing}
        body = {"statusCode": 200, "body": found, **(told if missing else {})}
        cells = {(by, int(value)) for value in request["SQLS"]}
        return Reply(body, headers=self._headers(cells, use_cache) if self._tells else {})

    def _headers(self, cells: set[tuple[str, int]], use_cache: bool) -> dict[str, str]:
        hits = len(cells & self._cached) if use_cache else 0
        how = (
            "hit" if use_cache and hits == len(cells) else "fwd=miss" if use_cache else "fwd=bypass"
        )
        if use_cache and self._fault != "no lazy loading":
            self._cached |= cells
        took = "1.5" if how != "hit" or self._fault == "a slow cache" else "0.25"
        if self._fault == "always says hit":
            how = "hit"
        return {
            "Cache-Status": f'herocache; {how}; detail="{hits} of {len(cells)}"',
            "Server-Timing": f"db;dur=9.9, total;dur={took}",
        }


@contextmanager
def serving(answer: Callable[[Asked], Reply], key: str | None = None) -> Iterator[str]:
    """The URL of a server that answers each POST with `answer`, and without the API key as API
    Gateway does."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            payload = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            assert "Content-Type" not in self.headers, "the course grader sends none"
            if key is not None and self.headers["x-api-key"] != key:
                self._send(FORBIDDEN)
            else:
                self._send(answer(Asked(payload, self.client_address[1])))

        def _send(self, reply: Reply) -> None:
            self.send_response(reply.status)
            for name, value in reply.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(reply.content)))
            self.end_headers()
            self.wfile.write(reply.content)

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


FORBIDDEN = Reply({"message": "Forbidden"}, 403, {"x-amzn-ErrorType": "ForbiddenException"})


LAZY = {f"lazy loading, {way}" for way in ("by id, no BY", 'by id, BY "id"', 'by xp, BY "xp"')}
WRITE_THROUGH = {name.replace("lazy loading", "write-through") for name in LAZY}

# --- whether the rows are right -------------------------------------------------------------------


def test_the_service_passes_the_course_grader(server_url: str, tmp_path: Path) -> None:
    graded = grade_in_a_process(server_url, tmp_path, "--rounds", "10")

    assert graded.returncode == 0, graded.stdout + graded.stderr
    assert "27 of 27 passed" in graded.stdout
    for flow in ("read by id", "read by xp", "write"):
        assert re.search(rf"^{flow} +([\d.]+ +){{6}}", graded.stdout, re.MULTILINE)
    assert "no Cache-Status" not in graded.stdout
    assert "The cache makes the service" in graded.stdout
    assert not failed(graded)


def test_a_deployment_that_reads_by_xp_passes_it_too(
    environment: Mapping[str, str], tmp_path: Path
) -> None:
    port = next(port for port in random.sample(PORTS, 100) if port_is_free(port))
    with running(App(tmp_path / "app", port, {**environment, "READ_BY": "xp"})) as app:
        graded = grade(app.url, tmp_path)

    assert "27 of 27 passed" in graded.stdout, graded.stdout + graded.stderr
    assert "by xp, no BY, with cache: rows, order, types, columns" in verdicts(graded)


@pytest.mark.parametrize("read_by", ["id", "xp"])
def test_a_right_service_passes_every_check(read_by: str, tmp_path: Path) -> None:
    service = HeroesInMemory(read_by=read_by)
    with serving(service.answer) as url:
        graded = grade(url, tmp_path)

    assert graded.returncode == 0, graded.stdout + graded.stderr
    assert not failed(graded)
    for check in ("lazy loading", "write-through"):
        for way in (f"by {read_by}, no BY", 'by id, BY "id"', 'by xp, BY "xp"'):
            assert any(name.startswith(f"{check}, {way}:") for name in verdicts(graded))


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
    refusing = Reply({"statusCode": 500, "body": {"error": "InternalError"}}, 500)
    with serving(lambda _: refusing) as url:
        graded = grade(url, tmp_path)

    assert graded.returncode == 1
    assert "PASS" not in graded.stdout
    assert "Traceback" not in graded.stderr
    assert not list(tmp_path.iterdir())


# --- whether the cache is one ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "failing"),
    [
        ("no lazy loading", LAZY),
        ("no write-through", WRITE_THROUGH),
        ("no write-through by xp", {name for name in WRITE_THROUGH if "xp" in name}),
        ("a slow cache", LAZY | WRITE_THROUGH),
        ("always says hit", LAZY | WRITE_THROUGH),
    ],
)
def test_a_cache_that_is_none_fails_and_is_timed_all_the_same(
    fault: str, failing: set[str], tmp_path: Path
) -> None:
    with serving(HeroesInMemory(fault).answer) as url:
        graded = grade(url, tmp_path)

    assert graded.returncode == 1
    assert failed(graded) == failing
    assert "27 of 27 passed" in graded.stdout
    assert re.search(r"^read by id ", graded.stdout, re.MULTILINE)


def test_a_service_cannot_write_its_own_verdict(tmp_path: Path) -> None:
    """What it answers is shown to the person who grades it."""
    forged = "\x1b[2J\x9b2JPASS"
    headers = {"Cache-Status": forged, "Content-Type": forged}
    for reply in (Reply({"a": forged}, 500, headers), Reply(b"no JSON", headers=headers)):
        with serving(lambda asked, reply=reply: reply) as url:  # type: ignore[misc]
            graded = grade(url, tmp_path)
        said = graded.stdout + graded.stderr
        assert graded.returncode != 0
        assert all(line.isprintable() for line in said.split("\n"))
        assert r"\x9b2JPASS" in said


def reads(*milliseconds: float, status: str | None = None, told: bool = False) -> list[Answer]:
    """Answers that took so long, within the service if it is `told`, else as whole requests."""
    return [
        Answer(200, b"", {}, 1.0 if told else ms, ms if told else None, status)
        for ms in milliseconds
    ]


HIT = 'herocache; hit; detail="3 of 3"'


def test_a_hit_is_what_cache_status_calls_one() -> None:
    for status, is_hit in {
        HIT: True,
        f'{HIT}, "a, hit"; fwd=miss': True,
        'herocache; fwd=miss; detail="0 of 3"': False,
        'herocache; fwd=partial; detail="hit; 2 of 3", edge; hit': False,
        "herocache; fwd=bypass": False,
        "": False,
    }.items():
        assert reads(1, status=status)[0].is_hit is is_hit, status


def test_times_within_the_service_are_compared_where_they_are_told() -> None:
    hits, others = reads(0.001, status=HIT, told=True), reads(0.002, told=True)

    assert hits_compared(hits, others, "a miss") == "1 ms, a miss 2 (Server-Timing)"
    with pytest.raises(Wrong, match="expected it to be faster than a miss: 2 ms, a miss 1"):
        hits_compared(reads(0.002, status=HIT, told=True), reads(0.001, told=True), "a miss")


def test_one_read_that_was_no_hit_fails_whatever_the_times() -> None:
    hits = [*reads(1, 1, status=HIT), *reads(1, status="herocache; fwd=partial")]

    with pytest.raises(Wrong, match=r"^1 of 3 were no hits.*: herocache; fwd=partial$"):
        hits_compared(hits, reads(9, 9, 9), "a miss")


def test_a_read_that_nothing_can_have_cached_must_not_be_called_a_hit() -> None:
    """Times show nothing here: a cache that works may be no faster than a near database."""
    with pytest.raises(Wrong, match=r"1 of 2 times it called a miss a hit too.*: herocache; hit"):
        hits_compared(reads(1, status=HIT), [*reads(9), *reads(9, status=HIT)], "a miss")


def test_time_alone_must_be_clear() -> None:
    found = hits_compared(reads(1, 2, 8, 1), reads(5, 6, 7, 9), "a miss")

    assert found.endswith("judged by time alone: no Cache-Status")
    with pytest.raises(Wrong, match="not clearly faster"):
        hits_compared(reads(1, 2, 8, 8), reads(5, 6, 7, 9), "a miss")
    with pytest.raises(Wrong, match="expected it to be faster"):
        hits_compared(reads(5, 6, 7), reads(1, 2, 3), "a miss")


def test_a_service_that_tells_nothing_is_judged_by_time(tmp_path: Path) -> None:
    with serving(HeroesInMemory(tells=False).answer) as url:
        graded = grade(url, tmp_path)

    assert len(re.findall("no Cache-Status|expected it to be faster", graded.stdout)) == 6
    assert "The service sends no Server-Timing" in graded.stdout


# --- times ----------------------------------------------------------------------------------------


def test_times_are_told_over_both_connections_and_within_the_service(tmp_path: Path) -> None:
    service = HeroesInMemory()
    with serving(service.answer) as url:
        graded = grade(url, tmp_path)

    assert re.search(r"^read by id +([\d.]+ +){6}1\.5 +0\.25 +6\.00$", graded.stdout, re.MULTILINE)
    assert "The cache makes the service 6.0 times as fast (read by id)." in graded.stdout
    [(_, kept), (_, other)] = service.requests_of.most_common(2)
    assert kept >= 4 * 2 * 2, "one connection for the flows, rounds, with and without the cache"
    assert other == 1, "a new one for each other request"


# --- rows written ---------------------------------------------------------------------------------


def test_a_note_says_what_was_inserted(tmp_path: Path) -> None:
    service = HeroesInMemory()
    (tmp_path / ".local").mkdir()
    with serving(service.answer) as url:
        graded = grade(url, tmp_path)

    assert graded.returncode == 0, graded.stdout + graded.stderr
    [path] = (tmp_path / ".local").glob("grade-*.json")
    note = json.loads(path.read_text())
    assert note["url"] == url
    assert (note["first_id"], note["last_id"]) == (1, note["rows"]) == (1, len(service.rows))
    assert note["marker"] in graded.stdout
    assert all(row["name"].startswith(note["marker"]) for row in service.rows.values())
    assert f"make grade URL={url} ARGS=--remove" in graded.stdout
    assert f'make grade ARGS="--remove-noted {path.relative_to(tmp_path)}"' in graded.stdout


def test_the_rows_of_a_note_are_removed_later_and_no_others(tmp_path: Path) -> None:
    service = HeroesInMemory()
    with serving(service.answer) as url:
        grade(url, tmp_path)
        [path] = tmp_path.iterdir()
        service.rows[2] = {**service.rows[2], "name": "no row of the grader"}
        removed = grade("", tmp_path, "--remove-noted", path.name)

    assert removed.returncode == 0, removed.stdout + removed.stderr
    assert removed.stdout.startswith("Removed ")
    assert list(service.rows) == [2]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("note", "words"),
    [
        (None, "cannot be read: No such file or directory"),
        ("[]", "is no note of make grade"),
        ("{}", "is no note of make grade"),
        ('{"url": "http://a", "marker": "", "first_id": 1, "last_id": 9}', "is no note of"),
    ],
)
def test_what_is_no_note_removes_nothing(tmp_path: Path, note: str | None, words: str) -> None:
    if note is not None:
        (tmp_path / "note").write_text(note)
    graded = grade("", tmp_path, "--remove-noted", "note")

    assert graded.returncode == 2
    assert f"note {words}" in graded.stderr
    assert "Traceback" not in graded.stderr


def test_rows_are_removed_when_asked(tmp_path: Path) -> None:
    service = HeroesInMemory()
    with serving(service.answer) as url:
        graded = grade(url, tmp_path, "--remove")

    assert graded.returncode == 0, graded.stdout + graded.stderr
    assert re.search(r"^Removed the \d+ heroes", graded.stdout, re.MULTILINE)
    assert not service.rows
    assert not list(tmp_path.iterdir())


def test_rows_of_others_are_never_removed(tmp_path: Path) -> None:
    """Here a write answers with ids that are one too low."""
    service = HeroesInMemory("ids of others")
    service.rows[1] = {"id": 1, "hero": "a", "power": "b", "name": "c", "xp": 1, "color": "d"}
    with serving(service.answer) as url:
        graded = grade(url, tmp_path, "--remove")

    assert graded.returncode == 1
    assert "Removed the " in graded.stdout
    assert service.rows[1]["name"] == "c"


def test_rows_that_cannot_be_removed_are_noted(tmp_path: Path) -> None:
    service = HeroesInMemory()

    def answer(asked: Asked) -> Reply:
        if asked.payload["REQUEST"] == "delete":
            return Reply({"statusCode": 503, "body": {"error": "DatabaseUnavailable"}}, 503)
        return service.answer(asked)

    with serving(answer) as url:
        graded = grade(url, tmp_path, "--remove")

    assert "could not all be removed: expected 200, got HTTP 503" in graded.stderr
    assert list(tmp_path.glob("grade-*.json"))


# --- no service -----------------------------------------------------------------------------------


def test_no_service_is_one_sentence_and_exit_code_2(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        closed = taken.getsockname()[1]
    for url, reason in {
        f"http://127.0.0.1:{closed}/": "nothing listens there",
        "http://no-such-host.invalid/": "no host has this name",
        f"localhost:{closed}": f"http://localhost:{closed} cannot be reached",
        "htp://127.0.0.1": "cannot be reached",
    }.items():
        graded = grade(url, tmp_path)

        assert graded.returncode == 2
        assert graded.stderr.count("\n") == 1
        assert url in graded.stderr
        assert reason in graded.stderr


def test_a_url_is_needed(tmp_path: Path) -> None:
    graded = grade("", tmp_path)

    assert graded.returncode == 2
    assert "make grade URL=localhost:8000" in graded.stderr


def test_a_url_may_leave_its_scheme_out(tmp_path: Path) -> None:
    with serving(HeroesInMemory().answer) as url:
        graded = grade(url.removeprefix("http://").rstrip("/"), tmp_path)

    assert graded.returncode == 0, graded.stdout + graded.stderr
    assert with_scheme("abc.execute-api.eu-west-1.amazonaws.com/api/").startswith("https://abc.")


def test_an_answer_that_is_not_json_is_one_sentence_and_exit_code_2(tmp_path: Path) -> None:
    with serving(lambda _: Reply(b"<html>It works!</html>")) as url:
        graded = grade(url, tmp_path)

    assert graded.returncode == 2
    assert graded.stderr.count("\n") == 1
    assert "did not answer with JSON" in graded.stderr


def test_a_stage_that_wants_a_key_gets_it(tmp_path: Path) -> None:
    with serving(HeroesInMemory().answer, key="s3cret") as url:
        graded = grade(url, tmp_path, KEY="s3cret")

    assert graded.returncode == 0, graded.stdout + graded.stderr
    assert "s3cret" not in graded.stdout + graded.stderr + "".join(
        path.read_text() for path in tmp_path.iterdir()
    )


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("", "it wants an API key (API_AUTH=key): set KEY"),
        ("0ther", "it does not accept this KEY"),
        ("s3cret\n", "KEY: has characters that no API key has"),
    ],
)
def test_a_403_is_named_and_is_no_failed_check(key: str, words: str, tmp_path: Path) -> None:
    with serving(HeroesInMemory().answer, key="s3cret") as url:
        graded = grade(url, tmp_path, KEY=key)

    assert graded.returncode == 2
    assert words in graded.stderr
    assert "FAIL" not in graded.stdout
    assert not re.search("s3cret|0ther", graded.stderr)


def test_other_refusals_are_named(tmp_path: Path) -> None:
    no_token = {"message": "Missing Authentication Token"}
    denied = {"message": "User: anonymous is not authorized to perform: execute-api:Invoke"}
    told = {"statusCode": 403, "body": {"error": "Forbidden", "message": "The key is refused"}}
    for reply, *words in (
        (Reply(no_token, 403), "nothing is served at this path", "API_AUTH=iam"),
        (Reply(denied, 403), "HTTP 403: it wants signed requests"),
        (Reply(told, 403), "it wants an API key", "The key is refused"),
        (Reply({"message": "Not Found"}, 404), "HTTP 404: it takes no POST at this path"),
        (Reply({"message": "Limit Exceeded"}, 429), "HTTP 429", "try again later"),
        (Reply(b"", 301, {"Location": "https://there/"}), "ask https://there/ instead"),
    ):
        with serving(lambda _, reply=reply: reply) as url:  # type: ignore[misc]
            graded = grade(url, tmp_path)

        assert graded.returncode == 2
        assert graded.stderr.count("\n") == 1
        assert "FAIL" not in graded.stdout
        for word in words:
            assert word in graded.stderr


def test_a_connection_that_ends_without_an_answer_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        closing = threading.Thread(target=lambda: listener.accept()[0].close())
        closing.start()
        graded = grade(f"127.0.0.1:{listener.getsockname()[1]}", tmp_path)
        closing.join()

    assert graded.returncode == 2
    assert "it closed the connection instead of answering" in graded.stderr


# --- the benchmark --------------------------------------------------------------------------------


def test_the_benchmark_measures_every_flow_on_servers_of_its_own(quick_bench: Done) -> None:
    measured = quick_bench.stdout.decode()

    assert quick_bench.returncode == 0, measured + quick_bench.stderr.decode()
    tables = dict(text.split("\n", 1) for text in measured.split("\n\n") if "\n" in text)
    titles = {"servers on this machine": 2, "1 ms of network": 1, "by engine": 2}
    for title, sizes in titles.items():
        [timed] = [table for head, table in tables.items() if title in head]
        for flow in WORKLOADS:
            rows = re.findall(rf"^{flow.name} +\d+ +[\d.]+ +[\d.]+ ", timed, re.MULTILINE)
            assert len(rows) == sizes, flow
    for target in ("full hit, N = 100", "insert heroes, N = 100", "uncached read, N = 100"):
        assert re.search(rf"^{target}, .* (PASS|FAIL) ", measured, re.MULTILINE)
    headers = "full hit, N = 100, with Cache-Status and Server-Timing / without"
    assert re.search(rf"^{headers} +[\d.]+  <= 1.02  (PASS|FAIL) ", measured, re.MULTILINE)
    assert re.search(r"^full hit: round trips, Redis +1 .* PASS$", measured, re.MULTILINE)


def test_the_benchmark_measures_http(quick_bench: Done) -> None:
    measured = quick_bench.stdout.decode()

    for flow in ("full hit", "uncached read"):
        assert re.search(rf"^{flow} +100 +[\d.]+ +[\d.]+ +[\d.]+ +\d+$", measured, re.MULTILINE)
    for target in ("HTTP, kept connection, N = 100, cached / uncached", "HTTP, 64 threads:"):
        assert re.search(rf"^{target}.* <= (0|0.56) +(PASS|FAIL)", measured, re.MULTILINE)
    assert re.search(r"^64 +\d+ +[\d.]+ +[\d.]+ +[\d.]+ +(none|\d+ \w+)", measured, re.MULTILINE)


def test_the_benchmark_says_what_it_is_at(quick_bench: Done) -> None:
    said = re.findall(r"^ *\d+ s  (.+)$", quick_bench.stderr.decode(), re.MULTILINE)

    for flow in WORKLOADS:
        assert f"near: {flow.name}, batches of 100" in said


def test_a_crowd_counts_connections_that_break_and_goes_on() -> None:
    """Every second one is closed without an answer."""
    asked = itertools.count()

    def answer(_: Asked) -> Reply:
        if next(asked) % 2:
            raise ConnectionAbortedError
        return Reply({"statusCode": 200, "body": []})

    with serving(answer) as url:
        met = crowd(int(url.rstrip("/").rpartition(":")[2]), SEEDED, 4, 0.1)

    assert met.failed["RemoteDisconnected"] == met.failed.total() > 2
    assert len(met.times) > 2
    assert "RemoteDisconnected" in crowds_table([met])


SEEDED = Seeded({i: {"id": i} for i in range(200)}, [])


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
        delayed([("127.0.0.1", port)], round_trip_seconds) as (far_port,),
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
        delayed([("127.0.0.1", port)], 0.002) as (far_port,),
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
