"""Reads the body of an HTTP/1.1 request, by its declared length or in chunks (RFC 9112)."""

import re
import time
from collections.abc import Mapping, Sequence
from io import BufferedReader

from chalicelib.error_text import shown
from chalicelib.errors import BadRequest, HerocacheError, TooLarge
from chalicelib.handlers.json_body import MAX_BODY_BYTES

# In place of a length: the body comes in chunks that each have a length.
CHUNKED = -1
MAX_LINE_BYTES = 1_024
MAX_TRAILERS = 100
PIECE_BYTES = 65_536


class HttpError(HerocacheError):
    """The server answers the request with an error; the app never sees it."""

    def __init__(self, status: int, kind: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self._kind = kind

    @property
    def kind(self) -> str:
        return self._kind


def declared_length(headers: Mapping[str, Sequence[str]]) -> int:
    """The length of the body in bytes, or CHUNKED. Raises BadRequest, TooLarge or HttpError where
    it is unknown or not supported; it is then unknown too where the next request begins."""
    encodings = headers.get("transfer-encoding", ())
    lengths = headers.get("content-length", ())
    if len(encodings) + len(lengths) > 1:
        raise BadRequest(
            "Content-Length, Transfer-Encoding: there is more than one; send one of them, once"
        )
    if not encodings:
        return _length(lengths[0]) if lengths else 0
    if encodings[0].strip().lower() != "chunked":
        raise HttpError(
            501,
            "NotImplemented",
            f"Transfer-Encoding: {shown(encodings[0])} is not read here; send chunked, or a"
            " Content-Length",
        )
    return CHUNKED


def read_body(stream: BufferedReader, length: int, seconds: float) -> bytes:
    """Reads the whole body. `length` comes from `declared_length`. Raises BadRequest where the body
    is malformed or ends early, TooLarge, and TimeoutError where it takes longer than `seconds`."""
    deadline = time.monotonic() + seconds
    if length != CHUNKED:
        return _exactly(stream, length, deadline)
    body = bytearray()
    while size := _chunk_size(stream, deadline):
        _reject_too_large(len(body) + size)
        body += _exactly(stream, size, deadline)
        if _line(stream, deadline) != b"":
            raise BadRequest("body: a chunk is longer than its size says")
    for _ in range(MAX_TRAILERS):
        if _line(stream, deadline) == b"":
            return bytes(body)
    raise BadRequest(f"body: more than {MAX_TRAILERS} trailers")


def _length(text: str) -> int:
    digits = text.strip(" \t")
    if not re.fullmatch("[0-9]{1,18}", digits):
        raise BadRequest(f"Content-Length: expected a number of bytes, got {shown(digits)}")
    _reject_too_large(int(digits))
    return int(digits)


def _reject_too_large(size: int) -> None:
    if size > MAX_BODY_BYTES:
        raise TooLarge(f"body: more than {MAX_BODY_BYTES} bytes; send fewer items at a time")


def _chunk_size(stream: BufferedReader, deadline: float) -> int:
    line = _line(stream, deadline)
    digits = line.partition(b";")[0].strip(b" \t")
    if not re.fullmatch(rb"[0-9a-fA-F]{1,15}", digits):
        raise BadRequest("body: expected the size of a chunk as a hexadecimal number")
    return int(digits, 16)


def _line(stream: BufferedReader, deadline: float) -> bytes:
    """Reads a line. Returns it without its CR LF."""
    line = bytearray()
    while not line.endswith(b"\n") and len(line) < MAX_LINE_BYTES:
        piece = stream.peek()[: MAX_LINE_BYTES - len(line)]
        _reject_late(deadline)
        if not piece:
            break
        line += stream.read(piece.find(b"\n") + 1 or len(piece))
    if not line.endswith(b"\r\n"):
        raise BadRequest("body: expected a line of a chunked body, which ends with CR LF")
    return bytes(line[:-2])


def _exactly(stream: BufferedReader, size: int, deadline: float) -> bytes:
    read = bytearray()
    while len(read) < size:
        piece = stream.read1(min(size - len(read), PIECE_BYTES))
        if not piece:
            raise BadRequest(f"body: it ended after {len(read)} of {size} bytes; send all of it")
        _reject_late(deadline)
        read += piece
    return bytes(read)


def _reject_late(deadline: float) -> None:
    if time.monotonic() > deadline:
        raise TimeoutError
