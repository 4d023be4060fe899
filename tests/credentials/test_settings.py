"""Settings for the login that contradict each other, or are incomplete, are named."""

import pytest

from chalicelib.config import Settings
from chalicelib.errors import ConfigurationError

ARN = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:herocache-AbCdEf"
BASE = {"DB_HOST": "host", "DB_USER": "user", "DB_NAME": "name"}
WRONG = [
    ({}, "DB_PASS is not set: give it, or DB_SECRET_ARN, or DB_AUTH=iam"),
    ({"DB_PASS": "x", "DB_SECRET_ARN": ARN}, "DB_PASS and DB_SECRET_ARN are both set"),
    ({"DB_PASS": "x", "DB_AUTH": "iam", "DB_SSL_CA": "system"}, "DB_PASS and DB_AUTH are both"),
    ({"DB_SECRET_ARN": ARN, "DB_AUTH": "iam"}, "DB_SECRET_ARN and DB_AUTH are both set"),
    ({"DB_AUTH": "iam"}, "DB_AUTH=iam needs DB_SSL_CA"),
    ({"DB_AUTH": "token"}, "DB_AUTH: expected iam or nothing"),
    ({"DB_SECRET_ARN": "herocache"}, "DB_SECRET_ARN: expected arn:aws:secretsmanager:"),
    ({"DB_SECRET_ARN": ARN.replace("secretsmanager", "s3")}, "DB_SECRET_ARN: expected"),
    ({"DB_PASS": "x", "DB_RESUME_SECONDS": "25"}, "DB_RESUME_SECONDS: expected an integer from 0"),
    ({"DB_PASS": "x", "REDIS_AUTH": "iam"}, "REDIS_AUTH=iam needs REDIS_CACHE_NAME"),
    ({"DB_PASS": "x", "REDIS_AUTH": "acl"}, "REDIS_AUTH: expected iam or nothing"),
    ({"DB_PASS": "x", "REDIS_SERVERLESS": "yes"}, "REDIS_SERVERLESS: expected 1 or 0"),
    ({"DB_PASS": "x", "API_AUTH": "open"}, "API_AUTH: expected none, iam or key"),
    ({"DB_PASS": "x", "INGEST_ENGINE": "Aurora"}, "INGEST_ENGINE: expected mysql or aurora"),
    *(
        (
            {"DB_PASS": "x", "REDIS_AUTH": "iam", "REDIS_CACHE_NAME": "c", "REDIS_URL": url},
            "REDIS_AUTH=iam: REDIS_URL must be rediss://user@host:port",
        )
        for url in ("", "redis://u@host", "rediss://host", "rediss://u:secret@host")
    ),
]


@pytest.mark.parametrize(("given", "words"), WRONG, ids=lambda value: str(value)[:60])
def test_a_wrong_way_to_log_in_is_named(given: dict[str, str], words: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Settings.from_environment({**BASE, **given})

    assert str(caught.value).startswith(words)
    assert "secret@" not in str(caught.value)


def test_a_secret_needs_no_user() -> None:
    environment = {"DB_HOST": "host", "DB_NAME": "name", "DB_SECRET_ARN": ARN}

    assert Settings.from_environment(environment).db_secret_arn == ARN
