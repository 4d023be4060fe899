"""The dialect of an uploaded file: its delimiter, its header, and the columns its rows have.

The first lines of the file tell them. Where these allow two readings, the file is rejected.
"""

import csv
import functools
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from chalicelib.column_types import Integer
from chalicelib.error_text import shown
from chalicelib.errors import FileRejected
from chalicelib.ingest.text_lines import Lines
from chalicelib.tables import Column, Table

DELIMITERS = ",;\t|"
_DELIMITER_NAMES = {",": "comma", ";": "semicolon", "\t": "tab", "|": "|"}
# How many of the first lines are looked at. In a file without a header, the first of their rows
# that has a fitting number of values decides whether rows have keys. They also decide between
# delimiters. A header after the first line is looked for only among them.
READ_AHEAD_LINES = 50
_INTEGER = re.compile(r"-?[0-9]+")
# Excel writes a first line that names the delimiter. More delimiters may follow it in that line.
_SEPARATOR = re.compile(r'"?sep=([^\r\n])"?', re.IGNORECASE)

csv_reader = functools.partial(csv.reader, strict=True)


class WrongColumns(ValueError):
    """Names that are not the columns of a table. The text says which is wrong."""


class Dialect(NamedTuple):
    """How the rows of a file are written.

    `columns`: those that rows have values for, in the order of the values. `ignored`: how many
    empty values may follow these. `wanted`: how many values a row needs, in words. `fitting`: the
    numbers of values that would do; empty where a header or an earlier row has decided.
    """

    delimiter: str
    columns: Sequence[Column]
    ignored: int
    wanted: str
    fitting: Sequence[int]


def read_dialect(lines: Lines, table: Table, order: Sequence[Column]) -> Dialect:
    """Find the dialect of a file for `table`. Drops the lines before the first row. `order`: the
    columns of a file without a header. Raises FileRejected."""
    return _FirstLines(lines, table, order).dialect()


def named_columns(table: Table, names: Sequence[str]) -> tuple[Column, ...]:
    """The columns that have these names, in upper or lower case. Raises WrongColumns unless they
    are all that a row needs."""
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


