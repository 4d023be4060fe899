"""The SQL of LOAD DATA FROM S3: stages a file's lines in a temporary table, and checks them there.

It is for Aurora MySQL 3. All of it but LOAD DATA FROM S3 itself also runs on MySQL 8 and MariaDB.
Identifiers and bounds come from `tables` only; every other value is a parameter.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

from chalicelib.column_types import Integer, String
from chalicelib.db import Statement
from chalicelib.tables import Column

# Stands between the values of a row that the function has judged. No column takes it in a value.
NUL = "\0"

# A character that may stand in a value that is certainly good: no quote, line end, NUL or
# delimiter.
_PLAIN = r'[^"\r\n\x00{delimiter}]'
# A key that is certainly good: printable ASCII, with spaces only inside.
_PLAIN_KEY = r"(?! )(?:(?!{delimiter})[ !#-~]){{1,{most}}}(?<! )"

# `n`: the number of the line. `cut`: the character between the values, where the line is a good
# row; empty where it holds no good row; NULL while it is undecided.
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
    """How the database is to read a file: what its lines end with, how many stand before the first
    row (`skipped`), the columns of a row, the delimiter, and how many empty values may follow in a
    row (`ignored`)."""

    line_end: str
    skipped: int
    columns: Sequence[Column]
    delimiter: str
    ignored: int


class Settled(NamedTuple):
    """The lines from `first` to `last` are one row with these values; or no good row, where there
    are none."""

    first: int
    last: int
    values: Sequence[str]


def load_from_s3(uri: str, layout: Layout, in_no_line: str) -> Statement:
    """Load all lines of `uri` (s3://bucket/key) but those before the first row. Sets `cut` where
    the line is certainly a good row. `in_no_line`: a text that no line holds, because LOAD DATA
    needs to know what ends a value."""
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
    """Put the rows into the table `target`, in the order of the lines. With `replaces` a row
    replaces the one that has its key."""
    names = ",".join(column.name for column in columns)
    verb = "REPLACE" if replaces else "INSERT"
    return f"{verb} INTO {target} ({names}) {_rows(columns)}", ()


def first_rows(columns: Sequence[Column], count: int) -> Statement:
    """The values of the rows that are merged first."""
    return f"{_rows(columns)} LIMIT {count:d}", ()


def highest_key(columns: Sequence[Column], key: Column) -> Statement:
    """The highest key of all rows; NULL where there is no row."""
    value = _value(columns.index(key), "content", "cut")
    return f"SELECT MAX(CAST({value} AS UNSIGNED)) FROM ({_CONTENTS}) AS of_rows", ()


def _rows(columns: Sequence[Column]) -> str:
    values = ",".join(
        f"CONVERT({_value(i, 'content', 'cut')} USING utf8mb4)" for i in range(len(columns))
    )
    return f"SELECT {values} FROM ({_CONTENTS}) AS of_rows ORDER BY n"


# A line that is certainly a good row, without the quotes around its values, and without the CR that
# is left of a line end CR LF.
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
    """The regular expression of a whole line that is a good row. ICU and PCRE both know its
    syntax."""
    delimiter = re.escape(layout.delimiter)
    values = [_value_pattern(column.type, delimiter) for column in layout.columns]
    row = delimiter.join(f'(?:{value}|"{value}")' for value in values)
    return rf"\A{row}{delimiter * layout.ignored}\r?\z"


def _value_pattern(type_: Integer | String, delimiter: str) -> str:
    """The regular expression of values that `parse` of the type takes. It does not match all of
    them, and it does not check the bounds of integers."""
    if isinstance(type_, Integer):
        return rf"(?:0|-?[1-9][0-9]{{0,{type_.width - 1:d}}}+)"
    if type_.is_key or type_.outside:
        return _PLAIN_KEY.format(delimiter=delimiter, most=type_.max_characters)
    return f"{_PLAIN.format(delimiter=delimiter)}{{0,{type_.max_characters:d}}}+"
