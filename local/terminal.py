"""What the commands print."""

import contextlib


def say(subject: str, text: str) -> None:
    """Prints one line. A closed terminal is no error: servers must still be stopped."""
    with contextlib.suppress(OSError):
        print(f"{subject:<10} {text}", flush=True)
