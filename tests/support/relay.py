"""A TCP relay in front of a server that injects faults of a network: silence, cuts, another server.

    with relaying(port) as relay: ...; relay.silence(); relay.end_silence(); relay.cut()

A new connection to `relay.port` leads to `relay.target`; open connections keep their server.
"""

import contextlib
import socket
import threading
import time
from collections.abc import Callable

from bench.proxies.listener import Listener
from local.machine import LOOPBACK

CHUNK_BYTES = 1 << 16

# What to do with a piece: pass it on; cut the connection before it; pass it on, then cut the
# connection; pass it on, and hold the answer for `held_seconds`.
PASS, CUT_BEFORE, CUT_AFTER, HOLD_ANSWER = range(4)


class Relay(Listener):
    """`judge` is asked what to do with every piece a client sends; an error in it ends the
    connection. `welcome` is called when one connects, before anything passes. With
    `drip_seconds` what a server says comes byte by byte. `last_words`: what a client is told
    before it is cut off."""

    def __init__(self, target: int) -> None:
        super().__init__()
        self.target = target
        self.judge: Callable[[bytes], int] = lambda piece: PASS
        self.welcome: Callable[[], None] = lambda: None
        self.drip_seconds = 0.0
        self.last_words = b""
        self.held_seconds = 0.0
        self._open: set[socket.socket] = set()
        self._held: dict[socket.socket, float] = {}
        self._flows = threading.Event()
        self._flows.set()

    def silence(self) -> None:
        """Nothing passes in either direction; connections stand, new ones too."""
        self._flows.clear()

    def end_silence(self) -> None:
        """What was held back passes now."""
        self._flows.set()

    def cut(self) -> None:
        """End every connection that stands."""
        for end in list(self._open):
            _reset(end)

    def close(self) -> None:
        super().close()
        self.end_silence()
        self.cut()

    def _serve(self, client: socket.socket) -> None:
        self.welcome()
        try:
            server = socket.create_connection((LOOPBACK, self.target))
        except OSError:
            _reset(client)
            client.close()
            return
        for end in (client, server):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._open.add(end)
        back = threading.Thread(target=self._pass_on, args=(server, client), daemon=True)
        back.start()
        self._pass_on(client, server, asks=True)
        back.join()
        for end in (client, server):
            self._open.discard(end)
            end.close()

    def _pass_on(self, source: socket.socket, sink: socket.socket, *, asks: bool = False) -> None:
        try:
            while piece := source.recv(CHUNK_BYTES):
                self._flows.wait()
                verdict = self.judge(piece) if asks else PASS
                if verdict == HOLD_ANSWER:
                    self._held[sink] = self.held_seconds
                if verdict in (CUT_BEFORE, CUT_AFTER):
                    source.sendall(self.last_words)
                    _reset(source)
                time.sleep(self._held.pop(source, 0.0))
                if verdict != CUT_BEFORE:
                    self._deliver(sink, piece, self.drip_seconds * (not asks))
                if verdict in (CUT_BEFORE, CUT_AFTER):
                    break
        except OSError:
            pass  # either end is gone
        finally:
            _reset(source)
            _reset(sink)

    def _deliver(self, sink: socket.socket, piece: bytes, drip_seconds: float) -> None:
        if not drip_seconds:
            sink.sendall(piece)
            return
        for at in range(len(piece)):
            sink.sendall(piece[at : at + 1])
            time.sleep(drip_seconds)


def relaying(target: int) -> Relay:
    """To the server on this port."""
    return Relay(target)


def _reset(end: socket.socket) -> None:
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
