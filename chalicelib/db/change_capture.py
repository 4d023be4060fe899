"""Changes that other clients of the database make: the triggers that record them, and the records.

A table has a trigger for INSERT, UPDATE and DELETE. It adds a row to `changed_entries` for each row
that is changed, in the same transaction. That record has the values of all entries that show or
showed the row, by column. They record nothing where the session has set OWN: the service tells the
cache of its own changes itself.
"""

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence

from chalicelib.column_types import Integer
from chalicelib.db.statements import Statement
from chalicelib.tables import TABLES, Column, Table

RECORDS = "changed_entries"
# A session of the service sets this variable.
OWN = "@herocache_own"
MARK_OWN = f"{OWN}=1"
# Stands in the condition of each SELECT that a transaction holds the generation with, so before it
# changes rows. To an engine that keeps no session it is the place for MARK_OWN_HERE, which costs no
# statement of its own; to others it is a comment.
PLACE_TO_MARK = "/*own*/"
MARK_OWN_HERE = f"({OWN} := 1) AND "
# The names of these triggers begin so. The rest is a digest of what the trigger does: another
# declaration makes a trigger of another name.
CAPTURING = "captured_"
APPLY_TRIGGERS = (
    "mysql -h $DB_HOST -P $DB_PORT -u $DB_USER -p $DB_NAME < seed/triggers.sql (on AWS: make infra)"
    " makes what is missing"
)

# How many ids of records are read at a time, where the records themselves are too many. An answer
# of the Data API holds so many.
PAGE = 10_000

_SIDES = {"INSERT": ("NEW",), "UPDATE": ("OLD", "NEW"), "DELETE": ("OLD",)}


def triggers(table: Table) -> Mapping[str, str]:
    """The statements that make the table's triggers, by the names of these."""
    found = {}
    for event, sides in _SIDES.items():
        values = ", ".join(
            f"'{column.name}', JSON_ARRAY({', '.join(_value(column, side) for side in sides)})"
            for column in table.readable.values()
        )
        what = (
            f"AFTER {event} ON {table.identifier} FOR EACH ROW\n"
            f"IF {OWN} IS NULL THEN\n"
            f"    INSERT INTO {RECORDS} (table_name, entries, changed_at)\n"
            f"    VALUES ('{table.name}', JSON_OBJECT({values}), UTC_TIMESTAMP(6));\n"
            "END IF"
        )
        name = f"{CAPTURING}{event.lower()}_{hashlib.sha256(what.encode()).hexdigest()[:12]}"
        found[name] = f"CREATE TRIGGER IF NOT EXISTS {name} {what}"
    return found


def _value(column: Column, side: str) -> str:
    """The value as JSON shows it. The trigger must not fail on any value, whatever the column is by
    now: the other client's statement would fail. A text that is longer than requests may name has
    no entry, so it may be cut."""
    name = f"{side}.{column.name}"
    if isinstance(column.type, Integer):
        return f"{name} + 0"  # without the zeros of ZEROFILL, which JSON does not have
    return f"LEFT(CONVERT({name} USING utf8mb4), {column.type.max_characters})"


def script(tables: Collection[Table]) -> str:
    """Makes the triggers of `tables`, for the program mysql."""
    made = [text for table in tables for text in triggers(table).values()]
    return "DELIMITER //\n\n" + "//\n\n".join([*made, "DELIMITER ;\n"])


def unrecorded(table: Table, names: Collection[str], sees_triggers: int) -> str:
    """Why changes by other clients are not recorded, or not as they should be, and what mends that;
    empty where they are. `names`: those of the triggers that DB_USER sees."""
    expected = triggers(table)
    missing = [name for name in expected if name not in names]
    old = [name for name in names if name not in expected]
    if not missing and not old:
        return ""
    if not missing:
        drop = "; ".join(f"DROP TRIGGER {name}" for name in old)
        return (
            f"{table.name}: changes by other clients are also recorded by triggers of an older"
            f" version: {drop}"
        )
    if not sees_triggers:
        return (
            f"{table.name}: nobody can tell whether changes by other clients are recorded: GRANT"
            f" TRIGGER ON {table.identifier} TO the user in DB_USER"
        )
    mend = APPLY_TRIGGERS
    if table.name not in TABLES:
        mend = "\n//\n".join(["DELIMITER //", *[expected[name] for name in missing], ""])
    return (
        f"{table.name}: changes by other clients are not recorded, because triggers are missing:"
        f" {mend}; {table.told_to_cache}"
    )


def pending(table: Table, limit: int, *, shown_too: bool) -> Statement:
    """Records that are left, in any order, with their entries as JSON; `limit` at the most. With
    `shown_too` also those whose entries have left the cache."""
    return (
        f"SELECT id, entries FROM {RECORDS} WHERE table_name = %s"
        + " AND is_shown = 0" * (not shown_too)
        + f" LIMIT {limit:d}",
        (table.name,),
    )


def ids(table: Table, after: int, *, shown_too: bool) -> Statement:
    """The ids of records that are left, behind the id `after`, in order; a page of them."""
    return (
        f"SELECT id FROM {RECORDS} WHERE table_name = %s AND id > %s"
        + " AND is_shown = 0" * (not shown_too)
        + f" ORDER BY id LIMIT {PAGE:d}",
        (table.name, after),
    )


def finish(ids: Sequence[int], *, keep: bool) -> Statement:
    """Delete the records with these ids; with `keep` only mark them as shown. It looks up each id:
    `id IN (...)` scans where it names most records, and waits for each client that has not
    committed its own yet."""
    found = (
        "JSON_TABLE(%s, '$[*]' COLUMNS (id BIGINT UNSIGNED PATH '$')) AS seen"
        f" STRAIGHT_JOIN {RECORDS} AS record ON record.id = seen.id"
    )
    what = f"UPDATE {found} SET is_shown = 1" if keep else f"DELETE record FROM {found}"
    return what, [json.dumps([*ids])]
