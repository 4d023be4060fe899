"""Real servers for the whole run, and the service on them, empty for each test.

A module that breaks servers overrides `mariadb` or `redis_server` with servers of its own;
`service` and `witness` follow.
"""

import os
import random
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

import botocore.loaders
import botocore.session
import pytest

from chalicelib import config, services
from chalicelib.cache import entry_commands, generations, recovery, timeouts
from chalicelib.cache.client import Client
from chalicelib.config import DbEngine
from chalicelib.db import change_capture
from chalicelib.rows import fences, write_through
from chalicelib.tables import TABLES
from local.machine import PORTS, port_is_free
from local.servers import App, DataApi, MariaDB, Redis, Server
from tests.support import bucket as s3
from tests.support.background_commands import COMMANDS, BackgroundCommands, Done
from tests.support.bucket import UploadBucket
from tests.support.client import InProcess
from tests.support.engines import is_mysql_only
from tests.support.long_tests import is_long
from tests.support.memory_folder import memory_folder
from tests.support.witness import Witness

if TYPE_CHECKING:  # moto takes a second to import, and few tests need it
    from tests.support.stage_life import Life, ShortLife

SETTINGS = [
    value for name, value in vars(config).items() if name.isupper() and isinstance(value, str)
]

# The engine that the app of the run uses, `mysql` or `dataapi`, where somebody chose one.
CHOSEN_ENGINE = os.environ.get("HEROCACHE_TEST_ENGINE", "")
ENGINE = CHOSEN_ENGINE or DbEngine.MYSQL.value

# How much longer the app waits in tests that are not about its deadlines. One factor for all of
# them, because some must be shorter than others.
PATIENCE = 20
DEADLINES = (
    (timeouts, "TIMEOUT_SECONDS"),
    (fences, "MAX_FENCE_SECONDS"),
    (write_through, "MAX_SECONDS_TO_COMMIT"),
    (entry_commands, "LEASE_MILLISECONDS"),
    (entry_commands, "WITNESS_MILLISECONDS"),
    (entry_commands, "TOMBSTONE_MILLISECONDS"),
    (entry_commands, "DEAD_WRITER_SECONDS"),
)
# Less than an ordinary statement is waited for: a longer one would count as such.
PATIENT_REFRESH_SECONDS = 2.0

# Their files take longest, so they begin first: at the end no worker is left alone with one.
LONG_FOLDERS = ("sync", "local", "cache", "model", "db", "ingest", "infra")

BACKGROUND = pytest.StashKey[BackgroundCommands]()

SomeServer = TypeVar("SomeServer", bound=Server)


class Configure(Protocol):
    def __call__(self, **changes: str | None) -> None: ...


def pytest_configure() -> None:
    """A terminated run stops its servers, as an interrupted one does."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    # pytest makes its temporary folders there. The option --basetemp takes precedence.
    if folder := memory_folder():
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(folder))
    # AWS's descriptions of its services are read once for all clients, not once for each.
    descriptions = botocore.loaders.create_loader()
    botocore.session.create_loader = lambda *_: descriptions


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What waits for something long is left to `make proof`; long files begin first."""
    tests = Path(__file__).parent
    paths = {path: path.relative_to(tests) for path in {item.path for item in items}}
    items.sort(key=lambda item: folder_order(paths[item.path].parts[0]))
    items[:] = [
        item
        for item in items
        if engine_of(item) != DbEngine.DATA_API.value
        or not is_mysql_only(paths[item.path].as_posix(), item.name)
    ]
    for item in items:
        if is_long(paths[item.path].as_posix(), item.name):
            item.add_marker(pytest.mark.long)
        if {"life", "data_api_life", "cached_data_api_life", *COMMANDS} & set(
            getattr(item, "fixturenames", ())
        ):
            item.add_marker(pytest.mark.proof)


def folder_order(folder: str) -> int:
    return LONG_FOLDERS.index(folder) if folder in LONG_FOLDERS else len(LONG_FOLDERS)


def engine_of(item: pytest.Item) -> str:
    """The engine that the app of a test uses."""
    callspec = getattr(item, "callspec", None)
    return str(callspec.params.get("db_engine", ENGINE)) if callspec else ENGINE


def pytest_collection_finish(session: pytest.Session) -> None:
    asked = {name for item in session.items for name in getattr(item, "fixturenames", ())}
    session.config.stash[BACKGROUND] = BackgroundCommands(
        [name for name in COMMANDS if name in asked]
    )


