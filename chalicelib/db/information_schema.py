"""Reads from information_schema which columns, triggers and rights the tables have."""

from collections.abc import Sequence
from typing import NamedTuple

from chalicelib.db.change_capture import CAPTURING
from chalicelib.db.statements import Statement
from chalicelib.tables import Table

_SEES_TRIGGERS = (
    "EXISTS (SELECT 1 FROM information_schema.user_privileges WHERE {of_user})"
    " OR EXISTS (SELECT 1 FROM information_schema.schema_privileges WHERE {of_user}"
    " AND DATABASE() LIKE table_schema)"
    " OR EXISTS (SELECT 1 FROM information_schema.table_privileges WHERE {of_user}"
    " AND table_schema = DATABASE() AND table_name = %s)"
).format(
    of_user="privilege_type = 'TRIGGER' AND grantee ="
    " CONCAT(QUOTE(SUBSTRING_INDEX(CURRENT_USER(), '@', 1)), '@',"
    " QUOTE(SUBSTRING_INDEX(CURRENT_USER(), '@', -1)))"
)
# One SELECT for each table, and a subquery for the engine: then MariaDB opens no other table.
_DESCRIBE = (
    "SELECT table_name, column_name, column_type, data_type, is_nullable,"
    " column_default IS NOT NULL, extra, character_maximum_length, character_set_name,"
    " collation_name, column_key, (SELECT engine FROM information_schema.tables"
    " WHERE table_schema = DATABASE() AND table_name = %s),"
    # MariaDB shows a default as SQL has it, MySQL only one that is an expression.
    " IF(LOCATE('MariaDB', VERSION()), column_default, IF(LOCATE('DEFAULT_GENERATED', extra),"
    " CONCAT('(', column_default, ')'), QUOTE(column_default))), QUOTE(column_comment), privileges,"
    " (SELECT COUNT(*) FROM information_schema.triggers WHERE event_object_schema = DATABASE()"
    " AND event_object_table = %s AND action_timing = 'BEFORE'"
    " AND event_manipulation IN ('INSERT', 'UPDATE')),"
    f" {_SEES_TRIGGERS}"
    " FROM information_schema.columns WHERE table_schema = DATABASE() AND table_name = %s"
)
_CAPTURING = (
    "SELECT COALESCE((SELECT GROUP_CONCAT(trigger_name) FROM information_schema.triggers"
    " WHERE event_object_schema = DATABASE() AND event_object_table = %s"
    f" AND LEFT(trigger_name, {len(CAPTURING)}) = '{CAPTURING}'), ''), {_SEES_TRIGGERS}"
)


class Found(NamedTuple):
    """A column as `describe` finds it. `key`: PRI, UNI or MUL where an index begins with it.
    `engine`: None for a view. `default` and `comment` are SQL. `rights`: what DB_USER may do with
    the column. `triggers`: how many triggers of the table may change a row before it is written.
    `sees_triggers`: 0 where DB_USER lacks the right to see triggers."""

    table: str
    name: str
    sql_type: str
    type: str
    is_nullable: str
    has_default: int
    extra: str
    max_characters: int | None
    character_set: str | None
    collation: str | None
    key: str
    engine: str | None
    default: str | None
    comment: str
    rights: str
    triggers: int
    sees_triggers: int


def describe(names: Sequence[str]) -> Statement:
    """The columns of these tables, each as a `Found`."""
    parameters = [name for name in names for _ in range(_DESCRIBE.count("%s"))]
    return " UNION ALL ".join([_DESCRIBE] * len(names)), parameters


def capturing(names: Sequence[str]) -> Statement:
    """Of each of these tables, in this order: the names of its triggers that record what other
    clients change, with commas between; and whether DB_USER may see triggers."""
    parameters = [name for name in names for _ in range(_CAPTURING.count("%s"))]
    return " UNION ALL ".join([_CAPTURING] * len(names)), parameters


def index_columns(table: Table, index: str) -> Statement:
    return (
        "SELECT column_name FROM information_schema.statistics"
        " WHERE table_schema = DATABASE() AND table_name = %s AND index_name = %s",
        (table.name, index),
    )
