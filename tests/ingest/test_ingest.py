"""An uploaded file becomes rows: of which table, which rows, and how the others are reported."""

import csv
import gzip
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from chalice.test import Client

from app import app
from chalicelib import services
from chalicelib.errors import ConfigurationError
from chalicelib.handlers import entry_points
from chalicelib.ingest import service as ingest_service
from chalicelib.ingest.bucket import Bucket
from chalicelib.tables import HEROES
from tests.conftest import Configure
from tests.support.aurora import emulated_load_from_s3
from tests.support.bucket import UploadBucket, lines, together, without
from tests.support.client import ROOT, InProcess
from tests.support.witness import Witness

KEY = "incoming/heroes/some.csv"
BIG = ingest_service.MAX_SMALL_ROWS + 1


def loaded(bucket: UploadBucket, content: str | bytes, key: str = KEY) -> dict[str, Any]:
    """The summary of the one upload of this content."""
    [summary] = entry_points.ingest(bucket.put(key, content))
    return summary


def stored(witness: Witness, table: str = "heroes") -> list[tuple[Any, ...]]:
    return witness.query(f"SELECT * FROM {table} ORDER BY 1")


def test_a_dropped_file_is_readable_and_told_of(
    service: InProcess, bucket: UploadBucket, witness: Witness
) -> None:
    event = bucket.put(KEY, "1,Nova,light,Ada,10,red\n7,Onyx,frost,Bo,-20,blue\n")

    [summary] = entry_points.ingest(event)

    assert stored(witness) == [
        (1, "Nova", "light", "Ada", 10, "red"),
        (7, "Onyx", "frost", "Bo", -20, "blue"),
    ]
    for use_cache in (True, False):
        [ada] = service.read([10], use_cache, BY="xp").rows
        assert ada["name"] == "Ada"
    of_object = event["Records"][0]["s3"]["object"]
    seconds = summary.pop("seconds")
    assert 0 < seconds < 60
    assert summary == {
        "status": "loaded",
        "bucket": bucket.name,
        "key": KEY,
        "version": of_object["versionId"],
        "etag": of_object["eTag"],
        "table": "heroes",
        "rows": 2,
        "refused": 0,
        "reason": "",
        "rejected": "",
        "first_rows": service.read([1, 7]).rows,
    }
    assert bucket.summary(KEY) == {**summary, "seconds": seconds}
    assert bucket.keys() == {KEY, f"results/{KEY}.json"}


def test_the_function_that_s3_calls_is_ingest(
    service: InProcess, bucket: UploadBucket, witness: Witness
) -> None:
    client = Client(app, stage_name="tests", project_dir=str(ROOT))

    [summary] = client.lambda_.invoke("ingest", bucket.put(KEY, lines(1, 3))).payload

    assert (summary["status"], summary["rows"], witness.count()) == ("loaded", 3, 3)


@pytest.mark.parametrize(
    "key",
    [
        "incoming/heroes/my heroes.csv",
        "incoming/heroes/a+b & c%20d.csv",
        "incoming/heroes/Señor 光😀.csv",
        "incoming/heroes/2026/11/deep.csv",
        "incoming/heroes.csv",
        "incoming/no suffix",
        "incoming/heroes.CSV",
        "notes.txt",
        "at the root.csv",
        "incoming",
        "results",
    ],
)
def test_any_key_is_found(
    service: InProcess, bucket: UploadBucket, witness: Witness, key: str
) -> None:
    summary = loaded(bucket, lines(1, 2) + "x\n", key)

    assert (summary["key"], summary["rows"], summary["refused"]) == (key, 2, 1)
    assert bucket.keys() == {key, f"results/{key}.json", f"rejected/{key}.csv"}
    assert witness.count() == 2


def test_the_folder_names_the_table(
    service: InProcess, bucket: UploadBucket, witness: Witness
) -> None:
    loaded(bucket, "EmpName,EmpId\nAnn,E 1\nBo,e 1\n", "incoming/employees/e.csv")
    loaded(bucket, "Lamp,A lamp,5,-10\nPen,,1,2\n", "incoming/products/p.csv")

    assert stored(witness, "employees") == [("E 1", "Ann"), ("e 1", "Bo")]
    assert stored(witness, "products") == [(1, "Lamp", "A lamp", 5, -10), (2, "Pen", "", 1, 2)]
    assert service.read(["e 1"], TABLE="employees").rows == [{"EmpId": "e 1", "EmpName": "Bo"}]
    assert witness.count() == 0


