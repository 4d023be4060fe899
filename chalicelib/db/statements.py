"""SQL statements for the rows of the declared tables, each with its parameters.

Identifiers come from `tables` only; a value is always a parameter.
"""

import hashlib
from collections.abc import Mapping, Sequence

from chalicelib.column_types import String
from chalicelib.tables import Column, Key, Row, Table

# SQL with %s for each of its parameters, and those.
Statement = tuple[str, Sequence[Key]]

START: Statement = ("START TRANSACTION", ())
COMMIT: Statement = ("COMMIT", ())
PING: Statement = ("SELECT 1", ())
ROLLBACK: Statement = ("ROLLBACK", ())

# 1 on a replica: Aurora has the second one there, others the first. From MariaDB 12 on the first is
# a name: OFF, ON, NO_LOCK or NO_LOCK_NO_ADMIN. As a number each name would be 0.
READ_ONLY = (
    "(CAST(@@read_only AS CHAR) NOT IN ('0', 'OFF')"
    " OR CAST(@@innodb_read_only AS CHAR) NOT IN ('0', 'OFF'))"
)
IS_READ_ONLY: Statement = (f"SELECT {READ_ONLY}", ())

# The column may have another character set than the connection: both become UTF-8, then bytes.
_EXACT = "CAST(CONVERT({} USING utf8mb4) AS BINARY)"
_BYTES = "CAST(%s AS BINARY)"
WAIT_FOR_WRITERS = " LOCK IN SHARE MODE"
MICROSECONDS_NOW = "TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6))"
# When this statement began.
NOW: Statement = (f"SELECT {MICROSECONDS_NOW}", ())
# That the last INSERT of rows without keys was given.
FIRST_NEW_KEY: Statement = ("SELECT LAST_INSERT_ID()", ())
# One more is out of range.
_HIGHEST_INTEGER = 2**63 - 1


def guarded(value: str, condition: str) -> str:
    """SQL of the integer `value`. An error unless the `condition` is true: then the server runs
    none of the statements behind it. A subquery with too many rows is an error too, but takes the
    server 20 µs more."""
    return f"{value} + 0 * ({_HIGHEST_INTEGER} + (({condition}) IS NOT TRUE))"


# An error on a replica.
GUARD_WRITER: Statement = (f"SELECT {guarded('1', f'NOT {READ_ONLY}')}", ())


def select(
    table: Table,
    column: Column,
    values: Sequence[Key],
    max_rows: int,
    *,
    after: Key | None = None,
    after_writers: bool = False,
) -> Statement:
    """By a lookup: in the order of the keys, `max_rows` at the most, from behind the key `after`
    on."""
    names = _names(table.columns) + _applied(table, is_locked=after_writers)
    sql, values = _rows_with_exactly(table, column, values, names)
    if after is not None:
        sql += f" AND {table.key.name} > %s"
        values = [*values, after]
    if column is not table.key:
        sql += f" ORDER BY {table.key.name} LIMIT {max_rows:d}"
    return sql + WAIT_FOR_WRITERS * after_writers, values


def select_page(table: Table, limit: int, after: Key | None) -> Statement:
    """Rows in the order of their keys, from the one after the key `after` on."""
    condition = f" WHERE {table.key.name} > %s" * (after is not None)
    return (
        f"SELECT {_names(table.columns)} FROM {table.identifier}{condition}"
        f" ORDER BY {table.key.name} LIMIT {limit:d}",
        () if after is None else (after,),
    )


def lock(table: Table, keys: Sequence[Key]) -> Statement:
    names = _names(table.columns) + _applied(table, is_locked=True)
    sql = f"{_rows_with(table, table.key, len(keys), names)} ORDER BY {table.key.name} FOR UPDATE"
    return sql, keys


def rows_of_keys(table: Table, keys: Sequence[Key]) -> Statement:
    """In any order."""
    return _rows_with(table, table.key, len(keys)), keys


def others(
    table: Table, column: Column, values: Sequence[Key], keys: Sequence[Key], max_rows: int
) -> Statement:
    """The rows with exactly one of `values`, but for those with `keys`; `max_rows` at the most. Of
    a text that is longer than declared, one character more than that."""
    names = _cut(table.columns) + _applied(table)
    sql, parameters = _rows_with_exactly(table, column, values, names)
    if keys:
        # No plain column: for each value of the lookup MySQL would plan a range between each two
        # of the keys. A write of 300 rows took 2 s.
        is_text = isinstance(table.key.type, String)
        key = f"CONCAT({table.key.name})" if is_text else _plain(table.key)
        sql += f" AND {key} NOT IN ({_marks(len(keys))})"
    return f"{sql} LIMIT {max_rows:d}", [*parameters, *keys]


def insert(table: Table, rows: Sequence[Row]) -> Statement:
    return _values(table, table.columns, rows)


