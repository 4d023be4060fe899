"""The use case of the ingest: an uploaded CSV file becomes rows of a table, exactly once.

One transaction claims the upload, checks its rows, loads them, records the outcome, and makes sure
that no reader sees older rows. After it, the result is written to the bucket.
"""

import gc
import itertools
import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from typing import Any

from chalicelib.config import INGEST_COLUMNS, IngestEngine
from chalicelib.db import Database, Transaction
from chalicelib.errors import (
    BadRequest,
    ConfigurationError,
    FileRejected,
    KeyTooFar,
    NoKeyLeft,
    one_line,
)
from chalicelib.ingest import ledger, load_data
from chalicelib.ingest.bucket import Gone, bucket_of
from chalicelib.ingest.csv_dialect import WrongColumns, named_columns
from chalicelib.ingest.csv_rows import CsvRows, Rejected
from chalicelib.ingest.events import (
    INCOMING_FOLDER,
    LOADED,
    REJECTED,
    SKIPPED,
    Outcome,
    Upload,
    report_key,
    result_key,
)
from chalicelib.ingest.load_from_s3 import NotStageable, load_staged
from chalicelib.ingest.loaded_rows import Loaded, as_object, first_stored, rows_of
from chalicelib.ingest.rejected_report import RejectedReport
from chalicelib.rows import Work, WriteThrough
from chalicelib.tables import NO_KEY, Column, Key, Row, Table, tables_with

log = logging.getLogger("herocache.ingest")

# A file up to this size, unzipped, is written in one statement. Its entries are fenced and
# published row by row. A larger file empties the cache of its table, which takes half a second,
# whatever its size.
MAX_SMALL_BYTES = 256 * 1024
MAX_SMALL_ROWS = 5_000
# With fewer rows than this the share of rejected rows says nothing.
MIN_ROWS_TO_JUDGE = 20
# Loads the rows of an upload into a table. Given: the columns of a file without a header, and what
# to call for each rejected row.
Load = Callable[[Transaction, Upload, Table, Sequence[Column], Callable[[Rejected], None]], Loaded]


