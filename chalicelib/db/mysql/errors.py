"""The errors of MySQL and MariaDB: which may be retried, what each means, its text for the
caller."""

import re
import ssl

import pymysql
from pymysql.constants import CR, ER

from chalicelib.config import DB_SSL_CA, Settings
from chalicelib.db.mysql.driver import PASSWORD_WITHHELD
from chalicelib.errors import ConfigurationError, DatabaseUnavailable, network_words

MySQLError = pymysql.MySQLError

MAX_ATTEMPTS = 4
RESUME_RETRY_AFTER_SECONDS = 5

_CONNECTION_KILLED = 1927
_HOST_BLOCKED, _HOST_REFUSED = 1129, 1130
_CONNECTIONS_USED_UP = frozenset({1203, 1226})
_LOCKED = frozenset({3118, 4151})  # MySQL, MariaDB
_EXPIRED = frozenset({1820, 1862})
_NO_PASSWORD_TAKEN = 1698
_TLS_REQUIRED = 3159
LOGIN_NEEDS_TLS = ER.NOT_SUPPORTED_AUTH_MODE
_PRIMARY = "PRIMARY"
_KEY_OUT_OF_RANGE = 167
_NO_NEXT_KEY = 1467
# A server that was demoted to a replica rejects writes with these errors.
_READ_ONLY = 1290
_DEMOTED = frozenset({_READ_ONLY, 1792, 1836})
_LOST = frozenset(
    {CR.CR_SERVER_GONE_ERROR, CR.CR_SERVER_LOST, ER.SERVER_SHUTDOWN, _CONNECTION_KILLED}
)
# The database undid the transaction because another one was in its way.
_UNDONE = frozenset({ER.LOCK_DEADLOCK, ER.DUP_ENTRY})

# Errors after which the transaction is certainly not committed: the server rejected the COMMIT, or
# did not receive all of it.
CERTAINLY_NOT_COMMITTED = _DEMOTED | {CR.CR_SERVER_GONE_ERROR, ER.LOCK_DEADLOCK}

# A statement names a table or a column that does not exist, or leaves out a column that needs a
# value.
_MISFIT = frozenset({ER.NO_SUCH_TABLE, ER.BAD_FIELD_ERROR, ER.NO_DEFAULT_FOR_FIELD})
_CHECK_VIOLATED = frozenset({3819, 4025})  # MySQL, MariaDB
_CHILD_WITHOUT_PARENT, _PARENT_WITH_CHILD = 1452, 1451
_SIGNAL, _SIGNAL_STATE = 1644, "45000"
_NO_PARTITION = frozenset({1526, 1591})
_NO_DEFINER = 1449
_GUARD_FAILED = 1242  # a subquery in place of a value gave two rows
_VALUE_REJECTED = _CHECK_VIOLATED | {
    *(ER.DATA_TOO_LONG, ER.WARN_DATA_OUT_OF_RANGE, ER.TRUNCATED_WRONG_VALUE_FOR_FIELD),
    *(ER.WARN_DATA_TRUNCATED, _CHILD_WITHOUT_PARENT, _PARENT_WITH_CHILD, _SIGNAL),
    *(ER.BAD_NULL_ERROR, *_NO_PARTITION),
}
# "INSERT command denied to user 'u'@'h' for table `herocache`.`heroes`", or "for column 'xp' in
# table 'heroes'".
_DENIED = frozenset({1142, 1143})
_RIGHT = re.compile(r"^([A-Z, ]+) command denied ")
_DENIED_TABLE = re.compile(r"table ['`](?:[^'`]*`\.`)?([^'`]+)['`]$")
# "for column 'xp' at row 2", in places "for column `herocache`.`heroes`.`xp` at row 2".
# A quoted value before it may look the same, so only the end of the text counts.
_COLUMN = re.compile(r"for column ['`](?:[^'`]*`\.`)*([^'`]+)['`] at row \d+$")
_NULL_COLUMN = re.compile(r"^Column '([^']+)' cannot be null")
_MISSING_TABLE = re.compile(r"^Table '(?:[^']*\.)?([^'.]+)' doesn't exist$")
_FOREIGN_KEY = re.compile(r"FOREIGN KEY \(`([^`]+)`\) REFERENCES `([^`]+)`")
_INDEX = re.compile(r"for key '(?:[^']*\.)?([^'.]+)'$")
_CONSTRAINT = re.compile(r"onstraint ['`](?:[^'`]*\.)?([^'`.]+)['`]", re.IGNORECASE)

