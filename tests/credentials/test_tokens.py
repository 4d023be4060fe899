"""Our tokens are those of AWS's own library, byte for byte."""

import pytest

from chalicelib.credentials import iam_tokens
from chalicelib.errors import ConfigurationError
from tests.support import aws_tokens

HOST = "herocache.cluster-abc.eu-west-1.rds.amazonaws.com"
USERS = ("herocache", "a.b_c-d~e", "sp ace&=+/%", "ünï")
CREDENTIALS = {
    "of Lambda": {},
    "without a session": {"AWS_SESSION_TOKEN": ""},
    "with other signs": {"AWS_SECRET_ACCESS_KEY": "%/+=?&", "AWS_SESSION_TOKEN": "a b&c=d/%+é"},
}

each_time = pytest.mark.parametrize("at", [aws_tokens.FIRST, aws_tokens.LATER], ids=str)
each_credential = pytest.mark.parametrize("kind", CREDENTIALS)


@each_time
@each_credential
@pytest.mark.parametrize("host", [HOST, HOST.upper()])
def test_a_database_token_is_that_of_boto3(
    monkeypatch: pytest.MonkeyPatch, at: object, kind: str, host: str
) -> None:
    aws_tokens.be_lambda(monkeypatch, **CREDENTIALS[kind])
    aws_tokens.stop_clock(monkeypatch, at)  # type: ignore[arg-type]

    for user in USERS:
        ours = iam_tokens.database_token(host, 3307, user)

        assert ours == aws_tokens.database_token(host, 3307, user)
        assert ours != iam_tokens.database_token(host, 3306, user), "it is for one port only"


@each_time
@each_credential
@pytest.mark.parametrize("is_serverless", [True, False])
def test_a_cache_token_is_that_of_botocore(
    monkeypatch: pytest.MonkeyPatch, at: object, kind: str, is_serverless: bool
) -> None:
    aws_tokens.be_lambda(monkeypatch, **CREDENTIALS[kind])
    aws_tokens.stop_clock(monkeypatch, at)  # type: ignore[arg-type]

    ours = iam_tokens.cache_token("herocache-dev", "herocache", is_serverless=is_serverless)

    assert ours == aws_tokens.cache_token("herocache-dev", "herocache", is_serverless)
    assert ("ServerlessCache" in ours) is is_serverless


def test_credentials_are_read_when_a_token_is_signed(monkeypatch: pytest.MonkeyPatch) -> None:
    aws_tokens.be_lambda(monkeypatch)
    aws_tokens.stop_clock(monkeypatch, aws_tokens.FIRST)
    before = iam_tokens.database_token(HOST, 3306, "herocache")
    aws_tokens.be_lambda(monkeypatch, AWS_ACCESS_KEY_ID="ASIANEW", AWS_SECRET_ACCESS_KEY="new")

    after = iam_tokens.database_token(HOST, 3306, "herocache")

    assert after != before
    assert after == aws_tokens.database_token(HOST, 3306, "herocache")


@pytest.mark.parametrize("name", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION"])
def test_what_is_missing_to_sign_is_named(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    aws_tokens.be_lambda(monkeypatch)
    monkeypatch.delenv(name)
    monkeypatch.delenv("AWS_DEFAULT_REGION")

    with pytest.raises(ConfigurationError, match=f"{name} is not set"):
        iam_tokens.database_token(HOST, 3306, "herocache")