def test_a_folder_of_no_table_is_refused(
    service: InProcess, bucket: UploadBucket, witness: Witness
) -> None:
    summary = loaded(bucket, lines(1, 2), "incoming/heros/some.csv")

    assert summary["status"] == "refused"
    assert "there is no table heros; there are heroes, products, employees" in summary["reason"]
    assert bucket.summary("incoming/heros/some.csv") == summary


@pytest.mark.parametrize("folder", ["x" * 65, "ü" * 400], ids=["65 letters", "800 bytes"])
def test_a_folder_of_no_table_may_have_any_name(
    service: InProcess,
    bucket: UploadBucket,
    witness: Witness,
    capsys: pytest.CaptureFixture[str],
    folder: str,
) -> None:
    """Nothing of the name becomes a dimension of a metric: each new one would cost money."""
    event = bucket.put(f"incoming/{folder}/some.csv", lines(1, 2))

    [summary] = entry_points.ingest(event)
    [again] = entry_points.ingest(event)

    assert (summary["status"], summary["table"]) == ("refused", "")
    assert f"there is no table {folder}" in summary["reason"] == again["reason"]
    of_bucket = "SELECT status, table_name FROM ingest_log WHERE bucket = %s"
    assert witness.query(of_bucket, [bucket.name]) == [("refused", "")]
    [metrics] = [text for text in capsys.readouterr().out.splitlines() if "_aws" in text]
    assert json.loads(metrics)["Table"] == "none"


