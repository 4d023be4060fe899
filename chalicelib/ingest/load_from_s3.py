"""LOAD DATA FROM S3, the engine `aurora`: the database itself reads a large file from S3.

It stages the lines of the file in a temporary table. Lines that are certainly good rows never leave
the database. All others (wrong, blank, or with quotes that matter) are fetched, and the parser and
the checks of the engine `mysql` judge them. So both engines load the same rows and write the same
report.
"""

import codecs
import itertools
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any

from chalicelib.config import INGEST_ENGINE
from chalicelib.db import DatabaseError, Statement, Transaction, is_foreseen
from chalicelib.errors import ConfigurationError
from chalicelib.ingest import load_from_s3_statements as statements
from chalicelib.ingest.bucket import bucket_of
from chalicelib.ingest.csv_bytes import GZIP, MAX_LINE_BYTES, UTF_16, too_long_a_line
from chalicelib.ingest.csv_rows import FIRST_ROWS, CsvRows, Rejected
from chalicelib.ingest.events import Upload
from chalicelib.ingest.load_data import fill, make_temporary_table
from chalicelib.ingest.load_from_s3_statements import Layout, Settled
from chalicelib.ingest.loaded_rows import Loaded, first_stored
from chalicelib.ingest.text_lines import LINE_END, MAX_HELD_BYTES, never_ending, not_utf8
from chalicelib.tables import Column, Table

# How long each statement may take. The function itself may run for 900 s.
PATIENCE_SECONDS = 840
# How many lines are fetched at a time, at most.
BLOCK_LINES = 1_000
BLOCK_BYTES = 4 << 20
_SEVERAL_ENDS = "its lines end in several ways"


class NotStageable(Exception):
    """The database cannot read exactly this upload. This process must read it instead."""


def load_staged(
    transaction: Transaction,
    upload: Upload,
    table: Table,
    order: Sequence[Column],
    reject: Callable[[Rejected], None],
) -> Loaded:
    """Load `upload` into `table`. `order`: the columns of a file without a header. `reject` is
    called for each rejected row. Raises NotStageable, FileRejected, BucketUnavailable, Gone."""
    staged = StagedRows(transaction, upload, table, order, reject)
    staged.read()
    staged.settle()
    return staged.merge()


