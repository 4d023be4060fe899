"""`python -m local.demo.commit_then_set PORT`: the service that `make demo` compares herocache
with.

It caches the usual way: a read that misses selects the row and stores it; a write commits, then
stores the row. It uses the same drivers, with short timeouts, and ignores Redis errors.
"""

import contextlib
import json
import os
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pymysql
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from local.machine import LOOPBACK

TTL_SECONDS = 3600
TIMEOUT_SECONDS = 0.1
COLUMNS = ("id", "hero", "power", "name", "xp", "color")
SELECT = "SELECT * FROM heroes WHERE id = %s"
REPLACE = f"REPLACE INTO heroes ({', '.join(COLUMNS)}) VALUES %s"

Row = dict[str, Any]


class CommitThenSet:
    """Heroes by id. Each thread keeps a database connection."""

    def __init__(self) -> None:
        self._cache = redis.Redis.from_url(
            os.environ["REDIS_URL"],
            socket_timeout=TIMEOUT_SECONDS,
            socket_connect_timeout=TIMEOUT_SECONDS,
            retry=Retry(NoBackoff(), 0),
        )
        self._local = threading.local()

    def read(self, id: int) -> tuple[Row | None, bool]:
        """The row, and whether the cache had it."""
        stored: Any = None
        with contextlib.suppress(redis.RedisError):
            stored = self._cache.get(f"hero:{id}")
        if stored is not None:
            return json.loads(stored), True
        with self._connection().cursor() as cursor:
            cursor.execute(SELECT, id)
            row = cursor.fetchone()
        if row:
            self._store(row)
        return row, False

    def write(self, rows: list[Row]) -> None:
        with self._connection().cursor() as cursor:
            cursor.executemany(REPLACE, [[[row[name] for name in COLUMNS]] for row in rows])
            cursor.execute("COMMIT")
        for row in rows:
            self._store(row)

    def _store(self, row: Row) -> None:
        with contextlib.suppress(redis.RedisError):
            self._cache.set(f"hero:{row['id']}", json.dumps(row), ex=TTL_SECONDS)

    def _connection(self) -> Any:
        if not hasattr(self._local, "connection"):
            self._local.connection = pymysql.connect(
                host=os.environ["DB_HOST"],
                port=int(os.environ["DB_PORT"]),
                user=os.environ["DB_USER"],
                password=os.environ["DB_PASS"],
                database=os.environ["DB_NAME"],
                cursorclass=pymysql.cursors.DictCursor,
                autocommit=True,
                ssl_disabled=True,
            )
        return self._local.connection


class Handler(BaseHTTPRequestHandler):
    """Answers the requests of the demo's clients, in herocache's contract."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = 65_536
    service: CommitThenSet

    def do_GET(self) -> None:
        self._answer({"status": "ok"})

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if request["REQUEST"] == "write":
            self.service.write(request["SQLS"])
            self._answer({"statusCode": 200, "body": "write success"})
        else:
            found = [self.service.read(id) for id in request["SQLS"]]
            hits = sum(is_hit for _, is_hit in found)
            rows = [row for row, _ in found if row]
            self._answer({"statusCode": 200, "body": rows}, f'detail="{hits} of {len(found)}"')

    def _answer(self, fields: Row, cache_status: str = "") -> None:
        content = json.dumps(fields).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Cache-Status", f"commit-then-SET; {cache_status}")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Logs no line for each request."""


class HttpServer(ThreadingHTTPServer):
    request_queue_size = 128
    daemon_threads = True


if __name__ == "__main__":
    Handler.service = CommitThenSet()
    HttpServer((LOOPBACK, int(sys.argv[1])), Handler).serve_forever()
