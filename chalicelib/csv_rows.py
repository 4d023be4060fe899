"""CSV as people write it: bytes in, checked rows out, refused rows told one by one.

Decompressed, decoded, parsed and checked in pieces, in constant memory. The column types are the
API's own. `ingest` calls in; no I/O here.
"""

import csv
import io
import itertools
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from chalicelib.errors import FileRefused
from chalicelib.tables import Column, Integer, InvalidValue, Table, shown

BATCH_ROWS = 1_000
BATCH_BYTES = 1 << 20
PIECE_ROWS = 50
MAX_HELD_BYTES = 2 << 20
"""Of a batch, and PIECE_ROWS rows more: those that a table takes are half a MB at most."""
MAX_LINE_BYTES = 1 << 20
MAX_EXPANSION = 500
"""How much larger than the gzip file its content may be; deflate itself ends at 1,032."""
EXPANSION_CHECKED_FROM_BYTES = 10_000_000
CHUNK_BYTES = 1 << 18
DELIMITERS = ",;\t"
GZIP = b"\x1f\x8b"
LINE_END = re.compile(rb"\r\n?|\n")

Texts = Sequence[str]
"""The values of one row as the file has them."""


@dataclass(frozen=True)
class Refused:
    """A row that is not loaded. `line`: the one it begins in, from 1; `original`: its lines."""

    line: int
    column: str
    reason: str
    original: str


class Judged(NamedTuple):
    """A row that ends before line `end`, from 0. `row` has its values where it is to be loaded;
    `column` and `reason` tell why it is refused. A blank line has neither."""

    end: int
    row: list[str]
    column: str
    reason: str


