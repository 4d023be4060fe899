"""Errors of AWS that are no failure: what exists or is gone already, what is not ready yet."""

import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any

from botocore.exceptions import ClientError

from infra.terminal import say


def code_of(error: ClientError) -> str:
    """AWS's own name for the error."""
    return str(error.response["Error"]["Code"])


def is_denied(error: ClientError) -> bool:
    """Whether the caller lacks the right."""
    code = code_of(error)
    return code.startswith("AccessDenied") or code in ("UnauthorizedOperation", "403")


@contextmanager
def going_on_where_denied(subject: str) -> Iterator[None]:
    """Ends the block where the caller lacks the right for a call in it, and says so."""
    try:
        yield
    except ClientError as error:
        if not is_denied(error):
            raise
        say("denied", f"{subject}: {error}; going on")


def done_unless(code: str, call: Callable[..., object], **arguments: Any) -> bool:
    """Calls AWS. Returns False where it answers with this error; raises other errors."""
    try:
        call(**arguments)
    except ClientError as error:
        if code_of(error) != code:
            raise
        return False
    return True


def retry(
    call: Callable[[], object],
    codes: Collection[str],
    seconds: float,
    pause_seconds: float = 2.0,
    before_pause: Callable[[], object] = lambda: None,
) -> None:
    """Calls AWS again while it answers with one of these errors. Raises the error after `seconds`,
    and other errors at once."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            call()
            return
        except ClientError as error:
            if code_of(error) not in codes or time.monotonic() > deadline:
                raise
        before_pause()
        time.sleep(pause_seconds)
