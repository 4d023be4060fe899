"""A database whose tables a test may change."""

from collections.abc import Iterator

import pytest

from local.servers import MariaDB
from tests.conftest import Configure
from tests.support.client import InProcess
from tests.support.differing_tables import OTHER, Tables
from tests.support.witness import Witness


@pytest.fixture
def database(
    service: InProcess, witness: Witness, mariadb: MariaDB, configure: Configure
) -> Iterator[Tables]:
    """With all tables as they are declared; the service uses it and knows nothing of it."""
    witness.query(f"CREATE DATABASE {OTHER}")
    try:
        witness.query(f"GRANT ALL ON {OTHER}.* TO '{mariadb.user}'@'127.0.0.1'")
        witness.query(f"USE {OTHER}")
        tables = Tables(witness)
        tables.apply_schema()
        tables.give_cache()
        configure(DB_NAME=OTHER)
        yield tables
    finally:
        witness.query(f"DROP DATABASE {OTHER}")
        witness.query(f"REVOKE ALL ON {OTHER}.* FROM '{mariadb.user}'@'127.0.0.1'")
        witness.query(f"USE {mariadb.database}")
