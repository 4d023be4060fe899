"""Who may call the routes of a stage: everybody, or callers with IAM credentials or an API key."""

from collections.abc import Mapping
from typing import Any

from chalice.app import IAMAuthorizer

from chalicelib.config import ApiAuth, api_auth


def guard(environment: Mapping[str, str]) -> dict[str, Any]:
    """The options of a Chalice route that make API Gateway check the caller. They take effect when
    the stage is deployed: `chalice deploy` imports the app with the stage's settings. Raises
    ConfigurationError for an unknown API_AUTH."""
    options: dict[ApiAuth, dict[str, Any]] = {
        ApiAuth.NONE: {},
        ApiAuth.IAM: {"authorizer": IAMAuthorizer()},
        ApiAuth.KEY: {"api_key_required": True},
    }
    return options[api_auth(environment)]
