"""`python -m tests.support.event_process [STEP]`: a process that handles S3 events as Lambda does.

It reads a JSON list of events and handles them one after the other; it prints the summaries and by
how many MB its memory grew. With a STEP it is killed (SIGKILL) when the first event gets there.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import wraps
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[2]


class Step(NamedTuple):
    """Where a process dies: before or after the call of this method; with `prefix` the call that
    has a text with it."""

    owner: Any
    method: str
    is_after: bool
    prefix: str = ""

    def is_reached(self, arguments: Sequence[object]) -> bool:
        return not self.prefix or any(str(value).startswith(self.prefix) for value in arguments)


def steps() -> dict[str, Step]:
    from chalicelib.cache.entries import Cache
    from chalicelib.cache.generations import Generations
    from chalicelib.db import Transaction
    from chalicelib.db.mysql.connection import Connection
    from chalicelib.ingest import ledger, load_data
    from chalicelib.ingest.bucket import Bucket
    from chalicelib.ingest.events import REJECTED_FOLDER, RESULTS_FOLDER
    from chalicelib.ingest.load_from_s3 import StagedRows

    return {
        "upload claimed": Step(ledger, "claim", True),
        "rows loaded": Step(load_data, "load", True),
        "lines staged": Step(StagedRows, "read", True),
        "lines settled": Step(StagedRows, "settle", True),
        "lines merged": Step(StagedRows, "merge", True),
        "rows written": Step(Transaction, "write_many", True),
        "fences sent": Step(Cache, "begin_fence_many", True),
        "outcome recorded": Step(ledger, "record", True),
        "generation raised": Step(Transaction, "raise_generation", True),
        "about to commit": Step(Connection, "send_commit", False),
        "committed": Step(Connection, "receive_commit", True),
        "entries published": Step(Cache, "publish_many", True),
        "generation known": Step(Generations, "wait_until_known", True),
        "refused rows told": Step(Bucket, "write", True, REJECTED_FOLDER),
        "about to tell": Step(Bucket, "write", False, RESULTS_FOLDER),
        "told": Step(Bucket, "write", True, RESULTS_FOLDER),
    }


MID_FILE = "a batch of rows sent"


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_at(step: Step) -> None:
    original: Callable[..., Any] = getattr(step.owner, step.method)

    @wraps(original)
    def deadly(*args: Any, **kwargs: Any) -> Any:
        is_reached = step.is_reached(args)
        if is_reached and not step.is_after:
            die()
        result = original(*args, **kwargs)
        if is_reached:
            die()
        return result

    setattr(step.owner, step.method, deadly)


def die_mid_file() -> None:
    from chalicelib.ingest.csv_rows import CsvRows

    original = CsvRows.batches

    def deadly(rows: CsvRows) -> Iterator[list[list[str]]]:
        batches = original(rows)
        yield next(batches)
        die()

    setattr(CsvRows, "batches", deadly)  # noqa: B010


def deliver(
    environment: Mapping[str, str], events: Sequence[object], step: str = ""
) -> "subprocess.Popen[str]":
    """A process that handles them. Everything it needs is in `environment`."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.support.event_process", *([step] if step else [])],
        cwd=ROOT,
        env={**os.environ, **environment},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    process.stdin.write(json.dumps(events))
    process.stdin.close()
    process.stdin = None
    return process


def answer_of(process: "subprocess.Popen[str]") -> Any:
    """`summaries`: a list for each event; `grown_mb`."""
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    return json.loads(out.splitlines()[-1])


def peak_mb() -> float:
    """Not `ru_maxrss`, which a process inherits from the one that started it."""
    [line] = [x for x in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in x]
    return int(line.split()[1]) / 1024


def database_of(engine: str) -> AbstractContextManager[object]:
    """What stands in for Aurora needs pytest, which takes a fifth of a second to import."""
    if engine != "aurora":
        return nullcontext()
    from tests.support.aurora import emulated_load_from_s3

    return emulated_load_from_s3()


def told_of(event: Any) -> Any:
    """The summaries. Lambda delivers an event that failed twice more: one that waits for another
    delivery of its file may fail, because the database does not wait for long."""
    from chalicelib.errors import DatabaseUnavailable
    from chalicelib.handlers import entry_points

    for _ in range(2):
        try:
            return entry_points.ingest(event)
        except DatabaseUnavailable as error:
            print(error, file=sys.stderr)
    return entry_points.ingest(event)


def main(step: str) -> None:
    from chalicelib import services
    from chalicelib.ingest.bucket import Bucket

    events = json.load(sys.stdin)
    assert services.container().ingest  # its modules are in
    Bucket(events[0]["Records"][0]["s3"]["bucket"]["name"])._call("list_objects_v2")  # boto3 is in
    if step == MID_FILE:
        die_mid_file()
    elif step:
        die_at(steps()[step])
    before = peak_mb()
    with database_of(os.environ.get("INGEST_ENGINE", "")):
        summaries = [told_of(event) for event in events]
    print(json.dumps({"summaries": summaries, "grown_mb": peak_mb() - before}))


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "")
