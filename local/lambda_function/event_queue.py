"""The function `ingest` as Lambda runs it: events wait in a queue, a failed one is tried again.

The function runs in a container, a process that is kept warm. It is replaced when it dies, hangs or
its settings have changed.
"""

import queue
import threading
from pathlib import Path
from typing import Any
from urllib.parse import unquote_plus

from chalicelib.ingest.events import OWN_FOLDERS
from local.lambda_function.container import Container, InvocationFailed
from local.lambda_function.upload_outcome import Outcome
from local.settings import read_settings
from local.terminal import say

Event = dict[str, Any]

# Before each attempt. Lambda makes as many; it waits one minute and then two.
PAUSES_SECONDS = (0.0, 1.0, 2.0)


class Function:
    """Handles one event at a time, in the order of their arrival."""

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
        """Kills the container, whatever it is doing."""
        self._ended.set()
        if self._container is not None:
            self._container.kill()

    def invoke_later(self, event: Event) -> None:
        """Queues an event and returns at once. Its outcome is written to the file `outcomes`, but
        not for an object that the function itself wrote."""
        self._events.put(event)

    def _run(self) -> None:
        while not self._ended.is_set():
            outcome = self._outcome(self._events.get())
            if not self._ended.is_set() and not outcome.key.startswith(OWN_FOLDERS):
                say("ingest", outcome.in_words())
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
                say("ingest", f"{key}: attempt {attempt} failed: {error}")
        return Outcome(key, version, len(PAUSES_SECONDS), error=error)

    def _warm_container(self) -> Container:
        settings = read_settings(self._settings)
        if self._container is None or not self._container.serves(settings):
            if self._container is not None:
                self._container.kill()
            with (self._home / "function.log").open("ab") as log:
                self._container = Container(settings, log)
        return self._container
