"""Changes that other clients of the database made: what triggers recorded of them leaves the cache.

A record is deleted only when every read sees the change. Whoever dies before that leaves it to the
next one, and to take an entry out of the cache twice is harmless.
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple

from chalicelib.cache import Generations
from chalicelib.db import Database, Transaction, captured
from chalicelib.errors import OthersCame
from chalicelib.rows import WriteThrough
from chalicelib.tables import Column, Integer, Key, Row, Table

# More are not read one by one: then the whole table leaves the cache.
MAX_RECORDS = 5_000

# The keys of the rows that were changed; None: any row may have changed.
Keys = Sequence[Key] | None


class Captured:
    """`drain` is the sync's, `show` a reader's."""

    def __init__(
        self, database: Database, write_through: WriteThrough, generations: Generations
    ) -> None:
        self._database = database
        self._write_through = write_through
        self._generations = generations

    def drain(self, table: Table, follow: Callable[[Keys], None] = lambda keys: None) -> Keys:
        """Bring all changes that are recorded to the cache: every read that starts after this has
        returned sees them. Returns the keys of the changed rows, each once, in the order in which
        the database recorded them; None where these are too many to tell, or cannot be told. Calls
        `follow` with the same, unless nothing has changed, before the records are deleted: where
        it raises, they stay for the next time. One SELECT where nothing has changed. Raises
        SchemaMismatch, DatabaseUnavailable."""
        left = self._show(table, shown_too=True)
        if left.is_empty:
            return ()
        follow(left.keys)
        self._finish(table, left, keep=False)
        return left.keys

    def show(self, table: Table) -> None:
        """The same for reads only: the records stay for `drain`, and count as shown. One SELECT
        where no change is left."""
        left = self._show(table, shown_too=False)
        if not left.is_empty:
            self._finish(table, left, keep=True)

    def unrecorded(self, table: Table) -> str:
        """Why changes of the table by other clients are not recorded, and what mends that; empty
        where they are. One SELECT. Raises DatabaseUnavailable."""
        return self._database.unrecorded(table)

    def _show(self, table: Table, *, shown_too: bool) -> "_Left":
        """What was left, once every read sees it."""
        asked = time.monotonic()
        records, held = self._database.captured(table, MAX_RECORDS + 1, shown_too=shown_too)
        # Also where nothing is left: another one may have raised the generation for a record, and
        # deleted it a moment ago.
        self._generations.saw(table, held, asked)
        if records is None or len(records) > MAX_RECORDS:
            blocks = self._blocks(table, shown_too)
            self._write_through.replace_all(table, lambda transaction: None)
            return _Left(None, (), blocks)
        rows = sorted(records)
        ids = [id for id, _ in rows]
        entries = _entries_in(table, rows)
        if entries is None:
            self._write_through.replace_all(table, lambda transaction: None)
            return _Left(None, ids)
        if rows:
            self._write_through.drop(table, entries, held, asked)
        return _Left(entries[table.key.name], ids)

    def _blocks(self, table: Table, shown_too: bool) -> list["_Block"]:
        """All records that are left now."""
        found: list[_Block] = []
        for is_shown in (0, 1) if shown_too else (0,):
            last, is_more = 0, True
            while is_more:
                [page] = self._database.run(captured.blocks(table, is_shown, last))
                found += [_Block(is_shown, *map(int, block)) for block in page]
                is_more = sum(int(block[2]) for block in page) == captured.PAGE
                last = found[-1].last if page else last
        return found

    def _finish(self, table: Table, left: "_Left", *, keep: bool) -> None:
        """Delete the records, or let them count as shown with `keep`: those that were seen, and no
        other one that was committed meanwhile."""
        if left.ids:
            self._database.run(captured.finish(left.ids, keep=keep))
        for block in left.blocks:
            if not (keep and block.is_shown):
                self._finish_block(table, block, keep)

    def _finish_block(self, table: Table, block: "_Block", keep: bool) -> None:
        statement = captured.finish_block(table, block.is_shown, block.first, block.last, keep=keep)

        def finish(transaction: Transaction) -> None:
            transaction.queue(statement)
            transaction.queue_guard(captured.guard_count(block.records), OthersCame)
            transaction.commit()

        with suppress(OthersCame):  # then the block stays for the next time
            self._database.transact(finish)


class _Block(NamedTuple):
    """`records` of them between two ids."""

    is_shown: int
    first: int
    last: int
    records: int


class _Left(NamedTuple):
    """Records that were left: the keys of their rows, and their ids or, where there were too many,
    blocks of these."""

    keys: Keys
    ids: Sequence[Key]
    blocks: Sequence[_Block] = ()

    @property
    def is_empty(self) -> bool:
        return not self.ids and not self.blocks


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
