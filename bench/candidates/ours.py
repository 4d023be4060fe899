"""Ours: the whole Chalice dispatch, `app(event, context)`, validation and JSON included.

From the request's body as text to the answer's body as text.
"""

import json
from collections.abc import Sequence
from typing import Any

from app import app
from bench.api_gateway_event import rest_event
from bench.candidates.candidate import Call, Candidate, Environment
from bench.workloads import Row, Workload
from chalicelib import services
from chalicelib.config import Settings

KEYS = {"heroes": "id", "products": "ProductId"}


class Ours(Candidate):
    """Several may be timed in one process: before a call the app is given its own container."""

    name = "ours"
    redis_database = 1

    def __init__(self, environment: Environment, name: str = "") -> None:
        super().__init__(environment, name)
        container = services.Container(Settings.from_environment(self.environment))
        self._made = {"container": lambda: container}

    def read(self, ids: Sequence[int], use_cache: bool) -> Call:
        return self._request("read", "heroes", ids, use_cache)

    def insert(self, table: str, rows: Sequence[Row], use_cache: bool) -> Call:
        return self._request("write", table, rows, use_cache)

    def replace(self, rows: Sequence[Row]) -> Call:
        return self._request("write", "heroes", rows, True)

    def _request(self, request: str, table: str, values: Sequence[Any], use_cache: bool) -> Call:
        payload = {"REQUEST": request, "SQLS": list(values), "USE_CACHE": str(use_cache)}
        event = rest_event(json.dumps(payload | ({} if table == "heroes" else {"TABLE": table})))
        vars(services).update(self._made)
        return lambda: app(event, None)

    def rows(self, answer: Any) -> list[Row]:
        assert answer["statusCode"] == 200, answer["body"]
        body: list[Row] = json.loads(answer["body"])["body"]
        return body

    def check_write(self, workload: Workload, answer: Any, count: int) -> None:
        assert answer["statusCode"] == 200, answer["body"]
        ids = json.loads(answer["body"])["ids"]
        bodies = [self._request("read", workload.table, ids, c)()["body"] for c in (False, True)]
        assert bodies[0] == bodies[1], "a write is read back differently by the cache"
        found = [row[KEYS[workload.table]] for row in json.loads(bodies[0])["body"]]
        assert found == ids, "rows of a write are missing"
        assert len(ids) == count


class OursByDataApi(Ours):
    """On a database of its own, and so on a Redis of its own."""

    redis_database = 6
