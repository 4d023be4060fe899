"""An S3 of the run (moto's server), buckets of single tests in it, and the events S3 would send.

Each test has a bucket of its own, so that none meets another's uploads in `ingest_log`.
"""

import io
import itertools
import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any
from urllib.parse import quote_plus

import boto3
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from botocore.exceptions import ClientError
from urllib3 import HTTPResponse

from chalicelib.ingest import bucket as bucket_module

LOOPBACK = "127.0.0.1"
Event = dict[str, Any]

_names = (f"uploads-{i}" for i in itertools.count(1))
_sequencers = itertools.count(time.time_ns())


@contextmanager
def s3_server() -> Iterator[int]:
    """The port it listens on."""
    # moto takes a third of a second to import, and processes that tests start import this module.
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address=LOOPBACK, port=0, verbose=False)
    server.start()
    try:
        _, port = server.get_host_and_port()
        yield port
    finally:
        server.stop()


def environment(port: int) -> dict[str, str]:
    """What leads every S3 client to that server."""
    return {
        "AWS_ENDPOINT_URL_S3": f"http://{LOOPBACK}:{port}",
        "AWS_ACCESS_KEY_ID": "local",
        "AWS_SECRET_ACCESS_KEY": "local-secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": "/dev/null",
        "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
        "NO_PROXY": LOOPBACK,
    }


@cache
def client_of(port: int) -> Any:
    """Of the server on this port; kept, because to make one takes 15 ms."""
    settings = environment(port)
    return boto3.client(
        "s3",
        endpoint_url=settings["AWS_ENDPOINT_URL_S3"],
        aws_access_key_id=settings["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=settings["AWS_SECRET_ACCESS_KEY"],
        region_name=settings["AWS_DEFAULT_REGION"],
    )


class UploadBucket:
    """`put` answers with the event that S3 sends."""

    def __init__(self, port: int, *, is_versioned: bool = True) -> None:
        self.name = next(_names)
        self.client = client_of(port)
        self.client.create_bucket(Bucket=self.name)
        if is_versioned:
            self.client.put_bucket_versioning(
                Bucket=self.name, VersioningConfiguration={"Status": "Enabled"}
            )

    def put(self, key: str, content: str | bytes) -> Event:
        body = content.encode() if isinstance(content, str) else content
        stored = self.client.put_object(Bucket=self.name, Key=key, Body=body)
        version = {"versionId": stored["VersionId"]} if "VersionId" in stored else {}
        return {
            "Records": [
                {
                    "eventVersion": "2.1",
                    "eventSource": "aws:s3",
                    "eventName": "ObjectCreated:Put",
                    "s3": {
                        "bucket": {"name": self.name},
                        "object": {
                            "key": quote_plus(key, safe="/"),
                            "size": len(body),
                            "eTag": stored["ETag"].strip('"'),
                            **version,
                            "sequencer": f"{next(_sequencers):018X}",
                        },
                    },
                }
            ]
        }

    def get(self, key: str) -> str | None:
        try:
            body: bytes = self.client.get_object(Bucket=self.name, Key=key)["Body"].read()
        except ClientError:
            return None
        return body.decode()

    def summary(self, key: str) -> Any:
        """What the uploader of `key` finds; None while there is nothing."""
        text = self.get(f"results/{key}.json")
        return json.loads(text) if text else None

    def rejected(self, key: str) -> str | None:
        return self.get(f"rejected/{key}.csv")

    def keys(self) -> set[str]:
        listed = self.client.list_objects_v2(Bucket=self.name)
        return {entry["Key"] for entry in listed.get("Contents", ())}


def together(*events: Event) -> Event:
    """One event of all their records."""
    return {"Records": [record for event in events for record in event["Records"]]}


def without(event: Event, *names: str) -> Event:
    """The event of an S3 that does not tell these of an object."""
    [record] = event["Records"]
    of_object = {k: v for k, v in record["s3"]["object"].items() if k not in names}
    return {"Records": [{**record, "s3": {**record["s3"], "object": of_object}}]}


def forget_client() -> None:
    """The next access to a bucket reads the environment again."""
    bucket_module._client.cache_clear()


@contextmanager
def owned_by(account: str) -> Iterator[list[str]]:
    """Has S3 know who owns its buckets, which moto does not. The owners that the service's calls
    expect."""
    expected: list[str] = []

    def answer(request: AWSPreparedRequest, **_: object) -> AWSResponse | None:
        owner = request.headers.get("x-amz-expected-bucket-owner", b"")
        expected.append(owner.decode() if isinstance(owner, bytes) else owner)
        if expected[-1] in ("", account):
            return None
        body = io.BytesIO(b"<Error><Code>AccessDenied</Code></Error>")
        raw = HTTPResponse(body, status=403, preload_content=False)
        return AWSResponse(request.url, 403, {"Content-Type": "application/xml"}, raw)

    bucket_module._client().meta.events.register("before-send.s3", answer)
    try:
        yield expected
    finally:
        forget_client()


def lines(first: int, count: int, **columns: str) -> str:
    """Heroes `first` and those after it as CSV."""
    values: Mapping[str, str] = {"hero": "Nova", "power": "light", "color": "red", **columns}
    hero, power, color = values["hero"], values["power"], values["color"]
    return "".join(f"{i},{hero},{power},Ada {i},{i},{color}\n" for i in range(first, first + count))
