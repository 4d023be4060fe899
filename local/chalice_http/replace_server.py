"""Makes `chalice local` use our HTTP server, also where it was started by hand.

`app.py` calls `install` when Chalice's command line imports it; Lambda never does. PARTS lists what
we use of Chalice's server, checked against Chalice 1.34.0.
"""

import logging
from importlib.metadata import version
from inspect import signature

import chalice.local

CHECKED = "1.34.0"
# Names in `chalice.local`, each with the parameters it takes.
PARTS = {
    "LocalDevServer": ("app_object", "config", "host", "port", "handler_cls", "server_cls"),
    "MatchResult": ("route", "captured", "query_params"),
    "RouteMatcher": ("route_urls",),
    "RouteMatcher.match_route": ("self", "url"),
    "create_local_server": ("app_obj", "config", "host", "port"),
}


def install() -> None:
    """Puts our server in the place of Chalice's. Ends the process, and says why, where Chalice's
    has other parts."""
    others = [name for name, parameters in PARTS.items() if _parameters(name) != parameters]
    if others:
        raise SystemExit(
            f"herocache: Chalice {version('chalice')} has another {', '.join(others)} in"
            f" chalice.local than {CHECKED}, for which local/chalice_http was written: install"
            " the version that requirements-deploy.txt names, or adapt local/chalice_http"
        )
    from local.chalice_http.http_server import DevServer

    show_requests()
    hide_what_a_laptop_knows()

    # The name by which Chalice's `create_local_server` makes the server.
    chalice.local.LocalDevServer = DevServer  # type: ignore[assignment,misc]


def show_requests() -> None:
    """Logs a line for each request to standard error, in the form of `make run`."""
    log = logging.getLogger("herocache.requests")
    lines = logging.StreamHandler()
    lines.setFormatter(logging.Formatter("request    %(message)s"))
    log.addHandler(lines)
    log.setLevel(logging.INFO)
    log.propagate = False


def hide_what_a_laptop_knows() -> None:
    """The log of a function says which Redis answers and which credentials were found. Here they
    are always our own."""
    for name in ("herocache.redis", "botocore"):
        logging.getLogger(name).setLevel(logging.WARNING)


def _parameters(name: str) -> tuple[str, ...] | None:
    part: object = chalice.local
    for attribute in name.split("."):
        part = getattr(part, attribute, None)
    return tuple(signature(part).parameters) if callable(part) else None