class _Known(Exception):
    """This upload, or a later one with its object key, was processed before."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome)
        self.outcome = outcome


class _NotSmall(Exception):
    """The file holds more than its size said: it is compressed."""


class Ingest:
    def __init__(
        self,
        database: Database,
        write_through: WriteThrough,
        max_rejected_percent: int,
        max_upload_bytes: int,
        engine: IngestEngine,
        default_table: str,
        default_columns: Sequence[str],
    ) -> None:
        """`database` is one for loads, and `write_through` changes that one. A file with a larger
        share of rejected rows than `max_rejected_percent`, or of more than `max_upload_bytes`, is
        rejected as a whole. `engine`: who reads large files. `default_table`: the table of files
        that are in no table's folder. `default_columns`: the columns of such files without a
        header, in order."""
        self._database = database
        self._write_through = write_through
        self._max_rejected_percent = max_rejected_percent
        self._max_upload_bytes = max_upload_bytes
        self._is_staged = engine is IngestEngine.AURORA
        self._tables = tables_with(default_table)
        self._default_table = default_table
        self._default_columns = default_columns

    def load(self, upload: Upload) -> dict[str, Any]:
        """Load `upload`. Returns the summary that is written to the bucket. Raises
        BucketUnavailable, DatabaseUnavailable or OutcomeUnknown where a second call may succeed:
        then call again."""
        started = time.monotonic()
        try:
            outcome, is_news = self._deal_with(upload), True
        except _Known as known:
            outcome, is_news = known.outcome, False
            if upload.sequencer and not upload.version:
                ledger.add_sequencer(self._database, upload)
            if outcome.status == LOADED:
                outcome = replace(outcome, first_rows=_told_first_rows(upload))
        is_old = outcome.status == SKIPPED or not is_news
        if is_old and outcome.table and outcome.status != REJECTED:
            # The delivery that loaded it may have died before every reader saw its rows.
            table = tables_with(outcome.table)[outcome.table]
            self._write_through.replace_all(table, lambda transaction: None)
        seconds = round(time.monotonic() - started, 3)
        summary = _summary(upload, outcome, seconds)
        log.info("%s", json.dumps(summary))
        if outcome.status != SKIPPED:  # written again: the first try may have died before it did
            text = json.dumps(summary, indent=2, ensure_ascii=False).encode()
            bucket_of(upload).write(result_key(upload), text, "application/json")
        if is_news and outcome.status != SKIPPED:
            print(json.dumps(_metrics(outcome, seconds)), flush=True)
        return summary

    def _deal_with(self, upload: Upload) -> Outcome:
        """Raises _Known."""
        if upload.key.endswith("/") and not upload.size:
            return Outcome(SKIPPED, "", reason="a folder, not a file")
        name = ""
        try:
            _news(upload, ledger.last(self._database, upload))
            table = self._table(upload)
            name = table.name
            return self._load(upload, self._database.as_stored(table))
        except Gone:
            return Outcome(SKIPPED, name, reason="deleted or overwritten since")
        except FileRejected as error:
            return self._reject(upload, Outcome(REJECTED, name, 0, error.rejected, str(error)))
        except (KeyTooFar, NoKeyLeft) as error:
            return self._reject(upload, Outcome(REJECTED, name, reason=f"TABLE {error}"))
        except BadRequest as error:
            return self._reject(upload, Outcome(REJECTED, name, reason=str(error)))

    def _table(self, upload: Upload) -> Table:
        """Raises FileRejected."""
        name = _folder(upload.key) or self._default_table
        if name not in self._tables:
            raise FileRejected(
                f"{upload.key}: there is no table {name}; there are {', '.join(self._tables)}:"
                f" upload to {INCOMING_FOLDER}<table>/, or to the bucket's root for DB_TABLE"
            )
        return self._tables[name]

    def _load(self, upload: Upload, table: Table) -> Outcome:
        # S3 is asked, because an event could name any size.
        size = bucket_of(upload).size(upload)
        if size > self._max_upload_bytes:
            raise FileRejected(
                f"the file has {size} bytes, at most {self._max_upload_bytes} (INGEST_MAX_BYTES):"
                " upload it in several parts"
            )
        if upload.size <= MAX_SMALL_BYTES:
            try:
                return self._load_small(upload, table)
            except _NotSmall:
                log.info("%s: more is in it than its size tells", one_line(upload.key))
        if self._is_staged:
            try:
                return self._load_large(upload, table, load_staged)
            except NotStageable as reason:
                log.info("%s is not read by the database: %s", one_line(upload.key), reason)
        return self._load_large(upload, table, _load_streamed)

    def _load_large(self, upload: Upload, table: Table, load: Load) -> Outcome:
        order = self._order(table)

        def apply(transaction: Transaction) -> Outcome:
            claimed = _claim(transaction, upload)
            with RejectedReport(upload) as report:
                loaded = load(transaction, upload, table, order, report.add)
            outcome = self._judged(table, loaded, report)
            ledger.record(transaction, claimed, outcome)
            return outcome

        return self._write_through.replace_all(table, apply)

    def _load_small(self, upload: Upload, table: Table) -> Outcome:
        found: dict[Key, Row] = {}
        characters = 0
        with (
            RejectedReport(upload) as report,
            closing(bucket_of(upload).read(upload)) as chunks,
        ):
            rows = CsvRows(chunks, table, report.add, self._order(table))
            for batch in rows.batches():
                characters += sum(map(len, itertools.chain.from_iterable(batch)))
                if len(found) + len(batch) > MAX_SMALL_ROWS or characters > MAX_SMALL_BYTES:
                    raise _NotSmall
                for row in rows_of(table, rows.columns, batch):
                    # Of two rows with one key the later one stays, as in a large file.
                    found[row[0] if row[0] != NO_KEY else -len(found) - 1] = row
        outcome = self._judged(
            table, Loaded(rows.rows, rows.rejected, rows.rejected_lines, ()), report
        )

        work = Work(list(found.values()), claim=_UploadClaim(upload, outcome))
        after = self._write_through.change(table, work, store=True).after
        first_keys = {row[0] for row in rows_of(table, rows.columns, rows.first_rows)}
        count = len(rows.first_rows) if first_keys == {NO_KEY} else len(first_keys)
        return replace(outcome, first_rows=[as_object(table, row) for row in after[:count]])

    def _order(self, table: Table) -> Sequence[Column]:
        """The columns of a file without a header. Raises ConfigurationError."""
        if table.name != self._default_table or not self._default_columns:
            return table.columns
        try:
            return named_columns(table, self._default_columns)
        except WrongColumns as error:
            raise ConfigurationError(f"{INGEST_COLUMNS}: {error}") from error

    def _judged(self, table: Table, loaded: Loaded, report: RejectedReport) -> Outcome:
        """The outcome of a load. Raises FileRejected where too many rows are rejected, or where no
        row is left to load. A rejected row of several lines counts as that many rows, because a
        stray quote makes one row of many."""
        rows, rejected, rejected_lines, first_rows = loaded
        count = rows + rejected_lines
        if not rows:
            raise FileRejected(_nothing_loaded(rejected, report), rejected)
        if count >= MIN_ROWS_TO_JUDGE and rejected_lines * 100 > count * self._max_rejected_percent:
            in_lines = f" (one of many lines counts as so many: {rejected} stand in these)"
            raise FileRejected(
                f"{rejected_lines} of {count} rows are rejected"
                f"{in_lines * (rejected_lines > rejected)}, more than"
                f" {self._max_rejected_percent} % (INGEST_MAX_REJECTED), nothing is loaded;"
                f" {report.first_in_words()}",
                rejected,
            )
        return Outcome(LOADED, table.name, rows, rejected, first_rows=first_rows)

    def _reject(self, upload: Upload, outcome: Outcome) -> Outcome:
        def record(transaction: Transaction) -> Outcome:
            ledger.record(transaction, _claim(transaction, upload), outcome)
            return outcome

        return self._database.transact(record)


def _load_streamed(
    transaction: Transaction,
    upload: Upload,
    table: Table,
    order: Sequence[Column],
    reject: Callable[[Rejected], None],
) -> Loaded:
    """As `load_staged`, but this process reads the file."""
    with closing(bucket_of(upload).read(upload)) as chunks:
        rows = CsvRows(chunks, table, reject, order)
        with _without_collector():
            load_data.load(transaction, table, rows.columns, rows.batches())
    first_rows = first_stored(transaction, table, rows.columns, rows.first_rows)
    return Loaded(rows.rows, rows.rejected, rows.rejected_lines, first_rows)


@contextmanager
def _without_collector() -> Iterator[None]:
    """Turns the garbage collector off. A load makes millions of lists without cycles, and looking
    for cycles in them costs time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _folder(key: str) -> str:
    """The folder that names the table; empty for a file in no folder. Raises FileRejected."""
    folder, slash, _ = key.removeprefix(INCOMING_FOLDER).partition("/")
    if slash and not key.startswith(INCOMING_FOLDER):
        raise FileRejected(
            f"{key}: nothing is loaded from the folder {folder}/: upload to"
            f" {INCOMING_FOLDER}<table>/, or to the bucket's root for DB_TABLE"
        )
    return folder if slash else ""


