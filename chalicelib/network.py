"""Opens a TCP connection within a time limit that includes the look-up of the host's name.

The operating system may look a name up for 10 s or more, and that cannot be interrupted. So a
thread looks the name up, and the caller stops waiting when the time is over."""

import contextlib
import ipaddress
import queue
import socket
import threading
import time
from collections.abc import Sequence
from typing import Any

# As `socket.getaddrinfo` returns it.
Found = Sequence[tuple[Any, Any, Any, Any, Any]]


def reach(host: str, port: int, seconds: float) -> socket.socket:
    """A connection to the first address of the host that answers, with TCP_NODELAY set. Raises
    OSError, and TimeoutError where the time is over."""
    until = time.monotonic() + seconds
    failure: OSError = socket.gaierror("no address")
    for family, kind, protocol, _, address in _found(host, port, seconds):
        connection = socket.socket(family, kind, protocol)
        try:
            connection.settimeout(max(until - time.monotonic(), 0.001))
            connection.connect(address)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            return connection
        except OSError as error:
            connection.close()
            failure = error
    raise failure


def _found(host: str, port: int, seconds: float) -> Found:
    if _is_address(host):
        return _looked_up(host, port)
    answers: queue.SimpleQueue[Found | OSError] = queue.SimpleQueue()

    def look_up() -> None:
        try:
            answers.put(_looked_up(host, port))
        except OSError as error:
            answers.put(error)

    threading.Thread(target=look_up, name="look-up", daemon=True).start()
    answer: Found | OSError = TimeoutError("the name was not found in time")
    with contextlib.suppress(queue.Empty):
        answer = answers.get(timeout=seconds)
    if isinstance(answer, OSError):
        raise answer
    return answer


def _looked_up(host: str, port: int) -> Found:
    return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)


def _is_address(host: str) -> bool:
    try:
        return bool(ipaddress.ip_address(host))
    except ValueError:
        return False
