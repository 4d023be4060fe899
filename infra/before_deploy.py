"""Checks before `chalice deploy`: everything that would make it end half-way."""

import sys

from botocore.exceptions import ClientError

from infra import chalice_config
from infra.account import Client, client
from infra.adopted_settings import secrets_of
from infra.aws_errors import code_of
from infra.stage_files import Stage
from infra.terminal import Refused

# Lambda keeps so many concurrent executions for functions that reserve none.
UNRESERVED_MINIMUM = 100
# Those that Lambda runs, but for 3.10, which it left on 2026-10-31. It leaves 3.11 on 2027-06-30.
PYTHONS = ((3, 11), (3, 12), (3, 13), (3, 14))


def refuse_unprepared(stage: Stage) -> None:
    """Raises Refused where `chalice deploy` would fail. Nothing was created then."""
    _refuse_open_by_accident(stage)
    chalice_config.refuse_unconfigured(stage)
    if stage.is_adopted:
        secrets_of(stage.name)
    for setting in chalice_config.BUCKETS:
        if stage.environment[setting]:
            refuse_missing_bucket(client("s3"), stage, setting)
    refuse_too_much_concurrency(client("lambda"), stage)
    refuse_another_python(sys.version_info[:2])


def pythons() -> str:
    """The versions of Python that Lambda runs, in words."""
    first, last = PYTHONS[0], PYTHONS[-1]
    return f"Python {first[0]}.{first[1]} to {last[0]}.{last[1]}"


def refuse_another_python(python: tuple[int, int]) -> None:
    """Raises Refused where Lambda does not run this version. Chalice gives the functions the one
    that it runs on itself."""
    if python not in PYTHONS:
        raise Refused(
            f"the functions would get Python {python[0]}.{python[1]}, which Lambda does not run:"
            f" rm -r .venv, then make deploy PYTHON=python3.13 ({pythons()})"
        )


def _refuse_open_by_accident(stage: Stage) -> None:
    """Raises Refused unless API_AUTH says who may call. Without the setting the API would be open
    to everybody, so on every stage somebody has to write it."""
    auth = stage.api_auth
    if auth not in ("none", "iam", "key"):
        found = "API_AUTH is not set" if auth is None else f"API_AUTH is {auth!r}"
        raise Refused(
            f"STAGE={stage.name}: {found}: write iam, key, or none (everybody may call) in"
            " .chalice/config.json"
        )
    if stage.name == "prod" and auth == "none":
        raise Refused("STAGE=prod: API_AUTH is none: choose iam or key in .chalice/config.json")


def refuse_missing_bucket(s3: Client, stage: Stage, setting: str) -> None:
    """Raises Refused where the bucket of this setting cannot be used. Chalice would find that out
    last."""
    bucket = stage.environment[setting]
    # Names of buckets are the whole world's: one that was deleted may be somebody else's now.
    account = stage.environment.get("BUCKET_OWNER")
    owner = {"ExpectedBucketOwner": account} if account else {}
    try:
        s3.head_bucket(Bucket=bucket, **owner)
    except ClientError as error:
        if code_of(error) != "404":
            raise Refused(
                f"the bucket {bucket} ({setting}) cannot be used: {error}; when the reason is gone,"
                " run the same command again"
            ) from error
        raise Refused(
            f"there is no bucket {bucket} ({setting}): run {stage.made_by}; nothing was changed"
        ) from error


def refuse_too_much_concurrency(functions: Client, stage: Stage) -> None:
    """Raises Refused where the functions reserve more than the account has to give. Asks nothing
    where they reserve none."""
    if not stage.reserved_concurrency:
        return
    limits = functions.get_account_settings()["AccountLimit"]
    ours = sum(_reserved(functions, name) for name in stage.function_names)
    room = limits["UnreservedConcurrentExecutions"] + ours - UNRESERVED_MINIMUM
    if stage.reserved_concurrency > max(room, 0):
        needed = limits["ConcurrentExecutions"] + stage.reserved_concurrency - room
        raise Refused(
            f"STAGE={stage.name} reserves {stage.reserved_concurrency} concurrent executions, the"
            f" account has {max(room, 0)} to give: ask for {needed} (Service Quotas, Lambda,"
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
