"""`make sync`, and the schedule that `make run` keeps, on its servers and seed rows."""

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from chalicelib.sync import Record
from local.commands.sync import asked_for_rows, show_progress
from local.home_folder import Home
from local.schedule import Schedule
from local.servers import ServerError
from local.servers.mariadb import integers
from tests.support.client import OverHttp
from tests.support.project_copy import MakeRun, make


@pytest.fixture
def redis(run: MakeRun) -> Iterator["Redis"]:
    with Redis.from_url(run.services.redis.environment()["REDIS_URL"]) as client:
        yield client


def watch(run: MakeRun, key: int | str, direction: str) -> int:
    request = {"REQUEST": "watch", "TABLE": "products", "SQLS": [key], "DIRECTION": direction}
    answer = OverHttp(f"{run.services.app.url}/").post(request)
    assert (answer.status, answer.fields["body"]) == (200, "watch success")
    return int(answer.fields["watched"])


def value(redis: "Redis", key: str, column: str) -> Any:
    found: Any = redis.get(key)
    return json.loads(found)[column]


def test_make_sync_shows_each_row_and_a_line_a_direction(
    run: MakeRun, folder: Path, redis: "Redis"
) -> None:
    """The walk-throughs of the proof of concept, on the seed rows."""
    watch(run, 22, "to_database")
    watch(run, 11, "to_cache")
    redis.set("Product:22", '{"ProductId": 22, "QuantityInStock": 2000}')
    redis.set("Product:11", '{"ProductId": 11, "Price": 500}')

    done = make(folder, "-s", "sync", ARGS="-v")

    assert done.returncode == 0, done.stdout
    assert done.stdout == (
        "Write Product:22 from Redis to Database\n"
        "Write Product:11 from Database to Redis\n"
        "to_cache   1 row looked at, 1 changed, 0 reported\n"
        "to_database 1 row looked at, 1 changed, 0 reported\n"
        "sync       done\n"
    )
    sql = "SELECT QuantityInStock, Price FROM products WHERE ProductId IN (11, 22) ORDER BY 1"
    assert run.services.mariadb.query(sql) == [(140, 400), (2000, 6400)]
    assert value(redis, "Product:22", "QuantityInStock") == 2000
    assert value(redis, "Product:11", "Price") == 400


def test_make_sync_says_what_is_wrong(run: MakeRun, folder: Path, redis: "Redis") -> None:
    watch(run, 22, "to_database")
    redis.set("Product:22", '{"Price": "dear"}')
    done = make(folder, "-s", "sync", TABLE="products")
    assert done.returncode == 0, done.stdout
    assert "reported   Product:22: Price: expected an integer, got 'dear'\n" in done.stdout
    assert done.stdout.endswith("sync       done, 1 reported\n")
    rejected = make(folder, "-s", "sync", TABLE="nothing")
    assert rejected.returncode != 0
    assert "BadRequest: table: 'nothing' is none; there are heroes, products" in rejected.stdout


def test_the_schedule_calls_the_function_and_says_what_came_of_it(
    run: MakeRun, redis: "Redis", capsys: pytest.CaptureFixture[str]
) -> None:
    watch(run, 11, "to_cache")
    redis.set("Product:11", "garbage")
    assert told(run.services, capsys).startswith("sync       done: ")
    assert value(redis, "Product:11", "Price") == 400
    assert told(run.services, capsys) == "sync       nothing to do\n"


def test_make_sync_hands_many_rows_to_the_function(
    run: MakeRun, folder: Path, redis: "Redis"
) -> None:
    """The local S3 tells processes of each range, and the command waits for the last one."""
    run.services.mariadb.query(
        f"INSERT INTO products SELECT seq, 'One of many', '', 1, 2 FROM {integers(1_001, 26_000)}"
    )
    watch(run, 22, "to_database")  # its own watch goes before that on every row
    rows = watch(run, "*", "to_cache")
    assert rows > 25_000

    done = make(folder, "-s", "sync", TABLE="products")

    assert done.returncode == 0, done.stdout
    assert re.search(rf"^to_cache +{rows - 1:,} rows looked at, 25,", done.stdout, re.MULTILINE)
    assert "\nsync       done" in done.stdout
    handed = run.services.mariadb.query("SELECT outcome FROM sync_ranges WHERE number > 0")
    assert handed == [("done",)]
    assert value(redis, "Product:26000", "Price") == 2


@pytest.mark.parametrize("words", ["-x", "--verbose", "-v -x"])
def test_an_unknown_argument_is_an_error_with_the_usage(
    words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ARGS", words)
    with pytest.raises(ServerError, match=r"^ARGS: '-.*' is no argument.*ARGS=-v\]$"):
        asked_for_rows()


@pytest.mark.parametrize(("words", "is_asked"), [("", False), ("-v", True), (" -v ", True)])
def test_a_line_for_each_row_is_asked_for_by_v(
    words: str, is_asked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ARGS", words)
    assert asked_for_rows() is is_asked


def test_one_bar_shows_the_ranges_of_a_run(capsys: pytest.CaptureFixture[str]) -> None:
    record = Record(ranges=4)
    record.tallies["to_cache"].looked = 1_234
    show_progress(record, done=1)
    show_progress(Record())
    assert capsys.readouterr().err == (
        "\r[#######.......................] 1 of 4 ranges, 1,234 rows looked at, 0 changed "
        "\r0 rows looked at, 0 changed "
    )


def told(home: Home, capsys: pytest.CaptureFixture[str]) -> str:
    """What a run that is due says."""
    schedule = Schedule(home)
    schedule.keep()
    assert schedule._process is None, "it is not due yet"
    schedule._due = 0
    give_up = time.monotonic() + 60
    text = ""
    while not text and time.monotonic() < give_up:
        schedule.keep()
        text = capsys.readouterr().out
        time.sleep(0.05)
    schedule.end()
    return text
