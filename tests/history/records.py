"""What clients saw: one line of JSON per event, one file per process.

When `add` returns, the line is given to the operating system, so a process that is killed later
loses no line. A change is recorded before it is sent and when it was answered, a read when it was
answered.
Times are CLOCK_MONOTONIC in nanoseconds, which all processes of a machine share.
"""

import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

# The name of one version of one row. No two writes use the same.
Token = str

# How a change ended: it happened; it certainly did not; nobody knows.
ACKNOWLEDGED, REFUSED, UNKNOWN = "acknowledged", "refused", "unknown"


@dataclass(frozen=True)
class Intent:
    """A change about to be sent. `rows` are (id or 0, xp, token) to write, `deletes` ids.
    `request`: as it is sent, where it may be sent again. `amounts`: of an increment, (id of the
    product, what is added)."""

    operation: str
    start: int
    rows: list[tuple[int, int, Token]] = field(default_factory=list)
    deletes: list[int] = field(default_factory=list)
    request: dict[str, Any] = field(default_factory=dict)
    amounts: list[tuple[int, int]] = field(default_factory=list)


@dataclass(frozen=True)
class Outcome:
    """How it ended. `ids`: of the rows written, or of those that were there to delete; the new
    values of an increment."""

    operation: str
    end: int
    outcome: str
    ids: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class Seen:
    """A read that was answered: `rows` are (id, xp, token) as they came."""

    by: str
    cached: bool
    start: int
    end: int
    values: list[int]
    rows: list[tuple[int, int, Token]]


@dataclass(frozen=True)
class Counted:
    """A read of counters that was answered: `rows` are (id of the product, value)."""

    cached: bool
    start: int
    end: int
    rows: list[tuple[int, int]]


@dataclass(frozen=True)
class Adding:
    """An increment of a write-behind counter about to be sent: `amounts` are (nr of the page, what
    is added). `request`: as it is sent, where it may be sent again."""

    operation: str
    start: int
    amounts: list[tuple[int, int]]
    request: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Shown:
    """What such counters were told to be, by a read or by the answer to an increment: `rows` are
    (nr of the page, value)."""

    how: str
    start: int
    end: int
    rows: list[tuple[int, int]]


@dataclass(frozen=True)
class Failed:
    """A request that was not answered with 200, in the service's own words."""

    request: str
    start: int
    end: int
    status: int
    error: str


@dataclass(frozen=True)
class Ran:
    """A run of the sync, and what came of it."""

    at: int
    outcome: str


@dataclass(frozen=True)
class Wrong:
    """An answer that needs no history to be wrong: garbled, out of order, a row twice."""

    at: int
    what: str


Record = Intent | Outcome | Seen | Counted | Adding | Shown | Failed | Ran | Wrong
_KINDS: dict[str, Any] = {
    kind.__name__: kind
    for kind in (Intent, Outcome, Seen, Counted, Adding, Shown, Failed, Ran, Wrong)
}


class Recorder:
    """Safe for threads: a line is one write."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def add(self, record: Record) -> None:
        line = json.dumps([type(record).__name__, *asdict(record).values()])
        os.write(self._file, line.encode() + b"\n")


def records_of(folder: Path, process: int, incarnation: int) -> Path:
    return folder / f"{process}-{incarnation}.jsonl"


def recorded(folder: Path, process: str = "*") -> Iterator[Record]:
    """All records of a folder, or of one process and those that it took the place of; a line that
    a killed process left unfinished is none."""
    for path in sorted(folder.glob(f"{process}-*.jsonl")):
        with path.open("rb") as file:
            for line in file:
                if line.endswith(b"\n"):
                    kind, *fields = json.loads(line)
                    yield _KINDS[kind](*fields)


def unfinished(folder: Path, process: int) -> list[Intent | Adding]:
    """What those before this process sent, may be sent again, and was not answered."""
    records = list(recorded(folder, str(process)))
    done = {record.operation for record in records if isinstance(record, Outcome)}
    intents = [record for record in records if isinstance(record, (Intent, Adding))]
    return [intent for intent in intents if intent.request and intent.operation not in done]


def now() -> int:
    return time.monotonic_ns()
