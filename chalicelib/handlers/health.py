"""What `GET /health` reports: whether the service runs, and whether it reaches its servers."""

import time
from collections.abc import Callable
from typing import Any

from chalicelib import __version__, services
from chalicelib.errors import HerocacheError

Report = dict[str, Any]


def alive() -> Report:
    """The report of an app that runs. Asks no server."""
    return {"status": "ok", "version": __version__}


def deep() -> tuple[Report, int]:
    """The report and its HTTP status. Asks the database and Redis. `down`: without the database
    nothing works; `degraded`: without Redis everything works, only slower."""
    container = services.container()
    database = _database()
    cache = _checked(container.cache.probe) if container.settings.redis_url else {"ok": None}
    report = {**alive(), "database": database, "cache": cache}
    if not database["ok"]:
        return {**report, "status": "down"}, 503
    if cache["ok"] is False:
        return {**report, "status": "degraded"}, 200
    return report, 200


def _database() -> Report:
    """The report on the database. `problems`: differences between its tables and their declarations
    with which the service still works. Any other difference is an error. `unrecorded`: tables that
    other clients may change without the cache being told."""
    database = services.container().database
    report = _checked(database.check)
    if not report["ok"]:
        return report
    try:
        problems = database.check_tables()
        unrecorded = database.all_unrecorded()
    except HerocacheError as error:
        return {"ok": False, "error": str(error)}
    found = {"problems": problems, "unrecorded": unrecorded}
    return {**report, **{name: texts for name, texts in found.items() if texts}}


def _checked(check: Callable[[], object]) -> Report:
    start = time.perf_counter()
    try:
        check()
    except HerocacheError as error:
        return {"ok": False, "error": str(error)}
    return {"ok": True, "latency_ms": round((time.perf_counter() - start) * 1000, 3)}
