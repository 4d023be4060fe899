"""How long a request waits for Redis: for a new connection, and for all replies of one call."""

import math
import time

# Each of the two may take so long.
TIMEOUT_SECONDS = 0.1


class Deadline:
    """Until when a connection waits for replies, in monotonic seconds. However many pieces a reply
    comes in, the wait ends then: `redis_driver` looks before each piece."""

    until = math.inf

    def seconds_left(self) -> float:
        """Negative where the time is over."""
        return self.until - time.monotonic()
