"""MySQL and MariaDB through PyMySQL. Only this package knows the driver. `db` may use:

connect, Connection, Answer    a connection, and its answers to a batch of statements
require_checked_driver         rejects a PyMySQL that was not checked
MySQLError and what follows    what an error means, and its text for the caller
"""

from chalicelib.db.mysql.connection import (
    ANSWER_TIMEOUT_SECONDS,
    LOAD_TIMEOUT_SECONDS,
    Answer,
    Connection,
    connect,
)
from chalicelib.db.mysql.driver import CONNECT_TIMEOUT_SECONDS, require_checked_driver
from chalicelib.db.mysql.errors import (
    MAX_ATTEMPTS,
    MySQLError,
    duplicate_index,
    is_forbidden,
    is_foreseen,
    is_guard_failed,
    is_key_space_exhausted,
    is_login_refused,
    is_misfit,
    is_unfit,
    is_value_rejected,
    is_worth_another_try,
    missing_table,
    refuse_replica,
    rejection,
    translated,
    translated_from_connecting,
)

__all__ = [
    "ANSWER_TIMEOUT_SECONDS",
    "CONNECT_TIMEOUT_SECONDS",
    "LOAD_TIMEOUT_SECONDS",
    "MAX_ATTEMPTS",
    "Answer",
    "Connection",
    "MySQLError",
    "connect",
    "duplicate_index",
    "is_forbidden",
    "is_foreseen",
    "is_guard_failed",
    "is_key_space_exhausted",
    "is_login_refused",
    "is_misfit",
    "is_unfit",
    "is_value_rejected",
    "is_worth_another_try",
    "missing_table",
    "refuse_replica",
    "rejection",
    "require_checked_driver",
    "translated",
    "translated_from_connecting",
]
