"""A TCP proxy that counts connections and round trips.

    with CountingProxy((host, port)) as proxy: ...; proxy.round_trips

A round trip is counted when the server sends after the client did, or first, as MySQL's greeting.
Commands sent together are one round trip, however many packets they take. The TCP handshake is one
more for each connection; it is not counted.
"""

import contextlib
import select
import selectors
import socket
from collections.abc import Iterator, Mapping
from urllib.parse import urlsplit

from bench.proxies.listener import Listener

CHUNK_BYTES = 1 << 16
# What a client sends without a longer pause is passed on in one piece. Otherwise the server could
# answer the first part early, and one round trip would count as two.
PAUSE_SECONDS = 0.005


class CountingProxy(Listener):
    def __init__(self, target: tuple[str, int]) -> None:
        super().__init__()
        self._target = target
        self.connections = 0
        self.round_trips = 0

    def _serve(self, client: socket.socket) -> None:
        self.connections += 1
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
def counting(
    environment: Mapping[str, str],
) -> Iterator[tuple[Mapping[str, str], CountingProxy, CountingProxy]]:
    """Settings that lead through counting proxies, then the two proxies, the database's first."""
    address = urlsplit(environment["REDIS_URL"])
    assert address.hostname
    assert address.port
    with (
        CountingProxy((environment["DB_HOST"], int(environment["DB_PORT"]))) as mysql,
        CountingProxy((address.hostname, address.port)) as cache,
    ):
        far_url = address._replace(netloc=f"{address.hostname}:{cache.port}").geturl()
        yield {**environment, "DB_PORT": str(mysql.port), "REDIS_URL": far_url}, mysql, cache
