"""The Chalice app. Errors that Chalice finds have the service's own shape.

Requests for rows go past Chalice's dispatch, because that is faster.
"""

import os
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any

from chalice.app import BaseLambdaEvent, Chalice, Request, Response

from chalicelib.error_text import shown
from chalicelib.errors import BadRequest, HerocacheError, MethodNotAllowed, NotFound
from chalicelib.handlers import entry_points
from chalicelib.handlers.cors import headers_for_error
from chalicelib.handlers.log_lines import LogLines
from chalicelib.ingest import has_uploads

Event = Mapping[str, Any]

_ROWS = {("/", "POST"), ("/read", "POST")}
_Kind = type | tuple[type, ...]
# The fields of an event that Chalice reads, besides `requestContext`. Each may be null. Chalice's
# test client sends the body as bytes.
_FIELDS: Mapping[str, tuple[_Kind, str]] = {
    "headers": (dict, "an object of strings"),
    "multiValueQueryStringParameters": (dict, "an object of lists"),
    "pathParameters": (dict, "an object"),
    "stageVariables": (dict, "an object"),
    "body": ((str, bytes), "a string, as API Gateway sends it (put the JSON into quotes)"),
    "isBase64Encoded": (bool, "true or false"),
}
_VALUES: Mapping[str, type] = {"headers": str, "multiValueQueryStringParameters": list}


class AnyEvent(BaseLambdaEvent):
    """A payload of a function that is called by a schedule, and by people."""

    def _extract_attributes(self, event_dict: dict[str, Any]) -> None:
        """It has none."""


class Api(Chalice):
    """The Lambda function behind the REST API. Its events come from API Gateway's proxy
    integration. The answer to any other payload says where to send it."""

    def __init__(self, app_name: str) -> None:
        super().__init__(app_name)
        for handler in self.log.handlers:
            handler.setFormatter(LogLines(self.FORMAT_STRING))

    def __call__(self, event: Any, context: Any) -> dict[str, Any]:
        asked = event.get("requestContext") if isinstance(event, dict) else None
        if not isinstance(asked, dict) or "resourcePath" not in asked:
            return entry_points.failed_invocation(
                BadRequest(
                    "event: this function takes the events of API Gateway's REST API (Lambda proxy"
                    " integration); send this payload to the function `storage`"
                )
            )
        is_plain = _is_plain(event)
        try:
            whole = event if is_plain else _whole(event)
        except BadRequest as malformed:
            return entry_points.error_response(malformed).to_dict(self.api.binary_types)
        path, method = asked["resourcePath"], asked.get("httpMethod")
        if not isinstance(path, str) or path not in self.routes:
            return self._failed(
                whole, NotFound(f"{shown(path)}: there is no such path; try POST /")
            )
        if not isinstance(method, str) or method not in self.routes[path]:
            known = ", ".join(self.routes[path])
            error = MethodNotAllowed(f"{shown(method)}: {path} takes {known}")
            return self._failed(whole, error, Allow=known)
        if is_plain and (path, method) in _ROWS:
            request = Request(event, context)
            if "origin" not in set(request.headers):
                return self._call_directly(path, method, request, context)
        return super().__call__(whole, context)

    def _call_directly(
        self, path: str, method: str, request: Request, context: Any
    ) -> dict[str, Any]:
        """Call the route without Chalice's dispatch, which takes a sixth of the time of a cached
        read. The dispatch handles content types, parameters, middleware, CORS, uncaught errors and
        binary answers. A plain request for rows has none of these. The dispatch also escapes the
        headers of an answer; that matters only where the origin of a web page is one of them."""
        self.lambda_context, self.current_request = context, request
        response: Response = self.routes[path][method].view_function()
        return response.to_dict()

    def schedule(self, *args: Any, **options: Any) -> Callable[..., Any]:
        """As Chalice's, but the function takes any event, not only those of the schedule."""
        declare = super().schedule(*args, **options)

        def with_any_event(function: Callable[..., Any]) -> Any:
            handler: Any = declare(function)
            handler.event_class = AnyEvent
            return handler

        return with_any_event

    def on_s3_event(self, bucket: str, *args: Any, **options: Any) -> Callable[..., Any]:
        """As Chalice's, but an event that is not from S3 gets an answer. Chalice would raise a
        KeyError. With an empty name of the bucket there is no event, and the function is not
        deployed."""
        if not bucket:
            return lambda function: function
        register = super().on_s3_event(bucket, *args, **options)

        def registered(function: Callable[..., Any]) -> Callable[..., Any]:
            handle = register(function)

            @wraps(function)
            def answer(event: Any, context: Any) -> Any:
                try:
                    has_any = has_uploads(event)
                except BadRequest as error:
                    return entry_points.failed_invocation(error)
                return handle(event, context) if has_any else []

            return answer

        return registered

    def _failed(self, event: Event, error: HerocacheError, **headers: str) -> dict[str, Any]:
        response = entry_points.error_response(error, **headers)
        response.headers.update(headers_for_error(event["headers"] or {}, os.environ))
        return response.to_dict(self.api.binary_types)


def _is_plain(event: Event) -> bool:
    """Whether the event has every field as Chalice expects it, a text as its body, and no
    parameters: as API Gateway sends requests for rows."""
    headers = event.get("headers")
    return (
        type(headers) is dict
        and set(map(type, headers.values())) == {str}
        and type(event.get("body")) is str
        and event.get("isBase64Encoded") is False
        and event.get("multiValueQueryStringParameters", event) is None
        and event.get("pathParameters", event) is None
        and event.get("stageVariables", event) is None
    )


def _whole(event: Event) -> dict[str, Any]:
    """The event, with null for each field that is absent: a test event written by hand has only a
    few. Raises BadRequest for a field on which Chalice would fail."""
    whole: dict[str, Any] = {**dict.fromkeys(_FIELDS), **event}
    for name, (kind, words) in _FIELDS.items():
        value = whole[name]
        if value is not None and not _is_of(value, kind, _VALUES.get(name, object)):
            raise BadRequest(f"event: {name}: expected {words}")
    return whole


def _is_of(value: Any, kind: _Kind, each: type) -> bool:
    """Whether `value` is of this kind. In an object, each value must also be of the type `each`."""
    if not isinstance(value, kind):
        return False
    return not isinstance(value, dict) or all(isinstance(v, each) for v in value.values())
