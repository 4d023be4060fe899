"""Emulates a Lambda container, and makes its events."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3

from tests.support.emulated_aws import REGION

# The packages that the Lambda runtime brings along.
BOTO3 = ("boto3", "botocore", "s3transfer", "jmespath", "dateutil", "six", "urllib3")

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
    """Nothing but the package, the standard library and boto3 can be imported."""

    def __init__(self, package: Path, runtime: Path, settings: Mapping[str, str]) -> None:
        self._package, self._runtime = package, runtime
        self._environment = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", **settings}

    def invoke(self, *calls: tuple[str, object]) -> tuple[list[Any], list[str]]:
        """The answer to each call, and the packages that were imported from the package."""
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-W", "error", "-c", LAMBDA, self._paths],
            cwd=self._package,
            env=self._environment,
            input="".join(f"{json.dumps(call)}\n" for call in calls),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        lines = done.stdout.splitlines()  # of the log, too
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
