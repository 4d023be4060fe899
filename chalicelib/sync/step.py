"""One step of a run: rows that are looked at together, and what they come to."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from chalicelib.cache import Found
from chalicelib.sync import public_values
from chalicelib.sync.unfinished_step import UnfinishedStep
from chalicelib.tables import Key, Row, Table

Value = TypeVar("Value")


@dataclass(frozen=True)
class Rows:
    """Rows as they were read, and when: `read_at` is a time before that, in microseconds of the
    database's clock. Public keys may be set until `until`, in microseconds of Redis's clock.
    `keys`: of these rows, in order. `texts`: their JSON; `odd`: the rows that JSON cannot show."""

    read_at: int
    until: int
    keys: Sequence[Key]
    texts: Mapping[Key, bytes]
    odd: Mapping[Key, Row]

    def row(self, table: Table, key: Key) -> Row | None:
        text = self.texts.get(key)
        return table.decode(text) if text else self.odd.get(key)


@dataclass
class InStep:
    """What a step comes to. `seen`: of each row the digest of what both sides have now; empty
    where there is none. `found`: what stands under the public keys, and stays there unless a client
    changes it. `is_known`: whether that is sure, and nothing is left to do. `written`: whose row
    was changed."""

    seen: dict[Key, str]
    found: dict[Key, Found]
    is_known: bool = True
    written: set[Key] = field(default_factory=set)


@dataclass
class Step:
    """Rows with these `keys`, of a table whose watches have this form and direction. `rows`: those
    that are there, perhaps with others. `seen`: of each row the digest of what both sides had last;
    empty or left out where that is not known. `unfinished`: what this step, or one that a killed
    run has begun here, does before it keeps what both sides have. `turns`: as `Lease` has them:
    nothing is done behind another turn."""

    table: Table
    form: str
    direction: str
    keys: Sequence[Key]
    rows: Rows
    seen: Mapping[Key, str]
    unfinished: UnfinishedStep
    turns: int
    now: InStep = field(init=False)

    def __post_init__(self) -> None:
        self.now = InStep(dict.fromkeys(self.keys, ""), dict.fromkeys(self.keys))

    def row(self, key: Key) -> Row | None:
        return self.rows.row(self.table, key)

    def public_key(self, key: Key) -> str:
        return self.table.public_key(self.form, key)


def rows_of(
    read_at: int,
    until: int,
    table: Table,
    texts: Mapping[Key, bytes | None],
    rows: Sequence[Row],
) -> Rows:
    """`rows`: those whose text is not known yet, as far as they are still there."""
    texts = {**texts, **table.encode_each(rows)} if rows else texts
    known: Mapping[Key, bytes] = texts  # type: ignore[assignment]
    if None in texts.values():
        known = {key: text for key, text in texts.items() if text is not None}
    odd = {row[0]: row for row in rows if row[0] not in known}
    return Rows(read_at, until, [*texts], known, odd)


def digests(rows: Rows, keys: Collection[Key]) -> dict[Key, str]:
    """Of the rows with these keys; empty where there is none."""
    texts = [rows.texts.get(key) for key in keys]
    return dict(zip(keys, public_values.digests(texts)))


def without(keys: Collection[Key], values: dict[Key, Value]) -> dict[Key, Value]:
    return {key: value for key, value in values.items() if key not in keys} if keys else values


def named(table: Table, row: Row | None) -> object:
    return dict(zip([column.name for column in table.columns], row)) if row else None