_IN_WORDS = {
    ER.ACCESS_DENIED_ERROR: "it refuses the user or the password (DB_USER, DB_PASS)",
    CR.CR_SSL_CONNECTION_ERROR: "it speaks no TLS, and DB_SSL_CA asks for it",
    PASSWORD_WITHHELD: "it asks for the password itself, which only a server with a checked"
    " certificate is told: set DB_SSL_CA, or log in with mysql_native_password",
    ER.DBACCESS_DENIED_ERROR: "the user has no rights on this database (DB_NAME)",
    ER.BAD_DB_ERROR: "it has no database of this name (DB_NAME)",
    ER.CON_COUNT_ERROR: "it has no connection left",
    **dict.fromkeys(
        _CONNECTIONS_USED_UP,
        "the user has reached a limit of its account, such as max_user_connections: raise it for"
        " DB_USER, or have fewer containers",
    ),
    **dict.fromkeys(_LOCKED, "the account of the user is locked (DB_USER): ALTER USER unlocks it"),
    **dict.fromkeys(_EXPIRED, "the user's password has expired (DB_USER, DB_PASS): set a new one"),
    _HOST_REFUSED: "the user may not log in from this host: create DB_USER for it, or for '%'",
    _HOST_BLOCKED: "it blocks this host after too many failed logins: FLUSH HOSTS ends that",
    _NO_PASSWORD_TAKEN: "the user has no password to log in with (DB_USER): give it one",
    ER.LOCK_WAIT_TIMEOUT: "another transaction holds the rows",
    ER.LOCK_DEADLOCK: "it broke a deadlock with another transaction",
    ER.DUP_ENTRY: "other writers insert the same keys at the same time; where that does not end, a"
    " trigger inserts a key that its table has already",
    ER.SERVER_SHUTDOWN: "it is shutting down",
    _CONNECTION_KILLED: "it closed the connection",
    _TLS_REQUIRED: "it takes connections over TLS only",
    LOGIN_NEEDS_TLS: "its way to log in needs TLS: use mysql_native_password, or TLS",
    **dict.fromkeys(_DEMOTED, "it is read-only now: a failover is going on"),
}


def refuse_replica(is_read_only: int) -> None:
    """A replica answers reads, but may lack the last writes. So this raises the error with which a
    replica answers a write."""
    if is_read_only:
        raise pymysql.OperationalError(_READ_ONLY, "the server is read-only")


def is_said_by_server(error: BaseException) -> bool:
    """Whether the server sent this error. The driver's own errors, for a lost connection, have
    numbers from 2000 to 2999."""
    return code_of(error) > 0 and code_of(error) // 1000 != 2


def is_login_refused(error: MySQLError) -> bool:
    """Whether the server rejected the user or the password."""
    return code_of(error) == ER.ACCESS_DENIED_ERROR


def translated_from_connecting(error: MySQLError, settings: Settings) -> Exception:
    """As `translated`, for an error while connecting. Where the database may sleep and is silent
    after it took the connection, the text says that it may be waking up."""
    found = translated(error)
    if found is error:
        found = DatabaseUnavailable(
            f"the database refuses the connection (DB_HOST, DB_USER): its error {code_of(error)}"
        )
    is_silent = isinstance(_origin(error), TimeoutError)
    if settings.db_resume_seconds and is_silent and isinstance(found, DatabaseUnavailable):
        found = DatabaseUnavailable(f"{found} Or it is waking up: try again in a moment")
        found.retry_after_seconds = RESUME_RETRY_AFTER_SECONDS
    return found


def translated(error: MySQLError) -> Exception:
    """The service's error for it: DatabaseUnavailable or ConfigurationError. Any other error is a
    bug and is returned as it is."""
    code = code_of(error)
    if code in _IN_WORDS:
        found = DatabaseUnavailable(f"the database cannot be used now: {_IN_WORDS[code]}")
        found.has_other_writer = code in _DEMOTED
        return found
    if code == _NO_DEFINER:
        return ConfigurationError(
            "a trigger of the table belongs to a user (its DEFINER) that is not there any more:"
            " create the trigger again"
        )
    if code in _DENIED:
        right, table = _part(_RIGHT, error), _part(_DENIED_TABLE, error)
        return ConfigurationError(
            f"DB_USER: the user lacks a right ({right}) on the table {table} or on a column of it:"
            f" have an operator run GRANT SELECT, INSERT, UPDATE, DELETE ON `{table}` TO that user"
        )
    if code in _LOST or code == CR.CR_CONN_HOST_ERROR or isinstance(error, pymysql.InterfaceError):
        origin = _origin(error)
        is_stranger = isinstance(origin, ssl.SSLCertVerificationError)
        where = DB_SSL_CA if is_stranger else "DB_HOST, DB_PORT"
        return DatabaseUnavailable(
            f"the database cannot be reached ({where}): {network_words(origin)}"
        )
    return error


