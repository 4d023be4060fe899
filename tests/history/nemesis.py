"""What goes wrong: servers, connections and clients fail in turn, at random, and recover.

A database that is silent while Redis is away for a writer alone is the one case the service
documents as given up, so faults of the database keep their distance from those of Redis.
"""

import random
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import pymysql
import redis

from local.servers import MariaDB, Redis
from tests.history.crew import Crew
from tests.history.moments import BEFORE_COMMIT, BEFORE_FILL, BEFORE_PUBLISH, DIE, Orders
from tests.history.records import now
from tests.relay import Relay

DISTANCE_SECONDS = 2.0
OBEYED_WITHIN_SECONDS = 1.0
SLEEPS = (0.05, 0.3, 1.5, 5.5)
CLIENTS = "SELECT id FROM information_schema.processlist WHERE user = %s"


@dataclass(frozen=True)
class Scene:
    """What can fail. `relay` stands between Redis and some of the workers."""

    mariadb: MariaDB
    redis: Redis
    relay: Relay
    crew: Crew
    orders: Orders
    processes: int
    until: float


class Nemesis:
    def __init__(self, scene: Scene, seed: int) -> None:
        self._scene = scene
        self._random = random.Random(seed)
        self._later: list[tuple[float, Callable[[], None]]] = []
        self._database_failed_at = 0.0
        self.injected: Counter[str] = Counter()
        self.crashes: list[int] = []
        """When the database was killed."""

    def run(self, kinds: list[str]) -> None:
        """Inject faults of these kinds until the time is over, then heal all."""
        weights = [WEIGHTS[kind] for kind in kinds]
        while self._left() > 0:
            if kinds:
                [kind] = self._random.choices(kinds, weights)
                self._inject(kind)
            self._rest(self._random.uniform(0.1, 1.2))
        for _, heal in self._later:
            heal()

    def _inject(self, kind: str) -> None:
        if kind.startswith("redis"):
            self._rest(self._database_failed_at + DISTANCE_SECONDS - time.monotonic())
        if self._left() < 1:
            return
        if FAULTS[kind](self):
            self.injected[kind] += 1
        if kind.startswith("database"):
            self._database_failed_at = time.monotonic()

    def _left(self) -> float:
        return self._scene.until - time.monotonic()

    def _rest(self, seconds: float) -> None:
        """Meanwhile dead workers are replaced and hanging ones let go."""
        end = min(time.monotonic() + seconds, self._scene.until)
        while True:
            self._scene.crew.replace_dead()
            due = [entry for entry in self._later if entry[0] <= time.monotonic()]
            for entry in due:
                entry[1]()
                self._later.remove(entry)
            if time.monotonic() >= end:
                return
            time.sleep(0.02)

    def _some_seconds(self, most: float) -> float:
        return min(self._random.choice((0.02, 0.15, 0.5, 1.5, 3.0)), most, max(0.0, self._left()))

    def redis_killed(self) -> bool:
        self._scene.redis.kill()
        self._rest(self._some_seconds(3))
        self._scene.redis.start()
        return True

    def redis_hung(self) -> bool:
        self._scene.redis.pause()
        self._rest(self._some_seconds(3))
        self._scene.redis.resume()
        return True

    def redis_flushed(self) -> bool:
        with self._redis() as client:
            client.flushall()
        return True

    def redis_flushed_within_a_request(self) -> bool:
        """Between the announcement of a write and its commit, or a read and its store."""
        moment = self._random.choice((BEFORE_COMMIT, BEFORE_FILL, BEFORE_PUBLISH))
        return self._order(moment, 0.1) and self.redis_flushed()

    def redis_connections_cut(self) -> bool:
        with self._redis() as client:
            client.execute_command("CLIENT", "KILL", "TYPE", "normal")
        return True

    def redis_cut_off_from_some(self) -> bool:
        self._scene.relay.silence()
        self._rest(self._some_seconds(3))
        if self._random.random() < 0.5:
            self._scene.relay.cut()
        self._scene.relay.end_silence()
        return True

    def worker_killed(self) -> bool:
        self._scene.crew.kill_one(self._random)
        return True

    def worker_hung(self) -> bool:
        resume = self._scene.crew.pause_one(self._random)
        self._later.append((time.monotonic() + self._sleep(), resume))
        return True

    def writer_killed_before_commit(self) -> bool:
        return self._order(BEFORE_COMMIT, DIE)

    def writer_killed_before_publishing(self) -> bool:
        return self._order(BEFORE_PUBLISH, DIE)

    def writer_asleep_before_commit(self) -> bool:
        return self._order(BEFORE_COMMIT, self._sleep())

    def writer_asleep_before_publishing(self) -> bool:
        return self._order(BEFORE_PUBLISH, self._sleep())

    def reader_asleep_before_storing(self) -> bool:
        return self._order(BEFORE_FILL, self._sleep())

    def database_connections_killed(self) -> bool:
        with self._scene.mariadb.connect_as_root() as connection, connection.cursor() as cursor:
            cursor.execute(CLIENTS, [self._scene.mariadb.user])
            for (id,) in cursor.fetchall():
                try:
                    cursor.execute("KILL %s", [id])
                except pymysql.MySQLError:
                    continue  # it has gone by itself
        return True

    def database_hung(self) -> bool:
        self._scene.mariadb.pause()
        self._rest(self._some_seconds(1.5))
        self._scene.mariadb.resume()
        return True

    def database_killed(self) -> bool:
        self._scene.mariadb.kill()
        self.crashes.append(now())
        self._scene.mariadb.start()
        return True

    def _sleep(self) -> float:
        return min(self._random.choice(SLEEPS), max(0.0, self._left()))

    def _order(self, moment: int, seconds: float) -> bool:
        """Whether some process came to the moment and obeyed."""
        process = self._random.randrange(self._scene.processes)
        before = self._scene.orders.obeyed[process]
        self._scene.orders.give(process, moment, seconds)
        deadline = time.monotonic() + OBEYED_WITHIN_SECONDS
        while self._scene.orders.obeyed[process] == before:
            if time.monotonic() > deadline:
                self._scene.orders.withdraw(process)
                return bool(self._scene.orders.obeyed[process] != before)
            self._rest(0.005)
        return True

    def _redis(self) -> "redis.Redis":
        return redis.Redis(host="127.0.0.1", port=self._scene.redis.port)


Fault = Callable[[Nemesis], bool]
FAULTS: Mapping[str, Fault] = {
    fault.__name__.replace("_", " "): fault
    for fault in (
        Nemesis.redis_killed,
        Nemesis.redis_hung,
        Nemesis.redis_flushed,
        Nemesis.redis_flushed_within_a_request,
        Nemesis.redis_connections_cut,
        Nemesis.redis_cut_off_from_some,
        Nemesis.worker_killed,
        Nemesis.worker_hung,
        Nemesis.writer_killed_before_commit,
        Nemesis.writer_killed_before_publishing,
        Nemesis.writer_asleep_before_commit,
        Nemesis.writer_asleep_before_publishing,
        Nemesis.reader_asleep_before_storing,
        Nemesis.database_connections_killed,
        Nemesis.database_hung,
        Nemesis.database_killed,
    )
}
# Faults after which the cache is out of use for a second or two are rarer: most time is with it.
_RARE = ("redis killed", "redis hung", "redis cut off from some", "database hung")
WEIGHTS = {
    kind: 0.4 if kind == "database killed" else 1.3 if kind in _RARE else 2 for kind in FAULTS
}
