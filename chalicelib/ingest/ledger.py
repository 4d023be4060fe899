"""The ledger of uploads, the table `ingest_log`: what became of the last upload of each object key.

A claim and its outcome are written in the transaction that loads the file. So an upload that is
delivered twice is loaded once.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from chalicelib.db import Database, Statement, Transaction
from chalicelib.ingest.events import Outcome, Upload


def last(database: Database, upload: Upload) -> tuple[Upload, Outcome] | None:
    """As `claim`, without waiting for a transaction that deals with this object key now."""
    [found] = database.run(_select(upload))
    return _recorded(upload, found[0]) if found else None


def claim(transaction: Transaction, upload: Upload) -> tuple[Upload, Outcome] | None:
    """The last upload of this object key that was dealt with, and its outcome; None where there is
    none. Waits for a transaction that deals with one now; from here on others wait for this one."""
    *_, found = transaction.run(_claim(upload), _select(upload))
    return _recorded(upload, found[0])


def record(transaction: Transaction, upload: Upload, outcome: Outcome) -> None:
    """With the next statements."""
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


def _claim(upload: Upload) -> Statement:
    """Where the key was uploaded before this waits for the transaction that loads it."""
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
