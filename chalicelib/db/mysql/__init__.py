"""MySQL and MariaDB through PyMySQL. Only this package knows the driver. `db` may use:

connect, Connection, Answer    a connection, and its answers to a batch of statements
require_checked_driver         rejects a PyMySQL that was not checked
DatabaseError and what follows    what an error means, and its text for the caller
"""

from chalicelib.db.mysql.connector import Connector

__all__ = ["Connector"]
