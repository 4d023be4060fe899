"""The function `ingest` as Lambda runs it: events wait in a queue, a failed one is tried again.

emulated_s3.py hands the events in. The function itself runs in a process of its own, container.py,
which is kept warm, and replaced when it dies, hangs or its settings have changed.
"""

import contextlib
import json
import queue
import select
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any
from urllib.parse import unquote_plus

from chalicelib.ingest.events import OWN_FOLDERS
from local.app import environment_with
from local.outcome import Outcome
from local.process import ROOT

Event = dict[str, Any]

TIMEOUT_SECONDS = 900.0
"""Lambda's longest."""
PAUSES_SECONDS = (0.0, 1.0, 2.0)
"""Before each attempt. Lambda makes as many; it waits a minute and then two."""


class InvocationFailed(Exception):
    """The function raised, died or took too long; the text says which."""


class Function:
    """One event at a time, in the order of their coming."""

    def __init__(self, home: Path, settings: Path) -> None:
        self._home = home
        self._settings = settings
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._ended = threading.Event()
        self._container: Container | None = None
        self._thread = threading.Thread(target=self._run, name="function", daemon=True)

    def __enter__(self) -> "Function":
        for name in ("outcomes", "function.log"):
            (self._home / name).write_bytes(b"")
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """The container is gone afterwards, with what it was doing."""
        self._ended.set()
        if self._container is not None:
            self._container.kill()

    def invoke_later(self, event: Event) -> None:
        """Returns at once. What becomes of it is written to the file `outcomes`; of an object that
        the function itself has written, nothing."""
        self._events.put(event)

    def _run(self) -> None:
        while not self._ended.is_set():
            outcome = self._outcome(self._events.get())
            if not self._ended.is_set() and not outcome.key.startswith(OWN_FOLDERS):
                print(f"ingest     {outcome.in_words()}", flush=True)
                with (self._home / "outcomes").open("a", encoding="utf-8") as file:
                    file.write(outcome.line())

    def _outcome(self, event: Event) -> Outcome:
        [record] = event["Records"]
        stored = record["s3"]["object"]
        key, version = unquote_plus(stored["key"]), stored.get("versionId", "")
        error = ""
        for attempt, pause in enumerate(PAUSES_SECONDS, start=1):
            if self._ended.wait(pause):
                break
            try:
                summaries = self._warm_container().invoke("ingest", event) or []
                return Outcome(key, version, attempt, summaries)
            except (InvocationFailed, OSError) as failure:
                error = str(failure)
                print(f"ingest     {key}: attempt {attempt} failed: {error}", flush=True)
        return Outcome(key, version, len(PAUSES_SECONDS), error=error)

    def _warm_container(self) -> "Container":
        settings = read_settings(self._settings)
        if self._container is None or not self._container.serves(settings):
            if self._container is not None:
                self._container.kill()
            with (self._home / "function.log").open("ab") as log:
                self._container = Container(settings, log)
        return self._container


class Container:
    """A process that has the app loaded and waits for events. It logs to `log`, an open file."""

    def __init__(self, settings: Mapping[str, str], log: IO[Any]) -> None:
        self._settings = dict(settings)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "local.container"],
            env={**environment_with(settings), "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
        )

    def serves(self, settings: Mapping[str, str]) -> bool:
        """Whether it lives and was started with these settings."""
        return self._process.poll() is None and self._settings == settings

    def invoke(self, function: str, event: object) -> Any:
        """What the function returns. Raises InvocationFailed; a hung process is killed first."""
        call = {"function": function, "event": event}
        answer = self._exchange(json.dumps(call).encode() + b"\n")
        if not answer.endswith(b"\n"):
            code = self._process.wait()
            raise InvocationFailed(f"its process ended with exit code {code}, see its log")
        reply = json.loads(answer)
        if "error" in reply:
            raise InvocationFailed(reply["error"])
        return reply["result"]

    def kill(self) -> None:
        """End it whatever it does; return when it is gone."""
        self._process.kill()
        self._process.wait()

    def _exchange(self, line: bytes) -> bytes:
        requests, replies = self._process.stdin, self._process.stdout
        assert requests is not None
        assert replies is not None
        with contextlib.suppress(BrokenPipeError):  # then it has ended, and so has its answer
            requests.write(line)
            requests.flush()
        ready, _, _ = select.select([replies], [], [], TIMEOUT_SECONDS)
        if not ready:
            self.kill()
            raise InvocationFailed(f"it took longer than {TIMEOUT_SECONDS:g} s and was killed")
        return replies.readline()


def read_settings(path: Path) -> dict[str, str]:
    """The `KEY=value` lines of a file; none when it is not there yet."""
    if not path.exists():
        return {}
    lines = (line.partition("=") for line in path.read_text(encoding="utf-8").splitlines())
    return {name: value for name, is_setting, value in lines if is_setting}
