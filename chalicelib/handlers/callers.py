"""Who sent a request, as API Gateway says; and the idempotency keys of one caller.

https://docs.aws.amazon.com/apigateway/latest/developerguide/api-gateway-mapping-template-reference.html
"""

import hashlib
from collections.abc import Mapping
from typing import Any

# How the id of a role begins. Behind it stand a colon and the name of the session.
_ROLE = "AROA"


def caller_in(context: Mapping[str, Any]) -> str:
    """The caller that API Gateway has checked, from an event's `requestContext`: the id of an IAM
    user, a role or a Cognito identity, or the id of an API key. Empty where it checks nobody. The
    sessions of one role are one caller, because a retry may come from another session."""
    identity = context.get("identity")
    if not isinstance(identity, dict):
        return ""
    caller = str(
        identity.get("cognitoIdentityId")
        or identity.get("caller")
        or identity.get("apiKeyId")
        or ""
    )
    return caller.partition(":")[0] if caller.startswith(_ROLE) else caller


def own_key(idempotency_key: str, caller: str) -> str:
    """The idempotency key under which the request of `caller` is recorded. Another caller's is
    never the same, whatever key it sends: what a client sends does not begin with a space. Where
    nobody is checked, all callers share their keys."""
    if not (caller and idempotency_key):
        return idempotency_key
    return f" {hashlib.sha256(f'{caller} {idempotency_key}'.encode()).hexdigest()}"
