"""The keys that the database gives to new rows: AUTO_INCREMENT, and where it ends."""

from collections.abc import Iterator
from contextlib import contextmanager

from chalicelib.db.errors import DatabaseError, is_key_space_exhausted
from chalicelib.errors import KeyTooFar, NoKeyLeft
from chalicelib.tables import Column, Integer, Table

# How far above the highest key a client may put a new row: a quarter of all keys. One slip would
# use up those that the database gives.
MAX_KEY_GAP = 1_000_000_000


def check_distance(table: Table, key: int, highest: int) -> None:
    """Raises KeyTooFar where a row with `key` would use up too many keys above the `highest`."""
    if key > highest + MAX_KEY_GAP:
        raise KeyTooFar(table.name, table.key.name, key, highest, MAX_KEY_GAP)


def highest_allowed(column: Column) -> int:
    """That requests take."""
    assert isinstance(column.type, Integer), "the database gives no other keys"
    return column.type.maximum


def no_key_left(table: Table) -> NoKeyLeft:
    return NoKeyLeft(table.name, table.key.name, highest_allowed(table.key), table.identifier)


@contextmanager
def giving_keys(table: Table, is_giving: bool) -> Iterator[None]:
    """For what inserts rows, some without keys where `is_giving`. Raises NoKeyLeft where the
    database has no key left for them."""
    try:
        yield
    except DatabaseError as error:
        key = table.key
        if not (is_giving and isinstance(key.type, Integer)):
            raise
        if is_key_space_exhausted(error, key.type.maximum):
            raise no_key_left(table) from error
        raise
