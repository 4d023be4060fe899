"""The service's own tables in a database that exists already: made where it can be reached from
here, printed where it cannot.

A process of its own runs the SQL with the app's own settings, connection and words
(`seed/apply.py`).
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping

from infra.adopted_settings import FURTHER, PIECES
from infra.database_schema import statements
from infra.stage_files import ROOT, Json
from infra.terminal import Refused, say

SCHEMA = ROOT / "seed" / "schema.sql"
# It connects once and waits for some seconds; a table of many rows takes some more to be counted.
_PATIENCE_SECONDS = 120
_OURS = ("DB_", "REDIS_", "AWS_LAMBDA_")


def prepare(settings: Mapping[str, str]) -> None:
    """Makes the tables that are missing, and says what the service finds; a table that is there
    stays as it is. Where they cannot be made from here, prints the SQL. Raises Refused where a
    setting is wrong, or the database rejects the settings."""
    found = _report(settings)
    if "settings" in found:
        raise Refused(f"a setting is wrong: {found['settings']}")
    if "rejected" in found:
        raise Refused(found["rejected"])
    table = settings.get("DB_TABLE") or "heroes"
    if "made" in found:
        made = ", ".join(found["made"]) or "none was missing"
        say("database", f"tables made: {made}")
        rows = "many" if found["rows"] is None else found["rows"]
        say("database", f"{table}: {rows} rows, which stay as they are")
        for problem in found["problems"]:
            say("database", f"it works, but {problem}")
        _say_cache(found["cache"])
        return
    why = found.get("unreached") or found["unapplied"]
    say("database", f"the tables cannot be made from here: {why}")
    say(
        "database", "run this SQL where they can be, as a user who may create tables (MySQL client:"
    )
    place = f"-h {settings['DB_HOST']} -P {settings.get('DB_PORT') or 3306}"
    say("", f"mysql {place} -u USER -p {settings['DB_NAME']} < seed/schema.sql):")
    for statement in statements(SCHEMA):
        print(f"{statement};\n", flush=True)
    say("database", f"above: SQL to run, because the tables cannot be made from here: {why}")


def _report(settings: Mapping[str, str]) -> Json:
    """What `seed/apply.py` reports."""
    names = {piece.name for piece in PIECES} | set(FURTHER)
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in names and not name.startswith(_OURS)
    }
    done = subprocess.run(
        [sys.executable, "-m", "seed.apply"],
        cwd=ROOT,
        env={**kept, **settings},
        input=json.dumps(statements(SCHEMA)),
        capture_output=True,
        text=True,
        timeout=_PATIENCE_SECONDS,
        check=False,
    )
    if done.returncode:
        raise Refused(f"python -m seed.apply failed, which is a bug: {done.stderr.strip()}")
    report: Json = json.loads(done.stdout)
    return report


def _say_cache(found: bool | str | None) -> None:
    if found is True:
        say("cache", "Redis answers")
    elif found is not None:
        say("cache", f"not to be used from here: {found}. GET /health/deep asks from the functions")
