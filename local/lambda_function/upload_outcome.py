"""What became of an upload: a line in the file `outcomes`, written once and followed by readers."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Outcome:
    """The end of one event: what the function returned, or why it was given up."""

    key: str
    version: str
    attempts: int
    summaries: list[dict[str, Any]] = field(default_factory=list)
    error: str = ""

    def line(self) -> str:
        """The outcome as one line of JSON."""
        return json.dumps(asdict(self)) + "\n"

    def in_words(self) -> str:
        """The outcome as text for a terminal."""
        if self.error:
            return f"{self.key}: FAILED {self.attempts} times, given up: {self.error}"
        return "; ".join(map(summary_in_words, self.summaries)) or f"{self.key}: nothing to load"


def summary_in_words(summary: Mapping[str, Any]) -> str:
    """What the function returned for one file, as text."""
    key = summary["key"]
    if summary["status"] != "loaded":
        return f"{key}: {status_in_words(summary)}, {summary['reason']}"
    count = summary["rows"]
    rows = f"{key}: {count:,} row{'s' if count != 1 else ''} into {summary['table']}"
    if not summary["refused"]:
        return rows
    return f"{rows}, {summary['refused']:,} rejected: see {summary['rejected']}"


def status_in_words(summary: Mapping[str, Any]) -> str:
    """The status of one file. Results have said `refused` from the first version on."""
    status = str(summary["status"])
    return "rejected" if status == "refused" else status


def read_outcomes(path: Path) -> Iterator[Outcome | None]:
    """The outcomes written from now on, in order. Gives None while there is no next one."""
    position = path.stat().st_size if path.exists() else 0

    def follow() -> Iterator[Outcome | None]:
        with path.open(encoding="utf-8") as file:
            file.seek(position)
            unfinished = ""
            while True:
                unfinished += file.readline()
                if unfinished.endswith("\n"):
                    yield Outcome(**json.loads(unfinished))
                    unfinished = ""
                else:
                    yield None

    return follow()
