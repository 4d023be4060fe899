"""The servers of one home folder (`.local/`, or HEROCACHE_HOME): started, filled, stopped,
removed."""

import contextlib
import fcntl
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from chalicelib.config import (
    API_AUTH,
    DB_HOST,
    DB_NAME,
    DB_PASS,
    DB_TABLE,
    DB_USER,
    DbEngine,
    Settings,
)
from chalicelib.errors import ConfigurationError
from chalicelib.tables import HEROES, tables_with
from local.machine import ROOT, write_private
from local.servers import S3, App, DataApi, MariaDB, Redis, Server, ServerError
from local.settings import environment_with, read_settings
from local.terminal import say

# Each has a file seed/<table>.csv.
SEEDED_TABLES = ("heroes", "products", "employees")


def home_folder() -> Path:
    """The folder of this project's servers."""
    return Path(os.environ.get("HEROCACHE_HOME") or ROOT / ".local").resolve()


class Home:
    """MariaDB, Redis, S3 and the app in one folder, and the files that say who started them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.mariadb = MariaDB(folder / "mariadb")
        self.redis = Redis(folder / "redis", asks_password=True)
        self.env = folder / "env"
        self.s3 = S3(folder / "s3", self.env)
        self.data_api = DataApi(folder / "data_api", self.mariadb.environment, hides_secret=True)
        self.app = App(folder / "app")
        # The log of the last `make invoke` or `make invalidate`.
        self.invoke_log = folder / "invoke.log"
        # Exists while servers run that `make up` started: `make run` then leaves them running.
        self.kept = folder / "kept"
        # `make run` locks it while it lives, and writes its process id into it.
        self.run_lock = folder / "run.lock"
        # Locked while servers are started or stopped.
        self.lock = folder / "services.lock"

    @property
    def servers(self) -> tuple[Server, ...]:
        """The servers that `make up` starts."""
        return (self.mariadb, self.redis, self.s3, *[self.data_api] * self.uses_data_api)

    @property
    def uses_data_api(self) -> bool:
        """Whether ENGINE of the environment asks for the RDS Data API, or it runs already."""
        return asked_engine() is DbEngine.DATA_API or bool(self.data_api.pid)

    def up(self, app: App | None = None) -> None:
        """Starts what does not run, creates missing tables, seeds empty ones, writes the settings.

        Then starts `app` on these servers. It never serves before the seed rows are loaded, because
        they would replace rows that a client wrote. Raises ServerError where a server does not
        start, or a setting is wrong."""
        check_callers_settings()
        with locked(self.lock):
            if not any(server.pid for server in self.servers):
                self.kept.unlink(missing_ok=True)
            waits = [begin(server) for server in (self.s3, self.redis, self.mariadb)]
            if self.uses_data_api:  # begun behind MariaDB, because it is told MariaDB's port
                waits.append(begin(self.data_api))
            self.write_settings()
            wait_for_s3, wait_for_redis, wait_for_mariadb, *wait_for_data_api = waits
            wait_for_mariadb()
            for wait in wait_for_data_api:
                wait()
            self.mariadb.apply_schema()
            tables = tables_with(self.settings().get(DB_TABLE, HEROES.name))
            self.mariadb.apply_triggers(tables.values())
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
        """Starts the app on these servers, unless it runs."""
        app.settings = self.settings()
        app.begin()

    def settings(self) -> dict[str, str]:
        """The settings that lead the app to the servers, API_AUTH, and DB_TABLE where the caller
        has set it."""
        database = self.data_api if self.uses_data_api else self.mariadb
        settings = database.environment() | self.redis.environment() | self.s3.environment()
        settings[API_AUTH] = os.environ.get(API_AUTH, "none")
        table = os.environ.get(DB_TABLE)
        return {**settings, DB_TABLE: table} if table else settings

    @property
    def default_table(self) -> str:
        """The table that the service here was started with."""
        return read_settings(self.env).get(DB_TABLE) or HEROES.name

    def write_settings(self) -> None:
        """Writes the file `env`, for the function, for `make upload` and for any program."""
        lines = [f"{name}={value}\n" for name, value in self.settings().items()]
        write_private(self.env, "".join(lines))

    def down(self) -> None:
        """Stops everything of this folder, also a `make run` and what a killed one left behind."""
        self.end_run()
        with locked(self.lock):
            stop(self.app, *reversed(self.servers))
            self.kept.unlink(missing_ok=True)

    def end_run(self) -> None:
        """Stops a running `make run`, and waits for its end."""
        pid = self.living_run()
        if pid is None:
            return
        say("make run", f"stopping process {pid}")
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
        with locked(self.run_lock):
            pass

    def living_run(self) -> int | None:
        """The process id of the `make run` that runs in this folder, or None."""
        try:
            with locked(self.run_lock, wait=False):
                return None
        except BlockingIOError:
            return int(self.run_lock.read_text() or 0) or None

    def remove(self) -> None:
        """Deletes what these commands made, and nothing else in the folder: HEROCACHE_HOME may name
        one where somebody else has a folder `mariadb` or a file `env`."""
        servers = (self.mariadb, self.redis, self.s3, self.data_api, self.app)
        ours = [server for server in servers if server.owns_home]
        for server in ours:
            shutil.rmtree(server.home, ignore_errors=True)
        files = (self.env, self.kept, self.invoke_log) if ours else ()
        for path in (*files, self.run_lock, self.lock):
            path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self.folder.rmdir()


def check_callers_settings() -> None:
    """Raises ServerError where the app would reject a setting in the caller's environment."""
    from_servers = dict.fromkeys((DB_HOST, DB_USER, DB_PASS, DB_NAME), "known once they run")
    table = os.environ.get(DB_TABLE, "")
    try:
        Settings.from_environment(environment_with({**from_servers, DB_TABLE: table}))
    except ConfigurationError as error:
        raise ServerError(f"{error}. It is set in this shell") from error


