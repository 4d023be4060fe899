"""A TCP proxy that counts: connections, and the round trips made on them.

    with counted(host, port) as proxy: ...; proxy.round_trips

A round trip is a turn of the conversation: the server speaks after the client did, or first, where
its protocol has it greet (MySQL). Commands sent together are one, however many packets they take.
The handshake of TCP itself is one more per connection, and not counted here.
"""

import contextlib
import select
import selectors
import socket
import threading
from collections.abc import Iterator

CHUNK_BYTES = 1 << 16
PAUSE_SECONDS = 0.005
"""What a client sends without a longer pause is passed on in one piece: else the server could
answer its beginning first, and one turn would count as two."""
LOOPBACK = "127.0.0.1"


class CountingProxy:
    def __init__(self, target: tuple[str, int]) -> None:
        self._target = target
        self._listener = socket.create_server((LOOPBACK, 0))
        self.port: int = self._listener.getsockname()[1]
        self.connections = 0
        self.round_trips = 0

    def close(self) -> None:
        """Stops accepting; connections that stand end with their client."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def accept_until_closed(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._relay, args=(client,), daemon=True).start()

    def _relay(self, client: socket.socket) -> None:
        with (
            client,
            socket.create_connection(self._target) as server,
            selectors.DefaultSelector() as selector,
        ):
            selector.register(client, selectors.EVENT_READ, server)
            selector.register(server, selectors.EVENT_READ, client)
            last_speaker: object = client
            while True:
                for key, _ in selector.select():
                    assert isinstance(key.fileobj, socket.socket)
                    try:
                        data = _received(key.fileobj, whole=key.fileobj is client)
                    except ConnectionError:
                        return
                    if not data:
                        return
                    if key.fileobj is server and last_speaker is client:
                        self.round_trips += 1
                    last_speaker = key.fileobj
                    key.data.sendall(data)


def _received(source: socket.socket, whole: bool) -> bytes:
    """What there is to read; `whole`: and all that follows at once. Empty at the end."""
    data = source.recv(CHUNK_BYTES)
    while whole and data and select.select([source], [], [], PAUSE_SECONDS)[0]:
        more = source.recv(CHUNK_BYTES)
        if not more:
            break
        data += more
    return data


@contextlib.contextmanager
def counted(host: str, port: int) -> Iterator[CountingProxy]:
    proxy = CountingProxy((host, port))
    threading.Thread(target=proxy.accept_until_closed, daemon=True).start()
    try:
        yield proxy
    finally:
        proxy.close()
