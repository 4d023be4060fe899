"""The errors of MySQL and MariaDB: which may be retried, what each means, its text for the
caller."""

import re
import ssl
from enum import IntEnum

from chalicelib.config import DB_SSL_CA, Settings
from chalicelib.errors import (
    ConfigurationError,
    DatabaseUnavailable,
    TooLarge,
    network_words,
)

RESUME_RETRY_AFTER_SECONDS = 5


class Code(IntEnum):
    """Numbers of errors, with the names that MySQL gives them. Those from 2000 on are a client's
    own."""

    CON_COUNT_ERROR = 1040
    DBACCESS_DENIED_ERROR = 1044
    ACCESS_DENIED_ERROR = 1045
    BAD_NULL_ERROR = 1048
    BAD_DB_ERROR = 1049
    SERVER_SHUTDOWN = 1053
    BAD_FIELD_ERROR = 1054
    DUP_ENTRY = 1062
    NO_SUCH_TABLE = 1146
    LOCK_WAIT_TIMEOUT = 1205
    LOCK_DEADLOCK = 1213
    NOT_SUPPORTED_AUTH_MODE = 1251
    WARN_DATA_OUT_OF_RANGE = 1264
    WARN_DATA_TRUNCATED = 1265
    NO_DEFAULT_FOR_FIELD = 1364
    TRUNCATED_WRONG_VALUE_FOR_FIELD = 1366
    DATA_TOO_LONG = 1406
    CR_CONN_HOST_ERROR = 2003
    CR_SERVER_GONE_ERROR = 2006
    CR_SERVER_LOST = 2013
    CR_SSL_CONNECTION_ERROR = 2026
    CR_AUTH_PLUGIN_ERR = 2061


# The driver keeps the password from a server that asks for it.
PASSWORD_WITHHELD = Code.CR_AUTH_PLUGIN_ERR

_CONNECTION_KILLED = 1927
# MySQL's word to a connection that was idle for too long, in the place of an answer. What was sent
# after that was not run.
_CLOSED_WHILE_IDLE = 4031
_HOST_BLOCKED, _HOST_REFUSED = 1129, 1130
_CONNECTIONS_USED_UP = frozenset({1203, 1226})
_LOCKED = frozenset({3118, 4151})  # MySQL, MariaDB
_EXPIRED = frozenset({1820, 1862})
# By KILL QUERY; by a time limit of MariaDB; by one of MySQL.
_STOPPED = frozenset({1317, 1969, 3024})
_FULL = frozenset({1021, 1114})
_NO_MEMORY = frozenset({1037, 1038, 1041, 1135, 1206})
_TOO_MANY_TRANSACTIONS = 1637
_STORAGE_FAILED = 1030
# Of a node of a cluster that is not ready; else a server knows all commands of the driver.
_NOT_READY = 1047
_TABLE_CHANGED = 1412
_PACKET_TOO_LARGE = 1153
_TAKES_NO_FILES = frozenset({1148, 3948, 4166})  # MySQL, since 8, MariaDB
_NO_PASSWORD_TAKEN = 1698
_TLS_REQUIRED = 3159
LOGIN_NEEDS_TLS = Code.NOT_SUPPORTED_AUTH_MODE
_PRIMARY = "PRIMARY"
_KEY_OUT_OF_RANGE = 167
_NO_NEXT_KEY = 1467
_HIGHEST_OF_64_BITS = 2**63 - 1
# A server that was demoted to a replica rejects writes with these errors.
_READ_ONLY = 1290
# A setting does that, too.
_READ_ONLY_TRANSACTION = 1792
_DEMOTED = frozenset({_READ_ONLY, _READ_ONLY_TRANSACTION, 1836})
_ENDS = frozenset({Code.SERVER_SHUTDOWN, _CONNECTION_KILLED})
_LOST = _ENDS | {Code.CR_SERVER_GONE_ERROR, Code.CR_SERVER_LOST, _CLOSED_WHILE_IDLE}
# The database undid the transaction because another one was in its way.
_UNDONE = frozenset({Code.LOCK_DEADLOCK, Code.DUP_ENTRY})

