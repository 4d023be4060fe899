"""What API Gateway answers by itself, by the settings of a stage."""

import json
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.exceptions import ClientError

from infra import aws_errors, gateway_responses
from tests.support.client import Answer
from tests.support.emulated_aws import Emulated

Json = dict[str, Any]
JSON = "application/json"


@pytest.fixture
def api_id(account: Emulated) -> Iterator[str]:
    """Of an API with one path."""
    integration = {"type": "aws_proxy", "uri": "arn:aws:lambda:a", "httpMethod": "POST"}
    operation = {"x-amazon-apigateway-integration": integration, "responses": {}}
    document = {"swagger": "2.0", "info": {"title": "a"}, "paths": {"/": {"get": operation}}}
    body = json.dumps(document).encode()
    gateway = account.client("apigateway")
    api_id = str(gateway.import_rest_api(body=body)["id"])
    yield api_id
    gateway.delete_rest_api(restApiId=api_id)


def served(account: Emulated, api_id: str, **environment: str) -> dict[str, Json]:
    gateway_responses.apply(account.client("apigateway"), api_id, "dev", environment)
    return account.served_responses(api_id)


def test_where_callers_sign_a_missing_signature_is_not_called_an_unknown_path(
    account: Emulated, api_id: str
) -> None:
    """API Gateway does not tell one from the other."""
    response = served(account, api_id, API_AUTH="iam")["MISSING_AUTHENTICATION_TOKEN"]

    answer = Answer(int(response["statusCode"]), response["responseTemplates"][JSON].encode(), {})
    assert (answer.status, answer.error) == (403, "Forbidden")
    assert "not signed, or there is no such path" in answer.message


@pytest.mark.parametrize(
    ("origins", "allowed"),
    [
        ("", None),
        (" , ", None),
        ("https://a.example", "'https://a.example'"),
        ("https://a.example, ", "'https://a.example'"),
        ("https://a.example,http://localhost:3000", "'*'"),
        ("*", "'*'"),
    ],
)
def test_a_page_of_an_allowed_origin_may_read_them(
    account: Emulated, api_id: str, origins: str, allowed: str | None
) -> None:
    for response in served(account, api_id, CORS_ORIGINS=origins).values():
        headers = response["responseParameters"]
        assert headers.get("gatewayresponse.header.Access-Control-Allow-Origin") == allowed


def test_a_deployment_that_comes_too_soon_is_made_again(
    account: Emulated, api_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway, waits = account.client("apigateway"), list[float]()
    create, too_soon = gateway.create_deployment, {"Error": {"Code": "TooManyRequestsException"}}

    def create_at_the_third_attempt(**arguments: str) -> None:
        if len(waits) < 2:
            raise ClientError(too_soon, "CreateDeployment")
        create(**arguments)

    monkeypatch.setattr(gateway, "create_deployment", create_at_the_third_attempt)
    clock = SimpleNamespace(sleep=waits.append, monotonic=lambda: sum(waits))
    monkeypatch.setattr(aws_errors, "time", clock)

    gateway_responses.apply(gateway, api_id, "dev", {})
    assert len(waits) == 2

    monkeypatch.setattr(gateway_responses, "PATIENCE_SECONDS", -1.0)
    waits.clear()
    with pytest.raises(ClientError, match="TooManyRequests"):
        gateway_responses.apply(gateway, api_id, "dev", {})
