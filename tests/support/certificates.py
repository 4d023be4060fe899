"""A certificate authority of the tests, and the server certificates it signs."""

import subprocess
from pathlib import Path

_CONFIG = """
[req]
distinguished_name = name
[name]
[authority]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[server]
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
subjectAltName = {names}
"""
_NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


class Authority:
    """Lives in `home`; has signed one pair for servers of these `names`. Nobody trusts it but
    those who are given `certificate`."""

    def __init__(self, home: Path, names: str = "IP:127.0.0.1,DNS:localhost") -> None:
        home.mkdir(parents=True)
        self._home = home
        (home / "openssl.cnf").write_text(_CONFIG.format(names=names))
        self.certificate = home / "ca.crt"
        self.server_certificate, self.server_key = home / "server.crt", home / "server.key"
        self._openssl(
            *("req", "-x509", *_NEW_KEY, "-days", "1", "-subj", "/CN=tests", "-sha256"),
            *("-config", "openssl.cnf", "-extensions", "authority"),
            *("-keyout", "ca.key", "-out", "ca.crt"),
        )
        self._openssl(
            *("req", "-new", *_NEW_KEY, "-subj", "/CN=server", "-config", "openssl.cnf"),
            *("-keyout", "server.key", "-out", "server.csr"),
        )
        self._openssl(
            *("x509", "-req", "-in", "server.csr", "-days", "1", "-sha256", "-set_serial", "2"),
            *("-CA", "ca.crt", "-CAkey", "ca.key"),
            *("-extfile", "openssl.cnf", "-extensions", "server", "-out", "server.crt"),
        )

    def _openssl(self, *words: str) -> None:
        subprocess.run(["openssl", *words], cwd=self._home, check=True, capture_output=True)