def pytest_unconfigure(config: pytest.Config) -> None:
    if BACKGROUND in config.stash:
        config.stash[BACKGROUND].end()


ENVIRONMENT = os.environ


@pytest.fixture(autouse=True)
def one_environment() -> Iterator[None]:
    """Chalice's test client puts another object in the place of `os.environ` while it is in use.
    Where two threads use one at the same time that object may stay, and no process that a later
    test starts sees what the test has set."""
    yield
    os.environ = ENVIRONMENT  # noqa: B003


@pytest.fixture(autouse=True)
def patient(request: pytest.FixtureRequest) -> Iterator[None]:
    """On a busy machine a step may take longer than the app waits for it; then a hit is a miss. No
    deadline of the app ends here, unless the test is about deadlines and marked so."""
    with pytest.MonkeyPatch.context() as patch:
        if not request.node.get_closest_marker("own_deadlines"):
            patch.setattr(generations, "REFRESH_TIMEOUT_SECONDS", PATIENT_REFRESH_SECONDS)
            for module, name in DEADLINES:
                patch.setattr(module, name, PATIENCE * getattr(module, name))
        yield


@pytest.fixture(scope="session")
def lived(request: pytest.FixtureRequest) -> Done:
    return request.config.stash[BACKGROUND].done("lived")


@pytest.fixture
def quick_bench(request: pytest.FixtureRequest) -> Done:
    return request.config.stash[BACKGROUND].done("quick_bench")


@pytest.fixture
def ingredients(request: pytest.FixtureRequest) -> Done:
    return request.config.stash[BACKGROUND].done("ingredients")


@contextmanager
def running(server: SomeServer) -> Iterator[SomeServer]:
    """From start to stop, whatever happens between."""
    with server:
        yield server
    assert server.pid is None, f"{server.title} outlived the tests"


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("servers")


@pytest.fixture(scope="session")
def mariadb(home: Path) -> Iterator[MariaDB]:
    with running(MariaDB(home / "mariadb")) as server:
        server.apply_schema()
        yield server


@pytest.fixture(scope="module")
def own_mariadb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MariaDB]:
    """Of one module of tests."""
    with running(MariaDB(tmp_path_factory.mktemp("own") / "mariadb")) as server:
        server.apply_schema()
        yield server


@pytest.fixture
def breakable_mariadb(own_mariadb: MariaDB) -> Iterator[MariaDB]:
    """It runs when a test begins, whatever became of it in the test before."""
    own_mariadb.start()
    yield own_mariadb
    own_mariadb.start()


@pytest.fixture
def triggers(mariadb: MariaDB) -> Iterator[None]:
    """On every declared table, for one test: changes by other clients are recorded."""
    mariadb.apply_triggers(TABLES.values())
    yield
    drop_triggers(mariadb)


def drop_triggers(mariadb: MariaDB) -> None:
    found = [name for name, *_ in mariadb.query("SHOW TRIGGERS")]
    ours = [name for name in found if name.startswith(change_capture.CAPTURING)]
    if ours:
        mariadb.run_script(";".join(f"DROP TRIGGER {name}" for name in ours))


@pytest.fixture(scope="session")
def redis_server(home: Path) -> Iterator[Redis]:
    with running(Redis(home / "redis")) as server:
        yield server


@pytest.fixture(scope="module")
def own_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    """Of one module of tests."""
    with running(Redis(tmp_path_factory.mktemp("own") / "redis")) as server:
        yield server


@pytest.fixture
def breakable_redis(own_redis: Redis) -> Iterator[Redis]:
    """It runs when a test begins, whatever became of it in the test before."""
    own_redis.start()
    yield own_redis
    own_redis.start()


@pytest.fixture(scope="session")
def data_api_server(home: Path, mariadb: MariaDB) -> Iterator[DataApi]:
    with running(DataApi(home / "data_api", mariadb.environment)) as server:
        yield server


@pytest.fixture
def data_api(data_api_server: DataApi) -> DataApi:
    """As after its start: no fault, no count, no open transaction."""
    data_api_server.control(reset=True)
    return data_api_server


@pytest.fixture(scope="session")
def environment(
    request: pytest.FixtureRequest, mariadb: MariaDB, redis_server: Redis
) -> dict[str, str]:
    """The settings that lead the app to the servers of the run."""
    return {**database_environment(request, mariadb), **redis_server.environment()}


