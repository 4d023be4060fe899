"""Who is timed. Each one prepares a call outside the timing; what the call does is what is timed.

ours        the whole Chalice dispatch, `app(event, context)`: from a request's body as text to the
            answer's body as text, validation and JSON included
raw         the limit: the same round trips by PyMySQL and redis-py with nothing around them. Keys,
            statements and the bytes to store are made beforehand; no JSON, no validation
template    in the manner of the course template (template.py)
kept        the same with its connections kept
"""

import json
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import pymysql
import redis

from app import app
from bench.events import rest_event
from chalicelib import handlers

Call = Callable[[], Any]
Hero = dict[str, Any]
"""A row to insert: every column but the id."""

COLUMNS = ("id", "hero", "power", "name", "xp", "color")
TTL_SECONDS = 3600
SELECT = "SELECT id, hero, power, name, xp, color FROM heroes WHERE id "
INSERT = "INSERT INTO heroes (hero, power, name, xp, color) VALUES "
INSERT_VALUES = "(%s, %s, %s, %s, %s)"


class Contender(ABC):
    """`waits`: slow enough to sit out rounds, so that the others' figures get their time.
    `keeps_order`: a read answers in the order asked.

    Every contender has a Redis database of its own on the same server, so that none finds what
    another has cached.
    """

    name: str
    redis_database: int
    waits = False
    keeps_order = True

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.environment = dict(environment)
        address = urlsplit(environment["REDIS_URL"])
        self.environment["REDIS_URL"] = f"redis://{address.netloc}/{self.redis_database}"
        self._janitor = redis.Redis.from_url(self.environment["REDIS_URL"])

    @abstractmethod
    def read(self, ids: Sequence[int], use_cache: bool) -> Call: ...

    @abstractmethod
    def write(self, rows: Sequence[Hero], use_cache: bool) -> Call: ...

    @abstractmethod
    def rows(self, answer: Any) -> list[Hero]:
        """The rows that a read answered with, or raises: for checking, never timed."""

    def check_write(self, answer: Any, count: int) -> None:
        """Raises when the answer to a write of `count` rows is wrong. Never timed."""
        return

    def forget(self) -> None:
        """Drops all it has cached."""
        self._janitor.flushdb()

    def close(self) -> None:
        self._janitor.close()


class Ours(Contender):
    name = "ours"
    redis_database = 1

    def __init__(self, environment: Mapping[str, str]) -> None:
        super().__init__(environment)
        os.environ.update(self.environment)
        handlers.forget_settings()

    def read(self, ids: Sequence[int], use_cache: bool) -> Call:
        return self._request("read", ids, use_cache)

    def write(self, rows: Sequence[Hero], use_cache: bool) -> Call:
        return self._request("write", rows, use_cache)

    def _request(self, request: str, values: Sequence[Any], use_cache: bool) -> Call:
        payload = {"REQUEST": request, "SQLS": list(values), "USE_CACHE": str(use_cache)}
        event = rest_event(json.dumps(payload))
        return lambda: app(event, None)

    def rows(self, answer: Any) -> list[Hero]:
        assert answer["statusCode"] == 200, answer["body"]
        body: list[Hero] = json.loads(answer["body"])["body"]
        return body

    def check_write(self, answer: Any, count: int) -> None:
        assert answer["statusCode"] == 200, answer["body"]
        ids = json.loads(answer["body"])["ids"]
        uncached, cached = self.read(ids, False)(), self.read(ids, True)()
        assert uncached["body"] == cached["body"], "a write is read back differently by the cache"
        assert len(self.rows(cached)) == count, "rows of a write are missing"


class Raw(Contender):
    """`encoded` holds the bytes of every row that will be read, by id."""

    name = "raw"
    redis_database = 2
    keeps_order = False

    def __init__(self, environment: Mapping[str, str], encoded: Mapping[int, bytes]) -> None:
        super().__init__(environment)
        self._encoded = encoded
        self._redis = redis.Redis.from_url(self.environment["REDIS_URL"])
        self._database = connect(environment)

    def read(self, ids: Sequence[int], use_cache: bool) -> Call:
        keys = [f"hero:{i}" for i in ids]
        select = SELECT + "IN (" + ",".join(["%s"] * len(ids)) + ")"
        stored = [(f"hero:{i}", self._encoded[i]) for i in ids]
        if use_cache:
            return lambda: self._cached(keys, select, ids, stored)
        return lambda: self._select(select, ids)

    def _cached(
        self, keys: list[str], select: str, ids: Sequence[int], stored: list[tuple[str, bytes]]
    ) -> Any:
        values: Any = self._redis.mget(keys)
        if None not in values:
            return b",".join(values)
        rows = self._select(select, ids)
        self._set(stored)
        return rows

    def _select(self, select: str, ids: Sequence[int]) -> Any:
        with self._database.cursor() as cursor:
            cursor.execute(select, ids)
            return cursor.fetchall()

    def _set(self, stored: list[tuple[str, bytes]]) -> None:
        pipeline = self._redis.pipeline(transaction=False)
        for key, value in stored:
            pipeline.set(key, value, ex=TTL_SECONDS)
        pipeline.execute()

    def write(self, rows: Sequence[Hero], use_cache: bool) -> Call:
        insert = INSERT + ",".join([INSERT_VALUES] * len(rows))
        flat = [value for row in rows for value in row.values()]
        stored = [(f"new:{i}", encode({"id": i} | row)) for i, row in enumerate(rows)]
        return lambda: self._write(insert, flat, stored if use_cache else None)

    def _write(self, insert: str, flat: list[Any], stored: list[tuple[str, bytes]] | None) -> None:
        with self._database.cursor() as cursor:
            cursor.execute(insert, flat)
        if stored is not None:
            self._set(stored)

    def rows(self, answer: Any) -> list[Hero]:
        if isinstance(answer, bytes):
            cached: list[Hero] = json.loads(b"[" + answer + b"]")
            return cached
        return [dict(zip(COLUMNS, row)) for row in answer]

    def close(self) -> None:
        super().close()
        self._redis.close()
        self._database.close()


def encode(row: Hero) -> bytes:
    return json.dumps(row, ensure_ascii=False, separators=(",", ":")).encode()


def connect(environment: Mapping[str, str], **options: Any) -> Any:
    """A PyMySQL connection without TLS. `options` add to the arguments or take their place."""
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
