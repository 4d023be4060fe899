"""A server on a free port of loopback, which hands each connection to a thread."""

import contextlib
import socket
import threading
from abc import ABC, abstractmethod
from typing import TypeVar

from local.machine import LOOPBACK

Own = TypeVar("Own", bound="Listener")


class Listener(ABC):
    """It accepts connections inside `with`. Those that are open when it ends stay open."""

    def __init__(self) -> None:
        self._listener = socket.create_server((LOOPBACK, 0), backlog=1024)
        self.port: int = self._listener.getsockname()[1]

    def __enter__(self: Own) -> Own:
        threading.Thread(target=self._accept_until_closed, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept_until_closed(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    @abstractmethod
    def _serve(self, client: socket.socket) -> None:
        """Talk to a client that has just connected."""
