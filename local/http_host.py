"""Which header `Host` the server of `chalice local` answers to.

A web page can have its own host name lead to 127.0.0.1 (DNS rebinding). To a browser the service is
then part of that page's site, and the page may delete rows. It needs a name for that: an IP address
in `Host` shows that nobody rebound anything, and `localhost` cannot be rebound.
"""

import re
from email.message import Message
from ipaddress import ip_address

from chalicelib.errors import BadRequest
from chalicelib.tables import shown
from local.http_body import HttpError

_HOST = re.compile(r"(?:\[([0-9a-f:.]+)\]|([^:]+))(?::[0-9]*)?")


def refuse_other_hosts(headers: Message, version: str) -> None:
    """Raises BadRequest where there is no one `Host` (RFC 9112 section 3.2: HTTP/1.0 needs none),
    HttpError where it is a name other than localhost."""
    hosts = headers.get_all("Host", [])
    if not hosts and version == "HTTP/1.0":
        return
    if len(hosts) != 1:
        raise BadRequest(f"Host: expected one such header, got {len(hosts)}")
    if not is_own_host(hosts[0].strip()):
        raise HttpError(
            421,
            "MisdirectedRequest",
            f"Host: {shown(hosts[0])} is not answered here, because any web page can have a name"
            " lead to this machine; send the request to localhost or to an IP address",
        )


def is_own_host(host: str) -> bool:
    """Whether it is localhost or an IP address, with a port or without."""
    parts = _HOST.fullmatch(host.lower())
    name = parts and (parts[1] or parts[2])
    if not name:
        return False
    try:
        return name == "localhost" or ip_address(name) is not None
    except ValueError:
        return False
