"""How a table of the database differs from its declaration, in words; and what its columns take.

There are three kinds of differences:

- An error: every request for the table is rejected, because it would fail or its answer could be
  wrong. A missing table or column; a view; an engine other than InnoDB (which could not undo a
  failed write); a column of another type, or one that the database computes; a key that is not the
  primary key, or not AUTO_INCREMENT where the declaration says so; a text key whose collation
  treats 'a' and 'A' as equal (to delete the one would delete the other), or whose character set is
  not utf8mb4 (others cannot even be asked for a character that they lack, and have another order).
- A required column that is not declared: reads work, new rows are rejected.
- A warning: everything works except what the text names. A column that allows NULL (a row with NULL
  cannot be read), a column with less room than declared (a longer value is a bad request), a key
  with more room (no request can name all its keys), a right to write that DB_USER lacks, a lookup
  without an index.

Other differences do no harm and are not reported: the collation of text that is no key (a read by a
lookup of text returns only rows with exactly that text), the order of columns, a default, other
columns that may be left out, more room than declared where it is not the key, other indexes.
CHAR does not count as a string, because it loses the spaces at the end of a value.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum

from chalicelib.column_types import Integer, String
from chalicelib.db.change_capture import RECORDS
from chalicelib.db.information_schema import Found
from chalicelib.tables import TABLES, Column, Table

APPLY_SCHEMA = (
    "mysql -h $DB_HOST -P $DB_PORT -u $DB_USER -p $DB_NAME < seed/schema.sql (on AWS: make infra,"
    " make adopt) makes what is missing"
)
GENERATIONS = "cache_generation"
# The service's own tables, and what needs them.
OWN_TABLES = {
    GENERATIONS: "every write and every read with the cache",
    RECORDS: "what other clients of the database change",
    "idempotency": "requests with an idempotency key",
    "ingest_log": "uploaded files",
    "watched": "every write and every read with the cache",
    "watched_ranges": "the sync",
    "sync_lease": "the sync",
    "sync_runs": "the sync",
    "sync_ranges": "the sync",
    "applied_deltas": "write-behind counters",
}
# Columns that these tables did not have from the beginning: seed/schema.sql changes no table.
ADDED_COLUMNS = {
    (GENERATIONS, "server"): "VARCHAR(64) NOT NULL DEFAULT ''",
    (GENERATIONS, "retired_at"): "DATETIME(6) NOT NULL DEFAULT '2000-01-01'",
    ("watched", "unfinished"): "VARCHAR(64) CHARACTER SET ascii NULL",
    ("watched", "beginning"): "BIGINT UNSIGNED NULL DEFAULT 0",
    ("watched", "row_then"): "CHAR(16) CHARACTER SET ascii NULL",
    ("watched_ranges", "unfinished"): "MEDIUMTEXT CHARACTER SET ascii NULL",
    ("sync_lease", "turns"): "BIGINT UNSIGNED NOT NULL DEFAULT 0",
}
OTHER_VERSION = (
    "one of the service's own tables lacks a column, or a trigger names one that is not there:"
    f" compare {', '.join(OWN_TABLES)} with seed/schema.sql; the log names the column"
)

_INTEGER_BITS = {"tinyint": 8, "smallint": 16, "mediumint": 24, "int": 32, "bigint": 64}
_TEXTS = frozenset({"varchar", "tinytext", "text", "mediumtext", "longtext"})
_COMPUTED = re.compile("VIRTUAL|STORED|PERSISTENT")  # in `extra`, of MariaDB and of MySQL
# MySQL's latin1 is cp1252, but five bytes that cp1252 leaves undefined are control characters.
_LATIN1 = bytes(range(256)).decode("cp1252", "ignore") + "\x81\x8d\x8f\x90\x9d"
_NO_BMP = "[\U00010000-\U0010ffff]"
# A regular expression of the characters that a character set lacks. Character sets that are not in
# this table are not checked.
_OUTSIDE = {
    "ascii": r"[^\x00-\x7f]",
    "latin1": f"[^{re.escape(_LATIN1)}]",
    **dict.fromkeys(("utf8", "utf8mb3", "ucs2"), _NO_BMP),
}
# Collations that do not take 'a' and 'a ' for equal, of MariaDB and of MySQL.
_NO_PAD = re.compile("_nopad_|_0900_")


class Stops(Enum):
    """What a difference stops."""

    EVERYTHING = "every request"
    NEW_ROWS = "new rows"
    NOTHING = "nothing"


@dataclass(frozen=True)
class Difference:
    text: str
    stops: Stops = Stops.EVERYTHING


def differences(table: Table, found: Sequence[Found]) -> list[Difference]:
    """The differences between a declared table and its real columns. Those that stop most come
    first."""
    if not found:
        return [Difference(_missing_table(table))]
    by_name = {column.name.lower(): column for column in found}
    pairs = [(column, by_name.get(column.name.lower())) for column in table.columns]
    present = [(column, real) for column, real in pairs if real is not None]
    errors = [
        *_engine(table, found[0]),
        *[_no_column(table, column, found) for column, real in pairs if real is None],
        *[text for column, real in present for text in _type(table, column, real, found)],
        *_key(table, found),
    ]
    return [
        *map(Difference, errors),
        *[Difference(text, Stops.NEW_ROWS) for text in _required(table, found)],
        *[Difference(text, Stops.NOTHING) for text in missing_rights([r for _, r in present])],
        *[Difference(text, Stops.NOTHING) for text in _nullable(table, present)],
        *[Difference(text, Stops.NOTHING) for text in _narrow(table, present)],
        *[Difference(text, Stops.NOTHING) for text in _wide_key(table, present)],
        *[Difference(text, Stops.NOTHING) for text in _unindexed(table, present)],
    ]


def may_rewrite(found: Sequence[Found]) -> bool:
    """Whether the table may store other values than it is given, because of a trigger."""
    return any(column.triggers or not column.sees_triggers for column in found)


def missing_own_tables(names: Iterable[str]) -> str:
    """An error text for those of OWN_TABLES that are not in `names`; empty where none is
    missing."""
    missing = [name for name in OWN_TABLES if name not in set(names)]
    if not missing:
        return ""
    needed = ", ".join(f"{name} ({OWN_TABLES[name]} need it)" for name in missing)
    return (
        f"the database lacks the service's own {needed}, or DB_USER has no rights there:"
        f" {APPLY_SCHEMA}"
    )


def missing_added_columns(found: Mapping[str, Sequence[Found]]) -> Iterator[str]:
    """An error text for each of OWN_TABLES that an older version made, by the name of the table."""
    for table in OWN_TABLES:
        names = {column.name.lower() for column in found.get(table, ())}
        missing = [column for own, column in ADDED_COLUMNS if own == table and column not in names]
        if names and missing:
            added = ", ".join(f"ADD {column} {ADDED_COLUMNS[table, column]}" for column in missing)
            yield (
                f"the service's own table {table} is of an older version of the service"
                f" ({OWN_TABLES[table]} need it): ALTER TABLE {table} {added}"
            )


def missing_rights(found: Sequence[Found]) -> Iterator[str]:
    """A warning where DB_USER may not write all these columns of a table."""
    names = [
        right
        for right in ("INSERT", "UPDATE")
        if any(right.lower() not in real.rights.lower() for real in found)
    ]
    if names:
        table = found[0].table
        yield (
            f"{table}: DB_USER has no right to {' and '.join(names)}, so writes may fail:"
            f" GRANT SELECT, INSERT, UPDATE, DELETE ON `{table}` TO the user in DB_USER"
        )


def narrowed(table: Table, found: Sequence[Found]) -> Table:
    """The table with column types that take only what both the declaration and the real column
    take."""
    by_name = {column.name.lower(): column for column in found}
    return replace(
        table,
        columns=tuple(
            replace(column, type=_narrowed(column.type, by_name[column.name.lower()]))
            if column.name.lower() in by_name
            else column
            for column in table.columns
        ),
    )


def _missing_table(table: Table) -> str:
    why = f"the database has no table {table.name}, or DB_USER has no rights on it"
    if table.name in TABLES:
        return f"{why}: {APPLY_SCHEMA}"
    columns = ", ".join(column.name for column in table.columns)
    return f"{why}: DB_TABLE names a table with the columns {columns}"


def _engine(table: Table, found: Found) -> Iterator[str]:
    if found.engine is None:
        yield f"{table.name} is a view: name the table it shows"
    elif found.engine != "InnoDB":
        yield (
            f"{table.name} is kept by {found.engine}, which cannot undo a failed write:"
            f" ALTER TABLE {table.identifier} ENGINE = InnoDB"
        )


def _no_column(table: Table, column: Column, found: Sequence[Found]) -> str:
    counted = [real for real in found if "auto_increment" in real.extra]
    alter = f"ALTER TABLE {table.identifier}"
    declared = f"{column.name} {_declared_type(table, column)}"
    if column is table.key and table.auto_key and counted:  # a table can have one only
        mend = f"{alter} CHANGE {_quoted(counted[0].name)} {declared}"
    else:
        mend = f"{alter} ADD {declared}"
    if column is table.key:
        mend += _as_primary_key(table, found)
    return f"{table.name} has no column {column.name}, or DB_USER has no rights on it: {mend}"


def _type(table: Table, column: Column, real: Found, found: Sequence[Found]) -> Iterator[str]:
    name = f"{table.name}.{column.name}"
    declared = f"{column.name} {_declared_type(table, column)}"
    mend = f"{_modify(table)} {declared}{_kept(table, column, real)}"
    if column is table.key:
        mend += _as_primary_key(table, found)
    if not _is_of(column.type, real):
        yield f"{name} is {real.sql_type.upper()}, declared as {column.type.noun}: {mend}"
    elif _COMPUTED.search(real.extra):
        yield f"{name} is computed by the database, and cannot be written: {mend}"
    elif column is table.key and table.auto_key and "auto_increment" not in real.extra:
        yield f"{name} is not AUTO_INCREMENT: {mend}"
    elif isinstance(column.type, String) and column.type.is_key:
        if not str(real.collation).endswith("_bin"):
            yield f"{name} takes 'a' and 'A' for one key ({real.collation}): {mend}"
        elif real.character_set != "utf8mb4":
            yield f"{name} cannot be compared with every text ({real.collation}): {mend}"


def _is_of(type_: Integer | String, real: Found) -> bool:
    if isinstance(type_, Integer):
        return real.type in _INTEGER_BITS
    return real.type in _TEXTS or (type_.is_key and real.type == "char")


def _key(table: Table, found: Sequence[Found]) -> Iterator[str]:
    """An error where the column is right but is not the primary key. Where the column itself is
    wrong, the statement that mends it also makes it the key."""
    by_name = {real.name.lower(): real for real in found}
    real = by_name.get(table.key.name.lower())
    clause = _as_primary_key(table, found)
    if real and clause and not any(_type(table, table.key, real, found)):
        yield (
            f"{table.name}.{table.key.name} is not the primary key:"
            f" ALTER TABLE {table.identifier}{clause.removeprefix(',')}"
        )


def _as_primary_key(table: Table, found: Sequence[Found]) -> str:
    """The end of an ALTER TABLE that makes the column the primary key. One statement must make
    both, because an AUTO_INCREMENT column needs an index."""
    primary = [column.name.lower() for column in found if column.key == "PRI"]
    if primary == [table.key.name.lower()]:
        return ""
    counted = [real.name.lower() for real in found if "auto_increment" in real.extra]
    if table.auto_key and primary and primary == counted:
        return ""  # it is the one that takes the key's name
    drop = ", DROP PRIMARY KEY" if primary else ""
    return f"{drop}, ADD PRIMARY KEY ({table.key.name})"


def _required(table: Table, found: Sequence[Found]) -> Iterator[str]:
    declared = {column.name.lower() for column in table.columns}
    for real in found:
        may_be_left_out = real.is_nullable == "YES" or real.has_default
        is_given = _COMPUTED.search(real.extra) or "auto_increment" in real.extra
        if real.name.lower() not in declared and not may_be_left_out and not is_given:
            yield (
                f"{table.name}.{real.name} is not declared, and has no default: no row can be"
                f" inserted without it: {_modify(table)} {_as_it_is(real)} NULL"
                f"{_comment(real)}"
            )


def _nullable(table: Table, pairs: Sequence[tuple[Column, Found]]) -> Iterator[str]:
    nullable = [(column, real) for column, real in pairs if real.is_nullable == "YES"]
    if nullable:
        names = ", ".join(real.name for _, real in nullable)
        given = ", ".join(f"{c.name} = COALESCE({c.name}, {c.type.empty})" for c, _ in nullable)
        modify = ", MODIFY ".join(
            f"{_as_it_is(real)} NOT NULL{_kept(table, column, real)}" for column, real in nullable
        )
        yield (
            f"{table.name} allows NULL in {names}; a row that holds one cannot be read:"
            f" UPDATE {table.identifier} SET {given}; {_modify(table)} {modify};"
            f" {table.told_to_cache}"
        )


def _narrow(table: Table, pairs: Sequence[tuple[Column, Found]]) -> Iterator[str]:
    narrow = [
        f"{real.name} ({real.sql_type.upper()}{_character_set(real)})"
        for column, real in pairs
        if _is_of(column.type, real) and _narrowed(column.type, real) != column.type
    ]
    if narrow:
        yield f"{table.name} has less room than declared: {', '.join(narrow)}"


def _wide_key(table: Table, pairs: Sequence[tuple[Column, Found]]) -> Iterator[str]:
    for column, real in pairs:
        if column is not table.key or not isinstance(column.type, Integer):
            continue
        if _is_of(column.type, real) and _range(real)[1] > column.type.maximum:
            yield (
                f"{table.name}.{real.name} is {real.sql_type.upper()}, and requests take no"
                f" {real.name} above {column.type.maximum}: no read finds such a row, and a new"
                " one is rejected when the ids below are used up"
            )


def _unindexed(table: Table, pairs: Sequence[tuple[Column, Found]]) -> Iterator[str]:
    for column, real in pairs:
        if column.name in table.lookups and not real.key:
            yield (
                f"{table.name}.{column.name} has no index, and each read by it looks at every row:"
                f" CREATE INDEX {table.name}_{column.name} ON {table.identifier} ({column.name})"
            )


def _narrowed(type_: Integer | String, real: Found) -> Integer | String:
    if isinstance(type_, Integer):
        lowest, highest = _range(real)
        return replace(
            type_,
            minimum=max(type_.minimum, lowest),
            maximum=min(type_.maximum, highest),
            digits=type_.width,  # the cache's keys stay as they are
        )
    return replace(
        type_,
        max_characters=min(type_.max_characters, real.max_characters or type_.max_characters),
        outside=_OUTSIDE.get(real.character_set or "", ""),
        is_padded=not _NO_PAD.search(real.collation or ""),
    )


def _range(real: Found) -> tuple[int, int]:
    bits = _INTEGER_BITS.get(real.type, 64)
    if "unsigned" in real.sql_type.lower():
        return 0, 2**bits - 1
    return -(2 ** (bits - 1)), 2 ** (bits - 1) - 1


def _character_set(real: Found) -> str:
    """The clause for a character set that lacks some of Unicode; else empty."""
    return f" CHARACTER SET {real.character_set}" if real.character_set in _OUTSIDE else ""


def _modify(table: Table) -> str:
    return f"ALTER TABLE {table.identifier} MODIFY"


def _as_it_is(real: Found) -> str:
    """The column's definition for MODIFY, with its collation: MODIFY would replace that by the
    table's."""
    collation = f" COLLATE {real.collation}" if real.collation else ""
    return f"{_quoted(real.name)} {real.sql_type}{collation}"


def _kept(table: Table, column: Column, real: Found) -> str:
    """The default and the comment, which MODIFY would remove. A default of another type cannot
    stay."""
    is_given = column is table.key and table.auto_key
    has_default = real.default not in (None, "NULL") and not is_given
    keeps_default = has_default and _is_of(column.type, real)
    return f"{f' DEFAULT {real.default}' if keeps_default else ''}{_comment(real)}"


def _comment(real: Found) -> str:
    return f" COMMENT {real.comment}" if real.comment != "''" else ""


def _quoted(name: str) -> str:
    """The name in quotes. The name of an undeclared column may be a reserved word."""
    return "`" + name.replace("`", "``") + "`"


def _declared_type(table: Table, column: Column) -> str:
    if isinstance(column.type, String):
        return f"VARCHAR({column.type.max_characters}) COLLATE utf8mb4_bin NOT NULL"
    unsigned = " UNSIGNED" if column.type.minimum >= 0 else ""
    auto = " AUTO_INCREMENT" if column is table.key and table.auto_key else ""
    return f"INT{unsigned} NOT NULL{auto}"