def _nothing_loaded(rejected: int, report: RejectedReport) -> str:
    if not rejected:
        return "no row: there is a header and nothing else"
    return f"every row is rejected ({rejected}), nothing is loaded; {report.first_in_words()}"


def _told_first_rows(upload: Upload) -> Sequence[Mapping[str, Any]]:
    """The `first_rows` that the first delivery of this upload wrote to the bucket; none where it
    died before that."""
    text = bucket_of(upload).find(result_key(upload))
    told = json.loads(text) if text else {}
    is_same = (told.get("version"), told.get("etag")) == (upload.version, upload.etag)
    first_rows: Sequence[Mapping[str, Any]] = told.get("first_rows", ()) if is_same else ()
    return first_rows


@dataclass
class _UploadClaim:
    """A `work.Claim` on an upload, which is loaded once."""

    upload: Upload
    outcome: Outcome

    def begin(self, transaction: Transaction) -> None:
        self.upload = _claim(transaction, self.upload)

    def record(self, transaction: Transaction, *_: object) -> None:
        ledger.record(transaction, self.upload, self.outcome)


def _claim(transaction: Transaction, upload: Upload) -> Upload:
    """Claim the object key: until the transaction ends, no other one can. Returns the upload as it
    is to be recorded. Raises _Known."""
    return _news(upload, ledger.claim(transaction, upload))


def _news(upload: Upload, last: tuple[Upload, Outcome] | None) -> Upload:
    """The upload as it is to be recorded. Raises _Known.

    An event could name any sequencer. So S3 says which upload is the latest one. Without versions
    it goes by the content, which several uploads may have. So the content that was loaded last is
    not loaded for an older event; and where an older event names what S3 has, the sequencer of that
    is not known: it is recorded without one, so that its own event is known by the content and adds
    it."""
    if last is None:
        return upload
    last_upload, outcome = last
    if upload.is_same(last_upload):
        raise _Known(outcome)
    if not upload.came_before(last_upload):
        return upload
    is_loaded = not upload.version and upload.etag == last_upload.etag
    if is_loaded or not bucket_of(upload).is_latest(upload):
        raise _Known(Outcome(SKIPPED, outcome.table, reason="a later upload is there already"))
    return upload if upload.version else replace(upload, sequencer="")


def _summary(upload: Upload, outcome: Outcome, seconds: float) -> dict[str, Any]:
    return {
        "status": outcome.status,
        **{"bucket": upload.bucket, "key": upload.key},
        **{"version": upload.version, "etag": upload.etag},
        **{"table": outcome.table, "rows": outcome.rows, "refused": outcome.rejected},
        "seconds": seconds,
        "reason": outcome.reason,
        "rejected": report_key(upload) if outcome.rejected else "",
        "first_rows": list(outcome.first_rows),
    }


def _metrics(outcome: Outcome, seconds: float) -> dict[str, Any]:
    """A line in CloudWatch's embedded metric format. CloudWatch makes metrics of it."""
    units = {"IngestedRows": "Count", "RefusedRows": "Count", "IngestSeconds": "Seconds"}
    return {
        "_aws": {
            "Timestamp": round(time.time() * 1000),
            "CloudWatchMetrics": [
                {
                    "Namespace": "herocache",
                    "Dimensions": [["Table", "Status"]],
                    "Metrics": [{"Name": name, "Unit": unit} for name, unit in units.items()],
                }
            ],
        },
        "Table": outcome.table or "none",
        "Status": outcome.status,
        "IngestedRows": outcome.rows,
        "RefusedRows": outcome.rejected,
        "IngestSeconds": seconds,
    }
