"""A process that runs the functions of app.py, as a Lambda container does."""

import contextlib
import json
import select
import subprocess
import sys
from collections.abc import Mapping
from typing import IO, Any

from local.machine import ROOT
from local.settings import environment_with

# Lambda's longest.
TIMEOUT_SECONDS = 900.0


class InvocationFailed(Exception):
    """The function raised, died or took too long. The text says which."""


class Container:
    """A process that has the app loaded and waits for calls. It logs to `log`, an open file."""

    def __init__(self, settings: Mapping[str, str], log: IO[Any]) -> None:
        self._settings = dict(settings)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "local.lambda_function.container_process"],
            env={**environment_with(settings), "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    def serves(self, settings: Mapping[str, str]) -> bool:
        """Whether it lives and was started with these settings."""
        return self._process.poll() is None and self._settings == settings

    def invoke(self, function: str, event: object) -> Any:
        """Returns what the function returns. Raises InvocationFailed; kills a hung process
        first."""
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
        """Kills the process. Returns when it is gone."""
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
