"""Asks the servers themselves: for their tables, their entries, and the commands that they were
sent."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import pymysql
import redis

from chalicelib import tables
from chalicelib.cache import keys, new_token
from chalicelib.cache.connection import server_name
from chalicelib.cache.entry_scripts import FENCE, MARK
from local.servers import MariaDB, Redis

TABLES = (
    *(*tables.TABLES, "idempotency"),
    *("watched", "watched_ranges", "sync_lease", "sync_runs", "sync_ranges", "applied_deltas"),
)
# MySQL remembers the `auto_increment` of a table for a day.
FRESH_STATISTICS = "SET autocommit=1 /*!80000 , information_schema_stats_expiry=0 */"
# Which of them have rows, or had some and would give another key than 1.
USED_TABLES = " UNION ".join(
    [
        "SELECT table_name FROM information_schema.tables"
        f" WHERE table_schema = DATABASE() AND auto_increment > 1 AND table_name IN {TABLES}",
        *(f"SELECT '{table}' FROM DUAL WHERE EXISTS (SELECT 1 FROM {table})" for table in TABLES),
    ]
)
ENTRYS = r"*}:[0-9]*:*:*"
# Not counted. These go with other commands, and ask who the server is and whether it is a master.
ASIDE = ("cmdstat_info", "cmdstat_persist")


@dataclass
class Spent:
    """What a piece of work cost, by the servers' own counters."""

    # Statements that clients sent to the database (its status `Questions`).
    statements: int = 0
    database_connections: int = 0
    # How many Redis commands came, by name.
    commands: dict[str, int] = field(default_factory=dict)
    cache_connections: int = 0
    # Pieces of input that Redis read. Commands that are sent together, in a few KB, are one. The
    # end of a connection is none: one that an earlier test left behind may end at any time.
    cache_round_trips: int = 0


