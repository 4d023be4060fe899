"""Aurora's way to log in, in front of a real MariaDB: TLS, then a token in clear text.

    with token_front(mariadb, authority) as front: front.valid = {token}; ... front.port

`front.heard` is everything that a client said as its password, in order.
"""

import contextlib
import socket
import ssl
import struct
import threading
from collections.abc import Iterator
from typing import Any

import pymysql
from pymysql.constants import CLIENT

from local.process import LOOPBACK
from local.servers import MariaDB
from tests.certificates import Authority

_SALT = b"0123456789abcdefghij"
_OFFERS = (
    CLIENT.CAPABILITIES | CLIENT.SSL | CLIENT.PLUGIN_AUTH | CLIENT.CONNECT_WITH_DB
) & ~CLIENT.CONNECT_ATTRS
_OK = b"\x00\x00\x00\x02\x00\x00\x00"
_REFUSED = b"\xff" + struct.pack("<H", 1045) + b"#28000Access denied"


class TokenFront:
    def __init__(self, mariadb: MariaDB, authority: Authority) -> None:
        self.valid: set[str] = set()
        self.heard: list[str] = []
        self._mariadb = mariadb
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(authority.server_certificate, authority.server_key)
        self._listener = socket.create_server((LOOPBACK, 0))
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
        for end in list(self._open):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def _serve(self, plain: socket.socket) -> None:
        with contextlib.suppress(OSError), plain, self._backend() as backend:
            _send(plain, 0, _greeting(backend.get_server_info()))
            _receive(plain)  # asks for TLS
            with self._context.wrap_socket(plain, server_side=True) as client:
                if self._is_let_in(client):
                    self._relay(client, backend._sock)

    def _backend(self) -> Any:
        return pymysql.connect(
            host=LOOPBACK,
            port=self._mariadb.port,
            user=self._mariadb.user,
            password=self._mariadb.password,
            database=self._mariadb.database,
            client_flag=CLIENT.MULTI_STATEMENTS,
        )

    def _is_let_in(self, client: socket.socket) -> bool:
        _receive(client)  # who it is, and a password scrambled for another way to log in
        _send(client, 3, b"\xfemysql_clear_password\x00" + _SALT + b"\x00")
        token = _receive(client).rstrip(b"\x00").decode()
        self.heard.append(token)
        is_valid = token in self.valid
        _send(client, 5, _OK if is_valid else _REFUSED)
        return is_valid

    def _relay(self, client: socket.socket, server: socket.socket) -> None:
        self._open |= {client, server}
        back = threading.Thread(target=_pass_on, args=(server, client), daemon=True)
        back.start()
        _pass_on(client, server)
        back.join()
        self._open -= {client, server}


def _greeting(version: str) -> bytes:
    return (
        b"\x0a" + version.encode() + b"\x00" + struct.pack("<I", 1) + _SALT[:8] + b"\x00"
        + struct.pack("<HBHHB", _OFFERS & 0xFFFF, 45, 2, _OFFERS >> 16, len(_SALT) + 1)
        + bytes(10) + _SALT[8:] + b"\x00mysql_native_password\x00"
    )  # fmt: skip


def _send(end: socket.socket, number: int, payload: bytes) -> None:
    end.sendall(len(payload).to_bytes(3, "little") + bytes([number]) + payload)


def _receive(end: socket.socket) -> bytes:
    length = int.from_bytes(_exactly(end, 4)[:3], "little")
    return _exactly(end, length)


def _exactly(end: socket.socket, count: int) -> bytes:
    received = b""
    while len(received) < count:
        piece = end.recv(count - len(received))
        if not piece:
            raise ConnectionError("the client went away")
        received += piece
    return received


def _pass_on(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while piece := source.recv(1 << 16):
            sink.sendall(piece)
    for end in (source, sink):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def token_front(mariadb: MariaDB, authority: Authority) -> Iterator[TokenFront]:
    front = TokenFront(mariadb, authority)
    threading.Thread(target=front.accept_until_closed, daemon=True).start()
    try:
        yield front
    finally:
        front.close()
