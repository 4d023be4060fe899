"""What a container builds, and how often."""

import pytest

from chalicelib import services
from chalicelib.config import Settings
from chalicelib.errors import ConfigurationError
from tests.conftest import Configure
from tests.support.client import InProcess

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
