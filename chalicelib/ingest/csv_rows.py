"""The rows of an uploaded CSV file: each one is checked; a rejected one is reported with a reason.

The file is decoded, parsed and checked in chunks, in constant memory. The types of the columns
check the values, as they do for the API. This module does no I/O.
"""

import csv
import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from chalicelib.column_types import InvalidValue
from chalicelib.error_text import shown
from chalicelib.errors import FileRejected
from chalicelib.ingest.csv_dialect import csv_reader, read_dialect
from chalicelib.ingest.text_lines import BATCH_BYTES, Lines
from chalicelib.tables import Column, Table

BATCH_ROWS = 1_000
FIRST_ROWS = 3
_TEXT_LINE_END = re.compile(r"\r\n?|\n")

# The values of one row as the file has them.
Texts = Sequence[str]


@dataclass(frozen=True)
class Rejected:
    """A row that is not loaded. `line`: the number of its first line, from 1. `original`: the text
    of its lines."""

    line: int
    column: str
    reason: str
    original: str


class Judged(NamedTuple):
    """A row that was checked. `end`: the index of the line after it. `row`: its values, where it is
    to be loaded. `column` and `reason` say why it is rejected. A blank line has none of these."""

    end: int
    row: list[str]
    column: str
    reason: str


class CsvRows:
    """The rows of one file. The constructor reads its dialect. Raises FileRejected, at any time,
    for what is wrong with the file as a whole.

    `columns`: those that rows have values for, in the order of the values. `lines_before`: how many
    lines stand before the first row. `rows`: how many were given out. `first_rows`: the first of
    them, at most FIRST_ROWS. `rejected`: how many rows were rejected; they stand in
    `rejected_lines` lines, because a quote too many makes one row of many lines.
    """

    def __init__(
        self,
        chunks: Iterator[bytes],
        table: Table,
        reject: Callable[[Rejected], None],
        order: Sequence[Column] = (),
    ) -> None:
        """`reject` is told of each row that is not loaded, in the order of the file. `order`: the
        columns of a file without a header; the table's own where it is empty."""
        self.rows = 0
        self.rejected = 0
        self.rejected_lines = 0
        self.first_rows: list[list[str]] = []
        self._table = table
        self._reject = reject
        self._lines = Lines(chunks)
        self.dialect = read_dialect(self._lines, table, order or table.columns)
        self.columns = self.dialect.columns
        self.lines_before = self._lines.number
        self._reader = csv_reader(iter(self._lines), delimiter=self.dialect.delimiter)

    def batches(self) -> Iterator[list[list[str]]]:
        """Checked rows, each with a text for each of `columns`; about a thousand at a time."""
        while True:
            try:
                rows = self._next_rows()
                lines, first_line = self._lines.take()
                if not lines:
                    return
                checked = rows if self._are_good(rows) else self._good_ones(lines, first_line)
            except csv.Error:
                checked = self._good_ones(*self._lines.take())
            except UnicodeDecodeError as error:
                raise self._lines.not_utf8(error) from error
            self.rows += len(checked)
            if checked:
                self.first_rows += checked[: FIRST_ROWS - len(self.first_rows)]
                yield checked

    def _next_rows(self) -> list[list[str]]:
        """The rows of the next batch, as the reader parses them: BATCH_ROWS or BATCH_BYTES, or what
        is left."""
        lines = self._lines
        rows: list[list[str]] = []
        for row in itertools.islice(self._reader, BATCH_ROWS):
            rows.append(row)
            if lines.held_bytes >= BATCH_BYTES:
                break
        return rows

    def _are_good(self, rows: list[list[str]]) -> bool:
        """Whether all these rows can be loaded. Fast: it checks column by column."""
        if self.dialect.ignored or set(map(len, rows)) != {len(self.columns)}:
            return False
        return all(
            column.type.takes_texts(texts) for column, texts in zip(self.columns, zip(*rows))
        )

    def _good_ones(self, lines: list[str], first_line: int) -> list[list[str]]:
        """The rows in these lines that can be loaded. Reports the others. Slow: it checks row by
        row, to say what is wrong."""
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
        """Each row in `lines`, good or not. `first_line`: the number of the first line. Raises
        FileRejected where a quoted value never ends: the rows after it look like a part of it."""
        read: list[str] = []
        reader = csv_reader(_remembered(lines, read), delimiter=self.dialect.delimiter)
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
                    began = _last_value_begins(read[end:], self.dialect.delimiter)
                    raise unclosed(first_line + end + began, _is_too_long(error)) from error
                column, reason = "", f"not CSV: {error}"
            end = max(reader.line_num, end + 1)
            is_good = not reason and not _is_blank_row(row)
            yield Judged(end, row[: len(self.columns)] if is_good else [], column, reason)

    def _fault(self, row: list[str]) -> tuple[str, str]:
        """The column and what is wrong with its value; two empty texts where nothing is wrong. An
        empty line is no row."""
        expected = len(self.columns)
        if _is_blank_row(row):
            return "", ""
        if len(row) > expected + self.dialect.ignored or len(row) < expected:
            wanted = self.dialect.wanted
            if len(row) in self.dialect.fitting:
                # `wanted` names this number too, but after the first lines only one will do.
                wanted = f"{expected} values"
            return "", f"expected {wanted}, got {len(row)}"
        for value in row[expected:]:
            if value.strip():
                return "", f"a value without a column: {shown(value)}"
        for column, text in zip(self.columns, row):
            try:
                column.type.parse(text)
            except InvalidValue as error:
                return column.name, f"{error}{self._way_out(column, text)}"
        return "", ""

    def _way_out(self, column: Column, text: str) -> str:
        """What to do about an empty key that the database would give."""
        if text.strip() or column != self._table.key or not self._table.auto_key:
            return ""
        return f": give each row one, or leave out the column {column.name}"


def unclosed(line: int, is_too_long: bool) -> FileRejected:
    """The error for a quoted value without an end. One that is too long may end later: nobody looks
    for its end, because it may go on for the whole file."""
    never = f"does not end within {csv.field_size_limit()} characters, which is more than any"
    end = f"{never} column takes" if is_too_long else "never ends"
    return FileRejected(
        f"line {line}: a quoted value begins here and {end}: close the quote; where it belongs"
        ' to the value, write the value in quotes and each quote within twice ("")'
    )


def _remembered(lines: Iterable[str], read: list[str]) -> Iterator[str]:
    """The same lines. Each line that was asked for is added to `read`."""
    for line in lines:
        read.append(line)
        yield line


def _is_unclosed(error: csv.Error, line_count: int) -> bool:
    """Whether a row is wrong because of a quote that was not closed. In a row of one line a value
    may also be too long by itself."""
    is_at_the_end = str(error).startswith("unexpected end of data")
    return is_at_the_end or (line_count > 1 and _is_too_long(error))


def _is_too_long(error: csv.Error) -> bool:
    return str(error).startswith("field larger than field limit")


def _last_value_begins(lines: list[str], delimiter: str) -> int:
    """The index of the line where the last value of a row begins. That value does not end."""
    lines = lines[:-1] or lines  # with the last line, the value may be longer than `csv` takes
    *_, value = next(csv.reader(lines, delimiter=delimiter))
    ends = len(_TEXT_LINE_END.findall(value))
    return len(lines) - ends - (not lines[-1].endswith(("\r", "\n")))


def _is_blank_row(values: Texts) -> bool:
    return len(values) < 2 and not "".join(values).strip()
