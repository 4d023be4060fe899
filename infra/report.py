"""What somebody else needs to find out why a stage does not come up. It holds no secret: no
setting's value, no log, no row, and not the number of the account."""

import platform
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from infra.account import Client, account_id, client, region
from infra.aws_errors import code_of
from infra.stage_files import Stage
from infra.terminal import printable

ACCOUNT = "123456789012"
_PACKAGES = ("boto3", "chalice")
# Of what GetFunctionConfiguration answers. Not the environment.
_OF_FUNCTION = (
    *("Runtime", "Architectures", "MemorySize", "Timeout", "State", "StateReason"),
    *("LastUpdateStatus", "LastUpdateStatusReason"),
)
_MOST_EVENTS = 20


def show(stage: Stage) -> None:
    """Prints the report."""
    hidden = {account_id(): ACCOUNT}
    if email := stage.choices.get("parameters", {}).get("AlarmEmail"):
        hidden[email] = "…"
    for line in _lines(stage):
        for text, instead in hidden.items():
            line = line.replace(text, instead)
        print(printable(line))


def _lines(stage: Stage) -> Iterator[str]:
    packages = ", ".join(f"{name} {version(name)}" for name in _PACKAGES)
    yield f"{stage.full_name} in {region()}; Python {platform.python_version()}, {packages}"
    parameters = stage.choices.get("parameters", {})
    yield "on pieces that were there" if stage.is_adopted else f"parameters {parameters}"
    yield f"settings {', '.join(sorted(stage.environment))}"
    stack = _stack(client("cloudformation"), stage.full_name)
    for title, found in (
        *(() if stage.is_adopted else (("stack", stack),)),
        ("functions", _functions(client("lambda"), stage)),
        ("limits", _limits(client("lambda"))),
    ):
        yield f"--- {title}"
        try:
            yield from found
        except (BotoCoreError, ClientError) as error:
            yield f"cannot be asked: {error}"


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
