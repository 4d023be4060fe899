"""One server process with a home folder of its own: started, found again, stopped.

Its process id and port stand in small files in the home folder, so that another process can find
the server later.
"""

import os
import random
import secrets
import signal
import socket
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import BinaryIO, ClassVar, TypeVar

from local.machine import (
    LISTENER,
    LOOPBACK,
    PORTS,
    command_line,
    find_program,
    has_ended,
    has_stopped,
    listen,
    write_private,
)

SomeServer = TypeVar("SomeServer", bound="Server")


# In a folder that these commands made. `make clean` deletes no other one.
MARK = ".herocache"


class ServerError(Exception):
    """A command or a server cannot go on. The text says which, why and what to do."""


class Server(ABC):
    """One process. A second object with the same home finds the process of the first.

    `port`: it listens there or fails; without it, on its last port if that is free, else on
    another. `arguments`: added to its command line.
    """

    title: ClassVar[str]
    address: ClassVar[str] = LOOPBACK
    start_timeout_seconds: ClassVar[float] = 60.0
    # Whether the process takes over the socket that listens on its port. Others open the port
    # themselves, and end where somebody was faster.
    takes_over_listener: ClassVar[bool] = False

    def __init__(self, home: Path, port: int | None = None, arguments: Sequence[str] = ()) -> None:
        self.home = Path(home).resolve()
        self._asked_port = port
        self._arguments = tuple(arguments)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """The process id while it runs, else None: also where another program has that id now."""
        if self._process is not None and self._process.poll() is None:
            return self._process.pid
        pid = self._remembered("pid")
        return pid if pid and self._identity in command_line(pid) else None

    @property
    def port(self) -> int:
        """The port where it listens, or listened last. Raises ServerError before the first
        start."""
        port = self._remembered("port")
        if port is None:
            raise ServerError(f"{self.title} in {self.home} was never started")
        return port

    def start(self) -> None:
        """Starts it unless it runs. Returns when it answers. Raises ServerError with the end of its
        log."""
        self.begin()
        self.wait_until_it_answers()

    def begin(self) -> None:
        """The first half of `start`. Afterwards its process exists and its port is known."""
        if self.pid is None:
            self._make_home()
            with self._take_port() as listener:
                self._prepare()
                self._launch(listener)
        self.resume()

    def _make_home(self) -> None:
        """Makes the folder, and marks it as ours where nobody else has put anything there."""
        self.home.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not any(self.home.iterdir()):
            (self.home / MARK).touch()

    @property
    def owns_home(self) -> bool:
        """Whether these commands made the folder. Older ones only noted the port there."""
        return (self.home / MARK).exists() or (self.home / "port").exists()

    def wait_until_it_answers(self) -> None:
        """The second half of `start`."""
        deadline = time.monotonic() + self.start_timeout_seconds
        while not self._answers():
            if self.pid is None:
                raise ServerError(f"{self.title} did not start. {self.last_words()}")
            if time.monotonic() > deadline:
                self.kill()
                raise ServerError(f"{self.title} ran but did not answer. {self.last_words()}")
            time.sleep(0.02)

    def start_again(self) -> None:
        """Starts it on its old port, because its clients know that one. Raises ServerError where
        another program has the port now."""
        self._asked_port = self.port
        self.start()

    def last_words(self) -> str:
        """The end of its log, or where it logs to."""
        log = self.home / "log"
        if not log.exists():
            return "Its messages are above."
        lines = log.read_text(errors="replace").splitlines()[-15:]
        if not lines:
            return f"{log} is empty: it was killed, or ended without a word."
        return "\n".join([f"{log} ends:", *lines])

    def stop(self, timeout_seconds: float = 30.0) -> None:
        """End it in order, by force after the timeout; return when it is gone."""
        pid = self.pid
        self._signal(signal.SIGTERM)
        self.resume()
        if pid is not None and not self._ends_within(pid, timeout_seconds):
            self.kill()
        (self.home / "pid").unlink(missing_ok=True)

    def kill(self) -> None:
        """End it as a crash would (SIGKILL); return when it is gone."""
        pid = self.pid
        self._signal(signal.SIGKILL)
        if pid is not None and not self._ends_within(pid, 10.0):
            raise ServerError(f"{self.title} (process {pid}) cannot be ended")

    def pause(self) -> None:
        """Makes it hang (SIGSTOP): connections stay open, and nothing is answered. Returns when no
        thread of it runs."""
        self._signal(signal.SIGSTOP)
        pid, deadline = self.pid, time.monotonic() + 10.0
        while pid is not None and not has_stopped(pid):
            if time.monotonic() > deadline:
                raise ServerError(f"{self.title} (process {pid}) cannot be paused")
            time.sleep(0.001)

    def resume(self) -> None:
        """Undoes `pause`."""
        self._signal(signal.SIGCONT)

    def __enter__(self: SomeServer) -> SomeServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    @abstractmethod
    def _identity(self) -> str:
        """A text that is in the command line of this server and of no other process."""

    @abstractmethod
    def _command(self, port: int) -> list[str]: ...

    @abstractmethod
    def _answers(self) -> bool: ...

    def _prepare(self) -> None:
        """Prepares the home folder for a start."""
        return

    def _executable(self) -> str | None:
        """The program to run, where it is not the first word of the command."""
        return None

    def _environment(self) -> dict[str, str]:
        return dict(os.environ)

    def _output(self) -> AbstractContextManager[BinaryIO | None]:
        """Where its messages go; None is where ours go. The log of its last run is kept."""
        log = self.home / "log"
        if log.exists():
            log.replace(self.home / "log.before")
        return log.open("wb")

    def _ports(self) -> Iterable[int]:
        """The ports to try where none was asked for."""
        last = self._remembered("port")
        return ([] if last is None else [last]) + random.sample(PORTS, len(PORTS))

    def _take_port(self) -> socket.socket:
        """A socket that listens on the port of this server: nobody else gets the port now."""
        ports = self._ports() if self._asked_port is None else [self._asked_port]
        for port in ports:
            if listener := listen(port, self.address):
                return listener
        taken = f"port {self._asked_port} is taken by another program"
        raise ServerError(f"{self.title}: {taken}")

    def _launch(self, listener: socket.socket) -> None:
        # Signals interrupt only the main thread. In another thread, no Ctrl-C can come between the
        # start of the process and the file with its id.
        with ThreadPoolExecutor(1) as thread:
            thread.submit(self._launch_and_note, listener).result()

    def _launch_and_note(self, listener: socket.socket) -> None:
        port, environment = listener.getsockname()[1], self._environment()
        kept = [listener.fileno()] if self.takes_over_listener else []
        if kept:
            environment[LISTENER] = str(kept[0])
        else:
            listener.close()
        with self._output() as output:
            self._process = subprocess.Popen(
                self._command(port),
                executable=self._executable(),
                env=environment,
                pass_fds=kept,
                cwd=self.home,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output and subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C must reach us alone: we stop things in order
            )
        (self.home / "pid").write_text(str(self._process.pid))
        (self.home / "port").write_text(str(port))

    def _signal(self, number: signal.Signals) -> None:
        pid = self.pid
        if pid is not None:
            os.kill(pid, number)

    def _ends_within(self, pid: int, seconds: float) -> bool:
        if self._process is not None and self._process.pid == pid:
            try:
                self._process.wait(seconds)
            except subprocess.TimeoutExpired:
                return False
            return True
        deadline = time.monotonic() + seconds
        while not has_ended(pid):
            if time.monotonic() > deadline:
                return False
            time.sleep(0.01)
        return True

    def _remembered(self, name: str) -> int | None:
        try:
            return int((self.home / name).read_text())
        except (OSError, ValueError):
            return None

    def _secret(self, name: str) -> str:
        if not (self.home / name).exists():
            write_private(self.home / name, secrets.token_hex(16))
        return (self.home / name).read_text()


def installed(what: str, *names: str) -> str:
    """The path of the first of `names` that is installed. Raises ServerError, which names
    `what`."""
    program = find_program(*names)
    if program is None:
        raise ServerError(f"no {what} server is installed: `make run` installs one, or says how")
    return program