def insert_keyless(table: Table, rows: Sequence[Row]) -> Statement:
    """The database gives the keys."""
    return _values(table, table.columns[1:], [row[1:] for row in rows])


def replace(table: Table, rows: Sequence[Row]) -> Statement:
    """For rows that exist. No REPLACE: that would delete and insert."""
    updates = ",".join(f"{c.name}=VALUES({c.name})" for c in table.columns[1:])
    text, parameters = insert(table, rows)
    return f"{text} ON DUPLICATE KEY UPDATE {updates}", parameters


def guard_rows(table: Table, keys: Sequence[Key], texts: Sequence[bytes]) -> Statement:
    """Lock the rows with `keys`. An error where one is missing, or has other JSON than the text.
    MySQL 9.6 and later have no SHA1."""
    found = f"SHA2({_joined(table, f'CONVERT({_json(table)} USING utf8mb4)')},256)"
    expected = hashlib.sha256(b"\n".join(texts)).hexdigest()
    condition, values = _rows_of(table, keys)
    return (
        f"SELECT {guarded('1', f'{found} = %s')} FROM {table.identifier}{condition} FOR UPDATE",
        (expected, *values),
    )


def update_columns(
    table: Table, keys: Sequence[int], columns: Mapping[Column, Sequence[str]]
) -> Statement:
    """Give the rows with these rising keys new values in some columns, each as a text. To insert
    them ON DUPLICATE KEY takes three times as long."""
    first = keys[0]
    place = f"{table.key.name} - %s"
    places: Sequence[Key] = [first - 1]
    if keys[-1] - first >= len(keys):  # there are gaps
        place, places = f"INTERVAL({table.key.name},{_marks(len(keys))})", keys
    condition, values = _rows_of(table, keys)
    sets = [f"{column.name}=ELT({place},{_marks(len(keys))})" for column in columns]
    parameters = [value for texts in columns.values() for value in (*places, *texts)]
    return (
        f"UPDATE {table.identifier} SET {','.join(sets)}{condition}",
        [*parameters, *values],
    )


def _rows_of(table: Table, keys: Sequence[Key]) -> Statement:
    """The condition of the rows with these rising keys."""
    first, last = keys[0], keys[-1]
    if isinstance(first, int) and isinstance(last, int) and last - first < len(keys):
        return f" WHERE {table.key.name} BETWEEN %s AND %s", (first, last)  # less to parse
    return f" WHERE {table.key.name} IN ({_marks(len(keys))})", keys


def delete(table: Table, keys: Sequence[Key]) -> Statement:
    return f"DELETE FROM {table.identifier} WHERE {table.key.name} IN ({_marks(len(keys))})", keys


def watches(table: Table, keys: Sequence[Key]) -> Statement:
    """The watches on these rows, and on every row: key, form and direction."""
    texts = ["*", *map(str, keys)]
    return (
        "SELECT row_key, form, direction FROM watched WHERE table_name = %s"
        f" AND row_key IN ({_marks(len(texts))})",
        [table.name, *texts],
    )


def select_range(
    table: Table, limit: int, after: Key | None, last: Key | None, *, as_json: bool
) -> Statement:
    """Rows in the order of their keys: behind the key `after` and up to the key `last`, where these
    are given. With `as_json` each row is its key and its JSON."""
    condition, values = _between(table, after, last)
    names = f"{table.key.name},{_json(table)}" if as_json else _names(table.columns)
    return (
        f"SELECT {names} FROM {table.identifier}{condition}"
        f" ORDER BY {table.key.name} LIMIT {limit:d}",
        values,
    )


def last_in_range(table: Table, limit: int, after: Key | None, last: Key | None) -> Statement:
    """The key of the last row of `select_range`, where there are `limit` rows."""
    condition, values = _between(table, after, last)
    return (
        f"SELECT {table.key.name} FROM {table.identifier}{condition}"
        f" ORDER BY {table.key.name} LIMIT 1 OFFSET {limit - 1:d}",
        values,
    )


def join_range(table: Table, after: Key | None, last: Key | None) -> Statement:
    """All of these rows in one value, which is read much faster: a line with the key and a line
    with the row's JSON for each; and how many they are. A row whose JSON is NULL is left out, and
    the server cuts what is too long for it."""
    condition, values = _between(table, after, last)
    lines = _joined(table, f"CONCAT({_json_value(table.key)},'\\n',{_json(table)})")
    return f"SELECT {lines},COUNT(*) FROM {table.identifier}{condition}", values


def key_behind(table: Table, after: Key | None, count: int) -> Statement:
    """The key of the row that comes as number `count` behind the key `after`, and the next one."""
    condition = f" WHERE {table.key.name} > %s" * (after is not None)
    return (
        f"SELECT {table.key.name} FROM {table.identifier}{condition}"
        f" ORDER BY {table.key.name} LIMIT 2 OFFSET {count - 1:d}",
        () if after is None else (after,),
    )