class StagedRows:
    """The lines of one file in a temporary table. Call `read`, `settle` and `merge`, in this
    order."""

    def __init__(
        self,
        transaction: Transaction,
        upload: Upload,
        table: Table,
        order: Sequence[Column],
        reject: Callable[[Rejected], None],
    ) -> None:
        self._rejected = self._rejected_lines = 0
        self._transaction = transaction
        self._upload = upload
        self._table = table
        self._reject = reject
        self._block_lines = BLOCK_LINES
        self._window: dict[int, bytes] = {}
        with closing(bucket_of(upload).read(upload)) as chunks:
            head = next(chunks, b"")
            if head.startswith(GZIP):
                raise NotStageable("it is compressed")
            if head.startswith(UTF_16):
                raise NotStageable("it is UTF-16")
            self._rows = CsvRows(itertools.chain([head], chunks), table, reject, order)
        self._layout = _layout(self._rows, head)

    def read(self) -> None:
        """Have the database read the object. It always reads the latest version."""
        self._transaction.wait_at_most(PATIENCE_SECONDS)
        self._check_is_latest()
        make_temporary_table(self._transaction, statements.CREATE)
        self._load_from_s3()
        self._check_is_latest()
        [(count, last, longest_bytes)] = self._fetch(statements.MEASURE)
        if count != last:
            raise RuntimeError(f"the database numbered {count} lines up to {last}")
        if longest_bytes > MAX_LINE_BYTES:
            raise too_long_a_line()
        self._block_lines = max(1, min(BLOCK_LINES, BLOCK_BYTES // (longest_bytes + 1)))

    def _check_is_latest(self) -> None:
        if not bucket_of(self._upload).is_latest(self._upload):
            raise NotStageable("there is a later upload")

    def _load_from_s3(self) -> None:
        """Raises ConfigurationError where the database cannot load from S3."""
        uri = f"s3://{self._upload.bucket}/{self._upload.key}"
        in_no_line = secrets.token_hex(16)
        statement = statements.load_from_s3(uri, self._layout, in_no_line)
        try:
            self._transaction.run(statement)
        except DatabaseError as error:
            if is_foreseen(error):
                raise
            raise ConfigurationError(
                f"{INGEST_ENGINE}=aurora: the database loads nothing from S3: {error.args[-1]}; it"
                " must be Aurora MySQL, with a role that may read the bucket (docs/ingest.md)"
            ) from error

    def settle(self) -> None:
        """Judge every line that the database left undecided."""
        last = 0
        while block := dict(self._fetch(statements.undecided(last, self._block_lines))):
            settled = list[Settled]()
            for n in block:
                if n > last:
                    settled.append(self._settle(n, block))
                    last = settled[-1].last
            self._transaction.run(*statements.settle(settled))

    def merge(self) -> Loaded:
        columns = self._rows.columns
        [(count,)] = self._fetch(statements.COUNT_ROWS)
        first = self._fetch(statements.first_rows(columns, FIRST_ROWS))
        if count and self._table.auto_key and self._table.key in columns:
            [(highest,)] = self._fetch(statements.highest_key(columns, self._table.key))
            self._transaction.reject_far_keys(self._table, [int(highest)])

        def bring(target: str, replaces: bool) -> None:
            statement = statements.merge(target, columns, replaces=replaces)
            self._transaction.run(statement, statements.DROP)

        fill(self._transaction, self._table, columns, bring)
        stored = first_stored(self._transaction, self._table, columns, first)
        return Loaded(int(count), self._rejected, self._rejected_lines, stored)

    def _settle(self, n: int, block: Mapping[int, bytes]) -> Settled:
        """Judge the row that begins in line `n`."""
        lines: list[str] = []
        line = self._layout.skipped + n
        judged = next(self._rows.judge(self._texts(n, block, lines), line))
        if judged.reason:
            self._rejected += 1
            self._rejected_lines += len(lines)
            self._reject(Rejected(line, judged.column, judged.reason, "".join(lines)))
        return Settled(n, n + len(lines) - 1, judged.row)

    def _texts(self, first: int, block: Mapping[int, bytes], taken: list[str]) -> Iterator[str]:
        """Line `first` and the lines after it. Each line that was asked for is added to `taken`."""
        held_bytes = 0
        for n in itertools.count(first):
            content = self._line(n, block)
            if content is None:
                return
            held_bytes += len(content)
            if held_bytes > MAX_HELD_BYTES:
                raise never_ending(self._layout.skipped + first - 1)
            taken.append(self._decoded(n, content))
            yield taken[-1]

    def _line(self, n: int, block: Mapping[int, bytes]) -> bytes | None:
        if n in block:
            return block[n]
        if n not in self._window:
            self._window = dict(self._fetch(statements.lines_from(n, self._block_lines)))
        return self._window.get(n)

    def _decoded(self, n: int, content: bytes) -> str:
        """The text of line `n`, with its line end. Raises FileRejected, NotStageable."""
        line = self._layout.skipped + n
        if _has_another_end(content, self._layout.line_end):
            raise NotStageable(_SEVERAL_ENDS)
        if line == 1:
            content = content.removeprefix(codecs.BOM_UTF8)
        try:
            return content.decode() + self._layout.line_end
        except UnicodeDecodeError as error:
            raise not_utf8(line) from error

    def _fetch(self, statement: Statement) -> Sequence[Any]:
        [answer] = self._transaction.run(statement)
        return answer


def _layout(rows: CsvRows, head: bytes) -> Layout:
    """How the database is to read the file. Raises NotStageable where the lines before the first
    row do not all end alike."""
    line_end = "\r" if b"\n" not in head and b"\r" in head[:-1] else "\n"
    ends = LINE_END.findall(head)[: rows.lines_before]
    if len(ends) < rows.lines_before or not all(end.endswith(line_end.encode()) for end in ends):
        raise NotStageable(_SEVERAL_ENDS)
    dialect = rows.dialect
    return Layout(line_end, rows.lines_before, dialect.columns, dialect.delimiter, dialect.ignored)


def _has_another_end(content: bytes, line_end: str) -> bool:
    """Whether the engine `mysql` would see several lines in this one."""
    return b"\n" in content if line_end == "\r" else b"\r" in content[:-1]
