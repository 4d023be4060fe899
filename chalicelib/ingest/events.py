"""Uploads and their outcomes: what an event of S3 says, and where in the bucket results lie."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote_plus

from chalicelib.errors import BadRequest

INCOMING_FOLDER, REJECTED_FOLDER, RESULTS_FOLDER = "incoming/", "rejected/", "results/"
# Only the service writes to these folders, and nowhere else in this bucket. An object in them is
# never taken for an upload: its result would be an upload again, without end.
OWN_FOLDERS = (REJECTED_FOLDER, RESULTS_FOLDER)
# What S3 calls the version of each upload where versions are suspended: the next one overwrites it.
OVERWRITTEN_VERSION = "null"
# The longest object key that S3 takes, in UTF-8.
MAX_KEY_BYTES = 1_024
# The status of an upload. Loaded: its rows are in the table. Rejected (`refused` in results): none
# of them is, and the file is not tried again. Skipped: there was nothing to do.
LOADED, REJECTED, SKIPPED = "loaded", "refused", "skipped"


@dataclass(frozen=True)
class Upload:
    """One version of an object. `size` is in bytes. `version` and `sequencer` are empty where the
    event has none. `bucket_owner`: the account that must own the bucket; empty for any."""

    bucket: str
    key: str
    size: int
    version: str = ""
    etag: str = ""
    sequencer: str = ""
    bucket_owner: str = ""

    def came_before(self, other: "Upload") -> bool:
        """Whether this upload is older than the other one with the same object key. S3's rule: pad
        the shorter sequencer with zeros on the right, then compare as text. False where one of them
        has no sequencer.
        https://docs.aws.amazon.com/AmazonS3/latest/userguide/notification-content-structure.html
        """
        if not (self.sequencer and other.sequencer):
            return False
        width = max(len(self.sequencer), len(other.sequencer))
        return self.sequencer.ljust(width, "0") < other.sequencer.ljust(width, "0")

    def is_same(self, other: "Upload") -> bool:
        """Whether both are one upload: an event may be delivered more than once."""
        if self.sequencer and other.sequencer:
            return self.sequencer.rstrip("0") == other.sequencer.rstrip("0")
        return (self.version, self.etag) == (other.version, other.etag)


def result_key(upload: Upload) -> str:
    """The object key of the upload's result."""
    return _told_at(RESULTS_FOLDER, upload.key, ".json")


def report_key(upload: Upload) -> str:
    """The object key of the report on the upload's rejected rows."""
    return _told_at(REJECTED_FOLDER, upload.key, ".csv")


def _told_at(folder: str, key: str, ending: str) -> str:
    """An object key in `folder`. Where it would be longer than S3 takes, a hash replaces the end of
    `key`."""
    room = MAX_KEY_BYTES - len(folder) - len(ending)
    if len(key.encode()) > room:
        digest = hashlib.sha256(key.encode()).hexdigest()[:32]
        begin = key.encode()[: room - len(digest) - 1].decode(errors="ignore")
        key = f"{begin}~{digest}"
    return f"{folder}{key}{ending}"


@dataclass(frozen=True)
class Outcome:
    """What became of an upload. `table` is empty where the upload is for no known table. `rows`:
    how many were loaded. `rejected`: how many the report names. `reason`: why the whole file was
    rejected or skipped. `first_rows`: at most three loaded rows, as a read returns them;
    `ingest_log` keeps everything but these."""

    status: str
    table: str
    rows: int = 0
    rejected: int = 0
    reason: str = ""
    first_rows: Sequence[Mapping[str, Any]] = field(default=(), compare=False)


def has_uploads(event: object) -> bool:
    """Whether `uploads_in` may find uploads in the event. S3 sends a test event without any. Raises
    BadRequest where it is no event of S3."""
    if isinstance(event, dict) and event.get("Event") == "s3:TestEvent":
        return False
    records = event.get("Records") if isinstance(event, dict) else None
    if not isinstance(records, list) or not all(map(_is_of_object, records)):
        raise BadRequest(
            "event: this function takes the events that S3 sends when an object was put into its"
            " bucket (Records with s3.bucket.name and s3.object.key; size is a number, versionId,"
            " eTag and sequencer are strings): upload a file to UPLOAD_BUCKET, or send a request"
            " for rows to the function `storage`"
        )
    return bool(records)


def _is_of_object(record: object) -> bool:
    match record:
        case {"s3": {"bucket": {"name": str()}, "object": {"key": str()} as of_object}}:
            size = of_object.get("size", 0)
            texts = [of_object.get(name) or "" for name in ("versionId", "eTag", "sequencer")]
            return type(size) is int and size >= 0 and set(map(type, texts)) == {str}
    return False


def uploads_in(event: Mapping[str, Any]) -> Iterator[Upload]:
    """Each object that an S3 event says was created, except those in OWN_FOLDERS. In the event a
    key has + for a space, and %-escapes."""
    for record in event.get("Records", ()):
        if not str(record.get("eventName", "")).removeprefix("s3:").startswith("ObjectCreated"):
            continue
        of_object = record["s3"]["object"]
        key = unquote_plus(of_object["key"])
        if key.startswith(OWN_FOLDERS):
            continue
        version = of_object.get("versionId") or ""
        yield Upload(
            bucket=record["s3"]["bucket"]["name"],
            key=key,
            size=of_object.get("size", 0),
            version="" if version == OVERWRITTEN_VERSION else version,
            etag=(of_object.get("eTag") or "").strip('"'),
            sequencer=of_object.get("sequencer") or "",
        )