# Errors after which the transaction is certainly not committed: the server rejected the COMMIT, or
# did not receive all of it.
CERTAINLY_NOT_COMMITTED = _DEMOTED | {
    *(Code.CR_SERVER_GONE_ERROR, Code.LOCK_DEADLOCK, _CLOSED_WHILE_IDLE),
}

# A statement names a table or a column that does not exist, or leaves out a column that needs a
# value.
_MISFIT = frozenset({Code.NO_SUCH_TABLE, Code.BAD_FIELD_ERROR, Code.NO_DEFAULT_FOR_FIELD})
_CHECK_VIOLATED = frozenset({3819, 4025})  # MySQL, MariaDB
_CHILD_WITHOUT_PARENT, _PARENT_WITH_CHILD = 1452, 1451
_SIGNAL, _SIGNAL_NOT_FOUND, _SIGNAL_STATE = 1644, 1643, "45000"
_NO_PARTITION = frozenset({1526, 1591})
_NO_DEFINER, _NO_FUNCTION = 1449, 1305
# An expression in a guard (see `statements.guarded`), in a trigger or in a generated column.
_INTEGER_OUT_OF_RANGE = 1690
_DIVISION_BY_ZERO, _WRONG_VALUE = 1365, 1292
# The RDS Data API tells no SQLSTATE, and some of these have none of their own.
_EXPRESSION_FAILED = frozenset(
    {
        *(_INTEGER_OUT_OF_RANGE, _DIVISION_BY_ZERO, _WRONG_VALUE, 1367, 1411, 1441, 1525, 3020),
        *(1172, 1242, 1329, 1339),  # a SELECT finds several rows or none, a CASE no branch
        *(1416, 3037, *range(4048, 4052)),  # places on a map
        *(1139, *range(3685, 3700)),  # regular expressions: MariaDB, MySQL
        *(*range(4035, 4047), 3140, 3141, 3144, 3146, *range(3156, 3159)),  # JSON: the same
    }
)
# What a SQLSTATE begins with: no row, no case, several rows where one is meant, and values that an
# expression cannot take.
_EXPRESSION_FAILED_STATES = ("02", "20", "21000", "22")
_VALUE_REJECTED = (
    _CHECK_VIOLATED
    | _EXPRESSION_FAILED
    | {
        *(Code.DATA_TOO_LONG, Code.WARN_DATA_OUT_OF_RANGE, Code.TRUNCATED_WRONG_VALUE_FOR_FIELD),
        *(Code.WARN_DATA_TRUNCATED, _CHILD_WITHOUT_PARENT, _PARENT_WITH_CHILD),
        *(_SIGNAL, _SIGNAL_NOT_FOUND),
        *(Code.BAD_NULL_ERROR, *_NO_PARTITION),
    }
)
# "INSERT command denied to user 'u'@'h' for table `herocache`.`heroes`", or "for column 'xp' in
# table 'heroes'".
_DENIED = frozenset({1142, 1143})
_RIGHT = re.compile(r"^([A-Z, ]+)( with locking clause)? command denied ")
_DENIED_TABLE = re.compile(r"table ['`](?:[^'`]*`\.`)?([^'`]+)['`]$")
# "for column 'xp' at row 2", in places "for column `herocache`.`heroes`.`xp` at row 2".
# A quoted value before it may look the same, so only the end of the text counts.
_COLUMN = re.compile(r"for column ['`](?:[^'`]*`\.`)*([^'`]+)['`] at row \d+$")
_NULL_COLUMN = re.compile(r"^Column '([^']+)' cannot be null")
_MISSING_TABLE = re.compile(r"^Table '(?:[^']*\.)?([^'.]+)' doesn't exist$")
_MISSING_FUNCTION = re.compile(r"^[A-Z]+ (?:\S*\.)?(\S+) does not exist$")
_FOREIGN_KEY = re.compile(r"FOREIGN KEY \(`([^`]+)`\) REFERENCES `([^`]+)`")
_INDEX = re.compile(r"for key '(?:[^']*\.)?([^'.]+)'$")
_CONSTRAINT = re.compile(r"onstraint ['`](?:[^'`]*\.)?([^'`.]+)['`]", re.IGNORECASE)

