"""What the Data API says went wrong, in the service's words.

An error of the SQL itself becomes the DatabaseError that any engine raises for it.
"""

import re
from collections.abc import Mapping
from typing import Any

from chalicelib.config import DB_CLUSTER_ARN, DB_NAME, DB_SECRET_ARN
from chalicelib.db.errors import AnswerTooLarge, Code, DatabaseError
from chalicelib.errors import ConfigurationError, DatabaseUnavailable

# The statement was not run: it may be sent again in a moment.
RESUMING = "DatabaseResumingException"
THROTTLED = frozenset(
    {"ThrottlingException", "Throttling", "TooManyRequestsException", "RequestLimitExceeded"}
)
TRANSACTION_LOST = frozenset({"TransactionNotFoundException", "NotFoundException"})
# The cause is text only. Newer clusters write the first form, older ones the second.
_SQL_ERRORS = (
    re.compile(r"Database error code: (?P<code>\d+)\. Message: (?P<words>.*)", re.DOTALL),
    re.compile(r"(?P<words>.*); Error code: (?P<code>\d+); SQLState: (?P<state>\w+)", re.DOTALL),
)
# The last of these is about a row.
_TOO_LARGE = re.compile(
    "allowed response size limit|result (set )?(is|was) too large|packet for query is too large",
    re.IGNORECASE,
)
_NO_LOGIN = frozenset({Code.ACCESS_DENIED_ERROR, Code.DBACCESS_DENIED_ERROR})

_REFUSED: Mapping[str, str] = {
    **dict.fromkeys(
        ("AccessDeniedException", "ForbiddenException"),
        "the caller may not use it: its policy must allow rds-data:ExecuteStatement,"
        f" BatchExecuteStatement, BeginTransaction, CommitTransaction and RollbackTransaction on"
        f" {DB_CLUSTER_ARN}, and secretsmanager:GetSecretValue on {DB_SECRET_ARN}",
    ),
    "HttpEndpointNotEnabledException": f"the Data API is off for {DB_CLUSTER_ARN}: have an operator"
    " run aws rds enable-http-endpoint --resource-arn with that ARN",
    "InvalidSecretException": f"{DB_SECRET_ARN}: the secret is not one with username and password",
    "SecretsErrorException": f"{DB_SECRET_ARN}: the secret is not there, or cannot be read",
    **dict.fromkeys(
        ("UnrecognizedClientException", "InvalidClientTokenId", "ExpiredTokenException"),
        "AWS does not know the caller's credentials, or they have expired",
    ),
}


# After these nothing of a call was run, a COMMIT included.
SURELY_NOT_RUN = frozenset({RESUMING, *THROTTLED, *_REFUSED})


def name_of(error: BaseException | None) -> str:
    """The name that the Data API gives to an error; empty for others."""
    response = getattr(error, "response", None) or {}
    return str(response.get("Error", {}).get("Code", ""))


def translated(name: str, words: str) -> Exception:
    """The error `name` of the Data API: a DatabaseError, ConfigurationError or
    DatabaseUnavailable."""
    if _TOO_LARGE.search(words) or name == "UnsupportedResultException":
        return AnswerTooLarge(0, words)
    for pattern in _SQL_ERRORS:
        if found := pattern.search(words):
            return _of_sql(found.groupdict())
    if name in TRANSACTION_LOST:
        return lost(Code.CR_SERVER_GONE_ERROR, "the transaction has ended")
    if name == "StatementTimeoutException":
        timed_out = lost(Code.CR_SERVER_LOST, "the statement took too long")
        timed_out.origin = TimeoutError()
        return timed_out
    if name in _REFUSED:
        return ConfigurationError(f"the RDS Data API: {_REFUSED[name]}")
    if name == "ValidationException":  # a statement of ours that the Data API does not take: a bug
        return DatabaseError(0, words)
    if name == "BadRequestException":
        settings = f"{DB_CLUSTER_ARN}, {DB_SECRET_ARN}, {DB_NAME}"
        return ConfigurationError(f"the RDS Data API refuses the call ({settings}): {words}")
    if name in ("DatabaseNotFoundException", "InvalidResourceStateException"):
        return DatabaseUnavailable(
            f"the database cannot be used now ({DB_CLUSTER_ARN}): the cluster is stopped, or has no"
            " instance"
        )
    return lost(Code.CR_SERVER_LOST, f"{name}: {words}")


def waking_up() -> DatabaseUnavailable:
    """For a database that was still asleep when the time to wait was over."""
    error = DatabaseUnavailable("the database is waking up: try again in a moment")
    error.retry_after_seconds = 5
    return error


def throttled() -> DatabaseUnavailable:
    """For a service that still takes no more calls after some tries."""
    return DatabaseUnavailable("the RDS Data API takes no more calls now: send fewer at a time")


def lost(code: Code, words: str) -> DatabaseError:
    """For a call without an answer. GONE: certainly nothing was done; LOST: nobody knows."""
    error = DatabaseError(code, words)
    error.place = DB_CLUSTER_ARN
    return error


def _of_sql(found: Mapping[str, Any]) -> Exception:
    code = int(found["code"])
    if code in _NO_LOGIN:
        return ConfigurationError(
            f"{DB_SECRET_ARN}, {DB_NAME}: the database rejects the user or the password of this"
            " secret, or the user has no rights on this database"
        )
    if code == Code.CR_SERVER_GONE_ERROR:  # of its own connection: nobody knows what was done
        code = Code.CR_SERVER_LOST
    return DatabaseError(code, found["words"], found.get("state", ""))
