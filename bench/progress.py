"""Where a long run is, on standard error: its tables go to standard output."""

import sys
import time

_STARTED = time.monotonic()


def progress(text: str) -> None:
    """A line, with the seconds since the start."""
    print(f"{time.monotonic() - _STARTED:>4.0f} s  {text}", file=sys.stderr, flush=True)
