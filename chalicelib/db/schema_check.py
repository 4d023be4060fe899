"""Compares a table of the database with its declaration when the table is first used.

A table that fits is not compared again, unless a statement fails on it.
"""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence

from chalicelib.db import information_schema
from chalicelib.db.engine import Connection
from chalicelib.db.errors import DatabaseError, missing_table
from chalicelib.db.information_schema import Found
from chalicelib.db.schema import (
    GENERATIONS,
    OTHER_VERSION,
    OWN_TABLES,
    Difference,
    Stops,
    differences,
    may_rewrite,
    missing_added_columns,
    missing_own_tables,
    missing_rights,
    narrowed,
)
from chalicelib.errors import SchemaMismatch
from chalicelib.tables import Table

log = logging.getLogger("herocache.db")


# The columns of each table, by the table's name.
Columns = Mapping[str, Sequence[Found]]


class SchemaCheck:
    """Which tables were compared and fit. Safe for threads."""

    def __init__(self) -> None:
        self._fitting: dict[str, Table] = {}
        self._rewriting: set[str] = set()
        self._stored: dict[str, Table] = {}

    def ensure(self, connection: Connection, table: Table) -> bool:
        """Compare the table, unless it is known to fit. Returns whether triggers may change its
        rows before they are written. One SELECT where it compares. Raises SchemaMismatch."""
        if table.name not in self._fitting:
            found = self.judge(connection, table)
            for difference in differences(table, found):
                log.warning("%s", difference.text)
            self._fitting[table.name] = table
        return table.name in self._rewriting

    def known(self, table: Table) -> Table:
        """As `Database.known`."""
        return self._stored.get(table.name, table)

    def judge(self, connection: Connection, table: Table) -> Sequence[Found]:
        """Compare the table as it is now. Returns its columns. Raises SchemaMismatch where requests
        for it cannot be answered."""
        found = describe(connection, [table.name]).get(table.name, [])
        try:
            _raise_if_stopped(differences(table, found))
        except SchemaMismatch:
            self._fitting.pop(table.name, None)
            self._rewriting.discard(table.name)
            raise
        self._stored[table.name] = narrowed(table, found)
        if may_rewrite(found):
            self._rewriting.add(table.name)
        else:
            self._rewriting.discard(table.name)
        return found

    def misfit(self, error: DatabaseError, find: Callable[[list[str]], Columns]) -> SchemaMismatch:
        """The error for a statement that failed because somebody changed a table, or because one of
        the service's own tables is missing or of an older version. `find` returns the columns as
        they are now."""
        log.warning("the tables are compared again: %s", error.words)
        tables = list(self._fitting.values())
        names = [*[table.name for table in tables], *OWN_TABLES]
        found = find(names)
        texts = [
            difference.text
            for table in tables
            for difference in differences(table, found.get(table.name, ()))
            if difference.stops != Stops.NOTHING
        ]
        texts += [*filter(None, [missing_own_tables(found)]), *missing_added_columns(found)]
        missing = missing_table(error)
        if missing and missing not in names:
            texts.append(
                f"the database has no table {missing}, which a trigger of"
                f" {', '.join(table.name for table in tables)} needs: create it, or drop the"
                " trigger"
            )
        return SchemaMismatch("; ".join(texts) or OTHER_VERSION)


def describe(connection: Connection, names: Sequence[str]) -> Columns:
    """The columns of these tables, without tables that do not exist."""
    tables: dict[str, list[Found]] = {}
    for row in connection.rows(information_schema.describe(names)):
        tables.setdefault(row[0], []).append(Found(*row))
    return tables


def report(default: Table, tables: Iterable[Table], found: Columns) -> list[str]:
    """All differences, in words. Raises SchemaMismatch where requests for the table `default`
    cannot be answered."""
    missing = missing_own_tables(found)
    if GENERATIONS not in found:
        raise SchemaMismatch(missing)
    _raise_if_stopped(differences(default, found.get(default.name, ())))
    others = [d for t in tables for d in differences(t, found.get(t.name, ()))]
    rights = [text for name in OWN_TABLES for text in missing_rights(found.get(name, ()))]
    return [
        *filter(None, [missing]),
        *missing_added_columns(found),
        *rights,
        *[difference.text for difference in others],
    ]


def _raise_if_stopped(found: Iterable[Difference]) -> None:
    """Raises SchemaMismatch with the differences that stop every request, if there are any."""
    texts = [difference.text for difference in found if difference.stops == Stops.EVERYTHING]
    if texts:
        raise SchemaMismatch("; ".join(texts))
