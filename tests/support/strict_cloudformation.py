"""CloudFormation for one stack, which allows in each status what AWS documents, and no call that
our commands should not make.
No emulation fails in the middle.

https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/view-stack-events.html
https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/stack-failure-options.html
"""

import datetime
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import botocore.session
from botocore import xform_name
from botocore.exceptions import ClientError
from botocore.validate import validate_parameters

Json = dict[str, Any]

MODEL = botocore.session.get_session().get_service_model("cloudformation")
STATUSES = tuple(MODEL.shape_for("StackStatus").enum)
ID = "arn:aws:cloudformation:eu-west-1:123456789012:stack/dev/1"
REASON = "the reason"
# How what goes on can end: well, and badly.
ENDS = {
    "CREATE_IN_PROGRESS": ("CREATE_COMPLETE", "ROLLBACK_IN_PROGRESS"),
    "ROLLBACK_IN_PROGRESS": ("ROLLBACK_COMPLETE", "ROLLBACK_FAILED"),
    "DELETE_IN_PROGRESS": ("DELETE_COMPLETE", "DELETE_FAILED"),
    "UPDATE_IN_PROGRESS": ("UPDATE_COMPLETE", "UPDATE_ROLLBACK_IN_PROGRESS"),
    "UPDATE_COMPLETE_CLEANUP_IN_PROGRESS": ("UPDATE_COMPLETE", "UPDATE_COMPLETE"),
    "UPDATE_ROLLBACK_IN_PROGRESS": ("UPDATE_ROLLBACK_COMPLETE", "UPDATE_ROLLBACK_FAILED"),
    "UPDATE_ROLLBACK_COMPLETE_CLEANUP_IN_PROGRESS": (
        "UPDATE_ROLLBACK_COMPLETE",
        "UPDATE_ROLLBACK_COMPLETE",
    ),
    "IMPORT_IN_PROGRESS": ("IMPORT_COMPLETE", "IMPORT_ROLLBACK_IN_PROGRESS"),
    "IMPORT_ROLLBACK_IN_PROGRESS": ("IMPORT_ROLLBACK_COMPLETE", "IMPORT_ROLLBACK_FAILED"),
}
WITHOUT_ROLLBACK = {"CREATE_IN_PROGRESS": "CREATE_FAILED", "UPDATE_IN_PROGRESS": "UPDATE_FAILED"}
COMPLETE = {
    *("CREATE_COMPLETE", "UPDATE_COMPLETE", "UPDATE_ROLLBACK_COMPLETE"),
    *("IMPORT_COMPLETE", "IMPORT_ROLLBACK_COMPLETE"),
}


