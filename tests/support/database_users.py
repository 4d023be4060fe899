"""Users of the database that may do less than the service's own."""

from collections.abc import Iterator
from contextlib import contextmanager

from local.servers import MariaDB
from tests.conftest import Configure

PASSWORD = "of-nobody-else"


@contextmanager
def user_who_sees_no_triggers(mariadb: MariaDB, configure: Configure) -> Iterator[None]:
    """The service logs in as a user who may read and write rows, and nothing else."""
    mariadb.query(f"CREATE USER blind@'127.0.0.1' IDENTIFIED BY '{PASSWORD}'")
    try:
        rights = "SELECT, INSERT, UPDATE, DELETE"
        mariadb.query(f"GRANT {rights} ON {mariadb.database}.* TO blind@'127.0.0.1'")
        mariadb.make_known("blind", PASSWORD)
        configure(DB_USER="blind", DB_PASS=PASSWORD)
        yield
    finally:
        mariadb.query("DROP USER blind@'127.0.0.1'")
