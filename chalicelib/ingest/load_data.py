"""LOAD DATA: many rows into a table in one statement, all or none.

Rows go straight into the table where they are all new, or where REPLACE does no harm (see
`Surroundings`). Otherwise they go into a temporary table, and are merged from there.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple

from chalicelib.db import (
    DatabaseError,
    Statement,
    Transaction,
    change_capture,
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

# Rows of one file, each a list of texts. All have the same length.
Batch = Sequence[Sequence[str]]

# The temporary table for the rows of a file, where REPLACE would harm the real table.
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
    " WHERE event_object_schema = DATABASE() AND event_object_table = %s"
    f" AND LEFT(trigger_name, {len(change_capture.CAPTURING)}) <> '{change_capture.CAPTURING}')"
)


class Surroundings(NamedTuple):
    """What REPLACE may harm, because it deletes a row and inserts another one: how many columns the
    table has, unique indexes besides the primary key, foreign keys that refer to it, and triggers
    that DB_USER may see, but for those that record what other clients change."""

    columns: int
    unique_indexes: int
    references: int
    triggers: int


def load(
    transaction: Transaction, table: Table, columns: Sequence[Column], batches: Iterable[Batch]
) -> None:
    """Load rows, which were checked: each has a text for each of `columns`. One LOAD DATA. Raises
    BadRequest, and whatever `batches` raises."""
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
    """Bring rows with these `columns` into `table`. A row with a key replaces the row that has it;
    of two rows in one file with one key the later one stays. `bring` is called with the name of the
    table to put them in, and with whether to REPLACE. Raises BadRequest."""
    is_keyed = table.key in columns
    is_held = transaction.holds_keys
    with giving_keys(table, is_giving=not is_keyed, is_held=is_held), _rejecting_rows(table):
        if not is_keyed or _may_replace(transaction, table):
            bring(table.identifier, is_keyed)
        else:
            make_temporary_table(transaction, stage(table, columns))
            bring(STAGED, True)
            transaction.run(*merge(table, columns))
    if table.auto_key and not is_keyed:
        _check_given_keys(transaction, table)


def make_temporary_table(transaction: Transaction, statements: Sequence[Statement]) -> None:
    """Raises ConfigurationError where DB_USER has no right to make a temporary table."""
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
    """The rows in the format that LOAD DATA reads by default: a line for each row, with tabs
    between its values. In UTF-8, one chunk for each batch."""
    for batch in batches:
        text = "\n".join(map("\t".join, batch)) + "\n"
        if not _is_plain(text, batch):
            text = "".join(["\t".join(map(_escaped, row)) + "\n" for row in batch])
        yield text.encode()


def load_local(target: str, columns: Sequence[Column], *, replaces: bool) -> Statement:
    """Load what `packed` makes into the table `target`. With `replaces` a row replaces the one that
    has its key."""
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
    """Make the table STAGED with these `columns` of `table`. Its only index is the primary key."""
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
    """Merge the rows of STAGED into `table`. The UPDATE locks and marks the rows that exist. The
    INSERT adds the others. It fails where another transaction has added one of them meanwhile; then
    the whole transaction can run again."""
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
    """Whether REPLACE does no harm to this table. It would empty columns that are not declared,
    delete rows with the same value in another unique index, delete rows that refer to a row, and
    fire triggers of DELETE. One SELECT."""
    [[found]] = transaction.run((_SURROUNDINGS, [table.name] * 4))
    return Surroundings(*found) == Surroundings(len(table.columns), 0, 0, 0)


def _near_keys(
    table: Table, columns: Sequence[Column], batches: Iterable[Batch], highest: int
) -> Iterator[Batch]:
    """The same batches. Raises KeyTooFar before the database sees a key that is too far above the
    highest one: a load uses up keys also where it is undone."""
    position = columns.index(table.key)
    for batch in batches:
        check_distance(table, max(int(texts[position]) for texts in batch), highest)
        yield batch


def _check_given_keys(transaction: Transaction, table: Table) -> None:
    """Raises NoKeyLeft where the database gave a row a key that no request can name: the real
    column may take higher keys than the declared one. One SELECT."""
    if transaction.highest_key(table) > highest_allowed(table.key):
        raise no_key_left(table)


@contextmanager
def _rejecting_rows(table: Table) -> Iterator[None]:
    """Stands around a load of many rows. Raises BadRequest where the database rejects one of them
    for its values: to try again would not help."""
    try:
        yield
    except DatabaseError as error:
        if not is_value_rejected(error):
            raise
        column, reason = rejection(error)
        place = f"{table.name}.{column}" if column in table.positions else table.name
        raise BadRequest(f"{place}: a row of the file is rejected: {reason}") from error


def _is_plain(text: str, batch: Batch) -> bool:
    """Whether no value holds a character that must be escaped."""
    return (
        "\\" not in text
        and text.count("\n") == len(batch)
        and text.count("\t") == len(batch) * (len(batch[0]) - 1)
    )


def _escaped(value: str) -> str:
    return value.translate(_ESCAPES)


def _names(columns: Sequence[Column]) -> str:
    return ",".join(column.name for column in columns)
