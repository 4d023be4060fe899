"""`make employees`: adds employees with the function `employees`, and prints number and list.

It runs on the servers of this folder, or on a real cluster where DB_CLUSTER_ARN names one: with the
caller's own AWS credentials, through the RDS Data API.
"""

import json
import os
from collections.abc import Mapping

from chalicelib.config import DB_CLUSTER_ARN, DB_ENGINE, DbEngine
from local.commands.invoke import asked_event
from local.home_folder import Home, home_folder, stop
from local.lambda_function.container import Container, InvocationFailed
from local.machine import ROOT
from local.servers import ServerError
from local.settings import read_settings
from local.terminal import say

EXAMPLE = ROOT / "events" / "employees" / "add_many.json"
# The settings that a caller gives for a real cluster.
PREFIXES = ("DB_", "AWS_", "EMPLOYEES_")


def employees() -> int:
    """Adds the employees of EVENT, or of an example. Returns the exit code. Raises ServerError
    with the reason where that fails."""
    event = asked_event() if os.environ.get("EVENT") else json.loads(EXAMPLE.read_text())
    home = Home(home_folder())
    if os.environ.get(DB_CLUSTER_ARN):
        given = {n: value for n, value in os.environ.items() if n.startswith(PREFIXES)}
        tell(added(event, {DB_ENGINE: DbEngine.DATA_API.value, **given}, home))
        return 0
    idle = [server for server in home.servers if server.pid is None]
    try:
        home.up()
        tell(added(event, read_settings(home.env), home))
    finally:
        stop(*reversed(idle))
    return 0


def added(event: object, settings: Mapping[str, str], home: Home) -> object:
    """What the function returns."""
    home.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with home.invoke_log.open("wb") as log:
        container = Container(settings, log)
    try:
        return container.invoke("employees", event)
    except InvocationFailed as error:
        raise ServerError(f"employees failed: {error} (log: {home.invoke_log})") from error
    finally:
        container.kill()


def tell(answer: object) -> None:
    """Prints the number of employees, and each of them."""
    everybody = answer["Employees"] if isinstance(answer, dict) else answer
    assert isinstance(everybody, list)
    for batch in answer["Batches"] if isinstance(answer, dict) else ():
        last = batch["first"] + batch["count"] - 1
        what = "added" if batch["added"] else batch["error"]
        say("batch", f"{batch['first']} to {last}: {what}")
    say("employees", str(len(everybody)))
    for number, name in everybody:
        say(number, name)
