"""A TCP proxy that puts servers a known time away: what a network costs, on one machine.

    with delayed([(host, port)], round_trip_seconds=0.001) as [far_port]: ...

Every piece of a stream is passed on, in order, half a round trip after the kernel got it; bandwidth
is not limited. The server sees a new connection one and a half round trips after the client opened
it, as with a real handshake (SYN, SYN-ACK, ACK), and nothing the client sends arrives earlier.

The proxy (delay_relay.py) is a process of its own, so that its work is not the measured process's,
and ends with its parent, however that ends.
"""

import contextlib
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path


@contextlib.contextmanager
def delayed(servers: Sequence[tuple[str, int]], round_trip_seconds: float) -> Iterator[list[int]]:
    """For each server, by host and port, the loopback port behind which it is
    `round_trip_seconds` away."""
    targets = [f"{host}:{port}" for host, port in servers]
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.delay_relay", repr(round_trip_seconds), *targets],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parent.parent,
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
