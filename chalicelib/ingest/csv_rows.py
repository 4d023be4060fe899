"""CSV as people write it: bytes in, checked rows out, rejected rows told one by one.

Decoded, parsed and checked in pieces, in constant memory. The column types are the API's own. No
I/O here.
"""

import csv
import functools
import io
import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from chalicelib.errors import FileRejected
from chalicelib.ingest.csv_bytes import text_bytes
from chalicelib.tables import Column, Integer, InvalidValue, Table, shown

BATCH_ROWS = 1_000
BATCH_BYTES = 1 << 20
PIECE_ROWS = 50
# Of a batch, and PIECE_ROWS rows more: those that a table takes are half a MB at most.
MAX_HELD_BYTES = 2 << 20
FIRST_ROWS = 3
DELIMITERS = ",;\t|"
_DELIMITER_NAMES = {",": "comma", ";": "semicolon", "\t": "tab", "|": "|"}
# Without a header the first row with a fitting number of values, among these lines, decides whether
# rows have keys. They decide between delimiters too, and no header may stand in them.
READ_AHEAD_LINES = 50
LINE_END = re.compile(rb"\r\n?|\n")
_INTEGER = re.compile(r"-?[0-9]+")
_TEXT_LINE_END = re.compile(r"\r\n?|\n")
# Excel's: its first line names the delimiter, and may have more of them behind it.
_SEPARATOR = re.compile(r'"?sep=([^\r\n])"?', re.IGNORECASE)

_csv_reader = functools.partial(csv.reader, strict=True)

# The values of one row as the file has them.
Texts = Sequence[str]


@dataclass(frozen=True)
class Rejected:
    """A row that is not loaded. `line`: the one it begins in, from 1; `original`: its lines."""

    line: int
    column: str
    reason: str
    original: str


class Judged(NamedTuple):
    """A row that ends before line `end`, from 0. `row` has its values where it is to be loaded;
    `column` and `reason` tell why it is rejected. A blank line has neither."""

    end: int
    row: list[str]
    column: str
    reason: str


class WrongColumns(ValueError):
    """Names that are not the columns of a table. The text says which is wrong."""


