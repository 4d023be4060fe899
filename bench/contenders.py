"""Who is timed. Each one prepares a call outside the timing; what the call does is what is timed.

ours        the whole Chalice dispatch, `app(event, context)`: from a request's body as text to the
            answer's body as text, validation and JSON included
raw         the limit: plain PyMySQL and redis-py with nothing around them (raw.py)
dogpile     what a careful engineer would take off the shelf (dogpile.py)
template    in the manner of the course template (template.py)
kept        the same with its connections kept
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import redis

from app import app
from bench.events import rest_event
from bench.flows import FLOWS, HIT, INSERT_HEROES, MISS, Flow, Row, fresh_rows
from chalicelib import services
from chalicelib.config import Settings

Call = Callable[[], Any]
Environment = Mapping[str, str]

CACHED_FLOWS = (HIT, MISS, INSERT_HEROES)
KEYS = {"heroes": "id", "products": "ProductId"}


class Contender(ABC):
    """`waits`: slow enough to sit out rounds, so that the others' figures get their time.
    `keeps_order`: a read answers in the order asked. `flows`: those it takes part in.

    Every contender has a Redis database of its own on the same server, so that none finds what
    another has cached; a cluster has only one, where they have different keys.
    """

    name: str
    redis_database: int
    waits = False
    keeps_order = True
    flows: Collection[Flow] = FLOWS

    def __init__(self, environment: Environment, name: str = "") -> None:
        self.name = name or self.name
        self.environment = dict(environment)
        if not is_cluster(environment):
            address = urlsplit(environment["REDIS_URL"])
            self.environment["REDIS_URL"] = f"redis://{address.netloc}/{self.redis_database}"
        self._janitor = redis_client(self.environment)

    def prepare(self, flow: Flow, ids: Sequence[int]) -> Call:
        """The call to time. Empties the cache first where the flow says so."""
        if flow.is_cold:
            self._janitor.flushdb()
        if flow.verb == "read":
            return self.read(ids, flow.use_cache)
        rows = fresh_rows(flow.table, len(ids))
        if flow.verb == "insert":
            return self.insert(flow.table, rows, flow.use_cache)
        return self.replace([{"id": i, **row} for i, row in zip(ids, rows)])

    @abstractmethod
    def read(self, ids: Sequence[int], use_cache: bool) -> Call:
        """Of heroes."""

    @abstractmethod
    def insert(self, table: str, rows: Sequence[Row], use_cache: bool) -> Call: ...

    def replace(self, rows: Sequence[Row]) -> Call:
        """Heroes that exist, with their ids; the cache has them afterwards."""
        raise NotImplementedError

    @abstractmethod
    def rows(self, answer: Any) -> list[Row]:
        """The rows that a read answered with, or raises: for checking, never timed."""

    def check_write(self, flow: Flow, answer: Any, count: int) -> None:
        """Raises when the answer to a write of `count` rows is wrong. Never timed."""
        return

    def close(self) -> None:
        self._janitor.close()


class Ours(Contender):
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

    def check_write(self, flow: Flow, answer: Any, count: int) -> None:
        assert answer["statusCode"] == 200, answer["body"]
        ids = json.loads(answer["body"])["ids"]
        bodies = [self._request("read", flow.table, ids, c)()["body"] for c in (False, True)]
        assert bodies[0] == bodies[1], "a write is read back differently by the cache"
        found = [row[KEYS[flow.table]] for row in json.loads(bodies[0])["body"]]
        assert found == ids, "rows of a write are missing"
        assert len(ids) == count


def is_cluster(environment: Environment) -> bool:
    return environment.get("REDIS_CLUSTER") == "1"


def redis_client(environment: Environment) -> Any:
    """redis-py's client of one server, or of a cluster."""
    url = environment["REDIS_URL"]
    return redis.RedisCluster.from_url(url) if is_cluster(environment) else redis.from_url(url)
