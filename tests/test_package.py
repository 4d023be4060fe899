"""The package is the product: what `chalice deploy` uploaded, unpacked into an empty folder, serves
alone.
"""

import io
import json
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from bench.events import rest_event
from infra.chalice import refuse_missing_wheels
from infra.terminal import Refused
from tests.client import hero
from tests.emulated_aws import REGION, Emulated, emulated
from tests.stage_life import NATIVE, Life
from tests.witness import Witness

MAX_BYTES = 3_000_000
BOTO3 = ("boto3", "botocore", "s3transfer", "jmespath", "dateutil", "six", "urllib3")
"""What the Lambda runtime brings along."""
ELF_MACHINES = {"x86_64": 62, "arm64": 183}

# Lambda's way: the handlers are found by name; each gets its event made from JSON.
LAMBDA = """
import importlib, json, sys
sys.path[:0] = json.loads(sys.argv[1])
for line in sys.stdin:
    handler, event = json.loads(line)
    module, name = handler.rsplit(".", 1)
    answer = getattr(importlib.import_module(module), name)(event, None)
    print(json.dumps(answer), flush=True)
print(json.dumps(sorted({
    name.partition(".")[0] for name, module in sys.modules.items()
    if (getattr(module, "__file__", None) or "").startswith(tuple(sys.path[:1]))
})))
"""


