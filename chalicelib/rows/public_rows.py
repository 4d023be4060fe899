"""Which public keys a write sets at once: those that follow a row which it changed."""

from collections.abc import Sequence

from chalicelib.cache import PublicRow, PublicWrite
from chalicelib.db import Change, Committed
from chalicelib.tables import EVERY_ROW, FORMS, TO_CACHE, Key, Table


def changed_keys(change: Change) -> Sequence[Key]:
    """The keys of the rows that were changed, added or deleted."""
    return list(dict.fromkeys(row[0] for row in (*change.before, *change.after)))


def of_change(table: Table, change: Change, committed: Committed) -> PublicWrite | None:
    """The rows whose public keys follow them. A watch on a row counts more than one on every
    row."""
    if not committed.watched or not table.public:
        return None
    directions = {(key, form): direction for key, form, direction in committed.watched}
    after = {row[0]: row for row in change.after}
    rows = {
        form: [
            PublicRow(key, after.get(key))
            for key in changed_keys(change)
            if directions.get((str(key), form), directions.get((EVERY_ROW, form))) == TO_CACHE
        ]
        for form in FORMS
    }
    is_any = any(rows.values())
    return PublicWrite(rows, committed.read_at, committed.by) if is_any else None
