"""SQL statements over the declared tables, each with its parameters. `db` runs them.

Identifiers come from `tables` only; a value is always a parameter.
"""

from collections.abc import Sequence

from chalicelib.ingest.events import Outcome, Upload
from chalicelib.tables import Column, Key, Row, String, Table

Statement = tuple[str, Sequence[Key]]
"""SQL with %s for each of its parameters, and those."""

START: Statement = ("START TRANSACTION", ())
COMMIT: Statement = ("COMMIT", ())
PRUNE_CLAIMS: Statement = (
    "DELETE FROM idempotency WHERE claimed_at < UTC_TIMESTAMP() - INTERVAL 1 DAY LIMIT 1000",
    (),
)
PING: Statement = ("SELECT 1", ())
ROLLBACK: Statement = ("ROLLBACK", ())

_IS_READ_ONLY = "(@@read_only + @@innodb_read_only)"
IS_READ_ONLY: Statement = (f"SELECT {_IS_READ_ONLY}", ())
"""Not 0 on a replica: Aurora has the second one there, others the first."""

# The column may have another character set than the connection: both become UTF-8, then bytes.
_EXACT = "CAST(CONVERT({} USING utf8mb4) AS BINARY)"
_BYTES = "CAST(%s AS BINARY)"
_WAIT_FOR_WRITERS = " LOCK IN SHARE MODE"
# A name at a time, and the engine by itself: MariaDB then opens no other table.
_DESCRIBE = (
    "SELECT table_name, column_name, column_type, data_type, is_nullable,"
    " column_default IS NOT NULL, extra, character_maximum_length, character_set_name,"
    " collation_name, column_key, (SELECT engine FROM information_schema.tables"
    " WHERE table_schema = DATABASE() AND table_name = %s),"
    # MariaDB shows a default as SQL has it, MySQL only one that is an expression.
    " IF(LOCATE('MariaDB', VERSION()), column_default, IF(LOCATE('DEFAULT_GENERATED', extra),"
    " CONCAT('(', column_default, ')'), QUOTE(column_default))), QUOTE(column_comment), privileges,"
    " (SELECT COUNT(*) FROM information_schema.triggers WHERE event_object_schema = DATABASE()"
    " AND event_object_table = %s AND action_timing = 'BEFORE'"
    " AND event_manipulation IN ('INSERT', 'UPDATE')),"
    " EXISTS (SELECT 1 FROM information_schema.user_privileges WHERE {of_user})"
    " OR EXISTS (SELECT 1 FROM information_schema.schema_privileges WHERE {of_user}"
    " AND DATABASE() LIKE table_schema)"
    " OR EXISTS (SELECT 1 FROM information_schema.table_privileges WHERE {of_user}"
    " AND table_schema = DATABASE() AND table_name = %s)"
    " FROM information_schema.columns WHERE table_schema = DATABASE() AND table_name = %s"
).format(
    of_user="privilege_type = 'TRIGGER' AND grantee ="
    " CONCAT(QUOTE(SUBSTRING_INDEX(CURRENT_USER(), '@', 1)), '@',"
    " QUOTE(SUBSTRING_INDEX(CURRENT_USER(), '@', -1)))"
)
STAGED = "ingest_rows"
"""A temporary table: a file's rows on their way into a table that REPLACE would harm."""
_SURROUNDINGS = (
    "SELECT (SELECT COUNT(*) FROM information_schema.columns"
    " WHERE table_schema = DATABASE() AND table_name = %s),"
    " (SELECT COUNT(*) FROM information_schema.statistics"
    " WHERE table_schema = DATABASE() AND table_name = %s"
    " AND non_unique = 0 AND index_name <> 'PRIMARY'),"
    " (SELECT COUNT(*) FROM information_schema.referential_constraints"
    " WHERE unique_constraint_schema = DATABASE() AND referenced_table_name = %s),"
    " (SELECT COUNT(*) FROM information_schema.triggers"
    " WHERE event_object_schema = DATABASE() AND event_object_table = %s)"
)
_NOW = "TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6))"
_GENERATION = (
    "SELECT generation, enabled, server, TIMESTAMPDIFF(SECOND, retired_at, UTC_TIMESTAMP(6)),"
    f" {_IS_READ_ONLY}, {_NOW}"
    " FROM cache_generation WHERE table_name = %s"
)
_FAILS = "(SELECT 1 UNION SELECT 2)"
"""In place of a value: an error, after which the server runs none of the statements behind it."""

GUARD_CLAIM = f"SELECT IF(answer = '', 1, {_FAILS}) FROM idempotency WHERE idempotency_key = %s"


def describe(names: Sequence[str]) -> Statement:
    """The columns of these tables, as `schema.Found`."""
    parameters = [name for name in names for _ in range(_DESCRIBE.count("%s"))]
    return " UNION ALL ".join([_DESCRIBE] * len(names)), parameters


def surroundings(table: Table) -> Statement:
    """As `schema.Surroundings`."""
    return _SURROUNDINGS, [table.name] * 4


