"""Which values of the header `Host` a server of this machine accepts.

A web page can make its own host name lead to 127.0.0.1 (DNS rebinding). The browser then takes the
service for a part of that page's site, and the page may delete rows. The attack needs a name: it
does not work with an IP address in `Host`, or with `localhost`.
"""

import re
from collections.abc import Sequence
from ipaddress import ip_address

from chalicelib.error_text import shown
from chalicelib.errors import BadRequest
from local.chalice_http.request_body import HttpError

_HOST = re.compile(r"(?:\[([0-9a-f:.]+)\]|([^:]+))(?::[0-9]*)?")


def reject_other_hosts(hosts: Sequence[str], version: str) -> None:
    """Raises BadRequest where there is not exactly one `Host` (HTTP/1.0 needs none, RFC 9112
    section 3.2), and HttpError where it is a name other than localhost."""
    if not hosts and version == "1.0":
        return
    if len(hosts) != 1:
        raise BadRequest(f"Host: expected one such header, got {len(hosts)}")
    if not is_own_host(hosts[0]):
        raise HttpError(
            421,
            "MisdirectedRequest",
            f"Host: {shown(hosts[0])} is not answered here, because any web page can have a name"
            " lead to this machine; send the request to localhost or to an IP address",
        )


def is_own_host(host: str) -> bool:
    """Whether `host` is localhost or an IP address, with a port or without."""
    parts = _HOST.fullmatch(host.lower())
    name = parts and (parts[1] or parts[2])
    if not name:
        return False
    try:
        return name == "localhost" or ip_address(name) is not None
    except ValueError:
        return False
