"""The app as a server on loopback: `chalice local` with the settings of our servers."""

import sys
import urllib.error
import urllib.request
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from local.machine import LOOPBACK, ROOT
from local.servers.server import Server, ServerError
from local.settings import environment_with

# .chalice/config.json must not declare it: what a declared stage sets would replace our settings.
STAGE = "local"
FIRST_PORT = 8000
# Ignores a proxy of the environment, which cannot reach 127.0.0.1.
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class App(Server):
    """`chalice local` on the asked port, else on the first free one from 8000. Its log goes where
    ours goes."""

    title = "app"
    start_timeout_seconds = 30.0
    takes_over_listener = True

    def __init__(
        self, home: Path, port: int | None = None, settings: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(home, port)
        self.settings = dict(settings or {})

    @property
    def url(self) -> str:
        """The URL where it serves."""
        return f"http://{LOOPBACK}:{self.port}"

    def wait(self, timeout_seconds: float) -> int:
        """Waits for its end and returns the exit code. Raises subprocess.TimeoutExpired. Only the
        object that started it can wait."""
        assert self._process is not None
        return self._process.wait(timeout_seconds)

    @property
    def _identity(self) -> str:
        # Python takes any -X there is; this one is only to be recognised by.
        return f"herocache={self.home}"

    def _ports(self) -> Iterable[int]:
        return range(FIRST_PORT, 2**16)

    def _command(self, port: int) -> list[str]:
        # Not .venv/bin/chalice: its first line is wrong once the project folder has been moved.
        python = [sys.executable, "-X", self._identity]
        chalice = ["-c", "from chalice.cli import main; main()", "--project-dir", str(ROOT)]
        options = ["--no-autoreload", "--stage", STAGE, "--host", LOOPBACK, "--port", str(port)]
        return [*python, *chalice, "local", *options]

    def _output(self) -> AbstractContextManager[None]:
        return nullcontext()

    def _environment(self) -> dict[str, str]:
        return environment_with(self.settings)

    def _answers(self) -> bool:
        try:
            with DIRECT.open(f"{self.url}/health", timeout=5) as response:
                return bool(response.status == 200)
        except urllib.error.HTTPError as error:
            raise ServerError(f"{self.url}/health answered {error.code}, see above") from error
        except OSError:
            return False


class QuietApp(App):
    """The same on any free port, because 8000 and up are for `make run`. It logs to its folder."""

    _ports = Server._ports
    _output = Server._output  # type: ignore[assignment]  # App's returns no file
