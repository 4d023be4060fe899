"""What somebody who may upload files, or call the function `ingest`, cannot do with them."""

import csv
import gzip
import io
import json
import logging
import re
from urllib.parse import quote_plus

import pytest

from app import app
from chalicelib import errors
from chalicelib.errors import BadRequest, BucketUnavailable, FileRejected, HerocacheError
from chalicelib.handlers import entry_points
from chalicelib.ingest.bucket import Bucket
from chalicelib.ingest.csv_bytes import text_bytes
from local.lambda_function.upload_outcome import Outcome
from local.terminal import say
from tests.conftest import Configure
from tests.support.bucket import UploadBucket, lines, owned_by
from tests.support.client import InProcess
from tests.support.witness import Witness

KEY = "incoming/heroes/a.csv"
# What it would say in a log of Lambda, or do to a terminal.
FORGED = (
    '{"_aws": {"CloudWatchMetrics": []}, "RowsLoaded": 1000000}',
    "[ERROR] the database is gone",
    "\x1b[2J\x1b[1;1H",
)


def in_one_line(text: str) -> bool:
    return len(text.splitlines()) == 1 and text.strip("\n").isprintable()


# --- logs and terminals ---------------------------------------------------------------------------


@pytest.mark.parametrize("text", FORGED)
@pytest.mark.parametrize("end", ["\n", "\r", "\u2028", "\x85"], ids=ascii)
def test_an_object_key_cannot_forge_a_line_of_the_log(
    service: InProcess,
    configure: Configure,
    bucket: UploadBucket,
    caplog: pytest.LogCaptureFixture,
    text: str,
    end: str,
) -> None:
    caplog.set_level(logging.INFO, "herocache")
    key = f"incoming/heroes/a{end}{text}{end}.csv"
    small = gzip.compress(lines(1, 6_000).encode())  # more is in it than its size tells
    event = bucket.put(KEY, small)
    event["Records"][0]["s3"]["object"]["key"] = quote_plus(key)
    if end != "\n":  # moto has no such objects
        assert entry_points.ingest(bucket.put(key, small))[0]["status"] == "loaded"
    configure(DB_HOST="no-such-host.invalid")
    with pytest.raises(HerocacheError) as raised:
        entry_points.ingest(event)

    logged = [each.getMessage() for each in caplog.records if each.name.startswith("herocache")]
    assert logged
    assert all(in_one_line(text) for text in logged)
    assert in_one_line(str(raised.value)), "Lambda logs it too"


def test_a_folder_in_an_object_key_cannot_forge_one_either(
    service: InProcess, bucket: UploadBucket
) -> None:
    [summary] = entry_points.ingest(bucket.put("incoming/x\r[ERROR] forged/a.csv", "1"))
    assert summary["status"] == "refused"
    assert in_one_line(summary["reason"])


@pytest.mark.parametrize("text", FORGED)
def test_an_object_key_cannot_write_to_the_terminal(
    capsys: pytest.CaptureFixture[str], text: str
) -> None:
    key = f"a\n{text}.csv"
    for outcome in (Outcome(key, "", 3, error=f"{key} failed"), Outcome(key, "", 1)):
        say("ingest", outcome.in_words())
    first, second = capsys.readouterr().out.splitlines()
    assert first.isprintable()
    assert second.isprintable()


def test_what_can_be_read_stays_as_it_is() -> None:
    for text in ("Señor Trueno 🌠 日本", "a\\nb", ""):
        assert errors.one_line(text) == text
    assert errors.one_line("a\nb\t\x00é\u202e") == "a\\nb\\t\\x00é\\u202e"


# --- reports --------------------------------------------------------------------------------------


@pytest.mark.parametrize("begin", ["=", "+", "-", "@", "\t", "\r", "＝"], ids=ascii)
def test_a_report_opens_no_formula_in_a_spreadsheet(
    service: InProcess, bucket: UploadBucket, begin: str
) -> None:
    formula = f'{begin}HYPERLINK("https://evil.example","see")'
    quoted = '"' + formula.replace('"', '""') + '"'
    content = lines(1, 2) + f"{quoted},a,b,c,5,d\n" + f"{begin}cmd|calc,a,b,c,ten,d\n"
    entry_points.ingest(bucket.put(KEY, content))

    report = bucket.rejected(KEY)
    assert report is not None
    cells = [cell for row in csv.reader(io.StringIO(report, newline="")) for cell in row]
    assert any("cmd|calc" in cell for cell in cells), "it still shows what was sent"
    assert not any(cell.startswith(tuple("=+-@\t\r\n＝")) for cell in cells)


@pytest.mark.parametrize("delimiter", [";", "\t", "|"], ids=ascii)
@pytest.mark.parametrize("gap", ["", " ", '"', "\n"], ids=ascii)
def test_a_report_opens_no_formula_where_cells_end_with_another_character(
    service: InProcess, bucket: UploadBucket, delimiter: str, gap: str
) -> None:
    """A spreadsheet expects semicolons where the comma is for decimals. Quotes that do not begin a
    cell protect nothing there, so a line ends a cell too."""
    value = f"x{delimiter}{gap}=cmd|calc".replace('"', '""')
    entry_points.ingest(bucket.put(KEY, lines(1, 2) + f'3,"{value}",b,c,ten,d\n'))

    report = bucket.rejected(KEY)
    assert report is not None
    cells = re.split(f"[{delimiter}\r\n]", report)
    assert any("=cmd|calc" in cell or "=cmd" in cell for cell in cells), "it shows what was sent"
    assert not any(cell.strip('" ').startswith(tuple("=+-@\t＝")) for cell in cells)


