"""From the settings to what stands for a connection, once the cluster's parameters are known."""

from collections.abc import Sequence
from typing import NamedTuple

from chalicelib.config import DB_CLUSTER_ARN, REDIS_URL, Settings
from chalicelib.db.change_capture import MARK_OWN, MARK_OWN_HERE, PLACE_TO_MARK
from chalicelib.db.data_api.connection import Connection
from chalicelib.db.data_api.endpoint import Endpoint
from chalicelib.db.data_api.errors import name_of
from chalicelib.db.engine import ANSWER_TIMEOUT_SECONDS, LOCK_TIMEOUT_SECONDS
from chalicelib.db.errors import DatabaseError
from chalicelib.db.statements import Statement
from chalicelib.errors import ConfigurationError

_VARIABLES = (
    f"SHOW VARIABLES WHERE {PLACE_TO_MARK}Variable_name IN ('auto_increment_increment', 'sql_mode',"
    " 'innodb_autoinc_lock_mode', 'tx_isolation', 'transaction_isolation',"
    " 'innodb_lock_wait_timeout', 'sql_select_limit', 'lc_messages')"
)
_NO_LIMIT = str(2**64 - 1)
_STRICT = "STRICT_ALL_TABLES"
_ENGLISH = "en_US"  # the language in which `db.errors` reads what an error says
_SESSION: Statement = (
    f"SET sql_mode='{_STRICT}', innodb_lock_wait_timeout={LOCK_TIMEOUT_SECONDS},"
    f" lc_messages='{_ENGLISH}'",
    (),
)
_OWN: Statement = (f"SET {MARK_OWN}", ())
# How the Data API may reject a statement that it cannot read.
_UNREADABLE = frozenset({"BadRequestException", "ValidationException", "DatabaseErrorException"})


class Parameters(NamedTuple):
    """Of the cluster: how far apart new keys are, whether a bulk insert holds their counter, and
    what each transaction begins with. `mark`: what says within a statement that the session is the
    service's own."""

    key_step: int
    holds_keys: bool
    session: Sequence[Statement]
    mark: str = ""


class Connector:
    """Makes connections that share one client."""

    def __init__(self, settings: Settings) -> None:
        self._endpoint = Endpoint(settings)
        self._is_cached = bool(settings.redis_url)
        self._parameters: Parameters | None = None

    def __call__(self, patience_seconds: float | None = None) -> Connection:
        """One request, the first time. Raises DatabaseError, DatabaseUnavailable,
        ConfigurationError."""
        if self._parameters is None:
            asking = Connection(self._endpoint, 1, False, ())
            asking.wait_at_most(patience_seconds or ANSWER_TIMEOUT_SECONDS)
            self._parameters = self._asked(asking)
        connection = Connection(self._endpoint, *self._parameters)
        connection.wait_at_most(patience_seconds or ANSWER_TIMEOUT_SECONDS)
        return connection

    def _asked(self, asking: Connection) -> Parameters:
        """Whether the Data API takes `:=`, which is no parameter, is not documented. Where it does
        not, each transaction begins with one more request."""
        try:
            found = asking.rows((_VARIABLES.replace(PLACE_TO_MARK, MARK_OWN_HERE), ()))
            return self._judged(dict(found))._replace(mark=MARK_OWN_HERE)
        except (DatabaseError, ConfigurationError) as error:
            if name_of(error.__cause__) not in _UNREADABLE:
                raise
        parameters = self._judged(dict(asking.rows((_VARIABLES, ()))))
        return parameters._replace(session=(*parameters.session, _OWN))

    def _judged(self, found: dict[str, str]) -> Parameters:
        """The statements of a session do not outlive a request outside of transactions, so what
        they cannot set must be in the cluster's parameters."""
        if found.get("sql_select_limit") != _NO_LIMIT:  # it may cut what tells it
            raise ConfigurationError(
                f"{DB_CLUSTER_ARN}: the parameter group of the cluster must not set"
                " sql_select_limit: it cuts what is read"
            )
        isolation = found.get("transaction_isolation") or found.get("tx_isolation", "")
        if self._is_cached and isolation != "READ-COMMITTED":
            raise ConfigurationError(
                f"{DB_CLUSTER_ARN}: with a cache ({REDIS_URL}) the parameter group of the cluster"
                f" must set transaction_isolation to READ-COMMITTED, and it is {isolation}"
            )
        is_strict = _STRICT in found.get("sql_mode", "").split(",")
        is_quick = int(found.get("innodb_lock_wait_timeout", 50)) <= LOCK_TIMEOUT_SECONDS
        is_read = found.get("lc_messages", _ENGLISH) == _ENGLISH
        return Parameters(
            int(found["auto_increment_increment"]),
            found.get("innodb_autoinc_lock_mode") != "2",
            () if is_strict and is_quick and is_read else (_SESSION,),
        )
