"""CSV as people write it, without a server: which rows are taken, and why the others are
rejected."""

import bz2
import codecs
import csv
import gzip
import io
import itertools
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.errors import FileRejected
from chalicelib.ingest.csv_dialect import DELIMITERS, named_columns
from chalicelib.ingest.csv_rows import BATCH_ROWS, CsvRows, Rejected
from chalicelib.tables import EMPLOYEES, HEROES, Column, Table

ADA = ["1", "Nova", "light", "Ada", "10", "red"]
BO = ["2", "Onyx", "frost", "Bo", "-20", "blue"]
BOTH = [ADA, BO]
KEYLESS = [ADA[1:], BO[1:]]
NAMES = "id,hero,power,name,xp,color"
QUOTED_NAMES = '"id","hero","power","name","xp","color"'
ADA_LINE, BO_LINE = ",".join(ADA), ",".join(BO)


def parsed(
    content: bytes, table: Table = HEROES, chunk_bytes: int = 7, order: Sequence[Column] = ()
) -> tuple[list[list[str]], list[Rejected], list[str]]:
    """Rows, refused rows, and the names of the columns that the rows have values for."""
    rejected: list[Rejected] = []
    chunks = (content[i : i + chunk_bytes] for i in range(0, len(content), chunk_bytes))
    rows = CsvRows(chunks, table, rejected.append, order)
    good = list(itertools.chain.from_iterable(rows.batches()))
    assert (rows.rows, rows.rejected) == (len(good), len(rejected))
    return [list(row) for row in good], rejected, [column.name for column in rows.columns]