def test_the_words_of_an_error_cannot_forge_a_line_of_the_log(
    service: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its traceback shows them."""

    def bug(payload: object, *_: object) -> None:
        try:
            raise LookupError(f"{payload}")
        except LookupError as error:
            raise ValueError("a\nb") from error

    written = io.StringIO()
    [handler] = [each for each in app.log.handlers if type(each) is logging.StreamHandler]
    monkeypatch.setattr(handler, "stream", written)
    monkeypatch.setattr("chalicelib.handlers.validation.parse", bug)
    payload = "".join(f"{end}{text}" for text in FORGED for end in ("\n", "\r\n", "\u2028"))

    assert entry_points.invoke(payload)["statusCode"] == 500

    first, *others = written.getvalue().rstrip("\n").split("\n")
    assert first == "herocache - ERROR - a request failed on a bug"
    assert any("LookupError" in line for line in others), "the reason can still be read"
    assert all(line.startswith("  | ") and line.isprintable() for line in others)


# --- events ---------------------------------------------------------------------------------------


def test_an_event_of_another_bucket_is_refused(
    service: InProcess, configure: Configure, bucket: UploadBucket, s3_port: int, witness: Witness
) -> None:
    """Whoever may call the function could have rows of a bucket of their own loaded."""
    other = UploadBucket(s3_port)
    configure(UPLOAD_BUCKET=bucket.name)
    with pytest.raises(BadRequest, match=f"the bucket '{other.name}' is not the one"):
        entry_points.ingest(other.put(KEY, lines(1, 2)))

    assert witness.count() == 0
    assert other.keys() == {KEY}, "nothing was written to it"
    assert entry_points.ingest(bucket.put(KEY, lines(1, 2)))[0]["status"] == "loaded"


def test_a_bucket_of_another_account_is_neither_read_nor_written(
    service: InProcess, configure: Configure, bucket: UploadBucket, witness: Witness
) -> None:
    """Somebody may take the name of a bucket that was deleted. Every call names the owner."""
    content = lines(1, 20) + "x,y\n"  # a report is written too
    ours = bucket.put("incoming/heroes/ours.csv", content)
    with owned_by("111122223333") as expected:
        configure(BUCKET_OWNER="111122223333")
        assert entry_points.ingest(ours)[0]["refused"] == 1
        assert set(expected) == {"111122223333"}
        before = witness.query("SELECT COUNT(*) FROM ingest_log"), bucket.keys()

        configure(BUCKET_OWNER="444455556666")
        event = bucket.put(KEY, content)
        with pytest.raises(BucketUnavailable, match=r"AccessDenied.* is BUCKET_OWNER its owner"):
            entry_points.ingest(event)

    assert (witness.query("SELECT COUNT(*) FROM ingest_log"), bucket.keys() - {KEY}) == before


@pytest.mark.parametrize("content", [lines(1, 2, hero="Real"), lines(1, 6_000, hero="Real")])
def test_a_forged_sequencer_keeps_no_later_upload_from_being_loaded(
    service: InProcess, bucket: UploadBucket, witness: Witness, content: str
) -> None:
    forged = bucket.put(KEY, lines(1, 2))
    forged["Records"][0]["s3"]["object"]["sequencer"] = "F" * 32
    entry_points.ingest(forged)

    [summary] = entry_points.ingest(bucket.put(KEY, content))

    assert summary["status"] == "loaded"
    assert witness.query("SELECT DISTINCT hero FROM heroes") == [("Real",)]


def test_an_event_that_comes_late_is_skipped_all_the_same(
    service: InProcess, bucket: UploadBucket, witness: Witness
) -> None:
    first, second = (bucket.put(KEY, lines(1, 2, hero=hero)) for hero in ("First", "Second"))
    entry_points.ingest(second)
    [summary] = entry_points.ingest(first)
    assert (summary["status"], summary["reason"]) == ("skipped", "a later upload is there already")
    assert witness.query("SELECT DISTINCT hero FROM heroes") == [("Second",)]


# --- sizes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("told", [None, 1])
def test_a_file_that_is_too_large_is_refused_before_it_is_read(
    service: InProcess,
    configure: Configure,
    bucket: UploadBucket,
    monkeypatch: pytest.MonkeyPatch,
    told: int | None,
) -> None:
    """Also where the event says that it is small."""
    configure(INGEST_MAX_BYTES="1000")
    monkeypatch.delattr(Bucket, "read")
    event = bucket.put(KEY, lines(1, 100))
    if told is not None:
        event["Records"][0]["s3"]["object"]["size"] = told

    [summary] = entry_points.ingest(event)

    assert summary["status"] == "refused"
    assert "at most 1000 (INGEST_MAX_BYTES)" in summary["reason"]
    assert json.loads(bucket.get(f"results/{KEY}.json") or "")["status"] == "refused"


def test_empty_gzip_files_count() -> None:
    """Each takes time, and no limit on the content would ever end that."""
    empty, full = gzip.compress(b""), gzip.compress(b"1,a,b,c,5,d\n")
    few = empty * 3 + full + empty
    assert b"".join(text_bytes(iter([few]))) == b"1,a,b,c,5,d\n"
    with pytest.raises(FileRejected, match="more than 1000 empty files"):
        list(text_bytes(iter([full + empty * (1_002) + full])))
