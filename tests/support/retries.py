"""Idempotent requests as clients send them; for the tests of what a retry gets."""

import json
from collections.abc import Mapping
from typing import Any

import pytest

from bench.api_gateway_event import rest_event
from tests.support.client import Answer, InProcess, Row, hero
from tests.support.witness import Witness

INSERT: Row = {"REQUEST": "write", "SQLS": [hero(), hero(xp=11)]}
REPLACE: Row = {"REQUEST": "write", "SQLS": [{"id": 1, **hero(name="replaced")}]}
DELETE: Row = {"REQUEST": "delete", "SQLS": [2, 77, 1]}
REQUESTS = {"insert": INSERT, "replace": REPLACE, "delete": DELETE}
# The heroes that exist before each request.
BEFORE: list[Row] = [{"id": 1, **hero()}, {"id": 2, **hero(xp=11)}]

each_request = pytest.mark.parametrize("request_name", REQUESTS)


def with_header(
    service: InProcess, request: object, key: str, name: str = "Idempotency-Key"
) -> Answer:
    event = rest_event(json.dumps(request))
    return service.dispatch({**event, "headers": {**event["headers"], name: key}})


def with_field(service: InProcess, request: Mapping[str, Any], key: object) -> Answer:
    return service.post({**request, "IDEMPOTENCY_KEY": key})


def claimed(witness: Witness) -> list[str]:
    return [key for (key,) in witness.query("SELECT idempotency_key FROM idempotency ORDER BY 1")]
