"""SQL of the engine `aurora`: a file's lines in a table of the session, checked where they are.

`staged_rows` runs it. For Aurora MySQL 3; but for LOAD DATA FROM S3 also for MySQL 8 and MariaDB.
Identifiers and bounds come from `tables` only; all else is a parameter.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

from chalicelib.db import Statement
from chalicelib.tables import Column, Integer, String

# Between the values of a row that was read elsewhere: no column takes it in a value.
NUL = "\0"

# What stands in a value beyond doubt: no quote, no line end, no NUL, nothing that ends a value.
_PLAIN = r'[^"\r\n\x00{delimiter}]'
# Of a key also: ASCII that shows, and spaces within.
_PLAIN_KEY = r"(?! )(?:(?!{delimiter})[ !#-~]){{1,{most}}}(?<! )"

# `n`: the number of the line. `cut`: what stands between the values of a row that every column
# takes; empty where the line holds none; NULL while that is in doubt.
CREATE: Sequence[Statement] = (
    ("DROP TEMPORARY TABLE IF EXISTS ingest_lines", ()),
    (
        "CREATE TEMPORARY TABLE ingest_lines (n BIGINT UNSIGNED NOT NULL AUTO_INCREMENT,"
        " line LONGBLOB NOT NULL, cut VARBINARY(1), PRIMARY KEY (n)) ENGINE = InnoDB",
        (),
    ),
)
DROP: Statement = ("DROP TEMPORARY TABLE ingest_lines", ())
MEASURE: Statement = (
    "SELECT COUNT(*), COALESCE(MAX(n), 0), COALESCE(MAX(LENGTH(line)), 0) FROM ingest_lines",
    (),
)
COUNT_ROWS: Statement = ("SELECT COUNT(*) FROM ingest_lines WHERE cut <> ''", ())


class Layout(NamedTuple):
    """How a file is to be read: what its lines end with, how many come before the first row, the
    columns these have values for, what stands between those, how many empty ones come last."""

    line_end: str
    skipped: int
    columns: Sequence[Column]
    delimiter: str
    ignored: int


class Settled(NamedTuple):
    """What is in the lines from `first` to `last`: the row of these values, or none."""

    first: int
    last: int
    values: Sequence[str]


def load_from_s3(uri: str, layout: Layout, in_no_line: str) -> Statement:
    """All lines of `uri` (s3://bucket/key) but those before the first row; with `cut` for what is a
    row beyond doubt. `in_no_line` is a text that none holds: LOAD DATA asks what ends a value."""
    integers = [i for i, c in enumerate(layout.columns) if isinstance(c.type, Integer)]
    in_range = " AND ".join(
        f"CAST({_value(i, _BARE, '%s')} AS SIGNED) BETWEEN {_bounds(layout.columns[i])}"
        for i in integers
    )
    return (
        "LOAD DATA FROM S3 FILE %s INTO TABLE ingest_lines CHARACTER SET binary"
        " FIELDS TERMINATED BY %s ENCLOSED BY '' ESCAPED BY '' LINES TERMINATED BY %s"
        f" IGNORE {layout.skipped:d} LINES (line) SET cut = CASE"
        " WHEN LEFT(line, 3) = X'EFBBBF' THEN NULL"  # a byte order mark
        " WHEN CAST(CONVERT(line USING utf8mb4) AS BINARY) = line"  # else not UTF-8
        " AND CONVERT(line USING utf8mb4) REGEXP %s"
        f" THEN IF({in_range or 'TRUE'}, %s, NULL) END",
        (
            *(uri, in_no_line, layout.line_end, _row_pattern(layout)),
            *[layout.delimiter] * (2 * len(integers)),
            layout.delimiter,
        ),
    )


def undecided(after: int, count: int) -> Statement:
    return (
        f"SELECT n, line FROM ingest_lines WHERE n > %s AND cut IS NULL ORDER BY n LIMIT {count:d}",
        (after,),
    )


def lines_from(n: int, count: int) -> Statement:
    return f"SELECT n, line FROM ingest_lines WHERE n >= %s ORDER BY n LIMIT {count:d}", (n,)


def settle(rows: Sequence[Settled]) -> list[Statement]:
    marks = ",".join(["(%s,%s,%s)"] * len(rows))
    lines = [
        part
        for row in rows
        for part in (row.first, NUL.join(row.values), NUL if row.values else "")
    ]
    first_lines = (
        f"INSERT INTO ingest_lines (n, line, cut) VALUES {marks}"
        " ON DUPLICATE KEY UPDATE line = VALUES(line), cut = VALUES(cut)"
    )
    other_lines = "UPDATE ingest_lines SET cut = '' WHERE n BETWEEN %s AND %s"
    long_rows = [row for row in rows if row.last > row.first]
    return [
        (first_lines, lines),
        *[(other_lines, (row.first + 1, row.last)) for row in long_rows],
    ]


def merge(target: str, columns: Sequence[Column], *, replaces: bool) -> Statement:
    """The rows into the table `target`, in the order of the lines: one takes the place of what has
    its key where it `replaces`."""
    names = ",".join(column.name for column in columns)
    verb = "REPLACE" if replaces else "INSERT"
    return f"{verb} INTO {target} ({names}) {_rows(columns)}", ()


def first_rows(columns: Sequence[Column], count: int) -> Statement:
    """The values of those that are merged first."""
    return f"{_rows(columns)} LIMIT {count:d}", ()


def highest_key(columns: Sequence[Column], key: Column) -> Statement:
    """Of all rows; NULL where there is none."""
    value = _value(columns.index(key), "content", "cut")
    return f"SELECT MAX(CAST({value} AS UNSIGNED)) FROM ({_CONTENTS}) AS of_rows", ()


def _rows(columns: Sequence[Column]) -> str:
    values = ",".join(
        f"CONVERT({_value(i, 'content', 'cut')} USING utf8mb4)" for i in range(len(columns))
    )
    return f"SELECT {values} FROM ({_CONTENTS}) AS of_rows ORDER BY n"


# A line that is a row beyond doubt, without the quotes around values and half a line end CR LF.
_BARE = "REPLACE(TRIM(TRAILING X'0D' FROM line), X'22', '')"
_CONTENTS = (
    f"SELECT n, cut, IF(cut = X'00', line, {_BARE}) AS content FROM ingest_lines WHERE cut <> ''"
)


def _value(position: int, content: str, cut: str) -> str:
    return f"SUBSTRING_INDEX(SUBSTRING_INDEX({content}, {cut}, {position + 1:d}), {cut}, -1)"


def _bounds(column: Column) -> str:
    assert isinstance(column.type, Integer)
    return f"{column.type.minimum:d} AND {column.type.maximum:d}"


def _row_pattern(layout: Layout) -> str:
    """Of a whole line, in what the regular expressions of ICU and PCRE have in common."""
    delimiter = re.escape(layout.delimiter)
    values = [_value_pattern(column.type, delimiter) for column in layout.columns]
    row = delimiter.join(f'(?:{value}|"{value}")' for value in values)
    return rf"\A{row}{delimiter * layout.ignored}\r?\z"


def _value_pattern(type_: Integer | String, delimiter: str) -> str:
    """Some of what `parse` of the type takes; the bounds of integers remain to be checked."""
    if isinstance(type_, Integer):
        return rf"(?:0|-?[1-9][0-9]{{0,{type_.width - 1:d}}}+)"
    if type_.is_key or type_.outside:
        return _PLAIN_KEY.format(delimiter=delimiter, most=type_.max_characters)
    return f"{_PLAIN.format(delimiter=delimiter)}{{0,{type_.max_characters:d}}}+"
