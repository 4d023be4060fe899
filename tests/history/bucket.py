"""A folder in place of the bucket: it holds uploads, and their results."""

import io
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError
from botocore.response import StreamingBody

from chalicelib.ingest import bucket
from tests.history.records import now

Event = dict[str, Any]


class Folder:
    """Answers the calls of an S3 client that small files need. Whoever shares the folder shares
    the bucket."""

    def __init__(self, home: Path) -> None:
        self._home = home
        home.mkdir(exist_ok=True)

    def put_object(self, *, Key: str, Body: bytes, **_: Any) -> None:
        self._path(Key).write_bytes(Body)

    def get_object(self, *, Key: str, **_: Any) -> dict[str, Any]:
        try:
            content = self._path(Key).read_bytes()
        except FileNotFoundError as error:
            raise ClientError({"Error": {"Code": "NoSuchKey"}}, "GetObject") from error
        return {
            "Body": StreamingBody(io.BytesIO(content), len(content)),
            "ContentLength": len(content),
            "ETag": Key,
        }

    head_object = get_object

    def upload(self, key: str, content: str) -> Event:
        """Put a file there; the event that S3 sends."""
        self.put_object(Key=key, Body=content.encode())
        place = {"key": key, "size": len(content), "eTag": key, "sequencer": f"{now():018X}"}
        of_object = {"bucket": {"name": self._home.name}, "object": place}
        return {"Records": [{"eventName": "ObjectCreated:Put", "s3": of_object}]}

    def stand_in(self) -> None:
        """For S3, in this process."""
        bucket._client = lambda: self  # type: ignore[assignment]

    def _path(self, key: str) -> Path:
        return self._home / key.replace("/", ":")
