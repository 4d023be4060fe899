"""`python -m bench.write_behind`: increments of write-behind counters, beside HINCRBY in a script
and beside increments that are written through.

Ours goes through the whole app, as API Gateway's events do. Raw is redis-py with one script: it
answers nothing but the new values, and nobody adds them to a row. Raw that is in range also does
what a client needs that keeps a column's limits: all rows are checked before one is changed. All
take turns.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any, cast

import redis

from app import app
from bench.api_gateway_event import rest_event
from bench.servers.mariadb_and_redis import servers
from chalicelib import tables
from chalicelib.column_types import INTEGER, UNSIGNED_KEY
from chalicelib.tables import Column, Counter, Table
from local.servers.mariadb import integers

PAGES = Table(
    "pages",
    (
        Column("nr", UNSIGNED_KEY),
        Column("views", INTEGER, Counter(write_behind=True)),
        Column("sold", INTEGER, Counter()),
    ),
    auto_key=True,
)
ROWS = 1_000
ROUNDS = 15
ROUND_SECONDS = 0.4
HOT_PROCESSES = 4
HOT_SECONDS = 5.0

HINCRBY = """
local values = {}
for i, key in ipairs(KEYS) do
  values[i] = redis.call('HINCRBY', key, ARGV[1], ARGV[2])
end
return values
"""


IN_RANGE = """
local amount = tonumber(ARGV[2])
for i, key in ipairs(KEYS) do
  local value = tonumber(redis.call('HGET', key, ARGV[1]) or 0) + amount
  if value < -2147483648 or value > 2147483647 then
    return {}
  end
end
"""


def ours(column: str, keys: list[int]) -> Callable[[], object]:
    items = [{"nr": key, column: 1} for key in keys]
    body = json.dumps({"REQUEST": "increment", "TABLE": "pages", "SQLS": items})
    event = rest_event(body)

    def increment() -> None:
        answer: Any = app(event, None)
        assert answer["statusCode"] == 200, answer

    return increment


def raw(client: "redis.Redis", keys: list[int], text: str) -> Callable[[], object]:
    script = client.register_script(text)
    names = [f"page:{key}" for key in keys]
    return lambda: script(keys=names, args=["views", 1])


def rate(call: Callable[[], object], seconds: float) -> float:
    """Calls a second."""
    begun, count = time.perf_counter(), 0
    while (passed := time.perf_counter() - begun) < seconds:
        call()
        count += 1
    return count / passed


def compare(count: int, client: "redis.Redis") -> None:
    keys = list(range(1, count + 1))
    calls = (ours("views", keys), raw(client, keys, HINCRBY), raw(client, keys, IN_RANGE + HINCRBY))
    rates: tuple[list[float], ...] = ([], [], [])
    for _ in range(ROUNDS):
        for call, own in zip(calls, rates):
            own.append(rate(call, ROUND_SECONDS) * count)
    mine, theirs, in_range = (statistics.median(own) for own in rates)
    print(
        f"{f'write-behind, {count} a request':<40} {mine:9,.0f}/s raw {theirs:9,.0f}/s"
        f" {mine / theirs:6.2f} in range {in_range:9,.0f}/s {mine / in_range:6.2f}",
        flush=True,
    )


def hot(column: str, processes: int) -> None:
    """One row, from several processes."""
    command = [sys.executable, "-m", "bench.write_behind", column]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(processes)]
    # Its log goes there too: the rate is the last line.
    rates = [float(child.communicate()[0].splitlines()[-1]) for child in started]
    name = {"views": "write-behind", "sold": "write-through"}[column]
    print(
        f"{f'one hot row, {name}, {processes} processes':<40} {sum(rates):9,.0f}/s",
        flush=True,
    )


def declare() -> None:
    cast(dict[str, Table], tables.TABLES)["pages"] = PAGES


def main() -> None:
    declare()
    if len(sys.argv) > 1:
        call = ours(sys.argv[1], [1])
        rate(call, 0.5)
        print(rate(call, HOT_SECONDS))
        return
    with servers() as (_, mariadb, server):
        os.environ.update({**mariadb.environment(), **server.environment()})
        mariadb.query(
            "CREATE TABLE pages (nr INT UNSIGNED AUTO_INCREMENT PRIMARY KEY, views INT NOT NULL,"
            " sold INT NOT NULL)"
        )
        mariadb.query(f"INSERT INTO pages (views, sold) SELECT 0, 0 FROM {integers(1, ROWS)}")
        client = redis.Redis(port=server.port)
        print(f"load {os.getloadavg()[0]:.1f}", flush=True)
        for count in (1, 10, 100):
            compare(count, client)
        for column in ("sold", "views"):
            for processes in (1, HOT_PROCESSES):
                hot(column, processes)


if __name__ == "__main__":
    main()
