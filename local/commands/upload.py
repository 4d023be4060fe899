"""`make upload FILE=heroes.csv [TABLE=heroes]`: uploads a file, then prints what became of it."""

import csv
import itertools
import json
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from chalicelib.tables import tables_with
from local.home_folder import Home, home_folder
from local.lambda_function.upload_outcome import Outcome, status_in_words
from local.servers import S3, ServerError
from local.servers.s3 import BUCKET, key_for
from local.terminal import say

SHOWN_REJECTED = 10
# In characters. A row of the report may be longer than Python's csv module allows by itself.
LONGEST_ORIGINAL = 1 << 26


def upload() -> int:
    """Returns the exit code: 1 where the file was not loaded. Raises ServerError, and uploads
    nothing, where the file, the table or S3 does not exist."""
    path, table = asked_file(), asked_table()
    s3 = running_s3()
    outcomes = s3.outcomes()
    with Progress(path) as progress:
        version = s3.upload(path, table, progress.add)
    say("uploaded", f"s3://{BUCKET}/{key_for(path, table)}")
    outcome = s3.outcome_of(version, outcomes)
    for subject, text in told(outcome, s3):
        say(subject, text)
    return 0 if succeeded(outcome) else 1


def asked_file() -> Path:
    """FILE of the environment. Raises ServerError where it cannot be uploaded."""
    name = os.environ.get("FILE", "")
    if not name:
        raise ServerError("which file? make upload FILE=heroes.csv [TABLE=heroes]")
    path = Path(name).expanduser()
    if not path.exists():
        raise ServerError(f"FILE={name}: there is no such file in {Path.cwd()}")
    if not path.is_file():
        raise ServerError(f"FILE={name}: this is not a file")
    if not is_unicode(path.name):
        raise ServerError(f"FILE={name!a}: S3 takes only names in UTF-8, rename it")
    if not os.access(path, os.R_OK):
        raise ServerError(f"FILE={name}: you may not read it")
    if path.stat().st_size == 0:
        raise ServerError(f"FILE={name}: it is empty, there is nothing to load")
    return path


def is_unicode(name: str) -> bool:
    """Whether a file name is Unicode. Python reads others as lone surrogates."""
    return not any("\ud800" <= character <= "\udfff" for character in name)


def asked_table() -> str:
    """TABLE of the environment, or an empty text. Raises ServerError where there is no such
    table."""
    table = os.environ.get("TABLE", "")
    tables = tables_with(Home(home_folder()).default_table)
    if table and table not in tables:
        raise ServerError(f"TABLE={table}: no such table, there are {', '.join(tables)}")
    return table


def running_s3() -> S3:
    """The S3 of this folder. Raises ServerError where it does not run."""
    s3 = Home(home_folder()).s3
    if s3.pid is None:
        raise ServerError("nothing is running here to upload to: `make run` or `make up` first")
    return s3


def succeeded(outcome: Outcome) -> bool:
    """Whether the file was loaded: all its rows, or all but the rejected ones."""
    return [summary["status"] for summary in outcome.summaries] == ["loaded"]


def told(outcome: Outcome, s3: S3) -> Iterator[tuple[str, str]]:
    """The lines to print about an outcome: subject and text of each."""
    if not outcome.summaries:
        yield "ingest", outcome.in_words()
        return
    [summary] = outcome.summaries
    rows, seconds = summary["rows"], summary["seconds"]
    yield status_in_words(summary), summary["reason"] or f"into {summary['table']}"
    yield "rows", f"{rows:,} in {seconds:.2f} s ({rows / max(seconds, 0.001):,.0f}/s)"
    for row in summary.get("first_rows", ()):
        yield "stored", json.dumps(row, ensure_ascii=False)
    if summary["refused"] or succeeded(outcome):
        yield "rejected", f"{summary['refused']:,} row{'s' if summary['refused'] != 1 else ''}"
    if summary["rejected"]:
        for line, column, reason in first_rejected(s3, summary["rejected"]):
            yield "", f"line {line}, {column}: {reason}" if column else f"line {line}: {reason}"
        if summary["refused"] > SHOWN_REJECTED:
            yield "", f"and {summary['refused'] - SHOWN_REJECTED:,} more"
        yield "see", f"s3://{BUCKET}/{summary['rejected']}"


def first_rejected(s3: S3, key: str) -> Iterator[list[str]]:
    """Line, column and reason of the first rejected rows. `key`: the object key of the report."""
    csv.field_size_limit(LONGEST_ORIGINAL)
    body = s3.client().get_object(Bucket=BUCKET, Key=key)["Body"]
    lines = (line.decode() for line in body.iter_lines(keepends=True))
    for row in itertools.islice(csv.reader(lines), 1, SHOWN_REJECTED + 1):
        yield row[:3]
    body.close()


class Progress:
    """Shows how much of a file is uploaded: one changing line on a terminal, else one at the
    end."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._size = path.stat().st_size
        self._sent = 0
        self._lock = threading.Lock()
        self._live = sys.stdout.isatty()

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if self._live:
            print()
        elif kind is None:
            print(self._line(), flush=True)

    def add(self, count: int) -> None:
        """Counts bytes that were sent. Several threads call it."""
        with self._lock:
            self._sent += count
            if self._live:
                print(f"\r{self._line()}", end="", flush=True)

    def _line(self) -> str:
        share = 100 * self._sent // self._size
        return (
            f"{'upload':<10} {self._path.name}: {self._sent:,} of {self._size:,} bytes, {share} %"
        )
