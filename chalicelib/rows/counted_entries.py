"""Entries of tables with write-behind counters: behind the JSON of each row stands its `record`.

    Row.json LF record

The record has the counters, and what of their totals is in them (`cache.write_behind_totals`).
Without such counters an entry is the JSON alone.
"""

from collections.abc import Sequence

from chalicelib.cache import CounterRecord, CounterTotals, Entry
from chalicelib.tables import Row, Table


def encode_many(table: Table, rows: Sequence[Row]) -> Sequence[Entry | None]:
    """What the cache keeps of each row. Of a table with such counters each row comes with what is
    `applied`, behind its columns; None for one that came without it. Raises NotAsDeclared."""
    texts = table.encode_many(rows)
    if not table.write_behind:
        return texts
    width = len(table.columns)
    return [
        None if len(row) == width else b"%b\n%b" % (text, _record(table, row).pack())
        for row, text in zip(rows, texts)
    ]


def split(table: Table, entry: Entry) -> list[tuple[bytes, bytes]]:
    """The JSON of each row in the entry, and its record."""
    length = 24 + 16 * len(table.write_behind)
    found, start = [], 0
    while start < len(entry):
        end = entry.index(b"\n", start) + 1
        found.append((entry[start : end - 1], entry[end : end + length]))
        start = end + length + 1  # behind the comma
    return found


def _record(table: Table, row: Row) -> CounterRecord:
    values = {c.name: int(row[table.positions[c.name]]) for c in table.write_behind}
    return CounterRecord(values, CounterTotals.parse(str(row[-1])))