class StrictCloudFormation:
    """`failing`: so many of the next changes fail. `repairs`: whether it finds something to do in
    a stack that is half made."""

    def __init__(self, status: str | None, failing: int = 0, repairs: bool = True) -> None:
        self.status, self.failing, self.repairs = status, failing, repairs
        self.calls: list[str] = []
        self.deleted_at = float("-inf")
        self.now = 0.0
        self.changes = [{"Action": "Add", "LogicalResourceId": "Alarms"}]
        self._change_sets: set[str] = set()
        self._is_ready = False
        self._without_rollback = False
        self._events: list[Json] = []

    @property
    def clock(self) -> SimpleNamespace:
        """In place of the module `time`. While somebody sleeps, what goes on ends."""
        return SimpleNamespace(
            sleep=self._sleep, monotonic=lambda: self.now, time_ns=lambda: len(self.calls)
        )

    def _sleep(self, seconds: float) -> None:
        self.now += seconds
        if self.status in ENDS:
            self._end()

    def _end(self) -> None:
        good, bad = ENDS[str(self.status)]
        fails = self.failing > 0
        self.failing -= fails
        if fails and self._without_rollback:
            bad = WITHOUT_ROLLBACK.get(str(self.status), bad)
        if fails:
            self._tell(f"{str(self.status).split('_')[0]}_FAILED", REASON)
        self.status = bad if fails else good
        if self.status == "DELETE_COMPLETE":
            self.deleted_at = self.now

    def _tell(self, status: str, reason: str) -> None:
        at = datetime.datetime(2026, 1, 1, tzinfo=datetime.timezone.utc)
        event = {"EventId": str(len(self._events)), "LogicalResourceId": "Cache", "Timestamp": at}
        self._events.append({**event, "ResourceStatus": status, "ResourceStatusReason": reason})

    def describe_stacks(self, StackName: str) -> Json:
        is_gone = self.status is None or (self.status == "DELETE_COMPLETE" and StackName != ID)
        if is_gone:
            self._refuse("ValidationError", f"Stack with id {StackName} does not exist")
        return {"Stacks": [{"StackStatus": self.status, "StackId": ID, "Outputs": []}]}

    def get_paginator(self, operation: str) -> Any:
        pages = {
            "describe_stack_events": self._event_pages,
            "list_stack_resources": self._resource_pages,
        }
        return SimpleNamespace(paginate=pages[operation])

    def _event_pages(self, StackName: str) -> Iterator[Json]:
        yield {"StackEvents": self._events[::-1]}

    def _resource_pages(self, StackName: str) -> Iterator[Json]:
        status = {"UPDATE_ROLLBACK_FAILED": "UPDATE_FAILED"}.get(str(self.status), self.status)
        named = {"LogicalResourceId": "Cache", "PhysicalResourceId": "herocache-dev"}
        yield {"StackResourceSummaries": [{**named, "ResourceStatus": status}]}

    def describe_change_set(self, **names: str) -> Json:
        """One change a page."""
        assert names["ChangeSetName"] in self._change_sets
        if not self.changes:
            reason = "The submitted information didn't contain changes."
            return {"Status": "FAILED", "StatusReason": reason}
        if not self._is_ready:
            self._is_ready = True
            return {"Status": "CREATE_IN_PROGRESS"}
        page = int(names.get("NextToken", "0"))
        change = {"ResourceChange": self.changes[page]}
        token = {"NextToken": str(page + 1)} if page + 1 < len(self.changes) else {}
        return {"Status": "CREATE_COMPLETE", "Changes": [change], **token}

    def __getattr__(self, name: str) -> Callable[..., None]:
        [operation] = [each for each in MODEL.operation_names if xform_name(each) == name]

        def call(**arguments: Any) -> None:
            validate_parameters(arguments, MODEL.operation_model(operation).input_shape)
            self.calls.append(name)
            self._without_rollback = bool(arguments.get("DisableRollback"))
            self._begin(name, arguments)

        return call

    def _begin(self, name: str, arguments: Json) -> None:
        status = self.status
        if name == "create_stack":
            if status not in (None, "DELETE_COMPLETE"):
                self._refuse("AlreadyExistsException", "Stack [dev] already exists")
            self.status = "CREATE_IN_PROGRESS"
            if self.now - self.deleted_at < 60:
                self.failing += 1  # the queue's name is taken
        elif name == "update_stack":
            self._allow(status in ("CREATE_FAILED", "UPDATE_FAILED") and self._without_rollback)
            if not self.repairs:
                self._refuse("ValidationError", "No updates are to be performed.")
            self.status = "UPDATE_IN_PROGRESS"
        elif name == "create_change_set":
            self._allow(status in COMPLETE)
            assert arguments["ChangeSetName"] not in self._change_sets
            self._change_sets.add(arguments["ChangeSetName"])
        elif name == "execute_change_set":
            self._allow(status in COMPLETE and arguments["ChangeSetName"] in self._change_sets)
            self.status = "UPDATE_IN_PROGRESS"
        elif name == "delete_change_set":
            self._change_sets.remove(arguments["ChangeSetName"])
        elif name == "rollback_stack":
            self._allow(status in ("CREATE_FAILED", "UPDATE_FAILED"))
            self.status = {"CREATE_FAILED": "ROLLBACK_IN_PROGRESS"}.get(
                str(status), "UPDATE_ROLLBACK_IN_PROGRESS"
            )
        elif name == "continue_update_rollback":
            self._allow(status == "UPDATE_ROLLBACK_FAILED")
            self.status = "UPDATE_ROLLBACK_IN_PROGRESS"
            if arguments.get("ResourcesToSkip"):
                self.failing = 0
        else:
            assert name == "delete_stack", name
            self._allow(status not in ENDS)
            if forced := arguments.get("DeletionMode") == "FORCE_DELETE_STACK":
                self._allow(status == "DELETE_FAILED")
            self.failing = 0 if forced else self.failing
            self.status = "DELETE_IN_PROGRESS"

    def _allow(self, is_allowed: bool) -> None:
        if not is_allowed:
            self._refuse("ValidationError", f"not allowed while the stack is {self.status}")

    def _refuse(self, code: str, message: str) -> None:
        raise ClientError({"Error": {"Code": code, "Message": message}}, "any")
