"""A boto3 client of one of our servers."""

import os
from typing import Any

REGION = "us-east-1"

# Our servers check no signature, so the access key is not a secret.
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "herocache",
    "AWS_SECRET_ACCESS_KEY": "not-checked",
    "AWS_DEFAULT_REGION": REGION,
}


def isolated_client(service: str, url: str, **config: Any) -> Any:
    """A client of this endpoint. It ignores the machine's AWS settings, and tries once."""
    # Imported here: `make down` must stop servers when the packages are gone.
    import boto3
    import botocore.session
    from botocore.config import Config

    none = (None, None, None, None)
    no_file = (None, None, os.devnull, None)
    nowhere = {"profile": none, "config_file": no_file, "credentials_file": no_file}
    session = boto3.Session(botocore_session=botocore.session.Session(nowhere))
    return session.client(
        service,
        region_name=REGION,
        endpoint_url=url,
        aws_access_key_id=CREDENTIALS["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
        config=Config(proxies={}, retries={"total_max_attempts": 1}, **config),
    )
