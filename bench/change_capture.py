"""`python -m bench.change_capture`: what the triggers that record changes cost, and a drain.

`plain` is another client of the database, `own` a session of the service. With the triggers and
without them take turns, on a table that is made anew for each.
"""

import os
import statistics
import time

from bench.servers.mariadb_and_redis import servers
from chalicelib import services
from chalicelib.db import change_capture
from chalicelib.tables import HEROES
from local.servers import MariaDB
from local.servers.mariadb import integers

ROUNDS = 9
ROWS = 10_000
LOADED_ROWS = 100_000
DRAINED = (5_000, 500_000)

UPDATE = "UPDATE heroes SET color = 'blue', xp = xp + 1 WHERE hero = 'h'"


def fill(rows: int) -> str:
    return f"INSERT INTO heroes SELECT seq, 'h', 'p', 'n', seq, 'red' FROM {integers(1, rows)}"


class Bench:
    def __init__(self, mariadb: MariaDB) -> None:
        self._mariadb = mariadb
        self._connection = mariadb.connect_as_root(ssl_disabled=True)

    def run(self, sql: str) -> float:
        """Returns how many milliseconds it took."""
        began = time.perf_counter()
        with self._connection.cursor() as cursor:
            cursor.execute(sql)
        return (time.perf_counter() - began) * 1000

    def prepare(self, is_recorded: bool, rows: int, is_own: bool = False) -> None:
        """A table with so many rows, and nothing recorded."""
        for name, *_ in self._mariadb.query("SHOW TRIGGERS"):
            self.run(f"DROP TRIGGER {name}")
        for sql in (
            "TRUNCATE heroes",
            "TRUNCATE changed_entries",
            f"SET {change_capture.OWN} = NULL",
        ):
            self.run(sql)
        if rows:
            self.run(fill(rows))
        if is_recorded:
            self._mariadb.apply_triggers([HEROES])
        if is_own:
            self.run(f"SET {change_capture.MARK_OWN}")

    def compare(self, name: str, rows: int, sql: str, is_own: bool) -> None:
        times: dict[bool, list[float]] = {False: [], True: []}
        for _ in range(ROUNDS):
            for is_recorded, found in times.items():
                self.prepare(is_recorded, rows, is_own)
                found.append(self.run(sql))
        without, with_ = (statistics.median(found) for found in times.values())
        print(f"{name:<40} {without:8.1f} ms {with_:8.1f} ms {with_ / without:6.2f}", flush=True)

    def drain(self, changes: int) -> None:
        self.prepare(True, changes)
        self.run(UPDATE)
        services.container().captured_changes.unrecorded(HEROES)  # connect
        began = time.perf_counter()
        services.container().captured_changes.drain(HEROES)
        print(f"drain of {changes:,} changes: {time.perf_counter() - began:.2f} s", flush=True)


def main() -> None:
    with servers() as (_, mariadb, redis):
        os.environ.update({**mariadb.environment(), **redis.environment()})
        bench = Bench(mariadb)
        print(f"{'':<40} {'without':>11} {'with':>11}  ratio")
        bench.compare(f"plain: UPDATE of {ROWS:,} rows", ROWS, UPDATE, False)
        bench.compare(f"own:   UPDATE of {ROWS:,} rows", ROWS, UPDATE, True)
        bench.compare(f"own:   INSERT of {LOADED_ROWS:,} rows", 0, fill(LOADED_ROWS), True)
        for changes in DRAINED:
            bench.drain(changes)


if __name__ == "__main__":
    main()
