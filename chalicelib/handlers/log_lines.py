"""How records of the log are written."""

import logging

from chalicelib.errors import one_line


class LogLines(logging.Formatter):
    """Writes a record so that no part of it looks like another record, or like a metric. A text of
    a caller may stand in each line: in a traceback the words of the error do."""

    def format(self, record: logging.LogRecord) -> str:
        first, *others = super().format(record).split("\n")
        return "\n".join([one_line(first), *(f"  | {one_line(line)}" for line in others)])
