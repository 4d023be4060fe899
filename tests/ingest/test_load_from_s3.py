"""The engine `aurora` loads and rejects the same rows of every file as the engine `mysql`."""

import codecs
import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chalicelib import services
from chalicelib.db import Database, Transaction
from chalicelib.errors import ConfigurationError, FileRejected
from chalicelib.handlers import entry_points
from chalicelib.ingest import load_from_s3
from chalicelib.ingest import service as ingest_service
from chalicelib.ingest.bucket import CHUNK_BYTES
from chalicelib.ingest.csv_bytes import MAX_LINE_BYTES, UTF_16
from chalicelib.ingest.csv_dialect import DELIMITERS, named_columns
from chalicelib.ingest.csv_rows import FIRST_ROWS, Rejected
from chalicelib.ingest.events import Upload, uploads_in
from chalicelib.ingest.load_from_s3 import NotStageable, StagedRows
from chalicelib.tables import EMPLOYEES, HEROES, PRODUCTS, Column, Table
from tests.conftest import Configure
from tests.ingest.test_csv_rows import (
    ADA_LINE,
    BO_LINE,
    FORMATS,
    NAMES,
    REFUSED_FILES,
    REFUSED_ROWS,
)
from tests.support.aurora import emulated_load_from_s3
from tests.support.bucket import UploadBucket, lines
from tests.support.client import InProcess
from tests.support.witness import Witness

# It takes three quarters of a minute, and only those who choose the engine `aurora` need it.
pytestmark = pytest.mark.proof

KEY = "incoming/some.csv"
ON_SERVERS = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


class Made(NamedTuple):
    """Of one file: the counts, the first rows, the table, what is told of refused rows; or why
    nothing is."""

    rows: int = 0
    rejected: int = 0
    first_rows: Sequence[tuple[Any, ...]] = ()
    stored: Sequence[tuple[Any, ...]] = ()
    told: Sequence[Rejected] = ()
    reason: str = ""


class Undo(Exception):
    pass


class Loads:
    """What an engine makes of a file, in a transaction that is undone."""

    def __init__(self, bucket: UploadBucket) -> None:
        self._bucket = bucket
        self._database = Database(services.container().settings, for_loads=True)
        self._uploads: dict[str | bytes, Upload] = {}

    def staged(
        self, content: str | bytes, table: Table = HEROES, order: Sequence[Column] = ()
    ) -> Made:
        with emulated_load_from_s3():
            return self.made(content, table, order, load_from_s3.load_staged)

    def streamed(
        self, content: str | bytes, table: Table = HEROES, order: Sequence[Column] = ()
    ) -> Made:
        return self.made(content, table, order, ingest_service._load_streamed)

    def made(
        self, content: str | bytes, table: Table, order: Sequence[Column], load: ingest_service.Load
    ) -> Made:
        upload = self._uploaded(content)
        made = Made()

        def work(transaction: Transaction) -> None:
            nonlocal made
            told: list[Rejected] = []
            rows, rejected, _, objects = load(transaction, upload, table, order, told.append)
            [answer] = transaction.run((f"SELECT * FROM {table.name} ORDER BY 1", ()))
            told = [replace(row, original=row.original.rstrip("\r\n")) for row in told]
            first_rows = [tuple(each.values()) for each in objects]
            assert all(row in answer for row in first_rows)
            first_key = answer[0][0] if answer else 0
            made = Made(
                rows,
                rejected,
                _from_first_key(first_rows, table, first_key),
                _from_first_key(answer, table, first_key),
                told,
            )
            raise Undo

        try:
            self._database.transact(work)
        except Undo:
            pass
        except FileRejected as error:
            made = Made(reason=str(error))
        return made

    def _uploaded(self, content: str | bytes) -> Upload:
        """The same upload for both engines."""
        if content not in self._uploads:
            [self._uploads[content]] = uploads_in(self._bucket.put(KEY, content))
        return self._uploads[content]


def _from_first_key(
    rows: Sequence[tuple[Any, ...]], table: Table, first_key: Any
) -> list[tuple[Any, ...]]:
    """Keys that the database gives go on where the engine before ended."""
    if not table.auto_key:
        return list(rows)
    return [(row[0] - first_key + 1, *row[1:]) for row in rows]


@pytest.fixture
def loads(service: InProcess, bucket: UploadBucket) -> Loads:
    return Loads(bucket)


