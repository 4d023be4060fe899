"""The two servers of one home folder (`.local/`, or HEROCACHE_HOME): up and filled, down, removed.

`make up`, `make down` and `make clean` end here; `make run` begins and ends here.
"""

import contextlib
import csv
import fcntl
import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from local.app import App
from local.process import ROOT, Server, write_private
from local.servers import MariaDB, Redis

# Each with its columns, in the order of seed/<table>.csv.
SEEDED_TABLES = {
    "heroes": "id, hero, power, name, xp, color",
    "products": "ProductId, ProductName, Description, QuantityInStock, Price",
    "employees": "EmpId, EmpName",
}
CACHES = (".pytest_cache", ".mypy_cache", ".ruff_cache", ".hypothesis")


def home_folder() -> Path:
    """Where the servers of this project live."""
    return Path(os.environ.get("HEROCACHE_HOME") or ROOT / ".local").resolve()


def say(subject: str, text: str) -> None:
    """One line of progress. A terminal that went away must not keep us from stopping servers."""
    with contextlib.suppress(OSError):
        print(f"{subject:<10} {text}", flush=True)


class Services:
    """MariaDB, Redis and the app under `home`, and the files that say how they came to run."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.mariadb = MariaDB(home / "mariadb")
        self.redis = Redis(home / "redis")
        self.app = App(home / "app")
        # There while the servers run because of `make up`: `make run` then leaves them running.
        self.kept = home / "kept"
        # Locked by `make run` as long as it lives; holds its process id.
        self.run_lock = home / "run.lock"
        # Locked by whoever starts or stops servers.
        self.lock = home / "services.lock"

    def up(self) -> dict[str, str]:
        """From any state: both answer, tables are there, empty ones seeded. The settings."""
        with locked(self.lock):
            if not (self.mariadb.pid or self.redis.pid):
                self.kept.unlink(missing_ok=True)
            start(self.mariadb)
            start(self.redis)
            self.mariadb.apply_schema()
            fill_empty_tables(self.mariadb)
            settings = {**self.mariadb.environment(), **self.redis.environment()}
            lines = [f"{name}={value}\n" for name, value in settings.items()]
            write_private(self.home / "env", "".join(lines))
            return settings

    def down(self) -> None:
        """Nothing of this home runs afterwards, `make run` and leftovers of one included."""
        self.end_run()
        with locked(self.lock):
            for server in (self.app, self.redis, self.mariadb):
                stop(server)
            self.kept.unlink(missing_ok=True)

    def end_run(self) -> None:
        """Have a living `make run` stop, and wait for it."""
        pid = self.living_run()
        if pid is None:
            return
        say("make run", f"stopping process {pid}")
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
        with locked(self.run_lock):
            pass

    def living_run(self) -> int | None:
        """Process id of the `make run` at work in this home."""
        try:
            with locked(self.run_lock, wait=False):
                return None
        except BlockingIOError:
            return int(self.run_lock.read_text() or 0) or None

    def remove(self) -> None:
        """Delete what these commands made, and nothing else that may be in the home folder."""
        for server in (self.mariadb, self.redis, self.app):
            shutil.rmtree(server.home, ignore_errors=True)
        for path in (self.home / "env", self.kept, self.run_lock, self.lock):
            path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self.home.rmdir()


@contextlib.contextmanager
def locked(path: Path, wait: bool = True) -> Iterator[int]:
    """Hold a lock that ends with this process, however it ends. No `wait`: BlockingIOError."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield descriptor
    finally:
        os.close(descriptor)


def start(server: Server) -> None:
    """Start a server, and say so."""
    running, began = server.pid is not None, time.monotonic()
    if not (server.home / "port").exists():
        say(server.title, "starting for the first time")
    server.start()
    took = f"started on port {server.port} in {time.monotonic() - began:.1f} s"
    say(server.title, f"already running on port {server.port}" if running else took)


def stop(server: Server) -> None:
    """Stop a server, and say so if it ran."""
    if server.pid is not None:
        server.stop()
        say(server.title, "stopped")


def fill_empty_tables(database: MariaDB) -> None:
    """Insert seed/<table>.csv into each of the seeded tables that has no row."""
    for table, columns in SEEDED_TABLES.items():
        if database.query(f"SELECT 1 FROM {table} LIMIT 1"):
            continue
        with (ROOT / "seed" / f"{table}.csv").open(encoding="utf-8", newline="") as file:
            rows = list(csv.reader(file))
        slots = ", ".join(["%s"] * len(rows[0]))
        with database.connect_as_root() as connection, connection.cursor() as cursor:
            cursor.executemany(f"INSERT INTO {table} ({columns}) VALUES ({slots})", rows)
        say(table, f"{len(rows)} seed rows")


def up() -> None:
    """`make up`."""
    services = Services(home_folder())
    started = [server for server in (services.redis, services.mariadb) if server.pid is None]
    try:
        services.up()
        services.kept.touch()
    except BaseException:
        for server in started:
            stop(server)
        raise
    say("settings", f"{services.home / 'env'} (`make down` stops both servers)")


def down() -> None:
    """`make down`."""
    Services(home_folder()).down()
    say("down", "nothing of this folder is running; `make clean` removes the data too")


def clean() -> None:
    """`make clean`."""
    services = Services(home_folder())
    services.down()
    services.remove()
    say("removed", f"{services.home} (data, settings, logs)")
    for path in [ROOT / name for name in CACHES if (ROOT / name).exists()]:
        shutil.rmtree(path, ignore_errors=True)
        say("removed", str(path))
    say("kept", f"{ROOT / '.venv'}")
