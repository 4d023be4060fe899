"""What Chalice does not set on its functions: how long logs are kept, where failed events go."""

import time
from collections.abc import Iterable

from botocore.exceptions import ClientError

from infra.account import Client, code_of
from infra.terminal import say

RETRIES = 2
EVENT_AGE_SECONDS = 6 * 3600
"""Lambda's own limits: an event is tried three times, within six hours."""
PATIENCE_SECONDS = 60.0
"""A role that was made a moment ago is not known everywhere yet."""


def keep_logs(logs: Client, functions: Iterable[str], days: int) -> None:
    """The log group of each function exists, and forgets after `days`. Before the functions do:
    then none of them needs a right to make one."""
    for function in functions:
        try:
            logs.create_log_group(logGroupName=log_group(function))
        except ClientError as error:
            if code_of(error) != "ResourceAlreadyExistsException":
                raise
        logs.put_retention_policy(logGroupName=log_group(function), retentionInDays=days)
        say("logs", f"{log_group(function)}: kept {days} days")


def remove_logs(logs: Client, functions: Iterable[str]) -> None:
    """Gone afterwards, also if they never were."""
    for function in functions:
        try:
            logs.delete_log_group(logGroupName=log_group(function))
        except ClientError as error:
            if code_of(error) != "ResourceNotFoundException":
                raise
        else:
            say("logs", f"{log_group(function)}: removed")


def log_group(function: str) -> str:
    """Lambda's name for it."""
    return f"/aws/lambda/{function}"


def send_failures(lambdas: Client, functions: Iterable[str], queue_arn: str) -> None:
    """An event that a function could not handle ends in the queue, with the reason."""
    for function in functions:
        _send_failures(lambdas, function, queue_arn)
        say("failures", f"{function}: to {queue_arn.rpartition(':')[2]} after {RETRIES} retries")


def _send_failures(lambdas: Client, function: str, queue_arn: str) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            lambdas.put_function_event_invoke_config(
                FunctionName=function,
                MaximumRetryAttempts=RETRIES,
                MaximumEventAgeInSeconds=EVENT_AGE_SECONDS,
                DestinationConfig={"OnFailure": {"Destination": queue_arn}},
            )
            return
        except ClientError as error:
            is_new = code_of(error) == "InvalidParameterValueException"
            if not is_new or time.monotonic() > deadline:
                raise
        time.sleep(2)