class Witness:
    """Its own connections, kept out of what it counts. `close` when done."""

    def __init__(self, mariadb: MariaDB, redis_server: Redis) -> None:
        self._database = mariadb.connect_as_root(init_command=FRESH_STATISTICS)
        self.redis = connect_to_redis(redis_server)
        self.redis_port = redis_server.port
        self._looks = 0

    def close(self) -> None:
        self._database.close()
        self.redis.close()

    def kill_connections(self, user: str) -> int:
        """Those of this user of the database, as far as they do not end by themselves meanwhile.
        How many there were."""
        found = self.query("SELECT id FROM information_schema.processlist WHERE user = %s", [user])
        for (id,) in found:
            with suppress(pymysql.OperationalError):
                self.query("KILL %s", [id])
        return len(found)

    def query(self, sql: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        with self._database.cursor() as cursor:
            cursor.execute(sql, values or None)
            return list(cursor.fetchall())

    def empty(self) -> None:
        """No rows, ids from 1 on, nothing cached; the caches in use on this Redis, and not since a
        moment ago: whatever an earlier test broke."""
        for (table,) in self.query(USED_TABLES):
            self.query(f"TRUNCATE {table}")
        self.redis.flushall()
        self.give_cache_to(self.server)

    def give_cache_to(self, server: str) -> None:
        """The entries of all tables are in use on the Redis of this name; '': on none so far.
        As if it had been so for long: nobody remembers anything else. The generations are ahead of
        the time: so each raise adds one, and can be counted."""
        self.query(
            "UPDATE cache_generation SET generation = GREATEST(generation, UNIX_TIMESTAMP() * 2000)"
            " + 1, enabled = 1, server = '', retired_at = '2000-01-01'"
        )
        for (name,) in self.query("SELECT table_name FROM cache_generation") if server else ():
            self.give_cache_of(tables.tables_with(name)[name], server)

    def give_cache_of(self, table: tables.Table, server: str = "") -> None:
        """The same for a table as it is declared now; without `server` on this Redis."""
        incarnation = table.shape + new_token()[len(table.shape) :]
        self.redis.set(keys.marker(table, 0, incarnation), 0)
        self.query(
            "UPDATE cache_generation SET server = %s WHERE table_name = %s",
            [f"{server or self.server}:{incarnation}", table.name],
        )

    @property
    def server(self) -> str:
        """What the service calls this Redis."""
        return server_name(
            self._info("server", "run_id"), self._info("replication", "master_replid")
        )

    def _info(self, section: str, field: str) -> str:
        found: Any = self.redis.info(section)
        return str(found[field])

    def forget_cached(self) -> None:
        """As if Redis had evicted every entry: the markers stand."""
        if gone := [key for key in self.redis.scan_iter(count=1000) if b":marker:" not in key]:
            self.redis.delete(*gone)

    def count(self, table: str = "heroes") -> int:
        [(count,)] = self.query(f"SELECT COUNT(*) FROM {table}")
        return int(count)

    def generation(self, table: str = "heroes") -> tuple[int, bool, str]:
        """Its number, whether it is in use, and in which data set."""
        [(number, enabled, server)] = self.query(
            "SELECT generation, enabled, server FROM cache_generation WHERE table_name = %s",
            [table],
        )
        return number, bool(enabled), server

    def entries(self) -> dict[bytes, bytes]:
        """The values that are cached; no lease and no fence."""
        keys: Any = list(self.redis.scan_iter(ENTRYS, count=1000))
        values: Any = self.redis.mget(keys) if keys else []
        stored = dict(zip(keys, values))
        return {key: entry for key, entry in stored.items() if entry and not entry.startswith(MARK)}

    def fences(self) -> int:
        """How many entries writers hold."""
        keys: Any = list(self.redis.scan_iter(ENTRYS, count=1000))
        values: Any = self.redis.mget(keys) if keys else []
        return sum(entry.startswith(FENCE) and len(entry) > 19 for entry in values if entry)

    def state(self) -> object:
        """Compares equal as long as no row, no cached value and no generation changed."""
        return self.database_state(), self.entries()

    def database_state(self) -> object:
        """The same without the cache."""
        rows = [self.query(f"SELECT * FROM {table} ORDER BY 1") for table in TABLES]
        return rows, self.query("SELECT * FROM cache_generation ORDER BY 1")

    @contextmanager
    def spent(self) -> Iterator[Spent]:
        """Filled in when the block ends."""
        spent = Spent()
        before_redis = self._count_redis()
        before_sql = self._count_sql()
        yield spent
        after_sql = self._count_sql()
        after_redis = self._count_redis()
        spent.statements = after_sql["Questions"] - before_sql["Questions"] - 1  # our own
        spent.database_connections = after_sql["Connections"] - before_sql["Connections"]
        changed = {name: after_redis[name] - before_redis.get(name, 0) for name in after_redis}
        spent.cache_connections = changed.pop("connections")
        spent.cache_round_trips = changed.pop("reads") - changed.pop("ends")
        spent.commands = {name: calls for name, calls in changed.items() if calls}

    @contextmanager
    def server_has(self, variable: str, value: object) -> Iterator[None]:
        """Within the block a global variable of the server has this value."""
        [(before,)] = self.query(f"SELECT @@GLOBAL.{variable}")
        self.query(f"SET GLOBAL {variable} = %s", [value])
        try:
            yield
        finally:
            self.query(f"SET GLOBAL {variable} = %s", [before])

    @contextmanager
    def logged(self) -> Iterator[list[str]]:
        """Filled, when the block ends, with the statements that others sent."""
        statements: list[str] = []
        self.query("SET GLOBAL log_output = 'TABLE', GLOBAL general_log = ON")
        try:
            self.query("TRUNCATE mysql.general_log")
            yield statements
            statements += [
                text.decode() if isinstance(text, bytes) else text
                for (text,) in self.query(
                    "SELECT argument FROM mysql.general_log"
                    " WHERE command_type = 'Query' AND thread_id <> CONNECTION_ID()"
                )
            ]
        finally:
            self.query("SET GLOBAL general_log = OFF")

    def _count_sql(self) -> dict[str, int]:
        names = ("Questions", "Connections")
        rows = self.query("SHOW GLOBAL STATUS WHERE Variable_name IN %s", [names])
        return {name: int(value) for name, value in rows}

    def _count_redis(self) -> dict[str, int]:
        """Without what this has asked itself, and once Redis reads nothing else: what nobody waits
        for has then been read, and who has hung up is no longer counted as connected."""
        before = self._look_at_redis()
        for _ in range(1000):
            if (now := self._look_at_redis()) == before:
                return now
            before = now
        raise AssertionError("Redis is asked by somebody else all the time.")

    def _look_at_redis(self) -> dict[str, int]:
        self._looks += 1
        info: Any = self.redis.info("everything")
        counts = {
            name.removeprefix("cmdstat_"): int(stats["calls"])
            for name, stats in info.items()
            if name.startswith("cmdstat_") and name not in ASIDE
        }
        counts["connections"] = int(info["total_connections_received"])
        counts["reads"] = int(info["total_reads_processed"]) - self._looks
        counts["ends"] = counts["connections"] - int(info["connected_clients"])
        return counts


def connect_to_redis(server: Redis) -> redis.Redis:
    """Without telling the server which driver it is: to find that out takes 3 ms each time."""
    return redis.Redis(host="127.0.0.1", port=server.port, driver_info=None)