def is_foreseen(error: MySQLError) -> bool:
    """Whether `translated` has an error of the service for it."""
    return translated(error) is not error


def code_of(error: BaseException | None) -> int:
    """The number of the error. Some errors of the driver have none: then 0."""
    code = error.args[0] if isinstance(error, MySQLError) and error.args else 0
    return code if isinstance(code, int) else 0


def is_key_space_exhausted(error: MySQLError, highest_key: int) -> bool:
    """Whether an INSERT failed because AUTO_INCREMENT has no key left. MySQL then gives the highest
    key again and reports a duplicate."""
    if code_of(error) == ER.DUP_ENTRY:
        is_key = duplicate_index(error) == _PRIMARY
        return is_key and str(error.args[-1]).startswith(f"Duplicate entry '{highest_key}' ")
    return code_of(error) in (_KEY_OUT_OF_RANGE, _NO_NEXT_KEY)


def is_guard_failed(error: BaseException | None) -> bool:
    """Whether a guard failed: a statement that is an error on purpose where its condition is
    false."""
    return code_of(error) == _GUARD_FAILED


def is_misfit(error: MySQLError) -> bool:
    """Whether the statement failed because a table is not as declared."""
    return code_of(error) in _MISFIT


def is_forbidden(error: MySQLError) -> bool:
    """Whether the user lacks the right for a statement in this database."""
    return code_of(error) == ER.DBACCESS_DENIED_ERROR


def is_value_rejected(error: MySQLError) -> bool:
    """Whether a row was rejected because of its values. To try again would not help."""
    if code_of(error) == ER.DUP_ENTRY:
        return duplicate_index(error) not in ("", _PRIMARY)
    return code_of(error) in _VALUE_REJECTED or _is_signal(error)


def duplicate_index(error: MySQLError) -> str:
    """The unique index that has the value of the row already; empty for other errors."""
    return _part(_INDEX, error) if code_of(error) == ER.DUP_ENTRY else ""


def missing_table(error: MySQLError) -> str:
    """The table that the statement, or a trigger that it fired, did not find; else empty."""
    return _part(_MISSING_TABLE, error)


def _is_signal(error: MySQLError) -> bool:
    """Whether a trigger raised the error with SIGNAL. A trigger may choose any number."""
    return code_of(error) == _SIGNAL or getattr(error, "sqlstate", "") == _SIGNAL_STATE


def rejection(error: MySQLError) -> tuple[str, str]:
    """For an error of `is_value_rejected`: the column that it names, or an empty text; and the
    reason. For a duplicate the column is empty, because the error names only an index."""
    code = code_of(error)
    column = _part(_COLUMN, error)
    if code == ER.DUP_ENTRY:
        reason = f"another row has this value already (unique index {duplicate_index(error)})"
        return "", reason
    if code in _CHECK_VIOLATED:
        rule = _part(_CONSTRAINT, error)
        return rule, f"the table does not take this row (CHECK constraint {rule})"
    if code == _CHILD_WITHOUT_PARENT:
        other = _part(_FOREIGN_KEY, error, 2)
        return _part(_FOREIGN_KEY, error), f"no row of {other} has this value (foreign key)"
    if code == _PARENT_WITH_CHILD:
        return "", "rows of another table refer to this one (foreign key)"
    if code == ER.BAD_NULL_ERROR:
        return _part(_NULL_COLUMN, error), "a trigger gives it NULL, which it does not take"
    if code in _NO_PARTITION:
        return "", "the table has no partition for this row"
    if _is_signal(error):
        return "", f"a trigger refuses this row: {error.args[-1]}"
    return column, "the database does not take this value"


def _part(pattern: re.Pattern[str], error: MySQLError, group: int = 1) -> str:
    found = pattern.search(str(error.args[-1]))
    return found[group] if found else ""


def is_unfit(error: BaseException | None) -> bool:
    """Whether the connection cannot be used any more after this error."""
    return code_of(error) in _LOST | _DEMOTED


def _origin(error: BaseException) -> BaseException | None:
    return getattr(error, "original_exception", None) or error.__context__


def is_worth_another_try(error: MySQLError, attempt: int) -> bool:
    """Whether to try again: a few times where the database undid the transaction because of another
    one, and once on a new connection where the old one was lost. Not where the server was silent:
    it would be silent again."""
    if code_of(error) in _UNDONE:
        return attempt + 1 < MAX_ATTEMPTS
    is_lost = code_of(error) in _LOST | _DEMOTED
    return is_lost and attempt == 0 and not isinstance(_origin(error), TimeoutError)