@pytest.mark.parametrize("length", [1_011, 1_012, 1_024])
def test_a_key_as_long_as_s3_takes_has_a_result_and_a_report(
    service: InProcess, bucket: UploadBucket, witness: Witness, length: int
) -> None:
    """Both stand under keys that S3 takes too, which moto does not look at."""
    key = "incoming/heroes/" + "ü" * ((length - 16) // 2) + "x" * (length % 2)
    event = bucket.put(key, lines(1, 2) + "x\n")

    [summary] = entry_points.ingest(event)

    told = bucket.keys() - {key}
    assert max(len(each.encode()) for each in told) <= 1_024
    [result] = [each for each in told if each.startswith("results/incoming/heroes/ü")]
    assert told == {result, summary["rejected"]}
    assert (summary["key"], summary["rows"], summary["refused"]) == (key, 2, 1)
    assert json.loads(bucket.get(result) or "") == summary
    assert (bucket.summary(key) == summary) == (length <= 1_011)
    [again] = entry_points.ingest(event)
    assert again["first_rows"] == summary["first_rows"] != []
    assert witness.count() == 2


def test_two_long_keys_that_begin_alike_have_results_of_their_own(
    service: InProcess, bucket: UploadBucket
) -> None:
    begin = "x" * 1_020
    summaries = [loaded(bucket, lines(1, 2) + "x\n", begin + end) for end in ("a", "b", "😀")]

    assert len({summary["rejected"] for summary in summaries}) == 3
    told = bucket.keys()
    assert sum(key.startswith("results/") for key in told) == 3


def test_files_in_no_folder_of_a_table_go_to_db_table(
    service: InProcess, configure: Configure, bucket: UploadBucket, witness: Witness
) -> None:
    configure(DB_TABLE="products")

    for name, key in (("Lamp", "lamp.csv"), ("Pen", "incoming/pen.csv")):
        summary = loaded(bucket, f"{name},,1,2\n", key)
        assert (summary["status"], summary["table"]) == ("loaded", "products")
        assert bucket.summary(key) == summary

    assert [row[1] for row in stored(witness, "products")] == ["Lamp", "Pen"]


@pytest.mark.parametrize(
    "key", ["heroes/a.csv", "Incoming/a.csv", "x/incoming/a.csv", "/a.csv", "sync/7/1.json"]
)
def test_a_file_elsewhere_in_the_bucket_is_told_where_it_belongs(
    service: InProcess, bucket: UploadBucket, witness: Witness, key: str
) -> None:
    event = bucket.put(key, lines(1, 2))

    [summary] = entry_points.ingest(event)

    assert (summary["status"], witness.count()) == ("refused", 0)
    assert "upload to incoming/<table>/, or to the bucket's root" in summary["reason"]
    assert bucket.summary(key) == summary
    assert [again["reason"] for again in entry_points.ingest(event)] == [summary["reason"]]


@pytest.mark.parametrize("key", ["photo.png", "incoming/heroes/photo.png"])
def test_a_file_that_is_no_text_is_told_of(
    service: InProcess, bucket: UploadBucket, witness: Witness, key: str
) -> None:
    summary = loaded(bucket, b"\x89PNG\r\n\x1a\n\0\0", key)

    assert (summary["status"], witness.count()) == ("refused", 0)
    assert bucket.summary(key) == summary


def test_what_the_service_writes_makes_no_upload_and_costs_nothing(
    service: InProcess, bucket: UploadBucket, witness: Witness
) -> None:
    loaded(bucket, lines(1, 2) + "bad\n", "a.csv")
    written = bucket.keys() - {"a.csv"}
    events = together(*[bucket.put(key, lines(3, 2)) for key in written])
    services.forget()

    with witness.spent() as spent:
        summaries = entry_points.ingest(events)

    assert written == {"results/a.csv.json", "rejected/a.csv.csv"}
    assert summaries == []
    assert (spent.statements, spent.commands) == (0, {})
    assert bucket.keys() == written | {"a.csv"}


def test_the_service_cannot_write_what_would_be_taken_for_an_upload(bucket: UploadBucket) -> None:
    own = Bucket(bucket.name)
    for key in ("a.csv", "incoming/a.csv", "result/a.json", "results"):
        with pytest.raises(ValueError, match="the service writes to"):
            own.write(key, b"x", "text/csv")
        with pytest.raises(ValueError, match="the service writes to"):
            own.writer(key, "text/csv")
    assert bucket.keys() == set()


@pytest.mark.parametrize("engine", ["mysql", "aurora"])
@pytest.mark.parametrize("count", [2, 3, BIG], ids=["two", "small", "big"])
@pytest.mark.parametrize("has_ids", [True, False])
def test_the_first_rows_are_told_as_a_read_answers_them(
    service: InProcess,
    configure: Configure,
    bucket: UploadBucket,
    engine: str,
    count: int,
    has_ids: bool,
) -> None:
    configure(INGEST_ENGINE=engine)
    loaded(bucket, lines(1, 5), "incoming/before.csv")
    of_file = lines(3, count, hero="Ñova").splitlines()
    content = "\n".join(line if has_ids else line.partition(",")[2] for line in of_file)
    event = bucket.put(KEY, content)

    with emulated_load_from_s3():
        [summary] = entry_points.ingest(event)
        [again] = entry_points.ingest(event)

    ids = [row["id"] for row in summary["first_rows"]]
    first = 3 if has_ids else 6
    assert ids == list(range(first, first + min(count, 3)))
    assert summary["first_rows"] == service.read(ids).rows
    assert again["first_rows"] == summary["first_rows"]
    assert bucket.summary(KEY) == again


@pytest.mark.parametrize("count", [3, BIG], ids=["small", "big"])
def test_of_first_rows_with_one_id_the_one_that_stays_is_told(
    service: InProcess, bucket: UploadBucket, count: int
) -> None:
    content = lines(2, 1) + lines(1, 1) + lines(2, 1, hero="Last") + lines(4, count)

    summary = loaded(bucket, content)

    assert summary["first_rows"] == service.read([2, 1]).rows
    assert summary["first_rows"][0]["hero"] == "Last"


def test_the_first_rows_are_not_known_any_more_where_the_first_delivery_did_not_tell_them(
    service: InProcess, bucket: UploadBucket
) -> None:
    loaded(bucket, lines(1, 2))
    event = bucket.put(KEY, lines(3, 2))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Bucket, "write", Bucket.find)
        with pytest.raises(TypeError):
            entry_points.ingest(event)

    [summary] = entry_points.ingest(event)

    assert (summary["status"], summary["rows"], summary["first_rows"]) == ("loaded", 2, [])


