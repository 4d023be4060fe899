"""What a container builds, and how often."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from chalicelib import services
from chalicelib.cache import Cache
from chalicelib.config import Settings
from chalicelib.errors import ConfigurationError
from chalicelib.rows import RowService
from tests.conftest import Configure
from tests.support.client import InProcess

THREADS = 4
SETTINGS = Settings("nowhere", "user", "password", "name", redis_url="redis://nowhere")


def test_rows_and_files_share_what_the_container_knows_of_generations() -> None:
    container = services.Container(SETTINGS)

    for part in (container.rows, container.ingest):
        write_through = part._write_through
        assert write_through._generations is container.generations
        assert write_through._recovery is container.recovery
        assert write_through._cache is container.cache
    assert container.rows._lazy_loading._generations is container.generations


def test_files_are_loaded_on_connections_of_their_own() -> None:
    container = services.Container(SETTINGS)

    assert container.ingest._database is not container.database
    assert container.ingest._write_through._transactions._database is container.ingest._database


def test_threads_that_need_a_part_at_the_same_time_get_the_same_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nobody would look whether a Redis is back that only one of two caches knows to be down."""
    container = services.Container(SETTINGS)
    at_once = threading.Barrier(THREADS)

    def slowly(settings: Settings) -> Cache:
        time.sleep(0.05)
        return Cache(settings)

    def rows(_: int) -> RowService:
        at_once.wait()
        return container.rows

    monkeypatch.setattr(services, "Cache", slowly)
    with ThreadPoolExecutor(THREADS) as pool:
        found = list(pool.map(rows, range(THREADS)))

    assert set(found) == {container.rows}
    assert container.rows._lazy_loading._cache is container.cache


def test_requests_share_a_container_until_it_is_forgotten(service: InProcess) -> None:
    first = services.container()

    assert services.container() is first
    services.forget()
    assert services.container() is not first


def test_a_wrong_setting_is_told_until_it_is_right(configure: Configure) -> None:
    configure(DB_NAME="")
    for _ in range(2):
        with pytest.raises(ConfigurationError, match="DB_NAME"):
            services.container()

    configure()
    assert services.container().settings.db_name
