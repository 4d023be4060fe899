"""Changes that other clients of the database make: the triggers that record them, and the records.

A table has a trigger for INSERT, UPDATE and DELETE. It adds a row to `changed_entries` for each row
that is changed, in the same transaction. That record has the values of all entries that show or
showed the row, by column. A session that has set OWN is excused: the service tells the cache of its
own changes itself.
"""

import hashlib
from collections.abc import Collection, Mapping, Sequence

from chalicelib.db.statements import FAILS, Statement
from chalicelib.tables import TABLES, Column, Integer, Key, Table

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

# How many records are finished in one statement, where not each of them was read.
BLOCK = 5_000
# How many records one statement counts.
PAGE = 250_000

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


def blocks(table: Table, is_shown: int, after: int) -> Statement:
    """Records behind the id `after` in blocks: the first id, the last one, and how many there
    are."""
    return (
        f"SELECT MIN(id), MAX(id), COUNT(*) FROM (SELECT id FROM {RECORDS} WHERE table_name = %s"
        f" AND is_shown = %s AND id > %s ORDER BY id LIMIT {PAGE:d}) AS page"
        f" GROUP BY id DIV {BLOCK:d} ORDER BY 1",
        (table.name, is_shown, after),
    )


def finish(ids: Sequence[Key], *, keep: bool) -> Statement:
    """The records with these ids go. With `keep` they only count as shown."""
    return f"{_finish(keep)} id IN ({','.join(['%s'] * len(ids))})", ids


def finish_block(table: Table, is_shown: int, first: Key, last: Key, *, keep: bool) -> Statement:
    """The same, for all between two ids."""
    return (
        f"{_finish(keep)} table_name = %s AND is_shown = %s AND id BETWEEN %s AND %s",
        (table.name, is_shown, first, last),
    )


def guard_count(count: int) -> Statement:
    """An error where the statement before it met another number of rows: somebody committed a
    record between the others meanwhile."""
    return f"SELECT IF(ROW_COUNT() = %s, 1, {FAILS})", (count,)


def _finish(keep: bool) -> str:
    return f"UPDATE {RECORDS} SET is_shown = 1 WHERE" if keep else f"DELETE FROM {RECORDS} WHERE"
