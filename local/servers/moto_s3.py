"""The program that s3.py starts: moto's S3 with two buckets, and what moto does not do as S3 does.

Each object that is stored makes an event for its bucket's function. Objects live as long as this
process: small ones in its memory, larger ones in temporary files.
"""

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.moto_server.werkzeug_app import MotoRequestHandler, create_backend_app
from moto.s3 import notifications
from moto.s3.models import S3Backend, s3_backends
from werkzeug.serving import make_server

from local.chalice_http.host_header import is_own_host
from local.lambda_function.event_queue import Event, Function, Ingest
from local.machine import LISTENER, LOOPBACK
from local.servers.aws_client import REGION
from local.servers.s3 import BUCKET, PREFIX, RANGES

PUT = notifications.S3NotificationEvent.OBJECT_CREATED_PUT_EVENT
CREATED = notifications.S3NotificationEvent.OBJECT_CREATED_EVENT
FUNCTION_ARN = f"arn:aws:lambda:{REGION}:{DEFAULT_ACCOUNT_ID}:function:"
# By bucket: the function that S3 tells of each of its objects, as app.py has it.
FUNCTIONS = {BUCKET: "ingest", RANGES: "sync_range"}
# How many ranges of a run of the sync are worked off at a time.
RANGES_AT_ONCE = 2
STORING = ("put_object", "complete_multipart_upload", "copy_object")


class MotoChanged(Exception):
    """This moto sends S3's events in another way: adapt this module, or pin the former moto."""


class Notifications:
    """Replaces moto's notifications. Events go to `deliver`, not to a Lambda of moto's. They have
    `versionId` and `sequencer`, as S3's events do."""

    def __init__(self, deliver: Callable[[Event], None]) -> None:
        self.deliver = deliver
        self._sequencer = 0

    def install(self) -> None:
        """Makes moto call us in the request that stores an object."""
        # Two requests at once for one object key would lose a version, or mix up the sequencers.
        lock = threading.RLock()
        for name in STORING:
            setattr(S3Backend, name, one_at_a_time(getattr(S3Backend, name), lock))
        notifications.send_event = self.send_event

    def send_event(self, account_id: str, event_name: str, bucket: Any, key: Any) -> None:
        """Moto calls this for every stored object."""
        if event_name == PUT and key.multipart is not None:
            return  # moto sends this one and CompleteMultipartUpload, S3 the latter alone
        configuration = bucket.notification_configuration
        for function in configuration.cloud_function if configuration else ():
            if function.matches(event_name, key.name):
                self.deliver(self._event(event_name, bucket, key, function.id))

    def _event(self, name: str, bucket: Any, key: Any, configuration_id: str) -> Event:
        event: Event = notifications._get_s3_event(name, bucket, key, configuration_id)
        version = {"versionId": key.version_id} if bucket.is_versioned else {}
        # From the clock, because it must also be higher after this process was started again.
        self._sequencer = max(self._sequencer + 1, time.time_ns())
        event["Records"][0]["s3"]["object"] |= {**version, "sequencer": f"{self._sequencer:018X}"}
        return event


def one_at_a_time(method: Callable[..., Any], lock: threading.RLock) -> Callable[..., Any]:
    """The same method, run by one thread at a time."""

    @wraps(method)
    def alone(*args: Any, **kwargs: Any) -> Any:
        with lock:
            return method(*args, **kwargs)

    return alone


def make_buckets() -> None:
    """Makes the buckets. Each sends its function the events of its objects; uploads have
    versions."""
    backend = s3_backends[DEFAULT_ACCOUNT_ID]["aws"]
    for bucket, function in FUNCTIONS.items():
        backend.create_bucket(bucket, REGION)
        configuration = {
            "Id": function,
            "CloudFunction": f"{FUNCTION_ARN}{function}",
            "Event": [CREATED.value],
        }
        backend.put_bucket_notification_configuration(
            bucket, {"CloudFunctionConfiguration": [configuration]}
        )
    backend.put_bucket_versioning(BUCKET, "Enabled")


def function_of(event: Event) -> str:
    """The function that the event is for."""
    return str(event["Records"][0]["s3"]["configurationId"])


def deliver_to(deliver: Callable[[Event], None]) -> None:
    """Makes the buckets, and has their events delivered. Stores a first object: raises MotoChanged
    where its event is not exactly the one that S3 would send."""
    told: list[Event] = []
    ours = Notifications(told.append)
    try:
        ours.install()
        make_buckets()
        backend = s3_backends[DEFAULT_ACCOUNT_ID]["aws"]
        key = backend.put_object(BUCKET, f"{PREFIX}a b.csv", b"x")
        backend.delete_object(BUCKET, key.name, version_id=key.version_id)
        [[sent]] = [event["Records"] for event in told]
        stored = sent["s3"]["object"]
        as_s3 = stored["versionId"] == key.version_id and stored["key"].endswith("a+b.csv")
        as_s3 = as_s3 and function_of(told[0]) == "ingest"
    except (AttributeError, TypeError, KeyError, ValueError) as error:
        raise MotoChanged(MotoChanged.__doc__) from error
    if not as_s3:
        raise MotoChanged(MotoChanged.__doc__)
    ours.deliver = deliver


def for_no_page(application: Any) -> Callable[..., Any]:
    """The same WSGI application, closed to web pages. Moto accepts pages of every origin, and an
    upload writes rows. A browser sends `Origin` with each upload. A page can read without `Origin`
    where its host name was rebound to this machine, but then that name is in `Host`. A page that
    takes an object for an image or a script sees whether the object exists; the browser then says
    in `Sec-Fetch-Site` that another site asks."""

    def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        host = environ.get("HTTP_HOST", LOOPBACK).removeprefix(f"{BUCKET}.")
        site = environ.get("HTTP_SEC_FETCH_SITE", "none")
        if "HTTP_ORIGIN" not in environ and is_own_host(host) and site == "none":
            return application(environ, start_response)
        start_response("403 Forbidden", [("Content-Type", "text/plain")])
        return [b"web pages may not use this S3; other clients use localhost or 127.0.0.1\n"]

    return answer


def end(*_: object) -> None:
    """Ends the process in order on SIGTERM."""
    raise SystemExit(0)


def main(home: Path, port: int, settings: Path) -> None:
    """Serves until told to stop."""
    logging.getLogger("werkzeug").setLevel(logging.WARNING)  # no line for every request
    signal.signal(signal.SIGTERM, end)
    with (
        Ingest(home, settings) as ingest,
        Function(home, settings, "sync_range", RANGES_AT_ONCE) as sync_range,
    ):
        functions = {"ingest": ingest, "sync_range": sync_range}
        deliver_to(lambda event: functions[function_of(event)].invoke_later(event))
        application = for_no_page(create_backend_app("s3"))
        make_server(
            LOOPBACK,
            port,
            application,
            threaded=True,
            request_handler=MotoRequestHandler,
            fd=int(os.environ.pop(LISTENER)),
        ).serve_forever()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
