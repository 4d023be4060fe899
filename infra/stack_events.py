"""Prints what happens to a CloudFormation stack while it happens."""

import time
from collections.abc import Iterator
from typing import Any

from infra.account import Client
from infra.terminal import Refused, say

POLL_SECONDS = 3.0
# For one change. A database cluster and a cache take a quarter of an hour each.
PATIENCE_SECONDS = 2 * 3600.0

Event = dict[str, Any]


def follow(client: Client, stack: str, seen: set[str]) -> tuple[str, list[str]]:
    """Prints new events until the change ends. Returns the status, and the events that failed.
    `stack`: its name or id. `seen`: the ids of the events from before."""
    failures: list[str] = []
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        status = str(client.describe_stacks(StackName=stack)["Stacks"][0]["StackStatus"])
        for event in reversed(list(_new_events(client, stack, seen))):
            if line := _show(event):
                failures.append(line)
        if not goes_on(status):
            return status, failures
        time.sleep(POLL_SECONDS)
    raise Refused(
        f"{stack} still works after two hours: look at it in CloudFormation's console; the same"
        " command follows it again"
    )


def goes_on(status: str) -> bool:
    """Whether CloudFormation works on a stack with this status."""
    return status.endswith("_IN_PROGRESS") and status != "REVIEW_IN_PROGRESS"


def ids_until_now(client: Client, stack: str) -> set[str]:
    """The ids of the events that have come."""
    return {event["EventId"] for event in _events(client, stack)}


def _new_events(client: Client, stack: str, seen: set[str]) -> Iterator[Event]:
    for event in _events(client, stack):
        if event["EventId"] in seen:
            return
        seen.add(event["EventId"])
        yield event


def _events(client: Client, stack: str) -> Iterator[Event]:
    """The events, newest first."""
    for page in client.get_paginator("describe_stack_events").paginate(StackName=stack):
        yield from page["StackEvents"]


def _show(event: Event) -> str | None:
    """Prints an event. Returns its line where it is a failure, but not where another one caused
    it."""
    status, reason = event["ResourceStatus"], event.get("ResourceStatusReason", "")
    what = f"{event['LogicalResourceId']} {status}"
    at = event["Timestamp"].strftime("%H:%M:%S")
    say(at, f"{what}: {reason}" if reason else what)
    if status.endswith("_FAILED") and "cancelled" not in reason:
        return f"{what}: {reason}"
    return None
