"""The event that Lambda gets of a request from API Gateway's REST API (Lambda proxy integration).

https://docs.aws.amazon.com/apigateway/latest/developerguide/set-up-lambda-proxy-integrations.html
"""

import base64
from collections.abc import Container
from typing import Any

from chalice.local import MatchResult

from local.chalice_http.request_head import Head
from local.machine import LOOPBACK


def event_of(
    head: Head, match: MatchResult, body: bytes, binary_types: Container[str]
) -> dict[str, Any]:
    """`match`: the route of the path. A body of one of the `binary_types`, or that is no text,
    comes as base64. Of a header that is sent twice the first one stands in `headers`."""
    headers = head.first_values()
    text = None if headers.get("content-type") in binary_types else _text(body)
    path = head.path.partition("?")[0]
    return {
        "httpMethod": head.method,
        "path": path,
        "headers": headers,
        "multiValueHeaders": dict(head.headers),
        "multiValueQueryStringParameters": match.query_params or None,
        "pathParameters": match.captured or None,
        "stageVariables": None,
        "requestContext": {
            "httpMethod": head.method,
            "identity": {"sourceIp": LOOPBACK},
            "path": path,
            "resourcePath": match.route,
        },
        "body": base64.b64encode(body).decode() if text is None else text or None,
        "isBase64Encoded": text is None,
    }


def _text(body: bytes) -> str | None:
    try:
        return body.decode()
    except UnicodeDecodeError:
        return None