class CsvRows:
    """The rows of one file. Its header, or the lack of one, is read by the constructor. Raises
    FileRejected for what concerns the file as a whole, at any time.

    `columns`: those that rows have values for, in their order; `delimiter` stands between these,
    `ignored` empty ones may follow. `lines_before`: those before the first row. `first_rows`: at
    most FIRST_ROWS of the checked ones, once these were given out. `rejected` rows stand in
    `rejected_lines`: a quote too many makes one row of many.
    """

    def __init__(
        self,
        chunks: Iterator[bytes],
        table: Table,
        reject: Callable[[Rejected], None],
        order: Sequence[Column] = (),
    ) -> None:
        """`reject` is told of each row that is not loaded, in the order of the file. `order`: the
        columns of a file without a header; else the table's."""
        self.rows = 0
        self.rejected = 0
        self.rejected_lines = 0
        self.first_rows: list[list[str]] = []
        self._table = table
        self._reject = reject
        self._line = 0
        self._lines: list[str] = []
        self._held_bytes = 0
        self._had_cr_last = False
        pieces = self._metered(text_bytes(chunks))
        self._text = io.TextIOWrapper(_Chunks(pieces), "utf-8-sig", newline="")
        self._ahead: list[str] = []
        self.ignored = 0
        self._wanted = ""
        self._fitting: Sequence[int] = ()
        order = order or table.columns
        self.delimiter = self._read_delimiter(order)
        self.columns = self._read_columns(order)
        self.lines_before = self._line
        self._reader = _csv_reader(self._recorded(), delimiter=self.delimiter)

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
                self.first_rows += checked[: FIRST_ROWS - len(self.first_rows)]
                yield checked

    def _next_rows(self) -> list[list[str]]:
        """As the reader parses them: BATCH_ROWS, or some MB, or what is left."""
        rows: list[list[str]] = []
        while True:
            piece = list(itertools.islice(self._reader, PIECE_ROWS))
            rows += piece
            is_enough = len(rows) >= BATCH_ROWS or self._held_bytes >= BATCH_BYTES
            if is_enough or len(piece) < PIECE_ROWS:
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

    def _recorded(self) -> Iterator[str]:
        """The lines, each remembered should a row of its batch be rejected."""
        record = self._lines.append
        while self._ahead:
            record(self._ahead.pop(0))
            yield self._lines[-1]
        for line in self._text:
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
        """The first line ahead that is not blank; those before it are left out."""
        while self._look_ahead(1):
            if not _is_blank(self._ahead[0]):
                return self._ahead[0]
            self._drop_line()
        raise FileRejected("no row: the file is empty, or all its lines are blank")

    def _look_ahead(self, count: int) -> list[str]:
        """So many lines ahead, or as many as there are in about BATCH_BYTES."""
        try:
            while len(self._ahead) < count and self._held_bytes < BATCH_BYTES:
                line = next(self._text, "")
                if not line:
                    break
                self._ahead.append(line)
        except UnicodeDecodeError as error:
            raise self._not_utf8(error) from error
        return self._ahead

    def _drop_line(self) -> None:
        del self._ahead[0]
        self._line += 1
        self._held_bytes = 0

    def _not_utf8(self, error: UnicodeDecodeError) -> FileRejected:
        """It comes when a whole chunk is decoded, before the first line in it is read; so is a
        line whose CR the chunk before ended with, for there may be a LF to come."""
        before = error.object[: error.start]
        unread = len(LINE_END.findall(before))
        unread += self._had_cr_last and not before.startswith(b"\n")
        return not_utf8(self._line + len(self._lines) + len(self._ahead) + unread + 1)

    # --- the header -------------------------------------------------------------------------------

    def _read_delimiter(self, order: Sequence[Column]) -> str:
        """The line that names it, should there be one, is left out."""
        first = self._peek()
        named = _SEPARATOR.match(first)
        if not named or first[named.end() :].lstrip(named[1]).strip():
            return self._delimiter_of(first, order)
        self._drop_line()
        return _named_delimiter(named[1])

    def _delimiter_of(self, first: str, order: Sequence[Column]) -> str:
        """The one that makes as many values of the first line as a row has. Of several the one
        that the lines ahead speak least against. Raises FileRejected where that decides nothing."""
        counts = _counts(order, self._table)
        fitting = [d for d in DELIMITERS if len(_values(first, d)) in counts]
        if not fitting:
            return max(DELIMITERS, key=first.count)
        doubts = {delimiter: self._doubts(delimiter, order) for delimiter in fitting}
        best = [d for d in fitting if doubts[d] == min(doubts.values())]
        if len(best) > 1:
            raise _undecided(self._line + 1, best)
        return best[0]

    def _doubts(self, delimiter: str, order: Sequence[Column]) -> tuple[int, int]:
        """How many lines ahead do without it, and how many of its rows have something else where
        an integer should stand."""
        rows = [values for _, values in self._rows_ahead(delimiter)]
        lacking = sum(len(values) < 2 for values in rows)
        misfits = sum(
            not all(map(_INTEGER.fullmatch, _where_integers(values, columns)))
            for values in rows
            for columns in [_columns_of(len(values), order, self._table)]
        )
        return lacking, misfits

    def _read_columns(self, order: Sequence[Column]) -> tuple[Column, ...]:
        values = _values(self._peek(), self.delimiter)
        if _is_header(values, _columns_of(len(values), order, self._table), self._table):
            return self._of_header(values)
        self._reject_late_header(order)
        return self._look_at_rows(order)

    def _reject_late_header(self, order: Sequence[Column]) -> None:
        """Whatever stands before it, the rows behind it have its columns."""
        for delimiter in DELIMITERS:
            for line, values in self._rows_ahead(delimiter):
                columns = _columns_of(len(values), order, self._table)
                if _is_late_header(values, columns, self._table):
                    raise FileRejected(
                        f"line {line}: the header stands here, and other lines before it: delete"
                        " these, or move the header to the first line"
                    )

    def _of_header(self, names: list[str]) -> tuple[Column, ...]:
        self._drop_line()
        while names and not names[-1].strip():
            names.pop()
            self.ignored += 1
        try:
            columns = named_columns(self._table, names)
        except WrongColumns as error:
            raise FileRejected(f"header: {error}") from error
        self._wanted = f"{len(columns)} values"
        return columns

    def _look_at_rows(self, order: Sequence[Column]) -> tuple[Column, ...]:
        """Of a file without a header: whether its rows have keys."""
        fitting = _counts(order, self._table)
        for line, values in self._rows_ahead(self.delimiter):
            if len(values) in fitting:
                self._wanted = f"{len(values)} values as in line {line}"
                return tuple(_columns_of(len(values), order, self._table))
        self._wanted = f"{' or '.join(map(str, fitting))} values"
        self._fitting = fitting
        return tuple(order)

    def _rows_ahead(self, delimiter: str) -> Iterator[tuple[int, list[str]]]:
        """The line that each one begins in, and its values. Blank lines have none, and neither has
        what is no CSV with this delimiter."""
        lines = self._look_ahead(READ_AHEAD_LINES)
        reader = _csv_reader(lines, delimiter=delimiter)
        while True:
            line = self._line + reader.line_num + 1
            try:
                values = next(reader)
            except csv.Error:
                values = []
            except StopIteration:
                return
            yield line, values

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
        for judged in self.judge(lines, first_line):
            original = "".join(lines[start : judged.end])
            if judged.reason:
                self.rejected += 1
                self.rejected_lines += judged.end - start
                self._reject(Rejected(first_line + start, judged.column, judged.reason, original))
            elif judged.row:
                good.append(judged.row)
            start = judged.end
        return good

    def judge(self, lines: Iterable[str], first_line: int) -> Iterator["Judged"]:
        """Each row in `lines`, good or not; the number of the first one is `first_line`. Raises
        FileRejected where a quoted value never ends: the rows behind it cannot be told from it."""
        read: list[str] = []
        reader = _csv_reader(_remembered(lines, read), delimiter=self.delimiter)
        end = 0
        while True:
            row: list[str] = []
            try:
                row = next(reader)
                column, reason = self._fault(row)
            except StopIteration:
                return
            except csv.Error as error:
                if _is_unclosed(error, reader.line_num - end):
                    began = _last_value_begins(read[end:], self.delimiter)
                    raise unclosed(first_line + end + began, _is_too_long(error)) from error
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
            # Behind the lines looked at ahead only one count is taken, though two would do.
            wanted = f"{expected} values" if len(row) in self._fitting else self._wanted
            return "", f"expected {wanted}, got {len(row)}"
        for value in row[expected:]:
            if value.strip():
                return "", f"a value without a column: {shown(value)}"
        for column, text in zip(self.columns, row):
            try:
                column.type.parse(text)
            except InvalidValue as error:
                return column.name, str(error)
        return "", ""