NOT_STAGEABLE = ("gzip", "two gzip", "every line end", "UTF-16")


@pytest.mark.parametrize("name", FORMATS)
def test_a_file_as_people_write_it_makes_the_same_rows(loads: Loads, name: str) -> None:
    content, rows = FORMATS[name]
    if name.startswith(NOT_STAGEABLE):
        with pytest.raises(NotStageable):
            loads.staged(content)
        return

    made = loads.staged(content)

    assert made == loads.streamed(content)
    assert (made.rows, made.rejected) == (len(rows), 0)
    assert len(made.first_rows) == min(len(rows), FIRST_ROWS)
    assert [[str(value) for value in row][-len(rows[0]) :] for row in made.stored] == rows or (
        not rows
    )


SHORTER = {"a row of 10 MB in many lines": b'1,"' + (b"a" * 10_000 + b'\n","') * 300}


@pytest.mark.parametrize("name", REFUSED_FILES)
def test_a_file_that_can_never_be_loaded_is_refused_for_the_same_reason(
    loads: Loads, name: str
) -> None:
    content = SHORTER.get(name) or REFUSED_FILES[name][0]
    if "gzip" in name or content.startswith(UTF_16):
        with pytest.raises(NotStageable):
            loads.staged(content)
        return
    made = loads.staged(content)
    assert made.reason
    assert made == loads.streamed(content)


@pytest.mark.parametrize("name", REFUSED_ROWS)
def test_a_refused_row_is_told_in_the_same_words(loads: Loads, name: str) -> None:
    line, column, _ = REFUSED_ROWS[name]
    content = f"{NAMES}\n{lines(10, 500)}{line}\n{lines(600, 500)}"

    made = loads.staged(content)

    assert (made.rows, made.rejected, made.told[0].column) == (1000, 1, column)
    assert made == loads.streamed(content)


@pytest.mark.parametrize("bad", [b"Zo\xeb", b"\xed\xa0\x80", b"\xff", b"\xf4\x90\x80\x80"])
def test_a_line_that_is_not_utf8_far_behind_the_first_ones_is_named(
    loads: Loads, bad: bytes
) -> None:
    before = lines(1, 10_000)
    assert len(before) > CHUNK_BYTES

    made = loads.staged(before.encode() + b"10001," + bad + b",light,Ada,1,red\n")

    assert made.reason == "not UTF-8 in line 10001: save it as UTF-8"


@pytest.mark.parametrize("stray", ['3,"Nova', '3,a,"b', '3,"a\nb","c'])
def test_a_quote_that_never_ends_is_named_far_behind_the_first_lines(
    loads: Loads, stray: str
) -> None:
    line = 3000 + stray.count("\n") + 1
    content = f"{lines(1, 3000)}{stray},light,Ada,1,red\n{lines(3002, 5000)}"

    made = loads.staged(content)

    assert made.reason.startswith(
        f"line {line}: a quoted value begins here and does not end within"
    )
    assert made == loads.streamed(content)


def test_a_line_too_long_far_behind_the_first_ones_is_refused(loads: Loads) -> None:
    content = lines(1, 10_000) + "x" * (MAX_LINE_BYTES + 1) + "\n"

    made = loads.staged(content)

    assert made.reason.startswith(f"a line of more than {MAX_LINE_BYTES} bytes")
    assert made == loads.streamed(content)


def test_the_largest_and_the_smallest_integers_are_rows(loads: Loads, witness: Witness) -> None:
    """The largest id is that of a row that exists."""
    witness.query("INSERT INTO heroes VALUES (4294967295, '', '', '', 1, '')")
    content = "1,,,,2147483647,\n4294967295,,,,-2147483648,\n4294967296,,,,1,\n2,,,,2147483648,\n"

    made = loads.staged(content)

    (first, last) = made.stored
    assert (first[0], first[4]) == (1, 2**31 - 1)
    assert (last[0], last[4]) == (2**32 - 1, -(2**31))
    assert made == loads.streamed(content)


