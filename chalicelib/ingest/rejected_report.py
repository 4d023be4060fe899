"""The report of rejected rows: a CSV file in the bucket with the place and reason of each row."""

import csv
import io
import re
from typing import Any

from chalicelib.ingest.bucket import bucket_of
from chalicelib.ingest.csv_rows import Rejected
from chalicelib.ingest.events import Upload, report_key

HEADER = ("line", "column", "reason", "original")


# Where a spreadsheet begins a formula: in front, and behind what it may take for the end of a cell.
# Where the comma is for decimals, it expects semicolons between cells.
_FORMULA = re.compile("""(?:^|(?<=[;|\t\r\n]))(?=["' ]*[=+\\-@\t\r\n＝＋－＠])""")


class RejectedReport:
    """The report on one upload, written while its rows are checked. There is no report where no row
    is rejected, or where the block that checks the rows fails."""

    def __init__(self, upload: Upload) -> None:
        self._first: Rejected | None = None
        self._writer = bucket_of(upload).writer(report_key(upload), "text/csv; charset=utf-8")

    def __enter__(self) -> "RejectedReport":
        self._writer.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._writer.__exit__(*error)

    def add(self, rejected: Rejected) -> None:
        text = io.StringIO()
        lines = csv.writer(text)
        if self._first is None:
            self._first = rejected
            lines.writerow(HEADER)
        original = rejected.original.rstrip("\r\n")
        texts = map(_harmless, (rejected.column, rejected.reason, original))
        lines.writerow((rejected.line, *texts))
        self._writer.write(text.getvalue().encode())

    def first_in_words(self) -> str:
        """Place and reason of the first rejected row, which there must be."""
        first = self._first
        assert first, "a row was counted as rejected"
        return f"line {first.line}{', ' * bool(first.column)}{first.column}: {first.reason}"


def _harmless(text: str) -> str:
    """The text with a quote ahead of what a spreadsheet would take for a formula. Whoever uploads a
    file must not run something on the machine of the person who opens the report."""
    return _FORMULA.sub("'", text)
