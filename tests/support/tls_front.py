"""A server of a test's own with TLS."""

import contextlib
import socket
import ssl

from bench.proxies.listener import Listener
from tests.support.certificates import Authority


class TlsFront(Listener):
    """`_open`: the connections that `cut` ends."""

    def __init__(self, authority: Authority) -> None:
        super().__init__()
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(authority.server_certificate, authority.server_key)
        self._open: set[socket.socket] = set()

    def cut(self) -> None:
        """End every connection. `SSLSocket.shutdown` would have the reader take what still comes
        for plain text."""
        for end in list(self._open):
            with contextlib.suppress(OSError):
                socket.socket.shutdown(end, socket.SHUT_RDWR)

    def close(self) -> None:
        super().close()
        self.cut()
