"""dogpile.cache, the library that a careful engineer would choose.

A miss calls `get_or_create_multi`; a write makes one multi-row INSERT and calls `set_multi`.
PyMySQL and redis-py keep their connections. Locks are the library's default: within the process.
Values are pickled dicts. The batch comes and goes as JSON, without a framework and without
validation.
"""

import json
from collections.abc import Sequence

from dogpile.cache import make_region
from pymysql.cursors import DictCursor

from bench.candidates.candidate import CACHED_WORKLOADS, Call, Candidate, Environment
from bench.candidates.raw_drivers import (
    SELECT,
    TTL_SECONDS,
    connect,
    in_list,
    insert_statement,
    plain_key,
)
from bench.workloads import Row


class Dogpile(Candidate):
    name = "dogpile"
    redis_database = 4
    workloads = CACHED_WORKLOADS

    def __init__(self, environment: Environment, name: str = "") -> None:
        super().__init__(environment, name)
        self._database = connect(environment, cursorclass=DictCursor)
        self._region = make_region().configure(
            "dogpile.cache.redis",
            expiration_time=TTL_SECONDS,
            arguments={
                "url": self.environment["REDIS_URL"],
                "redis_expiration_time": TTL_SECONDS + 60,
            },
        )

    def read(self, ids: Sequence[int], use_cache: bool) -> Call:
        body = json.dumps({"REQUEST": "read", "SQLS": list(ids)})
        return lambda: self._read(body)

    def insert(self, table: str, rows: Sequence[Row], use_cache: bool) -> Call:
        body = json.dumps({"REQUEST": "write", "SQLS": list(rows)})
        return lambda: self._insert(body)

    def _read(self, body: str) -> str:
        keys = [plain_key(i) for i in json.loads(body)["SQLS"]]
        rows = self._region.get_or_create_multi(keys, self._create)
        return json.dumps({"statusCode": 200, "body": rows})

    def _create(self, *keys: str) -> list[Row]:
        ids = [int(key.partition(":")[2]) for key in keys]
        with self._database.cursor() as cursor:
            cursor.execute(SELECT + in_list(len(ids)), ids)
            found = {row["id"]: row for row in cursor.fetchall()}
        return [found[i] for i in ids]

    def _insert(self, body: str) -> str:
        rows = json.loads(body)["SQLS"]
        with self._database.cursor() as cursor:
            flat = [value for row in rows for value in row.values()]
            cursor.execute(insert_statement("heroes", rows), flat)
            ids = range(cursor.lastrowid, cursor.lastrowid + len(rows))
        self._region.set_multi({plain_key(i): {"id": i, **row} for i, row in zip(ids, rows)})
        return json.dumps({"statusCode": 200, "body": "write success", "ids": list(ids)})

    def close(self) -> None:
        super().close()
        self._database.close()
        self._region.actual_backend.writer_client.close()
