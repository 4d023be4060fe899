"""The AWS account and region that the environment names, and clients for its services."""

from functools import lru_cache
from typing import Any

import boto3
from botocore.exceptions import BotoCoreError, ClientError

from infra.terminal import Refused

Client = Any
"""boto3 makes these from data files: there is nothing to name."""


@lru_cache(maxsize=1)
def session() -> boto3.Session:
    """Raises Refused where no region or no valid credentials are set."""
    found = boto3.Session()
    if found.region_name is None:
        raise Refused("no region is set: export AWS_DEFAULT_REGION=eu-west-1, or your own")
    try:
        found.client("sts").get_caller_identity()
    except (BotoCoreError, ClientError) as error:
        raise Refused(
            f"AWS does not know who asks ({error}): log in (aws sso login, or aws configure) or"
            " export AWS_PROFILE"
        ) from error
    return found


def client(service: str) -> Client:
    """Of this service, in this region. Raises as `session` does."""
    return session().client(service)


def region() -> str:
    """Its code, such as eu-west-1."""
    return str(session().region_name)


def code_of(error: ClientError) -> str:
    """AWS's own name for what went wrong."""
    return str(error.response["Error"]["Code"])
