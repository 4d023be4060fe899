"""Fetches the certificates of AWS's authority that signs the database's certificate.

No operating system has them. They go into the package, so that the functions can verify that they
talk to the database.
"""

import os
import ssl
import urllib.error
import urllib.request
from pathlib import Path

from infra.stage_files import ROOT
from infra.terminal import Refused, say

# The path in the project and in the package; the setting DB_SSL_CA.
FILE = Path("chalicelib") / "rds-ca.pem"
# RDS_TRUST_STORE in the environment names another one, for partitions that have their own.
TRUST_STORE = "https://truststore.pki.rds.amazonaws.com"
_TIMEOUT_SECONDS = 20
_MAX_BYTES = 1_000_000


def fetch(region: str) -> None:
    """Writes the region's certificates to FILE. Raises Refused where they cannot be had or read;
    FILE is unchanged then."""
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
