"""The S3 of this machine: the events that it sends to the function, and what happens when one
fails.

Here the function is a probe that records its events and does what the object keys say;
test_upload.py uses the real function.
"""

import hashlib
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote_plus

import pytest
import requests

from local.lambda_function.upload_outcome import Outcome
from local.machine import ROOT, has_ended
from local.servers import S3, ServerError
from local.servers.s3 import BUCKET, RANGES
from tests.support.project_copy import copy_project

PROBE = """
import json, os, signal, time
from pathlib import Path
from urllib.parse import unquote_plus

def ingest(event, context):
    [record] = event["Records"]
    key = unquote_plus(record["s3"]["object"]["key"])
    note = {"event": record, "setting": os.environ.get("DB_NAME"), "pid": os.getpid()}
    with open("notes", "a") as notes:
        notes.write(json.dumps(note) + "\\n")
    before = sum(json.loads(line)["event"] == record for line in Path("notes").open())
    if "raises" in key or "recovers" in key and before == 1:
        raise ValueError("as its name says")
    if "dies" in key:
        os.kill(os.getpid(), signal.SIGKILL)
    while "waits" in key and not Path("go").exists():
        time.sleep(0.01)
    return [{"key": key, "table": "heroes", "status": "loaded", "rows": 1, "refused": 0}]

def sync_range(event, context):
    [record] = event["Records"]
    key = unquote_plus(record["s3"]["object"]["key"])
    with open("ranges", "a") as ranges:
        ranges.write(f"{os.getpid()} {key}\\n")
    while "waits" in key and not Path("go").exists():
        time.sleep(0.01)
    if "raises" in key:
        raise ValueError("as its name says")
"""
PATIENCE_SECONDS = 20.0


class ProbedS3(S3):
    """Runs the code of a copy whose app.py is the probe."""

    def __init__(self, home: Path, code: Path) -> None:
        super().__init__(home, home / "settings")
        self._code = code

    def _environment(self) -> dict[str, str]:
        return {**super()._environment(), "PYTHONPATH": str(self._code)}

    def put(self, key: str, body: bytes = b"1\n") -> str:
        """The version it got."""
        answer = self.client().put_object(Bucket=BUCKET, Key=key, Body=body)
        return str(answer["VersionId"])

    def outcome_of_put(self, key: str) -> Outcome:
        outcomes = self.outcomes()
        return self.outcome_of(self.put(key), outcomes)

    def notes(self, count: int) -> list[dict[str, Any]]:
        """What the probe noted, at least so many."""
        path, deadline = self.home / "notes", time.monotonic() + PATIENCE_SECONDS
        while True:
            lines = path.read_text().splitlines(keepends=True) if path.exists() else []
            whole = [json.loads(line) for line in lines if line.endswith("\n")]
            if len(whole) >= count:
                return whole
            assert time.monotonic() < deadline, f"{whole}\n{self.log()}"
            time.sleep(0.01)

    def ranges(self, count: int) -> list[list[str]]:
        """Process id and object key of the events of ranges, at least so many."""
        path, deadline = self.home / "ranges", time.monotonic() + PATIENCE_SECONDS
        while True:
            lines = path.read_text().splitlines() if path.exists() else []
            if len(lines) >= count:
                return [line.split(" ", 1) for line in lines]
            assert time.monotonic() < deadline, f"{lines}\n{self.log()}"
            time.sleep(0.01)

    def log(self) -> str:
        return (self.home / "log").read_text()


@pytest.fixture(scope="module")
def code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    copy = copy_project(tmp_path_factory.mktemp("probed") / "project")
    (copy / "app.py").write_text(PROBE)
    return copy


@pytest.fixture(scope="module")
def shared(code: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProbedS3]:
    with ProbedS3(tmp_path_factory.mktemp("s3"), code) as server:
        yield server


@pytest.fixture
def s3(shared: ProbedS3) -> ProbedS3:
    """Without a note of what former tests put."""
    assert shared.outcome_of_put("incoming/the last of before.csv").attempts == 1
    (shared.home / "notes").unlink()
    return shared


