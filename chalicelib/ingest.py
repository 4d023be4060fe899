"""The use case of the ingest: an uploaded CSV file becomes rows of a table, exactly once.

S3 event -> `handlers` -> here: claim the upload, check its rows, load them, record the outcome and
let no reader see older rows, all in one transaction; then tell in the bucket what became of it.
"""

import csv
import gc
import io
import json
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any

from chalicelib.bucket import Bucket, Gone, Writer
from chalicelib.cache import Cache
from chalicelib.config import ENGINES
from chalicelib.csv_rows import CsvRows, Refused
from chalicelib.db import Change, Database, Transaction
from chalicelib.errors import BadRequest, FileRefused
from chalicelib.generations import Generations
from chalicelib.load_text import Batch
from chalicelib.recovery import Recovery
from chalicelib.staged_rows import NotStageable, load_staged
from chalicelib.tables import NO_KEY, TABLES, Column, Integer, Key, Row, Table
from chalicelib.uploads import LOADED, REFUSED, SKIPPED, Outcome, Upload
from chalicelib.write_through import Work, WriteThrough

log = logging.getLogger("herocache.ingest")

INCOMING, REJECTED, RESULTS = "incoming/", "rejected/", "results/"
DEFAULT_TABLE = "heroes"
MAX_SMALL_BYTES = 256 * 1024
MAX_SMALL_ROWS = 5_000
"""Up to here a file's cells are fenced and published row by row; a larger one empties the cache of
its table, which takes half a second whatever the size."""
MIN_ROWS_TO_JUDGE = 20
"""With fewer rows than this a share of refused ones says nothing."""
Load = Callable[[Transaction, Upload, Table, Callable[[Refused], None]], tuple[int, int]]
"""Brings rows into a table; how many, and how many it refused."""
_REPORT_HEADER = ("line", "column", "reason", "original")


class _Known(Exception):
    """This upload, or a later one of its key, was dealt with before."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome)
        self.outcome = outcome


class _NotSmall(Exception):
    """The file has more rows than its size told."""


class Ingest:
    def __init__(
        self,
        database: Database,
        cache: Cache,
        max_refused_percent: int,
        engine: str = ENGINES[0],
    ) -> None:
        """`database` is one for loads. More refused rows than `max_refused_percent` refuse the
        whole file. `engine`: one of ENGINES, for large files."""
        generations = Generations(database, cache)
        recovery = Recovery(database, cache, generations)
        self._database = database
        self._write_through = WriteThrough(database, cache, generations, recovery)
        self._max_refused_percent = max_refused_percent
        self._is_staged = engine == "aurora"

    def load(self, upload: Upload) -> dict[str, Any]:
        """Deal with `upload`; its summary, as it is put beside it. Whatever may go better next time
        is raised: BucketUnavailable, DatabaseUnavailable, OutcomeUnknown; then call again."""
        started = time.monotonic()
        try:
            outcome, is_news = self._deal_with(upload), True
        except _Known as known:
            outcome, is_news = known.outcome, False
            if outcome.status == LOADED:  # by one that may have died before every reader saw it
                self._write_through.replace_all(TABLES[outcome.table], lambda transaction: None)
        seconds = round(time.monotonic() - started, 3)
        summary = _summary(upload, outcome, seconds)
        log.info("%s", json.dumps(summary))
        if outcome.status != SKIPPED:  # told again where a first try may not have come so far
            text = json.dumps(summary, indent=2).encode()
            bucket = Bucket(upload.bucket)
            bucket.write(f"{RESULTS}{upload.key}.json", text, "application/json")
        if is_news and outcome.status != SKIPPED:
            print(json.dumps(_metrics(outcome, seconds)), flush=True)
        return summary

    def _deal_with(self, upload: Upload) -> Outcome:
        """Raises _Known."""
        if upload.key.endswith("/") or not upload.size:
            return Outcome(SKIPPED, "", reason="nothing in it")
        name = _table_name(upload.key)
        try:
            _raise_if_known(upload, self._database.last_upload(upload))
            if name not in TABLES:
                raise FileRefused(
                    f"{upload.key}: there is no table {name}; there are {', '.join(TABLES)}:"
                    f" upload to {INCOMING}<table>/"
                )
            return self._load(upload, TABLES[name])
        except Gone:
            return Outcome(SKIPPED, name, reason="deleted or overwritten since")
        except FileRefused as error:
            return self._refuse(upload, Outcome(REFUSED, name, 0, error.refused, str(error)))
        except BadRequest as error:
            return self._refuse(upload, Outcome(REFUSED, name, reason=str(error)))

    def _load(self, upload: Upload, table: Table) -> Outcome:
        if upload.size <= MAX_SMALL_BYTES:
            try:
                return self._load_small(upload, table)
            except _NotSmall:
                log.info("%s: many rows in few bytes", upload.key)
        if self._is_staged:
            try:
                return self._load_large(upload, table, load_staged)
            except NotStageable as reason:
                log.info("%s is not read by the database: %s", upload.key, reason)
        return self._load_large(upload, table, _load_streamed)

    def _load_large(self, upload: Upload, table: Table, load: Load) -> Outcome:
        def apply(transaction: Transaction) -> Outcome:
            _claim(transaction, upload)
            with self._report(upload) as report:
                counts = load(transaction, upload, table, report.add)
            outcome = self._judged(table, *counts)
            transaction.record_upload(upload, outcome)
            return outcome

        return self._write_through.replace_all(table, apply)

    def _load_small(self, upload: Upload, table: Table) -> Outcome:
        found: dict[Key, Row] = {}
        with self._report(upload) as report, closing(Bucket(upload.bucket).read(upload)) as chunks:
            rows = CsvRows(chunks, table, report.add)
            for batch in rows.batches():
                if len(found) + len(batch) > MAX_SMALL_ROWS:
                    raise _NotSmall
                for row in _rows(table, rows.columns, batch):
                    # Of two rows with one key the later one stays, as in a large file.
                    found[row[0] if row[0] != NO_KEY else -len(found) - 1] = row
        outcome = self._judged(table, rows.rows, rows.refused)

        def claim(transaction: Transaction) -> Change | None:
            _claim(transaction, upload)
            transaction.record_upload(upload, outcome)
            return None if found else transaction.end(table)

        work = Work(list(found.values()), claim=claim)
        self._write_through.change(table, work, store=True)
        return outcome

    def _judged(self, table: Table, rows: int, refused: int) -> Outcome:
        """Raises FileRefused where too many rows are."""
        count = rows + refused
        if count >= MIN_ROWS_TO_JUDGE and refused * 100 > count * self._max_refused_percent:
            raise FileRefused(
                f"{refused} of {count} rows are refused, more than"
                f" {self._max_refused_percent} % (INGEST_MAX_REJECTED): nothing is loaded",
                refused,
            )
        return Outcome(LOADED, table.name, rows, refused)

    def _refuse(self, upload: Upload, outcome: Outcome) -> Outcome:
        def record(transaction: Transaction) -> Outcome:
            _claim(transaction, upload)
            transaction.record_upload(upload, outcome)
            return outcome

        return self._database.transact(record)

    def _report(self, upload: Upload) -> "_Report":
        key = f"{REJECTED}{upload.key}.csv"
        return _Report(Bucket(upload.bucket).writer(key, "text/csv; charset=utf-8"))


class _Report:
    """The refused rows as CSV in the bucket. None without refused rows; none where the block that
    finds them fails."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._is_empty = True

    def __enter__(self) -> "_Report":
        self._writer.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._writer.__exit__(*error)

    def add(self, refused: Refused) -> None:
        text = io.StringIO()
        lines = csv.writer(text)
        if self._is_empty:
            lines.writerow(_REPORT_HEADER)
            self._is_empty = False
        original = refused.original.rstrip("\r\n")
        lines.writerow((refused.line, refused.column, refused.reason, original))
        self._writer.write(text.getvalue().encode())


