"""What people use today, on the same drivers, tables and timeouts, and as robust as they make it:
connections kept, Redis errors logged and otherwise ignored, old and new lookups dropped.

CommitThenSet: the course template's way; a write commits, then stores the rows.
Dogpile: dogpile.cache with its Redis lock; a write commits, then deletes the keys.
"""

import json
import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Literal

import pymysql
import redis
from dogpile.cache import make_region
from dogpile.cache.api import NO_VALUE
from pymysql.cursors import DictCursor
from redis.backoff import NoBackoff
from redis.retry import Retry

from chalicelib.cache.timeouts import TIMEOUT_SECONDS
from chalicelib.config import Settings
from chalicelib.db.engine import ANSWER_TIMEOUT_SECONDS, LOCK_TIMEOUT_SECONDS
from tests.history.stop_points import BEFORE_COMMIT, BEFORE_FILL, BEFORE_PUBLISH
from tests.history.worker import Answer

By = Literal["id", "xp"]
Rows = list[Answer]
Load = Callable[[list[int]], dict[int, Rows]]

_COLUMNS = ("id", "hero", "power", "name", "xp", "color")
REDIS_OPTIONS: dict[str, Any] = {
    "socket_timeout": TIMEOUT_SECONDS,
    "socket_connect_timeout": TIMEOUT_SECONDS,
    "retry": Retry(NoBackoff(), 0),
}


class Alternative(ABC):
    """Reads with lazy loading, writes in a transaction; how rows are cached is the subclasses'."""

    def __init__(self, reach: Callable[[int], None]) -> None:
        self._reach = reach
        self._settings = Settings.from_environment(os.environ)
        self._local = threading.local()

    @abstractmethod
    def cached(self, by: By, values: list[int], load: Load) -> dict[int, Rows]:
        """The rows of each value that has some; `load` asks the database."""

    @abstractmethod
    def written(self, rows: Rows, deleted: Iterable[int], xps: set[int], store: bool) -> None:
        """After the commit: these rows are new, these ids gone, these lookups changed."""

    def __call__(self, payload: Answer) -> Answer:
        try:
            if payload["REQUEST"] == "read":
                return self._read(payload["BY"], payload["SQLS"], payload["USE_CACHE"] == "True")
            return self._change(payload)
        except (pymysql.OperationalError, pymysql.InterfaceError):
            reading = payload["REQUEST"] == "read"
            error = "DatabaseUnavailable" if reading else "OutcomeUnknown"
            return {"statusCode": 503, "body": {"error": error}}

    def _read(self, by: By, values: list[int], use_cache: bool) -> Answer:
        def load(lacking: list[int]) -> dict[int, Rows]:
            rows = self._select(by, lacking)
            if use_cache:
                self._reach(BEFORE_FILL)
            return {value: rows[value] for value in lacking if rows.get(value)}

        if use_cache:
            try:
                found = self.cached(by, values, load)
            except redis.RedisError:
                found = self._select(by, values)
        else:
            found = load(values)
        body = [row for value in values for row in found.get(value, ())]
        missing = [value for value in values if not found.get(value)]
        return {"statusCode": 200, "body": body, **({"missing": missing} if missing else {})}

    def _select(self, by: By, values: list[int]) -> dict[int, Rows]:
        with self._cursor() as cursor:
            cursor.execute(f"SELECT * FROM heroes WHERE {by} IN %s ORDER BY id", [values])
            rows = list(cursor.fetchall())
        return {value: [row for row in rows if row[by] == value] for value in values}

    def _change(self, payload: Answer) -> Answer:
        items: list[Any] = payload["SQLS"]
        is_write = payload["REQUEST"] == "write"
        keys = sorted(item["id"] for item in items if "id" in item) if is_write else sorted(items)
        with self._cursor() as cursor:
            cursor.execute("SET @operation = %s", [payload.get("IDEMPOTENCY_KEY")])
            cursor.execute("BEGIN")
            before: Rows = []
            if keys:
                cursor.execute("SELECT * FROM heroes WHERE id IN %s FOR UPDATE", [keys])
                before = list(cursor.fetchall())
            if is_write:
                ids = [self._upsert(cursor, row) for row in items]
            elif before:
                cursor.execute("DELETE FROM heroes WHERE id IN %s", [[r["id"] for r in before]])
            self._reach(BEFORE_COMMIT)
            cursor.execute("COMMIT")
        self._reach(BEFORE_PUBLISH)
        existed = {row["id"] for row in before}
        rows = [{"id": id, **row} for id, row in zip(ids, items)] if is_write else []
        xps = {row["xp"] for row in (*before, *rows)}
        with suppress(redis.RedisError):
            self.written(rows, () if is_write else existed, xps, payload.get("USE_CACHE") == "True")
        if is_write:
            return {"statusCode": 200, "body": "write success", "ids": ids}
        deleted = [id for id in items if id in existed]
        return {"statusCode": 200, "body": "delete success", "deleted": deleted}

    def _upsert(self, cursor: Any, row: Answer) -> int:
        names = [name for name in _COLUMNS if name in row]
        updates = ",".join(f"{name}=VALUES({name})" for name in names)
        cursor.execute(
            f"INSERT INTO heroes ({','.join(names)}) VALUES %s ON DUPLICATE KEY UPDATE {updates}",
            [[row[name] for name in names]],
        )
        return int(row.get("id") or cursor.lastrowid)

    @contextmanager
    def _cursor(self) -> Iterator[Any]:
        """Of a kept connection, one a thread; after a failure of a new one."""
        connection = getattr(self._local, "connection", None) or self._connect()
        self._local.connection = None
        try:
            with connection.cursor() as cursor:
                yield cursor
        except BaseException:
            connection.close()
            raise
        self._local.connection = connection

    def _connect(self) -> Any:
        connection = pymysql.connect(
            host=self._settings.db_host,
            port=self._settings.db_port,
            user=self._settings.db_user,
            password=self._settings.db_pass,
            database=self._settings.db_name,
            charset="utf8mb4",
            autocommit=True,
            cursorclass=DictCursor,
            init_command=f"SET innodb_lock_wait_timeout={LOCK_TIMEOUT_SECONDS}",
            read_timeout=ANSWER_TIMEOUT_SECONDS,
            write_timeout=ANSWER_TIMEOUT_SECONDS,
            ssl_disabled=True,
        )
        with connection.cursor() as cursor:
            cursor.execute("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED")
        return connection


