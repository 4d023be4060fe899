"""The event Lambda gets from API Gateway's REST proxy integration for a POST to `/`."""

from typing import Any

HEADERS = {
    "Accept": "*/*",
    "Accept-Encoding": "gzip, deflate",
    "Host": "abcdefghij.execute-api.us-east-1.amazonaws.com",
    "User-Agent": "python-requests/2.34.2",
    "X-Amzn-Trace-Id": "Root=1-00000000-000000000000000000000000",
    "X-Forwarded-For": "203.0.113.7",
    "X-Forwarded-Port": "443",
    "X-Forwarded-Proto": "https",
}


def rest_event(body: str) -> dict[str, Any]:
    """A new event for each call, because Lambda parses each of its events from JSON."""
    return {
        "resource": "/",
        "path": "/",
        "httpMethod": "POST",
        "headers": dict(HEADERS),
        "multiValueHeaders": {name: [value] for name, value in HEADERS.items()},
        "queryStringParameters": None,
        "multiValueQueryStringParameters": None,
        "pathParameters": None,
        "stageVariables": None,
        "requestContext": {
            "accountId": "123456789012",
            "apiId": "abcdefghij",
            "domainName": "abcdefghij.execute-api.us-east-1.amazonaws.com",
            "httpMethod": "POST",
            "identity": {"sourceIp": "203.0.113.7", "userAgent": HEADERS["User-Agent"]},
            "path": "/api/",
            "protocol": "HTTP/1.1",
            "requestId": "00000000-0000-4000-8000-000000000000",
            "resourceId": "0123456789",
            "resourcePath": "/",
            "stage": "api",
        },
        "body": body,
        "isBase64Encoded": False,
    }
