"""The servers of one home folder (`.local/`, or HEROCACHE_HOME): up and filled, down, removed.

`make up`, `make down` and `make clean` end here; `make run` begins and ends here.
"""

import contextlib
import fcntl
import itertools
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from chalicelib.config import DB_TABLE
from chalicelib.tables import HEROES
from local.app import App
from local.function import read_settings
from local.process import ROOT, Server, ServerError, write_private
from local.s3 import S3
from local.servers import MariaDB, Redis

SEEDED_TABLES = ("heroes", "products", "employees")
"""Each has a file seed/<table>.csv."""
CACHES = (".pytest_cache", ".mypy_cache", ".ruff_cache", ".hypothesis")


def home_folder() -> Path:
    """Where the servers of this project live."""
    return Path(os.environ.get("HEROCACHE_HOME") or ROOT / ".local").resolve()


def say(subject: str, text: str) -> None:
    """One line of progress. A terminal that went away must not keep us from stopping servers."""
    with contextlib.suppress(OSError):
        print(f"{subject:<10} {text}", flush=True)


class Services:
    """MariaDB, Redis, S3 and the app under `home`, and the files that say how they came to run."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.mariadb = MariaDB(home / "mariadb")
        self.redis = Redis(home / "redis")
        self.env = home / "env"
        self.s3 = S3(home / "s3", self.env)
        self.app = App(home / "app")
        # Of the last `make invoke` or `make invalidate`.
        self.invoke_log = home / "invoke.log"
        # There while the servers run because of `make up`: `make run` then leaves them running.
        self.kept = home / "kept"
        # Locked by `make run` as long as it lives; holds its process id.
        self.run_lock = home / "run.lock"
        # Locked by whoever starts or stops servers.
        self.lock = home / "services.lock"

    @property
    def servers(self) -> tuple[MariaDB, Redis, S3]:
        """Those that `make up` starts."""
        return self.mariadb, self.redis, self.s3

    def up(self, app: App | None = None) -> None:
        """From any state: all answer, tables are there, empty ones seeded, settings written. The
        app, if there is one, serves on them: never before the seed rows, which replace rows."""
        with locked(self.lock):
            if not any(server.pid for server in self.servers):
                self.kept.unlink(missing_ok=True)
            waits = [begin(server) for server in reversed(self.servers)]
            self.write_settings()
            wait_for_s3, wait_for_redis, wait_for_mariadb = waits
            wait_for_mariadb()
            self.mariadb.apply_schema()
            empty = empty_tables(self.mariadb)
            if app is not None and not empty:
                self.begin_app(app)  # while S3, which starts slowly, still does
            wait_for_redis()
            wait_for_s3()
            upload_seeds(self.s3, empty)
        if app is not None:
            self.begin_app(app)
            app.wait_until_it_answers()

    def begin_app(self, app: App) -> None:
        """Start it on these servers, unless it runs."""
        app.settings = self.settings()
        app.begin()

    def settings(self) -> dict[str, str]:
        """What leads the app to the servers, and the DB_TABLE that whoever starts it has set."""
        each = (server.environment().items() for server in self.servers)
        settings = dict(itertools.chain.from_iterable(each))
        table = os.environ.get(DB_TABLE)
        return {**settings, DB_TABLE: table} if table else settings

    @property
    def default_table(self) -> str:
        """The one that the service here was started with."""
        return read_settings(self.env).get(DB_TABLE) or HEROES.name

    def write_settings(self) -> None:
        """For the function, for `make upload`, and for any program."""
        lines = [f"{name}={value}\n" for name, value in self.settings().items()]
        write_private(self.env, "".join(lines))

    def down(self) -> None:
        """Nothing of this home runs afterwards, `make run` and leftovers of one included."""
        self.end_run()
        with locked(self.lock):
            stop(self.app, *reversed(self.servers))
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
        for server in (*self.servers, self.app):
            shutil.rmtree(server.home, ignore_errors=True)
        for path in (self.env, self.kept, self.invoke_log, self.run_lock, self.lock):
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


def begin(server: Server) -> Callable[[], None]:
    """Start a server, and say so; what is returned waits until it answers."""
    running, began = server.pid is not None, time.monotonic()
    if not (server.home / "port").exists():
        say(server.title, "starting for the first time")
    server.begin()

    def wait() -> None:
        server.wait_until_it_answers()
        took = f"started on port {server.port} in {time.monotonic() - began:.1f} s"
        say(server.title, f"already running on port {server.port}" if running else took)

    return wait


def stop(*servers: Server) -> None:
    """Stop servers one after the other, and say so of those that ran."""
    for server in servers:
        if server.pid is not None:
            server.stop()
            say(server.title, "stopped")


def empty_tables(database: MariaDB) -> list[str]:
    """Those of the seeded tables that have no row."""
    return [name for name in SEEDED_TABLES if not database.query(f"SELECT 1 FROM {name} LIMIT 1")]


def upload_seeds(s3: S3, tables: Sequence[str]) -> None:
    """Upload seed/<table>.csv for each, and wait for its rows. Raises ServerError when they do not
    come."""
    outcomes = s3.outcomes()
    versions = [s3.upload(ROOT / "seed" / f"{name}.csv", name) for name in tables]
    for table, version in zip(tables, versions):
        outcome = s3.outcome_of(version, outcomes)
        if [summary["status"] for summary in outcome.summaries] != ["loaded"]:
            raise ServerError(f"no seed rows for {table}: {outcome.in_words()}")
        say(table, f"{outcome.summaries[0]['rows']} seed rows")


def up() -> None:
    """`make up`."""
    services = Services(home_folder())
    idle = [server for server in services.servers if server.pid is None]
    try:
        services.up()
        services.kept.touch()
    except BaseException:
        stop(*reversed(idle))
        raise
    say("uploads", f"{services.s3.uploads}, or `make upload FILE=heroes.csv`")
    say("settings", f"{services.env} (`make down` stops the servers)")


def down() -> None:
    """`make down`."""
    Services(home_folder()).down()
    say("down", "nothing of this folder is running; `make clean` removes the data too")


def clean() -> None:
    """`make clean`."""
    services = Services(home_folder())
    services.down()
    services.remove()
    say("removed", f"data, settings and logs in {services.home}")
    if services.home.exists():
        left = ", ".join(sorted(path.name for path in services.home.iterdir()))
        say("kept", f"{left} in {services.home}")
    for path in [ROOT / name for name in CACHES if (ROOT / name).exists()]:
        shutil.rmtree(path, ignore_errors=True)
        say("removed", str(path))
    say("kept", f"{ROOT / '.venv'}")
