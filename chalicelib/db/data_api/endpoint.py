"""The calls of the Data API: who is asked, how long, and what is tried again."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

from chalicelib.config import Settings
from chalicelib.db.data_api.errors import (
    RESUMING,
    THROTTLED,
    lost,
    throttled,
    translated,
    waking_up,
)
from chalicelib.db.engine import ANSWER_TIMEOUT_SECONDS
from chalicelib.db.errors import Code
from chalicelib.errors import ConfigurationError

# For an answer, where a connection would wait ANSWER_TIMEOUT_SECONDS: a call is an HTTPS request,
# and its first one opens a connection and reads the secret.
CALL_TIMEOUT_SECONDS = 6.0
CONNECT_TIMEOUT_SECONDS = 2.0
# Where a connection would wait less than that, a call waits so many times as long: a slow call is
# no database that is away.
SLOWER = 6
# A cluster that sleeps needs about 15 s to resume. DB_RESUME_SECONDS may say another time.
RESUME_SECONDS = 18
THROTTLED_SECONDS = 2.0
FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 1.0


class Endpoint:
    """One cluster and one secret. Safe for threads."""

    def __init__(self, settings: Settings) -> None:
        self._database = settings.db_name
        self._target = {
            "resourceArn": settings.db_cluster_arn,
            "secretArn": settings.db_secret_arn,
        }
        self._region = settings.db_cluster_arn.split(":")[3]
        self._resume_seconds = settings.db_resume_seconds or RESUME_SECONDS
        self._clients: dict[float, Any] = {}
        self._making = threading.Lock()

    def begin(self, seconds: float) -> str:
        """The id of a new transaction."""
        reply = self._call("begin_transaction", seconds, database=self._database)
        return str(reply["transactionId"])

    def execute(
        self, sql: str, parameters: Sequence[Mapping[str, Any]], transaction: str, seconds: float
    ) -> Mapping[str, Any]:
        """Without a `transaction` it is committed by itself."""
        return self._call(
            "execute_statement",
            seconds,
            sql=sql,
            parameters=parameters,
            **self._within(transaction),
        )

    def end(self, operation: str, transaction: str, seconds: float) -> None:
        """`commit_transaction` or `rollback_transaction`."""
        self._call(operation, seconds, transactionId=transaction)

    def _within(self, transaction: str) -> dict[str, str]:
        return {"transactionId": transaction} if transaction else {"database": self._database}

    def _call(self, operation: str, seconds: float, **arguments: Any) -> Mapping[str, Any]:
        """Tries again what was certainly not done: by a database that wakes up, and by a service
        that is asked too often. Raises DatabaseError, DatabaseUnavailable, ConfigurationError."""
        from botocore import exceptions

        call: Callable[..., Mapping[str, Any]] = getattr(self._client(seconds), operation)
        begun, pause = time.monotonic(), FIRST_PAUSE_SECONDS
        while True:
            try:
                return call(**self._target, **arguments)
            except exceptions.ClientError as error:
                found = error.response.get("Error", {})
                name, words = found.get("Code", ""), found.get("Message", "")
                if name != RESUMING and name not in THROTTLED:
                    raise translated(name, words) from error
                waited = time.monotonic() - begun
                if name == RESUMING and waited > self._patience(seconds):
                    raise waking_up() from error
                if name in THROTTLED and waited > THROTTLED_SECONDS:
                    raise throttled() from error
            except (exceptions.EndpointConnectionError, exceptions.ConnectTimeoutError) as error:
                raise _unreachable(error) from error
            except (exceptions.ReadTimeoutError, exceptions.HTTPClientError) as error:
                raise _unanswered(error) from error
            except exceptions.BotoCoreError as error:
                raise ConfigurationError(f"the RDS Data API cannot be called: {error}") from error
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)

    def _patience(self, seconds: float) -> float:
        """A caller with a short time limit does not wait for a database that is asleep either."""
        return self._resume_seconds if seconds >= ANSWER_TIMEOUT_SECONDS else seconds

    def _client(self, seconds: float) -> Any:
        """A client has one time to wait for answers. Of a session only one thread may make some."""
        if seconds not in self._clients:
            with self._making:
                self._clients[seconds] = self._new_client(seconds)
        return self._clients[seconds]

    @cached_property
    def _session(self) -> Any:
        """Reads the model of the service once for all clients: 50 ms."""
        import boto3

        return boto3.session.Session(region_name=self._region)

    def _new_client(self, seconds: float) -> Any:
        from botocore.config import Config

        is_usual = seconds >= ANSWER_TIMEOUT_SECONDS
        config = Config(
            connect_timeout=CONNECT_TIMEOUT_SECONDS,
            read_timeout=max(seconds, CALL_TIMEOUT_SECONDS) if is_usual else seconds * SLOWER,
            retries={"total_max_attempts": 1},  # a COMMIT must not be sent twice
            max_pool_connections=20,
            tcp_keepalive=True,
        )
        return self._session.client("rds-data", config=config)


def _unreachable(error: Exception) -> Exception:
    """The request was never sent."""
    found = lost(Code.CR_CONN_HOST_ERROR, str(error))
    found.origin = TimeoutError() if "imeout" in type(error).__name__ else error
    return found


def _unanswered(error: Exception) -> Exception:
    found = lost(Code.CR_SERVER_LOST, str(error))
    found.origin = TimeoutError() if "imeout" in type(error).__name__ else error
    return found
