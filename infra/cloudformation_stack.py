"""Creates, changes and deletes a CloudFormation stack, and prints its events while they come."""

import time
from collections.abc import Iterator, Mapping
from typing import Any

from botocore.exceptions import ClientError

from infra.account import Client
from infra.aws_errors import code_of
from infra.terminal import Refused, say

POLL_SECONDS = 3.0
# For one change. A database cluster and a cache take a quarter of an hour each.
PATIENCE_SECONDS = 2 * 3600.0
_DONE = {"CREATE_COMPLETE", "UPDATE_COMPLETE", "DELETE_COMPLETE"}
# The creation failed. Such a stack can only be deleted.
_STILLBORN = {"ROLLBACK_COMPLETE", "ROLLBACK_FAILED", "CREATE_FAILED", "REVIEW_IN_PROGRESS"}

Event = dict[str, Any]


class Stack:
    """The stack of this name, in the region of `client`."""

    def __init__(self, client: Client, name: str) -> None:
        self._client = client
        self.name = name

    def status(self) -> str | None:
        """The status as CloudFormation names it; None where there is no such stack."""
        found = self._described()
        return None if found is None else str(found["StackStatus"])

    def outputs(self) -> dict[str, str]:
        """The outputs. Raises Refused where the stack does not exist or is not complete."""
        found = self._described()
        if found is None:
            raise Refused(f"there is no stack {self.name}: run make infra first")
        if found["StackStatus"] not in _DONE | {"UPDATE_ROLLBACK_COMPLETE"}:
            raise Refused(f"the stack {self.name} is {found['StackStatus']}: run make infra again")
        return _outputs(found)

    def remaining_outputs(self) -> dict[str, str]:
        """The outputs, whatever its status; empty where it does not exist."""
        return _outputs(self._described() or {})

    def apply(self, template: str, parameters: Mapping[str, str]) -> None:
        """Creates the stack from `template`, or changes it. Raises Refused with the reasons where
        that fails; CloudFormation has undone the change then."""
        status = self.status()
        if status is not None and status.endswith("_IN_PROGRESS") and status not in _STILLBORN:
            say("stack", f"{self.name} is {status}: following it")
            self._follow(self.name, set())
            status = self.status()
        if status in _STILLBORN:
            say("stack", f"{self.name} could not be created last time: removing the remains")
            self.delete()
            status = None
        request = {
            "StackName": self.name,
            "TemplateBody": template,
            "Parameters": [
                {"ParameterKey": name, "ParameterValue": value}
                for name, value in parameters.items()
            ],
            "Capabilities": ["CAPABILITY_IAM"],
        }
        if status is None:
            self._client.create_stack(**request)
            self._finish(set())
        else:
            self._change(request)

    def delete(self) -> None:
        """Deletes the stack if it exists. Raises Refused with the reasons where that fails."""
        found = self._described()
        if found is None:
            say("stack", f"{self.name} is not there")
            return
        seen = {event["EventId"] for event in self._events(self.name)}
        self._client.delete_stack(StackName=self.name)
        # By its id, because a deleted stack cannot be found by its name.
        self._finish(seen, found["StackId"])

    def _change(self, request: dict[str, Any]) -> None:
        seen = {event["EventId"] for event in self._events(self.name)}
        try:
            self._client.update_stack(**request)
        except ClientError as error:
            if "No updates are to be performed" not in str(error):
                raise
            say("stack", f"{self.name} is as the template says")
            return
        self._finish(seen)

    def _finish(self, seen: set[str], stack_id: str | None = None) -> None:
        status, failures = self._follow(stack_id or self.name, seen)
        if status not in _DONE:
            reasons = "\n  ".join(failures) or "no reason was given"
            raise Refused(f"the stack {self.name} is {status}:\n  {reasons}")
        say("stack", f"{self.name} is {status}")

    def _follow(self, stack: str, seen: set[str]) -> tuple[str, list[str]]:
        """Prints new events until the change ends. Returns the status, and the events that
        failed."""
        failures: list[str] = []
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            status = self._status_of(stack)
            for event in reversed(list(self._new_events(stack, seen))):
                if line := _show(event):
                    failures.append(line)
            if not status.endswith("_IN_PROGRESS"):
                return status, failures
            time.sleep(POLL_SECONDS)
        raise Refused(
            f"{stack} still works after two hours: look at it in CloudFormation's console"
        )

    def _status_of(self, stack: str) -> str:
        return str(self._client.describe_stacks(StackName=stack)["Stacks"][0]["StackStatus"])

    def _new_events(self, stack: str, seen: set[str]) -> Iterator[Event]:
        for event in self._events(stack):
            if event["EventId"] in seen:
                return
            seen.add(event["EventId"])
            yield event

    def _events(self, stack: str) -> Iterator[Event]:
        """The events, newest first."""
        for page in self._client.get_paginator("describe_stack_events").paginate(StackName=stack):
            yield from page["StackEvents"]

    def _described(self) -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = self._client.describe_stacks(StackName=self.name)["Stacks"][0]
        except ClientError as error:
            if code_of(error) == "ValidationError" and "does not exist" in str(error):
                return None
            raise
        return None if found["StackStatus"] == "DELETE_COMPLETE" else found


def _outputs(described: Mapping[str, Any]) -> dict[str, str]:
    return {each["OutputKey"]: each["OutputValue"] for each in described.get("Outputs", [])}


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
