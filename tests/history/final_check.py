"""Once all is quiet: is every entry of the cache what the table has?

It reads as a client does, until no fence of a dead process is left; a reader settles such a fence
after ten seconds. A read that the database answers proves nothing about the cache, so the second of
two reads must not need the database.
"""

import json
import os
import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import redis

from chalicelib.sync.runs import LEASE_SECONDS
from local.servers import MariaDB
from tests.history.ledger import read_products, read_table
from tests.history.systems import SYSTEMS
from tests.history.verdict import Verdict
from tests.history.worker import SHARED_IDS, XPS, Answer, Invoke
from tests.support.pages import declare

# Ten until a fence counts as a dead writer's, the rest to bring the cache back into use.
SETTLED_WITHIN_SECONDS = 20


def check_entries(
    system: str, environment: Mapping[str, str], mariadb: MariaDB, *, has_runs: bool
) -> Verdict:
    """Asked by a process of its own, which starts with nothing in memory. `has_runs`: the sync was
    in the mix."""
    with ProcessPoolExecutor(1, get_context("spawn")) as process:
        return process.submit(_ask, system, dict(environment), mariadb.home, has_runs).result()


def _ask(system: str, environment: Mapping[str, str], home: Path, has_runs: bool) -> Verdict:
    os.environ.update(environment)
    declare()
    verdict = Verdict()
    invoke = SYSTEMS[system](lambda moment: None)
    _check(invoke, MariaDB(home), verdict)
    if has_runs:
        _check_public_keys(invoke, MariaDB(home), verdict)
    return verdict


def _check_public_keys(invoke: Invoke, mariadb: MariaDB, verdict: Verdict) -> None:
    """After a run of the schedule, which may believe that there is nothing to do. A run that was
    killed leaves its lease behind."""
    deadline = time.monotonic() + LEASE_SECONDS + SETTLED_WITHIN_SECONDS
    while invoke({"table": None}).get("outcome") not in ("done", "idle"):
        if time.monotonic() > deadline:
            verdict.violated("sync never done once quiet", f"within {LEASE_SECONDS} s and more")
            return
        time.sleep(0.5)
    with redis.Redis.from_url(os.environ["REDIS_URL"]) as client:
        for id, value in read_products(mariadb).items():
            row = json.loads(client.get(f"Product:{id}") or "{}")
            shown = client.hget(f"UsingHash:Product:{id}", "QuantityInStock")
            if (row.get("QuantityInStock"), shown) != (value, str(value).encode()):
                what = f"product {id}: {row} and {shown!r}, the table has {value}"
                verdict.violated("public key differs once quiet", what)
            verdict.checked["public keys once quiet"] += 1


def _check(invoke: Invoke, mariadb: MariaDB, verdict: Verdict) -> None:
    table = read_table(mariadb)
    asked = [("id", id) for id in {*SHARED_IDS, *table}] + [("xp", xp) for xp in XPS]
    deadline = time.monotonic() + SETTLED_WITHIN_SECONDS
    while True:
        for by, value in asked:
            rows = {(row["id"], row["xp"], row["name"]) for row in _rows(invoke, by, value)}
            expected = {
                (id, xp, token)
                for id, (xp, token) in table.items()
                if value == (id, xp)[by == "xp"]
            }
            if rows != expected:
                what = f"{by} {value}: the cache has {rows - expected}, not {expected - rows}"
                verdict.violated("entry differs once quiet", what)
        verdict.checked["entries once quiet"] += len(asked)
        xps = {xp for xp, _ in table.values()}
        with_rows = [(by, value) for by, value in asked if value in (xps if by == "xp" else table)]
        start, before = time.monotonic(), _selects(mariadb)
        for by, value in with_rows:
            _rows(invoke, by, value)
        refreshes = time.monotonic() - start + 2  # of the generation, each second
        if _selects(mariadb) - before <= refreshes:
            return
        if time.monotonic() > deadline:
            verdict.violated("cache not in use once quiet", f"after {SETTLED_WITHIN_SECONDS} s")
            return
        time.sleep(0.5)


def _rows(invoke: Invoke, by: str, value: int) -> list[Answer]:
    answer = invoke({"REQUEST": "read", "SQLS": [value], "BY": by, "USE_CACHE": "True"})
    assert answer["statusCode"] == 200, answer
    rows: list[Answer] = answer["body"]
    return rows


def _selects(mariadb: MariaDB) -> int:
    """How many the server has been sent so far."""
    [(_, value)] = mariadb.query("SHOW GLOBAL STATUS LIKE 'Com_select'")
    return int(value)
