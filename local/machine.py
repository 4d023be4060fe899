"""This machine: installed programs, free ports, running processes, private files."""

import os
import shutil
import socket
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOOPBACK = "127.0.0.1"
# Below what systems hand out for outgoing connections: a stopped server finds its port free again.
PORTS = range(20_000, 32_000)
# For what is chosen before its server starts, so that no other server takes it meanwhile.
CLUSTER_BUS_PORTS = range(12_000, 20_000)
# The environment variable that tells a server of ours which socket to listen on: its number.
LISTENER = "HEROCACHE_LISTENER"
# Where servers are installed without being on an ordinary user's PATH.
EXTRA_PATH = "/usr/sbin:/usr/local/sbin:/usr/local/bin:/usr/libexec:/opt/homebrew/bin"

# Among the fields after the state in /proc/*/stat: proc(5) calls it the 20th, the state the 3rd.
NUM_THREADS = 16


def find_program(*names: str) -> str | None:
    """Path of the first of `names` in the first folder of PATH that has one of them."""
    path = os.environ.get("PATH", os.defpath) + os.pathsep + EXTRA_PATH
    places = (shutil.which(name, path=each) for each in path.split(os.pathsep) for name in names)
    return next(filter(None, places), None)


def listen(port: int, address: str = LOOPBACK) -> socket.socket | None:
    """A socket that listens on this port of loopback, or None where a server has the port."""
    with socket.socket() as client:
        if client.connect_ex((address, port)) == 0:
            return None
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((address, port))
        listener.listen()
    except OSError:
        listener.close()
        return None
    return listener


def port_is_free(port: int, address: str = LOOPBACK) -> bool:
    """Whether a server could listen on this port of loopback now."""
    listener = listen(port, address)
    if listener is None:
        return False
    listener.close()
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
    """Whether a process has released its files and ports. Its command line is gone earlier."""
    try:
        os.kill(pid, 0)
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except ProcessLookupError:
        return True
    except OSError:
        return not command_line(pid)
    # A zombie waits for its parent to read its exit code. With one thread left it holds nothing.
    # The count is read here, because a listing of threads ends early where one ends meanwhile.
    return state == "Z" and fields[NUM_THREADS] == "1"


def has_stopped(pid: int) -> bool:
    """Whether no thread of a process runs (SIGSTOP reaches them one after the other), or the
    process has ended."""
    if not Path("/proc/self").exists():
        ps = ["ps", "-o", "state=", "-p", str(pid)]
        done = subprocess.run(ps, capture_output=True, text=True, check=False)
        return done.stdout.strip()[:1] in ("T", "Z", "")
    try:
        threads = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/stat")]
    except OSError:
        return False
    return all(thread.rpartition(")")[2].split()[0] in "TZX" for thread in threads)


def write_private(path: Path, text: str) -> None:
    """Writes `text` to a file that only its owner can read. The file is whole or unchanged."""
    unfinished = path.with_name(path.name + ".unfinished")
    unfinished.unlink(missing_ok=True)
    with open(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    unfinished.replace(path)
