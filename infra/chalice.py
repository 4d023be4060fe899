"""The real `chalice deploy` and `chalice delete`, and what has to be true before either begins."""

import subprocess
import sys
import tempfile

from botocore.exceptions import ClientError

from infra import configuration, leftovers
from infra.account import Client, client, code_of
from infra.stage import ROOT, Stage
from infra.terminal import Refused, say

UNRESERVED_MINIMUM = 100
"""What Lambda keeps for functions that reserve nothing."""
_INCOMPLETE = "Could not install dependencies"
_PLATFORMS = {"arm64": "aarch64", "x86_64": "x86_64"}


def refuse_unprepared(stage: Stage) -> None:
    """Everything that would make `chalice deploy` end half-way, checked before it begins. Raises
    Refused; nothing was created."""
    if stage.name == "prod" and stage.environment.get("API_AUTH", "none") == "none":
        raise Refused("STAGE=prod: API_AUTH is none: choose iam or key in .chalice/config.json")
    configuration.refuse_unconfigured(stage)
    _refuse_another_deployment(client("apigateway"), stage)
    refuse_missing_bucket(client("s3"), stage)
    _refuse_too_much_concurrency(client("lambda"), stage)
    refuse_missing_wheels(stage.config["lambda_architecture"], sys.version_info[:2])


def _refuse_another_deployment(gateway: Client, stage: Stage) -> None:
    """Chalice knows an API by the note it made when it deployed; without it there would be two."""
    if not stage.deployed() and any(leftovers.apis(gateway, stage)):
        raise Refused(
            f"{stage.full_name} has an API, but {stage.deployed_file} is not there: get that file"
            " from whoever ran make deploy; if a first make deploy failed half-way, run"
            f" make destroy STAGE={stage.name}, and begin again"
        )


def refuse_missing_bucket(s3: Client, stage: Stage) -> None:
    """Raises Refused where the upload bucket cannot be asked: Chalice would find out last."""
    bucket = stage.environment["UPLOAD_BUCKET"]
    try:
        s3.head_bucket(Bucket=bucket)
    except ClientError as error:
        if code_of(error) != "404":
            raise Refused(f"the bucket {bucket} (UPLOAD_BUCKET) cannot be used: {error}") from error
        raise Refused(
            f"there is no bucket {bucket} (UPLOAD_BUCKET): run make infra and make configure"
            f" STAGE={stage.name}; nothing was changed"
        ) from error


def _refuse_too_much_concurrency(functions: Client, stage: Stage) -> None:
    free = functions.get_account_settings()["AccountLimit"]["UnreservedConcurrentExecutions"]
    ours = sum(_reserved(functions, name) for name in stage.function_names)
    room = free + ours - UNRESERVED_MINIMUM
    if stage.reserved_concurrency > room:
        raise Refused(
            f"STAGE={stage.name} reserves {stage.reserved_concurrency} concurrent executions, the"
            f" account has {max(room, 0)} to give: ask for more (Service Quotas, Lambda,"
            " Concurrent executions) or take reserved_concurrency out of .chalice/config.json"
        )


def _reserved(functions: Client, name: str) -> int:
    try:
        found = functions.get_function_concurrency(FunctionName=name)
    except ClientError as error:
        if code_of(error) == "ResourceNotFoundException":
            return 0
        raise
    return int(found.get("ReservedConcurrentExecutions", 0))


def refuse_missing_wheels(architecture: str, python: tuple[int, int]) -> None:
    """Raises Refused where a package of requirements.txt has none: Chalice would only warn, and
    leave it out."""
    machine = _PLATFORMS[architecture]
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [
                *(sys.executable, "-m", "pip", "download", "--quiet", "--dest", folder),
                *("--disable-pip-version-check", "--only-binary", ":all:", "--no-deps"),
                *("--implementation", "cp", "--python-version", f"{python[0]}.{python[1]}"),
                *("--platform", f"manylinux_2_17_{machine}"),
                *("--platform", f"manylinux2014_{machine}"),
                *("--requirement", str(ROOT / "requirements.txt")),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode:
        raise Refused(
            f"requirements.txt has no wheel for {architecture}, Python {python[0]}.{python[1]}:"
            f" {done.stderr.strip()}"
        )


def deploy(stage: Stage) -> None:
    """Raises Refused where it fails, or has left out a package."""
    lines = _run(stage, "deploy")
    if any(_INCOMPLETE in line for line in lines):
        raise Refused(
            "Chalice left a package out (see above): the functions that are deployed now do not"
            " work; make requirements.txt resolve and run make deploy again"
        )


def delete(stage: Stage) -> None:
    """Raises Refused where it fails. A stage that is not deployed is left alone."""
    if stage.deployed():
        _run(stage, "delete")
    else:
        say("chalice", f"nothing of {stage.name} is deployed")


def _run(stage: Stage, verb: str) -> list[str]:
    """What it said, which is shown while it comes."""
    # Not .venv/bin/chalice: its first line is wrong once the project folder has been moved.
    chalice = [sys.executable, "-c", "import sys; from chalice.cli import main; sys.exit(main())"]
    command = [*chalice, "--project-dir", str(ROOT), verb, "--stage", stage.name]
    lines = []
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line)
            print(f"  {line}", end="", flush=True)
    if process.returncode:
        raise Refused(f"chalice {verb} failed, see above; run the same make command again then")
    return lines