@pytest.mark.parametrize("engine", ["mysql", "aurora"])
@pytest.mark.parametrize("count", [2, BIG], ids=["small", "big"])
def test_a_file_whose_columns_stand_in_another_order_can_be_declared_so(
    service: InProcess, configure: Configure, bucket: UploadBucket, engine: str, count: int
) -> None:
    configure(INGEST_ENGINE=engine, INGEST_COLUMNS="id, name,HERO,power,xp,color")

    with emulated_load_from_s3():
        summary = loaded(bucket, lines(1, count, hero="Ada", power="Nova"), "heroes.csv")

    assert summary["rows"] == count
    assert summary["first_rows"][0] == service.read([1]).rows[0]
    assert [summary["first_rows"][0][name] for name in ("name", "hero", "power")] == [
        *("Ada", "Nova", "Ada 1"),
    ]


def test_the_declared_order_is_that_of_db_table_alone_and_a_header_goes_before_it(
    service: InProcess, configure: Configure, bucket: UploadBucket
) -> None:
    configure(INGEST_COLUMNS="id,name,hero,power,xp,color")

    product = loaded(bucket, "1,Lamp,A lamp,5,10\n", "incoming/products/a.csv")
    hero = loaded(bucket, "id,hero,power,name,xp,color\n1,Nova,light,Ada,1,red\n")

    assert product["first_rows"][0]["ProductName"] == "Lamp"
    assert (hero["first_rows"][0]["hero"], hero["first_rows"][0]["name"]) == ("Nova", "Ada")


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        (
            "id,name,hero,power,xp,colour",
            "INGEST_COLUMNS: no column is called 'colour'; heroes has",
        ),
        ("id,name,hero,power,xp", "INGEST_COLUMNS: the column color is missing; heroes has"),
    ],
)
def test_a_declared_order_that_does_not_fit_the_table_is_named_and_nothing_is_refused_for_it(
    service: InProcess, configure: Configure, bucket: UploadBucket, columns: str, words: str
) -> None:
    event = bucket.put(KEY, lines(1, 2))
    configure(INGEST_COLUMNS=columns)

    with pytest.raises(ConfigurationError, match=words):
        entry_points.ingest(event)

    configure(INGEST_COLUMNS=None)
    [summary] = entry_points.ingest(event)
    assert summary["status"] == "loaded"


def test_rows_without_ids_get_rising_ones(
    service: InProcess, bucket: UploadBucket, witness: Witness
) -> None:
    loaded(bucket, "hero,power,name,xp,color\n" + "N,l,A,1,r\nN,l,B,2,r\nN,l,C,3,r\n")

    assert [(row[0], row[3]) for row in stored(witness)] == [(1, "A"), (2, "B"), (3, "C")]


@pytest.mark.parametrize("engine", ["mysql", "aurora"])
@pytest.mark.parametrize("count", [3, BIG], ids=["small", "big"])
def test_rows_without_ids_are_refused_where_no_id_is_left(
    service: InProcess,
    configure: Configure,
    bucket: UploadBucket,
    witness: Witness,
    count: int,
    engine: str,
) -> None:
    configure(INGEST_ENGINE=engine)
    witness.query("INSERT INTO heroes VALUES (4294967295, 'N', 'l', 'A', 1, 'r')")
    before = witness.database_state()

    with emulated_load_from_s3():
        summary = loaded(bucket, "N,l,A,1,r\n" * count)

    assert (summary["status"], summary["rows"]) == ("refused", 0)
    assert "no free id above the highest one is left; give each row its id" in summary["reason"]
    assert witness.database_state() == before


@pytest.mark.parametrize("count", [3, BIG], ids=["small", "big"])
def test_a_row_that_exists_is_replaced_and_of_two_with_one_id_the_later_one_stays(
    service: InProcess, bucket: UploadBucket, witness: Witness, count: int
) -> None:
    loaded(bucket, lines(1, count))
    kept = stored(witness)[-1]

    summary = loaded(bucket, "2,New,l,A,1,r\n1,Old,l,A,1,r\n1,New,l,A,1,r\n" + lines(3, count - 3))

    assert summary["rows"] == count
    assert [row[1] for row in stored(witness)[:3]] == ["New", "New", "Nova"]
    assert witness.count() == count
    assert stored(witness)[-1] == kept


