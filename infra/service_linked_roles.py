"""The roles in which RDS and ElastiCache act in an account.

A new account lacks them. A service makes its own with its first resource, but that resource may
fail meanwhile. So they are made before.
"""

import time
from collections.abc import Iterable

from botocore.exceptions import ClientError

from infra.account import Client
from infra.aws_errors import code_of
from infra.terminal import say

RDS, ELASTICACHE = "rds.amazonaws.com", "elasticache.amazonaws.com"
# A new role is not known everywhere at once.
SETTLE_SECONDS = 10.0


def create(iam: Client, services: Iterable[str]) -> None:
    """Makes the roles of these services that are not there. Where the caller may not make roles,
    goes on: they may be there already."""
    if [service for service in services if _is_new(iam, service)]:
        time.sleep(SETTLE_SECONDS)


def _is_new(iam: Client, service: str) -> bool:
    try:
        iam.create_service_linked_role(AWSServiceName=service)
    except ClientError as error:
        if "has been taken" in str(error):
            return False
        if not code_of(error).startswith("AccessDenied"):
            raise
        say("role", f"{service}: you may not make its role; going on, because it may be there")
        return False
    say("role", f"{service}: made")
    return True
