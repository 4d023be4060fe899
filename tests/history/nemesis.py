"""What goes wrong: servers, connections and clients fail in turn, at random, and recover.

A database that is silent while Redis is away for a writer alone is the one case the service
documents as given up, so faults of the database keep their distance from those of Redis.
"""

import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pymysql
import redis

from local.servers import MariaDB, Redis
from tests.history.records import now
from tests.history.standbys import REPLICA_FOR_SECONDS, failover, follow, switch_over
from tests.history.stop_points import BEFORE_COMMIT, BEFORE_FILL, BEFORE_PUBLISH, DIE, Orders
from tests.history.traps import COMMIT, FENCE, PUBLISH, RECORDS, Trap
from tests.history.worker_processes import Crew
from tests.support.relay import CUT_AFTER, CUT_BEFORE, HOLD_ANSWER, PASS, Relay

DISTANCE_SECONDS = 2.0
OBEYED_WITHIN_SECONDS = 1.0
SLEEPS = (0.05, 0.3, 1.5, 5.5)
# Seconds by which a piece on the network is late. The service waits 0.1 s for Redis.
DELAYS = (0.03, 0.08, 0.3, 1.5)
TIME_TO_FILL_SECONDS = 0.1
TIME_TO_REPEAT_SECONDS = 0.5
CLIENTS = "SELECT id FROM information_schema.processlist WHERE user = %s"


@dataclass(frozen=True)
class Scene:
    """What can fail. `relay` stands between Redis and some of the workers, `endpoint` between all
    of them and the database."""

    mariadb: MariaDB
    mariadb_standby: MariaDB
    redis: Redis
    redis_standby: Redis
    relay: Relay
    endpoint: Relay
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
        # When the database was killed.
        self.crashes: list[int] = []

    def run(self, kinds: list[str]) -> None:
        """Inject faults of these kinds until the time is over, each once before any comes again;
        then heal all."""
        weights = [WEIGHTS[kind] for kind in kinds]
        first = self._random.sample(kinds, len(kinds))
        while self._left() > 0:
            if kinds:
                kind = first.pop() if first else self._random.choices(kinds, weights)[0]
                self._inject(kind)
            self._rest(self._random.uniform(0.1, 1.2))
        for _, heal in self._later:
            heal()

    def _inject(self, kind: str) -> None:
        if kind.startswith("redis"):
            self._rest(self._database_failed_at + DISTANCE_SECONDS - time.monotonic())
        if self._left() < 1:
            return
        if (FAULTS | EVICTIONS | OF_RUNS)[kind](self):
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

    def redis_flushed_before_a_store(self) -> bool:
        return self._order(BEFORE_FILL, 0.1) and self.redis_flushed()

    def redis_flushed_before_a_commit(self) -> bool:
        """Its fences went before it. Readers have time to store what it is about to change."""
        return self._lose_before_a_commit(self.redis_flushed, PASS)

    def redis_evicts_before_a_commit_whose_answer_is_lost(self) -> bool:
        """Of one that may be sent again."""
        return self._lose_before_a_commit(self.redis_evicts, CUT_AFTER, RECORDS)

    def redis_evicts(self) -> bool:
        """Everything but the markers: a table whose marker is evicted gets a new generation, as
        after a flush."""
        with self._redis() as client:
            for key in client.scan_iter(count=1000):
                if b":marker:" not in key:
                    client.delete(key)
        return True

    def redis_flushed_before_a_publish(self) -> bool:
        def flush() -> int:
            self.redis_flushed()
            return PASS

        return self._trap(self._scene.relay, PUBLISH, flush)

    def redis_late_with_fences(self) -> bool:
        """Of some writers, for a while; others write meanwhile."""
        seconds = self._random.choice(DELAYS)

        def delay(piece: bytes) -> int:
            if FENCE in piece:
                time.sleep(seconds)
            return PASS

        self._scene.relay.judge = delay
        self._rest(1.0)
        self._scene.relay.judge = lambda piece: PASS
        self._rest(seconds)
        return True

    def redis_failed_over_and_back(self) -> bool:
        """To a replica that misses what came last."""
        if self._left() < 3 * REPLICA_FOR_SECONDS:
            return False
        with failover(self._scene.redis, self._scene.redis_standby) as take_over:
            self._rest(self._some_seconds(0.5))
            take_over()
            self._cut_at_times(self._scene.relay)
            self._rest(max(REPLICA_FOR_SECONDS, self._some_seconds(2)))
        self._cut_at_times(self._scene.relay)
        return True

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

    def commit_late(self) -> bool:
        seconds = self._random.choice(DELAYS)

        def delay() -> int:
            time.sleep(seconds)
            return PASS

        return self._trap(self._scene.endpoint, COMMIT, delay, seconds)

    def commit_answered_late(self) -> bool:
        self._scene.endpoint.held_seconds = self._random.choice(DELAYS)
        return self._trap(self._scene.endpoint, COMMIT, lambda: HOLD_ANSWER)

    def commit_lost(self) -> bool:
        return self._trap(self._scene.endpoint, COMMIT, lambda: CUT_BEFORE)

    def commit_answer_lost(self) -> bool:
        return self._trap(self._scene.endpoint, COMMIT, lambda: CUT_AFTER)

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

    def database_switched_over_and_back(self) -> bool:
        """Connections that stand lead to a replica then, which shows older rows; and Redis is
        flushed, so that these are read."""
        writer, standby = self._scene.mariadb, self._scene.mariadb_standby
        for old, new, seconds in ((writer, standby, self._some_seconds(3)), (standby, writer, 0)):
            switch_over(old, new)
            self._scene.endpoint.target = new.port
            self._cut_at_times(self._scene.endpoint)
            self._rest(seconds)
            self.redis_flushed()
            self._rest(TIME_TO_FILL_SECONDS)
            follow(old, new)
        return True

    def lease_expired(self) -> bool:
        """Of a run of the sync, which may have died, or goes on and must be superseded."""
        self._scene.mariadb.query("UPDATE sync_lease SET expires_at = '2000-01-01'")
        return True

    def _cut_at_times(self, relay: Relay) -> None:
        if self._random.random() < 0.5:
            relay.cut()

    def _lose_before_a_commit(
        self, lose: Callable[[], bool], verdict: int, others: Sequence[bytes] = ()
    ) -> bool:
        def spring() -> int:
            lose()
            time.sleep(TIME_TO_FILL_SECONDS)
            return verdict

        seconds = TIME_TO_FILL_SECONDS + TIME_TO_REPEAT_SECONDS * (verdict == CUT_AFTER)
        return self._trap(self._scene.endpoint, COMMIT, spring, seconds, others)

    def _trap(
        self,
        relay: Relay,
        words: bytes,
        spring: Callable[[], int],
        seconds: float = 0.0,
        others: Sequence[bytes] = (),
    ) -> bool:
        """Whether a piece with `words` came, and one of `others` in it where there are any; and
        rest until it passed, `seconds` later."""
        sprung: list[int] = []

        def note() -> int:
            sprung.append(1)
            return spring()

        trap = relay.judge = Trap(words, note, others)
        self._wait_for(lambda: bool(sprung))
        trap.disarm()
        if sprung:
            self._rest(seconds)
        return bool(sprung)

    def _wait_for(self, has_come: Callable[[], bool]) -> None:
        deadline = time.monotonic() + OBEYED_WITHIN_SECONDS
        while not has_come() and time.monotonic() < deadline:
            self._rest(0.005)

    def _sleep(self) -> float:
        return min(self._random.choice(SLEEPS), max(0.0, self._left()))

    def _order(self, moment: int, seconds: float) -> bool:
        """Whether some process came to the moment and obeyed; it is the first that comes to it, or
        at times two come at once."""
        orders, processes = self._scene.orders, range(self._scene.processes)
        before = list(orders.obeyed)
        for process in processes:
            orders.give(process, moment, seconds)
        self._wait_for(lambda: list(orders.obeyed) != before)
        for process in processes:
            orders.withdraw(process)
        return list(orders.obeyed) != before

    def _redis(self) -> "redis.Redis":
        return redis.Redis(host="127.0.0.1", port=self._scene.redis.port)


