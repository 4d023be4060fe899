"""Tokens in place of passwords: a signed request to connect, a new one for each connection.

AWS Signature Version 4 in a URL's query, signed with this function's own credentials. Nothing is
sent, and boto3, which would cost a cold start 150 ms, is not imported. A token opens connections
for 15 minutes.
"""

import hashlib
import hmac
import os
from collections.abc import Mapping
from datetime import datetime, timezone
from functools import reduce
from urllib.parse import quote

from chalicelib.errors import ConfigurationError

# As long as both services allow.
TOKEN_SECONDS = 900
_ALGORITHM = "AWS4-HMAC-SHA256"
_NOTHING = hashlib.sha256(b"").hexdigest()


def database_token(host: str, port: int, user: str) -> str:
    """The password of `user` at an Aurora endpoint, valid for this host and port only. Raises
    ConfigurationError where the environment holds no credentials."""
    return _signed("rds-db", f"{host}:{port}", {"Action": "connect", "DBUser": user})


def cache_token(cache: str, user: str, *, is_serverless: bool) -> str:
    """The password of the ElastiCache user `user` (its id and its name) at the serverless cache or
    replication group with the name `cache`. Raises as `database_token`."""
    asked = {"Action": "connect", "User": user}
    return _signed(
        "elasticache",
        cache,
        {**asked, "ResourceType": "ServerlessCache"} if is_serverless else asked,
    )


def _signed(service: str, place: str, asked: Mapping[str, str]) -> str:
    """`place`/?query with its signature. Both services want the URL without its scheme."""
    region = _environment("AWS_REGION", "AWS_DEFAULT_REGION")
    time = datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%SZ")
    scope = (time[:8], region, service, "aws4_request")
    query = {
        **asked,
        "X-Amz-Algorithm": _ALGORITHM,
        "X-Amz-Credential": "/".join((_environment("AWS_ACCESS_KEY_ID"), *scope)),
        "X-Amz-Date": time,
        "X-Amz-Expires": str(TOKEN_SECONDS),
        "X-Amz-SignedHeaders": "host",
    }
    if session := os.environ.get("AWS_SESSION_TOKEN"):
        query["X-Amz-Security-Token"] = session
    pairs = [f"{quote(name, '-_.~')}={quote(value, '-_.~')}" for name, value in query.items()]
    # GET, path, query, the one header, an empty line after headers, their names, no body.
    request = ("GET", "/", "&".join(sorted(pairs)), f"host:{place.lower()}", "", "host", _NOTHING)
    digest = hashlib.sha256("\n".join(request).encode()).hexdigest()
    to_sign = "\n".join((_ALGORITHM, time, "/".join(scope), digest))
    key = reduce(_mac, scope, f"AWS4{_environment('AWS_SECRET_ACCESS_KEY')}".encode())
    return f"{place}/?{'&'.join(pairs)}&X-Amz-Signature={_mac(key, to_sign).hex()}"


def _mac(key: bytes, text: str) -> bytes:
    return hmac.digest(key, text.encode(), "sha256")


def _environment(*names: str) -> str:
    """The first of these variables that is set. Read each time: the runtime may renew them."""
    for name in names:
        if value := os.environ.get(name):
            return value
    raise ConfigurationError(
        f"{names[0]} is not set: DB_AUTH=iam and REDIS_AUTH=iam sign with the credentials that"
        " Lambda puts into the environment"
    )
