"""The fences of one try of a write, and how long they are worth anything.

While a fence stands no reader believes or fills its entry. A writer may sleep, or be cut off from
Redis, between two steps. So before it relies on its fences it asks how old they are, and whether
another writer has published meanwhile.
"""

import time
from dataclasses import dataclass

from chalicelib.cache import Pending, Token
from chalicelib.db import Generation
from chalicelib.errors import CacheUnavailable

# A writer whose fences are older does not rely on them: they soon count as those of a dead writer.
MAX_FENCE_SECONDS = 5

# A writer whose fences are older stores nothing. This and the time that a new row's witness lives
# must together be shorter than the time that a tombstone stays.
MAX_SECONDS_TO_STORE = 1


@dataclass
class Fences:
    """The fences of one try of a write: sent under the generation `held`, and perhaps not yet
    waited for. `sent_at` is Unix time, which goes on while the process sleeps."""

    held: Generation
    token: Token
    sent_at: float
    pending: Pending[float]
    watermark: float | None = None

    def wait(self) -> float:
        """Return when the fences stand. The result is the watermark: when the latest change was
        committed that had been published before. Raises CacheUnavailable, AnotherServer."""
        if self.watermark is None:
            self.watermark = self.pending.wait()
        return self.watermark

    def allow(self, read_at: int) -> bool:
        """Whether what was read at `read_at` may be stored: nobody has published a later change.
        Waits for the fences, and raises as `wait`. Raises CacheUnavailable where they may count as
        a dead writer's."""
        watermark = self.wait()
        age = time.time() - self.sent_at
        if age > MAX_FENCE_SECONDS:
            raise CacheUnavailable("this process slept since it sent its fences")
        return watermark < read_at and age <= MAX_SECONDS_TO_STORE