FORMATS: dict[str, tuple[str | bytes, Sequence[Sequence[str]]]] = {
    "no header": (f"{ADA_LINE}\n{BO_LINE}\n", BOTH),
    "no line end at the end": (f"{ADA_LINE}\n{BO_LINE}", BOTH),
    "a header": (f"{NAMES}\n{ADA_LINE}\n{BO_LINE}\n", BOTH),
    "a header in other letters and with spaces": (
        f"ID, Hero ,POWER,Name,Xp,cOLOR\n{ADA_LINE}\n{BO_LINE}\n",
        BOTH,
    ),
    "no id column": ("Nova,light,Ada,10,red\nOnyx,frost,Bo,-20,blue\n", KEYLESS),
    "no id column, a header": (
        f"{NAMES[3:]}\nNova,light,Ada,10,red\nOnyx,frost,Bo,-20,blue\n",
        KEYLESS,
    ),
    "only a header": (f"{NAMES}\n", []),
    "blank lines before a header": (f"\n \r\n\n{NAMES}\n{ADA_LINE}\n{BO_LINE}\n", BOTH),
    "blank lines before a row": (f"\n\n{ADA_LINE}\n{BO_LINE}\n", BOTH),
    "blank lines between and after": (f"{ADA_LINE}\n\n\n{BO_LINE}\n\n \n", BOTH),
    "CRLF": (f"{NAMES}\r\n{ADA_LINE}\r\n{BO_LINE}\r\n", BOTH),
    "CR": (f"{NAMES}\r{ADA_LINE}\r{BO_LINE}\r", BOTH),
    "every line end at once": (f"{NAMES}\r{ADA_LINE}\r\n{BO_LINE}\n", BOTH),
    "a byte order mark before a header": (
        codecs.BOM_UTF8 + f"{NAMES}\n{ADA_LINE}\n{BO_LINE}\n".encode(),
        BOTH,
    ),
    "a byte order mark before a row": (
        codecs.BOM_UTF8 + f"{ADA_LINE}\n{BO_LINE}\n".encode(),
        BOTH,
    ),
    "a byte order mark before a row without an id": (
        codecs.BOM_UTF8 + b"Nova,light,Ada,10,red\nOnyx,frost,Bo,-20,blue\n",
        KEYLESS,
    ),
    "everything quoted": (
        f'{QUOTED_NAMES}\n"1","Nova","light","Ada","10","red"\n{BO_LINE}',
        BOTH,
    ),
    "a delimiter, a quote and line ends within a value": (
        '1,"No,va","li""ght","A\nd\r\na",10,"\n"\n',
        [["1", "No,va", 'li"ght', "A\nd\r\na", "10", "\n"]],
    ),
    "a quote that opens nothing": (
        '1,No"va,5",Ada,10,red\n',
        [["1", 'No"va', '5"', "Ada", "10", "red"]],
    ),
    "empty values": ("1,,,,10,\n", [["1", "", "", "", "10", ""]]),
    "spaces as they are": (
        "1, Nova ,light , Ada,10,  \n",
        [["1", " Nova ", "light ", " Ada", "10", "  "]],
    ),
    "NULL, backslashes and tabs as they are": (
        "1,NULL,\\N,a\\,10,\ta\tb\\n\n",
        [["1", "NULL", "\\N", "a\\", "10", "\ta\tb\\n"]],
    ),
    "semicolons": (f"{NAMES};\n{ADA_LINE}\n".replace(",", ";"), [ADA]),
    "tabs": (f"{NAMES}\n{ADA_LINE}\n".replace(",", "\t"), [ADA]),
    "pipes": (f"{NAMES}\n{ADA_LINE}\n{BO_LINE}\n".replace(",", "|"), BOTH),
    "pipes, no header, commas in values": (
        "1|No,va|li;ght|Ada|10|red\n2|Onyx|frost|Bo|-20|blue\n",
        [["1", "No,va", "li;ght", "Ada", "10", "red"], BO],
    ),
    "the line sep= of Excel": (f"sep=;\r\n{NAMES}\r\n{ADA_LINE}\r\n".replace(",", ";"), [ADA]),
    "the line sep= after a byte order mark, no header": (
        codecs.BOM_UTF8 + f"sep=,\n{ADA_LINE}\n{BO_LINE}\n".encode(),
        BOTH,
    ),
    "the line sep= names what the first row does not show": (
        "\nSEP=|\n1|a,b,c,d,e,f|light|Ada|10|red\n",
        [["1", "a,b,c,d,e,f", "light", "Ada", "10", "red"]],
    ),
    "the line sep= in quotes, with a tab": (
        f'"sep=\t"\n{NAMES}\n{ADA_LINE}\n'.replace(",", "\t"),
        [ADA],
    ),
    "UTF-16 as Excel writes Unicode text": (
        f"{NAMES}\r\n1,Zoë,光,😀,10,red\r\n".replace(",", "\t")
        .encode("utf-16-le")
        .join([codecs.BOM_UTF16_LE, b""]),
        [["1", "Zoë", "光", "😀", "10", "red"]],
    ),
    "UTF-16, the other byte order": (
        codecs.BOM_UTF16_BE + f"{ADA_LINE}\n{BO_LINE}\n".encode("utf-16-be"),
        BOTH,
    ),
    "gzip of UTF-16": (gzip.compress(f"{ADA_LINE}\n{BO_LINE}\n".encode("utf-16")), BOTH),
    "values that begin as other files do": (
        "[a],%PDF,<h,10,PK\n{b},PAR1,<p,-20,\\xd0\n",
        [["[a]", "%PDF", "<h", "10", "PK"], ["{b}", "PAR1", "<p", "-20", "\\xd0"]],
    ),
    "trailing commas": (f"{NAMES},,\n{ADA_LINE},,\n{BO_LINE},,\n", BOTH),
    "any Unicode": (
        "1,Zoë,光,😀,10,\u2028\x85\x0b\n",
        [["1", "Zoë", "光", "😀", "10", "\u2028\x85\x0b"]],
    ),
    "gzip": (gzip.compress(f"{NAMES}\n{ADA_LINE}\n{BO_LINE}\n".encode()), BOTH),
    "two gzip files in one": (
        gzip.compress(f"{ADA_LINE}\n".encode()) + gzip.compress(f"{BO_LINE}\n".encode()),
        BOTH,
    ),
    "gzip, a byte order mark, blank lines, CRLF, quotes": (
        gzip.compress(
            codecs.BOM_UTF8 + f'\r\n\r\n{NAMES}\r\n1,"Nova",light,Ada,10,"red"\r\n'.encode()
        ),
        [ADA],
    ),
}


