"""How long the functions' logs are kept, which Chalice does not set."""

from collections.abc import Iterable

from infra.account import Client
from infra.aws_errors import done_unless
from infra.terminal import say


def keep_logs(logs: Client, functions: Iterable[str], days: int) -> None:
    """Makes the log group of each function, and sets its retention. Runs before the functions
    exist, so that none of them needs the right to make a log group."""
    for function in functions:
        name = log_group(function)
        done_unless("ResourceAlreadyExistsException", logs.create_log_group, logGroupName=name)
        logs.put_retention_policy(logGroupName=name, retentionInDays=days)
        say("logs", f"{name}: kept {days} days")


def remove_logs(logs: Client, functions: Iterable[str]) -> None:
    """Removes the log group of each function, where there is one."""
    for function in functions:
        name = log_group(function)
        if done_unless("ResourceNotFoundException", logs.delete_log_group, logGroupName=name):
            say("logs", f"{name}: removed")


def log_group(function: str) -> str:
    """Lambda's name for the log group of a function."""
    return f"/aws/lambda/{function}"
