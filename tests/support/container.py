"""Emulates a Lambda container, and makes its events."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3

from tests.support.emulated_aws import REGION

# The packages that the Lambda runtime brings along.
BOTO3 = ("boto3", "botocore", "s3transfer", "jmespath", "dateutil", "six", "urllib3")

# How often a throttled process is stopped.
THROTTLE_SECONDS = 0.1

# Lambda's way: the handlers are found by name; each gets its event made from JSON.
LAMBDA = """
import importlib, json, sys
sys.path[:0] = json.loads(sys.argv[1])
for line in sys.stdin:
    handler, event = json.loads(line)
    module, name = handler.rsplit(".", 1)
    answer = getattr(importlib.import_module(module), name)(event, None)
    print("answer", json.dumps(answer), flush=True)
print("answer", json.dumps(sorted({
    name.partition(".")[0] for name, module in sys.modules.items()
    if (getattr(module, "__file__", None) or "").startswith(tuple(sys.path[:1]))
})))
"""


def runtime_folder(folder: Path) -> Path:
    """`folder`, with boto3 and what it needs in it, and nothing else."""
    installed = Path(boto3.__file__).parent.parent
    for name in BOTO3:
        found = installed / name if (installed / name).exists() else installed / f"{name}.py"
        (folder / found.name).symlink_to(found)
    return folder


class Container:
    """Nothing but the package, the standard library and boto3 can be imported. It runs for
    `cpu_share` of the time: Lambda gives a whole CPU from 1,769 MB on."""

    def __init__(
        self, package: Path, runtime: Path, settings: Mapping[str, str], cpu_share: float = 1.0
    ) -> None:
        self._package, self._runtime, self._cpu_share = package, runtime, cpu_share
        self.log = ""
        self._environment = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", **settings}

    def invoke(self, *calls: tuple[str, object]) -> tuple[list[Any], list[str]]:
        """The answer to each call, and the packages that were imported from the package."""
        with subprocess.Popen(
            [sys.executable, "-I", "-S", "-W", "error", "-c", LAMBDA, self._paths],
            cwd=self._package,
            env=self._environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            calls_in = "".join(f"{json.dumps(call)}\n" for call in calls)
            try:
                with throttled(process, self._cpu_share):
                    said_out, said_err = process.communicate(calls_in, timeout=120)
            finally:
                process.kill()
        assert process.returncode == 0, said_err
        self.log = said_out + said_err
        lines = said_out.splitlines()  # of the log, too
        said = [line.removeprefix("answer ") for line in lines if line.startswith("answer ")]
        *answers, imported = map(json.loads, said)
        return answers, imported

    @contextmanager
    def warm(self) -> Iterator[Callable[[str, object], Any]]:
        """Calls a function in one process, which stays until the end."""
        with subprocess.Popen(
            [sys.executable, "-I", "-S", "-W", "error", "-c", LAMBDA, self._paths],
            cwd=self._package,
            env=self._environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            events, said = process.stdin, process.stdout
            assert events is not None
            assert said is not None

            def call(handler: str, event: object) -> Any:
                events.write(f"{json.dumps([handler, event])}\n")
                events.flush()
                line = next(line for line in said if line.startswith("answer "))
                return json.loads(line.removeprefix("answer "))

            yield call
            events.close()
            said.read()

    @property
    def _paths(self) -> str:
        return json.dumps([str(self._package), str(self._runtime)])


@contextmanager
def throttled(process: "subprocess.Popen[str]", share: float) -> Iterator[None]:
    """The process runs for this share of each tenth of a second. That is harder than a limit of
    CPU time, which does not count while the process waits."""
    is_over = threading.Event()

    def throttle() -> None:
        while share < 1 and not is_over.is_set():
            time.sleep(THROTTLE_SECONDS * share)
            process.send_signal(signal.SIGSTOP)
            time.sleep(THROTTLE_SECONDS * (1 - share))
            process.send_signal(signal.SIGCONT)

    throttling = threading.Thread(target=throttle, daemon=True)
    throttling.start()
    try:
        yield
    finally:
        is_over.set()
        throttling.join()


def upload_event(bucket: str, key: str, put: Mapping[str, Any], size: int) -> dict[str, Any]:
    """What S3 sends for an object; `put` is what it answered when it came."""
    item = {
        "key": key,
        "size": size,
        "eTag": put["ETag"].strip('"'),
        "sequencer": "0055AED6DCD90281E5",
    }
    if "VersionId" in put:
        item["versionId"] = put["VersionId"]
    record = {
        "eventVersion": "2.1",
        "eventSource": "aws:s3",
        "awsRegion": REGION,
        "eventTime": "2026-01-01T00:00:00.000Z",
        "eventName": "ObjectCreated:Put",
        "s3": {
            "s3SchemaVersion": "1.0",
            "bucket": {"name": bucket, "arn": f"arn:aws:s3:::{bucket}"},
            "object": item,
        },
    }
    return {"Records": [record]}