def count_rows(table: Table) -> Statement:
    return f"SELECT COUNT(*) FROM {table.identifier}", ()


def highest_key(table: Table) -> Statement:
    return f"SELECT MAX({table.key.name}) FROM {table.identifier}", ()


def guard_time(until: int) -> Statement:
    """When it began; an error after `until`, in microseconds of the database's clock, and on a
    replica."""
    is_good = f"{MICROSECONDS_NOW} < %s AND NOT {READ_ONLY}"
    return f"SELECT {guarded(MICROSECONDS_NOW, is_good)}", (until,)


def guard_new_keys(count: int, highest: int, until: int) -> Statement:
    """The first of the `count` keys that the INSERT before it was given. An error where one of them
    is above `highest`; and after `until`, as `guard_time`."""
    is_good = f"LAST_INSERT_ID() + %s <= %s AND {MICROSECONDS_NOW} < %s"
    return f"SELECT {guarded('LAST_INSERT_ID()', is_good)}", (count - 1, highest, until)


def _rows_with(table: Table, column: Column, count: int, names: str = "") -> str:
    names = names or _names(table.columns)
    return f"SELECT {names} FROM {table.identifier} WHERE {column.name} IN ({_marks(count)})"


def _rows_with_exactly(
    table: Table, column: Column, values: Sequence[Key], names: str = ""
) -> Statement:
    """By a lookup of text only rows with exactly one of the texts: a collation may take others for
    the same, such as 'Rome ' for 'Rome'."""
    sql = _rows_with(table, column, len(values), names)
    if column is not table.key and isinstance(column.type, String):
        sql += f" AND {_EXACT.format(column.name)} IN ({_marks(len(values), _BYTES)})"
        values = [*values, *values]
    return sql, values


def _values(table: Table, columns: Sequence[Column], rows: Sequence[Row]) -> Statement:
    marks = ",".join([f"({_marks(len(columns))})"] * len(rows))
    parameters = [value for row in rows for value in row]
    return f"INSERT INTO {table.identifier} ({_names(columns)}) VALUES {marks}", parameters


def _names(columns: Sequence[Column]) -> str:
    return ",".join(column.name for column in columns)


def _between(table: Table, after: Key | None, last: Key | None) -> Statement:
    """The condition of rows behind one key and up to the other, where these are given."""
    given = [(sign, key) for sign, key in [(">", after), ("<=", last)] if key is not None]
    condition = " AND ".join(f"{table.key.name} {sign} %s" for sign, _ in given)
    return f" WHERE {condition}" * bool(given), [key for _, key in given]


def _joined(table: Table, text: str) -> str:
    """These texts of rows, by key, as lines of one. Integers between two keys come in their order
    anyhow: who reads them makes sure of that."""
    order = f" ORDER BY {table.key.name}" if isinstance(table.key.type, String) else ""
    return f"GROUP_CONCAT({text}{order} SEPARATOR '\\n')"


def _json(table: Table) -> str:
    """A row as `Table.encode` has it, unless a text in it has a character that needs an escape: the
    JSON then has a backslash. NULL where a value is NULL."""
    words = []
    for column in table.columns:
        words += [f"""',"{column.name}":'""", _json_value(column)]
    return f"CONCAT('{{{words[0][2:]},{','.join(words[1:])},'}}')"


def _json_value(column: Column) -> str:
    value = _plain(column)
    return f"JSON_QUOTE({value})" if isinstance(column.type, String) else value


def _plain(column: Column) -> str:
    """A value as JSON and Python's `str` show it: without the zeros of ZEROFILL."""
    return column.name if isinstance(column.type, String) else f"{column.name}+0"


def _applied(table: Table, *, is_locked: bool = False) -> str:
    """Of a table with write-behind counters one more column: how much of the totals in Redis is in
    the row (`applied_deltas`). Beside a row that is locked, it is read as it is behind the lock."""
    if not table.write_behind:
        return ""
    where = f"SELECT applied FROM applied_deltas WHERE table_name = '{table.name}' AND row_key ="
    key = f"CONVERT({table.identifier}.{_plain(table.key)} USING utf8mb4) COLLATE utf8mb4_bin"
    lock = WAIT_FOR_WRITERS * is_locked
    return f",COALESCE(({where} {key}{lock}), ({where} ''{lock}), '')"


def _cut(columns: Sequence[Column]) -> str:
    return ",".join(
        f"LEFT({c.name},{c.type.max_characters + 1:d})" if isinstance(c.type, String) else c.name
        for c in columns
    )


def _marks(count: int, mark: str = "%s") -> str:
    return ",".join([mark] * count)