@pytest.fixture
def own(code: Path, tmp_path: Path) -> Iterator[ProbedS3]:
    """To be stopped or killed."""
    with ProbedS3(tmp_path / "s3", code) as server:
        yield server


def stored(note: dict[str, Any]) -> dict[str, Any]:
    entry: dict[str, Any] = note["event"]["s3"]["object"]
    return entry


@pytest.mark.parametrize("key", ["a b+c.csv", "products/Ünï cödé 🌠.csv", "100%/=&?#.csv"])
def test_an_event_is_what_s3_sends(s3: ProbedS3, key: str) -> None:
    version = s3.put(f"incoming/{key}", b"1,2,3\n")
    [note] = s3.notes(1)
    record, entry = note["event"], stored(note)
    assert (record["eventSource"], record["eventName"]) == ("aws:s3", "ObjectCreated:Put")
    assert record["s3"]["bucket"]["name"] == BUCKET
    assert unquote_plus(entry["key"]) == f"incoming/{key}"
    assert entry["key"].isascii()
    assert (entry["size"], entry["versionId"]) == (6, version)
    assert entry["eTag"] == hashlib.md5(b"1,2,3\n").hexdigest()
    assert int(entry["sequencer"], 16) > 0


def test_a_large_file_that_is_sent_in_parts_makes_one_event(s3: ProbedS3, tmp_path: Path) -> None:
    path = tmp_path / "large.csv"
    path.write_bytes(b"x" * 9_000_000)
    pieces: list[int] = []
    version = s3.upload(path, progress=pieces.append)
    assert s3.outcome_of_put("incoming/after.csv").attempts == 1
    large, _ = s3.notes(2)
    assert large["event"]["eventName"] == "ObjectCreated:CompleteMultipartUpload"
    assert (stored(large)["versionId"], stored(large)["size"]) == (version, 9_000_000)
    assert sum(pieces) == 9_000_000
    assert len(pieces) > 1


def test_a_copy_and_a_presigned_curl_reach_the_function_as_well(s3: ProbedS3) -> None:
    s3.put("a.csv")
    client = s3.client()
    source = {"Bucket": BUCKET, "Key": "a.csv"}
    client.copy_object(Bucket=BUCKET, Key="incoming/copied.csv", CopySource=source)
    where = {"Bucket": BUCKET, "Key": "incoming/sent by curl.csv"}
    url = client.generate_presigned_url("put_object", Params=where)
    curl = ["curl", "--noproxy", "*", "-sS", "--fail", "-T", "-", url]
    subprocess.run(curl, input=b"1\n", check=True, timeout=30)
    _, *notes = s3.notes(3)
    assert [note["event"]["eventName"] for note in notes] == [
        "ObjectCreated:Copy",
        "ObjectCreated:Put",
    ]
    assert [unquote_plus(stored(note)["key"]) for note in notes] == [
        "incoming/copied.csv",
        "incoming/sent by curl.csv",
    ]


@pytest.mark.parametrize(
    ("method", "headers", "status"),
    [
        ("PUT", {}, 200),
        ("PUT", {"Origin": "https://evil.example"}, 403),
        ("POST", {"Origin": "null"}, 403),
        ("OPTIONS", {"Origin": "https://evil.example"}, 403),
        ("PUT", {"Host": "evil.example"}, 403),
        ("GET", {"Host": "evil.example:80"}, 403),
        # An address that a person typed, then an image on a page.
        ("GET", {"Sec-Fetch-Site": "none"}, 200),
        ("GET", {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}, 403),
        ("GET", {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "no-cors"}, 403),
    ],
)
def test_a_web_page_uploads_and_reads_nothing(
    s3: ProbedS3, method: str, headers: dict[str, str], status: int
) -> None:
    """It would write rows: moto lets pages of every origin in."""
    url = f"{s3.url}/{BUCKET}/incoming/page.csv?X-Amz-Signature=made-up"
    answer = requests.request(method, url, headers=headers, data=b"1\n", timeout=10)

    assert answer.status_code == status, answer.text
    assert "access-control-allow-origin" not in answer.headers or status == 200


