"""The limit: PyMySQL and redis-py as their manuals show them, with nothing around them.

Redis keys, statements and the bytes to store are made before the timing. There is no JSON, no
validation, and no protection against other readers and writers.

read        MGET; where one is missing SELECT … IN and a pipeline of SETs
insert      one multi-row INSERT, committed by itself, and a pipeline of SETs
replace     BEGIN, SELECT … FOR UPDATE, INSERT … ON DUPLICATE KEY UPDATE, COMMIT, a pipeline of SETs
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pymysql

from bench.candidates.candidate import Call, Candidate, Environment, redis_client
from bench.workloads import Row

COLUMNS = ("id", "hero", "power", "name", "xp", "color")
TTL_SECONDS = 3600
INSERT_HERO = f"INSERT INTO heroes ({', '.join(COLUMNS)}) VALUES (%s, %s, %s, %s, %s, %s)"
SELECT = f"SELECT {', '.join(COLUMNS)} FROM heroes WHERE id "

Stored = list[tuple[str, bytes]]


def plain_key(i: int) -> str:
    return f"hero:{i}"


class Raw(Candidate):
    """`encoded`: the bytes of every row that will be read, by id."""

    name = "raw"
    redis_database = 2
    keeps_order = False

    def __init__(
        self,
        environment: Environment,
        encoded: Mapping[int, bytes],
        name: str = "",
        key: Callable[[int], str] = plain_key,
    ) -> None:
        super().__init__(environment, name)
        self._encoded = encoded
        self._key = key
        self._redis = redis_client(self.environment)
        self._database = connect(environment)

    def read(self, ids: Sequence[int], use_cache: bool) -> Call:
        keys = [self._key(i) for i in ids]
        select = SELECT + in_list(len(ids))
        stored = [(key, self._encoded[i]) for key, i in zip(keys, ids)]
        if use_cache:
            return lambda: self._cached(keys, select, ids, stored)
        return lambda: self._select(select, ids)

    def _cached(self, keys: list[str], select: str, ids: Sequence[int], stored: Stored) -> Any:
        values = self._get(keys)
        if None not in values:
            return b",".join(values)
        rows = self._select(select, ids)
        self._set(stored)
        return rows

    def _get(self, keys: list[str]) -> Any:
        return self._redis.mget(keys)

    def _set(self, stored: Stored) -> None:
        pipeline = self._redis.pipeline(transaction=False)
        for key, value in stored:
            pipeline.set(key, value, ex=TTL_SECONDS)
        pipeline.execute()

    def _select(self, select: str, ids: Sequence[int]) -> Any:
        with self._database.cursor() as cursor:
            cursor.execute(select, ids)
            return cursor.fetchall()

    def insert(self, table: str, rows: Sequence[Row], use_cache: bool) -> Call:
        statement = insert_statement(table, rows)
        flat = [value for row in rows for value in row.values()]
        stored = [(f"new:{i}", encode({"id": i} | row)) for i, row in enumerate(rows)]
        return lambda: self._insert(statement, flat, stored if use_cache else None)

    def _insert(self, statement: str, flat: list[Any], stored: Stored | None) -> None:
        with self._database.cursor() as cursor:
            cursor.execute(statement, flat)
        if stored is not None:
            self._set(stored)

    def replace(self, rows: Sequence[Row]) -> Call:
        ids = [row["id"] for row in rows]
        lock = f"{SELECT}{in_list(len(ids))} FOR UPDATE"
        updates = ", ".join(f"{column} = VALUES({column})" for column in COLUMNS[1:])
        upsert = f"{insert_statement('heroes', rows)} ON DUPLICATE KEY UPDATE {updates}"
        flat = [value for row in rows for value in row.values()]
        stored = [(self._key(row["id"]), encode(row)) for row in rows]
        return lambda: self._replace(lock, ids, upsert, flat, stored)

    def _replace(
        self, lock: str, ids: Sequence[int], upsert: str, flat: list[Any], stored: Stored
    ) -> None:
        self._database.begin()
        with self._database.cursor() as cursor:
            cursor.execute(lock, ids)
            cursor.execute(upsert, flat)
        self._database.commit()
        self._set(stored)

    def rows(self, answer: Any) -> list[Row]:
        if isinstance(answer, bytes):
            cached: list[Row] = json.loads(b"[" + answer + b"]")
            return cached
        return [dict(zip(COLUMNS, row)) for row in answer]

    def close(self) -> None:
        super().close()
        self._redis.close()
        self._database.close()


class RawCluster(Raw):
    """The same by redis-py's RedisCluster. The Redis key that `key` makes chooses the slot."""

    def _get(self, keys: list[str]) -> Any:
        return self._redis.mget_nonatomic(keys)

    def _set(self, stored: Stored) -> None:
        pipeline = self._redis.pipeline()
        for key, value in stored:
            pipeline.set(key, value, ex=TTL_SECONDS)
        pipeline.execute()


def in_list(count: int) -> str:
    return "IN (" + ",".join(["%s"] * count) + ")"


def insert_statement(table: str, rows: Sequence[Row]) -> str:
    """One statement for all rows. They must have the same columns."""
    values = "(" + ", ".join(["%s"] * len(rows[0])) + ")"
    return f"INSERT INTO {table} ({', '.join(rows[0])}) VALUES " + ",".join([values] * len(rows))


def encode(row: Row) -> bytes:
    return json.dumps(row, ensure_ascii=False, separators=(",", ":")).encode()


def connect(environment: Environment, **options: Any) -> Any:
    """A PyMySQL connection without TLS. `options` are added to its arguments, or replace them."""
    arguments: dict[str, Any] = {
        "host": environment["DB_HOST"],
        "port": int(environment["DB_PORT"]),
        "user": environment["DB_USER"],
        "password": environment["DB_PASS"],
        "database": environment["DB_NAME"],
        "charset": "utf8mb4",
        "autocommit": True,
        "ssl_disabled": True,
    }
    return pymysql.connect(**(arguments | options))
