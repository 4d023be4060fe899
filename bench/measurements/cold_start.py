"""What the first request of a fresh container costs: imports, and round trips to connect."""

import ast
import os
import socket
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from urllib.parse import urlsplit

import redis

from bench.candidates.raw_drivers import connect
from bench.proxies.count import counting
from local.machine import ROOT

FIRST_CACHED = "app: first read, cached"
FIRST_UNCACHED = "app: first read, USE_CACHE false"
LEAST_OF_DRIVERS = "drivers with every option that saves a round trip"

TIMED_IMPORT = """
import time
started = time.perf_counter()
import {modules}
print(time.perf_counter() - started)
"""

FIRST_REQUEST = """
import json, sys
from app import app
from bench.api_gateway_event import rest_event
answer = app(rest_event(sys.argv[1]), None)
assert answer["statusCode"] == 200, answer["body"]
"""


@dataclass(frozen=True)
class Talk:
    """The round trips and connections of a fresh client, up to its first answer."""

    what: str
    mysql_trips: int
    mysql_connections: int
    redis_trips: int
    redis_connections: int


def third_party_packages() -> list[str]:
    """The packages that app.py and chalicelib/ import at their top. Imports within functions are
    left out."""
    found: set[str] = set()
    for path in (ROOT / "app.py", *sorted((ROOT / "chalicelib").rglob("*.py"))):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Import):
                found.update(alias.name.partition(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module.partition(".")[0])
    return sorted(found - sys.stdlib_module_names - {"chalicelib"})


def import_seconds(rounds: int, environment: Mapping[str, str]) -> dict[str, list[float]]:
    """Seconds to import the app with these settings, and only its packages, by turns in fresh
    processes."""
    imports = {"app": "app", "alone": ", ".join(third_party_packages())}
    samples: dict[str, list[float]] = {name: [] for name in imports}
    for i in range(rounds + 1):
        for name, modules in imports.items():
            seconds = float(
                _fresh_process(TIMED_IMPORT.format(modules=modules), environment=environment)
            )
            if i:  # the first round writes the bytecode
                samples[name].append(seconds)
    return samples


def connection_talks(environment: Mapping[str, str], times: int) -> list[Talk]:
    """The first requests of a cold process, then the least that the drivers and the protocols need.
    Of `times` runs the most frequent result, because Redis may miss a timeout on a busy machine."""
    heard = [_first_requests(environment) for _ in range(times)]
    talks = [statistics.mode(same) for same in zip(*heard)]
    plain: dict[str, Callable[[Mapping[str, str]], object]] = {
        "drivers with their defaults, one SELECT and one MGET": _plain_drivers,
        LEAST_OF_DRIVERS: _spare_drivers,
        "least the protocols allow (greeting, login, SELECT; MGET)": _bare_protocols,
    }
    return talks + [_overheard(what, environment, talk) for what, talk in plain.items()]


def _first_requests(environment: Mapping[str, str]) -> list[Talk]:
    hero = '"SQLS": [1]}'
    requests = {
        "app: first read, not yet cached": '{"REQUEST": "read", ' + hero,
        FIRST_CACHED: '{"REQUEST": "read", ' + hero,
        FIRST_UNCACHED: '{"REQUEST": "read", "USE_CACHE": "False", ' + hero,
    }
    with redis.Redis.from_url(environment["REDIS_URL"]) as cache:
        cache.flushdb()
    return [
        _overheard(what, environment, partial(_first_request, body=body))
        for what, body in requests.items()
    ]


def _overheard(
    what: str, environment: Mapping[str, str], talk: Callable[[Mapping[str, str]], object]
) -> Talk:
    with counting(environment) as (far, mysql, cache):
        talk(far)
        return Talk(
            what, mysql.round_trips, mysql.connections, cache.round_trips, cache.connections
        )


def _first_request(environment: Mapping[str, str], body: str) -> None:
    _fresh_process(FIRST_REQUEST, body, environment=environment)


def _plain_drivers(environment: Mapping[str, str]) -> None:
    with connect(environment) as database, database.cursor() as cursor:
        cursor.execute("SELECT 1")
    with redis.Redis.from_url(environment["REDIS_URL"]) as cache:
        cache.mget(["absent"])


def _spare_drivers(environment: Mapping[str, str]) -> None:
    with connect(environment, autocommit=None) as database, database.cursor() as cursor:
        cursor.execute("SELECT 1")
    url = environment["REDIS_URL"]
    with redis.Redis.from_url(url, protocol=2, driver_info=None) as cache:
        cache.mget(["absent"])


def _bare_protocols(environment: Mapping[str, str]) -> None:
    """PyMySQL without the SET NAMES that it sends after the login; a bare socket to Redis."""
    database = connect(environment, autocommit=None, defer_connect=True)
    database.set_character_set = lambda *_: None
    database.connect()
    with database, database.cursor() as cursor:
        cursor.execute("SELECT 1")
    address = urlsplit(environment["REDIS_URL"])
    with socket.create_connection((str(address.hostname), address.port or 0)) as cache:
        cache.sendall(b"*2\r\n$4\r\nMGET\r\n$6\r\nabsent\r\n")
        cache.recv(64)


def _fresh_process(code: str, *arguments: str, environment: Mapping[str, str] | None = None) -> str:
    finished = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=ROOT,
        env={**os.environ, **(environment or {})},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return finished.stdout
