"""The schedule of the function `sync`, which EventBridge keeps on AWS."""

import json
import os
import subprocess
import sys
import time

from chalicelib.config import sync_minutes
from local.home_folder import Home
from local.machine import ROOT
from local.settings import environment_with, read_settings
from local.terminal import say

# The event names no table, as that of EventBridge: the run looks only where there may be work.
CALL = """
import json
from app import sync
print(json.dumps(sync({}, None)))
"""


class Schedule:
    """Calls the function in a process of its own, and says what came of it."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._seconds = sync_minutes(os.environ) * 60
        self._due = time.monotonic() + self._seconds
        self._process: subprocess.Popen[str] | None = None

    def keep(self) -> None:
        """Starts a run that is due, and tells of one that has ended. Returns at once."""
        if self._process is not None and self._process.poll() is not None:
            say("sync", _words(self._process.communicate()[0], self._process.returncode))
            self._process = None
        if self._process is None and time.monotonic() >= self._due:
            self._due = time.monotonic() + self._seconds
            self._process = subprocess.Popen(
                [sys.executable, "-c", CALL],
                cwd=ROOT,
                env=environment_with(read_settings(self._home.env)),
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )

    def end(self) -> None:
        """Ends a run that is under way: the next one repeats it."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


def _words(output: str, code: int) -> str:
    lines = [line for line in output.splitlines() if line.startswith("{")]
    if code or not lines:
        return f"failed (exit code {code}): make sync shows why"
    record = json.loads(lines[-1])
    both = [record[direction] for direction in ("to_cache", "to_database")]
    looked, changed, reported = (
        sum(count[name] for count in both) for name in ("looked", "changed", "reported")
    )
    if record["outcome"] == "idle":
        return "nothing to do"
    handed = f"; {record['ranges']} ranges go on in sync_range" * bool(record["ranges"])
    counts = f"{looked} rows looked at, {changed} changed, {reported} reported"
    return f"{record['outcome']}: {counts}{handed}"
