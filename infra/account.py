"""The AWS account and region that the environment names, and clients for its services."""

from functools import lru_cache
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError,
    HTTPClientError,
)

from infra.terminal import Refused

# boto3 makes its clients from data files, so they have no types.
Client = Any


@lru_cache(maxsize=1)
def session() -> boto3.Session:
    """A boto3 session. Raises Refused where no region or no valid credentials are set, or where AWS
    cannot be reached."""
    found = boto3.Session()
    if found.region_name is None:
        raise Refused("no region is set: export AWS_DEFAULT_REGION=eu-west-1, or your own")
    try:
        found.client("sts").get_caller_identity()
    except (ConnectionError, HTTPClientError) as error:
        raise Refused(
            f"AWS cannot be reached ({error}): look at this machine's network, its proxy"
            " (HTTPS_PROXY), and the name of the region"
        ) from error
    except (BotoCoreError, ClientError) as error:
        raise Refused(
            f"AWS does not know who asks ({error}): log in (aws sso login, or aws configure), write"
            " ~/.aws/credentials, or export AWS_PROFILE"
        ) from error
    return found


def client(service: str) -> Client:
    """A client of this service in this region. Raises as `session` does."""
    return session().client(service)


def quick_client(service: str, region: str) -> Client:
    """A client of this service in another region, for a question that may get no answer: it tries
    once, and waits only seconds. Raises as `session` does."""
    patience = Config(connect_timeout=5, read_timeout=10, retries={"total_max_attempts": 1})
    return session().client(service, region_name=region, config=patience)


def known_regions(service: str) -> list[str]:
    """The regions where boto3 knows this service. AWS may have it in more."""
    regions: list[str] = session().get_available_regions(service)
    return regions


def account_id() -> str:
    """The number of the account."""
    return str(client("sts").get_caller_identity()["Account"])


def caller() -> str:
    """The ARN of who asks, without the name of a session, which may be a person's."""
    arn = str(client("sts").get_caller_identity()["Arn"])
    return arn.rpartition("/")[0] if ":assumed-role/" in arn else arn


def region() -> str:
    """The code of the region, such as eu-west-1."""
    return str(session().region_name)