@pytest.fixture(scope="module")
def package(life: Life, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of this machine's architecture, unpacked."""
    folder = tmp_path_factory.mktemp("task")
    with zipfile.ZipFile(io.BytesIO(life.packages[NATIVE])) as archive:
        archive.extractall(folder)
    return folder


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with boto3 and what it needs, and nothing else."""
    import boto3

    folder = tmp_path_factory.mktemp("runtime")
    installed = Path(boto3.__file__).parent.parent
    for name in BOTO3:
        found = installed / name if (installed / name).exists() else installed / f"{name}.py"
        (folder / found.name).symlink_to(found)
    return folder


@pytest.fixture(scope="module")
def account(life: Life) -> Iterator[Emulated]:
    """Another one, with the upload bucket alone."""
    with emulated() as account:
        account.client("s3").create_bucket(
            Bucket="uploads", CreateBucketConfiguration={"LocationConstraint": REGION}
        )
        yield account


class Container:
    """A Lambda container as far as this machine can play one: nothing but the package, the standard
    library and boto3 can be imported."""

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
        *answers, imported = map(json.loads, done.stdout.splitlines())
        return answers, imported

    @property
    def _paths(self) -> str:
        return json.dumps([str(self._package), str(self._runtime)])


@pytest.fixture
def container(
    package: Path, runtime: Path, environment: Mapping[str, str], witness: Witness
) -> Container:
    """On the real servers, which are empty."""
    return Container(package, runtime, environment)


@pytest.fixture
def handlers(life: Life) -> dict[str, str]:
    """Of each function, as Lambda was told."""
    return {name: each["Handler"] for name, each in life.account["functions"].items()}


# --- it serves alone ------------------------------------------------------------------------------


def test_the_api_answers_a_write_and_a_read(container: Container, handlers: dict[str, str]) -> None:
    api = handlers["herocache-dev"]
    write = json.dumps({"REQUEST": "write", "SQLS": [hero(id=7)]})
    read = json.dumps({"REQUEST": "read", "SQLS": [7]})
    health = {**rest_event(""), "httpMethod": "GET", "path": "/health"}
    health["requestContext"] = {
        **health["requestContext"],
        "httpMethod": "GET",
        "resourcePath": "/health",
    }

    answers, imported = container.invoke(
        (api, rest_event(write)), (api, rest_event(read)), (api, health)
    )

    assert [answer["statusCode"] for answer in answers] == [200, 200, 200], answers
    assert json.loads(answers[0]["body"])["ids"] == [7]
    assert json.loads(answers[1]["body"])["body"] == [{"id": 7, **hero()}]
    assert {"app", "chalice", "chalicelib", "pymysql", "redis", "hiredis"} <= set(imported)


def test_the_storage_function_answers_a_write_and_a_read(
    container: Container, handlers: dict[str, str]
) -> None:
    storage = handlers["herocache-dev-storage"]

    (written, read), _ = container.invoke(
        (storage, {"REQUEST": "write", "SQLS": [hero(id=8)]}),
        (storage, {"REQUEST": "read", "SQLS": [8]}),
    )

    assert written["ids"] == [8]
    assert read["body"] == [{"id": 8, **hero()}]


def test_the_ingest_function_loads_an_uploaded_file(
    package: Path,
    runtime: Path,
    account: Emulated,
    environment: Mapping[str, str],
    handlers: dict[str, str],
    witness: Witness,
) -> None:
    settings = {**environment, **account.environment, "UPLOAD_BUCKET": "uploads"}
    container = Container(package, runtime, settings)
    header, row = "id,hero,power,name,xp,color", "9,Nova,light,Ada,10,red"

    (summaries, read), _ = container.invoke(
        (handlers["herocache-dev-ingest"], uploaded(account, f"{header}\n{row}\n")),
        (handlers["herocache-dev-storage"], {"REQUEST": "read", "SQLS": [9]}),
    )

    [summary] = summaries
    assert (summary["status"], summary["rows"], summary["refused"]) == ("loaded", 1, 0), summary
    assert read["body"] == [{"id": 9, **hero()}]


def uploaded(account: Emulated, text: str) -> dict[str, Any]:
    """Put a file into the bucket; the event that S3 sends for it."""
    key = "incoming/heroes/package.csv"
    put = account.client("s3").put_object(Bucket="uploads", Key=key, Body=text.encode())
    item = {
        "key": key,
        "size": len(text),
        "eTag": put["ETag"].strip('"'),
        "sequencer": "0055AED6DCD90281E5",
    }
    record = {
        "eventVersion": "2.1",
        "eventSource": "aws:s3",
        "awsRegion": REGION,
        "eventTime": "2026-01-01T00:00:00.000Z",
        "eventName": "ObjectCreated:Put",
        "s3": {
            "s3SchemaVersion": "1.0",
            "bucket": {"name": "uploads", "arn": "arn:aws:s3:::uploads"},
            "object": item,
        },
    }
    return {"Records": [record]}


def test_nothing_but_the_package_could_have_answered(package: Path, runtime: Path) -> None:
    """The check would see a package that is only installed on this machine."""
    container = Container(package, runtime, {})
    with pytest.raises(AssertionError, match="No module named 'pytest'"):
        container.invoke(("pytest.main", {}))


# --- it holds only what runs ----------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ["arm64", NATIVE])
def test_it_is_small_and_holds_only_what_runs(life: Life, architecture: str) -> None:
    content = life.packages[architecture]
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        names = archive.namelist()
    tops = {re.split(r"[/.]|-\d", name)[0].lower() for name in names}

    assert len(content) <= MAX_BYTES, f"{len(content):,} bytes"
    assert tops <= {"app", "chalice", "chalicelib", "hiredis", "pymysql", "redis"}
    assert {"app", "chalicelib", "hiredis", "pymysql", "redis"} <= tops
    assert "chalicelib/rds-ca.pem" in names
    unwanted = [name for name in names if re.search(r"(^|/)(tests?|seed|__pycache__)/", name)]
    assert unwanted == []


@pytest.mark.parametrize("architecture", ["arm64", NATIVE])
def test_its_machine_code_is_of_the_functions_architecture(life: Life, architecture: str) -> None:
    with zipfile.ZipFile(io.BytesIO(life.packages[architecture])) as archive:
        libraries = [archive.read(name)[:20] for name in archive.namelist() if ".so" in name]

    assert libraries
    for library in libraries:
        assert library.startswith(b"\x7fELF")
        assert int.from_bytes(library[18:20], "little") == ELF_MACHINES[architecture]


def test_chalice_left_no_package_out(life: Life) -> None:
    for text in (life.first["deploy"], life.again["deploy"]):
        assert "Could not install" not in text


@pytest.mark.parametrize("python", [(3, 11), (3, 12), (3, 13)])
@pytest.mark.parametrize("architecture", ["x86_64", "arm64"])
def test_every_package_has_a_wheel(architecture: str, python: tuple[int, int]) -> None:
    refuse_missing_wheels(architecture, python)


def test_a_package_without_a_wheel_is_refused_and_named() -> None:
    with pytest.raises(Refused, match=r"(?s)no wheel for arm64, Python 3\.5.*hiredis"):
        refuse_missing_wheels("arm64", (3, 5))
