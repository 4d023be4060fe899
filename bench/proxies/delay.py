"""A TCP proxy that adds the delay of a network to servers on this machine.

    with delayed([(host, port)], round_trip_seconds=0.001) as [far_port]: ...

Bytes are passed on in order, half a round trip after the kernel received them. Bandwidth is not
limited. The server sees a new connection one and a half round trips after the client opened it, as
with a real handshake (SYN, SYN-ACK, ACK). Nothing that the client sends arrives earlier.

The proxy runs in a process of its own (delay_process.py), so that it takes no time from the
measured process. It ends with its parent, also where the parent is killed.
"""

import contextlib
import subprocess
import sys
from collections.abc import Iterator, Sequence

from local.machine import ROOT


@contextlib.contextmanager
def delayed(servers: Sequence[tuple[str, int]], round_trip_seconds: float) -> Iterator[list[int]]:
    """Gives a loopback port for each server (host, port). Through it the server is
    `round_trip_seconds` away."""
    targets = [f"{host}:{port}" for host, port in servers]
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.proxies.delay_process", repr(round_trip_seconds), *targets],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        start_new_session=True,  # Ctrl-C is for the parent, which then ends it
    )
    try:
        assert process.stdout is not None
        ports = [int(port) for port in process.stdout.readline().split()]
        if len(ports) != len(targets):
            raise RuntimeError("the delay proxy did not start: its own error stands above")
        yield ports
    finally:
        process.communicate()  # closes its stdin, which ends it
