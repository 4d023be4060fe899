"""`make invoke FUNCTION=storage EVENT=events/storage/….json`, and `make invalidate`: one call of a
function of app.py, on the servers of `make run` or `make up`."""

import json
import os
from pathlib import Path
from typing import Any

from chalicelib.tables import HEROES, Integer, Table, tables_with
from local.function import Container, InvocationFailed, read_settings
from local.process import ServerError
from local.services import Services, home_folder, say

FUNCTIONS = ("storage", "api_handler", "ingest")


def invoke() -> int:
    """Print what the function returns as JSON; the exit code. Raises ServerError with the reason
    where there is nothing to run, or it fails."""
    answer = answer_of(asked_function(), asked_event())
    print(json.dumps(answer, ensure_ascii=False, indent=2), flush=True)
    return 0


def invalidate() -> int:
    """The exit code: 1 when the service refuses. Raises ServerError as `invoke` does."""
    default = Services(home_folder()).default_table
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
    """What `function` returns. Raises ServerError, which names the log of the call."""
    services = Services(home_folder())
    if services.mariadb.pid is None:
        alive = [server.title for server in (*services.servers, services.app) if server.pid]
        if not alive:
            raise ServerError(
                "no server is running here to run it on: `make run` or `make up` first"
            )
        raise ServerError(
            f"MariaDB is not running here ({', '.join(alive)}: running): `make up` starts it again"
        )
    with services.invoke_log.open("wb") as log:
        container = Container(read_settings(services.env), log)
    try:
        return container.invoke(function, event)
    except InvocationFailed as error:
        raise ServerError(f"{function} failed: {error} (log: {services.invoke_log})") from error
    finally:
        container.kill()


def asked_function() -> str:
    """FUNCTION of the environment. Raises ServerError when there is no such."""
    name = os.environ.get("FUNCTION") or FUNCTIONS[0]
    if name not in FUNCTIONS:
        raise ServerError(f"FUNCTION={name}: no such function, there are {', '.join(FUNCTIONS)}")
    return name


def asked_event() -> object:
    """What is in the file EVENT of the environment. Raises ServerError when it is no JSON."""
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
    """KEYS of the environment, separated by commas; all rows without one. Raises ServerError for
    one that cannot be a key of `table`."""
    keys = [key.strip() for key in os.environ.get("KEYS", "").split(",") if key.strip()]
    if not isinstance(table.key.type, Integer) or keys == ["*"]:
        return [*keys] or ["*"]
    for key in keys:
        if not (key.isascii() and key.isdigit()):
            raise ServerError(f"KEYS: {table.key.name} is an integer, got {key!r}")
    return [int(key) for key in keys] or ["*"]
