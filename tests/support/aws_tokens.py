"""Tokens that AWS's own library signs at a fixed time, to compare ours with."""

from datetime import datetime, timezone
from types import SimpleNamespace

import boto3
import botocore.auth
import botocore.session
import pytest
from botocore.model import ServiceId
from botocore.signers import RequestSigner

from chalicelib.credentials import iam_tokens

REGION = "eu-west-1"
FIRST = datetime(2026, 11, 21, 5, 30, 0, tzinfo=timezone.utc)
# To read those of RDS takes half a second.
DESCRIPTIONS = botocore.session.get_session().get_component("data_loader")
LATER = datetime(2026, 11, 21, 23, 59, 59, tzinfo=timezone.utc)


def be_lambda(monkeypatch: pytest.MonkeyPatch, **changes: str) -> None:
    """The environment as Lambda fills it."""
    lambda_environment = {
        "AWS_REGION": REGION,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_ACCESS_KEY_ID": "ASIAEXAMPLE",
        "AWS_SECRET_ACCESS_KEY": "wJal/+K7MD ENG",
        "AWS_SESSION_TOKEN": "IQoJb3/+==",
        "AWS_CONFIG_FILE": "/dev/null",
        "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    for name, value in {**lambda_environment, **changes}.items():
        monkeypatch.setenv(name, value)


def stop_clock(monkeypatch: pytest.MonkeyPatch, at: datetime) -> None:
    """For both libraries."""
    monkeypatch.setattr(iam_tokens, "datetime", SimpleNamespace(now=at.astimezone))
    monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda *_, **__: at)


def database_token(host: str, port: int, user: str) -> str:
    """Signed with the credentials of now: each session looks them up anew."""
    session = botocore.session.get_session()
    session.register_component("data_loader", DESCRIPTIONS)
    client = boto3.session.Session(botocore_session=session).client("rds", region_name=REGION)
    return str(client.generate_db_auth_token(host, port, user))


def cache_token(cache: str, user: str, is_serverless: bool) -> str:
    """As ElastiCache's manual has it made."""
    session = botocore.session.get_session()
    signer = RequestSigner(
        ServiceId("elasticache"),
        REGION,
        "elasticache",
        "v4",
        session.get_credentials(),
        session.get_component("event_emitter"),
    )
    kind = "&ResourceType=ServerlessCache" if is_serverless else ""
    request = {"method": "GET", "body": {}, "headers": {}, "context": {}}
    request["url"] = f"https://{cache}/?Action=connect&User={user}{kind}"
    url: str = signer.generate_presigned_url(
        request, operation_name="connect", expires_in=900, region_name=REGION
    )
    return url.removeprefix("https://")
