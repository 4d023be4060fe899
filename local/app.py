"""The app as a server of this machine: `chalice local`, given the settings of our servers."""

import os
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from local.process import LOOPBACK, ROOT, Server, ServerError, port_is_free

# Not declared in .chalice/config.json: what a declared stage sets would win over our settings.
STAGE = "local"
FIRST_PORT = 8000
# A proxy in the environment would be asked for 127.0.0.1 too.
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class App(Server):
    """`chalice local` on the asked port, else on the first free one from 8000. Logs to ours."""

    title = "app"
    start_timeout_seconds = 30.0

    def __init__(
        self, home: Path, port: int | None = None, settings: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(home, port)
        self.settings = dict(settings or {})

    @property
    def url(self) -> str:
        """Where it serves."""
        return f"http://{LOOPBACK}:{self.port}"

    def wait(self, timeout_seconds: float) -> int:
        """Its exit code; only for the object that started it. Or subprocess.TimeoutExpired."""
        assert self._process is not None
        return self._process.wait(timeout_seconds)

    @property
    def _identity(self) -> str:
        # Python takes any -X there is; this one is only to be recognised by.
        return f"herocache={self.home}"

    def _choose_port(self) -> int:
        if self._asked_port is not None:
            return super()._choose_port()
        return next(port for port in range(FIRST_PORT, 2**16) if port_is_free(port))

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


def environment_with(settings: Mapping[str, str]) -> dict[str, str]:
    """The environment of a process that runs the app with these settings."""
    # Those of another database, cache or bucket in the caller's shell must not mix with ours.
    names = ("DB_", "REDIS_", "AWS_", "UPLOAD_BUCKET")
    others = {name for name in os.environ if name.startswith(names)}
    kept = {name: value for name, value in os.environ.items() if name not in others}
    direct = os.environ.get("no_proxy") or os.environ.get("NO_PROXY")
    no_proxy = f"{direct},{LOOPBACK}" if direct else LOOPBACK
    return {**kept, **settings, "no_proxy": no_proxy, "PYTHONUNBUFFERED": "1"}
