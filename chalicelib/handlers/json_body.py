"""The body of a request: unpacked, and read as JSON. An error says where the JSON is wrong."""

import gzip
import io
import json
import zlib
from collections import Counter
from collections.abc import Sequence
from typing import NoReturn

from chalicelib.error_text import shown
from chalicelib.errors import BadRequest, TooLarge, UnsupportedEncoding

MAX_BODY_BYTES = 6_000_000
# In lower case, as Chalice looks it up.
ENCODING_HEADER = "content-encoding"


def decode(body: bytes) -> object:
    """The JSON value in `body`. Raises TooLarge, and BadRequest with the place of the error."""
    if len(body) > MAX_BODY_BYTES:
        raise TooLarge(f"body: more than {MAX_BODY_BYTES} bytes; send fewer items at a time")
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise BadRequest(f"body: not UTF-8 at byte {error.start}") from error
    try:
        return _value(text)
    except RecursionError as error:
        raise BadRequest("body: nested too deeply; SQLS is a flat list") from error
    except json.JSONDecodeError as error:
        raise BadRequest(_why_not_json(error)) from error


def _value(text: str) -> object:
    """The JSON value in `text`, by the fastest decoder that sees what is in it. Raises
    JSONDecodeError, RecursionError, BadRequest."""
    # One character is found much faster than two.
    if "-" in text and "-0" in text:
        return _EXACT.decode(text)
    try:
        value = _FAST.decode(text)
    except json.JSONDecodeError:
        raise
    except ValueError:  # there is an integer with more digits than Python converts
        return _EXACT.decode(text)
    return value if _has_no_field_twice(value, text) else _DECODER.decode(text)


def _has_no_field_twice(value: object, text: str) -> bool:
    """Whether that is sure, where `value` is the JSON in `text`: a colon stands behind the name of
    each field, so none was lost where there are no more of them than fields. At C speed. A hook for
    each object, as the other decoders have one, takes longer than all else."""
    fields, colons = 0, text.count(":")
    if type(value) is dict:
        fields = len(value)
        for items in value.values() if colons > fields else ():
            if type(items) is list:
                is_alike = set(map(type, items)) == {dict}
                objects = items if is_alike else [item for item in items if type(item) is dict]
                fields += sum(map(len, objects))
    return fields == colons


def _why_not_json(error: json.JSONDecodeError) -> str:
    if not error.doc.strip():
        return 'body: empty; send a JSON object, such as {"REQUEST": "read", "SQLS": [1, 2]}'
    reason = error.msg
    if error.doc[error.pos - 1 : error.pos] == "0" and error.doc[error.pos :][:1].isdigit():
        reason = "a number has no zeros in front"
    return f"body: not JSON at line {error.lineno} column {error.colno}: {reason}"


def unpacked(body: bytes, encoding: str) -> bytes:
    """`body` without the compression that the header Content-Encoding names. A body that is not
    compressed is returned as it is, because a gateway may have unpacked it and kept the header.
    Unpacks at most MAX_BODY_BYTES and one byte. Raises BadRequest, UnsupportedEncoding."""
    if encoding.strip().lower() in ("", "identity"):
        return body
    if encoding.strip().lower() not in ("gzip", "x-gzip"):
        raise UnsupportedEncoding(
            f"Content-Encoding: {shown(encoding)} is not read here; send the body as it is, or gzip"
        )
    if not body.startswith(b"\x1f"):
        return body
    try:
        return gzip.GzipFile(fileobj=io.BytesIO(body)).read(MAX_BODY_BYTES + 1)
    except EOFError as error:
        raise BadRequest("body: Content-Encoding says gzip, but it ends too early") from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise BadRequest("body: Content-Encoding says gzip, but it is damaged") from error


class _Number:
    """A number that no column takes. It is kept as it was written, so that the error can show
    it."""

    __slots__ = ("_text",)  # a body may hold a million of them

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        digits = len(self._text.lstrip("-"))
        return f"an integer of {digits} digits" if digits > 20 else self._text


# One object for all: a body may hold two million of these.
_MINUS_ZERO = _Number("-0")


def _exact_integer(text: str) -> int | _Number:
    if text == "-0":
        return _MINUS_ZERO
    return _Number(text) if len(text) > 20 else int(text)


def _unique_fields(pairs: list[tuple[str, object]]) -> dict[str, object]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        _reject_duplicate(pairs)
    return fields


def _reject_duplicate(pairs: Sequence[tuple[str, object]]) -> NoReturn:
    counts = Counter(name for name, _ in pairs)
    twice = next(name for name, count in counts.items() if count > 1)
    raise BadRequest(f"body: an object has the field {shown(twice)} twice; give it once")


_FAST = json.JSONDecoder(parse_constant=_Number)
_DECODER = json.JSONDecoder(object_pairs_hook=_unique_fields, parse_constant=_Number)
# Slower, because it sees the text of every integer. Python itself would read -0 as 0, and would
# fail on an integer of 5,000 digits.
_EXACT = json.JSONDecoder(
    object_pairs_hook=_unique_fields, parse_constant=_Number, parse_int=_exact_integer
)
