"""Runs long commands beside the tests, one after the other, at the lowest priority.

These commands need none of the servers of a test run. They start when the tests are collected. The
fixture with the name of a command waits for its end.
"""

import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parents[2]
# The commands by the name of the fixture that waits for them, in the order of the tests.
COMMANDS: Mapping[str, Sequence[str]] = {
    "lived": ("-m", "tests.support.stage_life"),
    "quick_bench": ("-m", "bench", "--quick"),
    "ingredients": ("-m", "tests.history", "--ingredients"),
}

Done = subprocess.CompletedProcess[bytes]


class BackgroundCommands:
    def __init__(self, names: Sequence[str]) -> None:
        self._thread = ThreadPoolExecutor(1)
        self._is_over = False
        self._running: subprocess.Popen[bytes] | None = None
        self._done: dict[str, Future[Done]] = {
            name: self._thread.submit(self._run, COMMANDS[name]) for name in names
        }

    def done(self, name: str) -> Done:
        """Wait for the end of a command. Returns its exit code and its output."""
        return self._done[name].result()

    def end(self) -> None:
        """Stop the command that runs, and start no other."""
        self._is_over = True
        self._thread.shutdown(wait=False, cancel_futures=True)
        if self._running is not None:
            self._running.terminate()
        self._thread.shutdown()

    def _run(self, words: Sequence[str]) -> Done:
        command = ["nice", "-n", "19", sys.executable, *words]
        pipe = subprocess.PIPE
        with subprocess.Popen(command, cwd=ROOT, stdout=pipe, stderr=pipe) as process:
            self._running = process
            if self._is_over:
                process.terminate()
            output, errors = process.communicate()
            self._running = None
        return subprocess.CompletedProcess(command, process.returncode, output, errors)
