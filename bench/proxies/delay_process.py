"""The process that delay.py starts: passes bytes on after a delay.

While bytes are under way it polls without sleeping, because a timer wakes up 50 to 100 µs late.
A round trip of 1 ms takes 1.06 to 1.08 ms: measured on two cores as the median of 2,000 ping-pongs
of 64 bytes, minus the same without the proxy. `make bench` prints the figure of its run.
"""

import argparse
import contextlib
import heapq
import select
import socket
import struct
import sys
import time
from collections.abc import Callable, Mapping

CHUNK_BYTES = 1 << 18
LOOPBACK = "127.0.0.1"
SO_TIMESTAMPNS = 35  # Linux, include/uapi/asm-generic/socket.h; not named in `socket`


class _Stream:
    """One direction of a connection: what is read from `source` goes to `sink`, later."""

    def __init__(self, source: socket.socket, sink: socket.socket) -> None:
        self.source = source
        self.sink = sink
        self.not_before = 0.0
        self.unsent = bytearray()
        self.ending = False
        self.ended = False
        self.twin: _Stream = self

    def flush(self) -> None:
        if self.unsent:
            with contextlib.suppress(BlockingIOError):
                del self.unsent[: self.sink.send(self.unsent)]
        if self.ending and not self.unsent:
            self.ended = True
            with contextlib.suppress(OSError):
                self.sink.shutdown(socket.SHUT_WR)


class _Relay:
    """One thread for all connections, because two that poll would take both cores of a small
    machine from the servers. `_agenda` is a heap of (when due, tie-breaker, action)."""

    def __init__(self, listeners: Mapping[socket.socket, tuple[str, int]], one_way: float) -> None:
        """Each listener with the server that it stands for."""
        self._listeners = {listener.fileno(): listener for listener in listeners}
        self._targets = listeners
        self._one_way = one_way
        self._agenda: list[tuple[float, int, Callable[[], None]]] = []
        self._entries = 0
        self._poll = select.poll()
        self._reading: dict[int, _Stream] = {}
        self._stuck: set[_Stream] = set()

    def serve_until_readable(self, stop: int) -> None:
        """`poll` and not `selectors`, which takes longer to say that nothing came."""
        poll = self._poll
        poll.register(stop, select.POLLIN)
        for listener in self._listeners:
            poll.register(listener, select.POLLIN)
        while True:
            busy = bool(self._agenda or self._stuck)
            for descriptor, _ in poll.poll(0 if busy else None):
                if descriptor == stop:
                    return
                if descriptor in self._listeners:
                    self._accept(self._listeners[descriptor])
                elif descriptor in self._reading:
                    self._read(self._reading[descriptor])
            while self._agenda and self._agenda[0][0] <= time.time():
                heapq.heappop(self._agenda)[2]()
            for stream in tuple(self._stuck):
                self._flush(stream)

    def _at(self, due: float, action: Callable[[], None]) -> None:
        self._entries += 1
        heapq.heappush(self._agenda, (due, self._entries, action))

    def _accept(self, listener: socket.socket) -> None:
        client, _ = listener.accept()
        client.setblocking(False)
        server = socket.socket()
        there, back = _Stream(client, server), _Stream(server, client)
        there.twin, back.twin = back, there
        for end in (client, server):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            end.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        there.not_before = time.time() + 3 * self._one_way
        self._at(there.not_before, lambda: self._connect(there, self._targets[listener]))
        self._watch(there)

    def _connect(self, there: _Stream, target: tuple[str, int]) -> None:
        if there.ended:
            return
        try:
            there.sink.connect(target)
        except OSError:
            self._close(there)
            return
        there.sink.setblocking(False)
        self._watch(there.twin)

    def _watch(self, stream: _Stream) -> None:
        self._reading[stream.source.fileno()] = stream
        self._poll.register(stream.source, select.POLLIN)

    def _read(self, stream: _Stream) -> None:
        try:
            data, came = _receive(stream.source)
        except BlockingIOError:
            return
        except OSError:
            self._close(stream)
            return
        if not data:
            self._unwatch(stream)
        # The kernel begins to stamp a little after it is asked to, so a later piece can bear an
        # earlier time than the clock told for the piece before it.
        stream.not_before = max(came + self._one_way, stream.not_before)
        self._at(stream.not_before, lambda: self._deliver(stream, data))

    def _unwatch(self, stream: _Stream) -> None:
        if self._reading.pop(stream.source.fileno(), None):
            self._poll.unregister(stream.source)

    def _deliver(self, stream: _Stream, data: bytes) -> None:
        stream.unsent += data
        stream.ending = stream.ending or not data
        self._flush(stream)

    def _flush(self, stream: _Stream) -> None:
        if stream.ended:
            self._stuck.discard(stream)
            return
        try:
            stream.flush()
        except OSError:
            self._close(stream)
            return
        if stream.unsent:
            self._stuck.add(stream)
        else:
            self._stuck.discard(stream)
        if stream.ended and stream.twin.ended:
            self._close(stream)

    def _close(self, stream: _Stream) -> None:
        for one in (stream, stream.twin):
            if one.source.fileno() >= 0:
                self._unwatch(one)
            self._stuck.discard(one)
            one.ended = True
        stream.source.close()
        stream.sink.close()


def _receive(source: socket.socket) -> tuple[bytes, float]:
    """What came, and when the kernel got it."""
    data, notes, _, _ = source.recvmsg(CHUNK_BYTES, 64)
    for level, kind, stamp in notes:
        if (level, kind) == (socket.SOL_SOCKET, SO_TIMESTAMPNS):
            seconds, nanoseconds = struct.unpack("qq", stamp)
            return data, seconds + nanoseconds / 1e9
    return data, time.time()


def main() -> None:
    parser = argparse.ArgumentParser(description="Prints its ports; serves until stdin closes.")
    parser.add_argument("round_trip_seconds", type=float)
    parser.add_argument("servers", nargs="+", help="host:port of each")
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        listeners = {}
        for server in options.servers:
            host, _, port = server.rpartition(":")
            listener = stack.enter_context(socket.create_server((LOOPBACK, 0), backlog=256))
            listeners[listener] = (host, int(port))
        print(*[listener.getsockname()[1] for listener in listeners], flush=True)
        relay = _Relay(listeners, options.round_trip_seconds / 2)
        relay.serve_until_readable(sys.stdin.fileno())


if __name__ == "__main__":
    main()