class _FirstLines:
    """The lines that tell a file's dialect, and what they tell."""

    def __init__(self, lines: Lines, table: Table, order: Sequence[Column]) -> None:
        self._lines = lines
        self._table = table
        self._order = order

    def dialect(self) -> Dialect:
        delimiter = self._delimiter()
        values = _values(self._lines.peek(), delimiter)
        if self._is_header(values):
            return self._of_header(delimiter, values)
        self._reject_late_header()
        return self._of_rows(delimiter)

    # --- the delimiter ----------------------------------------------------------------------------

    def _delimiter(self) -> str:
        """The delimiter. Drops the line that names it, if there is one."""
        first = self._lines.peek()
        named = _SEPARATOR.match(first)
        if not named or first[named.end() :].lstrip(named[1]).strip():
            return self._delimiter_of(first)
        self._lines.drop()
        return _named_delimiter(named[1])

    def _delimiter_of(self, first: str) -> str:
        """The delimiter that makes as many values of the first line as a row has. Where several
        do, the one with the fewest odd lines. Raises FileRejected where two have equally few."""
        counts = self._counts()
        fitting = [d for d in DELIMITERS if len(_values(first, d)) in counts]
        if not fitting:
            return max(DELIMITERS, key=first.count)
        oddities = {delimiter: self._oddities(delimiter) for delimiter in fitting}
        best = [d for d in fitting if oddities[d] == min(oddities.values())]
        if len(best) > 1:
            raise _undecided(self._lines.number + 1, best)
        return best[0]

    def _oddities(self, delimiter: str) -> tuple[int, int]:
        """What speaks against the delimiter in the first lines: how many of them lack it, and how
        many rows have something else where an integer should stand."""
        rows = [values for _, values in self._rows_ahead(delimiter)]
        lacking = sum(len(values) < 2 for values in rows)
        misfits = sum(not _are_integers(self._where_integers(values)) for values in rows)
        return lacking, misfits

    # --- the header -------------------------------------------------------------------------------

    def _is_header(self, values: Sequence[str]) -> bool:
        """Whether a line names a column, and has something else where a row would have an
        integer."""
        names = {column.name.casefold() for column in self._table.columns}
        if not any(value.strip().casefold() in names for value in values):
            return False
        integers = self._where_integers(values)
        return not integers or not _are_integers(integers)

    def _of_header(self, delimiter: str, names: list[str]) -> Dialect:
        self._lines.drop()
        ignored = 0
        while names and not names[-1].strip():
            names.pop()
            ignored += 1
        try:
            columns = named_columns(self._table, names)
        except WrongColumns as error:
            raise FileRejected(f"header: {error}") from error
        return Dialect(delimiter, columns, ignored, f"{len(columns)} values", ())

    def _reject_late_header(self) -> None:
        """Raises FileRejected where a header stands after other lines: the rows after it have its
        columns, and what stands before it is no row."""
        for delimiter in DELIMITERS:
            for line, values in self._rows_ahead(delimiter):
                if self._is_late_header(values):
                    raise FileRejected(
                        f"line {line}: the header stands here, and other lines before it: delete"
                        " these, or move the header to the first line"
                    )

    def _is_late_header(self, values: Sequence[str]) -> bool:
        """Whether a line after the first one can only be a header: all its values are names of
        columns, or most of them are and a row would have integers."""
        names = {column.name.casefold() for column in self._table.columns}
        filled = [value.strip().casefold() for value in values if value.strip()]
        known = sum(value in names for value in filled)
        if known < 2 or known * 2 <= len(filled):
            return False
        has_integers = bool(self._where_integers(values))
        return known == len(filled) or (has_integers and self._is_header(values))

    # --- rows -------------------------------------------------------------------------------------

    def _of_rows(self, delimiter: str) -> Dialect:
        """The dialect of a file without a header: its first rows tell whether they have keys."""
        fitting = self._counts()
        for line, values in self._rows_ahead(delimiter):
            if len(values) in fitting:
                columns = self._columns_of(len(values))
                return Dialect(delimiter, columns, 0, f"{len(values)} values as in line {line}", ())
        wanted = f"{' or '.join(map(str, fitting))} values"
        return Dialect(delimiter, tuple(self._order), 0, wanted, fitting)

    def _rows_ahead(self, delimiter: str) -> Iterator[tuple[int, list[str]]]:
        """The first rows: the line where each begins, and its values. A blank line has no values,
        and a line that is no CSV with this delimiter has none either."""
        lines = self._lines.ahead(READ_AHEAD_LINES)
        reader = csv_reader(lines, delimiter=delimiter)
        while True:
            line = self._lines.number + reader.line_num + 1
            try:
                values = next(reader)
            except csv.Error:
                values = []
            except StopIteration:
                return
            yield line, values

    def _counts(self) -> Sequence[int]:
        """How many values a row without a header may have. The key may be left out where the
        database gives it."""
        most = len(self._order)
        may_lack_key = self._table.auto_key and self._table.key in self._order
        return [most - 1, most] if may_lack_key else [most]

    def _columns_of(self, count: int) -> tuple[Column, ...]:
        """The columns of a row with `count` values; all columns where no row has so many."""
        if count == len(self._order) or count not in self._counts():
            return tuple(self._order)
        return tuple(column for column in self._order if column != self._table.key)

    def _where_integers(self, values: Sequence[str]) -> list[str]:
        """The values that stand where a row has integers."""
        columns = self._columns_of(len(values))
        return [v for c, v in zip(columns, values) if isinstance(c.type, Integer)]


def _are_integers(values: Sequence[str]) -> bool:
    return all(map(_INTEGER.fullmatch, values))


def _values(line: str, delimiter: str) -> list[str]:
    """The values of one line. There are none where a value goes on in the next line or is too long:
    such a line is no header."""
    try:
        return next(csv_reader([line], delimiter=delimiter))
    except csv.Error:
        return []


def _undecided(line: int, delimiters: Sequence[str]) -> FileRejected:
    names = " and ".join(_DELIMITER_NAMES[delimiter] for delimiter in delimiters)
    return FileRejected(
        f"line {line}: {names} both make a row of it: name the one that stands between values in a"
        f" first line of its own, for example sep={delimiters[0]}"
    )


def _named_delimiter(text: str) -> str:
    """Raises FileRejected where the named character is not one of DELIMITERS."""
    if text not in DELIMITERS:
        raise FileRejected(
            f"sep={text}: expected comma, semicolon, tab or |: save it with one of these"
        )
    return text
