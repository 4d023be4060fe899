"""The Chalice app, with words for the events that Chalice has none for."""

from collections.abc import Callable
from functools import wraps
from typing import Any

from chalice.app import Chalice

from chalicelib import handlers
from chalicelib.errors import BadRequest, MethodNotAllowed, NotFound
from chalicelib.tables import shown
from chalicelib.uploads import has_uploads


class Api(Chalice):
    """The function behind the REST API. An event is a request that API Gateway's proxy integration
    hands over; whatever else it is called with is answered too, with what to do instead."""

    def __call__(self, event: Any, context: Any) -> dict[str, Any]:
        context_of_request = event.get("requestContext") if isinstance(event, dict) else None
        if not isinstance(context_of_request, dict) or "resourcePath" not in context_of_request:
            return handlers.failed_invocation(
                BadRequest(
                    "event: this function takes the events of API Gateway's REST API (Lambda proxy"
                    " integration); send this payload to the function `storage`"
                )
            )
        path, method = context_of_request["resourcePath"], context_of_request.get("httpMethod")
        if path not in self.routes:
            return self._refused(NotFound(f"{shown(path)}: there is no such path; try POST /"))
        if method not in self.routes[path]:
            known = ", ".join(self.routes[path])
            error = MethodNotAllowed(f"{shown(method)}: {path} takes {known}")
            return self._refused(error, Allow=known)
        return super().__call__(event, context)

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
                    return handlers.failed_invocation(error)
                return handle(event, context) if is_worth_a_look else []

            return answer

        return registered

    def _refused(self, error: NotFound | MethodNotAllowed, **headers: str) -> dict[str, Any]:
        return handlers.failed_request(error, **headers).to_dict(self.api.binary_types)
