"""The fences of one try of a write, and how long the writer may rely on them.

While a fence stands no reader believes or fills its entry. A writer may sleep, or be cut off from
Redis, between two steps. So before it relies on its fences it asks how old they are, and whether
another writer has published meanwhile.
"""

from dataclasses import dataclass

from chalicelib.cache import Pending, Token
from chalicelib.clocks import Clocks, seconds_since
from chalicelib.db import Generation
from chalicelib.errors import CacheUnavailable

# A writer whose fences are older does not rely on them: they soon count as those of a dead writer.
MAX_FENCE_SECONDS = 5


@dataclass
class Fences:
    """The fences of one try of a write: sent under the generation `held`, and perhaps not yet
    waited for."""

    held: Generation
    token: Token
    sent_at: Clocks
    pending: Pending[int]
    watermark: int | None = None

    def wait(self) -> int:
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
        if seconds_since(self.sent_at) > MAX_FENCE_SECONDS:
            raise CacheUnavailable("this process slept since it sent its fences")
        return watermark < read_at

    @property
    def stay(self) -> bool:
        """Whether it is certain, once they stand, that Redis does not evict them for a while."""
        return self.pending.stays
