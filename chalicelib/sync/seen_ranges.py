"""The table `watched_ranges`: what both sides had last, where every row of a table is watched.

One row of it has some thousand rows of the table: those behind its key, up to the next one's.
"""

import json
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple, Protocol, TypeVar

from chalicelib.column_types import InvalidValue
from chalicelib.db import Database, Statement
from chalicelib.sync.step import without
from chalicelib.sync.unfinished_step import PRINT_CHARACTERS, Prints, parted
from chalicelib.tables import EVERY_ROW, Key, Table

Value = TypeVar("Value")
Named = TypeVar("Named", bound="HasKey")


class HasKey(Protocol):
    @property
    def key(self) -> Key: ...


class SeenRange(NamedTuple):
    """Of the rows of a range, by key: the digest of the row as both sides had it last, and what
    `UnfinishedStep` has recorded."""

    seen: Mapping[Key, str]
    unfinished: Prints

    def parted(self, table: Table, last: Key | None) -> "tuple[SeenRange, SeenRange]":
        """What concerns the keys up to `last`, also of rows that are gone, and the rest; None:
        everything."""
        if last is None or not any(self):
            return self, SeenRange({}, {})
        order = table.key.type.order
        end = order(last)
        seen, unfinished = self
        behind = {key for key in {**seen, **unfinished} if order(key) > end}  # type: ignore[operator]
        own = SeenRange(without(behind, {**seen}), without(behind, {**unfinished}))
        return own, SeenRange(_within(behind, seen), _within(behind, unfinished))


class SeenRanges:
    """`form`: of public keys. A range is named by the key behind which it begins, as a text; ''
    where that is the first row of all."""

    def __init__(self, database: Database) -> None:
        self._database = database
        # Of one range: an answer or a statement with more may fail.
        self.max_bytes = database.max_row_bytes

    def starts(self, table: Table, form: str) -> list[str]:
        """Behind which key each range begins, in order."""
        [rows] = self._database.run(
            (
                "SELECT after_key FROM watched_ranges WHERE table_name = %s AND form = %s",
                (table.name, form),
            )
        )
        orders = {}
        for (text,) in rows:
            with suppress(ValueError):  # of another declaration
                orders[text] = _order(table, text)
        return sorted(orders, key=orders.__getitem__)

    def starts_between(self, table: Table, form: str, after: str, end: str | None) -> list[str]:
        """The same from behind the key `after` on, and before `end` where it is given."""
        found = self.starts(table, form)
        order = {text: _order(table, text) for text in [*found, after, end or ""]}
        return [after] + [
            text
            for text in found
            if order[after] < order[text] and (not end or order[text] < order[end])
        ]

    def seen(self, table: Table, form: str, after: str) -> SeenRange:
        """What both sides had last of the rows in a range."""
        [rows] = self._database.run(
            (
                "SELECT seen, unfinished FROM watched_ranges WHERE table_name = %s AND form = %s"
                " AND after_key = %s",
                (table.name, form, after),
            )
        )
        for seen, unfinished in rows:
            return SeenRange(_unpacked(seen), _unpacked_prints(unfinished))
        return SeenRange({}, {})

    def kept(
        self, table: Table, form: str, direction: str, after: str, kept: SeenRange
    ) -> Statement:
        """Keeps it; forgets a range without rows."""
        if kept == SeenRange({}, {}):
            return (
                "DELETE FROM watched_ranges WHERE table_name = %s AND form = %s AND after_key = %s",
                (table.name, form, after),
            )
        return (
            "INSERT INTO watched_ranges"
            " (table_name, form, after_key, direction, seen, unfinished)"
            " VALUES (%s, %s, %s, %s, %s, %s) ON DUPLICATE KEY UPDATE"
            " direction = VALUES(direction), seen = VALUES(seen), unfinished = VALUES(unfinished)",
            (
                table.name,
                form,
                after,
                direction,
                _packed(kept.seen),
                _packed_prints(kept.unfinished),
            ),
        )

    def begun(
        self, table: Table, form: str, direction: str, after: str, prints: Prints
    ) -> list[Statement]:
        """The same for what a step has begun, until that is kept."""
        return [
            (
                "INSERT INTO watched_ranges"
                " (table_name, form, after_key, direction, seen, unfinished)"
                " VALUES (%s, %s, %s, %s, %s, %s)"
                " ON DUPLICATE KEY UPDATE unfinished = VALUES(unfinished)",
                (table.name, form, after, direction, _packed({}), _packed_prints(prints)),
            )
        ]

    def clear(self, table: Table, form: str, ended: str = "") -> None:
        """Forget what both sides had, unless somebody watches every row, in a direction other than
        `ended`."""
        for after in self.starts(table, form):
            self._database.run(
                (
                    "DELETE FROM watched_ranges WHERE table_name = %s AND form = %s"
                    " AND after_key = %s AND NOT EXISTS (SELECT 1 FROM watched AS w"
                    " WHERE w.table_name = watched_ranges.table_name"
                    " AND w.form = watched_ranges.form AND w.row_key = %s AND w.direction <> %s)",
                    (table.name, form, after, EVERY_ROW, ended),
                )
            )


def _order(table: Table, text: str) -> list[Any]:
    """Sorts the names of ranges: the one that begins with the first row of all comes first."""
    return [table.key.type.order(table.key.type.read(text))] if text else []


def _within(keys: set[Key], values: Mapping[Key, Value]) -> dict[Key, Value]:
    return {key: value for key, value in values.items() if key in keys}


def _packed(texts: Mapping[Key, str]) -> str:
    return json.dumps([[*texts], "".join(texts.values())])


def _unpacked(text: str) -> Mapping[Key, str]:
    keys, digests = json.loads(text)
    return {key: digests[16 * i : 16 * i + 16] for i, key in enumerate(keys)}


def _packed_prints(prints: Prints) -> str:
    """A key stands there once for each of its fingerprints."""
    keys, texts = [*prints], "".join(prints.values())
    if len(texts) > PRINT_CHARACTERS * len(keys):
        keys = [key for key, own in prints.items() for _ in parted(own)]
    return json.dumps([keys, texts]) if keys else ""


def _unpacked_prints(text: str | None) -> Prints:
    keys, texts = json.loads(text or '[[], ""]')
    prints: dict[Key, str] = {}
    for key, text in zip(keys, parted(texts)):
        prints[key] = prints.get(key, "") + text
    return prints


def keys_of(table: Table, texts: Iterable[str]) -> Iterator[Key]:
    """The keys that the texts are, without those that are none."""
    for text in texts:
        if text == EVERY_ROW:
            yield text
            continue
        try:
            yield table.key.type.parse(text)
        except InvalidValue:
            continue


def rows_by_range(
    table: Table, starts: Sequence[str], rows: Sequence[Named]
) -> Iterator[tuple[str, list[Named]]]:
    """The rows of each range that has some, and the key behind which it begins."""
    order = table.key.type.order
    behind = [start for start in starts if start]
    bounds = [order(table.key.type.read(start)) for start in behind]
    ranges: dict[str, list[Named]] = {}
    for row in rows:
        place = bisect_left(bounds, order(row.key))
        ranges.setdefault(["", *behind][place], []).append(row)
    yield from ranges.items()