def named_columns(table: Table, names: Sequence[str]) -> tuple[Column, ...]:
    """The columns that have these names, in any letters. Raises WrongColumns unless they are all
    that a row needs."""
    known = {column.name.casefold(): column for column in table.columns}
    unknown = [name for name in names if name.strip().casefold() not in known]
    has = f"{table.name} has {', '.join(c.name for c in table.columns)}"
    if unknown:
        raise WrongColumns(f"no column is called {shown(unknown[0])}; {has}")
    columns = tuple(known[name.strip().casefold()] for name in names)
    missing = [c.name for c in table.columns if c not in columns]
    if table.auto_key and missing[:1] == [table.key.name]:
        del missing[0]
    if missing:
        raise WrongColumns(f"the column {missing[0]} is missing; {has}")
    if len(set(columns)) != len(columns):
        raise WrongColumns(f"a column is named twice; {has}")
    return columns


def not_utf8(line: int) -> FileRejected:
    return FileRejected(f"not UTF-8 in line {line}: save it as UTF-8")


def never_ending(line: int) -> FileRejected:
    return FileRejected(f"a row of some MB after line {line}: does a quoted value never end?")


def unclosed(line: int, is_too_long: bool) -> FileRejected:
    """Whether one that is too long ends later, nobody looks: it may go on for the whole file."""
    never = f"does not end within {csv.field_size_limit()} characters, which is more than any"
    end = f"{never} column takes" if is_too_long else "never ends"
    return FileRejected(
        f"line {line}: a quoted value begins here and {end}: close the quote; where it belongs"
        ' to the value, write the value in quotes and each quote within twice ("")'
    )