def _load_streamed(
    transaction: Transaction, upload: Upload, table: Table, refuse: Callable[[Refused], None]
) -> tuple[int, int]:
    """As `load_staged`, by way of this process."""
    with closing(Bucket(upload.bucket).read(upload)) as chunks:
        rows = CsvRows(chunks, table, refuse)
        with _without_collector():
            transaction.load(table, rows.columns, rows.batches())
    return rows.rows, rows.refused


@contextmanager
def _without_collector() -> Iterator[None]:
    """Rows are lists by the million, none in a cycle: it costs time to look for some in them."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _table_name(key: str) -> str:
    folder, slash, _ = key.removeprefix(INCOMING).partition("/")
    return folder if slash else DEFAULT_TABLE


def _claim(transaction: Transaction, upload: Upload) -> None:
    """From here to the end of the transaction nobody else deals with this key. Raises _Known."""
    _raise_if_known(upload, transaction.claim_upload(upload))


def _raise_if_known(upload: Upload, last: tuple[Upload, Outcome] | None) -> None:
    if last is None:
        return
    last_upload, outcome = last
    if upload.is_same(last_upload):
        raise _Known(outcome)
    if upload.came_before(last_upload):
        raise _Known(Outcome(SKIPPED, outcome.table, reason="a later upload is there already"))


def _rows(table: Table, columns: Sequence[Column], batch: Batch) -> Iterator[Row]:
    """Checked texts as the row the API would make of them."""
    makers = [int if isinstance(column.type, Integer) else str for column in columns]
    order = [columns.index(column) for column in table.columns if column in columns]
    no_key = (NO_KEY,) * (table.key not in columns)
    for texts in batch:
        values = [make(text) for make, text in zip(makers, texts)]
        yield (*no_key, *[values[position] for position in order])


def _summary(upload: Upload, outcome: Outcome, seconds: float) -> dict[str, Any]:
    return {
        "status": outcome.status,
        **{"bucket": upload.bucket, "key": upload.key},
        **{"version": upload.version, "etag": upload.etag},
        **{"table": outcome.table, "rows": outcome.rows, "refused": outcome.refused},
        "seconds": seconds,
        "reason": outcome.reason,
        "rejected": f"{REJECTED}{upload.key}.csv" if outcome.refused else "",
    }


def _metrics(outcome: Outcome, seconds: float) -> dict[str, Any]:
    """A line that CloudWatch makes metrics of, by its embedded metric format."""
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
        "Table": outcome.table,
        "Status": outcome.status,
        "IngestedRows": outcome.rows,
        "RefusedRows": outcome.refused,
        "IngestSeconds": seconds,
    }