ODD_LINES = [
    *(line for line, _, _ in REFUSED_ROWS.values()),
    '1,"opens',
    'closes",light,Ada,10,red',
    '2,"a",b",light,Ada,10,red',
    '3,"doub""led","x,y",Ada,"7",red',
    '"4","Nova","light","Ada","-10","red"',
    "4,,,,-2147483648,",
    "4294967296,,,,1,",
    "5,,,,-2147483649,",
    "6,,,,-0,",
    "7,,,,+1,",
    f"8,{'光' * 255},{'😀' * 255},{'ñ' * 255},1,\u2028",
    f"9,{'😀' * 256},a,b,1,c",
    f'9,"{"x" * 256}",a,b,1,c',
    "9,\ud7a3한글,a,b,1,c",
    '"',
    '""',
    " ",
    "",
    "\ufeff11,a,b,c,1,d",
    "12,a\\,b\\n,c,1,NULL",
    "13,a,b,c,1,d,",
    "14,a,b,c,1,d, ,",
    "15,a,b,c,1,d,x",
    "16;a;b;c;1;d",
    "17\ta\tb\tc\t1\td",
    "2,later,wins,c,1,d",
    "18|a,b|c|d|1|e",
    '19|"a|b"|c|d|"1"|e',
    "a,b,c,1,d",
    "sep=;",
]
ODD_HEADERS = [
    *("", NAMES, NAMES + ",", "hero,power,name,xp,color", NAMES.replace(",", ";")),
    *("sep=,", "sep=|", f"sep=;\n{NAMES}".replace(",", ";"), NAMES.replace(",", "|")),
]
ODD_FILES = st.tuples(
    st.sampled_from(ODD_HEADERS),
    st.lists(st.one_of(st.sampled_from(ODD_LINES), st.text(max_size=12)), min_size=1, max_size=12),
    st.sampled_from(["\n", "\r\n", "\r"]),
    st.booleans(),
)


@pytest.mark.parametrize("block_lines", [2, pytest.param(1000, marks=pytest.mark.proof)])
@settings(ON_SERVERS, max_examples=50)
@given(file=ODD_FILES)
def test_files_of_any_lines_make_the_same_rows_and_the_same_report(
    loads: Loads, block_lines: int, file: tuple[str, Sequence[str], str, bool]
) -> None:
    header, of_file, line_end, has_mark = file
    text = line_end.join([*([header] if header else []), *of_file])
    content = codecs.BOM_UTF8 * has_mark + text.encode(errors="replace")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(load_from_s3, "BLOCK_LINES", block_lines)
        try:
            made = loads.staged(content)
        except NotStageable:
            return
    assert made == loads.streamed(content)


@pytest.mark.parametrize(
    "table",
    [HEROES, pytest.param(PRODUCTS, marks=pytest.mark.proof), EMPLOYEES],
    ids=["heroes", "products", "employees"],
)
@settings(ON_SERVERS, max_examples=25)
@given(data=st.data())
def test_rows_of_every_table_make_the_same_rows(
    loads: Loads, table: Table, data: st.DataObject
) -> None:
    text = st.one_of(st.text(max_size=8), st.integers().map(str), st.sampled_from(["a ", " a", ""]))
    rows = data.draw(st.lists(st.lists(text, min_size=2, max_size=6), min_size=1, max_size=20))
    kind: Any = data.draw(st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]))
    file = io.StringIO()
    delimiter = data.draw(st.sampled_from(DELIMITERS))
    csv.writer(file, delimiter=delimiter, quoting=kind, lineterminator="\n").writerows(rows)
    content = file.getvalue().encode(errors="replace")

    try:
        made = loads.staged(content, table)
    except NotStageable:
        return
    assert made == loads.streamed(content, table)


def test_the_declared_order_holds_for_a_file_without_a_header(loads: Loads) -> None:
    order = named_columns(HEROES, ["id", "name", "hero", "power", "xp", "color"])
    content = "1,Ada,Nova,light,10,red\n2,Bo,Onyx,frost,ten,blue\n"

    made = loads.staged(content, order=order)

    assert made.stored == made.first_rows == [(1, "Nova", "light", "Ada", 10, "red")]
    assert made == loads.streamed(content, order=order)


def test_a_key_of_text_holds_no_delimiter(loads: Loads) -> None:
    content = "sep=|\na;b|Ann\na|b|c\nE,1|Bo\n"

    made = loads.staged(content, EMPLOYEES)

    assert made.stored == [("E,1", "Bo"), ("a;b", "Ann")]
    assert made == loads.streamed(content, EMPLOYEES)


# --- through the function -------------------------------------------------------------------------


