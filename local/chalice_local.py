"""Has `chalice local` serve with `http_server`, however it was started.

`app.py` calls `install` where Chalice's command line imports it; Lambda never comes here. What we
take for granted of Chalice's server is listed here, checked against Chalice 1.34.0.
"""

import logging
from importlib.metadata import version
from inspect import signature

import chalice.local

CHECKED = "1.34.0"
PARTS = {
    "LocalDevServer": ("app_object", "config", "host", "port", "handler_cls", "server_cls"),
    "LocalGateway": ("app_object", "config"),
    "LocalGateway.handle_request": ("self", "method", "path", "headers", "body"),
    "RouteMatcher": ("route_urls",),
    "RouteMatcher.match_route": ("self", "url"),
    "create_local_server": ("app_obj", "config", "host", "port"),
}
"""Names in `chalice.local`, each with the parameters it takes."""


def install() -> None:
    """Ends the process, with words, where Chalice's server has other parts."""
    others = [name for name, parameters in PARTS.items() if _parameters(name) != parameters]
    if others:
        raise SystemExit(
            f"herocache: Chalice {version('chalice')} has another {', '.join(others)} in"
            f" chalice.local than {CHECKED}, for which local/http_server.py was written: install"
            " the version that requirements-deploy.txt names, or adapt local/http_server.py"
        )
    from local.http_server import DevServer

    show_requests()

    # The name by which Chalice's `create_local_server` makes the server.
    chalice.local.LocalDevServer = DevServer  # type: ignore[assignment,misc]


def show_requests() -> None:
    """A line for each request on standard error, in the way of `make run`."""
    log = logging.getLogger("herocache.requests")
    lines = logging.StreamHandler()
    lines.setFormatter(logging.Formatter("request    %(message)s"))
    log.addHandler(lines)
    log.setLevel(logging.INFO)
    log.propagate = False


def _parameters(name: str) -> tuple[str, ...] | None:
    part: object = chalice.local
    for attribute in name.split("."):
        part = getattr(part, attribute, None)
    return tuple(signature(part).parameters) if callable(part) else None
