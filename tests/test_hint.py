"""A container that starts while the database is away answers cached reads all the same."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from local.servers import MariaDB, Redis
from tests.client import InProcess, heroes
from tests.conftest import Configure, running
from tests.witness import Witness


@pytest.fixture(scope="module")
def mariadb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MariaDB]:
    with running(MariaDB(Path(tmp_path_factory.mktemp("hint")) / "mariadb")) as server:
        server.apply_schema()
        yield server


@pytest.fixture
def ids(service: InProcess) -> list[int]:
    ids = service.write(heroes(5)).ids
    service.read(ids)
    assert len(service.read(ids).rows) == 5
    return ids


@pytest.mark.parametrize("fault", [MariaDB.kill, MariaDB.pause])
def test_cached_reads_of_a_new_container_need_no_database(
    configure: Configure, service: InProcess, mariadb: MariaDB, ids: list[int], fault: object
) -> None:
    fault(mariadb)  # type: ignore[operator]
    try:
        configure()  # forgets all that a container remembers
        assert [row["id"] for row in service.read(ids).rows] == ids
        assert service.post({"REQUEST": "read", "SQLS": [*ids, 4_000_000]}).status == 503
    finally:
        mariadb.resume()
        mariadb.start()


def test_a_hint_of_another_server_is_not_taken(
    configure: Configure,
    service: InProcess,
    mariadb: MariaDB,
    redis_server: Redis,
    witness: Witness,
    ids: list[int],
) -> None:
    """As after a restore: the cells are as old as the hint."""
    [hint] = witness.redis.keys("*:generation")
    witness.redis.append(hint, "another")
    mariadb.kill()
    try:
        configure()
        assert service.post({"REQUEST": "read", "SQLS": ids}).status == 503
    finally:
        mariadb.start()
