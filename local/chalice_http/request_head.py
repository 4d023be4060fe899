"""Reads the head of an HTTP/1.1 request: the request line and the headers (RFC 9112)."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BufferedIOBase

from chalicelib.errors import BadRequest
from local.chalice_http.request_body import HttpError

MAX_LINE_BYTES = 65_536
MAX_HEADERS = 99
_REQUEST_LINE = re.compile(r"(\S+) (\S+) HTTP/([0-9])\.([0-9])")
_HEADER = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):([^\r\n]*)\r?\n")


@dataclass(frozen=True)
class Head:
    """`version` is 1.0 or 1.1. `headers`: the values of each header, by its name in lower case."""

    method: str
    path: str
    version: str
    headers: Mapping[str, Sequence[str]]

    @property
    def keeps_connection(self) -> bool:
        options = [option.strip().lower() for option in self._all("connection").split(",")]
        return "close" not in options and (self.version == "1.1" or "keep-alive" in options)

    @property
    def connection_options(self) -> Mapping[str, str]:
        """The header of an answer that tells a client what its version of HTTP does not mean."""
        if self.keeps_connection == (self.version == "1.1"):
            return {}
        return {"Connection": "keep-alive" if self.keeps_connection else "close"}

    @property
    def asks_first(self) -> bool:
        """Whether the client waits for a word before it sends the body."""
        return self.version == "1.1" and self._all("expect").lower() == "100-continue"

    def first_values(self) -> dict[str, str]:
        """Of the headers."""
        return {name: values[0] for name, values in self.headers.items()}

    def _all(self, name: str) -> str:
        return ",".join(self.headers.get(name, ()))


# Of a request whose head was not read.
NO_HEAD = Head("", "", "1.0", {})


def read_head(request_line: str, stream: BufferedIOBase) -> Head:
    """Reads the headers that stand behind `request_line`. Raises BadRequest and HttpError; it is
    then unknown where the next request begins."""
    line = _REQUEST_LINE.fullmatch(request_line)
    if not line:
        raise BadRequest("the request line: expected METHOD /path HTTP/1.1")
    method, path, major, minor = line.groups()
    if major != "1":
        message = "the request line: send HTTP/1.1 or HTTP/1.0"
        raise HttpError(505, "HttpVersionNotSupported", message)
    if path.startswith("//"):
        path = "/" + path.lstrip("/")
    return Head(method, path, "1.0" if minor == "0" else "1.1", _read_headers(stream))


def line_too_long() -> HttpError:
    """The error for a request line of more than MAX_LINE_BYTES."""
    message = f"the request line: at most {MAX_LINE_BYTES} bytes; send POST / with a body"
    return HttpError(414, "UriTooLong", message)


def _read_headers(stream: BufferedIOBase) -> Mapping[str, Sequence[str]]:
    headers: dict[str, list[str]] = {}
    for _ in range(MAX_HEADERS + 1):
        line = stream.readline(MAX_LINE_BYTES + 1)
        if line in (b"\r\n", b"\n"):
            return headers
        if len(line) > MAX_LINE_BYTES:
            break
        header = _HEADER.fullmatch(line.decode("latin-1"))
        if not header:
            raise BadRequest("headers: expected lines of the form Name: value, each on one line")
        headers.setdefault(header[1].lower(), []).append(header[2].strip(" \t"))
    raise HttpError(
        431,
        "HeadersTooLarge",
        f"headers: at most {MAX_HEADERS}, each of at most {MAX_LINE_BYTES} bytes; send fewer",
    )
