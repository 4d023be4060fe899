"""An S3 endpoint as a private server on loopback, and the function that its uploads reach.

`make up` and `make run` start it; emulated_s3.py is what runs then. Any S3 client works against it.
"""

import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from local.app import DIRECT
from local.outcome import Outcome, read_outcomes
from local.process import LOOPBACK, ROOT, Server, ServerError

BUCKET = "herocache"
PREFIX = "incoming/"
REGION = "us-east-1"

Progress = Callable[[int], object]


def no_progress(_: int) -> None:
    """Tells nobody."""


def key_for(path: Path, table: str) -> str:
    """Where in the bucket the file belongs."""
    return f"{PREFIX}{table}/{path.name}" if table else f"{PREFIX}{path.name}"


class S3(Server):
    """One versioned bucket. Its objects are gone when it stops; the rows made from them are not.

    `settings`: the file of `KEY=value` lines that the function runs on, read at each of its events.
    """

    title = "S3"

    def __init__(self, home: Path, settings: Path, port: int | None = None) -> None:
        super().__init__(home, port)
        self._settings = settings

    @property
    def url(self) -> str:
        """The endpoint."""
        return f"http://{LOOPBACK}:{self.port}"

    @property
    def uploads(self) -> str:
        """Where uploads go, in words."""
        return f"s3://{BUCKET}/{PREFIX} at {self.url}"

    def environment(self) -> dict[str, str]:
        """The settings that lead the app and any S3 client here. It checks no signature, so the key
        is no secret."""
        return {
            "AWS_ENDPOINT_URL_S3": self.url,
            "UPLOAD_BUCKET": BUCKET,
            "AWS_ACCESS_KEY_ID": "herocache",
            "AWS_SECRET_ACCESS_KEY": "not-checked",
            "AWS_DEFAULT_REGION": REGION,
        }

    def upload(self, path: Path, table: str = "", progress: Progress = no_progress) -> str:
        """Put a file where the function loads it into `table`, or into heroes without one; the
        version that the object got. `progress` gets the bytes of each piece, in any thread. Raises
        ServerError."""
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
        """A boto3 client of this endpoint, whatever the machine's AWS settings are."""
        # Imported here: `make down` must stop servers when the packages are gone.
        import boto3
        import botocore.session
        from botocore.config import Config

        none = (None, None, None, None)
        no_file = (None, None, os.devnull, None)
        nowhere = {"profile": none, "config_file": no_file, "credentials_file": no_file}
        session = boto3.Session(botocore_session=botocore.session.Session(nowhere))
        settings = self.environment()
        return session.client(
            "s3",
            region_name=REGION,
            endpoint_url=self.url,
            aws_access_key_id=settings["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=settings["AWS_SECRET_ACCESS_KEY"],
            config=Config(proxies={}, retries={"total_max_attempts": 1}),
        )

    def outcomes(self) -> Iterator[Outcome | None]:
        """What became of each upload that the function handles from now on; None: no more yet."""
        return read_outcomes(self.home / "outcomes")

    def outcome_of(self, version: str, outcomes: Iterator[Outcome | None]) -> Outcome:
        """Wait for what became of the upload with this version, as long as it takes. Raises
        ServerError when this server ends before."""
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
        module = ["-X", self._identity, "-m", "local.emulated_s3"]
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