def database_environment(
    request: pytest.FixtureRequest, mariadb: MariaDB, engine: str = ENGINE
) -> dict[str, str]:
    """The settings that lead the app to the database by this engine."""
    if engine == DbEngine.MYSQL.value:
        return mariadb.environment()
    server: DataApi = request.getfixturevalue("data_api_server")
    return server.environment()


@pytest.fixture(scope="session")
def server_url(home: Path, environment: Mapping[str, str]) -> Iterator[str]:
    """A `chalice local` process of the run, on the servers of the run."""
    port = next(port for port in random.sample(PORTS, len(PORTS)) if port_is_free(port))
    with running(App(home / "app", port, environment)) as app:
        yield f"{app.url}/"


@pytest.fixture(scope="session")
def s3_port() -> Iterator[int]:
    with s3.s3_server() as port:
        yield port


@pytest.fixture
def bucket(s3_port: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[UploadBucket]:
    """An empty one, to which the app's own S3 client leads."""
    for name, value in s3.environment(s3_port).items():
        monkeypatch.setenv(name, value)
    s3.forget_client()
    yield UploadBucket(s3_port)
    s3.forget_client()


@pytest.fixture
def witness(mariadb: MariaDB, redis_server: Redis) -> Iterator[Witness]:
    """Empty servers, and someone who watches them."""
    witness = Witness(mariadb, redis_server)
    witness.empty()
    yield witness
    witness.close()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """What is marked so runs on both engines, unless one was chosen for the run."""
    marked = metafunc.definition.get_closest_marker("both_engines")
    if marked and "configure" in metafunc.fixturenames and not CHOSEN_ENGINE:
        metafunc.parametrize("db_engine", [each.value for each in DbEngine], indirect=True)


@pytest.fixture
def db_engine(request: pytest.FixtureRequest) -> str:
    """The engine that the app of this test uses."""
    return str(getattr(request, "param", ENGINE))


@pytest.fixture
def configure(
    request: pytest.FixtureRequest,
    db_engine: str,
    mariadb: MariaDB,
    redis_server: Redis,
) -> Iterator[Configure]:
    """Gives the app these settings on top of those that lead to the servers; None unsets one. They
    stay where a test undoes its own changes in its middle."""
    database = database_environment(request, mariadb, db_engine)
    own = pytest.MonkeyPatch()

    def configure(**changes: str | None) -> None:
        environment = {**database, **redis_server.environment(), **changes}
        for name in {*SETTINGS, *environment}:
            value = environment.get(name)
            if value is None:
                own.delenv(name, raising=False)
            else:
                own.setenv(name, value)
        end_app()

    yield configure
    end_app()
    own.undo()


def end_app() -> None:
    """The next request finds a cold one. What the old one still did at its Redis, to look for it or
    to close connections, would be counted as somebody else's."""
    if services.container.cache_info().currsize:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(recovery, "MAX_PROBES", 0)
            for thread in threading.enumerate():
                if thread.name in ("recovery", "opening"):
                    thread.join(timeout=10)
        container = services.container()
        clients = [container.cache._client]
        if "public_store" in vars(container):
            clients.append(container.public_store._client)
        for client in clients:
            if isinstance(client, Client):
                client._pool.clear()
    services.forget()


@pytest.fixture
def lasting_generations(monkeypatch: pytest.MonkeyPatch) -> None:
    """A generation that was read once is not read again, however slow the machine."""
    monkeypatch.setattr(generations, "MEMORY_SECONDS", 3600.0)


@pytest.fixture
def service(witness: Witness, configure: Configure) -> InProcess:
    """The app in this process, cold, on empty servers."""
    configure()
    return InProcess()


@pytest.fixture(scope="session")
def life(lived: Done) -> "Life":
    """Of the stage dev, on an emulated account that is gone again."""
    from tests.support.stage_life import life_in

    return life_in(lived)


@pytest.fixture(scope="session")
def data_api_life(lived: Done) -> "ShortLife":
    """Of the stage dev over the Data API without a cache, likewise."""
    from tests.support.stage_life import NO_CACHE, data_api_life_in

    return data_api_life_in(lived, NO_CACHE)


@pytest.fixture(scope="session")
def cached_data_api_life(lived: Done) -> "ShortLife":
    """Of the stage dev over the Data API with a cache, likewise."""
    from tests.support.stage_life import CACHE, data_api_life_in

    return data_api_life_in(lived, CACHE)
