"""The RDS Data API as a private server on loopback, in front of a database server of ours.

boto3 reaches it by the endpoint. data_api_process.py is the program that runs.
"""

import json
import os
import secrets
import sys
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from local.machine import LOOPBACK, ROOT, write_private
from local.servers.app import DIRECT
from local.servers.aws_client import CREDENTIALS, REGION, isolated_client
from local.servers.server import Server

ACCOUNT = "123456789012"
CLUSTER_ARN = f"arn:aws:rds:{REGION}:{ACCOUNT}:cluster:herocache"
SECRET_ARN = f"arn:aws:secretsmanager:{REGION}:{ACCOUNT}:secret:herocache-AbCdEf"


class DataApi(Server):
    """`database` gives the settings that lead to the database, asked for at each start.

    `hides_secret`: the ARN of its secret cannot be guessed. Signatures are not checked, so else
    every user of this machine could run SQL.
    """

    title = "Data API"
    takes_over_listener = True

    def __init__(
        self,
        home: Path,
        database: Callable[[], Mapping[str, str]],
        port: int | None = None,
        hides_secret: bool = False,
    ) -> None:
        super().__init__(home, port)
        self._database = database
        self._secret_file = self.home / "secret" if hides_secret else None

    @property
    def secret_arn(self) -> str:
        """It stays the same when the server starts again."""
        if self._secret_file is None:
            return SECRET_ARN
        if not self._secret_file.exists():
            self._make_home()
            write_private(self._secret_file, secrets.token_hex(16))
        return f"{SECRET_ARN}{self._secret_file.read_text()}"

    @property
    def url(self) -> str:
        """The URL of the endpoint."""
        return f"http://{LOOPBACK}:{self.port}"

    def environment(self) -> dict[str, str]:
        """The settings that lead the app to it, in place of those of the database."""
        return {
            "DB_ENGINE": "dataapi",
            "DB_CLUSTER_ARN": CLUSTER_ARN,
            "DB_SECRET_ARN": self.secret_arn,
            "DB_NAME": self._database()["DB_NAME"],
            "AWS_ENDPOINT_URL_RDS_DATA": self.url,
            **CREDENTIALS,
        }

    def client(self, **config: Any) -> Any:
        """A boto3 client of this endpoint. It ignores the machine's AWS settings."""
        return isolated_client("rds-data", self.url, **config)

    def control(self, **command: Any) -> dict[str, Any]:
        """For tests: obeys a command, and returns the state after it. `fault`: the members of
        local.data_api.faults.Fault. `limits`: those of local.data_api.limits.Limits.
        `delay_seconds`: before each request. `advance_seconds`: moves the clock of transactions on.
        `reset`: all of it as at the start, open transactions rolled back, nothing counted.

        The state: `requests` counted by operation, `faults` still to happen, open
        `transactions`."""
        body = json.dumps(command).encode()
        request = urllib.request.Request(f"{self.url}/control", body, method="POST")
        with DIRECT.open(request, timeout=30) as response:
            return dict(json.load(response))

    @property
    def _identity(self) -> str:
        # Python takes any -X there is; this one is only to be recognised by.
        return f"herocache={self.home}"

    def _command(self, port: int) -> list[str]:
        module = ["-X", self._identity, "-m", "local.servers.data_api_process"]
        return [sys.executable, *module]

    def _environment(self) -> dict[str, str]:
        secret = {"DB_SECRET_ARN": self.secret_arn}
        return {**os.environ, **self._database(), **secret, "PYTHONPATH": str(ROOT)}

    def _answers(self) -> bool:
        try:
            return "requests" in self.control()
        except OSError:
            return False