class CommitThenSet(Alternative):
    """A key per row and per lookup; a read that misses one selects and stores it."""

    def __init__(self, reach: Callable[[int], None]) -> None:
        super().__init__(reach)
        self._redis = redis.Redis.from_url(self._settings.redis_url, **REDIS_OPTIONS)

    def cached(self, by: By, values: list[int], load: Load) -> dict[int, Rows]:
        found = {}
        for value in values:
            stored: Any = self._redis.get(f"{by}:{value}")
            found[value] = json.loads(stored) if stored else load([value]).get(value, [])
            if not stored and found[value]:
                self._store(by, value, found[value])
        return found

    def written(self, rows: Rows, deleted: Iterable[int], xps: set[int], store: bool) -> None:
        for row in rows:
            if store:
                self._store("id", row["id"], [row])
            else:
                self._redis.delete(f"id:{row['id']}")
        for key in [*(f"id:{id}" for id in deleted), *(f"xp:{xp}" for xp in xps)]:
            self._redis.delete(key)

    def _store(self, by: By, value: int, rows: Rows) -> None:
        self._redis.set(f"{by}:{value}", json.dumps(rows), ex=self._settings.ttl_seconds)


class Dogpile(Alternative):
    """`get_or_create_multi`, which lets one process create a value while the others wait."""

    def __init__(self, reach: Callable[[int], None]) -> None:
        super().__init__(reach)
        self._region = make_region().configure(
            "dogpile.cache.redis",
            expiration_time=self._settings.ttl_seconds,
            arguments={
                "url": self._settings.redis_url,
                "distributed_lock": True,
                "thread_local_lock": False,
                "lock_timeout": 5,
                "redis_expiration_time": self._settings.ttl_seconds + 60,
                "connection_kwargs": REDIS_OPTIONS,
            },
        )

    def cached(self, by: By, values: list[int], load: Load) -> dict[int, Rows]:
        def create(*keys: str) -> list[Any]:
            lacking = [int(key.partition(":")[2]) for key in keys]
            loaded = load(lacking)
            return [loaded.get(value, NO_VALUE) for value in lacking]

        keys = [f"{by}:{value}" for value in values]
        rows = self._region.get_or_create_multi(keys, create)
        return {value: found for value, found in zip(values, rows) if found is not NO_VALUE}

    def written(self, rows: Rows, deleted: Iterable[int], xps: set[int], store: bool) -> None:
        ids = {*deleted, *(row["id"] for row in rows)}
        keys = [*(f"id:{id}" for id in ids), *(f"xp:{xp}" for xp in xps)]
        self._region.delete_multi(keys)
