"""TLS to the database: the SSL context for `DB_SSL_CA`, made once a process."""

import ipaddress
import ssl
from functools import lru_cache
from pathlib import Path

from chalicelib.config import DB_SSL_CA
from chalicelib.errors import ConfigurationError

SYSTEM_AUTHORITIES = "system"

_APP_FOLDER = Path(__file__).parents[3]


@lru_cache
def tls_context(authority: str) -> ssl.SSLContext:
    """The SSL context. It is kept, because to build it takes 19 ms. `authority` signs the server's
    certificate: a file, relative to the folder of app.py, or `system`. The server's name is checked
    too. With an empty `authority` the connection is encrypted and no certificate is checked, as the
    driver does by itself. Raises ConfigurationError."""
    is_file = authority not in ("", SYSTEM_AUTHORITIES)
    try:
        context = ssl.create_default_context(cafile=_APP_FOLDER / authority if is_file else None)
    except OSError as error:
        raise ConfigurationError(
            f"{DB_SSL_CA}: expected {SYSTEM_AUTHORITIES}, or a file of PEM certificates that can be"
            " read, its path from the folder of app.py on"
        ) from error
    # The driver does the same: an authority that a database made itself fails Python 3.13's strict
    # mode.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if not authority:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
