"""Which entries a change affects, and what they show after it."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace

from chalicelib.cache import Affected, Entry, Fenced
from chalicelib.column_types import String
from chalicelib.db import Change, Committed
from chalicelib.rows import counted_entries
from chalicelib.tables import Column, Key, NotAsDeclared, Row, Table

log = logging.getLogger("herocache.write_through")

# A lookup's entry also shows other rows with the same value. At most so many of them are read for
# it: to read more costs more than the miss that it saves.
MAX_SHOWN_ROWS = 2_000
# How many bytes they may have, each as long as its columns may be.
MAX_SHOWN_BYTES = 8 * 1024 * 1024


def of_change(table: Table, change: Change, store: bool) -> Affected:
    """The entries of the changed rows, and every lookup entry that shows or showed one of them,
    without values. `store`: whether new rows are to be stored."""
    rows: dict[Key, Entry | None] = {row[0]: None for row in change.before}
    new: dict[Key, Entry | None] = {}
    for row in change.after:
        (new if row[0] in change.new_keys else rows)[row[0]] = None
    fenced = {table.key: rows} if rows else {}
    fenced |= of_lookups(table, (*change.before, *change.after))
    return Affected(fenced, new if fenced or store else {})


def with_rows(table: Table, affected: Affected, change: Change) -> Affected:
    """The same entries, with the new JSON of the rows. Raises NotAsDeclared."""
    if not change.after:
        return affected
    rows, new = dict(affected.fenced.get(table.key, {})), dict(affected.new)
    for row, entry in zip(change.after, counted_entries.encode_many(table, change.after)):
        (new if row[0] in new else rows)[row[0]] = entry
    return Affected({**affected.fenced, table.key: rows} if rows else affected.fenced, new)


def of_insert(
    table: Table,
    change: Change,
    lookups: Fenced,
    texts: Sequence[bytes],
) -> Affected:
    """As `of_change`, where the database gave all keys. `lookups`: the entries `of_lookups`.
    `texts`: as `Table.encode_keyless` makes them of the rows; none where they are not stored."""
    if not texts or table.write_behind:
        return Affected(lookups, dict.fromkeys(change.new_keys))
    return Affected(lookups, dict(zip(change.new_keys, table.with_keys(change.new_keys, texts))))


def of_lookups(table: Table, rows: Sequence[Row]) -> dict[Column, dict[Key, Entry | None]]:
    """The lookup entries that show one of `rows`, without a value yet."""
    if not rows:
        return {}
    return {column: dict.fromkeys(table.values(rows, column)) for column in table.lookup_columns}


def values(fenced: Fenced) -> dict[Column, list[Key]]:
    """The values of the entries, by column."""
    return {column: list(own) for column, own in fenced.items()}


def leave_a_lookup(table: Table, change: Change) -> bool:
    """Whether a lookup entry shows a row that it must not show any more. Whoever changes that row
    next cannot know of this entry, and may be acknowledged before we publish: so the entry must be
    fenced before our COMMIT."""
    places = [table.positions[column.name] for column in table.lookup_columns]
    after = {row[0]: row for row in change.after}
    return any(
        row[0] not in after or row[place] != after[row[0]][place]
        for row in change.before
        for place in places
    )


def max_shown_rows(table: Table) -> int:
    """How many other rows are read, at the most."""
    return min(MAX_SHOWN_ROWS, MAX_SHOWN_BYTES // table.max_row_bytes)


def with_lookups(
    table: Table, affected: Affected, change: Change, committed: Committed
) -> Affected:
    """The same entries, with what the lookups show: the changed rows, and other rows."""
    lookups = [column for column in affected.fenced if column != table.key]
    shown = {
        column: _shown(table, column, affected, change.after, others)
        for column, others in zip(lookups, committed.others)
    }
    return replace(affected, fenced={**affected.fenced, **shown})


def _shown(
    table: Table,
    column: Column,
    affected: Affected,
    own: Sequence[Row],
    others: Sequence[Row] | None,
) -> Mapping[Key, Entry | None]:
    """For each affected value of a lookup the JSON of its rows, in the order of their database
    keys. None where no row has the value. None everywhere where one of the `others` cannot be
    shown, or where there are so many, or so long ones, that some were not read whole, or where only
    the database knows the order of their keys."""
    entries: dict[Key, list[Entry]] = {value: [] for value in affected.fenced[column]}
    if others is None or _is_order_open(table, (*own, *others)):
        return dict.fromkeys(entries)
    encoded = {**affected.fenced.get(table.key, {}), **affected.new}
    try:
        encoded |= zip([row[0] for row in others], counted_entries.encode_many(table, others))
    except NotAsDeclared as error:
        log.warning("a lookup of %s is left to its next reader: %s", table.name, error)
        return dict.fromkeys(entries)
    if table.is_any_longer(others) or (table.write_behind and None in encoded.values()):
        return dict.fromkeys(entries)
    for row in sorted([*own, *others]):
        entries[row[table.positions[column.name]]].append(encoded[row[0]] or b"")
    return {value: b",".join(parts) or None for value, parts in entries.items()}


def _is_order_open(table: Table, rows: Sequence[Row]) -> bool:
    """Whether a key has a control character: some collations have these before the end of a
    text."""
    is_text = isinstance(table.key.type, String)
    return is_text and any(min(str(row[0]), default="") < " " for row in rows)


def without_values(affected: Affected) -> Affected:
    """The same entries without values: all of them are deleted."""
    fenced = {column: dict.fromkeys(own) for column, own in affected.fenced.items()}
    return Affected(fenced, dict.fromkeys(affected.new))


def as_before(table: Table, affected: Affected, before: Sequence[Row]) -> Affected:
    """The same entries, with the rows as they were `before` a change that was undone. Lookup
    entries are deleted."""
    try:
        rows = dict(zip([row[0] for row in before], counted_entries.encode_many(table, before)))
    except NotAsDeclared:
        rows = {}
    return Affected(
        {
            column: {value: rows.get(value) if column is table.key else None for value in own}
            for column, own in affected.fenced.items()
        }
    )
