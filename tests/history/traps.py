"""A trap in a relay: what happens to the next piece of some kind that passes, whoever sends it.

Pieces are known by what they must hold whatever the order of the protocol's steps: a COMMIT, the
name of a script.
"""

import hashlib
import threading
from collections.abc import Callable, Sequence

from chalicelib.cache import entry_scripts
from tests.support.relay import PASS

COMMIT = b"COMMIT"
# The statements that record what a retry, or a second delivery of a file, is answered.
RECORDS = (b"UPDATE idempotency", b"UPDATE ingest_log")
FENCE = hashlib.sha1(entry_scripts.FENCE_MANY.encode()).hexdigest().encode()
PUBLISH = hashlib.sha1(entry_scripts.PUBLISH_MANY.encode()).hexdigest().encode()


class Trap:
    """A `judge` for a relay. `spring` is called before the first piece with `words` passes, and
    with one of `others` where there are any; it gives the verdict."""

    def __init__(self, words: bytes, spring: Callable[[], int], others: Sequence[bytes]) -> None:
        self._words = words
        self._others = others
        self._spring = spring
        self._is_set = threading.Semaphore()

    def __call__(self, piece: bytes) -> int:
        fits = self._words in piece and (
            not self._others or any(words in piece for words in self._others)
        )
        return self._spring() if fits and self.disarm() else PASS

    def disarm(self) -> bool:
        """Whether it was still set."""
        return self._is_set.acquire(blocking=False)
