"""Moments within a request at which a process can be made to die or to fall asleep.

The nemesis, in another process, orders it; the process obeys once, at its next such moment. Shared
memory without locks: a process killed at any time leaves nothing held.
"""

import ctypes
import os
import time
from multiprocessing.context import SpawnContext
from typing import Any

# A reader has rows from the database and has not stored them yet.
BEFORE_FILL = 1
# A writer has sent its fences, and has not committed yet.
BEFORE_COMMIT = 2
# A writer has committed, and the cache does not show it yet.
BEFORE_PUBLISH = 3

DIE = -1.0
# The exit code of a process that was ordered to die.
DIED = 86


class Orders:
    """One order per process: (moment, seconds to sleep or DIE)."""

    def __init__(self, context: SpawnContext, processes: int) -> None:
        self._orders: Any = context.RawArray(ctypes.c_double, 2 * processes)
        self.obeyed: Any = context.RawArray(ctypes.c_uint64, processes)

    def give(self, process: int, moment: int, seconds: float) -> None:
        self._orders[2 * process + 1] = seconds
        self._orders[2 * process] = moment

    def withdraw(self, process: int) -> None:
        self._orders[2 * process] = 0

    def reach(self, process: int, moment: int) -> None:
        """Called by `process` at every such moment."""
        if self._orders[2 * process] != moment:
            return
        self.withdraw(process)
        self.obeyed[process] += 1
        seconds = self._orders[2 * process + 1]
        if seconds == DIE:
            os._exit(DIED)
        time.sleep(seconds)
