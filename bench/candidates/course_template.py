"""The baseline: what the course template does, and the same with kept connections.

Each request opens a connection to each server, each id takes a query or a command, each row a
commit. Each row is encoded as JSON, then the whole answer. TLS is off: PyMySQL would take 20 ms to
make a TLS context for each connection.
"""

import contextlib
import json
from collections.abc import Iterator, Sequence
from typing import Any

import redis
from pymysql.cursors import DictCursor

from bench.candidates.candidate import CACHED_WORKLOADS, Call, Candidate, Environment
from bench.candidates.raw_drivers import SELECT, TTL_SECONDS, connect, insert_statement
from bench.workloads import INSERT_UNCACHED, UNCACHED, Row


class Template(Candidate):
    name = "template"
    redis_database = 0
    waits = True
    workloads = (*CACHED_WORKLOADS, UNCACHED, INSERT_UNCACHED)

    def read(self, ids: Sequence[int], use_cache: bool) -> Call:
        body = json.dumps({"REQUEST": "read", "SQLS": list(ids)})
        return lambda: self._read(body, use_cache)

    def insert(self, table: str, rows: Sequence[Row], use_cache: bool) -> Call:
        body = json.dumps({"REQUEST": "write", "SQLS": list(rows)})
        return lambda: self._insert(body, use_cache)

    def _read(self, body: str, use_cache: bool) -> str:
        found = []
        with self._connections() as (database, cache):
            for i in json.loads(body)["SQLS"]:
                cached = cache.get(str(i)) if use_cache else None
                if cached is not None:
                    found.append(json.loads(cached))
                    continue
                with database.cursor() as cursor:
                    cursor.execute(SELECT + "= %s", (i,))
                    row = cursor.fetchone()
                if use_cache:
                    cache.set(str(i), json.dumps(row), ex=TTL_SECONDS)
                found.append(row)
        return json.dumps({"statusCode": 200, "body": found})

    def _insert(self, body: str, use_cache: bool) -> str:
        with self._connections() as (database, cache):
            for row in json.loads(body)["SQLS"]:
                with database.cursor() as cursor:
                    cursor.execute(insert_statement("heroes", [row]), list(row.values()))
                    new_id = cursor.lastrowid
                database.commit()
                if use_cache:
                    cache.set(str(new_id), json.dumps({"id": new_id} | row), ex=TTL_SECONDS)
        return json.dumps({"statusCode": 200, "body": "write success"})

    @contextlib.contextmanager
    def _connections(self) -> Iterator[tuple[Any, redis.Redis]]:
        database = connect(self.environment, autocommit=False, cursorclass=DictCursor)
        cache = redis.Redis.from_url(self.environment["REDIS_URL"])
        yield database, cache
        database.close()
        cache.close()


class Kept(Template):
    name = "kept"
    redis_database = 3

    def __init__(self, environment: Environment, name: str = "") -> None:
        super().__init__(environment, name)
        self._stack = contextlib.ExitStack()
        self._kept = self._stack.enter_context(super()._connections())

    @contextlib.contextmanager
    def _connections(self) -> Iterator[tuple[Any, redis.Redis]]:
        yield self._kept
        self._kept[0].rollback()  # or a kept connection would read from its first snapshot forever

    def close(self) -> None:
        super().close()
        self._stack.close()