_IN_WORDS = {
    Code.ACCESS_DENIED_ERROR: "it rejects the user or the password (DB_USER, DB_PASS)",
    Code.CR_SSL_CONNECTION_ERROR: "it speaks no TLS, and DB_SSL_CA asks for it",
    PASSWORD_WITHHELD: "it asks for the password itself, which only a server with a checked"
    " certificate is told: set DB_SSL_CA, or log in with mysql_native_password. Or it rejects"
    " the user or the password (DB_USER, DB_PASS): MySQL asks then, too",
    Code.DBACCESS_DENIED_ERROR: "the user has no rights on this database (DB_NAME)",
    Code.BAD_DB_ERROR: "it has no database of this name (DB_NAME)",
    Code.CON_COUNT_ERROR: "it has no connection left",
    **dict.fromkeys(
        _CONNECTIONS_USED_UP,
        "the user has reached a limit of its account, such as max_user_connections: raise it for"
        " DB_USER, or have fewer containers",
    ),
    **dict.fromkeys(_LOCKED, "the account of the user is locked (DB_USER): ALTER USER unlocks it"),
    **dict.fromkeys(_EXPIRED, "the user's password has expired (DB_USER, DB_PASS): set a new one"),
    _HOST_REFUSED: "the user may not log in from this host: create DB_USER for it, or for '%'",
    _HOST_BLOCKED: "it blocks this host after too many failed logins: FLUSH HOSTS ends that",
    **dict.fromkeys(_FULL, "it has no room left: its disk, or a file of it, is full"),
    **dict.fromkeys(
        _NO_MEMORY, "it has no memory left, for locks, a sort or a thread, for example"
    ),
    _TOO_MANY_TRANSACTIONS: "it has too many transactions at the same time",
    _STORAGE_FAILED: "its storage failed: the server's log says why",
    _NOT_READY: "it is not ready for requests yet",
    _TABLE_CHANGED: "somebody changes the table at this moment (ALTER TABLE)",
    _NO_PASSWORD_TAKEN: "the user has no password to log in with (DB_USER): give it one",
    Code.LOCK_WAIT_TIMEOUT: "another transaction holds the rows, or changes the table",
    _NO_NEXT_KEY: "a bulk insert of another transaction holds the counter of the keys",
    Code.LOCK_DEADLOCK: "it broke a deadlock with another transaction",
    Code.DUP_ENTRY: "other writers insert the same keys at the same time; where that does not end,"
    " a trigger inserts a key that its table has already",
    Code.SERVER_SHUTDOWN: "it is shutting down",
    _CONNECTION_KILLED: "it closed the connection",
    _CLOSED_WHILE_IDLE: "it closed the connection, which was idle for long",
    **dict.fromkeys(
        _STOPPED,
        "an operator stopped the statement (KILL QUERY), or a time limit of the server did",
    ),
    _TLS_REQUIRED: "it takes connections over TLS only: set DB_SSL_CA",
    LOGIN_NEEDS_TLS: "its way to log in needs TLS: use mysql_native_password, or TLS",
    **dict.fromkeys(_DEMOTED, "it is read-only now: a failover is going on"),
    _READ_ONLY_TRANSACTION: "its transactions are read-only now: a failover is going on, or an"
    " operator has set its transaction_read_only",
}


class DatabaseError(Exception):
    """What the server said of a statement, or what became of the connection to it: its `code` (0:
    none), its words, and its SQLSTATE where that is known. The cause is the engine's own error."""

    def __init__(self, code: int, words: str, sqlstate: str = "") -> None:
        super().__init__(code, words)
        self.code = code
        self.words = words
        self.sqlstate = sqlstate
        # What the network or the driver raised, where that was not the server's word.
        self.origin: BaseException | None = None
        # The settings that say where the database is.
        self.place = "DB_HOST, DB_PORT"


class AnswerTooLarge(DatabaseError):
    """The rows do not fit into one answer of the engine. Nothing was changed."""


def reject_replica(is_read_only: int) -> None:
    """A replica answers reads, but may lack the last writes. So this raises the error with which a
    replica answers a write."""
    if is_read_only:
        raise DatabaseError(_READ_ONLY, "the server is read-only")


def is_said_by_server(error: BaseException) -> bool:
    """Whether the server surely sent this error. The driver's own errors, for a lost connection,
    have numbers from 2000 to 2999. A proxy that lost its server sends one of these, too, or an
    error of its own, or what a server says that ends a connection."""
    code = code_of(error)
    is_of_other = code <= 0 or code // 1000 == 2 or _is_of_proxy(error)
    return not is_of_other and code not in _ENDS


