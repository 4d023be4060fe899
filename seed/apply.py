"""Runs SQL on the database that the settings name, and reports what the service finds there.

`make adopt` runs it in a process of its own, with the settings of a stage. Standard input: a JSON
list of statements; of those that create a table, only the ones whose table is missing are run.
Standard output: the report, a JSON object with one of these:

settings     what is wrong with them
unreached    why no connection was made: from another place there may be one
rejected     why the database, which was reached, cannot be used
unapplied    why the SQL could not be run on it
made, rows, problems, cache
             which tables were made, how many rows the default table has (null: too many to count
             now), how tables differ from their declarations, and how Redis is: true, null (there is
             none), or why it cannot be used from here
"""

import json
import re
import sys
from typing import Any

from chalicelib import services
from chalicelib.db import DatabaseError
from chalicelib.errors import CacheUnavailable, ConfigurationError, HerocacheError
from chalicelib.tables import tables_with

# No connection, or a lost one. All other errors are the server's own words, or about TLS.
_UNREACHED = {2003, 2006, 2013}
_CREATED = re.compile(r"CREATE TABLE IF NOT EXISTS (\w+)")


def report(sql: list[str]) -> dict[str, Any]:
    """What the module says."""
    try:
        container = services.container()
    except ConfigurationError as error:
        return {"settings": str(error)}
    try:
        container.database.check()
    except HerocacheError as error:
        return {"unreached" if _is_lost(error) else "rejected": str(error)}
    try:
        made = _apply(container, sql)
    except HerocacheError as error:
        return {"unapplied": str(error)}
    try:
        problems = container.database.check_tables()
    except HerocacheError as error:
        return {"rejected": str(error)}
    return {
        "made": made,
        "rows": _rows(container),
        "problems": problems,
        "cache": _cache(container),
    }


def _apply(container: services.Container, sql: list[str]) -> list[str]:
    """The tables that were made. A user who may create none can use those that are there."""
    [found] = container.database.run(("SHOW TABLES", ()))
    there = {str(name).lower() for (name,) in found}
    made = []
    for statement in sql:
        created = _CREATED.match(statement)
        if created is None or created[1].lower() not in there:
            container.database.run((statement, ()))
            made += [created[1]] if created else []
    return made


def _is_lost(error: HerocacheError) -> bool:
    cause = error.__cause__
    return isinstance(cause, DatabaseError) and cause.code in _UNREACHED


def _rows(container: services.Container) -> int | None:
    default = container.settings.default_table
    try:
        return container.database.count(tables_with(default)[default])
    except HerocacheError:
        return None


def _cache(container: services.Container) -> bool | str | None:
    if not container.settings.redis_url:
        return None
    try:
        container.cache.probe()
    except CacheUnavailable as error:
        return str(error)
    return True


if __name__ == "__main__":
    json.dump(report(json.load(sys.stdin)), sys.stdout)
