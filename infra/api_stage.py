"""How often the stage of an API answers, and the log of who called it; Chalice sets neither."""

import json
from collections.abc import Iterable
from functools import partial

from infra.account import Client
from infra.aws_errors import done_unless, retry
from infra.stage_files import APP, Json
from infra.terminal import say

# Routes that are open to everybody, in the words of API Gateway: / is ~1. They are handled by the
# same function as the others, and would take its place.
OPEN_ROUTES = (
    *("~1health/GET", "~1health/HEAD", "~1health/OPTIONS"),
    *("~1/OPTIONS", "~1health~1deep/OPTIONS", "~1read/OPTIONS"),
)
# A line of the log. It holds no text of the caller's own.
LINE = json.dumps(
    {
        "request": "$context.requestId",
        "time": "$context.requestTime",
        "caller": "$context.identity.caller",
        "user": "$context.identity.userArn",
        "key": "$context.identity.apiKeyId",
        "from": "$context.identity.sourceIp",
        "method": "$context.httpMethod",
        "path": "$context.resourcePath",
        "status": "$context.status",
        "milliseconds": "$context.responseLatency",
    }
)
PATIENCE_SECONDS = 60.0


def limit(gateway: Client, api_id: str, api_stage: str, limits: Json) -> None:
    """Limits all routes, and the open ones more. `limits`: `throttle` of infra/<stage>.json."""
    all_routes = (limits["requests_per_second"], limits["burst"])
    open_routes = (limits["open_routes_per_second"], limits["open_routes_burst"])
    changes: list[tuple[str, str]] = []
    for route, (rate, burst) in {
        "*/*": all_routes,
        **dict.fromkeys(OPEN_ROUTES, open_routes),
    }.items():
        changes.append((f"/{route}/throttling/rateLimit", str(rate)))
        changes.append((f"/{route}/throttling/burstLimit", str(burst)))
    _change(gateway, api_id, api_stage, changes)
    say(
        "limits",
        f"{all_routes[0]} requests a second, {all_routes[1]} at once; without a login"
        f" {open_routes[0]} and {open_routes[1]} a route",
    )


def log_calls(
    gateway: Client, logs: Client, name: str, api_id: str, api_stage: str, role_arn: str, days: int
) -> None:
    """Logs each request for so many days. `name`: of the stage. `role_arn`: what API Gateway writes
    the log as."""
    group = log_group(name)
    done_unless("ResourceAlreadyExistsException", logs.create_log_group, logGroupName=group)
    logs.put_retention_policy(logGroupName=group, retentionInDays=days)
    _let_gateway_log(gateway, role_arn)
    [found] = [
        each
        for each in logs.describe_log_groups(logGroupNamePrefix=group)["logGroups"]
        if each["logGroupName"] == group
    ]
    changes = [
        ("/accessLogSettings/destinationArn", str(found["arn"]).removesuffix(":*")),
        ("/accessLogSettings/format", LINE),
    ]
    _change(gateway, api_id, api_stage, changes)
    say("calls", f"{group}: kept {days} days")


def remove_log(logs: Client, name: str) -> None:
    """Removes the log of calls, where there is one."""
    group = log_group(name)
    if done_unless("ResourceNotFoundException", logs.delete_log_group, logGroupName=group):
        say("calls", f"{group}: removed")


def log_group(name: str) -> str:
    """The log group of the calls to a stage."""
    return f"/aws/apigateway/{name}"


def _change(
    gateway: Client, api_id: str, api_stage: str, changes: Iterable[tuple[str, str]]
) -> None:
    operations = [{"op": "replace", "path": path, "value": value} for path, value in changes]
    update = partial(
        gateway.update_stage, restApiId=api_id, stageName=api_stage, patchOperations=operations
    )
    retry(update, {"TooManyRequestsException"}, PATIENCE_SECONDS)


def _let_gateway_log(gateway: Client, role_arn: str) -> None:
    """API Gateway has one role for its logs in an account and region. One of somebody else's stays.
    One of another stage of ours may be gone."""
    role = gateway.get_account().get("cloudwatchRoleArn", "")
    if role != role_arn and (not role or f":role/{APP}-" in role):
        change = {"op": "replace", "path": "/cloudwatchRoleArn", "value": role_arn}
        gateway.update_account(patchOperations=[change])