def index_columns(table: Table, index: str) -> Statement:
    return (
        "SELECT column_name FROM information_schema.statistics"
        " WHERE table_schema = DATABASE() AND table_name = %s AND index_name = %s",
        (table.name, index),
    )


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
    sql, values = _rows_with_exactly(table, column, values)
    if after is not None:
        sql += f" AND {table.key.name} > %s"
        values = [*values, after]
    if column is not table.key:
        sql += f" ORDER BY {table.key.name} LIMIT {max_rows:d}"
    return sql + _WAIT_FOR_WRITERS * after_writers, values


def lock(table: Table, keys: Sequence[Key]) -> Statement:
    sql = f"{_rows_with(table, table.key, len(keys))} ORDER BY {table.key.name} FOR UPDATE"
    return sql, keys


def rows_of_keys(table: Table, keys: Sequence[Key]) -> Statement:
    """In any order."""
    return _rows_with(table, table.key, len(keys)), keys


def others(
    table: Table, column: Column, values: Sequence[Key], keys: Sequence[Key], max_rows: int
) -> Statement:
    """The rows with exactly one of `values`, but for those with `keys`; `max_rows` at the most."""
    sql, parameters = _rows_with_exactly(table, column, values)
    sql += f" AND {table.key.name} NOT IN ({_marks(len(keys))}) LIMIT {max_rows:d}"
    return sql, [*parameters, *keys]


def others_than_new(
    table: Table, column: Column, values: Sequence[Key], new_keys: int, max_rows: int
) -> Statement:
    """The same, but for those that the INSERT before it gave the next `new_keys` keys."""
    sql, parameters = _rows_with_exactly(table, column, values)
    sql += (
        f" AND {table.key.name} NOT BETWEEN LAST_INSERT_ID() AND LAST_INSERT_ID() + %s"
        f" LIMIT {max_rows:d}"
    )
    return sql, [*parameters, new_keys - 1]


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


def delete(table: Table, keys: Sequence[Key]) -> Statement:
    return f"DELETE FROM {table.identifier} WHERE {table.key.name} IN ({_marks(len(keys))})", keys


def highest_key(table: Table) -> Statement:
    return f"SELECT MAX({table.key.name}) FROM {table.identifier}", ()


def generation(table: Table) -> Statement:
    return _GENERATION, (table.name,)


def add_generation(table: Table) -> Statement:
    """The first one is the time: a row that was lost and is made again must not bring back a number
    that cached rows may still be stored under."""
    return (
        "INSERT IGNORE INTO cache_generation (table_name, generation, enabled)"
        " VALUES (%s, ROUND(UNIX_TIMESTAMP(NOW(3)) * 1000), 1)",
        (table.name,),
    )


def hold_generation(table: Table) -> Statement:
    """Nobody changes it before this transaction ends."""
    return _GENERATION + _WAIT_FOR_WRITERS, (table.name,)


def guard_generation(table: Table, number: int, until: int) -> Statement:
    """The same, and when it began; an error where it is not generation `number`, after `until`, or
    on a replica, which takes writes of some users."""
    return (
        "SELECT IF(%s = (SELECT generation FROM cache_generation WHERE table_name = %s"
        f"{_WAIT_FOR_WRITERS}) AND {_NOW} < %s AND NOT {_IS_READ_ONLY}, {_NOW}, {_FAILS})",
        (number, table.name, until),
    )


def guard_time(until: int) -> Statement:
    """When it began; an error after `until`."""
    return f"SELECT IF({_NOW} < %s, {_NOW}, {_FAILS})", (until,)


def guard_new_keys(count: int, highest: int) -> Statement:
    """An error where one of the `count` keys that the INSERT before it was given is above
    `highest`."""
    return f"SELECT IF(LAST_INSERT_ID() + %s > %s, {_FAILS}, 1)", (count - 1, highest)


def lock_generation(table: Table) -> Statement:
    """Wait for every transaction that holds it. `UTC_TIMESTAMP` is when a statement began: a
    change of it that waited for its lock itself would take a time before that wait."""
    return (
        "SELECT generation FROM cache_generation WHERE table_name = %s FOR UPDATE",
        (table.name,),
    )


def switch_off(table: Table) -> Statement:
    """Raise the generation and take the cache out of use."""
    return (
        "UPDATE cache_generation SET generation = generation + 1,"
        " retired_at = IF(enabled, UTC_TIMESTAMP(6), retired_at), enabled = 0"
        " WHERE table_name = %s",
        (table.name,),
    )


def switch_on(table: Table, number: int, server: str) -> Statement:
    """Raise generation `number`, where it still is the current one, for the entries of `server`."""
    return (
        "UPDATE cache_generation SET generation = generation + 1,"
        " retired_at = IF(enabled AND server <> '', UTC_TIMESTAMP(6), retired_at),"
        " enabled = 1, server = %s WHERE table_name = %s AND generation = %s",
        (server, table.name, number),
    )


def raise_generation(table: Table) -> Statement:
    """Every entry of the table becomes unreachable; its cache stays in use."""
    return (
        "UPDATE cache_generation SET generation = generation + 1,"
        " retired_at = IF(enabled, UTC_TIMESTAMP(6), retired_at) WHERE table_name = %s",
        (table.name,),
    )


