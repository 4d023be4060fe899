"""An uploaded file and what became of it: what S3's event says, what `ingest_log` keeps, and where
in the bucket both lie."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote_plus

from chalicelib.errors import BadRequest

INCOMING_FOLDER, REJECTED_FOLDER, RESULTS_FOLDER = "incoming/", "rejected/", "results/"
# The service alone writes here, and nowhere else. Their objects are never taken for uploads: each
# one would make another.
OWN_FOLDERS = (REJECTED_FOLDER, RESULTS_FOLDER)
# Of an object, in UTF-8.
MAX_KEY_BYTES = 1_024
# A status: the rows are in the table; none is, and none ever will be; there was nothing to do.
LOADED, REJECTED, SKIPPED = "loaded", "refused", "skipped"


@dataclass(frozen=True)
class Upload:
    """One version of an object. `version` and `sequencer` are empty where the event has none;
    `size` in bytes."""

    bucket: str
    key: str
    size: int
    version: str = ""
    etag: str = ""
    sequencer: str = ""

    def came_before(self, other: "Upload") -> bool:
        """Of the same key. S3's rule: pad the shorter sequencer on the right with zeros, then
        compare as text. Without sequencers nobody knows.
        https://docs.aws.amazon.com/AmazonS3/latest/userguide/notification-content-structure.html
        """
        if not (self.sequencer and other.sequencer):
            return False
        width = max(len(self.sequencer), len(other.sequencer))
        return self.sequencer.ljust(width, "0") < other.sequencer.ljust(width, "0")

    def is_same(self, other: "Upload") -> bool:
        """Whether both tell of one upload: events are delivered more than once."""
        if self.sequencer and other.sequencer:
            return self.sequencer.rstrip("0") == other.sequencer.rstrip("0")
        return (self.version, self.etag) == (other.version, other.etag)


def result_key(upload: Upload) -> str:
    """Where the bucket tells what became of it."""
    return _told_at(RESULTS_FOLDER, upload.key, ".json")


def report_key(upload: Upload) -> str:
    """Where its rejected rows are told."""
    return _told_at(REJECTED_FOLDER, upload.key, ".csv")


def _told_at(folder: str, key: str, ending: str) -> str:
    """Where that is more than S3 takes for a key, a hash stands for the end of `key`."""
    room = MAX_KEY_BYTES - len(folder) - len(ending)
    if len(key.encode()) > room:
        digest = hashlib.sha256(key.encode()).hexdigest()[:32]
        begin = key.encode()[: room - len(digest) - 1].decode(errors="ignore")
        key = f"{begin}~{digest}"
    return f"{folder}{key}{ending}"


@dataclass(frozen=True)
class Outcome:
    """`rows` in the table now, `rejected` rows told in the report, `reason` why all of the file was
    rejected or skipped. `table` is empty where it is for none that there is. `first_rows`: at most
    three of them, as a read answers with them; the database keeps all of an outcome but these."""

    status: str
    table: str
    rows: int = 0
    rejected: int = 0
    reason: str = ""
    first_rows: Sequence[Mapping[str, Any]] = field(default=(), compare=False)


def has_uploads(event: object) -> bool:
    """Whether `uploads_in` may find some; none in the event by which S3 tests where it sends its
    events. Raises BadRequest where it is no event of S3."""
    if isinstance(event, dict) and event.get("Event") == "s3:TestEvent":
        return False
    records = event.get("Records") if isinstance(event, dict) else None
    if not isinstance(records, list) or not all(map(_is_of_object, records)):
        raise BadRequest(
            "event: this function takes the events that S3 sends when an object was put into"
            " UPLOAD_BUCKET (Records with s3.bucket.name and s3.object.key): upload a file there,"
            " or send a request for rows to the function `storage`"
        )
    return bool(records)


def _is_of_object(record: object) -> bool:
    match record:
        case {"s3": {"bucket": {"name": str()}, "object": {"key": str()}}}:
            return True
    return False


def uploads_in(event: Mapping[str, Any]) -> Iterator[Upload]:
    """Each object that an S3 event says was created, but for those in OWN_FOLDERS. Keys come with +
    for spaces and %-escapes."""
    for record in event.get("Records", ()):
        if not str(record.get("eventName", "")).removeprefix("s3:").startswith("ObjectCreated"):
            continue
        of_object = record["s3"]["object"]
        key = unquote_plus(of_object["key"])
        if key.startswith(OWN_FOLDERS):
            continue
        yield Upload(
            bucket=record["s3"]["bucket"]["name"],
            key=key,
            size=int(of_object.get("size", 0)),
            version=of_object.get("versionId") or "",
            etag=(of_object.get("eTag") or "").strip('"'),
            sequencer=of_object.get("sequencer") or "",
        )
