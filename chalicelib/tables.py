"""The declared tables: their columns, keys and lookups, and how a row becomes JSON.

A new table is a `Table(...)` in `TABLES` and its SQL in `seed/schema.sql`, nothing else.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from operator import itemgetter
from typing import Any

from chalicelib.column_types import (
    INTEGER,
    STRING,
    STRING_KEY,
    UNSIGNED_KEY,
    Integer,
    String,
    quote,
)
from chalicelib.error_text import shown

Key = int | str
# A row's values in the table's declared order, the key first.
Row = tuple[Key, ...]

# The forms of a public key.
JSON, HASH = "json", "hash"
FORMS = (JSON, HASH)
# Which side of a watched row counts: the public key follows the row, or the row the public key.
TO_CACHE, TO_DATABASE = "to_cache", "to_database"
DIRECTIONS = (TO_CACHE, TO_DATABASE)
# In place of keys: all of a table.
EVERY_ROW = "*"

# Redis counts in floating-point numbers: one that is higher by 1 may be the result of a sum that is
# higher still.
MAX_COUNTED = 2**53 - 1
# The script that counts has six local variables for each, and Lua allows 200.
MAX_WRITE_BEHIND = 24
# Of a row of the table applied_deltas.
MAX_APPLIED_BYTES = 1_000

# Stands in place of the key in a row to which the database gives a key. No key column takes it.
NO_KEY: Key = 0

# Of fewer values each is looked at by itself: that is faster.
_FEW = 4


class NotAsDeclared(ValueError):
    """A row of the database holds a value that its column's declaration excludes. The text names
    table, column and key, and says what to do."""


@dataclass(frozen=True)
class Counter:
    """What an increment may do to a column of integers. `minimum`: it takes the value no lower;
    None: down to what the column takes. `write_behind`: increments are kept in Redis until the sync
    adds them to the row; such a counter has no minimum."""

    minimum: int | None = None
    write_behind: bool = False

    def __post_init__(self) -> None:
        if self.write_behind and self.minimum is not None:
            raise ValueError("a write-behind counter has no minimum: leave it out")


@dataclass(frozen=True)
class Column:
    """`counter`: where requests may increment the column."""

    name: str
    type: Integer | String
    counter: Counter | None = None


@dataclass(frozen=True)
class PublicKeys:
    """What stands before the colon in the public Redis keys of a table's rows, in each form: a
    JSON string, or a Hash with a field for each column."""

    json: str
    hash: str

    @property
    def forms(self) -> Mapping[str, str]:
        return {JSON: self.json, HASH: self.hash}


@dataclass(frozen=True)
class Table:
    """`columns`: in the order of a row's values. The first one is the key.

    `auto_key`: the database gives a key to a row that has none (AUTO_INCREMENT).
    `lookups`: other columns by which rows can be read. Each needs an index in the schema.
    `public`: the Redis keys that other clients may use for watched rows.
    """

    name: str
    columns: tuple[Column, ...]
    auto_key: bool = False
    lookups: tuple[str, ...] = ()
    public: PublicKeys | None = None

    def __post_init__(self) -> None:
        for lookup in self.lookups:
            if lookup not in self.positions:
                raise ValueError(
                    f"{self.name}: the lookup {lookup} names no column; there are"
                    f" {', '.join(self.positions)}"
                )
        for column in self.write_behind:
            if column.name in self.readable:
                raise ValueError(
                    f"{self.name}: {column.name} is a key or a lookup, so it cannot be a"
                    " write-behind counter: the database would not find rows by what it shows"
                )
            type_ = column.type
            if not isinstance(type_, Integer) or max(-type_.minimum, type_.maximum) > MAX_COUNTED:
                raise ValueError(
                    f"{self.name}: {column.name} cannot be a write-behind counter: Redis counts"
                    f" integers from -{MAX_COUNTED} to {MAX_COUNTED} exactly, and nothing else"
                )
        longest = sum(len(f" {c.name}={-MAX_COUNTED}") for c in self.write_behind)
        if (
            len(self.write_behind) > MAX_WRITE_BEHIND
            or longest + len(f"{MAX_COUNTED} {MAX_COUNTED}") > MAX_APPLIED_BYTES
        ):
            raise ValueError(
                f"{self.name}: it has too many write-behind counters, or their names are too long:"
                f" at most {MAX_WRITE_BEHIND}, of {MAX_APPLIED_BYTES} characters with their sums"
            )

    @property
    def identifier(self) -> str:
        """The name as SQL needs it. A name from the settings is quoted, because it may be a
        reserved word."""
        return self.name if self.name in TABLES else f"`{self.name}`"

    @property
    def told_to_cache(self) -> str:
        """What to do after a statement that changes rows without the service. Ends an error
        text."""
        request = json.dumps({"REQUEST": "invalidate", "TABLE": self.name, "SQLS": ["*"]})
        return f"then send {request}, or cached reads show the old rows"

    @property
    def key(self) -> Column:
        return self.columns[0]

    @cached_property
    def positions(self) -> Mapping[str, int]:
        return {column.name: i for i, column in enumerate(self.columns)}

    @cached_property
    def readable(self) -> Mapping[str, Column]:
        """The columns by which rows can be read: the key, then the lookups."""
        names = (self.key.name, *self.lookups)
        return {name: self.columns[self.positions[name]] for name in names}

    @cached_property
    def lookup_columns(self) -> tuple[Column, ...]:
        return tuple(self.readable[name] for name in self.lookups)

    @cached_property
    def counters(self) -> Mapping[str, Column]:
        return {column.name: column for column in self.columns if column.counter}

    @cached_property
    def write_behind(self) -> tuple[Column, ...]:
        """The columns whose increments are kept in Redis until the sync adds them to the row."""
        return tuple(c for c in self.columns if c.counter and c.counter.write_behind)

    @cached_property
    def shape(self) -> str:
        """Six characters. Another declaration of the table, whose rows have other entries, or other
        texts in them, has others. Limits of values are left out."""
        columns = [
            (c.name, c.type.width if isinstance(c.type, Integer) else "text") for c in self.columns
        ]
        counted = [column.name for column in self.write_behind]
        told = repr((columns, sorted(self.lookups), counted))
        return hashlib.sha256(told.encode()).hexdigest()[:6]

    def public_key(self, form: str, key: Key) -> str:
        """The public Redis key of the row, in a form that is declared."""
        return self.public_keys(form, [key])[0]

    def public_keys(self, form: str, keys: Iterable[Key]) -> list[str]:
        """The same of each of these rows."""
        assert self.public
        prefix = self.public.forms[form]
        return [f"{prefix}:{key}" for key in keys]

    @cached_property
    def json_template(self) -> str:
        """What `encode` makes of a row, with %s for the JSON of each value."""
        return "{" + ",".join(f"{quote(c.name)}:%s" for c in self.columns) + "}"

    @cached_property
    def _head(self) -> bytes:
        return f"{{{quote(self.key.name)}:%d".encode()

    def parse_many(self, items: Sequence[Any]) -> list[Row]:
        """The rows in objects, each of which must have exactly the table's columns, or all but the
        key where the database gives it. It works column by column, because these loops run in C.
        Raises TypeError, KeyError or InvalidValue."""
        if set(map(type, items)) != {dict}:
            raise TypeError
        lengths = set(map(len, items))
        is_keyless = self.auto_key and lengths == {len(self.columns) - 1}
        if not (is_keyless or lengths == {len(self.columns)}):
            raise KeyError
        columns: list[Sequence[Key]] = [[NO_KEY] * len(items)] if is_keyless else []
        for column in self.columns[is_keyless:]:
            values = [*map(itemgetter(column.name), items)]
            if len(values) < _FEW or not column.type.takes_all(values):
                values = [column.type.parse(value) for value in values]
            columns.append(values)
        return [*zip(*columns)]

    @property
    def min_row_bytes(self) -> int:
        """The fewest bytes that `encode` makes of a row."""
        return len(self.json_template) - len(self.columns)

    @cached_property
    def max_row_bytes(self) -> int:
        """The most bytes that the database sends of a row's values, all as declared."""
        applied = MAX_APPLIED_BYTES if self.write_behind else 0
        return applied + sum(column.type.max_bytes for column in self.columns)

    def is_any_longer(self, rows: Sequence[Row]) -> bool:
        """Whether one of these, which `encode_many` takes, holds a longer text than is declared."""
        return any(
            max(map(len, texts)) > column.type.max_characters
            for column, texts in zip(self.columns, zip(*rows))
            if isinstance(column.type, String)
        )

    @cached_property
    def max_json_bytes(self) -> int:
        """The most bytes that a JSON object of a row needs, however its writer escapes characters,
        with some white space."""
        values = sum(
            12 * c.type.max_characters if isinstance(c.type, String) else c.type.width
            for c in self.columns
        )
        return values + len(self.json_template) + 1_000

    def encode(self, row: Row) -> bytes:
        """As `encode_many`, for one row."""
        return self.encode_many((row,))[0]

    def encode_many(self, rows: Sequence[Row]) -> Sequence[bytes]:
        """Each row as one JSON object in UTF-8, with the columns in declared order. Answers and
        entries hold these bytes. It works column by column, because these loops run in C. Raises
        NotAsDeclared."""
        columns = zip(self.columns, zip(*rows))
        try:
            texts = [column.type.encode_all(values) for column, values in columns]
            return list(map(str.encode, map(self.json_template.__mod__, zip(*texts))))
        except TypeError as error:
            raise self._explained(rows) from error

    def encode_keyless(self, rows: Sequence[Row]) -> Sequence[bytes]:
        """What `encode_many` makes of each row behind its key, where rows have NO_KEY."""
        start = len(self._head % NO_KEY)
        return [text[start:] for text in self.encode_many(rows)]

    def with_keys(self, keys: Iterable[Key], texts: Iterable[bytes]) -> list[bytes]:
        """The JSON of rows with these integer keys, of which `encode_keyless` made the `texts`."""
        return [b"%b%b" % (self._head % key, text) for key, text in zip(keys, texts)]

    def encode_each(self, rows: Sequence[Row]) -> Mapping[Key, bytes | None]:
        """The same by key; None for a row that is not as declared."""
        keys = [row[0] for row in rows]
        try:
            return dict(zip(keys, self.encode_many(rows) if rows else ()))
        except NotAsDeclared:
            if len(rows) == 1:
                return {keys[0]: None}
            return {key: text for row in rows for key, text in self.encode_each([row]).items()}

    def decode(self, text: bytes) -> Row:
        """The row that `encode` made this text of."""
        return tuple(json.loads(text).values())

    def values(self, rows: Iterable[Row], column: Column) -> list[Key]:
        """The values of `column` in `rows`, without NULL. Raises NotAsDeclared."""
        position = self.positions[column.name]
        found = [row[position] for row in rows if row[position] is not None]
        try:
            list(column.type.encode_all(found) if found else ())
        except TypeError as error:
            raise self._explained([row for row in rows if row[position] is not None]) from error
        return found

    def _explained(self, rows: Iterable[Row]) -> NotAsDeclared:
        """The error for the first value in `rows` that its column's declaration excludes."""
        for row in rows:
            for column, value in zip(self.columns, row):
                try:
                    list(column.type.encode_all([value]))
                except TypeError:
                    return NotAsDeclared(self._told(row[0], column, value))
        raise AssertionError("unreachable: one value was rejected")

    def _told(self, key: object, column: Column, value: object) -> str:
        name = f"{self.name}.{column.name}"
        row = f"the row whose {self.key.name} is {shown(key)}"
        if value is not None:
            return f"{name} holds {shown(value)} in {row}: it is declared as {column.type.noun}"
        return (
            f"{name} is NULL in {row}: every value must be there. Give it one, for example"
            f" UPDATE {self.identifier} SET {column.name} = {column.type.empty} WHERE {column.name}"
            f" IS NULL; {self.told_to_cache}"
        )


