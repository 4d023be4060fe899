"""From a file to readable rows on this machine: `make upload`, any S3 client, the seed rows."""

import csv
import gzip
import io
import json
import os
import pty
import re
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import boto3
import pytest

from chalicelib.tables import TABLES
from local.commands import upload
from local.home_folder import Home
from local.lambda_function.upload_outcome import Outcome
from local.machine import ROOT
from local.servers import S3, ServerError
from local.settings import read_settings
from tests.support.client import OverHttp
from tests.support.project_copy import MakeRun, clean_environment, make

HEADER = ("id", "hero", "power", "name", "xp", "color")


@pytest.fixture
def service(run: MakeRun) -> OverHttp:
    return OverHttp(f"{run.services.app.url}/")


@pytest.fixture
def s3_client(run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> Any:
    """As any program makes one, with the settings that `make run` wrote and names."""
    [env] = re.findall(r"with the settings in (.*)", run.output)
    for name, value in read_settings(Path(env)).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return boto3.client("s3")


def hero_row(id: int, **changes: object) -> dict[str, Any]:
    row = {"id": id, "hero": "Ünï", "power": 'a "b", c', "name": "N", "xp": id, "color": "red"}
    return row | changes


def as_csv(rows: Sequence[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, HEADER)
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def write_csv(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    path.write_text(as_csv(rows), encoding="utf-8", newline="")
    return path


def put(run: MakeRun, client: Any, key: str, text: str) -> None:
    """Upload, and wait until the function is done with it."""
    s3 = run.services.s3
    outcomes = s3.outcomes()
    bucket = os.environ["UPLOAD_BUCKET"]
    version = client.put_object(Bucket=bucket, Key=key, Body=text.encode())["VersionId"]
    outcome = s3.outcome_of(version, outcomes)
    assert [summary["status"] for summary in outcome.summaries] == ["loaded"], outcome


def test_the_first_run_has_the_seed_rows(service: OverHttp) -> None:
    for table, key in (("heroes", 1), ("products", 11), ("employees", "E001")):
        assert service.read([key], TABLE=table).rows


def test_a_file_of_any_s3_client_is_readable_through_the_cache_and_replaces_what_was_cached(
    run: MakeRun, s3_client: Any, service: OverHttp
) -> None:
    key = "incoming/new heroes + more ünï.csv"
    for row in (hero_row(501), hero_row(501, color="blue")):
        put(run, s3_client, key, as_csv([row]))
        for use_cache in (True, True, False):
            assert service.read([501], use_cache).rows == [row]
            assert service.read([501], use_cache, BY="xp").rows == [row]


def test_a_file_at_the_root_is_loaded_and_its_result_is_no_upload(
    run: MakeRun, s3_client: Any, service: OverHttp
) -> None:
    put(run, s3_client, "at the root.csv", as_csv([hero_row(503)]))
    put(run, s3_client, "another.csv", as_csv([hero_row(504)]))  # behind the event of that result

    versions = s3_client.list_object_versions(Bucket="herocache")["Versions"]
    keys = [version["Key"] for version in versions if "at the root" in version["Key"]]
    assert sorted(keys) == ["at the root.csv", "results/at the root.csv.json"]
    assert service.read([503]).rows == [hero_row(503)]


def test_make_run_says_where_uploads_go_and_what_became_of_them(
    run: MakeRun, s3_client: Any
) -> None:
    assert f"s3://herocache/incoming/ at {run.services.s3.url}" in run.output
    put(run, s3_client, "incoming/told.csv", as_csv([hero_row(502)]))
    assert "incoming/told.csv: 1 row into heroes" in run.read_until("ingest     incoming/told")


def test_make_upload_shows_the_way_of_a_file_and_its_summary(
    run: MakeRun, folder: Path, tmp_path: Path, service: OverHttp
) -> None:
    rows = [hero_row(id) for id in range(600, 625)]
    path = write_csv(tmp_path / "Señor's heroes & 100 %.csv", rows)
    uploaded = make(folder, "upload", FILE=str(path))
    size = path.stat().st_size
    assert uploaded.returncode == 0, uploaded.stdout
    assert f"{path.name}: {size:,} of {size:,} bytes, 100 %" in uploaded.stdout
    assert f"uploaded   s3://herocache/incoming/{path.name}\n" in uploaded.stdout
    assert "loaded     into heroes\n" in uploaded.stdout
    assert re.search(r"^rows       25 in [\d.]+ s \([\d,]+/s\)$", uploaded.stdout, re.MULTILINE)
    assert "rejected   0 rows\n" in uploaded.stdout
    assert service.read([row["id"] for row in rows]).rows == rows


@pytest.mark.parametrize(
    ("name", "id"), [("heroes.CSV", 560), ("notes.txt", 561), ("heroes.csv.gz", 562)]
)
def test_a_file_of_any_ending_gets_a_result(
    run: MakeRun,
    folder: Path,
    tmp_path: Path,
    s3_client: Any,
    service: OverHttp,
    name: str,
    id: int,
) -> None:
    text = as_csv([hero_row(id)]).encode()
    (tmp_path / name).write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
    uploaded = make(folder, "upload", FILE=str(tmp_path / name))
    assert "loaded     into heroes\n" in uploaded.stdout
    key = f"results/incoming/{name}.json"
    summary = json.loads(s3_client.get_object(Bucket="herocache", Key=key)["Body"].read())
    assert (summary["status"], summary["rows"]) == ("loaded", 1)
    assert service.read([id]).rows == [hero_row(id)]


def test_make_upload_takes_the_table_by_name(
    run: MakeRun, folder: Path, tmp_path: Path, service: OverHttp
) -> None:
    (tmp_path / "people.csv").write_text("E700,Zoë\n", encoding="utf-8")
    uploaded = make(folder, "upload", FILE=str(tmp_path / "people.csv"), TABLE="employees")
    assert "uploaded   s3://herocache/incoming/employees/people.csv\n" in uploaded.stdout
    assert service.read(["E700"], TABLE="employees").rows == [{"EmpId": "E700", "EmpName": "Zoë"}]


def test_make_upload_says_where_refused_rows_lie(
    run: MakeRun, folder: Path, tmp_path: Path, s3_client: Any, service: OverHttp
) -> None:
    rows = [hero_row(id) for id in range(700, 730)]
    path = write_csv(tmp_path / "one bad.csv", [*rows[:9], hero_row(709, xp="ten"), *rows[10:]])
    uploaded = make(folder, "upload", FILE=str(path))
    assert uploaded.returncode == 0, uploaded.stdout
    assert "rows       29 in" in uploaded.stdout
    assert "rejected   1 row\n" in uploaded.stdout
    assert re.search(
        r"^ {11}line 11, xp: expected an integer, got 'ten'$", uploaded.stdout, re.MULTILINE
    )
    assert " more" not in uploaded.stdout
    [place] = re.findall(r"^see        s3://herocache/(.*)$", uploaded.stdout, re.MULTILINE)
    rejected = s3_client.get_object(Bucket="herocache", Key=place)["Body"].read().decode()
    assert "ten" in rejected
    assert service.read([708, 709, 710]).rows == [rows[8], rows[10]]


def test_make_upload_shows_the_first_ten_rejected_rows_with_their_reasons(
    run: MakeRun, folder: Path, tmp_path: Path
) -> None:
    rows = [hero_row(id) for id in range(800, 950)]
    for i in range(0, 130, 10):
        rows[i] = hero_row(800 + i, xp="many", hero="é" * 140_000)
    path = write_csv(tmp_path / "thirteen bad.csv", rows)
    uploaded = make(folder, "upload", FILE=str(path))
    lines = re.findall(r"^ {11}(line (\d+)[,:] .*)$", uploaded.stdout, re.MULTILINE)
    assert len(lines) == upload.SHOWN_REJECTED == 10, uploaded.stdout
    assert [int(line) for _, line in lines] == sorted(int(line) for _, line in lines)
    assert re.search(r"^ {11}and 3 more$", uploaded.stdout, re.MULTILINE)


def test_make_upload_shows_the_rows_that_the_summary_calls_the_first() -> None:
    summary = {
        **{"key": "incoming/a.csv", "status": "loaded", "reason": "", "table": "heroes"},
        **{"rows": 9, "seconds": 1, "refused": 0, "rejected": ""},
        "first_rows": [{"id": 1, "hero": "Ünï"}, {"id": 2, "hero": "B"}],
    }
    outcome = Outcome("incoming/a.csv", "v", 1, [summary])
    said = list(upload.told(outcome, S3(Path("nowhere"), Path("nowhere"))))
    shown = [text for subject, text in said if subject == "stored"]
    assert shown == ['{"id": 1, "hero": "Ünï"}', '{"id": 2, "hero": "B"}']


def test_make_upload_shows_what_the_summary_in_the_bucket_says(
    run: MakeRun, folder: Path, tmp_path: Path, s3_client: Any
) -> None:
    path = write_csv(tmp_path / "summed up.csv", [hero_row(740), hero_row(741)])
    uploaded = make(folder, "upload", FILE=str(path))
    key = "results/incoming/summed up.csv.json"
    summary = json.loads(s3_client.get_object(Bucket="herocache", Key=key)["Body"].read())
    assert (summary["status"], summary["table"]) == ("loaded", "heroes")
    assert f"{summary['rows']:,} in {summary['seconds']:.2f} s" in uploaded.stdout


def test_make_upload_fails_when_the_file_is_refused(
    run: MakeRun, folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "latin.csv").write_bytes("1,Señor,a,b,1,c\n".encode("latin-1"))
    rejected = make(folder, "upload", FILE=str(tmp_path / "latin.csv"))
    assert rejected.returncode != 0
    assert re.search(r"^rejected   .*UTF-8", rejected.stdout, re.MULTILINE), rejected.stdout
    assert "rows       0 in" in rejected.stdout
    assert "refused" not in rejected.stdout


def test_make_upload_counts_on_a_terminal(run: MakeRun, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "large.csv").write_bytes(b"\xff" * 20_000_000)
    ours, theirs = pty.openpty()
    command = ["make", "upload"]
    environment = clean_environment(FILE=str(tmp_path / "large.csv"))
    seen = b""
    with subprocess.Popen(
        command, cwd=folder, env=environment, stdin=theirs, stdout=theirs, stderr=theirs
    ) as process:
        os.close(theirs)
        watchdog = threading.Timer(60, process.kill)
        watchdog.start()
        while piece := read_terminal(ours):
            seen += piece
        watchdog.cancel()
    os.close(ours)
    shares = [int(share) for share in re.findall(r"bytes, (\d+) %", seen.decode())]
    assert shares == sorted(shares)
    assert shares[-1] == 100
    assert len(set(shares)) > 10
    assert process.returncode != 0


def read_terminal(terminal: int) -> bytes:
    """The next of what was written to it; nothing when nobody writes any more."""
    try:
        return os.read(terminal, 65_536)
    except OSError:  # how Linux says that
        return b""


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "which file? make upload FILE=heroes.csv"),
        ({"FILE": "no such.csv"}, "FILE=no such.csv: there is no such file in "),
        ({"FILE": "seed"}, "FILE=seed: this is not a file"),
        ({"FILE": "/dev/null"}, "FILE=/dev/null: this is not a file"),
        ({"FILE": "empty.csv"}, "FILE=empty.csv: it is empty, there is nothing to load"),
        ({"FILE": "\udcff.csv"}, "FILE='\\udcff.csv': S3 takes only names in UTF-8, rename it"),
        (
            {"FILE": "heroes.csv", "TABLE": "villains"},
            f"TABLE=villains: no such table, there are {', '.join(TABLES)}",
        ),
        ({"FILE": "heroes.csv"}, "nothing is running here to upload to: `make run` or `make up`"),
    ],
)
def test_make_upload_says_what_is_wrong_before_it_uploads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, str], words: str
) -> None:
    (tmp_path / "seed").mkdir()
    for name in ("heroes.csv", "\udcff.csv"):
        (tmp_path / name).write_text("1\n")
    (tmp_path / "empty.csv").touch()
    monkeypatch.chdir(tmp_path)
    for name in ("FILE", "TABLE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {**settings, "HEROCACHE_HOME": str(tmp_path)}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ServerError, match=re.escape(words)):
        upload.upload()


def test_make_upload_without_servers_fails_in_words(tmp_path: Path) -> None:
    rejected = make(ROOT, "upload", FILE="seed/heroes.csv", HEROCACHE_HOME=str(tmp_path))
    assert rejected.returncode != 0
    assert "herocache: nothing is running here to upload to" in rejected.stdout


def test_seed_rows_are_uploaded_for_empty_tables_only(folder: Path) -> None:
    services = Home(folder / ".local")
    make(folder, "down")
    make(folder, "up")
    services.mariadb.query("DELETE FROM employees")
    services.mariadb.query("DELETE FROM heroes WHERE id > 1")
    again = make(folder, "up")
    assert "employees  5 seed rows" in again.stdout
    assert "heroes" not in again.stdout.replace("heroes.csv", "")
    assert services.mariadb.query("SELECT COUNT(*) FROM heroes") == [(1,)]
    assert services.mariadb.query("SELECT EmpName FROM employees WHERE EmpId = 'E002'") == [
        ("Jürgen Weiß",)
    ]
    make(folder, "down")


def test_upload_and_invalidate_know_the_table_of_the_service(folder: Path, tmp_path: Path) -> None:
    """Though the terminal that they run in does not."""
    make(folder, "down")
    file = write_csv(tmp_path / "more.csv", [hero_row(7)])
    with MakeRun(folder, DB_TABLE="superheroes") as run:
        run.services.mariadb.query("CREATE TABLE superheroes LIKE heroes")
        service = OverHttp(f"{run.services.app.url}/")
        for table in ("superheroes", ""):
            uploaded = make(folder, "upload", FILE=str(file), TABLE=table)
            assert "loaded     into superheroes" in uploaded.stdout
        assert service.read([7]).rows == [hero_row(7)]
        run.services.mariadb.query("UPDATE superheroes SET color = 'blue'")
        done = make(folder, "invalidate")
        assert "superheroes every row invalidated" in done.stdout
        assert service.read([7]).rows == [hero_row(7, color="blue")]


def test_seed_rows_that_cannot_be_loaded_are_an_error_and_leave_nothing_running(
    folder: Path,
) -> None:
    make(folder, "down")
    services = Home(folder / ".local")
    with services.mariadb as database:
        database.apply_schema()
        database.query("DELETE FROM employees")
    (folder / "seed" / "employees.csv").write_bytes(b"E001,\xff\n")
    rejected = make(folder, "up")
    assert rejected.returncode != 0
    assert re.search(r"no seed rows for employees: .*rejected, .*UTF-8", rejected.stdout)
    assert [server.pid for server in services.servers] == [None, None, None]
