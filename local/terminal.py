"""What the commands print."""

import contextlib

from chalicelib.errors import one_line


def say(subject: str, text: str) -> None:
    """Prints one line, whatever an object key or another text in it holds. A closed terminal is no
    error: servers must still be stopped."""
    with contextlib.suppress(OSError):
        print(one_line(f"{subject:<10} {text}"), flush=True)
