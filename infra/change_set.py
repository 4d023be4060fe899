"""What a change of a CloudFormation stack would do, before it is done."""

import time
from typing import Any

from infra.account import Client
from infra.terminal import Refused, confirm, say

POLL_SECONDS = 2.0
_WORKING = {"CREATE_PENDING", "CREATE_IN_PROGRESS"}
# How CloudFormation words that a change set is empty.
_EMPTY = ("didn't contain changes", "No updates are to be performed")
# By CloudFormation's word for whether a resource is replaced; the old one is deleted then.
_REPLACEMENT = {"True": ", which replaces it", "Conditional": ", which may replace it"}

Json = dict[str, Any]


class ChangeSet:
    """The changes that `request`, as for UpdateStack, would make."""

    def __init__(self, client: Client, request: Json) -> None:
        self._client = client
        self._names = {
            "StackName": request["StackName"],
            "ChangeSetName": f"herocache-{time.time_ns()}",
        }
        self._losses: list[str] = []
        client.create_change_set(**{**request, **self._names}, ChangeSetType="UPDATE")

    def show(self) -> bool:
        """Prints each change. Returns False where there is none. Raises Refused where
        CloudFormation does not take the template or the parameters."""
        found = self._client.describe_change_set(**self._names)
        while found["Status"] in _WORKING:
            time.sleep(POLL_SECONDS)
            found = self._client.describe_change_set(**self._names)
        if found["Status"] == "FAILED":
            self._drop()
            reason = found.get("StatusReason", "no reason was given")
            if any(words in reason for words in _EMPTY):
                return False
            raise Refused(f"the stack cannot be changed so: {reason}; nothing was changed")
        self._show_page(found)
        while token := found.get("NextToken"):
            found = self._client.describe_change_set(**self._names, NextToken=token)
            self._show_page(found)
        return True

    def _show_page(self, page: Json) -> None:
        for each in page.get("Changes", []):
            change = each["ResourceChange"]
            replaces = _REPLACEMENT.get(change.get("Replacement", ""), "")
            line = f"{change['Action']} {change['LogicalResourceId']}{replaces}"
            say("change", line)
            if replaces or change["Action"] == "Remove":
                self._losses.append(line)

    def confirm_losses(self) -> None:
        """Asks where something would be deleted or replaced. Raises Refused where nobody agrees;
        nothing was changed then."""
        if not self._losses:
            return
        lines = "\n  ".join(self._losses)
        try:
            confirm(f"What this deletes or replaces loses what is in it:\n  {lines}", "change")
        except Refused:
            self._drop()
            raise

    def execute(self, StackName: str) -> None:
        """Begins to make the changes."""
        self._client.execute_change_set(**{**self._names, "StackName": StackName})

    def _drop(self) -> None:
        self._client.delete_change_set(**self._names)
