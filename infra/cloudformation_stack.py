"""Creates, changes and deletes a CloudFormation stack, whatever status it is in.

What CloudFormation allows in which status:
https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/stack-failure-options.html
https://docs.aws.amazon.com/AWSCloudFormation/latest/APIReference/API_ContinueUpdateRollback.html
"""

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from botocore.exceptions import ClientError

from infra.account import Client
from infra.aws_errors import code_of
from infra.change_set import ChangeSet
from infra.stack_events import follow, goes_on, ids_until_now
from infra.terminal import Refused, confirm, say

# "If you delete a queue, you must wait at least 60 seconds before creating a queue with the same
# name." https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_CreateQueue.html
NAME_TAKEN_SECONDS = 65.0
# Such a stack can be changed, and has its outputs.
COMPLETE = {
    "CREATE_COMPLETE",
    "UPDATE_COMPLETE",
    "UPDATE_ROLLBACK_COMPLETE",
    "IMPORT_COMPLETE",
    "IMPORT_ROLLBACK_COMPLETE",
}
_DONE = {"CREATE_COMPLETE", "UPDATE_COMPLETE", "DELETE_COMPLETE"}
# A creation failed, and what it made is there. Such a stack can be changed without a rollback.
_HALF_MADE = {"CREATE_FAILED", "UPDATE_FAILED"}
# The creation failed. Such a stack can only be deleted.
_STILLBORN = {"ROLLBACK_COMPLETE", "ROLLBACK_FAILED", "REVIEW_IN_PROGRESS"}
_NEVER_COMPLETE = {None, "CREATE_IN_PROGRESS", "ROLLBACK_IN_PROGRESS"} | _HALF_MADE | _STILLBORN

Request = dict[str, Any]