def load(target: str, columns: Sequence[Column], *, replaces: bool) -> Statement:
    """Rows as lines, values between tabs, both escaped with backslashes, into the table `target`.
    A row takes the place of the one that has its key where it `replaces`."""
    return (
        f"LOAD DATA LOCAL INFILE 'rows' {'REPLACE ' * replaces}INTO TABLE {target}"
        f" CHARACTER SET utf8mb4 ({_names(columns)})",
        (),
    )


def stage(table: Table, columns: Sequence[Column]) -> list[Statement]:
    """Make STAGED, with the `columns` as `table` has them, and of its indexes the primary key."""
    return [
        (f"DROP TEMPORARY TABLE IF EXISTS {STAGED}", ()),
        (
            f"CREATE TEMPORARY TABLE {STAGED} (ingest_exists TINYINT NOT NULL DEFAULT 0,"
            f" PRIMARY KEY ({table.key.name})) ENGINE = InnoDB"
            f" SELECT {_names(columns)} FROM {table.identifier} LIMIT 0",
            (),
        ),
    ]


def merge(table: Table, columns: Sequence[Column]) -> list[Statement]:
    """The rows of STAGED into `table`. The UPDATE locks and marks those that exist. Where another
    transaction adds one of the others meanwhile, the INSERT fails: it can be done again."""
    key, names = table.key.name, _names(columns)
    updates = "".join(
        f"present.{column.name} = staged.{column.name}, "
        for column in columns
        if column != table.key
    )
    return [
        (
            f"UPDATE {table.identifier} AS present JOIN {STAGED} AS staged"
            f" ON present.{key} = staged.{key} SET {updates}staged.ingest_exists = 1",
            (),
        ),
        (
            f"INSERT INTO {table.identifier} ({names})"
            f" SELECT {names} FROM {STAGED} WHERE NOT ingest_exists ORDER BY {key}",
            (),
        ),
        (f"DROP TEMPORARY TABLE {STAGED}", ()),
    ]


def claim_upload(upload: Upload) -> Statement:
    """Where the key was uploaded before this waits for the transaction that loads it."""
    return (
        "INSERT INTO ingest_log (bucket, object_key, version, etag, sequencer, table_name, status,"
        " row_count, refused_count, reason, started_at, finished_at)"
        " VALUES (%s, %s, '', '', '', '', '', 0, 0, '', UTC_TIMESTAMP(6), UTC_TIMESTAMP(6))"
        " ON DUPLICATE KEY UPDATE bucket = VALUES(bucket)",
        (upload.bucket, upload.key),
    )


def last_upload(upload: Upload) -> Statement:
    return (
        "SELECT version, etag, sequencer, table_name, status, row_count, refused_count, reason"
        " FROM ingest_log WHERE bucket = %s AND object_key = %s",
        (upload.bucket, upload.key),
    )


def record_upload(upload: Upload, outcome: Outcome) -> Statement:
    return (
        "UPDATE ingest_log SET version = %s, etag = %s, sequencer = %s, table_name = %s,"
        " status = %s, row_count = %s, refused_count = %s, reason = %s,"
        " finished_at = UTC_TIMESTAMP(6) WHERE bucket = %s AND object_key = %s",
        (
            *(upload.version, upload.etag, upload.sequencer, outcome.table),
            *(outcome.status, outcome.rows, outcome.refused, outcome.reason),
            *(upload.bucket, upload.key),
        ),
    )


def claim(idempotency_key: str, fingerprint: str) -> Statement:
    """Where the key exists this waits for the transaction that brought it, and adds nothing."""
    return (
        "INSERT INTO idempotency (idempotency_key, fingerprint, answer, claimed_at)"
        " VALUES (%s, %s, '', UTC_TIMESTAMP()) ON DUPLICATE KEY UPDATE fingerprint = fingerprint",
        (idempotency_key, fingerprint),
    )


def guard_claim(idempotency_key: str) -> Statement:
    """An error where an earlier transaction brought the key."""
    return GUARD_CLAIM, (idempotency_key,)


def claimed(idempotency_key: str) -> Statement:
    return (
        "SELECT fingerprint, answer FROM idempotency WHERE idempotency_key = %s",
        (idempotency_key,),
    )


def record(idempotency_key: str, answer: str) -> Statement:
    return "UPDATE idempotency SET answer = %s WHERE idempotency_key = %s", (
        answer,
        idempotency_key,
    )


def _rows_with(table: Table, column: Column, count: int) -> str:
    names = _names(table.columns)
    return f"SELECT {names} FROM {table.identifier} WHERE {column.name} IN ({_marks(count)})"


def _rows_with_exactly(table: Table, column: Column, values: Sequence[Key]) -> Statement:
    """By a lookup of text only rows with exactly one of the texts: a collation may take others for
    the same, such as 'Rome ' for 'Rome'."""
    sql = _rows_with(table, column, len(values))
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


def _marks(count: int, mark: str = "%s") -> str:
    return ",".join([mark] * count)
