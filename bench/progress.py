"""What a long run is doing, on standard error. Its tables go to standard output."""

import sys
import time

_STARTED = time.monotonic()


def progress(text: str) -> None:
    """A line, with the seconds since the start."""
    print(f"{time.monotonic() - _STARTED:>4.0f} s  {text}", file=sys.stderr, flush=True)