HEROES = Table(
    "heroes",
    (
        Column("id", UNSIGNED_KEY),
        Column("hero", STRING),
        Column("power", STRING),
        Column("name", STRING),
        Column("xp", INTEGER),
        Column("color", STRING),
    ),
    auto_key=True,
    lookups=("xp",),
    public=PublicKeys("Hero", "UsingHash:Hero"),
)

PRODUCTS = Table(
    "products",
    (
        Column("ProductId", UNSIGNED_KEY),
        Column("ProductName", STRING),
        Column("Description", STRING),
        Column("QuantityInStock", INTEGER, Counter(minimum=0)),
        Column("Price", INTEGER),
    ),
    auto_key=True,
    public=PublicKeys("Product", "UsingHash:Product"),
)

EMPLOYEES = Table(
    "employees",
    (Column("EmpId", STRING_KEY), Column("EmpName", STRING)),
    public=PublicKeys("Employee", "UsingHash:Employee"),
)

TABLES: Mapping[str, Table] = {table.name: table for table in (HEROES, PRODUCTS, EMPLOYEES)}

# The temporary tables of a load. One that is there hides another table of its name.
TEMPORARY_NAMES = ("ingest_lines", "ingest_rows")
# The service's own tables. No request may name one.
OWN_NAMES = (
    *("cache_generation", "changed_entries", "idempotency", "ingest_log"),
    *("watched", "watched_ranges", "sync_lease", "sync_runs", "sync_ranges", "applied_deltas"),
    *TEMPORARY_NAMES,
)


def tables_with(default_table: str) -> Mapping[str, Table]:
    """The declared tables by name, and `default_table` (DB_TABLE). A default table that is not
    declared has the columns of heroes."""
    if default_table in TABLES:
        return TABLES
    return {**TABLES, default_table: _like_heroes(default_table)}


@lru_cache(maxsize=4)
def _like_heroes(name: str) -> Table:
    # The public keys of a table `Hero` would be those of heroes.
    is_taken = any(table.public and table.public.json == name for table in TABLES.values())
    public = None if is_taken else PublicKeys(name, f"UsingHash:{name}")
    return replace(HEROES, name=name, public=public)
