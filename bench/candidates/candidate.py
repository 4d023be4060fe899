"""What every candidate does: it prepares a call outside the timing. Only the call is timed."""

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import redis

from bench.workloads import HIT, INSERT_HEROES, MISS, WORKLOADS, Row, Workload, fresh_rows

Call = Callable[[], Any]
Environment = Mapping[str, str]

CACHED_WORKLOADS = (HIT, MISS, INSERT_HEROES)


class Candidate(ABC):
    """An implementation that is timed.

    `waits`: it is slow and skips rounds, so that the others have time for more.
    `keeps_order`: a read answers in the order asked. `workloads`: the ones it is timed on.

    Each candidate has a Redis database of its own on one server, so that none reads what another
    has cached. A cluster has one database; there the candidates use different Redis keys.
    """

    name: str
    redis_database: int
    waits = False
    keeps_order = True
    workloads: Collection[Workload] = WORKLOADS

    def __init__(self, environment: Environment, name: str = "") -> None:
        self.name = name or self.name
        self.environment = dict(environment)
        if not is_cluster(environment):
            address = urlsplit(environment["REDIS_URL"])
            self.environment["REDIS_URL"] = f"redis://{address.netloc}/{self.redis_database}"
        self._janitor = redis_client(self.environment)

    def prepare(self, workload: Workload, ids: Sequence[int]) -> Call:
        """Returns the call to time. Removes the cache's entries first where the workload says
        so."""
        if workload.is_cold:
            self._remove_entries()
        if workload.verb == "read":
            return self.read(ids, workload.use_cache)
        rows = fresh_rows(workload.table, len(ids))
        if workload.verb == "insert":
            return self.insert(workload.table, rows, workload.use_cache)
        return self.replace([{"id": i, **row} for i, row in zip(ids, rows)])

    def _remove_entries(self) -> None:
        """All but the markers: without one the service takes Redis for another one, which is no
        ordinary miss."""
        found: list[bytes] = self._janitor.keys("*")
        keys = [key for key in found if b":marker:" not in key]
        if keys:
            self._janitor.delete(*keys)

    @abstractmethod
    def read(self, ids: Sequence[int], use_cache: bool) -> Call:
        """Returns a call that reads heroes."""

    @abstractmethod
    def insert(self, table: str, rows: Sequence[Row], use_cache: bool) -> Call: ...

    def replace(self, rows: Sequence[Row]) -> Call:
        """Returns a call that replaces existing heroes, in the database and in the cache. Asked
        only of a candidate whose `workloads` have it."""
        raise TypeError(f"{self.name} replaces no rows")

    def rows(self, answer: Any) -> list[Row]:
        """The rows in the answer to a read. Used to check it, never timed."""
        body: list[Row] = json.loads(answer)["body"]
        return body

    def check_write(self, workload: Workload, answer: Any, count: int) -> None:
        """Raises where the answer to a write of `count` rows is wrong. Never timed."""
        return

    def close(self) -> None:
        self._janitor.close()


def is_cluster(environment: Environment) -> bool:
    return environment.get("REDIS_CLUSTER") == "1"


def redis_client(environment: Environment) -> Any:
    """redis-py's client of one server, or of a cluster."""
    url = environment["REDIS_URL"]
    return redis.RedisCluster.from_url(url) if is_cluster(environment) else redis.from_url(url)
