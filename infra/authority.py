"""Who signs the database's certificate: AWS's own authority, which no system knows. Its
certificates go into the package, so that the functions can tell the database from somebody else.
"""

import os
import ssl
import urllib.error
import urllib.request
from pathlib import Path

from infra.stage import ROOT
from infra.terminal import Refused, say

FILE = Path("chalicelib") / "rds-ca.pem"
"""Within the project and within the package; the setting DB_SSL_CA."""
TRUST_STORE = "https://truststore.pki.rds.amazonaws.com"
"""RDS_TRUST_STORE in the environment names another one, for partitions that have their own."""
_TIMEOUT_SECONDS = 20
_MAX_BYTES = 1_000_000


def fetch(region: str) -> None:
    """The region's certificates into FILE. Raises Refused where what comes is none, and keeps the
    file as it was."""
    url = f"{os.environ.get('RDS_TRUST_STORE') or TRUST_STORE}/{region}/{region}-bundle.pem"
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT_SECONDS) as response:
            text = response.read(_MAX_BYTES).decode("ascii")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(cadata=text)
    except (OSError, ValueError) as error:
        raise Refused(
            f"the certificates of the database's authority cannot be had from {url}: {error}"
        ) from error
    path = ROOT / FILE
    changed = not path.exists() or path.read_text(encoding="ascii") != text
    if changed:
        path.write_text(text, encoding="ascii")
    count = context.cert_store_stats()["x509_ca"]
    say("configure", f"{FILE}: {count} certificates {'written' if changed else 'as before'}")
