"""How long a request waits for Redis: for a connection that is being opened, and for all replies of
one call."""

import math
import time

# For all replies of a call. Who can do without Redis waits no longer for a connection either: the
# database answers, and the connection goes on opening for the requests that come next.
TIMEOUT_SECONDS = 0.1

# For each step of opening a connection (TCP, TLS, login, who the server is), and for a connection
# in a write, which would have to switch the cache off without it. With a part of a CPU, a login
# over TLS takes longer than any call.
OPENING_SECONDS = 1.0

# What is slower counts as silence. A reply of megabytes has so much more time.
MIN_BYTES_A_SECOND = 5_000_000


class Deadline:
    """Until when a connection waits for replies, in monotonic seconds. However many pieces a reply
    comes in, the wait ends then: `redis_driver` looks before each piece. Each byte that comes moves
    it by the time that it may take."""

    until = math.inf

    def seconds_left(self) -> float:
        """0 where the time is over."""
        return max(0.0, self.until - time.monotonic())

    def received(self, count: int) -> None:
        self.until += seconds_to_pass(count)


def seconds_to_pass(count: int) -> float:
    """How long so many bytes may take."""
    return count / MIN_BYTES_A_SECOND