@pytest.mark.parametrize("count", [10, BIG], ids=["small", "big"])
def test_every_value_arrives_as_it_stands_in_the_file(
    service: InProcess, bucket: UploadBucket, witness: Witness, count: int
) -> None:
    odd = [
        "NULL",
        "\\N",
        "tab\tend\\",
        "line\nend",
        "cr\rlf\r\n",
        'quo"te',
        "光😀",
        "",
        " x ",
        "\x1a'%s",
    ]
    rows = [(i + 1, value, value, f"Ada {i}", i, value) for i, value in enumerate(odd)]
    text = "".join(
        ",".join(f'"{str(v).replace(chr(34), chr(34) * 2)}"' for v in row) + "\r\n" for row in rows
    )

    summary = loaded(bucket, text + lines(100, count))

    assert (summary["rows"], summary["refused"]) == (len(odd) + count, 0)
    assert stored(witness)[: len(odd)] == rows


@pytest.mark.parametrize("count", [1_000, BIG + 1_000], ids=["small", "big"])
def test_a_refused_row_in_the_middle_is_accounted_for(
    service: InProcess, bucket: UploadBucket, witness: Witness, count: int
) -> None:
    head, tail = lines(1, 499), lines(501, count - 500)

    summary = loaded(bucket, f'{head}500,"No,va",light,Ada,ten,red\n{tail}')

    assert (summary["status"], summary["rows"], summary["refused"]) == ("loaded", count - 1, 1)
    assert summary["rejected"] == f"rejected/{KEY}.csv"
    assert list(csv.reader((bucket.rejected(KEY) or "").splitlines())) == [
        ["line", "column", "reason", "original"],
        ["500", "xp", "expected an integer, got 'ten'", '500,"No,va",light,Ada,ten,red'],
    ]
    assert witness.count() == count - 1
    assert witness.query("SELECT COUNT(*) FROM heroes WHERE id = 500") == [(0,)]


def bad_rows(good: int, bad: int) -> str:
    return lines(1, good) + "bad\n" * bad


