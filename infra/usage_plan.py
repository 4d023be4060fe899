"""How often callers with an API key may call: a usage plan and its first key."""

from infra.account import Client
from infra.aws_errors import done_unless
from infra.stage_files import Json
from infra.terminal import say


def apply(gateway: Client, name: str, api_id: str, api_stage: str, limits: Json) -> None:
    """Creates or changes the plan `name` for this stage of this API, and gives it a key."""
    plan = _find(gateway, name)
    if plan is None:
        plan = gateway.create_usage_plan(
            name=name,
            throttle={
                "rateLimit": limits["requests_per_second"],
                "burstLimit": limits["burst"],
            },
            quota={"limit": limits["requests_per_day"], "period": "DAY"},
            apiStages=[{"apiId": api_id, "stage": api_stage}],
        )
    else:
        _change(gateway, plan, f"{api_id}:{api_stage}", limits)
    _give_key(gateway, name, plan["id"])
    say(
        "usage plan",
        f"{name}: {limits['requests_per_second']} requests a second, {limits['burst']} at once,"
        f" {limits['requests_per_day']} a day",
    )


def _change(gateway: Client, plan: Json, api_stage: str, limits: Json) -> None:
    """Changes a plan. `api_stage`: the API's id, a colon, the stage."""
    attached = _attached(plan)
    changes = [
        ("replace", "/throttle/rateLimit", str(limits["requests_per_second"])),
        ("replace", "/throttle/burstLimit", str(limits["burst"])),
        ("replace", "/quota/limit", str(limits["requests_per_day"])),
        # A stage of an API that is gone keeps the plan from being deleted.
        *(("remove", "/apiStages", other) for other in attached if other != api_stage),
    ]
    if api_stage not in attached:
        changes.append(("add", "/apiStages", api_stage))
    gateway.update_usage_plan(
        usagePlanId=plan["id"],
        patchOperations=[{"op": op, "path": path, "value": value} for op, path, value in changes],
    )


def remove(gateway: Client, name: str) -> None:
    """Removes the plan and the key, where they exist."""
    plan, key = _find(gateway, name), find_key(gateway, name)
    if plan is not None:
        for attached in _attached(plan):
            change = {"op": "remove", "path": "/apiStages", "value": attached}
            gateway.update_usage_plan(usagePlanId=plan["id"], patchOperations=[change])
        if key is not None:
            done_unless(
                "NotFoundException",
                gateway.delete_usage_plan_key,
                usagePlanId=plan["id"],
                keyId=key["id"],
            )
        gateway.delete_usage_plan(usagePlanId=plan["id"])
        say("usage plan", f"{name}: removed")
    if key is not None:
        gateway.delete_api_key(apiKey=key["id"])
        say("key", f"{name}: removed")


def find_key(gateway: Client, name: str) -> Json | None:
    """The API key of this name, without its value; None where there is none."""
    for page in gateway.get_paginator("get_api_keys").paginate(nameQuery=name):
        for key in page["items"]:
            if key["name"] == name:
                return dict(key)
    return None


def _give_key(gateway: Client, name: str, plan_id: str) -> None:
    key = find_key(gateway, name) or gateway.create_api_key(name=name, enabled=True)
    done_unless(
        "ConflictException",
        gateway.create_usage_plan_key,
        usagePlanId=plan_id,
        keyId=key["id"],
        keyType="API_KEY",
    )
    say("key", f"{name}: aws apigateway get-api-key --include-value --api-key {key['id']}")


def _find(gateway: Client, name: str) -> Json | None:
    for page in gateway.get_paginator("get_usage_plans").paginate():
        for plan in page["items"]:
            if plan["name"] == name:
                return dict(plan)
    return None


def _attached(plan: Json) -> list[str]:
    return [f"{each['apiId']}:{each['stage']}" for each in plan.get("apiStages", [])]