class CsvRows:
    """The rows of one file. Its header, or the lack of one, is read by the constructor. Raises
    FileRefused for what concerns the file as a whole, at any time.

    `columns`: those that rows have values for, in their order; `delimiter` stands between these,
    `ignored` empty ones may follow. `lines_before`: those before the first row.
    """

    def __init__(
        self, chunks: Iterator[bytes], table: Table, refuse: Callable[[Refused], None]
    ) -> None:
        """`refuse` is told of each row that is not loaded, in the order of the file."""
        self.rows = 0
        self.refused = 0
        self._table = table
        self._refuse = refuse
        self._line = 0
        self._lines: list[str] = []
        self._held_bytes = 0
        self._had_cr_last = False
        pieces = self._metered(_bounded(_decompressed(chunks)))
        text = io.TextIOWrapper(_Chunks(pieces), "utf-8-sig", newline="")
        self._text = self._recorded(text)
        first = self._peek()
        self.delimiter = _delimiter(first, table)
        self._reader = self._csv(self._text)
        self.columns = self._declared_order(first)
        self.ignored = 0
        if _is_header(self._split(first), table):
            self._read_header()
        self.lines_before = self._line

    def batches(self) -> Iterator[list[list[str]]]:
        """Checked rows, each with a text for each of `columns`; about a thousand at a time."""
        while True:
            try:
                rows = self._next_rows()
                lines, first_line = self._taken()
                if not lines:
                    return
                checked = rows if self._are_good(rows) else self._good_ones(lines, first_line)
            except csv.Error:
                checked = self._good_ones(*self._taken())
            except UnicodeDecodeError as error:
                raise self._not_utf8(error) from error
            self.rows += len(checked)
            if checked:
                yield checked

    def _next_rows(self) -> list[list[str]]:
        """As the reader parses them: BATCH_ROWS, or some MB, or what is left."""
        rows: list[list[str]] = []
        while len(rows) < BATCH_ROWS and self._held_bytes < BATCH_BYTES:
            piece = list(itertools.islice(self._reader, PIECE_ROWS))
            rows += piece
            if len(piece) < PIECE_ROWS:
                break
        return rows

    # --- lines ------------------------------------------------------------------------------------

    def _metered(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        """The same, unless a row takes line after line and never ends."""
        for chunk in chunks:
            self._held_bytes += len(chunk)
            if self._held_bytes > MAX_HELD_BYTES:
                raise never_ending(self._line)
            yield chunk
            self._had_cr_last = chunk.endswith(b"\r")

    def _recorded(self, lines: Iterator[str]) -> Iterator[str]:
        """Remembers the lines of a batch, should one of its rows be refused."""
        record = self._lines.append
        for line in lines:
            record(line)
            yield line

    def _taken(self) -> tuple[list[str], int]:
        """The lines since the last call, and the number of the first one."""
        lines, first_line = self._lines[:], self._line + 1
        self._line += len(lines)
        self._lines.clear()
        self._held_bytes = 0
        return lines, first_line

    def _peek(self) -> str:
        try:
            first = next(self._text)
            while _is_blank(first):
                self._taken()
                first = next(self._text)
        except StopIteration:
            raise FileRefused("no row: the file is empty") from None
        except UnicodeDecodeError as error:
            raise self._not_utf8(error) from error
        self._text = itertools.chain([first], self._text)
        return first

    def _not_utf8(self, error: UnicodeDecodeError) -> FileRefused:
        """It comes when a whole chunk is decoded, before the first line in it is read; so is a
        line whose CR the chunk before ended with, for there may be a LF to come."""
        before = error.object[: error.start]
        unread = len(LINE_END.findall(before))
        unread += self._had_cr_last and not before.startswith(b"\n")
        return not_utf8(self._line + len(self._lines) + unread + 1)

    def _csv(self, lines: Iterator[str]) -> Iterator[list[str]]:
        return csv.reader(lines, delimiter=self.delimiter, strict=True)

    def _split(self, line: str) -> list[str]:
        return _values(line, self.delimiter)

    # --- the header -------------------------------------------------------------------------------

    def _declared_order(self, first: str) -> tuple[Column, ...]:
        columns = self._table.columns
        has_key = len(self._split(first)) != len(columns) - 1
        return columns if has_key or not self._table.auto_key else columns[1:]

    def _read_header(self) -> None:
        names = next(self._reader)
        self._taken()
        while names and not names[-1].strip():
            names.pop()
            self.ignored += 1
        known = {column.name.casefold(): column for column in self._table.columns}
        unknown = [name for name in names if name.strip().casefold() not in known]
        has = f"{self._table.name} has {', '.join(c.name for c in self._table.columns)}"
        if unknown:
            raise FileRefused(f"header: no column is called {shown(unknown[0])}; {has}")
        columns = tuple(known[name.strip().casefold()] for name in names)
        missing = [c.name for c in self._table.columns if c not in columns]
        if self._table.auto_key and missing[:1] == [self._table.key.name]:
            del missing[0]
        if missing:
            raise FileRefused(f"header: the column {missing[0]} is missing; {has}")
        if len(set(columns)) != len(columns):
            raise FileRefused(f"header: a column is named twice; {has}")
        self.columns = columns

    # --- rows -------------------------------------------------------------------------------------

    def _are_good(self, rows: list[list[str]]) -> bool:
        """Whether nobody needs to look at them one by one."""
        if self.ignored or set(map(len, rows)) != {len(self.columns)}:
            return False
        return all(
            column.type.takes_texts(texts) for column, texts in zip(self.columns, zip(*rows))
        )

    def _good_ones(self, lines: list[str], first_line: int) -> list[list[str]]:
        """The slow way, which finds the words for what is wrong."""
        good = []
        start = 0
        for judged in self.judge(lines):
            original = "".join(lines[start : judged.end])
            if judged.reason:
                self.refused += 1
                self._refuse(Refused(first_line + start, judged.column, judged.reason, original))
            elif judged.row:
                good.append(judged.row)
            start = judged.end
        return good

    def judge(self, lines: Iterable[str]) -> Iterator["Judged"]:
        """Each row in `lines`, good or not."""
        reader = csv.reader(lines, delimiter=self.delimiter, strict=True)
        end = 0
        while True:
            row: list[str] = []
            try:
                row = next(reader)
                column, reason = self._fault(row)
            except StopIteration:
                return
            except csv.Error as error:
                column, reason = "", f"not CSV: {error}"
            end = max(reader.line_num, end + 1)
            is_good = not reason and not _is_blank_row(row)
            yield Judged(end, row[: len(self.columns)] if is_good else [], column, reason)

    def _fault(self, row: list[str]) -> tuple[str, str]:
        """The column and what is wrong with its value; nothing where all is well. An empty line is
        no row."""
        expected = len(self.columns)
        if _is_blank_row(row):
            return "", ""
        if len(row) > expected + self.ignored or len(row) < expected:
            return "", f"expected {expected} values, got {len(row)}"
        for value in row[expected:]:
            if value.strip():
                return "", f"a value without a column: {shown(value)}"
        for column, text in zip(self.columns, row):
            try:
                column.type.parse(text)
            except InvalidValue as error:
                return column.name, str(error)
        return "", ""


def not_utf8(line: int) -> FileRefused:
    return FileRefused(f"not UTF-8 in line {line}: save it as UTF-8")


def never_ending(line: int) -> FileRefused:
    return FileRefused(f"a row of some MB after line {line}: does a quoted value never end?")


def too_long_a_line() -> FileRefused:
    return FileRefused(f"a line of more than {MAX_LINE_BYTES} bytes: is this a CSV file?")


def _values(line: str, delimiter: str) -> list[str]:
    """None where one goes on in the next line, or is too long for a value: no header has such."""
    try:
        return next(csv.reader([line], delimiter=delimiter, strict=True))
    except csv.Error:
        return []


def _is_blank(line: str) -> bool:
    return not line.strip("\r\n \t")


def _is_blank_row(values: Texts) -> bool:
    return len(values) < 2 and not "".join(values).strip()


def _delimiter(first: str, table: Table) -> str:
    """The one that makes as many values of the first line as the table has columns."""
    for delimiter in DELIMITERS:
        count = len(_values(first, delimiter))
        if count in (len(table.columns), len(table.columns) - table.auto_key):
            return delimiter
    return max(DELIMITERS, key=first.count)


def _is_header(values: Sequence[str], table: Table) -> bool:
    """Whether it names a column, and has no integer where a row would have one."""
    names = {column.name.casefold() for column in table.columns}
    if not any(value.strip().casefold() in names for value in values):
        return False
    columns = table.columns[len(table.columns) - len(values) :]
    integers = [v for c, v in zip(columns, values) if isinstance(c.type, Integer)]
    return not integers or not all(re.fullmatch(r"-?[0-9]+", value) for value in integers)


# --- bytes ----------------------------------------------------------------------------------------


class _Chunks(io.BufferedIOBase):
    """An iterator of bytes as a file to read from."""

    name = "chunks"

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks

    def readable(self) -> bool:
        return True

    def read1(self, size: int = -1, /) -> bytes:
        return next(self._chunks, b"")

    def read(self, size: int | None = -1, /) -> bytes:
        return self.read1()


def _bounded(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """The same, unless a line is too long to hold."""
    length = 0
    for chunk in chunks:
        first, last = _line_ends(chunk)
        if length + (len(chunk) if first < 0 else first) > MAX_LINE_BYTES:
            raise too_long_a_line()
        length = length + len(chunk) if first < 0 else len(chunk) - last - 1
        yield chunk


def _line_ends(chunk: bytes) -> tuple[int, int]:
    """Where the first and the last one are, -1 for none."""
    found = [at for at in (chunk.find(b"\n"), chunk.find(b"\r")) if at >= 0]
    return min(found, default=-1), max(chunk.rfind(b"\n"), chunk.rfind(b"\r"))


def _decompressed(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """As it comes, or unzipped where it begins as gzip does; in pieces of CHUNK_BYTES at most."""
    first = next((chunk for chunk in chunks if chunk), b"")
    if len(first) == 1:
        first += next(chunks, b"")
    whole = itertools.chain([first], chunks)
    if first.startswith(GZIP):
        yield from _unzipped(whole)
        return
    for chunk in whole:
        for start in range(0, len(chunk), CHUNK_BYTES):
            yield chunk[start : start + CHUNK_BYTES]


def _unzipped(chunks: Iterator[bytes]) -> Iterator[bytes]:
    came = made = 0
    unzip = zlib.decompressobj(wbits=31)
    for chunk in chunks:
        came += len(chunk)
        while chunk:
            if unzip.eof:
                unzip = zlib.decompressobj(wbits=31)  # one gzip file after another is one file
            try:
                piece = unzip.decompress(chunk, CHUNK_BYTES)
            except zlib.error as error:
                raise FileRefused(f"gzip: damaged after {made} bytes of content") from error
            made += len(piece)
            if made > max(EXPANSION_CHECKED_FROM_BYTES, came * MAX_EXPANSION):
                raise FileRefused(
                    f"gzip: the content is more than {MAX_EXPANSION} times as large as the file"
                )
            if piece:  # an empty one would be taken for the end
                yield piece
            chunk = unzip.unconsumed_tail or unzip.unused_data
    while not unzip.eof and (piece := unzip.decompress(b"", CHUNK_BYTES)):
        yield piece
    if not unzip.eof:
        raise FileRefused(f"gzip: it ends after {made} bytes of content: uploaded only in part?")
