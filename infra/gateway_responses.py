"""Gives API Gateway's own error answers, which need no call of a function, the service's error
shape.

The types and their usual status:
https://docs.aws.amazon.com/apigateway/latest/developerguide/supported-gateway-response-types.html
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from infra.account import Client
from infra.aws_errors import retry
from infra.terminal import say

PATIENCE_SECONDS = 60.0
_PATHS = "use POST /, POST /read, GET /health or GET /health/deep"
_OUTCOME = (
    "no answer came from the function, so a change may have happened: read before you write again,"
    " or send the request again with its IDEMPOTENCY_KEY"
)
_SETUP = (
    "the API is not set up as it should be: whoever runs this stage finds the reason in its log"
)


@dataclass(frozen=True)
class Answer:
    """One error answer. `status` is the HTTP status; it stands in the body too."""

    status: int
    error: str
    message: str
    retry_after_seconds: int | None = None


# All types that API Gateway has. Each needs an entry: a type without one gets the status of a
# DEFAULT, which the body could not show.
ANSWERS = {
    "DEFAULT_4XX": Answer(400, "BadRequest", "the request cannot be read: send JSON in UTF-8"),
    "BAD_REQUEST_BODY": Answer(400, "BadRequest", "body: it cannot be read: send JSON in UTF-8"),
    "BAD_REQUEST_PARAMETERS": Answer(400, "BadRequest", "the request line: " + _PATHS),
    "UNAUTHORIZED": Answer(401, "Unauthorized", "the caller is not known: sign the request"),
    "ACCESS_DENIED": Answer(
        403, "Forbidden", "the caller may not use this API: its IAM policy needs execute-api:Invoke"
    ),
    "INVALID_API_KEY": Answer(
        403, "Forbidden", "x-api-key: no key, or not one of this stage: send one in this header"
    ),
    "INVALID_SIGNATURE": Answer(
        403,
        "Forbidden",
        "Authorization: the signature is not valid: sign with AWS Signature Version 4, for the"
        " service execute-api and the region of this API",
    ),
    "EXPIRED_TOKEN": Answer(
        403, "Forbidden", "the caller's credentials have expired: get new ones and sign again"
    ),
    "WAF_FILTERED": Answer(403, "Forbidden", "a firewall rule of this API rejects the request"),
    "RESOURCE_NOT_FOUND": Answer(404, "NotFound", "there is no such path: " + _PATHS),
    "MISSING_AUTHENTICATION_TOKEN": Answer(
        404, "NotFound", "there is no such path, or it does not take this method: " + _PATHS
    ),
    "REQUEST_TOO_LARGE": Answer(
        413, "TooLarge", "body: too many bytes, at most 6000000: send fewer items at a time"
    ),
    "UNSUPPORTED_MEDIA_TYPE": Answer(
        415,
        "UnsupportedEncoding",
        "Content-Encoding: the body is not compressed as it says: send gzip, deflate or none",
    ),
    "THROTTLED": Answer(
        429, "TooManyRequests", "more requests than this stage allows: send fewer a second", 1
    ),
    "QUOTA_EXCEEDED": Answer(
        429, "TooManyRequests", "x-api-key: this key has no requests left for today", 3600
    ),
    "DEFAULT_5XX": Answer(503, "OutcomeUnknown", _OUTCOME, 2),
    "INTEGRATION_FAILURE": Answer(503, "OutcomeUnknown", _OUTCOME, 2),
    "INTEGRATION_TIMEOUT": Answer(503, "OutcomeUnknown", _OUTCOME, 2),
    "API_CONFIGURATION_ERROR": Answer(500, "ConfigurationError", _SETUP),
    "AUTHORIZER_CONFIGURATION_ERROR": Answer(500, "ConfigurationError", _SETUP),
    "AUTHORIZER_FAILURE": Answer(500, "ConfigurationError", _SETUP),
}

# Where callers must sign, API Gateway gives one answer to unknown paths and to unsigned requests.
_UNSIGNED = Answer(
    403,
    "Forbidden",
    "the request is not signed, or there is no such path: sign it with AWS Signature Version 4; "
    + _PATHS,
)


def apply(gateway: Client, api_id: str, api_stage: str, environment: Mapping[str, str]) -> None:
    """Sets every answer. `environment`: the functions' settings.

    Runs after each `chalice deploy`, which imports the API anew and may remove these answers. They
    take effect with a deployment of the API, so the last step makes one."""
    readable = _cross_origin_headers(environment.get("CORS_ORIGINS", ""))
    for kind, answer in answers(environment.get("API_AUTH", "none")).items():
        gateway.put_gateway_response(
            restApiId=api_id,
            responseType=kind,
            statusCode=str(answer.status),
            responseParameters=_headers(answer) | readable,
            responseTemplates={"application/json": text(answer)},
        )
    # An account may make one deployment in 5 seconds, and `chalice deploy` has just made one.
    deploy = partial(gateway.create_deployment, restApiId=api_id, stageName=api_stage)
    retry(deploy, {"TooManyRequestsException"}, PATIENCE_SECONDS)
    say("errors", f"{len(ANSWERS)} that API Gateway answers by itself: in the shape of ours")


def answers(api_auth: str) -> dict[str, Answer]:
    """The answers by API Gateway's response type."""
    signed = {"MISSING_AUTHENTICATION_TOKEN": _UNSIGNED} if api_auth == "iam" else {}
    return {**ANSWERS, **signed}


def text(answer: Answer) -> str:
    """The body of the answer, as JSON."""
    body = {"error": answer.error, "message": answer.message}
    return json.dumps({"statusCode": answer.status, "body": body}, separators=(",", ":"))


def _headers(answer: Answer) -> dict[str, str]:
    if answer.retry_after_seconds is None:
        return {}
    return _static("Retry-After", str(answer.retry_after_seconds))


def _cross_origin_headers(origins: str) -> dict[str, str]:
    """The headers that let a page of an allowed origin read the answer. The value is the same for
    every request, and can name only one origin. Where several are allowed it allows every page;
    these texts hold nothing about a caller or a row."""
    allowed = {origin.strip() for origin in origins.split(",")} - {""}
    if not allowed:
        return {}
    value = allowed.pop() if len(allowed) == 1 else "*"
    return _static("Access-Control-Allow-Origin", value) | _static(
        "Access-Control-Expose-Headers", "Retry-After"
    )


def _static(header: str, value: str) -> dict[str, str]:
    """A header with a fixed value, in API Gateway's syntax."""
    return {f"gatewayresponse.header.{header}": f"'{value}'"}
