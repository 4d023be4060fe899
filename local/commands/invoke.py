"""`make invoke FUNCTION=storage EVENT=events/storage/….json`, and `make invalidate`.

Each calls a function of app.py once, on the servers of `make run` or `make up`.
"""

import json
import os
from pathlib import Path
from typing import Any

from chalicelib.column_types import Integer
from chalicelib.errors import one_line
from chalicelib.tables import HEROES, Table, tables_with
from local.home_folder import Home, home_folder
from local.lambda_function.container import Container, InvocationFailed
from local.servers import ServerError
from local.settings import read_settings
from local.terminal import say

FUNCTIONS = ("storage", "api_handler", "ingest", "employees", "sync", "sync_range")


def invoke() -> int:
    """Prints what the function returns, as JSON. Returns the exit code. Raises ServerError with the
    reason where the function cannot run, or fails."""
    answer = answer_of(asked_function(), asked_event())
    lines = json.dumps(answer, ensure_ascii=False, indent=2).split("\n")
    print("\n".join(map(one_line, lines)), flush=True)
    return 0


def invalidate() -> int:
    """Invalidates cached rows. Returns the exit code. Raises ServerError as `invoke` does, and
    where the service answers with an error."""
    default = Home(home_folder()).default_table
    table = os.environ.get("TABLE") or default
    keys = asked_keys(tables_with(default).get(table, HEROES))
    request = {"REQUEST": "invalidate", "TABLE": table, "SQLS": keys}
    answer = answer_of("storage", request)
    if answer["statusCode"] == 200:
        rows = "every row" if keys == ["*"] else f"{len(keys)} row{'s' if len(keys) > 1 else ''}"
        say(table, f"{rows} invalidated: the next read asks the database")
        return 0
    raise ServerError(f"{answer['body']['error']}: {answer['body']['message']}")


def answer_of(function: str, event: object) -> Any:
    """Returns what `function` returns. Raises ServerError, which names the log of the call."""
    home = Home(home_folder())
    require_servers(home)
    with home.invoke_log.open("wb") as log:
        container = Container(read_settings(home.env), log)
    try:
        return container.invoke(function, event)
    except InvocationFailed as error:
        raise ServerError(f"{function} failed: {error} (log: {home.invoke_log})") from error
    finally:
        container.kill()


def require_servers(home: Home) -> None:
    """Raises ServerError where the database does not run."""
    if home.mariadb.pid is not None:
        return
    alive = [server.title for server in (*home.servers, home.app) if server.pid]
    if not alive:
        raise ServerError("no server is running here to run it on: `make run` or `make up` first")
    raise ServerError(
        f"MariaDB is not running here ({', '.join(alive)}: running): `make up` starts it again"
    )


def asked_function() -> str:
    """FUNCTION of the environment. Raises ServerError where there is no such function."""
    name = os.environ.get("FUNCTION") or FUNCTIONS[0]
    if name not in FUNCTIONS:
        raise ServerError(f"FUNCTION={name}: no such function, there are {', '.join(FUNCTIONS)}")
    return name


def asked_event() -> object:
    """The content of the file EVENT of the environment. Raises ServerError where it is not JSON."""
    name = os.environ.get("EVENT", "")
    if not name:
        example = "FUNCTION=storage EVENT=events/storage/course_by_id_read.json"
        raise ServerError(f"which event? make invoke {example}")
    try:
        return json.loads(Path(name).expanduser().read_text(encoding="utf-8"))
    except OSError as error:
        raise ServerError(f"EVENT={name}: it cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ServerError(f"EVENT={name}: not JSON in UTF-8: {error}") from error


def asked_keys(table: Table) -> list[str | int]:
    """The database keys in KEYS of the environment, separated by commas; ["*"], which is every row,
    where there are none. Raises ServerError for one that cannot be a key of `table`."""
    keys = [key.strip() for key in os.environ.get("KEYS", "").split(",") if key.strip()]
    if not isinstance(table.key.type, Integer) or keys == ["*"]:
        return [*keys] or ["*"]
    for key in keys:
        if not (key.isascii() and key.isdigit()):
            raise ServerError(f"KEYS: {table.key.name} is an integer, got {key!r}")
    return [int(key) for key in keys] or ["*"]