@pytest.mark.parametrize(
    ("good", "bad", "percent", "status"),
    [
        (18, 2, None, "loaded"),
        (17, 3, None, "refused"),
        (16, 3, None, "loaded"),
        (0, 19, None, "refused"),
        (1, 18, None, "loaded"),
        (1, 19, "95", "loaded"),
        (0, 20, "99", "refused"),
        (0, 20, "100", "refused"),
        (0, BIG, "100", "refused"),
        (199, 1, "0", "refused"),
        (BIG, BIG // 8, None, "refused"),
    ],
)
def test_a_file_with_too_large_a_share_of_refused_rows_is_not_loaded(
    service: InProcess,
    configure: Configure,
    bucket: UploadBucket,
    witness: Witness,
    good: int,
    bad: int,
    percent: str | None,
    status: str,
) -> None:
    configure(INGEST_MAX_REJECTED=percent)

    summary = loaded(bucket, bad_rows(good, bad))

    assert (summary["status"], summary["refused"]) == (status, bad)
    assert witness.count() == summary["rows"] == (good if status == "loaded" else 0)
    assert (bucket.rejected(KEY) or "").count("\n") == bad + 1
    assert bool(summary["reason"]) == (status == "refused")
    assert ("got 1" in summary["reason"]) == (status == "refused")
    assert ("INGEST_MAX_REJECTED" in summary["reason"]) == (status == "refused" and good > 0)
    assert bucket.summary(KEY) == summary


@pytest.mark.parametrize("engine", ["small", "mysql", "aurora"])
@pytest.mark.parametrize(("swallowed", "status"), [(99, "loaded"), (100, "refused")])
def test_a_refused_row_of_many_lines_counts_as_so_many_rows(
    service: InProcess,
    configure: Configure,
    bucket: UploadBucket,
    monkeypatch: pytest.MonkeyPatch,
    engine: str,
    swallowed: int,
    status: str,
) -> None:
    if engine != "small":
        configure(INGEST_ENGINE=engine)
        monkeypatch.setattr(ingest_service, "MAX_SMALL_BYTES", 0)
    last = f'{swallowed},Nova",light,Ada,1\n'
    stray = '1,"' + lines(2, swallowed - 1) + last
    assert stray.count("\n") == swallowed

    with emulated_load_from_s3():
        summary = loaded(bucket, lines(1000, 899) + stray)

    assert (summary["status"], summary["refused"]) == (status, 1)
    words = f"{swallowed} of {899 + swallowed} rows are rejected (one of many lines"
    assert (words in summary["reason"]) == (status == "refused")


def test_a_file_that_can_never_be_loaded_is_recorded_and_not_tried_again(
    service: InProcess, bucket: UploadBucket, witness: Witness
) -> None:
    event = bucket.put(KEY, "id,hero,power,name,xp,colour\n" + lines(1, 2))

    [summary] = entry_points.ingest(event)

    assert (summary["status"], summary["rows"]) == ("refused", 0)
    assert "no column is called 'colour'" in summary["reason"]
    assert [again["reason"] for again in entry_points.ingest(event)] == [summary["reason"]]
    [(status, reason)] = witness.query(
        "SELECT status, reason FROM ingest_log WHERE bucket = %s", [bucket.name]
    )
    assert (status, reason) == ("refused", summary["reason"])
    assert bucket.rejected(KEY) is None


@pytest.mark.parametrize("count", [100, BIG], ids=["small", "big"])
def test_a_file_that_turns_out_bad_at_its_end_has_changed_nothing(
    service: InProcess, bucket: UploadBucket, witness: Witness, count: int
) -> None:
    before = witness.state()

    summary = loaded(bucket, lines(1, count).encode() + b"9,Zo\xeb,light,Ada,1,red\n")

    assert summary["status"] == "refused"
    assert f"not UTF-8 in line {count + 1}:" in summary["reason"]
    assert witness.state() == before


NOTHING_LOADED = {
    "empty": ("", "no row: the file is empty"),
    "blank lines": ("\n \n", "no row: the file is empty, or all its lines are blank"),
    "only a header": ("id,hero,power,name,xp,color\n\n", "no row: there is a header and nothing"),
    "only bad rows": (
        "a,b,c\n1,2,3\n",
        "every row is rejected (2), nothing is loaded; line 1: expected 5 or 6 values, got 3",
    ),
    "a bad value": (
        "\n1,a,b,c,ten,d\n",
        "every row is rejected (1), nothing is loaded; line 2, xp: expected an integer, got 'ten'",
    ),
}


@pytest.mark.parametrize(
    "max_small_bytes", [0, ingest_service.MAX_SMALL_BYTES], ids=["big", "small"]
)
@pytest.mark.parametrize("name", NOTHING_LOADED)
def test_a_file_of_which_nothing_is_loaded_is_refused_once_and_says_why(
    service: InProcess,
    bucket: UploadBucket,
    witness: Witness,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    max_small_bytes: int,
) -> None:
    monkeypatch.setattr(ingest_service, "MAX_SMALL_BYTES", max_small_bytes)
    content, reason = NOTHING_LOADED[name]
    event, before = bucket.put(KEY, content), witness.state()

    [summary] = entry_points.ingest(event)
    [again] = entry_points.ingest(event)

    assert (summary["status"], summary["rows"], summary["first_rows"]) == ("refused", 0, [])
    assert reason in summary["reason"]
    assert {**again, "seconds": 0} == {**summary, "seconds": 0}
    assert (bucket.rejected(KEY) or "").count("\n") == (summary["refused"] or -1) + 1
    assert witness.state() == before
    assert bucket.summary(KEY) == again


def test_folders_and_other_events_are_skipped(
    service: InProcess, bucket: UploadBucket, witness: Witness, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "herocache.ingest")
    removed = bucket.put(KEY, lines(1, 2))
    removed["Records"][0]["eventName"] = "ObjectRemoved:Delete"

    summaries = entry_points.ingest(together(bucket.put("incoming/heroes/", ""), removed))

    assert [s["status"] for s in summaries] == ["skipped"]
    assert bucket.keys() == {"incoming/heroes/", KEY}
    assert witness.count() == 0
    assert [
        json.loads(record.message)["key"]
        for record in caplog.records
        if record.name == "herocache.ingest"
    ] == ["incoming/heroes/"]


def test_the_version_that_the_event_names_is_the_one_that_is_read(
    service: InProcess, bucket: UploadBucket, witness: Witness
) -> None:
    first = bucket.put(KEY, lines(1, 2, hero="First"))
    bucket.put(KEY, lines(1, 2, hero="Second"))

    entry_points.ingest(first)

    assert [row[1] for row in stored(witness)] == ["First", "First"]


def test_without_versions_an_upload_that_was_overwritten_is_left_to_the_later_event(
    service: InProcess, s3_port: int, bucket: UploadBucket, witness: Witness
) -> None:
    plain = UploadBucket(s3_port, is_versioned=False)
    first = plain.put(KEY, lines(1, 2, hero="First"))
    second = plain.put(KEY, lines(1, 2, hero="Second"))

    [skipped] = entry_points.ingest(first)
    [summary] = entry_points.ingest(second)

    assert (skipped["status"], skipped["reason"]) == ("skipped", "deleted or overwritten since")
    assert (summary["status"], summary["version"]) == ("loaded", "")
    assert [row[1] for row in stored(witness)] == ["Second", "Second"]


@pytest.mark.parametrize(
    ("engine", "small_bytes"),
    [("mysql", ingest_service.MAX_SMALL_BYTES), ("mysql", 0), ("aurora", 0)],
    ids=["small", "big", "aurora"],
)
def test_without_versions_an_upload_that_is_overwritten_at_any_step_is_loaded_as_it_was_or_skipped(
    service: InProcess,
    configure: Configure,
    s3_port: int,
    bucket: UploadBucket,
    witness: Witness,
    monkeypatch: pytest.MonkeyPatch,
    engine: str,
    small_bytes: int,
) -> None:
    configure(INGEST_ENGINE=engine)
    monkeypatch.setattr(ingest_service, "MAX_SMALL_BYTES", small_bytes)
    plain = UploadBucket(s3_port, is_versioned=False)
    call = Bucket._call
    left = step = 0

    def overwritten_before(self: Bucket, *arguments: Any, **named: Any) -> Any:
        nonlocal left
        left -= 1
        if left == 0:
            plain.put(KEY, lines(1, 2, hero=f"Later {step}"))
        return call(self, *arguments, **named)

    monkeypatch.setattr(Bucket, "_call", overwritten_before)
    statuses = []
    while left <= 0:
        step = left = step + 1
        before = [row[1] for row in stored(witness)]
        with emulated_load_from_s3():
            [summary] = entry_points.ingest(plain.put(KEY, lines(1, 2, hero=f"First {step}")))
        own = [f"First {step}"] * 2 if summary["status"] == "loaded" else before
        assert [row[1] for row in stored(witness)] == own
        statuses.append(summary["status"])
    assert {*statuses} == {"skipped", "loaded"}


def test_an_event_that_tells_no_version_and_no_sequencer_is_handled(
    service: InProcess, bucket: UploadBucket, witness: Witness
) -> None:
    event = without(bucket.put(KEY, lines(1, 2)), "versionId", "sequencer")

    first, second = entry_points.ingest(event), entry_points.ingest(event)

    assert [(s["status"], s["rows"]) for s in (*first, *second)] == [("loaded", 2)] * 2
    assert witness.count() == 2


def test_one_bad_record_of_an_event_does_not_keep_the_others_from_being_loaded(
    service: InProcess, bucket: UploadBucket, witness: Witness
) -> None:
    event = together(
        bucket.put("incoming/none/a.csv", "x"),
        bucket.put("incoming/heroes/b.csv", lines(1, 2)),
        bucket.put("incoming/heroes/c.csv", gzip.compress(lines(3, 2).encode())),
    )

    assert [s["status"] for s in entry_points.ingest(event)] == ["refused", "loaded", "loaded"]
    assert witness.count() == 4


def test_counts_go_to_the_log_as_metrics(
    service: InProcess, bucket: UploadBucket, capsys: pytest.CaptureFixture[str]
) -> None:
    loaded(bucket, lines(1, 3) + "bad\n")

    [line] = [text for text in capsys.readouterr().out.splitlines() if "_aws" in text]
    metrics = json.loads(line)
    [directive] = metrics["_aws"]["CloudWatchMetrics"]
    names = [metric["Name"] for metric in directive["Metrics"]]
    assert (metrics["IngestedRows"], metrics["RefusedRows"]) == (3, 1)
    assert all(name in metrics for name in (*names, *directive["Dimensions"][0]))


@pytest.mark.parametrize("count", [25, BIG], ids=["small", "big"])
def test_a_cached_read_right_after_the_ingest_sees_the_new_rows(
    service: InProcess, bucket: UploadBucket, count: int
) -> None:
    loaded(bucket, lines(1, count, hero="Old"), "incoming/old.csv")
    for by, values in (("id", [1, 2]), ("xp", [1, 2])):
        assert [row["hero"] for row in service.read(values, BY=by).rows] == ["Old", "Old"]

    loaded(bucket, lines(1, count, hero="New"), "incoming/new.csv")

    for by, values in (("id", [1, 2]), ("xp", [1, 2])):
        assert [row["hero"] for row in service.read(values, BY=by).rows] == ["New", "New"]


@pytest.mark.usefixtures("lasting_generations")
def test_a_small_file_leaves_the_rest_of_a_warm_cache_alone(
    service: InProcess, bucket: UploadBucket, witness: Witness
) -> None:
    loaded(bucket, lines(1, 100))
    service.read(list(range(1, 101)))
    generation = witness.generation()

    loaded(bucket, lines(1, 25, hero="New"), "incoming/few.csv")

    assert witness.generation() == generation
    with witness.spent() as spent:
        heroes = [row["hero"] for row in service.read(list(range(1, 101))).rows]
    assert heroes == ["New"] * 25 + ["Nova"] * 75
    assert spent.statements == 0


def test_a_big_file_raises_the_generation_once(
    service: InProcess, bucket: UploadBucket, witness: Witness
) -> None:
    number, _, server = witness.generation()

    loaded(bucket, lines(1, BIG))

    assert witness.generation() == (number + 1, True, server)


def test_a_small_file_of_many_rows_is_loaded_too(
    service: InProcess, bucket: UploadBucket, witness: Witness
) -> None:
    count = 3 * ingest_service.MAX_SMALL_ROWS
    content = gzip.compress("".join(f"{i},,,,1,\n" for i in range(1, count + 1)).encode())
    assert len(content) < ingest_service.MAX_SMALL_BYTES

    assert loaded(bucket, content)["rows"] == witness.count() == count


@pytest.fixture
def small_packets(witness: Witness) -> Iterator[int]:
    """The longest statement that the server takes: MariaDB's default. MySQL takes more."""
    small = 16 * 2**20
    with witness.server_has("max_allowed_packet", small):
        yield small


def test_a_small_file_of_long_rows_is_loaded_too(
    service: InProcess, bucket: UploadBucket, witness: Witness, small_packets: int
) -> None:
    """Written as one statement they would be more than a server takes."""
    text = "😀" * 255
    count = ingest_service.MAX_SMALL_ROWS
    content = "".join(f"{i},{text},{text},{text},1,{text}\n" for i in range(1, count + 1)).encode()
    zipped = gzip.compress(content)
    assert len(zipped) < ingest_service.MAX_SMALL_BYTES
    assert len(content) > small_packets

    assert loaded(bucket, zipped)["rows"] == witness.count() == count


def test_every_column_of_a_declared_table_can_be_loaded(
    service: InProcess, bucket: UploadBucket
) -> None:
    names = [column.name for column in HEROES.columns]
    loaded(bucket, ",".join(reversed(names)) + "\nred,10,Ada,light,Nova,3\n")

    assert service.read([3]).rows == [
        {"id": 3, "hero": "Nova", "power": "light", "name": "Ada", "xp": 10, "color": "red"}
    ]
