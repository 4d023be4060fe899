"""The Chalice app, with words for the events that Chalice has none for."""

import os
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any

from chalice.app import Chalice, Request, Response

from chalicelib.errors import BadRequest, HerocacheError, MethodNotAllowed, NotFound
from chalicelib.handlers import requests
from chalicelib.handlers.origins import headers_for_error
from chalicelib.ingest.events import has_uploads
from chalicelib.tables import shown

_ROWS = ("/", "POST")
"""The route of every read and write. Chalice's own dispatch is a sixth of a hit. It looks for what
this route has none of: content types, parameters, middleware, CORS of Chalice's, an error that was
not caught, an answer that is binary. Only where a page's origin goes into the answer's headers does
Chalice still look at them."""
_Kind = type | tuple[type, ...]
_FIELDS: Mapping[str, tuple[_Kind, str]] = {
    "headers": (dict, "an object of strings"),
    "multiValueQueryStringParameters": (dict, "an object of lists"),
    "pathParameters": (dict, "an object"),
    "stageVariables": (dict, "an object"),
    "body": ((str, bytes), "a string, as API Gateway sends it (put the JSON into quotes)"),
    "isBase64Encoded": (bool, "true or false"),
}
"""What Chalice reads of an event beside `requestContext`, where there is no null in its place. Its
test client hands over bytes."""
_VALUES: Mapping[str, type] = {"headers": str, "multiValueQueryStringParameters": list}


class Api(Chalice):
    """The function behind the REST API. An event is a request that API Gateway's proxy integration
    hands over; whatever else it is called with is answered too, with what to do instead."""

    def __call__(self, event: Any, context: Any) -> dict[str, Any]:
        context_of_request = event.get("requestContext") if isinstance(event, dict) else None
        if not isinstance(context_of_request, dict) or "resourcePath" not in context_of_request:
            return requests.failed_invocation(
                BadRequest(
                    "event: this function takes the events of API Gateway's REST API (Lambda proxy"
                    " integration); send this payload to the function `storage`"
                )
            )
        is_usual = _is_usual(event)
        try:
            whole = event if is_usual else _whole(event)
        except BadRequest as malformed:
            return requests.failed_request(malformed).to_dict(self.api.binary_types)
        path, method = context_of_request["resourcePath"], context_of_request.get("httpMethod")
        if not isinstance(path, str) or path not in self.routes:
            return self._refused(
                whole, NotFound(f"{shown(path)}: there is no such path; try POST /")
            )
        if not isinstance(method, str) or method not in self.routes[path]:
            known = ", ".join(self.routes[path])
            error = MethodNotAllowed(f"{shown(method)}: {path} takes {known}")
            return self._refused(whole, error, Allow=known)
        if is_usual and (path, method) == _ROWS:
            self.lambda_context, self.current_request = context, Request(event, context)
            if "origin" not in set(self.current_request.headers):
                response: Response = self.routes[path][method].view_function()
                return response.to_dict()
        return super().__call__(whole, context)

    def on_s3_event(self, *args: Any, **options: Any) -> Callable[..., Any]:
        """As Chalice's, which would raise a KeyError for what is no event of S3: that is answered
        with words."""
        register = super().on_s3_event(*args, **options)

        def registered(function: Callable[..., Any]) -> Callable[..., Any]:
            handle = register(function)

            @wraps(function)
            def answer(event: Any, context: Any) -> Any:
                try:
                    is_worth_a_look = has_uploads(event)
                except BadRequest as error:
                    return requests.failed_invocation(error)
                return handle(event, context) if is_worth_a_look else []

            return answer

        return registered

    def _refused(
        self, event: Mapping[str, Any], error: HerocacheError, **headers: str
    ) -> dict[str, Any]:
        response = requests.failed_request(error, **headers)
        response.headers.update(headers_for_error(event["headers"] or {}, os.environ))
        return response.to_dict(self.api.binary_types)


def _is_usual(event: Mapping[str, Any]) -> bool:
    """Whether it is as API Gateway sends a request for `/`: nobody needs to look at each field."""
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


def _whole(event: Mapping[str, Any]) -> dict[str, Any]:
    """The event with null for each field that is not there: a test event written by hand has few.
    Raises BadRequest where Chalice would fail on one."""
    whole: dict[str, Any] = {**dict.fromkeys(_FIELDS), **event}
    for name, (kind, words) in _FIELDS.items():
        value = whole[name]
        if value is not None and not _is_of(value, kind, _VALUES.get(name, object)):
            raise BadRequest(f"event: {name}: expected {words}")
    return whole


def _is_of(value: Any, kind: _Kind, each: type) -> bool:
    """Whether it is of this kind, and so is each value in it where it is an object."""
    if not isinstance(value, kind):
        return False
    return not isinstance(value, dict) or all(isinstance(v, each) for v in value.values())
