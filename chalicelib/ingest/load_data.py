"""LOAD DATA: many rows into a table in one statement, all or none.

Rows go straight into the table where they only add to it, or where REPLACE does nothing but give
rows their new values. Elsewhere they go into a temporary table, and are merged from there.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple

from chalicelib.db import (
    DatabaseError,
    Statement,
    Transaction,
    check_distance,
    giving_keys,
    highest_allowed,
    is_forbidden,
    is_value_rejected,
    no_key_left,
    rejection,
)
from chalicelib.errors import BadRequest, ConfigurationError
from chalicelib.tables import Column, Key, Table

# Rows of one file, each with as many texts.
Batch = Sequence[Sequence[str]]

# A temporary table: a file's rows on their way into a table that REPLACE would harm.
STAGED = "ingest_rows"

_ESCAPES = {ord("\\"): "\\\\", ord("\t"): "\\t", ord("\n"): "\\n"}
_SURROUNDINGS = (
    "SELECT (SELECT COUNT(*) FROM information_schema.columns"
    " WHERE table_schema = DATABASE() AND table_name = %s),"
    " (SELECT COUNT(*) FROM information_schema.statistics"
    " WHERE table_schema = DATABASE() AND table_name = %s"
    " AND non_unique = 0 AND index_name <> 'PRIMARY'),"
    " (SELECT COUNT(*) FROM information_schema.referential_constraints"
    " WHERE unique_constraint_schema = DATABASE() AND referenced_table_name = %s),"
    " (SELECT COUNT(*) FROM information_schema.triggers"
    " WHERE event_object_schema = DATABASE() AND event_object_table = %s)"
)


class Surroundings(NamedTuple):
    """What a table has that REPLACE, which deletes and inserts, may harm: columns, unique indexes
    besides the primary key, foreign keys that refer to it, and triggers that the login may see."""

    columns: int
    unique_indexes: int
    references: int
    triggers: int


def load(
    transaction: Transaction, table: Table, columns: Sequence[Column], batches: Iterable[Batch]
) -> None:
    """Load rows of texts, one for each of `columns`, that these take. One LOAD DATA, as `fill`
    does it. Raises BadRequest, and whatever `batches` raises."""
    transaction.ensure_fit(table)
    if table.auto_key and table.key in columns:
        batches = _near_keys(table, columns, batches, transaction.highest_key(table))

    def bring(target: str, replaces: bool) -> None:
        if transaction.takes_files:
            transaction.load(load_local(target, columns, replaces=replaces), packed(batches))
            return
        for batch in batches:
            transaction.load_rows(partial(insert, target, columns, replaces), batch)

    fill(transaction, table, columns, bring)


def fill(
    transaction: Transaction,
    table: Table,
    columns: Sequence[Column],
    bring: Callable[[str, bool], None],
) -> None:
    """Let `bring` put rows of `columns` into `table`: a row with a key takes the place of the one
    that has it, and of two in one file the later one stays. `bring` is told where to put them, and
    whether to REPLACE. Raises BadRequest."""
    is_keyed = table.key in columns
    with giving_keys(table, not is_keyed), _rejecting_rows(table):
        if not is_keyed or _may_replace(transaction, table):
            bring(table.identifier, is_keyed)
        else:
            make_temporary_table(transaction, stage(table, columns))
            bring(STAGED, True)
            transaction.run(*merge(table, columns))
    if table.auto_key and not is_keyed:
        _check_given_keys(transaction, table)


def make_temporary_table(transaction: Transaction, statements: Sequence[Statement]) -> None:
    """Raises ConfigurationError where the user has no right to make one."""
    try:
        transaction.run(*statements)
    except DatabaseError as error:
        if not is_forbidden(error):
            raise
        raise ConfigurationError(
            "DB_USER: this load needs a temporary table (docs/ingest.md), and the user may not"
            " make one: GRANT CREATE TEMPORARY TABLES ON the database TO the user"
        ) from error


def packed(batches: Iterable[Batch]) -> Iterator[bytes]:
    """The text that LOAD DATA reads by default: a line for each row, tabs between values. A piece
    for each batch, in UTF-8."""
    for batch in batches:
        text = "\n".join(map("\t".join, batch)) + "\n"
        if not _is_plain(text, batch):
            text = "".join(["\t".join(map(_escaped, row)) + "\n" for row in batch])
        yield text.encode()


def load_local(target: str, columns: Sequence[Column], *, replaces: bool) -> Statement:
    """What `packed` makes into the table `target`. A row takes the place of the one that has its
    key where it `replaces`."""
    return (
        f"LOAD DATA LOCAL INFILE 'rows' {'REPLACE ' * replaces}INTO TABLE {target}"
        f" CHARACTER SET utf8mb4 ({_names(columns)})",
        (),
    )


def insert(
    target: str, columns: Sequence[Column], replaces: bool, rows: Sequence[Sequence[Key]]
) -> Statement:
    """What LOAD DATA does, where the engine takes no files. The texts become what the columns
    are."""
    marks = ",".join([f"({','.join(['%s'] * len(columns))})"] * len(rows))
    updates = ",".join(f"{column.name}=VALUES({column.name})" for column in columns)
    return (
        f"INSERT INTO {target} ({_names(columns)}) VALUES {marks}"
        + f" ON DUPLICATE KEY UPDATE {updates}" * replaces,
        [value for row in rows for value in row],
    )


def stage(table: Table, columns: Sequence[Column]) -> list[Statement]:
    """Make STAGED, with the `columns` as `table` has them, and of its indexes the primary key."""
    return [
        (f"DROP TEMPORARY TABLE IF EXISTS {STAGED}", ()),
        (
            f"CREATE TEMPORARY TABLE {STAGED} (ingest_exists TINYINT NOT NULL DEFAULT 0,"
            f" PRIMARY KEY ({table.key.name})) ENGINE = InnoDB"
            f" SELECT {_names(columns)} FROM {table.identifier} LIMIT 0",
            (),
        ),
    ]


def merge(table: Table, columns: Sequence[Column]) -> list[Statement]:
    """The rows of STAGED into `table`. The UPDATE locks and marks those that exist. Where another
    transaction adds one of the others meanwhile, the INSERT fails: it can be done again."""
    key, names = table.key.name, _names(columns)
    updates = "".join(
        f"present.{column.name} = staged.{column.name}, "
        for column in columns
        if column != table.key
    )
    return [
        (
            f"UPDATE {table.identifier} AS present JOIN {STAGED} AS staged"
            f" ON present.{key} = staged.{key} SET {updates}staged.ingest_exists = 1",
            (),
        ),
        (
            f"INSERT INTO {table.identifier} ({names})"
            f" SELECT {names} FROM {STAGED} WHERE NOT ingest_exists ORDER BY {key}",
            (),
        ),
        (f"DROP TEMPORARY TABLE {STAGED}", ()),
    ]


def _may_replace(transaction: Transaction, table: Table) -> bool:
    """Whether REPLACE does nothing but give rows their new values: no column that is not declared
    loses its value, no row goes because of another key, no child goes with its parent, and no
    trigger takes it for a DELETE. One SELECT."""
    [[found]] = transaction.run((_SURROUNDINGS, [table.name] * 4))
    return Surroundings(*found) == Surroundings(len(table.columns), 0, 0, 0)


def _near_keys(
    table: Table, columns: Sequence[Column], batches: Iterable[Batch], highest: int
) -> Iterator[Batch]:
    """The same, each checked before the database sees it: the keys that a load brings are used up
    also where it is undone. Raises KeyTooFar."""
    position = columns.index(table.key)
    for batch in batches:
        check_distance(table, max(int(texts[position]) for texts in batch), highest)
        yield batch


def _check_given_keys(transaction: Transaction, table: Table) -> None:
    """The real column may take higher keys than requests do. Raises NoKeyLeft where it was given
    one of those. One SELECT."""
    if transaction.highest_key(table) > highest_allowed(table.key):
        raise no_key_left(table)


@contextmanager
def _rejecting_rows(table: Table) -> Iterator[None]:
    """For what loads many rows at once. Raises BadRequest where the database rejects one of them
    for its values: trying again would not help."""
    try:
        yield
    except DatabaseError as error:
        if not is_value_rejected(error):
            raise
        column, reason = rejection(error)
        place = f"{table.name}.{column}" if column in table.positions else table.name
        raise BadRequest(f"{place}: a row of the file is refused: {reason}") from error


def _is_plain(text: str, batch: Batch) -> bool:
    """Whether no value holds what would have to be escaped."""
    return (
        "\\" not in text
        and text.count("\n") == len(batch)
        and text.count("\t") == len(batch) * (len(batch[0]) - 1)
    )


def _escaped(value: str) -> str:
    return value.translate(_ESCAPES)


def _names(columns: Sequence[Column]) -> str:
    return ",".join(column.name for column in columns)
