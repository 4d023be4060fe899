"""Credential providers: a user and a password for each connection that the service opens.

The password comes from a setting (`DB_PASS`, or inside `REDIS_URL`), from Secrets Manager
(`DB_SECRET_ARN`), or is a token signed for one connection (`DB_AUTH=iam`, `REDIS_AUTH=iam`).
"""

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

from chalicelib.config import DB_SECRET_ARN, Settings
from chalicelib.credentials.iam_tokens import cache_token, database_token
from chalicelib.errors import ConfigurationError, DatabaseUnavailable
from chalicelib.single_flight import SingleFlight

log = logging.getLogger("herocache.identity")

# For each of the two attempts to read a secret.
SECRET_CONNECT_SECONDS, SECRET_ANSWER_SECONDS = 1, 2
# During a rotation the database has the new password while the secret still calls it pending.
STAGES = ("AWSCURRENT", "AWSPENDING")


@dataclass(frozen=True)
class Login:
    user: str
    password: str = field(repr=False)


class CredentialProvider(Protocol):
    """A credential provider for the database."""

    def login(self) -> Login:
        """The credentials for a new connection. Raises ConfigurationError,
        DatabaseUnavailable."""

    def instead(self, rejected: Login) -> Login | None:
        """Other credentials, after the database has rejected those in `rejected`; None where there
        are none."""


def database_credentials(settings: Settings) -> CredentialProvider:
    if settings.db_auth:
        return _Signed(settings)
    if settings.db_secret_arn:
        return _Secret(settings.db_secret_arn)
    return _Given(Login(settings.db_user, settings.db_pass))


def cache_credentials(settings: Settings) -> Callable[[], tuple[str, str]] | None:
    """A credential provider for Redis: gives user and password for a new connection. None where
    REDIS_URL has them, or where Redis needs none."""
    if not settings.redis_auth:
        return None
    user = unquote(urlsplit(settings.redis_url).username or "")
    name, is_serverless = settings.redis_cache_name, settings.redis_serverless
    return lambda: (user, cache_token(name, user, is_serverless=is_serverless))


class _Given:
    def __init__(self, login: Login) -> None:
        self._login = login

    def login(self) -> Login:
        return self._login

    def instead(self, rejected: Login) -> Login | None:
        return None


class _Signed:
    def __init__(self, settings: Settings) -> None:
        self._place = (settings.db_host, settings.db_port, settings.db_user)

    def login(self) -> Login:
        return Login(self._place[2], database_token(*self._place))

    def instead(self, rejected: Login) -> Login | None:
        return None


class _Secret:
    """The secret in Secrets Manager. It is read for the first connection and kept. When the
    database rejects it, it is read again."""

    def __init__(self, arn: str) -> None:
        self._arn = arn
        self._kept: Login | None = None
        self._reading = SingleFlight[Login | None]()

    def login(self) -> Login:
        login = self._kept or self._reading.ask(None, self._first)
        if login is None:
            raise self._unusable(f"it has no {STAGES[0]} version")
        return login

    def instead(self, rejected: Login) -> Login | None:
        return self._reading.ask(rejected, lambda: self._other(rejected))

    def _first(self) -> Login | None:
        if self._kept is None:
            self._kept = self._read(STAGES[0])
        return self._kept

    def _other(self, rejected: Login) -> Login | None:
        if self._kept not in (None, rejected):
            return self._kept  # another thread was rejected and has read the secret again
        for stage in STAGES:
            login = self._read(stage)
            if login is not None and login != rejected:
                log.warning("the password was rejected: taking the secret's %s", stage)
                self._kept = login
                return login
        return None

    def _read(self, stage: str) -> Login | None:
        """The secret's version in this stage; None where it has none."""
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            text = self._client().get_secret_value(SecretId=self._arn, VersionStage=stage)
        except ClientError as error:
            code = str(error.response["Error"]["Code"])
            if code == "ResourceNotFoundException" and stage != STAGES[0]:
                return None
            if code in ("AccessDeniedException", "ResourceNotFoundException"):
                raise self._unusable(f"Secrets Manager answers {code}") from error
            raise _unreadable(code) from error
        except BotoCoreError as error:
            raise _unreadable(type(error).__name__) from error
        return self._parsed(text.get("SecretString", ""))

    def _client(self) -> Any:
        import boto3
        from botocore.config import Config

        patience = Config(
            connect_timeout=SECRET_CONNECT_SECONDS,
            read_timeout=SECRET_ANSWER_SECONDS,
            retries={"total_max_attempts": 2},
        )
        return boto3.client("secretsmanager", region_name=self._arn.split(":")[3], config=patience)

    def _parsed(self, text: str) -> Login:
        try:
            fields = json.loads(text)
            login = Login(fields["username"], fields["password"])
        except (ValueError, KeyError, TypeError):
            # `from None`, because the text of the cause would quote the secret.
            raise self._unusable('expected a JSON object with "username" and "password"') from None
        if not (isinstance(login.user, str) and isinstance(login.password, str)):
            raise self._unusable('its "username" and "password" must be strings')
        return login

    def _unusable(self, why: str) -> ConfigurationError:
        return ConfigurationError(f"{DB_SECRET_ARN}: {why}")


def _unreadable(why: str) -> DatabaseUnavailable:
    return DatabaseUnavailable(
        f"the database's password cannot be read from Secrets Manager (DB_SECRET_ARN): {why};"
        " is there a route (interface endpoint, security group)?"
    )