@pytest.mark.parametrize("chunk_bytes", [1, 7, 1 << 20])
@pytest.mark.parametrize("name", FORMATS)
def test_a_file_as_people_write_it_is_read(name: str, chunk_bytes: int) -> None:
    content, expected = FORMATS[name]
    content = content if isinstance(content, bytes) else content.encode()

    rows, rejected, columns = parsed(content, chunk_bytes=chunk_bytes)

    assert (rows, rejected) == (expected, [])
    assert columns == NAMES.split(",")[6 - len(columns) :]


def test_columns_come_in_the_order_of_the_header() -> None:
    rows, rejected, columns = parsed(b"color,xp,NAME,id,hero,power\nred,10,Ada,1,Nova,light\n")

    assert columns == ["color", "xp", "name", "id", "hero", "power"]
    assert (rows, rejected) == ([["red", "10", "Ada", "1", "Nova", "light"]], [])


def test_a_table_with_a_key_of_text_needs_it() -> None:
    assert parsed(b"E1,Ann\nE2,Bo\n", EMPLOYEES)[0] == [["E1", "Ann"], ["E2", "Bo"]]
    assert parsed(b"EmpName,empid\nAnn,E1\n", EMPLOYEES)[2] == ["EmpName", "EmpId"]
    with pytest.raises(FileRejected, match="EmpId is missing"):
        parsed(b"EmpName\nAnn\n", EMPLOYEES)