def test_what_is_put_anywhere_makes_an_event_and_what_is_deleted_none(s3: ProbedS3) -> None:
    keys = ["root.CSV", "rejected/a.csv", "x/incoming/notes.txt", "7/1.json", "incoming/last.csv"]
    for key in keys[:-1]:
        s3.put(key)
    s3.client().delete_object(Bucket=BUCKET, Key="rejected/a.csv")
    s3.outcome_of_put(keys[-1])
    assert [unquote_plus(stored(note)["key"]) for note in s3.notes(5)] == keys


def test_ranges_of_a_run_go_to_their_function_two_at_a_time(own: ProbedS3) -> None:
    for name in ("waits 1", "waits 2", "3", "raises"):
        own.client().put_object(Bucket=RANGES, Key=f"7/{name}.json", Body=b"{}")
    assert own.outcome_of_put("incoming/a.csv").attempts == 1, "the other function is free"
    taken = own.ranges(2)
    assert {key for _, key in taken} == {"7/waits 1.json", "7/waits 2.json"}
    assert len({pid for pid, _ in taken}) == 2
    (own.home / "go").touch()
    keys = sorted(key.removeprefix("7/") for _, key in own.ranges(6))
    assert keys == ["3.json", *["raises.json"] * 3, "waits 1.json", "waits 2.json"]
    deadline = time.monotonic() + PATIENCE_SECONDS
    while "given up: ValueError" not in own.log():
        assert time.monotonic() < deadline, own.log()
        time.sleep(0.01)
    [line] = (own.home / "outcomes").read_text().splitlines()
    assert json.loads(line)["key"] == "incoming/a.csv"


def test_no_outcome_is_told_of_what_the_function_itself_writes(s3: ProbedS3) -> None:
    outcomes = s3.outcomes()
    for key in ("results/a.json", "rejected/a.csv"):
        s3.put(key)
    assert s3.outcome_of_put("last.csv").attempts == 1
    told = [outcome for outcome in itertools.takewhile(bool, outcomes) if outcome is not None]
    assert [outcome.key for outcome in told] == ["last.csv"]


def run_script(script: str) -> str:
    """What it prints, in a Python of its own: what it changes in moto ends with it."""
    ran = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_puts_of_a_key_at_the_same_time_lose_no_version_and_keep_their_order() -> None:
    told = run_script("""
import json, sys
from concurrent.futures import ThreadPoolExecutor
from local.servers.moto_s3 import BUCKET, DEFAULT_ACCOUNT_ID, deliver_to, s3_backends

sys.setswitchinterval(1e-6)
events = []
deliver_to(events.append)
backend = s3_backends[DEFAULT_ACCOUNT_ID]["aws"]
with ThreadPoolExecutor(8) as threads:
    list(threads.map(lambda _: backend.put_object(BUCKET, "incoming/a.csv", b"x"), range(200)))
stored = backend.get_bucket(BUCKET).keys.getlist("incoming/a.csv")
told = [event["Records"][0]["s3"]["object"] for event in events]
print(json.dumps([[each.version_id for each in stored], told]))
""")
    versions, objects = json.loads(told)
    assert len(versions) == 200
    in_order = sorted(objects, key=lambda each: str(each["sequencer"]))
    assert [each["versionId"] for each in in_order] == versions
    assert len({each["sequencer"] for each in objects}) == 200


def test_sequencers_go_on_rising_when_the_server_is_started_again(own: ProbedS3) -> None:
    own.put("incoming/a.csv")
    own.notes(1)
    own.stop()
    own.start()
    own.put("incoming/a.csv")
    first, second = map(stored, own.notes(2))
    assert first["sequencer"] < second["sequencer"]
    assert len(first["sequencer"]) == len(second["sequencer"])


