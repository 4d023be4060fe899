"""Functions that S3 calls, as Lambda runs them: events wait in a queue, failed ones are repeated.

Each function runs in containers, processes that are kept warm. One is replaced when it dies, hangs
or its settings have changed.
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
    """The function `name` of app.py. Takes events in the order of their arrival, `concurrency` of
    them at a time."""

    def __init__(self, home: Path, settings: Path, name: str, concurrency: int = 1) -> None:
        self._home = home
        self._settings = settings
        self._name = name
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._ended = threading.Event()
        self._containers: list[Container | None] = [None] * concurrency
        self._threads = [
            threading.Thread(target=self._run, args=(place,), name=name, daemon=True)
            for place in range(concurrency)
        ]

    def __enter__(self) -> "Function":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Kills the containers, whatever they are doing."""
        self._ended.set()
        for container in self._containers:
            if container is not None:
                container.kill()

    def invoke_later(self, event: Event) -> None:
        """Queues an event of one object, and returns at once."""
        self._events.put(event)

    def tell(self, outcome: Outcome) -> None:
        """Called with what became of each event. Prints those that were given up."""
        if outcome.error:
            say(self._name, outcome.in_words())

    def _run(self, place: int) -> None:
        while not self._ended.is_set():
            outcome = self._outcome(self._events.get(), place)
            if not self._ended.is_set():
                self.tell(outcome)

    def _outcome(self, event: Event, place: int) -> Outcome:
        [record] = event["Records"]
        stored = record["s3"]["object"]
        key, version = unquote_plus(stored["key"]), stored.get("versionId", "")
        error = ""
        for attempt, pause in enumerate(PAUSES_SECONDS, start=1):
            if self._ended.wait(pause):
                break
            try:
                summaries = self._warm_container(place).invoke(self._name, event) or []
                return Outcome(key, version, attempt, summaries)
            except (InvocationFailed, OSError) as failure:
                error = str(failure)
                say(self._name, f"{key}: attempt {attempt} failed: {error}")
        return Outcome(key, version, len(PAUSES_SECONDS), error=error)

    def _warm_container(self, place: int) -> Container:
        settings = read_settings(self._settings)
        container = self._containers[place]
        if container is None or not container.serves(settings):
            if container is not None:
                container.kill()
            with (self._home / "function.log").open("ab") as log:
                container = self._containers[place] = Container(settings, log)
        return container


class Ingest(Function):
    """Writes the outcome of each upload to the file `outcomes`, but not of an object that the
    function itself wrote."""

    def __init__(self, home: Path, settings: Path) -> None:
        super().__init__(home, settings, "ingest")

    def __enter__(self) -> "Ingest":
        for name in ("outcomes", "function.log"):
            (self._home / name).write_bytes(b"")
        super().__enter__()
        return self

    def tell(self, outcome: Outcome) -> None:
        if not outcome.key.startswith(OWN_FOLDERS):
            say(self._name, outcome.in_words())
            with (self._home / "outcomes").open("a", encoding="utf-8") as file:
                file.write(outcome.line())