def _is_of_proxy(error: BaseException | None) -> bool:
    """Whether a proxy has no connection to the database: 9501 of RDS Proxy, from 9001 on of
    ProxySQL. No server has such numbers."""
    return code_of(error) // 1000 == 9


def is_login_rejected(error: DatabaseError) -> bool:
    """Whether the server rejected the user or the password. MySQL asks for the password itself
    then, where that was withheld."""
    return code_of(error) in (Code.ACCESS_DENIED_ERROR, PASSWORD_WITHHELD)


def translated_from_connecting(error: DatabaseError, settings: Settings) -> Exception:
    """As `translated`, for an error while connecting. Where the database may sleep and is silent
    after it took the connection, the text says that it may be waking up."""
    found = translated(error)
    if found is error:
        found = DatabaseUnavailable(
            f"the database refuses the connection (DB_HOST, DB_USER): its error {code_of(error)}"
        )
    is_silent = isinstance(error.origin, TimeoutError)
    if settings.db_resume_seconds and is_silent and isinstance(found, DatabaseUnavailable):
        found = DatabaseUnavailable(f"{found} Or it is waking up: try again in a moment")
        found.retry_after_seconds = RESUME_RETRY_AFTER_SECONDS
    return found


def translated(error: DatabaseError) -> Exception:
    """The service's error for it: DatabaseUnavailable, ConfigurationError or TooLarge. Any other
    error is a bug and is returned as it is."""
    if isinstance(error, AnswerTooLarge):
        return TooLarge(
            "the table has rows that are longer than declared, too long for the database's answer:"
            " name fewer at a time; where one row is too long by itself, shorten it over a"
            " connection (the RDS Data API gives rows of up to 64 KB, and up to 1 MiB at a time)"
        )
    code = code_of(error)
    if code == _PACKET_TOO_LARGE:
        return TooLarge(
            "the request is longer than the database takes (its max_allowed_packet): send fewer"
            " items at a time, or have an operator raise it to 16 MB"
        )
    if code in _IN_WORDS:
        found = DatabaseUnavailable(f"the database cannot be used now: {_IN_WORDS[code]}")
        found.has_other_writer = code in _DEMOTED
        return found
    if _is_of_proxy(error):
        return DatabaseUnavailable(
            "the database cannot be reached: a proxy in front of it (DB_HOST) says so, with its"
            f" error {code}"
        )
    if code in _TAKES_NO_FILES:
        return ConfigurationError(
            "the database takes no files from its clients: have an operator set its local_infile"
            " to 1 (on AWS: a parameter of the cluster)"
        )
    if code == _NO_DEFINER:
        return ConfigurationError(
            "a trigger of the table belongs to a user (its DEFINER) that is not there any more:"
            " create the trigger again"
        )
    if code == _NO_FUNCTION:
        return ConfigurationError(
            f"a trigger of the table calls the function {_part(_MISSING_FUNCTION, error)}, which is"
            " not there: create it, or drop the trigger"
        )
    if code in _DENIED:
        right, table = _part(_RIGHT, error), _part(_DENIED_TABLE, error)
        if _part(_RIGHT, error, 2):
            right = "UPDATE"  # MySQL asks for it, or for DELETE or LOCK TABLES
        return ConfigurationError(
            f"DB_USER: the user lacks a right ({right}) on the table {table} or on a column of it:"
            f" have an operator run GRANT SELECT, INSERT, UPDATE, DELETE ON `{table}` TO that user"
        )
    if code in _LOST or code == Code.CR_CONN_HOST_ERROR:
        is_stranger = isinstance(error.origin, ssl.SSLCertVerificationError)
        where = DB_SSL_CA if is_stranger else error.place
        return DatabaseUnavailable(
            f"the database cannot be reached ({where}): {network_words(error.origin)}"
        )
    return error


def is_foreseen(error: DatabaseError) -> bool:
    """Whether `translated` has an error of the service for it."""
    return translated(error) is not error


