"""An AWS account in this process: moto's server, with what it lacks for our commands added
(`moto_gaps`).

moto takes two seconds to import, in each process of a test run. So it is imported where an account
is made.
"""

import json
import logging
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import boto3
import pytest

REGION = "eu-west-1"

Json = dict[str, Any]


class Emulated:
    """An account of its own, empty; whatever else uses moto in this process has another one."""

    def __init__(self) -> None:
        from moto.server import ThreadedMotoServer

        self.id = str(secrets.randbelow(9 * 10**11) + 10**11)
        logging.getLogger("werkzeug").setLevel(logging.WARNING)
        self._server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
        self._server.start()
        host, port = self._server.get_host_and_port()
        self.url = f"http://{host}:{port}"
        key_id, secret = self._engineer()
        self.environment = {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_ACCESS_KEY_ID": key_id,
            "AWS_SECRET_ACCESS_KEY": secret,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": "/dev/null",
            "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
        }

    def client(self, service: str) -> Any:
        """As the engineer, who may do everything."""
        return boto3.client(
            service,
            region_name=REGION,
            endpoint_url=self.url,
            aws_access_key_id=self.environment["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=self.environment["AWS_SECRET_ACCESS_KEY"],
        )

    @property
    def statements(self) -> list[str]:
        """What was executed through the Data API, which moto only writes down, in order."""
        from moto.rdsdata.models import rdsdata_backends

        return list(getattr(rdsdata_backends[self.id][REGION], "statements", []))

    @property
    def api_documents(self) -> dict[str, Json]:
        """What was last imported into each API, by its id; moto drops most of it."""
        from moto.apigateway.models import apigateway_backends

        documents: dict[str, Json] = getattr(apigateway_backends[self.id][REGION], "documents", {})
        return documents

    def served_responses(self, api_id: str) -> dict[str, Json]:
        """What the stage of an API answers where no function runs, by API Gateway's names."""
        from moto.apigateway.models import apigateway_backends

        api = apigateway_backends[self.id][REGION].get_rest_api(api_id)
        served: dict[str, Json] = getattr(api, "deployed_responses", {})
        return served

    def package(self, function: str) -> bytes:
        """The zip that a function was given."""
        from moto.awslambda.models import lambda_backends

        code: bytes = lambda_backends[self.id][REGION].get_function(function).code_bytes
        return code

    def stop(self) -> None:
        self._server.stop()

    def _engineer(self) -> tuple[str, str]:
        from moto.iam.models import iam_backends

        iam = iam_backends[self.id]["aws"]
        iam.create_user(region_name=REGION, user_name="engineer")
        everything = {"Effect": "Allow", "Action": "*", "Resource": "*"}
        policy = {"Version": "2012-10-17", "Statement": [everything]}
        iam.put_user_policy("engineer", "everything", json.dumps(policy))
        key = iam.create_access_key("engineer")
        return key.access_key_id, key.secret_access_key


@contextmanager
def emulated() -> Iterator[Emulated]:
    """An account, and moto without its gaps as long as it is there."""
    from tests.support.moto_gaps import close_gaps

    with pytest.MonkeyPatch.context() as patch:
        close_gaps(patch)
        account = Emulated()
        try:
            yield account
        finally:
            account.stop()
