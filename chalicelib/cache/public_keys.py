"""Public keys: the Redis keys of watched rows, which any client may use.

A public key is `Product:22`: a JSON string with the row, or a Hash with a field for each column. It
does not expire. The note of a table says that there is nothing to do for a run: whoever changes a
row of a watched table deletes it.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, NamedTuple

from chalicelib.cache import keys, public_scripts
from chalicelib.cache.commands import Command, Words, sha1
from chalicelib.tables import HASH, JSON, Key, Row, Table

# Longer than a write or a run may hold back what it read.
STAMP_MILLISECONDS = 600_000
MAX_ROWS_A_SCRIPT = 1_000

ABSENT = "none"
GARBAGE = "garbage"
ANY = ""


class Garbage(NamedTuple):
    """What a public key holds in place of a row."""

    reason: str


class HashFields(NamedTuple):
    """What a Hash holds: how many fields, and the value of each column, None where it has none."""

    size: int
    values: tuple[bytes | None, ...]


# What a public key holds: a string, the fields of a Hash, nothing, or something that is no row.
Found = bytes | HashFields | Garbage | None


class Late(Exception):
    """A public key would have been set too late: this process slept."""


class PublicRow(NamedTuple):
    """What to put under the public key of the row with `key`: `value`, where somebody knows what
    `public_forms` makes of the row; else `row`, or nothing where that is None, too. `instead_of`:
    the `fingerprint` of what must be there; ABSENT; GARBAGE; or ANY."""

    key: Key
    row: Row | None = None
    instead_of: str = ANY
    value: Found = None


@dataclass(frozen=True)
class PublicWrite:
    """Public keys that a write sets. `rows`, by form. `read_at`: when they were locked; `by`: a
    time behind the COMMIT; both in microseconds of the database's clock."""

    rows: Mapping[str, Sequence[PublicRow]]
    read_at: int
    by: int

    def commands(self, table: Table, is_cluster: bool) -> list[Command]:
        return [
            command
            for form, rows in self.rows.items()
            for command in set_commands(table, form, rows, self.read_at, is_cluster, by=self.by)
        ]


def fingerprint(found: Found) -> str:
    """As the script makes it of what is there."""
    if found is None:
        return ABSENT
    if isinstance(found, Garbage):
        return f"garbage: {found.reason}"
    if isinstance(found, HashFields):
        texts = [b"-" if v is None else b"%d:%b" % (len(v), v) for v in found.values]
        found = b" ".join([b"%d" % found.size, *texts])
    return hashlib.sha1(found, usedforsecurity=False).hexdigest()


def instead_of(found: Found) -> str:
    """What must still be there where this is replaced, also where it is garbage."""
    return GARBAGE if isinstance(found, Garbage) else fingerprint(found)


def public_forms(table: Table, form: str, texts: Sequence[bytes]) -> Sequence[Found]:
    """What the public keys hold of the rows that `encode_many` made these texts of."""
    if form != HASH:
        return texts
    count = len(table.columns)
    rows = map(table.decode, texts)
    return [HashFields(count, tuple([str(v).encode() for v in row])) for row in rows]


def read_commands(
    table: Table, form: str, row_keys: Sequence[Key], is_cluster: bool
) -> list[Command]:
    names = table.public_keys(form, row_keys)
    most = table.max_json_bytes
    head: Words = (most, *[c.name for c in table.columns]) if form == HASH else (most,)
    script = public_scripts.READ_HASHES if form == HASH else public_scripts.READ_STRINGS
    return [
        Command(_tag(batch[0]), ("EVALSHA", sha1(script), len(batch), *batch, *head))
        for batch in _batches(names, is_cluster)
    ]


def set_commands(
    table: Table,
    form: str,
    rows: Sequence[PublicRow],
    read_at: int,
    is_cluster: bool,
    by: int = 0,
    until: int = 0,
) -> list[Command]:
    """As SET_PUBLIC takes them."""
    fields = [c.name for c in table.columns] if form == HASH else []
    most = table.max_json_bytes
    head: Words = (read_at, by, STAMP_MILLISECONDS, until, most, len(fields), *fields)
    script = sha1(public_scripts.SET_PUBLIC)
    commands = []
    for batch in _batches(rows, is_cluster):
        names = table.public_keys(form, [each.key for each in batch])
        named = [word for pair in zip(names, _stamps(names)) for word in pair]
        words: list[str | bytes] = []
        unknown = [each.row for each in batch if each.row is not None and each.value is None]
        others = iter(public_forms(table, form, table.encode_many(unknown)) if unknown else ())
        for each in batch:
            if each.row is None and each.value is None:
                words += [each.instead_of, "del", *[""] * max(len(fields), 1)]
                continue
            value = next(others) if each.value is None else each.value
            words += (each.instead_of, "set")
            words += value.values if isinstance(value, HashFields) else [value]  # type: ignore[list-item, arg-type]
        command: Words = ("EVALSHA", script, len(named), *named, *head, *words)
        commands.append(Command(_tag(names[0]), command))
    return commands


def stamp_commands(
    table: Table, form: str, row_keys: Sequence[Key], now: int, is_cluster: bool
) -> list[Command]:
    """As STAMP_PUBLIC takes them."""
    names = table.public_keys(form, row_keys)
    stamps = [stamp for name, stamp in zip(names, _stamps(names)) if stamp != name]
    script = sha1(public_scripts.STAMP_PUBLIC)
    return [
        Command(_tag(batch[0]), ("EVALSHA", script, len(batch), *batch, now, STAMP_MILLISECONDS))
        for batch in _batches(stamps, is_cluster)
    ]


def set_new_commands(table: Table, texts: Mapping[Key, bytes], until: int) -> list[Command]:
    """On one server: a transaction that sets the public keys of these rows, where none of them is
    there."""
    names, guard = table.public_keys(JSON, texts), f"{note(table)}:guard"
    allow = ("EVALSHA", sha1(public_scripts.ALLOW_NEW_PUBLIC), 1 + len(names))
    pairs: Words = (*chain.from_iterable(zip(names, texts.values())),)  # type: ignore[arg-type]
    transaction: Sequence[Words] = [
        ("MULTI",),
        ("SET", guard, ""),
        (*allow, guard, *_stamps(names), until),
        ("MSETNX", guard, "", *pairs),
        ("DEL", guard),
        ("EXEC",),
    ]
    return [Command(keys.tag(table, 0), words) for words in transaction]


def note(table: Table) -> str:
    return f"{{{keys.tag(table, 0)}}}:sync"


def delete_note(table: Table) -> Command:
    """Let the next run look at the table."""
    return Command(keys.tag(table, 0), ("DEL", note(table)))


def _stamps(names: Sequence[str]) -> list[str]:
    text = "".join(names)
    if "{" in text or "}" in text:
        return [_stamp(name) for name in names]
    return [f"{{{name}}}:stamp" for name in names]


def _stamp(name: str) -> str:
    """In the slot of `name`. No row's key holds a NUL. No other name is in the slot of one with a
    closing brace and no tag: `name` itself then stands for a stamp that nobody leaves."""
    if _tag(name) != name:
        return f"{name}\0stamp"
    return name if "}" in name else f"{{{name}}}:stamp"


def _tag(name: str) -> str:
    """What a cluster finds the slot of `name` by: the text in its first braces, or all of it."""
    inner, closed, _ = name.partition("{")[2].partition("}")
    return inner if inner and closed else name


def _batches(items: Sequence[Any], is_cluster: bool) -> list[Sequence[Any]]:
    most = 1 if is_cluster else MAX_ROWS_A_SCRIPT
    return [items[start : start + most] for start in range(0, len(items), most)]
