"""Bare connections to the app's server, which send what no client would, and curl."""

import http.client
import socket
import subprocess
from urllib.parse import urlsplit

from tests.support.client import Answer

READ = b'{"REQUEST":"read","SQLS":[]}'
EMPTY = {"statusCode": 200, "body": []}


class Connection:
    """To the host and port of `url`."""

    def __init__(self, url: str) -> None:
        address = urlsplit(url)
        assert address.hostname is not None
        assert address.port is not None
        self.socket = socket.create_connection((address.hostname, address.port), timeout=10)

    def __enter__(self) -> "Connection":
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def ask(self, request: bytes, method: str = "GET") -> Answer:
        self.socket.sendall(request)
        return self.answer(method)

    def answer(self, method: str = "GET") -> Answer:
        with http.client.HTTPResponse(self.socket, method=method) as response:
            response.begin()
            headers = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, response.read(), headers)

    def is_closed(self) -> bool:
        """In order: a reset would be an error."""
        return self.socket.recv(1) == b""


def post(*headers: str, body: bytes = b"", path: str = "/") -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", *headers, "", ""]
    return "\r\n".join(lines).encode("latin-1") + body


def chunked(*chunks: bytes) -> bytes:
    pieces = [b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in (*chunks, b"")]
    return b"".join(pieces)


def curl(url: str, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    """It shows on stderr what goes over the wire."""
    command = ["curl", "-sSv", "--noproxy", "*", "--max-time", "10", *arguments, url]
    return subprocess.run(command, check=True, capture_output=True)
