"""SQL statements over the declared tables, each with its parameters. `db` runs them.

Identifiers come from `tables` only; a value is always a parameter.
"""

from collections.abc import Sequence

from chalicelib.tables import Column, Key, Row, Table
from chalicelib.uploads import Outcome, Upload

Statement = tuple[str, Sequence[Key]]
"""SQL with %s for each of its parameters, and those."""

START: Statement = ("START TRANSACTION", ())
COMMIT: Statement = ("COMMIT", ())
PRUNE_CLAIMS: Statement = (
    "DELETE FROM idempotency WHERE claimed_at < UTC_TIMESTAMP() - INTERVAL 1 DAY LIMIT 1000",
    (),
)
PING: Statement = ("SELECT 1", ())

IS_READ_ONLY: Statement = ("SELECT @@read_only + @@innodb_read_only", ())
"""Not 0 on a replica: Aurora has the second one there, others the first."""

_WAIT_FOR_WRITERS = " LOCK IN SHARE MODE"
_GENERATION = (
    "SELECT generation, enabled, server, TIMESTAMPDIFF(SECOND, retired_at, UTC_TIMESTAMP(6)),"
    " @@read_only + @@innodb_read_only"
    " FROM cache_generation WHERE table_name = %s"
)


def select(
    table: Table, column: Column, values: Sequence[Key], max_rows: int, after_writers: bool
) -> Statement:
    """By a lookup: in the order of the keys, `max_rows` at the most."""
    sql = f"{_rows_with(table, column, len(values))}"
    if column is not table.key:
        sql += f" ORDER BY {table.key.name} LIMIT {max_rows:d}"
    return sql + _WAIT_FOR_WRITERS * after_writers, values


def lock(table: Table, keys: Sequence[Key]) -> Statement:
    sql = f"{_rows_with(table, table.key, len(keys))} ORDER BY {table.key.name} FOR UPDATE"
    return sql, keys


def others(
    table: Table, column: Column, values: Sequence[Key], keys: Sequence[Key], max_rows: int
) -> Statement:
    """The rows with one of `values`, but for those with `keys`; `max_rows` at the most."""
    sql = _rows_with(table, column, len(values))
    sql += f" AND {table.key.name} NOT IN ({_marks(len(keys))}) LIMIT {max_rows:d}"
    return sql, [*values, *keys]


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
    return f"DELETE FROM {table.name} WHERE {table.key.name} IN ({_marks(len(keys))})", keys


def highest_key(table: Table) -> Statement:
    return f"SELECT MAX({table.key.name}) FROM {table.name}", ()


def generation(table: Table) -> Statement:
    return _GENERATION, (table.name,)


def add_generation(table: Table) -> Statement:
    return (
        "INSERT IGNORE INTO cache_generation (table_name, generation, enabled) VALUES (%s, 1, 1)",
        (table.name,),
    )


def hold_generation(table: Table) -> Statement:
    """Nobody changes it before this transaction ends."""
    return _GENERATION + _WAIT_FOR_WRITERS, (table.name,)


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
    """Raise generation `number`, where it still is the current one, for the cells of `server`."""
    return (
        "UPDATE cache_generation SET generation = generation + 1,"
        " retired_at = IF(enabled AND server <> '', UTC_TIMESTAMP(6), retired_at),"
        " enabled = 1, server = %s WHERE table_name = %s AND generation = %s",
        (server, table.name, number),
    )


def raise_generation(table: Table) -> Statement:
    """Every cell of the table becomes unreachable; its cache stays in use."""
    return (
        "UPDATE cache_generation SET generation = generation + 1,"
        " retired_at = IF(enabled, UTC_TIMESTAMP(6), retired_at) WHERE table_name = %s",
        (table.name,),
    )


def load(table: Table, columns: Sequence[Column]) -> Statement:
    """Rows as lines, values between tabs, both escaped with backslashes. A row with a key takes
    the place of the one that has it."""
    replaces = "REPLACE " * (table.key in columns)
    return (
        f"LOAD DATA LOCAL INFILE 'rows' {replaces}INTO TABLE {table.name} CHARACTER SET utf8mb4"
        f" ({_names(columns)})",
        (),
    )


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
    return (
        f"SELECT {_names(table.columns)} FROM {table.name} WHERE {column.name} IN ({_marks(count)})"
    )


def _values(table: Table, columns: Sequence[Column], rows: Sequence[Row]) -> Statement:
    marks = ",".join([f"({_marks(len(columns))})"] * len(rows))
    parameters = [value for row in rows for value in row]
    return f"INSERT INTO {table.name} ({_names(columns)}) VALUES {marks}", parameters


def _names(columns: Sequence[Column]) -> str:
    return ",".join(column.name for column in columns)


def _marks(count: int) -> str:
    return ",".join(["%s"] * count)