def test_a_put_does_not_wait_for_the_function_and_events_keep_their_order(s3: ProbedS3) -> None:
    s3.put("incoming/waits.csv")
    s3.notes(1)
    outcomes = s3.outcomes()
    last = [s3.put(f"incoming/{number}.csv") for number in range(3)][-1]
    assert next(outcomes) is None
    (s3.home / "go").touch()
    assert s3.outcome_of(last, outcomes).attempts == 1
    (s3.home / "go").unlink()
    keys = [unquote_plus(stored(note)["key"]) for note in s3.notes(4)]
    assert keys == [f"incoming/{name}.csv" for name in ("waits", 0, 1, 2)]


def test_the_function_stays_warm(s3: ProbedS3) -> None:
    for number in range(3):
        s3.outcome_of_put(f"incoming/{number}.csv")
    assert len({note["pid"] for note in s3.notes(3)}) == 1


def test_an_event_that_fails_is_tried_three_times_and_then_named(s3: ProbedS3) -> None:
    outcome = s3.outcome_of_put("incoming/it raises.csv")
    assert (outcome.attempts, outcome.summaries) == (3, [])
    assert outcome.error == "ValueError: as its name says"
    notes = s3.notes(3)
    assert len(notes) == 3
    assert notes[0]["event"] == notes[2]["event"]
    given_up = "incoming/it raises.csv: FAILED 3 times, given up: ValueError: as its name says"
    assert given_up in s3.log()
    assert "as its name says" in (s3.home / "function.log").read_text()


def test_an_event_that_fails_once_is_not_given_up(s3: ProbedS3) -> None:
    outcome = s3.outcome_of_put("incoming/recovers.csv")
    assert (outcome.attempts, outcome.error) == (2, "")
    assert outcome.summaries[0]["rows"] == 1


def test_a_function_that_dies_is_replaced(s3: ProbedS3) -> None:
    outcome = s3.outcome_of_put("incoming/dies.csv")
    assert outcome.attempts == 3
    assert "ended with exit code -9" in outcome.error
    assert len({note["pid"] for note in s3.notes(3)}) == 3
    assert s3.outcome_of_put("incoming/next.csv").error == ""


def test_the_function_has_the_settings_of_the_file_as_it_is_now(s3: ProbedS3) -> None:
    for name in ("first", "second"):
        (s3.home / "settings").write_text(f"# a note\nDB_NAME={name}\n")
        s3.outcome_of_put("incoming/a.csv")
    assert [note["setting"] for note in s3.notes(2)] == ["first", "second"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_the_function_ends_with_the_server_whatever_it_does(
    own: ProbedS3, number: signal.Signals
) -> None:
    own.put("incoming/waits.csv")
    [note] = own.notes(1)
    assert own.pid is not None
    os.kill(own.pid, number)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not has_ended(note["pid"]):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_who_waits_for_a_server_that_crashes_is_told(own: ProbedS3) -> None:
    outcomes = own.outcomes()
    version = own.put("incoming/waits.csv")
    own.notes(1)
    own.kill()
    with pytest.raises(ServerError, match="S3 ended meanwhile"):
        own.outcome_of(version, outcomes)


def test_an_upload_to_a_server_that_is_gone_is_an_error_in_words(
    own: ProbedS3, tmp_path: Path
) -> None:
    own.stop()
    (tmp_path / "a.csv").write_text("1\n")
    with pytest.raises(ServerError, match=r"a\.csv could not be uploaded: .*127\.0\.0\.1"):
        own.upload(tmp_path / "a.csv")


def test_the_client_heeds_no_aws_settings_of_the_machine(
    s3: ProbedS3, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    assert s3.put("incoming/a.csv")


@pytest.mark.parametrize(
    "change",
    [
        "models.notifications = SimpleNamespace(**vars(notifications))",  # calls another one
        "del notifications._get_s3_event",
        "del models.S3Backend.complete_multipart_upload",
        "notifications.quote_plus = lambda key: key",
    ],
)
def test_a_moto_that_sends_events_in_another_way_is_refused_at_the_start(change: str) -> None:
    told = run_script(f"""
from types import SimpleNamespace
from moto.s3 import models, notifications
{change}
from local.servers import moto_s3
try:
    moto_s3.deliver_to(print)
except moto_s3.MotoChanged as error:
    print(error)
""")
    assert told.startswith("This moto sends S3's events in another way")
