"""S3 for one run: moto's server in a process of its own, with its objects in memory."""

import socket
import sys
from pathlib import Path

import boto3

from local.machine import LOOPBACK
from local.servers import Server

REGION = "us-east-1"


class S3(Server):
    title = "S3"

    def environment(self) -> dict[str, str]:
        """The settings that lead every S3 client here."""
        return {
            "AWS_ENDPOINT_URL_S3": f"http://{LOOPBACK}:{self.port}",
            "AWS_ACCESS_KEY_ID": "bench",
            "AWS_SECRET_ACCESS_KEY": "bench",
            "AWS_DEFAULT_REGION": REGION,
        }

    @property
    def _identity(self) -> str:
        return f"herocache-s3={self.home}"

    def _command(self, port: int) -> list[str]:
        serve = "from moto.server import main; main()"
        where = ["-H", LOOPBACK, "-p", str(port)]
        return [sys.executable, "-X", self._identity, "-c", serve, *where]

    def _answers(self) -> bool:
        try:
            socket.create_connection((LOOPBACK, self.port), timeout=5).close()
        except OSError:
            return False
        return True


class Uploads:
    """A bucket. Each upload returns the event that S3 would send to the function."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._client = boto3.client("s3")
        self._client.create_bucket(Bucket=name)
        self._count = 0

    def put_file(self, path: Path) -> dict[str, object]:
        """Uploads under a new object key."""
        with path.open("rb") as body:
            return self._put(body, path.stat().st_size)

    def put(self, body: bytes) -> dict[str, object]:
        return self._put(body, len(body))

    def _put(self, body: object, size: int) -> dict[str, object]:
        self._count += 1
        key = f"incoming/heroes/{self._count}.csv"
        stored = self._client.put_object(Bucket=self._name, Key=key, Body=body)
        of_object = {
            "key": key,
            "size": size,
            "eTag": stored["ETag"],
            "sequencer": f"{self._count:016X}",
        }
        record = {
            "eventName": "ObjectCreated:Put",
            "s3": {"bucket": {"name": self._name}, "object": of_object},
        }
        return {"Records": [record]}