def workbook(name: str, content: str = "<xml/>") -> bytes:
    """A zip archive with this file in it, behind another one."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        if name != "mimetype":
            archive.writestr("[Content_Types].xml", "<Types/>" * 300)
        archive.writestr(name, content, zipfile.ZIP_STORED)
    return file.getvalue()


ENDLESS_ROW = b'1,"' + b'a\n","' * (2 << 20)

REFUSED_FILES = {
    "nothing": (b"", "no row: the file is empty"),
    "blank lines": (b"\n \r\n\n", "no row: the file is empty"),
    "an unknown column": (b"id,hero,power,name,xp,colour\n", "no column is called 'colour'"),
    "a missing column": (b"id,hero,power,name,xp\n", "the column color is missing"),
    "a column twice": (b"id,hero,power,name,xp,color,color\n", "named twice"),
    "Latin-1 in the first line": (
        "1,Zoë,light,Ada,10,red\n".encode("latin-1"),
        "not UTF-8 in line 1:",
    ),
    "Latin-1 in a later line": (
        f"{ADA_LINE}\n2,Zoë,light,Ada,10,red\n".encode("latin-1"),
        "not UTF-8 in line 2:",
    ),
    "UTF-16 cut short": (f"{ADA_LINE}\n{BO_LINE}".encode("utf-16")[:-1], "not UTF-16 after line 1"),
    "UTF-16 without its mark": (
        f"1,Zoë,光{ADA_LINE}".encode("utf-16-le"),
        "UTF-16 without a byte order mark: save it as UTF-8",
    ),
    "UTF-16 of the other order without its mark, in gzip": (
        gzip.compress(f"{NAMES}\n{ADA_LINE}\n".encode("utf-16-be")),
        "UTF-16 without a byte order mark: save it as UTF-8",
    ),
    "UTF-32": (f"{NAMES}\n{ADA_LINE}\n".encode("utf-32"), "UTF-32: save it as UTF-8"),
    "UTF-32 without its mark": (ADA_LINE.encode("utf-32-be"), "UTF-32: save it as UTF-8"),
    "a PNG": (
        b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x10\0\0\0\x10\x08\x06\0\0\0\x1f\xf3\xffa",
        "no text file",
    ),
    "a compressed image": (b"\xff\xd8\xff\xe0" + zlib.compress(bytes(99)) * 99, "no text file"),
    "an Excel workbook": (workbook("xl/workbook.xml"), r"an Excel workbook \(.xlsx\).*CSV UTF-8"),
    "an Excel workbook in gzip": (gzip.compress(workbook("xl/styles.xml")), "an Excel workbook"),
    "an OpenDocument file": (
        workbook("mimetype", "application/vnd.oasis.opendocument.spreadsheet"),
        r"an OpenDocument file \(.ods\)",
    ),
    "a zip archive": (workbook("heroes.csv", ADA_LINE), "a zip archive: upload the CSV file in it"),
    "an old Excel workbook": (
        b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(512),
        r"an old Excel workbook \(.xls\): save it as",
    ),
    "another compression": (bz2.compress(ADA_LINE.encode()), "not with gzip"),
    "a PDF": (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n", "a PDF"),
    "a Parquet file": (b"PAR1\x15\x04\x15\x10\x15\x14L\x15\x02\x15\x00", "a Parquet file"),
    "an HTML page": (b"\r\n<!DOCTYPE html>\n<html></html>", "HTML or XML"),
    "a JSON array": (codecs.BOM_UTF8 + b'[\n {"id": 1, "hero": "Nova"}]\n', "JSON, not a CSV"),
    "lines of JSON": (b'{"id": 1, "hero": "Nova"}\n', "JSON, not a CSV"),
    "a delimiter that nobody reads": (f"sep=:\n{ADA_LINE}\n".encode(), "sep=:: expected comma"),
    "only the line sep=": (b"sep=;\n\n", "no row"),
    "half a surrogate pair": (b"1,\xed\xa0\x80,light,Ada,10,red\n", "not UTF-8"),
    "damaged gzip": (b"\x1f\x8b\x08\x00rubbish that is no gzip", "gzip: damaged"),
    "gzip cut short": (gzip.compress(ADA_LINE.encode() * 999)[:-20], "uploaded only in part"),
    "a line of 2 MB": (b"1," + b"x" * (2 << 20), "a line of more than"),
    "a title before the header": (
        b"My heroes\n\nid,hero,power,color,xp,name\n1,Nova,light,red,10,Ada\n",
        "line 3: the header stands here",
    ),
    "a title of two values before the header": (
        f"Heroes, 2026\n{NAMES}\n{ADA_LINE}\n".replace(",", ";").encode(),
        "line 2: the header stands here",
    ),
    "a comment before a header in other letters": (
        f"# ours\n{NAMES.upper()},\n{ADA_LINE},\n".encode(),
        "line 2: the header stands here",
    ),
    "a title before a header with a column too many": (
        f"Heroes\n{NAMES},notes\n{ADA_LINE},x\n".encode(),
        "line 2: the header stands here",
    ),
    "a header behind a row": (
        f"{ADA_LINE}\n\n{NAMES}\n{BO_LINE}\n".encode(),
        "line 3: the header stands here",
    ),
    "a quote that never ends": (
        f'{NAMES}\n{ADA_LINE}\n3,"No,light,Ada,1,red\n{BO_LINE}\n'.encode(),
        "line 3: a quoted value begins here and never ends",
    ),
    "a quote that ends too late for any column": (
        b'1,a,b,c,1,d\n2,"' + b"x" * 70_000 + b"\n" + b"x" * 70_000 + b'",b,c,1,d\n',
        "line 2: a quoted value begins here and does not end within 131072 characters, which is"
        " more than any column takes",
    ),
    "a quote that never ends, without a line end": (b'1,"a\nb,c', "line 1: a quoted value"),
    "a quote in the last line": (f'{ADA_LINE}\r\n1,"'.encode(), "line 2: a quoted value"),
    "a second value that never ends": (
        f'{ADA_LINE}\r\n1,"a\r\nb","c\r\nd\r\n'.encode(),
        "line 3: a quoted value",
    ),
    "a quote in front of many rows": (
        f'{ADA_LINE}\n2,"Onyx,frost,Bo,1,blue\n'.encode() + f"{BO_LINE}\n".encode() * 29_999,
        "line 2: a quoted value",
    ),
    "a quote in front of many lines": (
        f'{ADA_LINE}\n1,"a\nb","'.encode() + f"{ADA_LINE}\n".encode() * 9999,
        "line 3: a quoted value",
    ),
    "a row of 10 MB in many lines": (ENDLESS_ROW, "a row of some MB after line 0"),
}


@pytest.mark.parametrize("name", REFUSED_FILES)
def test_a_file_that_can_never_be_loaded_is_refused_with_the_reason(name: str) -> None:
    content, reason = REFUSED_FILES[name]

    with pytest.raises(FileRejected, match=reason):
        parsed(content, chunk_bytes=1 << 18)


REFUSED_ROWS = {
    "text for an integer": ("1,Nova,light,Ada,ten,red", "xp", "expected an integer, got 'ten'"),
    "an integer too large": ("1,Nova,light,Ada,2147483648,red", "xp", "from -2147483648 to"),
    "no integer": ("1,Nova,light,Ada,,red", "xp", "expected an integer, got ''"),
    "spaces around an integer": (
        "1,Nova,light,Ada, 10,red",
        "xp",
        "expected an integer, got ' 10': there is white space around it",
    ),
    "zeros before an integer": ("1,Nova,light,Ada,010,red", "xp", "expected an integer"),
    "digits of another script": ("1,Nova,light,Ada,١,red", "xp", "expected an integer"),
    "no id, though there is a column for it": (
        ",Nova,light,Ada,10,red",
        "id",
        "expected an integer, got '': give each row one, or leave out the column id",
    ),
    "an id that no row has": ("0,Nova,light,Ada,10,red", "id", "from 1 to 4294967295"),
    "a text too long": (f"1,{'x' * 256},light,Ada,10,red", "hero", "at most 255 characters"),
    "a NUL": ("1,No\0va,light,Ada,10,red", "hero", "NUL"),
    "too few values": ("1,Nova,light,Ada,10", "", "expected 6 values, got 5"),
    "too many values": ("1,Nova,light,Ada,10,red,", "", "expected 6 values, got 7"),
    "a value longer than csv takes": (f"1,{'x' * 140_000},a,b,1,c", "", "not CSV: field larger"),
    "something behind a quote": ('1,"Nova"x,light,Ada,10,red', "", "not CSV"),
}


@pytest.mark.parametrize("position", [1, 500, 1000])
@pytest.mark.parametrize("name", REFUSED_ROWS)
def test_a_refused_row_is_told_and_the_others_are_read(name: str, position: int) -> None:
    line, column, reason = REFUSED_ROWS[name]
    lines = [f"{i},Nova,light,Ada,{i},red" for i in range(10, 1010)]
    lines[position - 1] = line

    rows, [rejected], _ = parsed("\n".join([NAMES, *lines]).encode(), chunk_bytes=1 << 16)

    assert (rejected.line, rejected.column) == (position + 1, column)
    assert reason in rejected.reason
    assert rejected.original.rstrip("\n") == line
    assert [row[0] for row in rows] == [str(i) for i in range(10, 1010) if i != position + 9]


@pytest.mark.parametrize(
    ("lines", "wanted"),
    [
        (["a,b,c", "1,Nova,light,Ada,10,red"], "expected 6 values as in line 2, got 3"),
        (["a,b,c", "Nova,light,Ada,10,red"], "expected 5 values as in line 2, got 3"),
        (["1,Nova,light,Ada,10,red", "Nova,light,Ada,10,red"], "6 values as in line 1, got 5"),
        (["Nova,light,Ada,10,red", "1,Nova,light,Ada,10,red"], "5 values as in line 1, got 6"),
        (['1,"No', 'va",light,Ada,10,red', "x"], "expected 6 values as in line 1, got 1"),
        (["a,b,c", "d"], "expected 5 or 6 values, got 3"),
        (["a,b,c", *["x"] * 60, "Nova,light,Ada,10,red"], "expected 5 or 6 values, got 3"),
        (["a,b,c", *["x"] * 60, "1,Nova,light,Ada,10,red"], "expected 5 or 6 values, got 3"),
    ],
)
def test_how_many_values_a_row_should_have_is_told_as_it_is(lines: list[str], wanted: str) -> None:
    _, rejected, _ = parsed("\n".join(lines).encode(), chunk_bytes=1 << 16)

    assert wanted in rejected[0].reason
    assert all("5 or 6 values, got 5" not in row.reason for row in rejected)


def test_a_table_whose_rows_need_their_key_has_one_count() -> None:
    _, [rejected], _ = parsed(b"E1,Ann\nBo\n", EMPLOYEES)

    assert rejected.reason == "expected 2 values as in line 1, got 1"


def test_a_first_row_that_does_not_fit_takes_no_other_row_along() -> None:
    rows, [rejected], columns = parsed(
        b"sep=,\nbad\nNova,light,Ada,10,red\nOnyx,frost,Bo,-20,blue\n"
    )

    assert (rows, rejected.line, columns) == (KEYLESS, 2, NAMES.split(",")[1:])


def test_long_lines_are_read_to_the_end_of_the_file() -> None:
    count = 300
    content = f"{ADA_LINE}{' ' * 20_000}\n" * count

    rows, rejected, _ = parsed(content.encode(), chunk_bytes=1 << 18)

    assert (rows, [r.line for r in rejected]) == ([], list(range(1, count + 1)))


ORDER = ["id", "name", "hero", "power", "xp", "color"]


@pytest.mark.parametrize(
    ("order", "content", "columns"),
    [
        (ORDER, "1,Ada,Nova,light,10,red\n", ORDER),
        (ORDER, "Ada,Nova,light,10,red\n", ORDER[1:]),
        (ORDER[1:], "Ada|Nova|light|10|red\n", ORDER[1:]),
        (ORDER, f"{NAMES}\n{ADA_LINE}\n", NAMES.split(",")),
        (["color", "xp", "id", "hero", "power", "name"], "r;1;2;h;p;n\n", None),
        (["color", "xp", "id", "hero", "power", "name"], "r;1;h;p;n\n", None),
    ],
)
def test_a_file_without_a_header_has_the_columns_in_the_declared_order(
    order: list[str], content: str, columns: list[str] | None
) -> None:
    rows, rejected, found = parsed(content.encode(), order=named_columns(HEROES, order))

    values = content.splitlines()[-1].replace(";", ",").replace("|", ",").split(",")
    assert (rows, rejected) == ([values], [])
    assert found == (columns or [c for c in order if c != "id" or len(values) == 6])


@pytest.mark.parametrize("first", ["x" * 200_000, '1,"No"va', "1,2,3"])
def test_a_first_line_of_any_kind_is_refused_as_a_row(first: str) -> None:
    rows, rejected, _ = parsed(f"{first}\n".encode(), chunk_bytes=1 << 16)

    assert (rows, [r.line for r in rejected]) == ([], [1])


def test_a_row_with_the_names_of_columns_in_it_is_no_header() -> None:
    rows, _, _ = parsed(f"{ADA_LINE}\n2,hero,power,name,7,color\n".encode())

    assert rows == [ADA, ["2", "hero", "power", "name", "7", "color"]]


@pytest.mark.parametrize(
    ("content", "rows"),
    [
        ("E1;Doe, John\nE2;Cher\n", [["E1", "Doe, John"], ["E2", "Cher"]]),
        ("E1,Doe; John\nE2,Cher\n", [["E1", "Doe; John"], ["E2", "Cher"]]),
        ("E1;Doe, John\n\nE2;Roe, A;x\nE3;Cher\n", [["E1", "Doe, John"], ["E3", "Cher"]]),
        ("sep=;\nE1;Doe, John\n", [["E1", "Doe, John"]]),
        ("EmpId;EmpName\nE1;Doe, John\n", [["E1", "Doe, John"]]),
    ],
)
def test_of_two_delimiters_the_one_that_every_line_has_is_taken(
    content: str, rows: list[list[str]]
) -> None:
    assert parsed(content.encode(), EMPLOYEES)[0] == rows


def test_of_two_delimiters_the_one_that_leaves_integers_in_their_place_is_taken() -> None:
    assert parsed(b"1,|,|,|,0,|\n")[0] == [["1", "|", "|", "|", "0", "|"]]
    assert parsed(b"1|,|,|,|0|,\n")[0] == [["1", ",", ",", ",", "0", ","]]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("E1;Doe, John\nE2;Roe, Jane\n", "line 1: comma and semicolon both"),
        ("\nE1;Doe, John\n", "line 2: comma and semicolon both make a row.*sep=,"),
        ("E1|Smith\tBob\nE2|x\ty|z\n", "tab and | both"),
        ("Staff of, 2026\nEmpId;EmpName\nE1;Ann\n", "line 2: the header stands here"),
    ],
)
def test_a_file_that_can_be_read_in_two_ways_is_refused(content: str, words: str) -> None:
    with pytest.raises(FileRejected, match=words.replace("|", r"\|")):
        parsed(content.encode(), EMPLOYEES)


def test_line_numbers_count_the_lines_within_values() -> None:
    content = '\n1,"a\nb\nc",p,n,1,c\n2,h,p,n,two,c\n3,"a\r\nb",p,n,three,c\r\n4,h,p,n,4,c\n'

    rows, rejected, _ = parsed(content.encode())

    assert [row[0] for row in rows] == ["1", "4"]
    assert [r.line for r in rejected] == [5, 6]
    assert rejected[1].original == '3,"a\r\nb",p,n,three,c\r\n'


def test_a_batch_in_which_a_row_is_refused_ends_where_the_next_one_begins() -> None:
    count = 2 * BATCH_ROWS + 3
    lines = [f"{i},N,l,A,{'x' if i % 1000 == 0 else i},r\n" for i in range(1, count + 1)]

    rows, rejected, _ = parsed("".join(lines).encode(), chunk_bytes=1 << 16)

    assert [r.line for r in rejected] == list(range(1000, count + 1, 1000))
    assert [int(row[0]) for row in rows] == [i for i in range(1, count + 1) if i % 1000]


def test_rows_come_a_thousand_at_a_time() -> None:
    content = f"{ADA_LINE}\n".encode() * 2_003

    batches = CsvRows(iter([content]), HEROES, list[Any]().append).batches()

    assert list(map(len, batches)) == [1_000, 1_000, 3]


@pytest.mark.parametrize("end", [",", "\n"], ids=["in one line", "in many lines"])
def test_many_long_rows_are_rejected_one_by_one(end: str) -> None:
    """Together they are larger than a row may be."""
    long = f'2,"{end * 100_000}",p,n,1,c\n'
    content = f"{ADA_LINE}\n{long * 40}{ADA_LINE}\n"

    rows, rejected, _ = parsed(content.encode(), chunk_bytes=1 << 18)

    assert len(rows) == 2
    assert {(r.column, len(r.original)) for r in rejected} == {("hero", len(long))}
    assert len(rejected) == 40


@pytest.mark.parametrize("chunk_bytes", [7, 1 << 10, 1 << 18])
@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_the_line_that_is_not_utf_8_is_named(line_end: str, chunk_bytes: int) -> None:
    lines = [ADA_LINE.encode()] * BATCH_ROWS * 2
    lines[BATCH_ROWS + 7] = "2,Zoë,light,Ada,10,red".encode("latin-1")

    with pytest.raises(FileRejected, match=f"not UTF-8 in line {BATCH_ROWS + 8}:"):
        parsed(line_end.encode().join(lines), chunk_bytes=chunk_bytes)


def test_a_gzip_bomb_is_refused_before_it_goes_off() -> None:
    content = gzip.compress(f"{ADA_LINE}\n".encode() + (b"," * 20_000 + b"\n") * 5_000)
    read = 0

    def bomb() -> Iterator[bytes]:
        nonlocal read
        for i in range(0, len(content), 1000):
            read += 1000
            yield content[i : i + 1000]

    with pytest.raises(FileRejected, match="times as large"):
        for _ in CsvRows(bomb(), HEROES, list[Any]().append).batches():
            pass
    assert len(content) > 90_000
    assert read < 20_000


TEXTS = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), max_size=20)
HERO_ROWS = st.tuples(
    st.integers(1, 2**32 - 1), TEXTS, TEXTS, TEXTS, st.integers(-(2**31), 2**31 - 1), TEXTS
)


@given(
    rows=st.lists(HERO_ROWS, min_size=1, max_size=20),
    delimiter=st.sampled_from(DELIMITERS),
    line_end=st.sampled_from(["\n", "\r\n", "\r"]),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC]),
    has_header=st.booleans(),
    has_mark=st.booleans(),
    is_compressed=st.booleans(),
    chunk_bytes=st.sampled_from([1, 3, 64, 1 << 16]),
)
def test_what_python_writes_in_any_dialect_is_read_as_it_was(
    rows: list[tuple[Any, ...]],
    delimiter: str,
    line_end: str,
    quoting: Any,
    has_header: bool,
    has_mark: bool,
    is_compressed: bool,
    chunk_bytes: int,
) -> None:
    if quoting == csv.QUOTE_MINIMAL:
        # Python puts no quotes around a line end that is not the dialect's own: lost for everyone.
        foreign = str.maketrans(dict.fromkeys({"\n", "\r"} - set(line_end)))
        rows = [tuple(v.translate(foreign) if type(v) is str else v for v in r) for r in rows]
    text = io.StringIO()
    writer = csv.writer(text, delimiter=delimiter, lineterminator=line_end, quoting=quoting)
    if has_header:
        writer.writerow(NAMES.split(","))
    writer.writerows(rows)
    content = codecs.BOM_UTF8 * has_mark + text.getvalue().encode()

    found, rejected, _ = parsed(
        gzip.compress(content) if is_compressed else content, chunk_bytes=chunk_bytes
    )

    assert rejected == []
    assert found == [[str(value) for value in row] for row in rows]


@pytest.mark.timeout(30)
def test_a_header_of_a_hundred_thousand_unknown_names_is_read_in_one_pass() -> None:
    """Compared in pairs they take minutes, which the time limit of a test ends."""
    names = ",".join(["id", *(f"n{number}" for number in range(140_000))])

    with pytest.raises(FileRejected, match="no column is called 'n0'"):
        parsed(f"{names}\n".encode(), chunk_bytes=1 << 18)


@pytest.mark.timeout(30)
def test_a_first_line_that_seems_to_name_a_delimiter_is_read_in_one_pass() -> None:
    """Tried at each of its spaces it takes minutes."""
    rows, rejected, _ = parsed(b"sep=" + b" " * 1_000_000 + b"x\n", chunk_bytes=1 << 18)

    assert (rows, len(rejected)) == ([], 1)
