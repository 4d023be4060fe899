"""What somebody else needs to find out why a stage does not come up. It holds no secret: no
setting's value, no log, no row, and not the number of the account. Only the last error may name a
host."""

import platform
import re
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from infra import adopted_settings, last_error
from infra.account import Client, caller, client, region
from infra.aws_errors import code_of
from infra.stage_files import Stage
from infra.terminal import Refused, printable

ACCOUNT = "123456789012"
_PACKAGES = ("boto3", "chalice")
# Of what GetFunctionConfiguration answers. Not the environment.
_OF_FUNCTION = (
    *("Runtime", "Architectures", "MemorySize", "Timeout", "State", "StateReason"),
    *("LastUpdateStatus", "LastUpdateStatusReason"),
)
_MOST_EVENTS = 20
_ACCOUNT_NUMBER = re.compile(r"\b\d{12}\b")
_ADDRESS = re.compile(r"[^\s'\"/]+@[\w.-]+")


def show(name: str) -> None:
    """Prints the report of a stage. Of one that is not declared yet it tells what there is."""
    for line in _lines(name):
        for secret in _secrets(name):
            line = line.replace(secret, "…")
        print(printable(_ADDRESS.sub("…", _ACCOUNT_NUMBER.sub(ACCOUNT, line))))


def _lines(name: str) -> Iterator[str]:
    packages = ", ".join(f"{each} {version(each)}" for each in _PACKAGES)
    yield f"herocache-{name}; Python {platform.python_version()}, {packages}"
    try:
        yield f"{caller()} in {region()}"
        is_known = True
    except (Refused, BotoCoreError, ClientError) as error:
        yield str(error)
        is_known = False
    if adopted_settings.file_of(name).exists():
        yield from _section(f"infra/{name}.env", _settings(name))
    yield from _section("stage", _stage(name, is_known))
    yield from _section("last error", iter([last_error.of(name) or "none is kept"]))


def _section(title: str, found: Iterator[str]) -> Iterator[str]:
    yield f"--- {title}"
    try:
        yield from found
    except Refused as error:
        yield str(error)
    except (BotoCoreError, ClientError) as error:
        yield f"cannot be asked: {error}"


def _settings(name: str) -> Iterator[str]:
    """The names of the settings, and what is wrong with them."""
    found = adopted_settings.read(adopted_settings.file_of(name))
    yield f"given: {', '.join(key for key in found if found[key])}"
    yield f"empty: {', '.join(key for key in found if not found[key])}"
    yield from adopted_settings.problems(found)


def _stage(name: str, is_known: bool) -> Iterator[str]:
    """What its files say and, where AWS knows who asks, what AWS says."""
    stage = Stage(name)
    parameters = stage.choices.get("parameters", {})
    yield "on pieces that were there" if stage.is_adopted else f"parameters {parameters}"
    yield f"settings {', '.join(sorted(stage.environment))}"
    if not is_known:
        return
    if not stage.is_adopted:
        yield from _section("stack", _stack(client("cloudformation"), stage.full_name))
    yield from _section("functions", _functions(client("lambda"), stage))
    yield from _section("limits", _limits(client("lambda")))


def _secrets(name: str) -> list[str]:
    """What no error may show, whoever wrote it."""
    try:
        found = adopted_settings.read(adopted_settings.file_of(name))
    except Refused:
        return []
    return [found[each] for each in adopted_settings.SECRETS if found.get(each)]


def _stack(aws: Client, name: str) -> Iterator[str]:
    found = aws.describe_stacks(StackName=name)["Stacks"][0]
    yield f"{found['StackStatus']} {found.get('StackStatusReason', '')}".strip()
    for page in aws.get_paginator("list_stack_resources").paginate(StackName=name):
        for each in page["StackResourceSummaries"]:
            if not each["ResourceStatus"].endswith("_COMPLETE"):
                yield f"{each['LogicalResourceId']} {each['ResourceStatus']}"
    yield from list(_failures(aws, name))[:_MOST_EVENTS]


def _failures(aws: Client, name: str) -> Iterator[str]:
    """What failed, the newest first."""
    for page in aws.get_paginator("describe_stack_events").paginate(StackName=name):
        for each in page["StackEvents"]:
            if each["ResourceStatus"].endswith("_FAILED"):
                what = f"{each['Timestamp']:%Y-%m-%d %H:%M:%S} {each['LogicalResourceId']}"
                yield f"{what} {each['ResourceStatus']}: {each.get('ResourceStatusReason', '')}"


def _functions(aws: Client, stage: Stage) -> Iterator[str]:
    for name in stage.function_names:
        try:
            found: dict[str, Any] = aws.get_function_configuration(FunctionName=name)
        except ClientError as error:
            yield f"{name}: {code_of(error)}"
            continue
        shown = {key: found[key] for key in _OF_FUNCTION if found.get(key)}
        subnets = found.get("VpcConfig", {}).get("SubnetIds", [])
        yield f"{name}: {shown}, {len(subnets)} subnets"


def _limits(aws: Client) -> Iterator[str]:
    yield str(aws.get_account_settings()["AccountLimit"])