def asked_engine() -> DbEngine:
    """ENGINE of the environment. Raises ServerError where there is no such engine."""
    name = os.environ.get("ENGINE") or DbEngine.MYSQL.value
    names = [engine.value for engine in DbEngine]
    if name not in names:
        raise ServerError(f"ENGINE must be {' or '.join(names)}, got {name!r}")
    return DbEngine(name)


@contextlib.contextmanager
def locked(path: Path, wait: bool = True) -> Iterator[int]:
    """Holds a lock that ends with this process, also where it is killed. Without `wait` raises
    BlockingIOError where another process holds it."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield descriptor
    finally:
        os.close(descriptor)


def begin(server: Server) -> Callable[[], None]:
    """Starts a server, and says so. Returns a function that waits until it answers."""
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
    """Stops servers one after the other, and says so of those that ran."""
    for server in servers:
        if server.pid is not None:
            server.stop()
            say(server.title, "stopped")


def empty_tables(database: MariaDB) -> list[str]:
    """The seeded tables that have no row."""
    return [name for name in SEEDED_TABLES if not database.query(f"SELECT 1 FROM {name} LIMIT 1")]


def upload_seeds(s3: S3, tables: Sequence[str]) -> None:
    """Uploads seed/<table>.csv for each table, and waits for its rows. Raises ServerError where
    they are not loaded."""
    outcomes = s3.outcomes()
    versions = [s3.upload(ROOT / "seed" / f"{name}.csv", name) for name in tables]
    for table, version in zip(tables, versions):
        outcome = s3.outcome_of(version, outcomes)
        if [summary["status"] for summary in outcome.summaries] != ["loaded"]:
            raise ServerError(f"no seed rows for {table}: {outcome.in_words()}")
        say(table, f"{outcome.summaries[0]['rows']} seed rows")
