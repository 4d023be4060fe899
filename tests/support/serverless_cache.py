"""A serverless cache, as ElastiCache's is thought to look, in front of a real Redis: TLS, one entry
in CLUSTER SLOTS, a login that may take long, and servers that it hides.

    with ServerlessCache(redis, authority) as cache: cache.login_seconds = 0.3; ... cache.url
"""

import contextlib
import secrets
import socket
import time
from collections.abc import Callable, Sequence

import hiredis

from local.machine import LOOPBACK
from local.servers import Redis
from tests.support.certificates import Authority
from tests.support.tls_front import TlsFront

USER = "herocache"
NOT_PERMITTED = b"-NOPERM this user has no permissions to run the 'info' command\r\n"
# What is said of a server to each new connection.
Info = Callable[[], bytes]


def another_server_each_time() -> bytes:
    """Behind a balancer, a connection leads to any of some servers."""
    run_id = secrets.token_hex(20)
    return _text(
        f"redis_version:7.1\r\nredis_mode:cluster\r\nrun_id:{run_id}\r\nrole:master\r\n"
        f"master_replid:{run_id}\r\nmaxmemory:0\r\n"
    )


def little() -> bytes:
    return _text("redis_version:7.1\r\nredis_mode:cluster\r\n")


def nothing() -> bytes:
    return NOT_PERMITTED


class ServerlessCache(TlsFront):
    """`logins`: what was given as a password, in order."""

    def __init__(self, redis: Redis, authority: Authority) -> None:
        super().__init__(authority)
        self.login_seconds = 0.0
        self.info: Info = little
        self.logins: list[bytes] = []
        self._redis = redis
        self.url = f"rediss://{USER}@{LOOPBACK}:{self.port}?ssl_ca_certs={authority.certificate}"

    def settings(self) -> dict[str, str]:
        return {
            "REDIS_URL": self.url.replace(f"{USER}@", f"{USER}:secret@"),
            "REDIS_CLUSTER": "1",
            "REDIS_SERVERLESS": "1",
        }

    def _serve(self, plain: socket.socket) -> None:
        with contextlib.suppress(OSError), plain:
            client = self._context.wrap_socket(plain, server_side=True)
            server = socket.create_connection((LOOPBACK, self._redis.port))
            self._open |= {client, server}
            with client, server:
                commands, replies = hiredis.Reader(), hiredis.Reader()
                while piece := client.recv(1 << 16):
                    commands.feed(piece)
                    while (command := commands.gets()) is not False:
                        client.sendall(
                            self._own_reply(command) or _relayed(server, replies, command)
                        )

    def _own_reply(self, command: Sequence[bytes]) -> bytes:
        verb = command[0].upper()
        if verb == b"AUTH":
            self.logins.append(command[-1])
            time.sleep(self.login_seconds)
            return b"+OK\r\n"
        if verb == b"INFO":
            return self.info()
        if [verb, command[1].upper()] == [b"CLUSTER", b"SLOTS"]:
            host, port = LOOPBACK, self.port
            return (
                f"*1\r\n*3\r\n:0\r\n:16383\r\n*2\r\n${len(host)}\r\n{host}\r\n:{port}\r\n".encode()
            )
        return b""


def _relayed(server: socket.socket, replies: hiredis.Reader, command: Sequence[bytes]) -> bytes:
    server.sendall(hiredis.pack_command(tuple(command)))  # type: ignore[arg-type]
    received = b""
    while True:
        piece = server.recv(1 << 16)
        if not piece:
            raise ConnectionError("Redis went away")
        received += piece
        replies.feed(piece)
        if replies.gets() is not False:
            return received


def _text(info: str) -> bytes:
    return f"${len(info)}\r\n{info}\r\n".encode()
