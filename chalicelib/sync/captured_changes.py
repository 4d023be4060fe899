"""Changes that other clients of the database made: the entries of those rows leave the cache.

A record is deleted only when every read sees the change. Where a process dies before that, the next
one does the same again: to take an entry out of the cache twice is harmless.
"""

import json
import time
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from chalicelib.cache import Generations
from chalicelib.column_types import Integer
from chalicelib.db import Database, change_capture
from chalicelib.rows import WriteThrough
from chalicelib.tables import Column, Key, Row, Table

# More are not read one by one: then the whole table leaves the cache.
MAX_RECORDS = 5_000

# The keys of the rows that were changed; None: any row may have changed.
Keys = Sequence[Key] | None


class CapturedChanges:
    """`drain` deletes the records, `show` keeps them."""

    def __init__(
        self, database: Database, write_through: WriteThrough, generations: Generations
    ) -> None:
        self._database = database
        self._write_through = write_through
        self._generations = generations

    def drain(self, table: Table, follow: Callable[[Keys], None] = lambda keys: None) -> Keys:
        """Bring all changes that are recorded to the cache: every read that starts after this has
        returned sees them. Returns the keys of the changed rows, each once, in the order in which
        the database recorded them; None where there are too many, or where a record cannot be read.
        Calls `follow` with these keys before the records are deleted, unless nothing has changed:
        where `follow` raises, the records stay for the next time. One SELECT where nothing has
        changed. Raises SchemaMismatch, DatabaseUnavailable."""
        left = self._show(table, shown_too=True)
        if not left.ids:
            return ()
        follow(left.keys)
        self._finish(left, keep=False)
        return left.keys

    def show(self, table: Table) -> None:
        """The same, but the records stay for `drain`, marked as shown. One SELECT where no change
        is left."""
        left = self._show(table, shown_too=False)
        if left.ids:
            self._finish(left, keep=True)

    def unrecorded(self, table: Table) -> str:
        """Why changes of the table by other clients are not recorded, and what mends that; empty
        where they are. One SELECT. Raises DatabaseUnavailable."""
        return self._database.unrecorded(table)

    def _show(self, table: Table, *, shown_too: bool) -> "_Left":
        """The records that were left. Returns once every read sees their changes."""
        asked = time.monotonic()
        records, held = self._database.captured(table, MAX_RECORDS + 1, shown_too=shown_too)
        if shown_too:  # then none is left for the next run
            held = replace(held, has_changes=False)
        # Also where nothing is left: another process may have raised the generation for a record,
        # and deleted the record, a moment ago.
        self._generations.saw(table, held, asked)
        if records is None or len(records) > MAX_RECORDS:
            ids = self._ids(table, shown_too)
            self._write_through.replace_all(table, lambda transaction: None)
            return _Left(None, ids)
        rows = sorted(records)
        ids = [int(id) for id, _ in rows]
        entries = _entries_in(table, rows)
        if entries is None:
            self._write_through.replace_all(table, lambda transaction: None)
            return _Left(None, ids)
        if rows:
            self._write_through.drop(table, entries, held, asked)
        return _Left(entries[table.key.name], ids)

    def _ids(self, table: Table, shown_too: bool) -> Sequence[int]:
        """The ids of all records that are left now."""
        found = array("Q")  # there may be millions
        while True:
            after = found[-1] if found else 0
            [page] = self._database.run(change_capture.ids(table, after, shown_too=shown_too))
            found.extend(id for (id,) in page)
            if len(page) < change_capture.PAGE:
                return found

    def _finish(self, left: "_Left", *, keep: bool) -> None:
        """Delete the records that were seen, or let them count as shown with `keep`. They are named
        one by one: between their ids others may have been committed meanwhile."""
        for start in range(0, len(left.ids), MAX_RECORDS):
            ids = left.ids[start : start + MAX_RECORDS]
            self._database.run(change_capture.finish(ids, keep=keep))


class _Left(NamedTuple):
    """Records that were left: the keys of their rows, and their ids."""

    keys: Keys
    ids: Sequence[int]


def _entries_in(table: Table, records: Sequence[Row]) -> Mapping[str, Sequence[Key]] | None:
    """By column: the values of the entries that these records name, each once, in their order. None
    where a record has none for a column, or a value of another type: the table was declared in
    another way when it was recorded."""
    found: dict[str, dict[Key, None]] = {name: {} for name in table.readable}
    for _, text in records:
        entries = json.loads(str(text))
        for name, own in found.items():
            values = [value for value in entries.get(name, [()]) if value is not None]
            if not all(_is_of(table.readable[name], value) for value in values):
                return None
            own.update(dict.fromkeys(values))
    return {name: list(own) for name, own in found.items()}


def _is_of(column: Column, value: object) -> bool:
    return type(value) is (int if isinstance(column.type, Integer) else str)
