"""Write-behind counters: how much of the totals in Redis is in each row already.

A row of the table `applied_deltas` says it. It changes only in a transaction that has the lock on
the table's row. A SELECT of a table with such counters brings it along, as one more column behind
the declared ones, so that row and text are of one moment.

A row in which nothing was counted for a day loses its own text. Then the `floor` of its table holds
for it: a text without sums, under the empty row key. It says that of all totals up to an epoch
nothing counts any more. So totals that come back with an old Redis stay without effect.
"""

from collections.abc import Mapping, Sequence

from chalicelib.db.statements import Statement
from chalicelib.tables import MAX_COUNTED, Key, Table

# In place of a row's key.
FLOOR = ""
# Of one statement. The RDS Data API takes no longer SQL than 65,536 characters.
PUT_ROWS = 1_000


def put(table: Table, texts: Mapping[Key, str]) -> list[Statement]:
    """Statements that set it for the rows with these keys."""
    rows = [(table.name, str(key), text) for key, text in texts.items()]
    return [_put(rows[start : start + PUT_ROWS]) for start in range(0, len(rows), PUT_ROWS)]


def _put(rows: Sequence[tuple[str, ...]]) -> Statement:
    marks = ",".join(["(%s, %s, %s)"] * len(rows))
    return (
        f"INSERT INTO applied_deltas (table_name, row_key, applied) VALUES {marks}"
        " ON DUPLICATE KEY UPDATE applied = VALUES(applied)",
        [word for row in rows for word in row],
    )


def old(table: Table, epoch: int, after: str, limit: int) -> Statement:
    """Row keys, and the texts of these rows, of epochs up to `epoch`; from behind a row key on.
    Epochs have 16 digits, so texts have their order."""
    return (
        "SELECT row_key, applied FROM applied_deltas WHERE table_name = %s AND row_key > %s"
        f" AND applied < %s ORDER BY row_key LIMIT {limit:d}",
        (table.name, after, f"{epoch + 1:016d}"),
    )


def forget(table: Table, texts: Mapping[str, str], epoch: int) -> Sequence[Statement]:
    """Statements, for one transaction, that delete the texts of these row keys, where they are
    still the same, and raise the floor to `epoch`."""
    marks = ",".join(["(%s, %s)"] * len(texts))
    floor = f"{epoch:016d} {MAX_COUNTED}"
    return [
        (
            f"DELETE FROM applied_deltas WHERE table_name = %s AND (row_key, applied) IN ({marks})",
            [table.name, *[word for pair in texts.items() for word in pair]],
        ),
        (
            "INSERT INTO applied_deltas (table_name, row_key, applied) VALUES (%s, %s, %s)"
            " ON DUPLICATE KEY UPDATE applied = GREATEST(applied, VALUES(applied))",
            (table.name, FLOOR, floor),
        ),
    ]
