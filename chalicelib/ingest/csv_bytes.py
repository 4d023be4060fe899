"""The bytes of an uploaded file, on their way to be text: unzipped, in UTF-8, in small pieces.

What is no CSV at all is rejected here, by the first bytes it has: FileRejected says what the file
is and what to do. In constant memory; no I/O.
"""

import codecs
import itertools
import re
import zlib
from collections.abc import Iterator, Mapping

from chalicelib.errors import FileRejected

MAX_LINE_BYTES = 1 << 20
# How much larger than the gzip file its content may be; deflate itself ends at 1,032.
MAX_EXPANSION = 500
EXPANSION_CHECKED_FROM_BYTES = 10_000_000
CHUNK_BYTES = 1 << 18
# So much of a file tells what it is.
HEAD_BYTES = 8192
GZIP = b"\x1f\x8b"
UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)

_UTF_32 = (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)
_UTF_16_WORDS = "UTF-16 without a byte order mark"
# Which of four bytes are mostly NUL in a text of which most is ASCII.
_NULLS: Mapping[tuple[bool, ...], str] = {
    (False, True, False, True): _UTF_16_WORDS,
    (True, False, True, False): _UTF_16_WORDS,
    (False, True, True, True): "UTF-32",
    (True, True, True, False): "UTF-32",
}
_CONTROLS = bytes({*range(32), 127} - set(b"\t\n\v\f\r"))

_SAVE_AS_CSV = 'save it as "CSV UTF-8" and upload that'
# How a file of another kind begins, and what its uploader is told.
_KINDS = (
    (rb"PK\x03\x04.*xl/", f"an Excel workbook (.xlsx), not a CSV file: {_SAVE_AS_CSV}"),
    (rb"PK\x03\x04.*opendocument", f"an OpenDocument file (.ods), not a CSV file: {_SAVE_AS_CSV}"),
    (rb"PK\x03\x04", "a zip archive: upload the CSV file in it, as it is or compressed with gzip"),
    (rb"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", f"an old Excel workbook (.xls): {_SAVE_AS_CSV}"),
    (rb"BZh[1-9]1AY&SY|\xfd7zXZ\0|\x28\xb5\x2f\xfd", "compressed, but not with gzip: use gzip"),
    (rb"%PDF-", "a PDF, not a CSV file"),
    (rb"PAR1\x15", "a Parquet file, not a CSV file"),
    (rb"\s*<(?i:!doctype|html|\?xml)\b", f"HTML or XML, not a CSV file: {_SAVE_AS_CSV}"),
    (rb'\s*(\[\s*[\[{]|\{\s*")', "JSON, not a CSV file: POST it to the API, or write it as CSV"),
)


def too_long_a_line() -> FileRejected:
    return FileRejected(f"a line of more than {MAX_LINE_BYTES} bytes: is this a CSV file?")


def text_bytes(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """The same file in UTF-8 and pieces of about CHUNK_BYTES, none of them empty. Raises
    FileRejected."""
    return _bounded(_in_utf8(_of_csv(_unzipped_if_gzip(chunks))))


def _begun(chunks: Iterator[bytes], size: int) -> tuple[bytes, Iterator[bytes]]:
    """The first `size` bytes or some more, and all of the chunks."""
    head = b""
    for chunk in chunks:
        head += chunk
        if len(head) >= size:
            break
    return head, itertools.chain([head] if head else [], chunks)


def _of_csv(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """The same, unless the file is of another kind."""
    head, chunks = _begun(chunks, HEAD_BYTES)
    start = head[:HEAD_BYTES].removeprefix(codecs.BOM_UTF8)
    for pattern, words in _KINDS:
        if re.match(pattern, start, re.DOTALL):
            raise FileRejected(f"the file is {words}")
    if encoding := _other_encoding(start):
        raise FileRejected(f"the file is {encoding}: save it as UTF-8")
    if _is_binary(start):
        raise FileRejected(f"the file is no text file: {_SAVE_AS_CSV}")
    return chunks


def _other_encoding(start: bytes) -> str:
    """The one that puts NULs where it does, or its mark at the front; empty for UTF-8, and for
    UTF-16 with its mark."""
    if start.startswith(_UTF_32):
        return "UTF-32"
    if start.startswith(UTF_16):
        return ""
    are_nulls = tuple(start[i::4].count(0) * 8 > len(start) for i in range(4))
    return _NULLS.get(are_nulls, "")


def _is_binary(start: bytes) -> bool:
    """Whether it is neither UTF-8 nor UTF-16, and has more control characters than a text in
    another encoding."""
    if start.startswith(UTF_16):
        return False
    try:
        codecs.getincrementaldecoder("utf-8")().decode(start)
    except UnicodeDecodeError:
        return len(start.translate(None, _CONTROLS)) * 20 < len(start) * 19
    return False


def _in_utf8(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """The same; UTF-16 is known by its byte order mark."""
    head, chunks = _begun(chunks, len(UTF_16[0]))
    return _from_utf16(chunks) if head.startswith(UTF_16) else chunks


def _from_utf16(chunks: Iterator[bytes]) -> Iterator[bytes]:
    decoder = codecs.getincrementaldecoder("utf-16")()
    ends = 0
    try:
        for chunk in chunks:
            text = decoder.decode(chunk)
            ends += text.count("\n")
            if text:
                yield text.encode()
        decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        raise FileRejected(
            f"not UTF-16 after line {ends}, though it begins as UTF-16: save it as UTF-8"
        ) from error


def _bounded(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """The same, unless a line is too long to hold."""
    length = 0
    for chunk in chunks:
        first, last = _line_ends(chunk)
        if length + (len(chunk) if first < 0 else first) > MAX_LINE_BYTES:
            raise too_long_a_line()
        length = length + len(chunk) if first < 0 else len(chunk) - last - 1
        yield chunk


def _line_ends(chunk: bytes) -> tuple[int, int]:
    """Where the first and the last one are, -1 for none."""
    found = [at for at in (chunk.find(b"\n"), chunk.find(b"\r")) if at >= 0]
    return min(found, default=-1), max(chunk.rfind(b"\n"), chunk.rfind(b"\r"))


def _unzipped_if_gzip(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """In pieces of CHUNK_BYTES at most."""
    head, chunks = _begun(chunks, len(GZIP))
    if head.startswith(GZIP):
        yield from _unzipped(chunks)
        return
    for chunk in chunks:
        for start in range(0, len(chunk), CHUNK_BYTES):
            yield chunk[start : start + CHUNK_BYTES]


def _unzipped(chunks: Iterator[bytes]) -> Iterator[bytes]:
    came = made = 0
    unzip = zlib.decompressobj(wbits=31)
    for chunk in chunks:
        came += len(chunk)
        while chunk:
            if unzip.eof:
                unzip = zlib.decompressobj(wbits=31)  # one gzip file after another is one file
            try:
                piece = unzip.decompress(chunk, CHUNK_BYTES)
            except zlib.error as error:
                raise FileRejected(f"gzip: damaged after {made} bytes of content") from error
            made += len(piece)
            if made > max(EXPANSION_CHECKED_FROM_BYTES, came * MAX_EXPANSION):
                raise FileRejected(
                    f"gzip: the content is more than {MAX_EXPANSION} times as large as the file"
                )
            if piece:  # an empty one would be taken for the end
                yield piece
            chunk = unzip.unconsumed_tail or unzip.unused_data
    while not unzip.eof and (piece := unzip.decompress(b"", CHUNK_BYTES)):
        yield piece
    if not unzip.eof:
        raise FileRejected(f"gzip: it ends after {made} bytes of content: uploaded only in part?")
