"""Users of the database that may do less than the service's own."""

from collections.abc import Iterator
from contextlib import contextmanager

from tests.conftest import Configure
from tests.support.witness import Witness

PASSWORD = "of-nobody-else"


@contextmanager
def user_who_sees_no_triggers(witness: Witness, configure: Configure) -> Iterator[None]:
    """The service logs in as a user who may read and write rows, and nothing else."""
    [(name,)] = witness.query("SELECT DATABASE()")
    witness.query(f"CREATE USER blind@'127.0.0.1' IDENTIFIED BY '{PASSWORD}'")
    try:
        rights = "SELECT, INSERT, UPDATE, DELETE"
        witness.query(f"GRANT {rights} ON {name}.* TO blind@'127.0.0.1'")
        configure(DB_USER="blind", DB_PASS=PASSWORD)
        yield
    finally:
        witness.query("DROP USER blind@'127.0.0.1'")