Fault = Callable[[Nemesis], bool]


def _named(*faults: Fault) -> dict[str, Fault]:
    return {fault.__name__.replace("_", " "): fault for fault in faults}


FAULTS = _named(
    Nemesis.redis_killed,
    Nemesis.redis_hung,
    Nemesis.redis_flushed,
    Nemesis.redis_flushed_before_a_store,
    Nemesis.redis_flushed_before_a_commit,
    Nemesis.redis_flushed_before_a_publish,
    Nemesis.redis_late_with_fences,
    Nemesis.redis_failed_over_and_back,
    Nemesis.redis_connections_cut,
    Nemesis.redis_cut_off_from_some,
    Nemesis.commit_late,
    Nemesis.commit_answered_late,
    Nemesis.commit_lost,
    Nemesis.commit_answer_lost,
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
    Nemesis.database_switched_over_and_back,
)
# For a mix with many runs of the sync.
OF_RUNS = _named(Nemesis.lease_expired)
# Only where an ingredient is missing anyway: no write waits for its publish where Redis evicts
# nothing, and the Redis of these tests is told of no limit to its memory.
EVICTIONS = _named(Nemesis.redis_evicts_before_a_commit_whose_answer_is_lost)
# Redis loses what it had: increments that were not in their row yet, for example.
LOSING = frozenset(
    kind for kind in (*FAULTS, *EVICTIONS) if kind.startswith(("redis killed", "redis flushed"))
) | {"redis failed over and back", "database switched over and back", *EVICTIONS}
# Faults after which the cache is out of use for a second or two are rarer: most time is with it.
_RARE = (
    *("redis killed", "redis hung", "redis cut off from some", "redis late with fences"),
    *("redis failed over and back", "database hung", "database switched over and back"),
)
WEIGHTS = {
    kind: 0.4 if kind == "database killed" else 1.3 if kind in _RARE else 2
    for kind in (*FAULTS, *EVICTIONS, *OF_RUNS)
} | {"lease expired": 8}
