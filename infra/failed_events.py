"""Where an event goes that a function could not handle, which Chalice does not set."""

from collections.abc import Iterable
from functools import partial

from infra.account import Client
from infra.aws_errors import retry
from infra.terminal import say

# Lambda's own limits: an event is tried three times, within six hours.
RETRIES = 2
EVENT_AGE_SECONDS = 6 * 3600
# A role that was made a moment ago is not known everywhere yet.
PATIENCE_SECONDS = 60.0


def send_failures(lambdas: Client, functions: Iterable[str], queue_arn: str) -> None:
    """Sends an event that a function could not handle to the queue, with the reason."""
    for function in functions:
        call = partial(
            lambdas.put_function_event_invoke_config,
            FunctionName=function,
            MaximumRetryAttempts=RETRIES,
            MaximumEventAgeInSeconds=EVENT_AGE_SECONDS,
            DestinationConfig={"OnFailure": {"Destination": queue_arn}},
        )
        retry(call, {"InvalidParameterValueException"}, PATIENCE_SECONDS)
        say("failures", f"{function}: to {queue_arn.rpartition(':')[2]} after {RETRIES} retries")
