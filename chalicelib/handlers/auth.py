"""Who may call the routes of a stage. `app` puts the guard on each route that does some work."""

from collections.abc import Mapping
from typing import Any

from chalice.app import IAMAuthorizer

from chalicelib.config import api_auth


def guard(environment: Mapping[str, str]) -> dict[str, Any]:
    """Options of a Chalice route. API Gateway checks the caller before anything of ours runs, so
    they take effect when the stage is deployed: `chalice deploy` imports the app with the stage's
    variables in the environment. Raises ConfigurationError for an unknown API_AUTH."""
    options: dict[str, dict[str, Any]] = {
        "none": {},
        "iam": {"authorizer": IAMAuthorizer()},
        "key": {"api_key_required": True},
    }
    return options[api_auth(environment)]
