"""One server process with a home folder of its own: started, found again later, stopped.

servers.py and app.py say what to start. The process id and port are small files in the home folder,
so that another process, or a later day, finds the server again.
"""

import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import BinaryIO, ClassVar, TypeVar

ROOT = Path(__file__).resolve().parent.parent
LOOPBACK = "127.0.0.1"
# Below what systems hand out for outgoing connections: a stopped server finds its port free again.
PORTS = range(20_000, 32_000)
# Where servers are installed without being on an ordinary user's PATH.
EXTRA_PATH = "/usr/sbin:/usr/local/sbin:/usr/local/bin:/usr/libexec:/opt/homebrew/bin"

# Among the fields after the state in /proc/*/stat: proc(5) calls it the 20th, the state the 3rd.
NUM_THREADS = 16

SomeServer = TypeVar("SomeServer", bound="Server")


class ServerError(Exception):
    """A local server cannot be started; the text says which, why and what to do."""


class Server(ABC):
    """One process. A second object with the same home finds the process the first one started.

    `port`: listen there or fail; without it the last port if it is free, else another.
    `arguments` are added to the command line.
    """

    title: ClassVar[str]
    address: ClassVar[str] = LOOPBACK
    start_timeout_seconds: ClassVar[float] = 60.0

    def __init__(self, home: Path, port: int | None = None, arguments: Sequence[str] = ()) -> None:
        self.home = Path(home).resolve()
        self._asked_port = port
        self._arguments = tuple(arguments)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """Process id while it runs. None too when the remembered process is another program now."""
        if self._process is not None and self._process.poll() is None:
            return self._process.pid
        pid = self._remembered("pid")
        return pid if pid and self._identity in command_line(pid) else None

    @property
    def port(self) -> int:
        """Where it listens, or listened last. Raises ServerError before the first start."""
        port = self._remembered("port")
        if port is None:
            raise ServerError(f"{self.title} in {self.home} was never started")
        return port

    def start(self) -> None:
        """Start it unless it runs; return when it answers. ServerError has the end of its log."""
        self.begin()
        self.wait_until_it_answers()

    def begin(self) -> None:
        """The first half of `start`: its process is there and its port known."""
        if self.pid is None:
            self.home.mkdir(mode=0o700, parents=True, exist_ok=True)
            port = self._choose_port()
            self._prepare()
            self._launch(port)
        self.resume()

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
        """Start it on the port that it had, which its clients know. Raises ServerError where
        another program has that port now."""
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
        """Make it hang (SIGSTOP): connections stay open, nothing is answered."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Undo `pause`."""
        self._signal(signal.SIGCONT)

    def __enter__(self: SomeServer) -> SomeServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    @abstractmethod
    def _identity(self) -> str:
        """Text in the command line of this server and of no other process."""

    @abstractmethod
    def _command(self, port: int) -> list[str]: ...

    @abstractmethod
    def _answers(self) -> bool: ...

    def _prepare(self) -> None:
        """Bring the home folder to where the server can start from."""
        return

    def _executable(self) -> str | None:
        """The program to run where it is not the command's first word."""
        return None

    def _environment(self) -> dict[str, str]:
        return dict(os.environ)

    def _output(self) -> AbstractContextManager[BinaryIO | None]:
        """Where its messages go; None for where ours go. Those of its last life are kept."""
        log = self.home / "log"
        if log.exists():
            log.replace(self.home / "log.before")
        return log.open("wb")

    def _choose_port(self) -> int:
        if self._asked_port is not None:
            if not port_is_free(self._asked_port, self.address):
                taken = f"port {self._asked_port} is taken by another program"
                raise ServerError(f"{self.title}: {taken}")
            return self._asked_port
        last = self._remembered("port")
        if last is not None and port_is_free(last, self.address):
            return last
        shuffled = random.sample(PORTS, len(PORTS))
        return next(port for port in shuffled if port_is_free(port, self.address))

    def _launch(self, port: int) -> None:
        # Signals interrupt the main thread alone: in another, no Ctrl-C can come between starting
        # the process and noting it down.
        with ThreadPoolExecutor(1) as thread:
            thread.submit(self._launch_and_note, port).result()

    def _launch_and_note(self, port: int) -> None:
        with self._output() as output:
            self._process = subprocess.Popen(
                self._command(port),
                executable=self._executable(),
                env=self._environment(),
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


def find_program(*names: str) -> str | None:
    """Path of the first of `names` in the first folder of PATH that has one of them."""
    path = os.environ.get("PATH", os.defpath) + os.pathsep + EXTRA_PATH
    places = (shutil.which(name, path=each) for each in path.split(os.pathsep) for name in names)
    return next(filter(None, places), None)


def port_is_free(port: int, address: str = LOOPBACK) -> bool:
    """Whether a server could listen on this port of loopback now."""
    with socket.socket() as client:
        if client.connect_ex((address, port)) == 0:
            return False
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((address, port))
        except OSError:
            return False
    return True


def command_line(pid: int) -> str:
    """What a process was started with, joined by spaces; empty when there is no such process."""
    if not Path("/proc/self").exists():
        ps = ["ps", "-ww", "-o", "command=", "-p", str(pid)]
        return subprocess.run(ps, capture_output=True, text=True, check=False).stdout
    try:
        return os.fsdecode(Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" "))
    except OSError:
        return ""


def has_ended(pid: int) -> bool:
    """Whether a process has given back its files and ports; its command line is gone before."""
    try:
        os.kill(pid, 0)
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except ProcessLookupError:
        return True
    except OSError:
        return not command_line(pid)
    # A zombie waits for its parent to ask how it ended; its last thread holds nothing any more.
    # (Threads are counted here: a listing of them ends early where one of them ends meanwhile.)
    return state == "Z" and fields[NUM_THREADS] == "1"


def write_private(path: Path, text: str) -> None:
    """Put `text` in a file that its owner alone can read, whole or not at all."""
    unfinished = path.with_name(path.name + ".unfinished")
    unfinished.unlink(missing_ok=True)
    with open(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    unfinished.replace(path)