def _remembered(lines: Iterable[str], read: list[str]) -> Iterator[str]:
    """The same; those that were asked for are in `read`."""
    for line in lines:
        read.append(line)
        yield line


def _is_unclosed(error: csv.Error, line_count: int) -> bool:
    """Whether a row of so many lines is none because of a quote that is open. In one line a value
    may be too long by itself."""
    is_at_the_end = str(error).startswith("unexpected end of data")
    return is_at_the_end or (line_count > 1 and _is_too_long(error))


def _is_too_long(error: csv.Error) -> bool:
    return str(error).startswith("field larger than field limit")


def _last_value_begins(lines: list[str], delimiter: str) -> int:
    """In which of the `lines` of a row, from 0, its last value begins, which does not end. The last
    line may make it larger than `csv` takes."""
    lines = lines[:-1] or lines
    *_, value = next(csv.reader(lines, delimiter=delimiter))
    ends = len(_TEXT_LINE_END.findall(value))
    return len(lines) - ends - (not lines[-1].endswith(("\r", "\n")))


def _values(line: str, delimiter: str) -> list[str]:
    """None where one goes on in the next line, or is too long for a value: no header has such."""
    try:
        return next(_csv_reader([line], delimiter=delimiter))
    except csv.Error:
        return []


def _is_blank(line: str) -> bool:
    return not line.strip("\r\n \t")


def _is_blank_row(values: Texts) -> bool:
    return len(values) < 2 and not "".join(values).strip()


def _counts(order: Sequence[Column], table: Table) -> Sequence[int]:
    """How many values a row may have where `order` says which: the key may be left out where the
    database gives it."""
    most = len(order)
    return [most - 1, most] if table.auto_key and table.key in order else [most]


def _columns_of(count: int, order: Sequence[Column], table: Table) -> Sequence[Column]:
    """Those that a row of `count` values has values for; all of them where nothing fits."""
    if count == len(order) or count not in _counts(order, table):
        return order
    return [column for column in order if column != table.key]


def _undecided(line: int, delimiters: Sequence[str]) -> FileRejected:
    names = " and ".join(_DELIMITER_NAMES[delimiter] for delimiter in delimiters)
    return FileRejected(
        f"line {line}: {names} both make a row of it: name the one that stands between values in a"
        f" first line of its own, for example sep={delimiters[0]}"
    )


def _named_delimiter(text: str) -> str:
    """Raises FileRejected where no CSV is read with it."""
    if text not in DELIMITERS:
        raise FileRejected(
            f"sep={text}: expected comma, semicolon, tab or |: save it with one of these"
        )
    return text


def _is_header(values: Sequence[str], columns: Sequence[Column], table: Table) -> bool:
    """Whether it names a column, and has no integer where a row of `columns` would have one."""
    names = {column.name.casefold() for column in table.columns}
    if not any(value.strip().casefold() in names for value in values):
        return False
    integers = _where_integers(values, columns)
    return not integers or not all(map(_INTEGER.fullmatch, integers))


def _is_late_header(values: Sequence[str], columns: Sequence[Column], table: Table) -> bool:
    """Whether it can be nothing else, behind the first line: all its values are names of columns,
    or most of them are and a row would have integers."""
    names = {column.name.casefold() for column in table.columns}
    filled = [value.strip().casefold() for value in values if value.strip()]
    known = sum(value in names for value in filled)
    if known < 2 or known * 2 <= len(filled):
        return False
    has_integers = bool(_where_integers(values, columns))
    return known == len(filled) or (has_integers and _is_header(values, columns, table))


def _where_integers(values: Sequence[str], columns: Sequence[Column]) -> list[str]:
    return [v for c, v in zip(columns, values) if isinstance(c.type, Integer)]


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
