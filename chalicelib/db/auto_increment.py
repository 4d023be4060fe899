"""The keys that the database gives to new rows (AUTO_INCREMENT), and their limits."""

from collections.abc import Iterator
from contextlib import contextmanager

from chalicelib.column_types import Integer
from chalicelib.db.errors import DatabaseError, is_key_space_exhausted
from chalicelib.errors import KeyTooFar, NoKeyLeft
from chalicelib.tables import Column, Table

# How far above the highest key the key of a new row may be: a quarter of all keys. The database
# goes on from the highest key, so one wrong key could use up nearly all keys.
MAX_KEY_GAP = 1_000_000_000


def is_high(table: Table, key: int) -> bool:
    """Whether `check_distance` might reject the key."""
    return key > MAX_KEY_GAP or key > highest_allowed(table.key) // 4 * 3


def check_distance(table: Table, key: int, highest: int) -> None:
    """Raises KeyTooFar where a new row with `key` would use up too many keys above the `highest`.
    The last quarter of all keys is kept for rows without a key: else several rows, each far above
    the one before, would use up all of them."""
    last = highest_allowed(table.key) // 4 * 3
    if key > highest + MAX_KEY_GAP:
        where = f"more than {MAX_KEY_GAP} above {highest}, the highest one"
    elif key > max(highest, last):
        where = f"above {last}"
    else:
        return
    raise KeyTooFar(table.name, table.key.name, key, where)


def highest_allowed(column: Column) -> int:
    """The highest key that a request may name."""
    assert isinstance(column.type, Integer), "the database gives no other keys"
    return column.type.maximum


def no_key_left(table: Table) -> NoKeyLeft:
    return NoKeyLeft(table.name, table.key.name, highest_allowed(table.key), table.identifier)


@contextmanager
def giving_keys(table: Table, *, is_giving: bool, is_held: bool) -> Iterator[None]:
    """Stands around an INSERT. `is_giving`: the database gives keys to some rows. `is_held`: a bulk
    insert holds the counter of the keys. Raises NoKeyLeft where it has no key left for them."""
    try:
        yield
    except DatabaseError as error:
        key = table.key
        if not (is_giving and isinstance(key.type, Integer)):
            raise
        if is_key_space_exhausted(error, key.type.maximum, is_held=is_held):
            raise no_key_left(table) from error
        raise
