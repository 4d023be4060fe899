"""Who may call: what API_AUTH makes of the routes, as `chalice deploy` sees them."""

import json
import os
from typing import Any

import pytest

from bench.api_gateway_event import rest_event
from chalicelib.errors import ConfigurationError
from tests.conftest import Configure
from tests.house.test_house import run_python
from tests.support.client import Answer, InProcess, Row, hero
from tests.support.witness import Witness

GUARDED = (("/", "post"), ("/read", "post"), ("/health/deep", "get"))
# A browser sends OPTIONS without credentials.
OPEN = (
    ("/health", "get"),
    ("/health", "head"),
    *((path, "options") for path in ("/", "/read", "/health", "/health/deep")),
)
# Loads the app by the call that `chalice deploy` makes, with a stage's environment variables.
SWAGGER = """
import json, os
from chalice.cli.factory import CLIFactory
from chalice.deploy.swagger import CFNSwaggerGenerator

os.environ["AWS_CHALICE_CLI_MODE"] = "true"
factory = CLIFactory(os.getcwd(), environ=os.environ)
app = factory.load_chalice_app(%r)
print(json.dumps(CFNSwaggerGenerator().generate_swagger(app)))
"""


def security(auth: str | None) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """Of each route: what API Gateway asks of a caller. `auth`: None where a stage has no such
    setting."""
    environment = {**os.environ, "PYTHONWARNINGS": "default"}
    variables = {} if auth is None else {"API_AUTH": auth}
    swagger = json.loads(run_python(SWAGGER % variables, environment))
    return {
        (path, method): operation.get("security", [])
        for path, operations in swagger["paths"].items()
        for method, operation in operations.items()
    }


@pytest.mark.parametrize(
    ("auth", "asked"), [("none", []), ("iam", [{"sigv4": []}]), ("key", [{"api_key": []}])]
)
def test_every_route_that_works_asks_who_calls_and_shallow_health_does_not(
    auth: str, asked: list[dict[str, Any]]
) -> None:
    routes = security(auth)

    assert routes == {**dict.fromkeys(GUARDED, asked), **{route: [] for route in OPEN}}


def test_an_unknown_way_is_refused_when_the_stage_is_deployed() -> None:
    with pytest.raises(AssertionError, match="API_AUTH: expected none, iam or key"):
        security("everybody")
    assert issubclass(ConfigurationError, Exception)


@pytest.mark.parametrize(("auth", "said"), [("", "API_AUTH is empty"), (None, "API_AUTH is not s")])
def test_no_api_is_open_because_a_setting_was_forgotten(auth: str | None, said: str) -> None:
    with pytest.raises(AssertionError, match=said):
        security(auth)


@pytest.mark.parametrize("auth", ["iam", "key"])
def test_a_stage_that_asks_who_calls_works_no_server_for_strangers(
    service: InProcess, configure: Configure, auth: str
) -> None:
    configure(API_AUTH=auth, DB_HOST="no-such-host.invalid")

    assert service.health().fields["status"] == "ok"
    rejected = service.health("?deep=1")
    assert (rejected.status, rejected.error) == (400, "BadRequest")
    assert "use GET /health/deep" in rejected.message

    configure(API_AUTH=auth)
    assert service.health("/deep").fields["database"]["ok"] is True


def test_an_open_stage_answers_at_both_places(service: InProcess) -> None:
    for query in ("?deep=1", "/deep"):
        assert service.health(query).fields["cache"]["ok"] is True


# --- callers who may only read --------------------------------------------------------------------

CHANGES: list[Row] = [
    {"REQUEST": "write", "SQLS": [hero()]},
    {"REQUEST": "write", "SQLS": [hero()], "IDEMPOTENCY_KEY": "a"},
    {"REQUEST": "delete", "SQLS": [1]},
    {"REQUEST": "increment", "TABLE": "products", "SQLS": [{"ProductId": 1, "QuantityInStock": 1}]},
    {"REQUEST": "invalidate", "SQLS": ["*"]},
    {"REQUEST": "watch", "SQLS": [1], "DIRECTION": "to_cache"},
    {"REQUEST": "unwatch", "SQLS": [1]},
]
READER = {"apiKeyId": "reader1234"}


def sent(service: InProcess, path: str, request: Row, identity: Row | None = None) -> Answer:
    event = rest_event(json.dumps(request))
    context = event["requestContext"]
    context["resourcePath"] = path
    context["identity"] |= identity or {}
    return service.dispatch(event)


@pytest.mark.parametrize("way", ["by its route", "by its key", "by its role"])
def test_who_may_only_read_changes_nothing(
    service: InProcess, configure: Configure, witness: Witness, way: str
) -> None:
    configure(API_READERS="reader1234, AROAREADER")
    service.write([{"id": 1, **hero()}])
    before = witness.state()
    path = "/read" if way == "by its route" else "/"
    role = {"caller": "AROAREADER:session"}
    identity = {"by its key": READER, "by its role": role}.get(way, {"apiKeyId": "writer1234"})
    for change in CHANGES:
        answer = sent(service, path, change, identity)
        assert (answer.status, answer.error) == (403, "Forbidden"), change
    assert witness.state() == before

    for use_cache in ("True", "False"):
        read = {"REQUEST": "read", "SQLS": [1], "USE_CACHE": use_cache}
        assert sent(service, path, read, identity).content == service.post(read).content
    assert sent(service, path, {"REQUEST": "watched"}, identity).status == 200


def test_others_change_rows_as_ever(service: InProcess, configure: Configure) -> None:
    configure(API_READERS="reader1234")
    for identity in ({}, {"apiKeyId": "writer1234"}, {"caller": "reader1234x"}):
        assert sent(service, "/", CHANGES[0], identity).status == 200


def test_errors_in_the_log_name_the_caller(
    service: InProcess, configure: Configure, caplog: pytest.LogCaptureFixture
) -> None:
    configure(DB_TABLE="no_such_table")
    assert sent(service, "/", {"REQUEST": "read", "SQLS": [1]}, READER).status == 500
    [record] = [each for each in caplog.records if each.levelname == "ERROR"]
    assert record.getMessage().endswith("; caller reader1234")
