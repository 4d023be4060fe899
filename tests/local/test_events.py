"""The files in events/, each run as its folder says, and `make invoke` and `make invalidate`."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from app import app, employees, ingest, storage, sync, sync_range
from local.commands import invoke
from local.machine import ROOT
from local.servers import MariaDB, Redis, ServerError
from local.servers.s3 import BUCKET, RANGES
from tests.support.bucket import UploadBucket
from tests.support.client import InProcess
from tests.support.project_copy import MakeRun, make
from tests.support.seeds import insert_seed_rows

EVENTS = ROOT / "events"
ONE = {
    **{"id": 1, "hero": "Tidecaller", "power": "commands the sea"},
    **{"name": "Marisol Vega", "xp": 4120, "color": "teal"},
}
TWO = {
    **{"id": 2, "hero": "Lantern Moth", "power": "glows in any darkness"},
    **{"name": "Edda Lindqvist", "xp": 1875, "color": "amber"},
}
# For each event that reads: the keys of the rows in its answer, and its missing values.
ROWS: dict[str, tuple[list[object], list[object] | None]] = {
    "course_by_id_read": ([1, 2, 1], None),
    "course_by_id_read_uncached": ([1, 2, 1], None),
    "course_by_xp_read": ([1, 2], None),
    "course_by_xp_read_uncached": ([1, 2], None),
    "hero_data_caching_read": ([3, 4], [99]),
    "employees_read": (["E001", "E002"], None),
    "synchronisation_products_read": ([11, 12], None),
}
# For each event that writes: the keys in its answer.
IDS: dict[str, list[object]] = {
    "course_by_id_write": [26, 27],
    "course_by_id_write_uncached": [26],
    "course_by_xp_write": [26],
    "hero_data_caching_write": [3],
    "employees_write": ["E006", "E007"],
    "synchronisation_products_write": [22],
}


def event_in(path: str) -> Any:
    return json.loads((EVENTS / path).read_text(encoding="utf-8"))


@pytest.fixture
def seeded(service: InProcess, mariadb: MariaDB) -> None:
    insert_seed_rows(mariadb)


def test_every_file_in_events_is_run_by_a_test() -> None:
    found = {path.relative_to(EVENTS).as_posix() for path in EVENTS.rglob("*.json")}
    run = {f"storage/{name}.json" for name in (*ROWS, *IDS)}
    others = {"api_handler/read.json", "api_handler/health.json", "ingest/heroes.json"}
    others |= {"employees/add.json", "employees/add_many.json", "sync/products.json"}
    others |= {"sync_range/first.json"}
    assert found == run | others
    assert {path.parent.name for path in EVENTS.rglob("*.json")} == set(invoke.FUNCTIONS)


@pytest.mark.usefixtures("seeded")
@pytest.mark.parametrize("name", ROWS)
def test_a_read_gives_its_rows_the_second_time_too(name: str) -> None:
    keys, missing = ROWS[name]
    for _ in range(2):
        answer = storage(event_in(f"storage/{name}.json"), None)
        assert answer["statusCode"] == 200, answer
        assert [next(iter(row.values())) for row in answer["body"]] == keys
        assert answer.get("missing") == missing


@pytest.mark.usefixtures("seeded")
def test_a_run_of_the_sync_is_done() -> None:
    answer = sync(event_in("sync/products.json"), None)
    assert answer["outcome"] == "done"
    assert answer["details"] == []
    event = event_in("sync_range/first.json")
    assert event["Records"][0]["s3"]["bucket"]["name"] == RANGES
    [record] = sync_range(event, None)
    assert record["outcome"] == "superseded", "a later run has begun"


@pytest.mark.usefixtures("seeded")
@pytest.mark.parametrize("name", IDS)
def test_a_write_gives_its_keys_and_its_rows_are_read(name: str) -> None:
    event = event_in(f"storage/{name}.json")
    assert storage(event, None) == {"statusCode": 200, "body": "write success", "ids": IDS[name]}
    read = {"REQUEST": "read", "TABLE": event.get("TABLE", "heroes"), "SQLS": IDS[name]}
    rows = storage(read, None)["body"]
    for row, sent in zip(rows, event["SQLS"], strict=True):
        assert {column: str(row[column]) for column in sent} == {
            column: str(value) for column, value in sent.items()
        }


@pytest.mark.usefixtures("seeded")
def test_the_events_of_the_api_are_answered_as_api_gateway_wants_it() -> None:
    read = app(event_in("api_handler/read.json"), None)
    assert read["statusCode"] == 200
    assert json.loads(read["body"]) == {"statusCode": 200, "body": [ONE]}
    health = app(event_in("api_handler/health.json"), None)
    assert (health["statusCode"], json.loads(health["body"])["status"]) == (200, "ok")


@pytest.mark.usefixtures("seeded")
def test_the_employees_of_an_event_are_added_to_the_seed_rows() -> None:
    one = employees(event_in("employees/add.json"), None)
    assert len(one) == 6
    assert ["E101", "Ines Duarte"] in one
    many = employees(event_in("employees/add_many.json"), None)
    assert [number for number, _ in many][-4:] == ["E101", "E102", "E103", "E104"]


def test_the_event_of_an_upload_is_that_of_the_seed_heroes(
    service: InProcess, bucket: UploadBucket
) -> None:
    event = event_in("ingest/heroes.json")
    [record] = event["Records"]
    stored, seed = record["s3"]["object"], (ROOT / "seed" / "heroes.csv").read_bytes()
    new = {"size": len(seed), "eTag": hashlib.md5(seed).hexdigest()}
    assert {name: stored[name] for name in new} == new, "put these into events/ingest/heroes.json"
    assert record["s3"]["bucket"]["name"] == BUCKET
    bucket.put(stored["key"], seed)
    record["s3"]["bucket"]["name"] = bucket.name
    [summary] = ingest(event, None)
    assert (summary["status"], summary["table"], summary["rows"]) == ("loaded", "heroes", 25)
    assert service.read([1, 2]).rows == [ONE, TWO]


def of_object(**fields: object) -> dict[str, Any]:
    """An event of S3 as somebody may write it by hand."""
    of_object = {"key": "a.csv", **fields}
    stored = {"bucket": {"name": "uploads"}, "object": of_object}
    return {"Records": [{"eventName": "ObjectCreated:Put", "s3": stored}]}


@pytest.mark.parametrize(
    "event",
    [
        {},
        [],
        None,
        {"Records": None},
        {"Records": [{"eventName": "ObjectCreated:Put"}]},
        {"Records": [{"eventSource": "aws:sqs", "body": "{}"}]},
        {"REQUEST": "read", "SQLS": [1]},
        event_in("api_handler/read.json"),
        of_object(key=1),
        *[of_object(size=size) for size in (None, "1", -1, 1.5, True)],
        *[of_object(**{name: 5}) for name in ("versionId", "eTag", "sequencer")],
    ],
    ids=str,
)
def test_a_payload_that_is_no_event_of_s3_is_answered_with_words(event: object) -> None:
    answer = ingest(event, None)
    assert answer["statusCode"] == 400
    assert answer["body"]["error"] == "BadRequest"
    assert "this function takes the events that S3 sends" in answer["body"]["message"]


def test_the_event_by_which_s3_tests_its_way_here_is_nothing_to_do() -> None:
    event = {"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "uploads"}
    assert ingest(event, None) == ingest({"Records": []}, None) == []


# --- make invoke, make invalidate -----------------------------------------------------------------


def invoked(folder: Path, function: str, event: str) -> Any:
    """What `make invoke` prints, parsed."""
    done = make(folder, "-s", "invoke", FUNCTION=function, EVENT=event)
    assert done.returncode == 0, done.stdout
    return json.loads(done.stdout)


@pytest.mark.usefixtures("run")
def test_make_invoke_prints_the_answer_of_each_function_as_json(folder: Path) -> None:
    answer = invoked(folder, "storage", "events/storage/course_by_id_read.json")
    assert answer == {"statusCode": 200, "body": [ONE, TWO, ONE]}
    reply = invoked(folder, "api_handler", "events/api_handler/read.json")
    assert json.loads(reply["body"]) == {"statusCode": 200, "body": [ONE]}
    [summary] = invoked(folder, "ingest", "events/ingest/heroes.json")
    assert (summary["status"], summary["rows"]) == ("loaded", 25)


@pytest.mark.usefixtures("run")
def test_make_employees_prints_their_number_and_the_list(folder: Path) -> None:
    done = make(folder, "-s", "employees")
    assert done.returncode == 0, done.stdout
    assert "employees  8\nE001       Ada Okonkwo\n" in done.stdout
    assert done.stdout.endswith("E104       Kenji Mori\n")

    rejected = make(folder, "-s", "employees", EVENT="events/ingest/heroes.json")
    assert rejected.returncode != 0
    assert "herocache: employees failed: BadRequest: event: the attribute EmpId" in rejected.stdout

    unknown = make(folder, "-s", "employees", ENGINE="postgres")
    assert "ENGINE must be mysql or dataapi, got 'postgres'" in unknown.stdout


@pytest.mark.usefixtures("run")
def test_make_invoke_takes_names_as_names(folder: Path) -> None:
    name = "$(touch made) `touch made`; touch made '\".json"
    (folder / name).write_text('{"REQUEST": "read", "SQLS": [2]}', encoding="utf-8")
    done = make(folder, "-s", "invoke", EVENT=name)
    assert json.loads(done.stdout)["body"] == [TWO]
    shutil.copy(folder / name, folder / "$(shell touch made).json")
    done = make(folder, "-s", "invoke", "EVENT=$(shell touch made).json")
    assert json.loads(done.stdout)["body"] == [TWO]
    rejected = make(folder, "invoke", FUNCTION="$(touch made); touch made", EVENT=name)
    assert "no such function, there are storage, api_handler, ingest" in rejected.stdout
    assert not (folder / "made").exists()


@pytest.mark.usefixtures("run")
def test_make_invoke_says_why_a_function_fails(folder: Path) -> None:
    (folder / "broken.json").write_text(json.dumps(of_object()))
    failed = make(folder, "-s", "invoke", FUNCTION="ingest", EVENT="broken.json")
    assert failed.returncode != 0
    [words] = [line for line in failed.stdout.splitlines() if not line.startswith("make")]
    log = folder / ".local" / "invoke.log"
    reason = "BadRequest: event: the bucket 'uploads' is not the one in UPLOAD_BUCKET"
    assert words == f"herocache: ingest failed: {reason} (log: {log})"
    assert "Traceback" in log.read_text()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "which event? make invoke FUNCTION=storage EVENT=events/"),
        ({"EVENT": "no.json"}, "EVENT=no.json: it cannot be read: No such file or directory"),
        ({"EVENT": "text"}, "EVENT=text: not JSON in UTF-8: Expecting value"),
        ({"EVENT": "latin"}, "EVENT=latin: not JSON in UTF-8"),
        ({"EVENT": "{}", "FUNCTION": "x"}, "FUNCTION=x: no such function, there are storage"),
        ({"EVENT": "{}"}, "no server is running here to run it on: `make run` or `make up` first"),
    ],
)
def test_make_invoke_says_what_is_wrong_before_it_runs_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, str], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text").write_text("read 1, 2")
    (tmp_path / "latin").write_bytes(b'{"a": "\xe9"}')
    (tmp_path / "{}").write_text("{}")
    for name in ("FUNCTION", "EVENT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {**settings, "HEROCACHE_HOME": str(tmp_path)}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ServerError) as rejected:
        invoke.invoke()
    assert words in str(rejected.value)


@pytest.mark.parametrize(
    ("table", "keys", "sent"),
    [
        ("superheroes", "", ["*"]),
        ("superheroes", "1,2", [1, 2]),
        ("heroes", "", ["*"]),
        ("heroes", "1, 2,3", [1, 2, 3]),
        ("heroes", "*", ["*"]),
        ("employees", "E001,7", ["E001", "7"]),
        ("employees", "", ["*"]),
        ("not_declared", "4", [4]),
    ],
)
def test_make_invalidate_sends_the_keys_as_the_table_declares_them(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    table: str,
    keys: str,
    sent: list[object],
) -> None:
    """Those of the table that the service was started with too."""
    (tmp_path / "env").write_text("DB_TABLE=superheroes\n")
    monkeypatch.setenv("HEROCACHE_HOME", str(tmp_path))
    calls: list[tuple[str, object]] = []

    def answer(function: str, event: object) -> Any:
        calls.append((function, event))
        return {"statusCode": 200, "body": "invalidate success"}

    monkeypatch.setattr(invoke, "answer_of", answer)
    monkeypatch.setenv("TABLE", table)
    monkeypatch.setenv("KEYS", keys)
    assert invoke.invalidate() == 0
    assert calls == [("storage", {"REQUEST": "invalidate", "TABLE": table, "SQLS": sent})]
    assert "invalidated: the next read asks the database" in capsys.readouterr().out


def test_make_invalidate_without_a_table_means_the_one_of_the_service(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "env").write_text("DB_HOST=a\nDB_TABLE=employees\n")
    monkeypatch.setenv("HEROCACHE_HOME", str(tmp_path))
    monkeypatch.setenv("KEYS", "E001")
    monkeypatch.delenv("TABLE", raising=False)
    calls: list[object] = []

    def answer(_: str, event: object) -> Any:
        calls.append(event)
        return {"statusCode": 200, "body": "invalidate success"}

    monkeypatch.setattr(invoke, "answer_of", answer)
    assert invoke.invalidate() == 0
    assert calls == [{"REQUEST": "invalidate", "TABLE": "employees", "SQLS": ["E001"]}]


def test_make_invoke_names_the_server_that_is_missing(
    monkeypatch: pytest.MonkeyPatch, redis_server: Redis, tmp_path: Path
) -> None:
    (tmp_path / "redis").symlink_to(redis_server.home)
    monkeypatch.setenv("HEROCACHE_HOME", str(tmp_path))
    with pytest.raises(ServerError, match=r"^MariaDB is not running here \(Redis: running\)"):
        invoke.answer_of("storage", {})


def test_make_invalidate_refuses_a_key_that_is_no_integer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEYS", "1,two")
    with pytest.raises(ServerError, match="KEYS: id is an integer, got 'two'"):
        invoke.invalidate()


def test_make_invalidate_shows_the_service_the_rows_of_another_writer(
    run: MakeRun, folder: Path
) -> None:
    read = "events/storage/course_by_id_read.json"
    invoked(folder, "storage", read)
    run.services.mariadb.query("UPDATE heroes SET color = 'plain' WHERE id = 1")
    done = make(folder, "invalidate", TABLE="heroes", KEYS="1")
    assert done.returncode == 0, done.stdout
    assert "heroes     1 row invalidated" in done.stdout
    assert invoked(folder, "storage", read)["body"][0]["color"] == "plain"


@pytest.mark.usefixtures("run")
def test_a_refused_invalidation_fails_with_the_words_of_the_service(folder: Path) -> None:
    done = make(folder, "invalidate", TABLE="villains")
    assert done.returncode != 0
    assert "herocache: BadRequest: " in done.stdout
