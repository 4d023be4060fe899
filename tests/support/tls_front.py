"""A server of a test's own with TLS, which hands each connection to a thread."""

import contextlib
import socket
import ssl
import threading
from abc import ABC, abstractmethod

from local.machine import LOOPBACK
from tests.support.certificates import Authority


class TlsFront(ABC):
    """`_open`: the connections that `cut` ends."""

    def __init__(self, authority: Authority) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(authority.server_certificate, authority.server_key)
        self._listener = socket.create_server((LOOPBACK, 0), backlog=100)
        self.port: int = self._listener.getsockname()[1]
        self._open: set[socket.socket] = set()

    def accept_until_closed(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def cut(self) -> None:
        """End every connection. `SSLSocket.shutdown` would have the reader take what still comes
        for plain text."""
        for end in list(self._open):
            with contextlib.suppress(OSError):
                socket.socket.shutdown(end, socket.SHUT_RDWR)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    @abstractmethod
    def _serve(self, plain: socket.socket) -> None:
        """Talk to a client that has not begun TLS yet."""
