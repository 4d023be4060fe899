"""A copy of the project in a folder of its own, and its make targets as a user runs them."""

import os
import shutil
import signal
import subprocess
import threading
from pathlib import Path

from local.home_folder import Home
from local.machine import ROOT, has_ended

PARTS = (".chalice", "Makefile", "app.py", "chalicelib", "events", "local", "seed")
# A part of the last line that `make run` prints when it serves.
LAST_WORDS = "Any S3 client"
OURS = {"MAKEFLAGS", "MAKELEVEL", "MFLAGS", "HEROCACHE_HOME"} | {
    *("PORT", "FILE", "TABLE", "FUNCTION", "EVENT", "KEYS", "ENGINE")
}


def clean_environment(**settings: str) -> dict[str, str]:
    """Ours without what an outer `make test` put there."""
    return {name: value for name, value in os.environ.items() if name not in OURS} | settings


def make(folder: Path, *words: str, **settings: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["make", *words],
        cwd=folder,
        env=clean_environment(**settings),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )


def copy_project(copy: Path) -> Path:
    """The folder, now with what `make run` needs. `make down` there ends what was started."""
    copy.mkdir()
    for part in (*PARTS, *(path.name for path in ROOT.glob("requirements*.txt"))):
        if (ROOT / part).is_dir():
            shutil.copytree(ROOT / part, copy / part)
        else:
            shutil.copy(ROOT / part, copy / part)
    (copy / ".venv").symlink_to(ROOT / ".venv")
    return copy


class MakeRun:
    """A `make run` in a terminal of its own, up to where it says that it serves."""

    def __init__(self, folder: Path, **settings: str) -> None:
        self.process = subprocess.Popen(
            ["make", "run"],
            cwd=folder,
            env=clean_environment(**settings),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.services = Home(folder / ".local")

    def __enter__(self) -> "MakeRun":
        try:
            self.output = self.read_until(LAST_WORDS)
        except AssertionError:
            self.__exit__()
            raise
        servers = (self.services.app, *self.services.servers)
        self.pids = [server.pid for server in servers if server.pid is not None]
        assert len(self.pids) == len(servers)
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.press_ctrl_c()
        assert self.process.stdout is not None
        self.process.stdout.close()

    def read_until(self, words: str) -> str:
        """What it says up to the line with these words, which it must say within a minute."""
        assert self.process.stdout is not None
        watchdog = threading.Timer(60, self.send, [signal.SIGKILL])
        watchdog.start()
        read = ""
        for line in self.process.stdout:
            read += line
            if words in line:
                break
        watchdog.cancel()
        assert words in read, read
        return read

    def send(self, number: signal.Signals) -> None:
        """To make and all that it runs in the foreground, as the terminal does."""
        os.killpg(self.process.pid, number)

    def press_ctrl_c(self) -> str:
        """What it said from then to its end."""
        self.send(signal.SIGINT)
        return self.rest()

    def rest(self) -> str:
        """What it still said, once all who could say something have ended."""
        output, _ = self.process.communicate(timeout=30)
        return output

    def leftovers(self) -> list[int]:
        return [pid for pid in self.pids if not has_ended(pid)]
