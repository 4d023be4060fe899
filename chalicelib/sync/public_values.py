"""What other clients leave under a public key: a row, some of its columns, or something else."""

import json
from collections.abc import Collection, Mapping, Sequence
from hashlib import blake2b
from typing import Any

from chalicelib.cache import Found, Garbage, HashFields
from chalicelib.column_types import InvalidValue
from chalicelib.error_text import shown
from chalicelib.tables import Key, Row, Table

_EMPTY_HASH = blake2b(digest_size=8)

# The columns that a public key shows, by name, with values that their columns take.
Values = Mapping[str, Key]


class NotARow(ValueError):
    """The text says why."""


def parse(table: Table, key: Key, found: Found) -> Values | None:
    """The values under the public key of the row with `key`; None where there is nothing. Raises
    NotARow."""
    if found is None:
        return None
    if isinstance(found, Garbage):
        raise NotARow(found.reason)
    values = _fields(table, found) if isinstance(found, HashFields) else _json(found)
    parsed: dict[str, Key] = {}
    for name, value in values.items():
        if name not in table.positions:
            raise NotARow(f"{table.name} has no column {shown(name)}")
        try:
            parsed[name] = table.columns[table.positions[name]].type.parse(value)
        except InvalidValue as error:
            raise NotARow(f"{name}: {error}") from error
    if parsed.pop(table.key.name, key) != key:
        raise NotARow(
            f"{table.key.name}: expected {shown(key)}, got {values[table.key.name]!r:.80}"
        )
    return parsed


def is_whole(table: Table, values: Values) -> bool:
    """Whether every column is there but the key, which stands in the public key."""
    return len(values) == len(table.columns) - 1


def over(table: Table, key: Key, values: Values, row: Row | None) -> Row | None:
    """The row with these values in the place of its own. None where there is no row and not all
    values are given."""
    if row is None:
        if not is_whole(table, values):
            return None
        return (key, *[values[column.name] for column in table.columns[1:]])
    return (key, *[values.get(c.name, old) for c, old in zip(table.columns[1:], row[1:])])


def without_write_behind(table: Table, values: Values) -> Values:
    """Without the counters that are counted in Redis: they follow the row, in both directions. The
    public key shows them as they were at the last run."""
    names = {column.name for column in table.write_behind}
    return {name: value for name, value in values.items() if name not in names}


def digests(texts: Collection[bytes | None]) -> list[str]:
    """The digest of each row, by its text as `encode_many` makes it. It tells later whether the row
    was changed. Empty where there is no text."""
    found = []
    for text in texts:
        if not text:
            found.append("")
            continue
        hashed = _EMPTY_HASH.copy()  # takes half the time of a new one
        hashed.update(text)
        found.append(hashed.hexdigest())
    return found


def digests_by_key(table: Table, rows: Sequence[Row]) -> Mapping[Key, str]:
    """The same by key; empty for a row that is not as declared."""
    texts = table.encode_each(rows)
    return dict(zip(texts, digests(texts.values())))


def digest(table: Table, row: Row | None) -> str:
    """The same of one; empty where there is none."""
    return digests_by_key(table, [row])[row[0]] if row else ""


def digest_of(table: Table, key: Key, found: Found) -> str:
    """The same of what stands under the public key of the row with `key`; empty where that is no
    whole row."""
    try:
        values = parse(table, key, found)
    except NotARow:
        return ""
    return digest(table, over(table, key, values or {}, None))


def _json(text: bytes) -> Mapping[str, Any]:
    try:
        values = _DECODER.decode(text.decode())
    except RecursionError as error:
        raise NotARow("it is nested too deeply") from error
    except ValueError as error:
        raise NotARow(f"it is not the JSON of a row: {str(error)[:80]}") from error
    if not isinstance(values, dict):
        raise NotARow(f"it is JSON, but no object: {shown(values)}")
    return values


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise ValueError("a name comes twice")
    return values


_DECODER = json.JSONDecoder(object_pairs_hook=_unique)


def _fields(table: Table, found: HashFields) -> Mapping[str, str]:
    values = {c.name: v for c, v in zip(table.columns, found.values) if v is not None}
    if found.size != len(values):
        raise NotARow(f"{found.size - len(values)} of its fields are no columns of {table.name}")
    try:
        return {name: value.decode() for name, value in values.items()}
    except UnicodeDecodeError as error:
        raise NotARow("a field is not UTF-8") from error
