"""The ledger of uploads: which upload of an object key was processed last, and its outcome.

It is the table `ingest_log`. The claim and the outcome are written in the transaction that loads
the file, so an upload that is delivered twice is loaded once."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from chalicelib.db import Database, Statement, Transaction
from chalicelib.ingest.events import Outcome, Upload


def last(database: Database, upload: Upload) -> tuple[Upload, Outcome] | None:
    """As `claim`, but it claims nothing and waits for no other transaction."""
    [found] = database.run(_select(upload))
    return _recorded(upload, found[0]) if found else None


def claim(transaction: Transaction, upload: Upload) -> tuple[Upload, Outcome] | None:
    """Claim the object key for this transaction. Returns the last upload of it that was processed,
    and its outcome; None where there is none. Waits for a transaction that has claimed it; later
    ones wait for this one."""
    *_, found = transaction.run(_claim(upload), _select(upload))
    return _recorded(upload, found[0])


def record(transaction: Transaction, upload: Upload, outcome: Outcome) -> None:
    """Record the outcome; sent with the next statements."""
    transaction.queue(
        (
            "UPDATE ingest_log SET version = %s, etag = %s, sequencer = %s, table_name = %s,"
            " status = %s, row_count = %s, refused_count = %s, reason = %s,"
            " finished_at = UTC_TIMESTAMP(6) WHERE bucket = %s AND object_key = %s",
            (
                *(upload.version, upload.etag, upload.sequencer, outcome.table),
                *(outcome.status, outcome.rows, outcome.rejected, outcome.reason),
                *(upload.bucket, upload.key),
            ),
        )
    )


def add_sequencer(database: Database, upload: Upload) -> None:
    """`upload` is the one that was recorded last. Where that has neither version nor sequencer,
    this is its sequencer: the next upload, also of the same content, has another one."""
    database.run(
        (
            "UPDATE ingest_log SET sequencer = %s WHERE bucket = %s AND object_key = %s"
            " AND version = '' AND sequencer = '' AND etag = %s",
            (upload.sequencer, upload.bucket, upload.key, upload.etag),
        )
    )


def _claim(upload: Upload) -> Statement:
    """Insert the row of the object key, or lock it. Waits for a transaction that holds it."""
    return (
        "INSERT INTO ingest_log (bucket, object_key, version, etag, sequencer, table_name, status,"
        " row_count, refused_count, reason, started_at, finished_at)"
        " VALUES (%s, %s, '', '', '', '', '', 0, 0, '', UTC_TIMESTAMP(6), UTC_TIMESTAMP(6))"
        " ON DUPLICATE KEY UPDATE bucket = VALUES(bucket)",
        (upload.bucket, upload.key),
    )


def _select(upload: Upload) -> Statement:
    return (
        "SELECT version, etag, sequencer, table_name, status, row_count, refused_count, reason"
        " FROM ingest_log WHERE bucket = %s AND object_key = %s",
        (upload.bucket, upload.key),
    )


def _recorded(upload: Upload, row: Sequence[Any]) -> tuple[Upload, Outcome] | None:
    version, etag, sequencer, table, status, rows, rejected, reason = row
    if not status:
        return None
    upload = replace(upload, version=version, etag=etag, sequencer=sequencer)
    return upload, Outcome(status, table, rows, rejected, reason)
