"""The bytes of an uploaded file: unzipped, turned into UTF-8, and cut into small chunks.

A file that is no CSV is rejected by its first bytes: FileRejected says what the file is and what to
do. All this takes constant memory. This module does no I/O.
"""

import codecs
import itertools
import re
import zlib
from collections.abc import Iterator, Mapping

from chalicelib.errors import FileRejected

MAX_LINE_BYTES = 1 << 20
# How many times as large as the gzip file its content may be. The format itself allows 1,032.
MAX_EXPANSION = 500
# How many empty gzip files may be joined. Each takes time and has no content.
MAX_EMPTY_MEMBERS = 1_000
EXPANSION_CHECKED_FROM_BYTES = 10_000_000
CHUNK_BYTES = 1 << 18
# How many of the first bytes are looked at to see what kind of file it is.
HEAD_BYTES = 8192
GZIP = b"\x1f\x8b"
UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)

_UTF_32 = (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)
_UTF_16_WORDS = "UTF-16 without a byte order mark"
# A text that is mostly ASCII has NUL bytes in UTF-16 and UTF-32. Which of every four bytes are NUL
# tells the encoding.
_NULLS: Mapping[tuple[bool, ...], str] = {
    (False, True, False, True): _UTF_16_WORDS,
    (True, False, True, False): _UTF_16_WORDS,
    (False, True, True, True): "UTF-32",
    (True, True, True, False): "UTF-32",
}
_CONTROLS = bytes({*range(32), 127} - set(b"\t\n\v\f\r"))

_SAVE_AS_CSV = 'save it as "CSV UTF-8" and upload that'
# How a file of another kind begins, and what the error says about it.
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
    """The file in UTF-8, in chunks of about CHUNK_BYTES. No chunk is empty. Raises FileRejected."""
    return _bounded(_in_utf8(_of_csv(_unzipped_if_gzip(chunks))))


def _begun(chunks: Iterator[bytes], size: int) -> tuple[bytes, Iterator[bytes]]:
    """The beginning of the file, at least `size` bytes if it has them; and all of its chunks."""
    head = b""
    for chunk in chunks:
        head += chunk
        if len(head) >= size:
            break
    return head, itertools.chain([head] if head else [], chunks)


def _of_csv(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """The same chunks. Raises FileRejected where the file is no CSV."""
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
    """The encoding, known by its byte order mark or by where the NUL bytes stand. Empty for UTF-8,
    and for UTF-16 with a byte order mark."""
    if start.startswith(_UTF_32):
        return "UTF-32"
    if start.startswith(UTF_16):
        return ""
    are_nulls = tuple(start[i::4].count(0) * 8 > len(start) for i in range(4))
    return _NULLS.get(are_nulls, "")


def _is_binary(start: bytes) -> bool:
    """Whether the file is neither UTF-8 nor UTF-16 and has too many control characters for a
    text in another encoding."""
    if start.startswith(UTF_16):
        return False
    try:
        codecs.getincrementaldecoder("utf-8")().decode(start)
    except UnicodeDecodeError:
        return len(start.translate(None, _CONTROLS)) * 20 < len(start) * 19
    return False


def _in_utf8(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """The same text in UTF-8. UTF-16 is known by its byte order mark."""
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
    """The same chunks. Raises FileRejected where a line is too long."""
    length = 0
    for chunk in chunks:
        first, last = _line_ends(chunk)
        if length + (len(chunk) if first < 0 else first) > MAX_LINE_BYTES:
            raise too_long_a_line()
        length = length + len(chunk) if first < 0 else len(chunk) - last - 1
        yield chunk


def _line_ends(chunk: bytes) -> tuple[int, int]:
    """Where the first and the last line end stand in the chunk; -1 where there is none."""
    found = [at for at in (chunk.find(b"\n"), chunk.find(b"\r")) if at >= 0]
    return min(found, default=-1), max(chunk.rfind(b"\n"), chunk.rfind(b"\r"))


def _unzipped_if_gzip(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """The content, in chunks of at most CHUNK_BYTES."""
    head, chunks = _begun(chunks, len(GZIP))
    if head.startswith(GZIP):
        yield from _unzipped(chunks)
        return
    for chunk in chunks:
        for start in range(0, len(chunk), CHUNK_BYTES):
            yield chunk[start : start + CHUNK_BYTES]


def _unzipped(chunks: Iterator[bytes]) -> Iterator[bytes]:
    came = made = empty = begun_at = 0
    unzip = zlib.decompressobj(wbits=31)
    for chunk in chunks:
        came += len(chunk)
        while chunk:
            if unzip.eof:
                unzip = zlib.decompressobj(wbits=31)  # joined gzip files are one file
                empty += made == begun_at
                begun_at = made
                if empty > MAX_EMPTY_MEMBERS:
                    raise FileRejected(f"gzip: more than {MAX_EMPTY_MEMBERS} empty files in it")
            try:
                content = unzip.decompress(chunk, CHUNK_BYTES)
            except zlib.error as error:
                raise FileRejected(f"gzip: damaged after {made} bytes of content") from error
            made += len(content)
            if made > max(EXPANSION_CHECKED_FROM_BYTES, came * MAX_EXPANSION):
                raise FileRejected(
                    f"gzip: the content is more than {MAX_EXPANSION} times as large as the file"
                )
            if content:  # an empty chunk would look like the end of the file
                yield content
            chunk = unzip.unconsumed_tail or unzip.unused_data
    while not unzip.eof and (content := unzip.decompress(b"", CHUNK_BYTES)):
        yield content
    if not unzip.eof:
        raise FileRejected(f"gzip: it ends after {made} bytes of content: uploaded only in part?")
