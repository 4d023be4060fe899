"""An S3 as a private server on loopback. Its uploads call the function `ingest`, and the ranges of
a run of the sync, which are in a bucket of their own, call `sync_range`.

Any S3 client can use it. moto_s3.py is the program that runs.
"""

import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from local.lambda_function.upload_outcome import Outcome, read_outcomes
from local.machine import LOOPBACK, ROOT
from local.servers.app import DIRECT
from local.servers.aws_client import CREDENTIALS, isolated_client
from local.servers.server import Server, ServerError

BUCKET = "herocache"
RANGES = "herocache-ranges"
PREFIX = "incoming/"

Progress = Callable[[int], object]


def no_progress(_: int) -> None:
    """Does nothing."""


def key_for(path: Path, table: str) -> str:
    """The object key for a file that is loaded into `table`."""
    return f"{PREFIX}{table}/{path.name}" if table else f"{PREFIX}{path.name}"


class S3(Server):
    """A versioned bucket for uploads, and one for ranges. Their objects are gone when it stops; the
    rows loaded from them stay.

    `settings`: a file of `KEY=value` lines for the function, read at each event.
    """

    title = "S3"
    takes_over_listener = True

    def __init__(self, home: Path, settings: Path, port: int | None = None) -> None:
        super().__init__(home, port)
        self._settings = settings

    @property
    def url(self) -> str:
        """The URL of the endpoint."""
        return f"http://{LOOPBACK}:{self.port}"

    @property
    def uploads(self) -> str:
        """A text that says where uploads go."""
        return f"s3://{BUCKET}/{PREFIX} at {self.url}"

    def environment(self) -> dict[str, str]:
        """The settings that lead the app and any S3 client to it."""
        buckets = {"UPLOAD_BUCKET": BUCKET, "RANGES_BUCKET": RANGES}
        return {"AWS_ENDPOINT_URL_S3": self.url, **buckets, **CREDENTIALS}

    def upload(self, path: Path, table: str = "", progress: Progress = no_progress) -> str:
        """Uploads a file that the function loads into `table`, without one into heroes. Returns the
        version of the object. `progress` gets the number of bytes of each piece, in any thread.
        Raises ServerError."""
        from boto3.exceptions import Boto3Error
        from botocore.exceptions import BotoCoreError, ClientError

        versions: list[str] = []

        def note_version(parsed: Mapping[str, Any], **_: object) -> None:
            versions.append(parsed.get("VersionId", ""))

        client = self.client()
        client.meta.events.register("after-call.s3", note_version)
        try:
            client.upload_file(str(path), BUCKET, key_for(path, table), Callback=progress)
        except (Boto3Error, BotoCoreError, ClientError) as error:
            raise ServerError(f"{path.name} could not be uploaded: {error}") from error
        return versions[-1]

    def client(self) -> Any:
        """A boto3 client of this endpoint. It ignores the machine's AWS settings."""
        return isolated_client("s3", self.url)

    def outcomes(self) -> Iterator[Outcome | None]:
        """The outcome of each upload that ends from now on. Gives None while there is no next
        one."""
        return read_outcomes(self.home / "outcomes")

    def outcome_of(self, version: str, outcomes: Iterator[Outcome | None]) -> Outcome:
        """Waits for the outcome of the upload with this version, without a timeout. Raises
        ServerError where this server ends before."""
        for outcome in outcomes:
            if outcome is None:
                if self.pid is None:
                    raise ServerError(f"{self.title} ended meanwhile. {self.last_words()}")
                time.sleep(0.02)
            elif outcome.version == version:
                return outcome
        raise AssertionError("there is always another outcome, or None")

    @property
    def _identity(self) -> str:
        # Python takes any -X there is; this one is only to be recognised by.
        return f"herocache={self.home}"

    def _command(self, port: int) -> list[str]:
        module = ["-X", self._identity, "-m", "local.servers.moto_s3"]
        return [sys.executable, *module, str(self.home), str(port), str(self._settings)]

    def _environment(self) -> dict[str, str]:
        temporary = str(self.home / "tmp")
        return {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": temporary}

    def _prepare(self) -> None:
        (self.home / "tmp").mkdir(exist_ok=True)

    def _answers(self) -> bool:
        try:
            with DIRECT.open(f"{self.url}/{BUCKET}?location", timeout=5) as response:
                return bool(response.status == 200)
        except OSError:
            return False
