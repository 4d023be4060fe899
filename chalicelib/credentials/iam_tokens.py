"""IAM tokens: a login token for Aurora or ElastiCache is a signed URL that stands for a password.

It is signed in this process with AWS Signature Version 4 and the function's own credentials. No
request is sent. boto3 is not imported, because it would add 150 ms to a cold start. Each connection
gets a new token; a token opens connections for 15 minutes.
"""

import hashlib
import hmac
import os
from collections.abc import Mapping
from datetime import datetime, timezone
from functools import reduce
from urllib.parse import quote

from chalicelib.errors import ConfigurationError

# How long a token is valid: the longest time that both services allow.
TOKEN_SECONDS = 900
_ALGORITHM = "AWS4-HMAC-SHA256"
_NOTHING = hashlib.sha256(b"").hexdigest()


def database_token(host: str, port: int, user: str) -> str:
    """The token with which `user` logs in to Aurora, valid for this host and port only. Raises
    ConfigurationError where the environment holds no credentials."""
    return _signed("rds-db", f"{host}:{port}", {"Action": "connect", "DBUser": user})


def cache_token(cache: str, user: str, *, is_serverless: bool) -> str:
    """The token with which `user` (its id and its name) logs in to ElastiCache. `cache`: the name
    of the serverless cache or replication group. Raises as `database_token`."""
    asked = {"Action": "connect", "User": user}
    return _signed(
        "elasticache",
        cache,
        {**asked, "ResourceType": "ServerlessCache"} if is_serverless else asked,
    )


def _signed(service: str, place: str, asked: Mapping[str, str]) -> str:
    """The signed URL `place`/?query, without a scheme, as both services expect it."""
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
