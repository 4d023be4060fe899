"""Write-behind counters: how much of the totals in Redis is in each row already.

A row of the table `applied_deltas` says it. It changes only in a transaction that has the lock on
the table's row. A SELECT of a table with such counters brings it along, as one more column behind
the declared ones, so that row and text are of one moment.
"""

from collections.abc import Mapping

from chalicelib.db.statements import Statement
from chalicelib.tables import Key, Table


def put(table: Table, texts: Mapping[Key, str]) -> list[Statement]:
    """Statements that set it for the rows with these keys."""
    if not texts:
        return []
    marks = ",".join(["(%s, %s, %s)"] * len(texts))
    values = [word for key, text in texts.items() for word in (table.name, str(key), text)]
    return [
        (
            f"INSERT INTO applied_deltas (table_name, row_key, applied) VALUES {marks}"
            " ON DUPLICATE KEY UPDATE applied = VALUES(applied)",
            values,
        )
    ]