def code_of(error: BaseException | None) -> int:
    """The number of the error. Some errors of the driver have none: then 0. A trigger that rejects
    a row may choose any number, also that of a deadlock: for all of them the one of SIGNAL."""
    if not isinstance(error, DatabaseError):
        return 0
    return _SIGNAL if error.sqlstate == _SIGNAL_STATE else error.code


def is_key_space_exhausted(error: DatabaseError, highest_key: int, *, is_held: bool) -> bool:
    """Whether an INSERT failed because AUTO_INCREMENT has no key left. MySQL then gives the highest
    key again and reports a duplicate, or `_NO_NEXT_KEY` where several are wanted. MariaDB has that
    number where a key has 64 bits, and else another one. Where a bulk insert holds the counter
    (`is_held`), `_NO_NEXT_KEY` may also mean that this took too long."""
    if code_of(error) == Code.DUP_ENTRY:
        is_key = duplicate_index(error) == _PRIMARY
        return is_key and error.words.startswith(f"Duplicate entry '{highest_key}' ")
    if code_of(error) == _NO_NEXT_KEY:
        return not is_held or highest_key >= _HIGHEST_OF_64_BITS
    return code_of(error) == _KEY_OUT_OF_RANGE


def is_guard_failed(error: BaseException | None) -> bool:
    """Whether the error of a guard says that it failed: a statement that is an error on purpose
    where its condition is false. The error of another statement may have the same number."""
    return code_of(error) == _INTEGER_OUT_OF_RANGE


def is_misfit(error: DatabaseError) -> bool:
    """Whether the statement failed because a table is not as declared."""
    return code_of(error) in _MISFIT


def is_forbidden(error: DatabaseError) -> bool:
    """Whether the user lacks the right for a statement in this database."""
    return code_of(error) == Code.DBACCESS_DENIED_ERROR


def is_value_rejected(error: DatabaseError) -> bool:
    """Whether a row was rejected because of its values. To try again would not help."""
    if code_of(error) == Code.DUP_ENTRY:
        return duplicate_index(error) not in ("", _PRIMARY)
    return code_of(error) in _VALUE_REJECTED or _is_expression_failed(error)


def duplicate_index(error: DatabaseError) -> str:
    """The unique index that has the value of the row already; empty for other errors."""
    return _part(_INDEX, error) if code_of(error) == Code.DUP_ENTRY else ""


def missing_table(error: DatabaseError) -> str:
    """The table that the statement, or a trigger that it fired, did not find; else empty."""
    return _part(_MISSING_TABLE, error)


def _is_expression_failed(error: DatabaseError) -> bool:
    """Whether a trigger or a generated column cannot compute with a value. That no key is left has
    a SQLSTATE of these, too."""
    code, state = code_of(error), error.sqlstate
    is_of_state = state.startswith(_EXPRESSION_FAILED_STATES) and code != _KEY_OUT_OF_RANGE
    return code in _EXPRESSION_FAILED or is_of_state


def rejection(error: DatabaseError) -> tuple[str, str]:
    """For an error of `is_value_rejected`: the column that it names, or an empty text; and the
    reason. For a duplicate the column is empty, because the error names only an index."""
    code = code_of(error)
    column = _part(_COLUMN, error)
    if code == Code.DUP_ENTRY:
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
    if code == Code.BAD_NULL_ERROR:
        return _part(_NULL_COLUMN, error), "a trigger gives it NULL, which it does not take"
    if code in _NO_PARTITION:
        return "", "the table has no partition for this row"
    if code in (_SIGNAL, _SIGNAL_NOT_FOUND):
        return "", f"a trigger rejects this row: {error.words}"
    if code not in _VALUE_REJECTED or code in _EXPRESSION_FAILED:
        return "", "a trigger or a generated column of the table cannot compute with it"
    return column, "the database does not take this value"


def _part(pattern: re.Pattern[str], error: DatabaseError, group: int = 1) -> str:
    found = pattern.search(error.words)
    return (found[group] or "") if found else ""


def is_unfit(error: BaseException | None) -> bool:
    """Whether the connection cannot be used any more after this error."""
    return code_of(error) in _LOST | _DEMOTED or _is_of_proxy(error)


def is_undone(error: DatabaseError) -> bool:
    """Whether the database undid the transaction because another one was in its way."""
    return code_of(error) in _UNDONE
