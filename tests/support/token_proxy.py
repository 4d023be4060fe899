"""Aurora's way to log in, in front of a real MariaDB: TLS, then a token in clear text. Or another.

    with TokenProxy(mariadb, authority) as front: front.valid = {token}; ... front.port

`front.heard` is everything that a client said as its password, in order. `front.way`: what the
server says to log somebody in; `front.welcome`: before it says that he is.
"""

import contextlib
import socket
import struct
import threading
from collections.abc import Sequence
from typing import Any, NamedTuple

import pymysql
from pymysql.constants import CLIENT

from local.machine import LOOPBACK
from local.servers import MariaDB
from tests.support.certificates import Authority
from tests.support.tls_front import TlsFront

SALT = b"0123456789abcdefghij"
_OFFERS = (
    CLIENT.CAPABILITIES | CLIENT.SSL | CLIENT.PLUGIN_AUTH | CLIENT.CONNECT_WITH_DB
) & ~CLIENT.CONNECT_ATTRS
_OK = b"\x00\x00\x00\x02\x00\x00\x00"
_REFUSED = b"\xff" + struct.pack("<H", 1045) + b"#28000Access denied"


class Way(NamedTuple):
    """The plugin that the greeting names, and what is said next, each time the client answered. The
    last answer is the password."""

    greeting: str
    questions: Sequence[bytes]
    has_tls: bool = True


CLEAR_TEXT = Way("mysql_native_password", [b"\xfemysql_clear_password\x00" + SALT + b"\x00"])


class TokenProxy(TlsFront):
    def __init__(self, mariadb: MariaDB, authority: Authority) -> None:
        super().__init__(authority)
        self.valid: set[str] = set()
        self.heard: list[str] = []
        self.way = CLEAR_TEXT
        self.welcome = b""
        self._mariadb = mariadb

    def _serve(self, plain: socket.socket) -> None:
        with contextlib.suppress(OSError), plain, self._backend() as backend:
            _send(plain, 0, _greeting(backend.get_server_info(), self.way))
            if not self.way.has_tls:
                self._is_let_in(plain, 2)
                return
            _receive(plain)  # asks for TLS
            with self._context.wrap_socket(plain, server_side=True) as client:
                if self._is_let_in(client, 3):
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

    def _is_let_in(self, client: socket.socket, number: int) -> bool:
        said = _receive(client)  # who it is, and a password scrambled for the way of the greeting
        if any(token.encode() in said for token in self.valid):
            self.heard.append("with its name")
        for question in self.way.questions:
            _send(client, number, question)
            said = _receive(client)
            number += 2
        token = said.rstrip(b"\x00").decode(errors="replace")
        self.heard.append(token)
        is_valid = token in self.valid
        if is_valid and self.welcome:
            _send(client, number, self.welcome)
            number += 1
        _send(client, number, _OK if is_valid else _REFUSED)
        return is_valid

    def _relay(self, client: socket.socket, server: socket.socket) -> None:
        self._open |= {client, server}
        back = threading.Thread(target=_pass_on, args=(server, client), daemon=True)
        back.start()
        _pass_on(client, server)
        back.join()
        self._open -= {client, server}


def _greeting(version: str, way: Way) -> bytes:
    offers = _OFFERS if way.has_tls else _OFFERS & ~CLIENT.SSL
    return (
        b"\x0a" + version.encode() + b"\x00" + struct.pack("<I", 1) + SALT[:8] + b"\x00"
        + struct.pack("<HBHHB", offers & 0xFFFF, 45, 2, offers >> 16, len(SALT) + 1)
        + bytes(10) + SALT[8:] + b"\x00" + way.greeting.encode() + b"\x00"
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
