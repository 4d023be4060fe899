"""The lines of an uploaded file: decoded, looked at ahead of time, and kept until they are checked.

In constant memory. This module does no I/O.
"""

import io
import re
from collections.abc import Iterator

from chalicelib.errors import FileRejected
from chalicelib.ingest.csv_bytes import text_bytes

# So many bytes make a batch, also where they hold only a few rows.
BATCH_BYTES = 1 << 20
# The most bytes that one batch may hold. The row that takes it past BATCH_BYTES has half a MB at
# most, where a table takes it.
MAX_HELD_BYTES = 2 << 20
LINE_END = re.compile(rb"\r\n?|\n")


class Lines:
    """The lines of one file. Iterate over them once.

    `number`: how many lines were taken or dropped. `held_bytes`: the size of what came since then.
    """

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self.number = 0
        self.held_bytes = 0
        self._kept: list[str] = []
        self._ahead: list[str] = []
        self._had_cr_last = False
        texts = self._metered(text_bytes(chunks))
        self._text = io.TextIOWrapper(_Chunks(texts), "utf-8-sig", newline="")

    def __iter__(self) -> Iterator[str]:
        """The lines. Each is kept for `take`, because a row of its batch may be rejected."""
        keep = self._kept.append
        while self._ahead:
            keep(self._ahead.pop(0))
            yield self._kept[-1]
        for line in self._text:
            keep(line)
            yield line

    def take(self) -> tuple[list[str], int]:
        """The lines since the last call, and the number of the first one, from 1."""
        lines, first_number = self._kept[:], self.number + 1
        self.number += len(lines)
        self._kept.clear()
        self.held_bytes = 0
        return lines, first_number

    def peek(self) -> str:
        """The next line that is not blank. Drops blank lines before it. Raises FileRejected where
        there is none."""
        while self.ahead(1):
            if not _is_blank(self._ahead[0]):
                return self._ahead[0]
            self.drop()
        raise FileRejected("no row: the file is empty, or all its lines are blank")

    def ahead(self, count: int) -> list[str]:
        """The next `count` lines, without taking them; fewer where they hold BATCH_BYTES."""
        try:
            while len(self._ahead) < count and self.held_bytes < BATCH_BYTES:
                line = next(self._text, "")
                if not line:
                    break
                self._ahead.append(line)
        except UnicodeDecodeError as error:
            raise self.not_utf8(error) from error
        return self._ahead

    def drop(self) -> None:
        """Leave out the next line, which was looked at."""
        del self._ahead[0]
        self.number += 1
        self.held_bytes = 0

    def not_utf8(self, error: UnicodeDecodeError) -> FileRejected:
        """The error that names the line. A whole chunk is decoded before its first line is read, so
        the lines before the wrong byte are counted in the chunk. If the chunk before ended with CR,
        that line is not read either: a LF could follow."""
        before = error.object[: error.start]
        unread = len(LINE_END.findall(before))
        unread += self._had_cr_last and not before.startswith(b"\n")
        return not_utf8(self.number + len(self._kept) + len(self._ahead) + unread + 1)

    def _metered(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        """The same chunks. Raises FileRejected where a row takes line after line and never ends."""
        for chunk in chunks:
            self.held_bytes += len(chunk)
            if self.held_bytes > MAX_HELD_BYTES:
                raise never_ending(self.number)
            yield chunk
            self._had_cr_last = chunk.endswith(b"\r")


def not_utf8(line: int) -> FileRejected:
    return FileRejected(f"not UTF-8 in line {line}: save it as UTF-8")


def never_ending(line: int) -> FileRejected:
    return FileRejected(f"a row of some MB after line {line}: does a quoted value never end?")


def _is_blank(line: str) -> bool:
    return not line.strip("\r\n \t")


class _Chunks(io.BufferedIOBase):
    """An iterator of bytes as a file to read from."""

    name = "chunks"

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks

    def readable(self) -> bool:
        return True

    def read1(self, size: int = -1, /) -> bytes:
        return next(self._chunks, b"")

    def read(self, size: int | None = -1, /) -> bytes:
        return self.read1()