class Stack:
    """The stack of this name, in the region of `client`. `again` and `away`: the commands that go
    on with it, and that delete it."""

    def __init__(
        self, client: Client, name: str, again: str = "make infra", away: str = "make destroy"
    ) -> None:
        self._client = client
        self.name = name
        self._again = again
        self._away = away

    def was_never_complete(self) -> bool:
        """Whether it does not exist, or its creation has not succeeded yet."""
        found = self._described()
        return (found and found["StackStatus"]) in _NEVER_COMPLETE

    def outputs(self) -> dict[str, str]:
        """The outputs. Raises Refused where the stack does not exist or is not complete."""
        found = self._described()
        if found is None:
            raise Refused(f"there is no stack {self.name}: run {self._again} first")
        if found["StackStatus"] not in COMPLETE:
            next_step = self._away if "DELETE" in found["StackStatus"] else self._again
            raise Refused(f"the stack {self.name} is {found['StackStatus']}: run {next_step}")
        return {each["OutputKey"]: each["OutputValue"] for each in found.get("Outputs", [])}

    def resources(self) -> dict[str, str]:
        """The ids of what the stack has made, by their names in the template, whatever its status;
        empty where it does not exist."""
        if self._described() is None:
            return {}
        return {
            each["LogicalResourceId"]: each["PhysicalResourceId"]
            for each in self._resources(self.name)
            if each.get("PhysicalResourceId") and each["ResourceStatus"] != "DELETE_COMPLETE"
        }

    def apply(self, template: str, parameters: Mapping[str, str]) -> None:
        """Creates the stack from `template`, or changes it. Raises Refused with the reasons and the
        next command where that fails.

        A failed creation keeps what it made, and the next call goes on from there. A failed change
        is undone."""
        request = {
            "StackName": self.name,
            "TemplateBody": template,
            "Parameters": [
                {"ParameterKey": name, "ParameterValue": value}
                for name, value in parameters.items()
            ],
            "Capabilities": ["CAPABILITY_IAM"],
        }
        status = self._settled()
        if status == "UPDATE_ROLLBACK_FAILED":
            status = self._continue_rollback()
        if status in _HALF_MADE:
            say("stack", f"{self.name} is half made: going on with it")
            if self._repair(request):
                return
            status = self._roll_back()
        if status in _STILLBORN:
            say("stack", f"{self.name} could not be created last time: removing the remains")
            self.delete()
            say("stack", f"waiting {NAME_TAKEN_SECONDS:.0f} s: a deleted queue's name is taken")
            time.sleep(NAME_TAKEN_SECONDS)
            status = None
        if status is None:
            # OnFailure=DO_NOTHING would keep what was made too, but such a stack cannot be changed:
            # https://github.com/code-dot-org/code-dot-org/pull/68524
            self._client.create_stack(**request, DisableRollback=True)
            self._finish(*follow(self._client, self.name, set()))
        elif status in COMPLETE:
            self._change(request)
        else:
            raise Refused(f"the stack {self.name} is {status}: run {self._away}, then this again")

    def delete(self) -> None:
        """Deletes the stack if it exists. Where something cannot be deleted, asks whether the stack
        may go without it. Raises Refused with the reasons where that fails."""
        self._settled()
        found = self._described()
        if found is None:
            say("stack", f"{self.name} is not there")
            return
        # By its id, because a deleted stack cannot be found by its name.
        stack_id = str(found["StackId"])
        status, failures = self._run(self._client.delete_stack, stack_id)
        if status == "DELETE_FAILED":
            kept = _listed(self._in_status(status, stack_id))
            self._confirm(
                f"CloudFormation cannot delete {kept}", failures, "forget", "stay in the account"
            )
            status, failures = self._run(
                self._client.delete_stack, stack_id, DeletionMode="FORCE_DELETE_STACK"
            )
            say("left", f"{kept}: delete what you do not need")
        self._finish(status, failures)

    def _settled(self) -> str | None:
        """Waits for the end of what goes on at the moment. Returns the status."""
        found = self._described()
        if found is None:
            return None
        status = str(found["StackStatus"])
        if goes_on(status):
            say("stack", f"{self.name} is {status}: following it")
            status, _ = follow(self._client, found["StackId"], set())
        return None if status == "DELETE_COMPLETE" else status

    def _continue_rollback(self) -> str:
        """Undoes what a failed change has left. Asks before it skips what cannot be undone."""
        say("stack", f"{self.name} could not undo its last change: trying again")
        undo = self._client.continue_update_rollback
        status, failures = self._run(undo, self.name)
        if status == "UPDATE_ROLLBACK_FAILED":
            skipped = self._in_status("UPDATE_FAILED", self.name)
            self._confirm(
                f"CloudFormation cannot undo the change of {_listed(skipped)}",
                failures,
                "skip",
                "stay as they are",
            )
            status, failures = self._run(undo, self.name, ResourcesToSkip=list(skipped))
        self._refuse_unless(status in COMPLETE, status, failures)
        return status

    def _roll_back(self) -> str | None:
        """Undoes a creation that cannot be repaired. CloudFormation may delete the stack."""
        status, failures = self._run(self._client.rollback_stack, self.name)
        self._refuse_unless(status in _STILLBORN | COMPLETE | _DONE, status, failures)
        return None if status == "DELETE_COMPLETE" else status

    def _repair(self, request: Request) -> bool:
        """Makes what a failed creation has not made. Returns False where CloudFormation finds
        nothing to do."""
        seen = ids_until_now(self._client, self.name)
        try:
            self._client.update_stack(**request, DisableRollback=True)
        except ClientError as error:
            if "No updates are to be performed" not in str(error):
                raise
            return False
        self._finish(*follow(self._client, self.name, seen))
        return True

    def _change(self, request: Request) -> None:
        """Shows what would change. Asks before it deletes or replaces anything."""
        change_set = ChangeSet(self._client, request)
        if not change_set.show():
            say("stack", f"{self.name} is as the template says")
            return
        change_set.confirm_losses()
        self._finish(*self._run(change_set.execute, self.name))

    def _run(
        self, call: Callable[..., object], stack: str, **arguments: object
    ) -> tuple[str, list[str]]:
        """Calls AWS, and follows what that starts."""
        seen = ids_until_now(self._client, stack)
        call(StackName=stack, **arguments)
        return follow(self._client, stack, seen)

    def _finish(self, status: str, failures: list[str]) -> None:
        self._refuse_unless(status in _DONE, status, failures)
        say("stack", f"{self.name} is {status}")

    def _refuse_unless(self, done: bool, status: str, failures: list[str]) -> None:
        if done:
            return
        next_step = f"run {self._again} again: it goes on from here. {self._away} deletes it"
        if status == "DELETE_FAILED":
            next_step = f"run {self._away} again"
        raise Refused(
            f"the stack {self.name} is {status}:\n  {_reasons(failures)}\n"
            f"Remove the reason, then {next_step}"
        )

    def _confirm(self, problem: str, failures: list[str], answer: str, outcome: str) -> None:
        confirm(
            f"{problem}:\n  {_reasons(failures)}\n"
            f"Remove the reason and run this again, or go on without them: they {outcome}.",
            answer,
            otherwise="run this again when the reason is gone",
        )

    def _in_status(self, status: str, stack: str) -> dict[str, str]:
        """The ids of the resources with this status, by their names in the template."""
        return {
            each["LogicalResourceId"]: each.get("PhysicalResourceId", "no id")
            for each in self._resources(stack)
            if each["ResourceStatus"] == status
        }

    def _resources(self, stack: str) -> Iterator[dict[str, Any]]:
        for page in self._client.get_paginator("list_stack_resources").paginate(StackName=stack):
            yield from page["StackResourceSummaries"]

    def _described(self) -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = self._client.describe_stacks(StackName=self.name)["Stacks"][0]
        except ClientError as error:
            if code_of(error) == "ValidationError" and "does not exist" in str(error):
                return None
            raise
        return None if found["StackStatus"] == "DELETE_COMPLETE" else found


def _listed(resources: Mapping[str, str]) -> str:
    return ", ".join(f"{name} ({id})" for name, id in resources.items())


def _reasons(failures: list[str]) -> str:
    return "\n  ".join(failures) or "no reason was given"
