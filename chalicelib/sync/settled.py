"""Settled values: what a run has brought from public keys to their rows, or is about to put there.

A run changes a row or a public key first, and records later what both sides have then. Where it
ends between the two, the next run must not take this work for a change by a client: it would undo
what was written to the row since. So the run leaves the digest of such a value here, in the
transaction that writes the row, and before it sets the public key. Where the value still stands
there, no client has changed it, and the public key follows its row.

They stand in `watched_ranges`, under forms of their own. Each is deleted together with the record
of what both sides have; what a dead run has left, when the next one has looked at the table.
"""

import json
import secrets
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence

from chalicelib.cache import Found
from chalicelib.db import Database, Statement
from chalicelib.sync.public_values import value_digest
from chalicelib.tables import FORMS, TO_DATABASE, Key, Table

# Of each row, by its key: digests of values.
Settled = Mapping[Key, Collection[str]]


def new_name() -> str:
    return secrets.token_hex(8)


def record(
    table: Table, form: str, name: str, values: Iterable[tuple[Key, Found]]
) -> list[Statement]:
    """Statements that record values under public keys, by the keys of their rows. `name`: another
    one each time."""
    digests = [(key, value_digest(found)) for key, found in values if found is not None]
    if not digests:
        return []
    return [
        (
            "INSERT INTO watched_ranges (table_name, form, after_key, direction, seen)"
            " VALUES (%s, %s, %s, %s, %s)",
            (table.name, _form(form), name, TO_DATABASE, json.dumps(digests)),
        )
    ]


def forget(table: Table, form: str, names: Sequence[str]) -> list[Statement]:
    """Statements that delete what was recorded under these names."""
    if not names:
        return []
    return [
        (
            "DELETE FROM watched_ranges WHERE table_name = %s AND form = %s AND after_key IN"
            f" ({','.join(['%s'] * len(names))})",
            (table.name, _form(form), *names),
        )
    ]


def forget_all(table: Table) -> Statement:
    forms = [*map(_form, FORMS)]
    return (
        "DELETE FROM watched_ranges WHERE table_name = %s AND form IN (%s, %s)",
        (table.name, *forms),
    )


def left(database: Database, table: Table) -> Mapping[str, Settled]:
    """What runs that died have left, by form. One SELECT."""
    [rows] = database.run(
        (
            "SELECT form, seen FROM watched_ranges WHERE table_name = %s AND form IN (%s, %s)",
            (table.name, *map(_form, FORMS)),
        )
    )
    found: dict[str, dict[Key, set[str]]] = {form: defaultdict(set) for form in FORMS}
    for form, text in rows:
        for key, digest in json.loads(text):
            found[form.removesuffix("+")][key].add(digest)
    return found


def _form(form: str) -> str:
    return f"{form}+"
