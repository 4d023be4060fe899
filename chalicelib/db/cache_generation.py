"""The generation of a table: a row of `cache_generation`, and the statements for it.

A cached entry is believed only under the current generation of its table, and only in the data set
that the generation names: the name of a Redis, a colon, and the incarnation, which is a name for
what that Redis got since the table's cache was switched on: the table's shape, and random
characters.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from chalicelib.db.change_capture import PLACE_TO_MARK, RECORDS
from chalicelib.db.errors import reject_replica
from chalicelib.db.statements import (
    MICROSECONDS_NOW,
    READ_ONLY,
    WAIT_FOR_WRITERS,
    Statement,
    guarded,
)
from chalicelib.tables import Table

# A number never comes back, because rows may still be cached under it: not where the table of
# generations is lost and made again, nor where a restore brings an earlier one back.
# In UTC: local time goes back by an hour once a year.
_NOW = f"{MICROSECONDS_NOW} DIV 1000"
_NEXT = f"GREATEST(generation + 1, {_NOW})"
IS_WATCHED = "EXISTS (SELECT 1 FROM watched WHERE watched.table_name = cache_generation.table_name)"
HAS_CHANGES = (
    f"EXISTS (SELECT 1 FROM {RECORDS} WHERE {RECORDS}.table_name = cache_generation.table_name)"
)
_COLUMNS = (
    "SELECT generation, enabled, server, TIMESTAMPDIFF(SECOND, retired_at, UTC_TIMESTAMP(6)),"
    f" {READ_ONLY}, {MICROSECONDS_NOW}, {IS_WATCHED}"
)
_ROW = f" FROM cache_generation WHERE {PLACE_TO_MARK}table_name = %s"


@dataclass(frozen=True)
class Generation:
    """Entries of a table are believed under this `number` only, and in the data set `server` only.
    While it is not `enabled` none is believed. `age_seconds`: since the last one that was in use
    was retired. `told_at`: when the database was asked for it, in microseconds of its clock;
    `asked_at`: the same or sooner, in monotonic seconds. `is_watched`: whether somebody watches
    rows of the table, as other clients of Redis may see them. `has_changes`: whether changes by
    other clients of the database are left for the sync; a transaction does not ask for that."""

    number: int
    enabled: bool
    server: str
    age_seconds: int
    told_at: int = 0
    asked_at: float = 0
    is_watched: bool = False
    has_changes: bool = False

    @property
    def server_name(self) -> str:
        """The Redis that has the data set; '' where none has it, or where it is of a release that
        knew no incarnations."""
        return self.server.rpartition(":")[0]

    @property
    def incarnation(self) -> str:
        return self.server.rpartition(":")[2]

    def is_of(self, table: Table) -> bool:
        """Whether it names a data set of this declaration of its table, or none. Where it does not,
        another version of the service uses the cache: it may neither store nor fence what this one
        reads."""
        server = self.server
        return not server or server.startswith(table.shape, server.rfind(":") + 1)

    def database_time(self, in_seconds: float) -> int:
        """A time at least `in_seconds` from now, in microseconds of the database's clock."""
        passed = time.monotonic() - self.asked_at
        return self.told_at + math.ceil((passed + in_seconds) * 1_000_000)


class NoGeneration(Exception):
    """The table is new: it has no row yet."""

    def __init__(self, table: Table) -> None:
        super().__init__(table.name)
        self.table = table


def generation_in(table: Table, rows: Sequence[Any], asked_at: float) -> Generation:
    """The generation in the answer to `select` or `hold`, which were sent at `asked_at`, in
    monotonic seconds. Raises NoGeneration; DatabaseError where a replica answered."""
    if not rows:
        raise NoGeneration(table)
    [(number, enabled, server, seconds, is_read_only, now, is_watched, has_changes)] = rows
    reject_replica(is_read_only)
    told = (number, bool(enabled), server, seconds, now, asked_at)
    return Generation(*told, bool(is_watched), bool(has_changes))


def select(table: Table) -> Statement:
    return f"{_COLUMNS}, {HAS_CHANGES}{_ROW}", (table.name,)


def add(table: Table) -> Statement:
    return (
        "INSERT IGNORE INTO cache_generation (table_name, generation, enabled)"
        f" VALUES (%s, {_NOW}, 1)",
        (table.name,),
    )


def hold(table: Table) -> Statement:
    """Hold the generation: nobody changes it before this transaction ends."""
    return f"{_COLUMNS}, 0{_ROW}{WAIT_FOR_WRITERS}", (table.name,)


def guard(table: Table, number: int) -> Statement:
    """The same, with the time at which it began. An error where it is not generation `number`,
    where somebody watches rows of the table, or on a replica, which takes writes of some users."""
    is_good = (
        f"{PLACE_TO_MARK}%s = (SELECT generation FROM cache_generation"
        f" WHERE table_name = %s{WAIT_FOR_WRITERS}) AND NOT {READ_ONLY}"
        " AND NOT EXISTS (SELECT 1 FROM watched WHERE table_name = %s)"
    )
    return f"SELECT {guarded(MICROSECONDS_NOW, is_good)}", (number, table.name, table.name)


def lock(table: Table) -> Statement:
    """Wait for every transaction that holds the generation. `UTC_TIMESTAMP` is the time at which a
    statement began: an UPDATE that waited for the lock itself would write a time before that
    wait."""
    return (
        f"SELECT generation FROM cache_generation WHERE {PLACE_TO_MARK}table_name = %s FOR UPDATE",
        (table.name,),
    )


def switch_off(table: Table) -> Statement:
    """Raise the generation and take the cache out of use."""
    return (
        f"UPDATE cache_generation SET generation = {_NEXT},"
        " retired_at = IF(enabled, UTC_TIMESTAMP(6), retired_at), enabled = 0"
        " WHERE table_name = %s",
        (table.name,),
    )


def switch_on(table: Table, number: int, server: str) -> Statement:
    """Raise generation `number`, where it still is the current one, for the data set `server`."""
    return (
        f"UPDATE cache_generation SET generation = {_NEXT},"
        " retired_at = IF(enabled AND server <> '', UTC_TIMESTAMP(6), retired_at),"
        " enabled = 1, server = %s WHERE table_name = %s AND generation = %s",
        (server, table.name, number),
    )


def raise_number(table: Table) -> Statement:
    """Every entry of the table becomes unreachable; its cache stays in use."""
    return (
        f"UPDATE cache_generation SET generation = {_NEXT},"
        " retired_at = IF(enabled, UTC_TIMESTAMP(6), retired_at) WHERE table_name = %s",
        (table.name,),
    )