@pytest.fixture
def aurora(
    service: InProcess, configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> Iterator[list[str]]:
    """The engine for files of any size; what the database reads itself."""
    configure(INGEST_ENGINE="aurora")
    monkeypatch.setattr(ingest_service, "MAX_SMALL_BYTES", 0)
    with emulated_load_from_s3() as loaded:
        yield loaded


def test_an_upload_becomes_rows_a_report_and_an_outcome(
    aurora: list[str], service: InProcess, bucket: UploadBucket, witness: Witness
) -> None:
    number, _, server = witness.generation()
    event = bucket.put(KEY, lines(1, 30) + "31,too,few\n" + '32,"in\nquotes",a,b,1,c\n')

    [summary] = entry_points.ingest(event)
    [again] = entry_points.ingest(event)

    assert aurora == [f"s3://{bucket.name}/{KEY}"]
    assert (summary["status"], summary["rows"], summary["refused"]) == ("loaded", 31, 1)
    assert {**again, "seconds": 0} == {**summary, "seconds": 0}
    assert witness.count() == 31
    assert witness.generation() == (number + 2, True, server), "each delivery makes it visible"
    assert service.read([32]).rows[0]["hero"] == "in\nquotes"
    assert (bucket.rejected(KEY) or "").splitlines()[1:] == [
        '31,,"expected 6 values as in line 1, got 3","31,too,few"'
    ]


def test_lines_that_are_rows_beyond_doubt_stay_in_the_database(
    aurora: list[str], bucket: UploadBucket, witness: Witness, monkeypatch: pytest.MonkeyPatch
) -> None:
    settle, settled = StagedRows._settle, list[int]()

    def watched(self: StagedRows, n: int, block: Mapping[int, bytes]) -> Any:
        settled.append(n)
        return settle(self, n, block)

    monkeypatch.setattr(StagedRows, "_settle", watched)
    plain = [ADA_LINE, BO_LINE, '"3","all","in","quotes","-1","光😀"', "4,,\\N,NULL,0, "]

    [summary] = entry_points.ingest(bucket.put(KEY, "\r\n".join([NAMES, *plain, '5,"",,,1,"a,b"'])))

    assert summary["rows"] == witness.count() == 5
    assert settled == [5]


@pytest.mark.parametrize("name", ["gzip", "every line end at once"])
def test_what_the_database_would_read_otherwise_comes_the_other_way(
    aurora: list[str],
    bucket: UploadBucket,
    witness: Witness,
    caplog: pytest.LogCaptureFixture,
    name: str,
) -> None:
    with caplog.at_level("INFO", "herocache.ingest"):
        [summary] = entry_points.ingest(bucket.put(KEY, FORMATS[name][0]))

    assert summary["rows"] == witness.count() == 2
    assert "not read by the database" in caplog.text


@pytest.mark.parametrize("is_late", [False, True])
def test_the_version_of_the_event_is_loaded_though_the_database_would_read_another(
    aurora: list[str],
    bucket: UploadBucket,
    witness: Witness,
    monkeypatch: pytest.MonkeyPatch,
    is_late: bool,
) -> None:
    event = bucket.put(KEY, lines(1, 2, hero="First"))
    load = StagedRows._load_from_s3

    def overwritten(self: StagedRows) -> None:
        if is_late:
            load(self)
        bucket.put(KEY, lines(1, 2, hero="Second"))
        if not is_late:
            load(self)

    monkeypatch.setattr(StagedRows, "_load_from_s3", overwritten)

    entry_points.ingest(event)

    assert len(aurora) == 1
    assert {row[1] for row in witness.query("SELECT * FROM heroes")} == {"First"}


def test_an_upload_overwritten_before_is_not_read_by_the_database(
    aurora: list[str], bucket: UploadBucket, witness: Witness
) -> None:
    event = bucket.put(KEY, lines(1, 2, hero="First"))
    bucket.put(KEY, lines(1, 2, hero="Second"))

    entry_points.ingest(event)

    assert aurora == []
    assert {row[1] for row in witness.query("SELECT * FROM heroes")} == {"First"}


def test_a_database_that_is_not_aurora_is_told_of_and_nothing_is_loaded(
    service: InProcess,
    configure: Configure,
    bucket: UploadBucket,
    witness: Witness,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    configure(INGEST_ENGINE="aurora")
    monkeypatch.setattr(ingest_service, "MAX_SMALL_BYTES", 0)
    before = witness.state()

    with pytest.raises(ConfigurationError, match="INGEST_ENGINE=aurora: the database"):
        entry_points.ingest(bucket.put(KEY, lines(1, 3)))

    assert witness.state() == before
    assert bucket.keys() == {KEY}
