"""How much time has passed, also where the machine slept or somebody set its clock.

A frozen container may come back after minutes: one of its clocks went on meanwhile, perhaps not the
other one. Nobody can set back the monotonic one.
"""

import time

# What both clocks show, in seconds.
Clocks = tuple[float, float]


def clocks() -> Clocks:
    return time.time(), time.monotonic()


def seconds_since(before: Clocks) -> float:
    """By the clock that says more."""
    return max(now - then for now, then in zip(clocks(), before))
