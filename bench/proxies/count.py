"""A TCP proxy that counts connections and round trips.

    with counted(host, port) as proxy: ...; proxy.round_trips

A round trip is counted when the server sends after the client did, or first, as MySQL's greeting.
Commands sent together are one round trip, however many packets they take. The TCP handshake is one
more for each connection; it is not counted.
"""

import contextlib
import select
import selectors
import socket
import threading
from collections.abc import Iterator, Mapping
from urllib.parse import urlsplit

CHUNK_BYTES = 1 << 16
# What a client sends without a longer pause is passed on in one piece. Otherwise the server could
# answer the first part early, and one round trip would count as two.
PAUSE_SECONDS = 0.005
LOOPBACK = "127.0.0.1"


class CountingProxy:
    def __init__(self, target: tuple[str, int]) -> None:
        self._target = target
        self._listener = socket.create_server((LOOPBACK, 0))
        self.port: int = self._listener.getsockname()[1]
        self.connections = 0
        self.round_trips = 0

    def close(self) -> None:
        """Stops accepting. Open connections end when their client closes them."""
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
    """The next bytes; with `whole`, also those that follow at once. Empty at the end."""
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


@contextlib.contextmanager
def counting(
    environment: Mapping[str, str],
) -> Iterator[tuple[Mapping[str, str], CountingProxy, CountingProxy]]:
    """Settings that lead through counting proxies, then the two proxies, the database's first."""
    address = urlsplit(environment["REDIS_URL"])
    assert address.hostname
    assert address.port
    with (
        counted(environment["DB_HOST"], int(environment["DB_PORT"])) as mysql,
        counted(address.hostname, address.port) as cache,
    ):
        far_url = address._replace(netloc=f"{address.hostname}:{cache.port}").geturl()
        yield {**environment, "DB_PORT": str(mysql.port), "REDIS_URL": far_url}, mysql, cache
