"""The bucket: reads an uploaded object as a stream, and writes reports and results.

Only this module talks to S3. Lambda brings boto3 along; it is imported when it is first needed.
"""

import io
from collections.abc import Generator
from functools import lru_cache
from types import TracebackType
from typing import Any

from chalicelib.config import BUCKET_OWNER, UPLOAD_BUCKET
from chalicelib.errors import BucketUnavailable
from chalicelib.ingest.events import OWN_FOLDERS, Upload

CHUNK_BYTES = 1 << 18
# S3 takes parts of 5 MiB and more, 10,000 of them.
PART_BYTES = 8 << 20
TIMEOUT_SECONDS = 20
# For a bucket to which nothing is uploaded.
ANY_FOLDER = ("",)

_GONE = frozenset({"NoSuchKey", "NoSuchVersion", "PreconditionFailed", "MethodNotAllowed", "404"})


class Gone(Exception):
    """The object, or this version of it, does not exist any more."""


class Bucket:
    """One bucket, which `setting` names. S3 rejects each call where another account than `owner`
    owns it, unless that is empty. Objects are written to `folders` only. Each method raises
    BucketUnavailable, which names the bucket and the reason."""

    def __init__(
        self,
        name: str,
        owner: str = "",
        setting: str = UPLOAD_BUCKET,
        folders: tuple[str, ...] = OWN_FOLDERS,
    ) -> None:
        self._arguments = {"Bucket": name} | ({"ExpectedBucketOwner": owner} if owner else {})
        self._name = name
        self._setting = setting
        self._folders = folders

    def read(self, upload: Upload) -> Generator[bytes, None, None]:
        """The bytes of exactly this upload, in chunks of CHUNK_BYTES. Raises Gone."""
        which = {"VersionId": upload.version} if upload.version else {"IfMatch": upload.etag}
        body = self._call("get_object", Key=upload.key, **which)["Body"]
        try:
            yield from body.iter_chunks(CHUNK_BYTES)
        except _errors() as error:
            raise self._unavailable(error) from error
        finally:
            body.close()

    def size(self, upload: Upload) -> int:
        """How many bytes this upload has. Raises Gone."""
        which = {"VersionId": upload.version} if upload.version else {}
        try:
            found = self._call("head_object", Key=upload.key, **which)
        except Gone:  # to HEAD, S3 does not say whether it is the bucket that is not there
            found = self._call("get_object", Key=upload.key, **which)
            found["Body"].close()
        if not upload.version and found["ETag"].strip('"') != upload.etag:
            raise Gone("another upload")
        return int(found["ContentLength"])

    def is_latest(self, upload: Upload) -> bool:
        """Whether this upload is what S3 gives for the object key without a version."""
        try:
            found = self._call("head_object", Key=upload.key)
        except Gone:
            return False
        if upload.version:
            return bool(found.get("VersionId") == upload.version)
        return bool(found["ETag"].strip('"') == upload.etag)

    def find(self, key: str) -> bytes | None:
        """The content of a small object; None where it does not exist."""
        try:
            body: bytes = self._call("get_object", Key=key)["Body"].read()
        except Gone:
            return None
        except _errors() as error:
            raise self._unavailable(error) from error
        return body

    def write(self, key: str, body: bytes, content_type: str) -> None:
        """Write an object. Raises ValueError outside of the bucket's folders, where it would be
        taken for an upload."""
        self._check_is_own(key)
        self._call("put_object", Key=key, Body=body, ContentType=content_type)

    def writer(self, key: str, content_type: str) -> "Writer":
        """As `write`, for an object that is written in chunks."""
        self._check_is_own(key)
        return Writer(self, key, content_type)

    def _check_is_own(self, key: str) -> None:
        if not key.startswith(self._folders):
            raise ValueError(f"{key}: the service writes to {' and '.join(self._folders)} only")

    def _call(self, operation: str, **arguments: Any) -> Any:
        try:
            return getattr(_client(), operation)(**self._arguments, **arguments)
        except _errors() as error:
            if _code(error) in _GONE:
                raise Gone(_code(error)) from error
            raise self._unavailable(error) from error

    def _unavailable(self, error: Exception) -> BucketUnavailable:
        """The error without the text of botocore, which names the address."""
        reason = _code(error) or type(error).__name__
        return BucketUnavailable(
            f"the bucket {self._name} cannot be used now ({self._setting}): {reason}; is there a"
            f" route to S3 (gateway endpoint), has the function the right, and is {BUCKET_OWNER}"
            " its owner?"
        )


def bucket_of(upload: Upload) -> Bucket:
    """The one that it is in."""
    return Bucket(upload.bucket, upload.bucket_owner)


class Writer:
    """An object of any size, written chunk by chunk. No object is made where there was no chunk, or
    where the block that writes the chunks fails."""

    def __init__(self, bucket: Bucket, key: str, content_type: str) -> None:
        self._bucket = bucket
        self._key = key
        self._content_type = content_type
        self._buffer = io.BytesIO()
        self._upload_id = ""
        self._parts: list[dict[str, object]] = []

    def __enter__(self) -> "Writer":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self._finish()
        elif self._upload_id:
            self._bucket._call("abort_multipart_upload", Key=self._key, UploadId=self._upload_id)

    def write(self, chunk: bytes) -> None:
        self._buffer.write(chunk)
        if self._buffer.tell() >= PART_BYTES:
            self._send_part()

    def _finish(self) -> None:
        if not self._upload_id:
            if self._buffer.tell():
                self._bucket.write(self._key, self._buffer.getvalue(), self._content_type)
            return
        if self._buffer.tell():
            self._send_part()
        self._bucket._call(
            "complete_multipart_upload",
            Key=self._key,
            UploadId=self._upload_id,
            MultipartUpload={"Parts": self._parts},
        )

    def _send_part(self) -> None:
        if not self._upload_id:
            begun = self._bucket._call(
                "create_multipart_upload", Key=self._key, ContentType=self._content_type
            )
            self._upload_id = begun["UploadId"]
        number = len(self._parts) + 1
        which = {"UploadId": self._upload_id, "PartNumber": number}
        part = self._bucket._call(
            "upload_part", Key=self._key, Body=self._buffer.getvalue(), **which
        )
        self._parts.append({"PartNumber": number, "ETag": part["ETag"]})
        self._buffer = io.BytesIO()


@lru_cache(maxsize=1)
def _client() -> Any:
    import boto3
    from botocore.config import Config

    return boto3.client(
        "s3",
        config=Config(
            connect_timeout=TIMEOUT_SECONDS,
            read_timeout=TIMEOUT_SECONDS,
            retries={"mode": "standard", "total_max_attempts": 3},
        ),
    )


def _errors() -> tuple[type[Exception], ...]:
    from botocore.exceptions import BotoCoreError, ClientError

    return BotoCoreError, ClientError


def _code(error: Exception) -> str:
    response = getattr(error, "response", {})
    return str(response.get("Error", {}).get("Code", ""))
