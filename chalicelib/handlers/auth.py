"""Who may call the routes of a stage: everybody, or callers with IAM credentials or an API key."""

from collections.abc import Mapping
from typing import Any

from chalice.app import IAMAuthorizer

from chalicelib.config import API_AUTH, ApiAuth, api_auth
from chalicelib.errors import ConfigurationError

# Set by the command `chalice`, never on Lambda.
COMMAND = "AWS_CHALICE_CLI_MODE"


def guard(environment: Mapping[str, str]) -> dict[str, Any]:
    """The options of a Chalice route that make API Gateway check the caller. They take effect when
    the stage is deployed: `chalice deploy` imports the app with the stage's settings. Raises
    ConfigurationError for an unknown API_AUTH, and for a command of Chalice without one: a setting
    that was forgotten must not open an API."""
    if COMMAND in environment and API_AUTH not in environment:
        raise ConfigurationError(
            f"{API_AUTH} is not set: write none (everybody may call), iam or key into this stage's"
            " part of .chalice/config.json, or into .local/env"
        )
    options: dict[ApiAuth, dict[str, Any]] = {
        ApiAuth.NONE: {},
        ApiAuth.IAM: {"authorizer": IAMAuthorizer()},
        ApiAuth.KEY: {"api_key_required": True},
    }
    return options[api_auth(environment)]
