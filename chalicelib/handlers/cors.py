"""CORS: which web pages may use the service, and the headers that browsers need for it.

A browser sends the header `Origin` with every POST of a page, and with a page's requests to another
host. Other clients send no such header, and nothing here concerns them.
https://fetch.spec.whatwg.org/#http-cors-protocol
"""

from collections.abc import Collection, Mapping
from urllib.parse import urlsplit

from chalicelib.config import CORS_ORIGINS, cors_origins
from chalicelib.error_text import shown
from chalicelib.errors import Forbidden, HerocacheError

Headers = dict[str, str | list[str]]

_ANY_ORIGIN = "*"
_READABLE = "Cache-Status, Retry-After, Server-Timing"
_SENDABLE = (
    "Authorization, Content-Encoding, Content-Type, Idempotency-Key, X-Amz-Date,"
    " X-Amz-Security-Token, X-Api-Key"
)
_PREFLIGHT_SECONDS = 600
_SCHEME_HEADER = "x-forwarded-proto"
_DEFAULT_PORTS = {"http": ":80", "https": ":443"}


def headers_for(request: Mapping[str, str], allowed: Collection[str]) -> Headers:
    """The headers that let a page of another host read the answer; no headers where the request did
    not come from such a page. `request`: the headers of the request. Raises Forbidden where the
    page's origin is not `allowed`."""
    origin = request.get("origin")
    if origin is None or _is_own(origin, request):
        return {}
    if origin not in allowed and _ANY_ORIGIN not in allowed:
        raise Forbidden(
            f"Origin: a page of {shown(origin)} may not use this service; whoever runs it can allow"
            f" it in the setting {CORS_ORIGINS}"
        )
    return {
        "Access-Control-Allow-Origin": origin,
        "Access-Control-Expose-Headers": _READABLE,
        "Vary": "Origin",
    }


def preflight_headers_for(request: Mapping[str, str], allowed: Collection[str]) -> Headers:
    """As `headers_for`, for the OPTIONS request that a browser sends before the request itself."""
    return {
        **headers_for(request, allowed),
        "Access-Control-Allow-Methods": "GET, HEAD, POST, OPTIONS",
        "Access-Control-Allow-Headers": _SENDABLE,
        "Access-Control-Max-Age": str(_PREFLIGHT_SECONDS),
    }


def headers_for_error(request: Mapping[str, str], environment: Mapping[str, str]) -> Headers:
    """As `headers_for`, for an error that was found before a route is called. Where the page is not
    allowed, there are no headers: the answer is about the first error. The names of headers may be
    in upper or lower case."""
    sent = {name.lower(): value for name, value in request.items()}
    try:
        return headers_for(sent, cors_origins(environment))
    except HerocacheError:
        return {}


def _is_own(origin: str, request: Mapping[str, str]) -> bool:
    """Whether the page came from the service itself: it has the same scheme, host and port. API
    Gateway sends the scheme in a header; `chalice local` serves only http."""
    try:
        page = urlsplit(origin)
    except ValueError:
        return False
    if page.scheme not in _DEFAULT_PORTS or page.scheme != request.get(_SCHEME_HEADER, "http"):
        return False
    host = request.get("host", "").lower().removesuffix(_DEFAULT_PORTS[page.scheme])
    return bool(page.netloc) and page.netloc.lower() == host
