"""Commands for Redis, and what takes them where there is no Redis. Needs no driver: a stage without
a cache has none in its package.
"""

import hashlib
from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from chalicelib.errors import CacheUnavailable

if TYPE_CHECKING:
    from chalicelib.cache.routing import Connection

Words = tuple[str | int | bytes, ...]

LACKS_A_RIGHT = "its user lacks a right that is needed (REDIS_URL)"


class Command(NamedTuple):
    """`tag`: the hash tag that its Redis keys share; a cluster finds the server by it. A command
    that is packed already has its bytes in place of `words`. `may_be_denied`: where the user lacks
    the right for it, it is left out, its reply is None, and the others count as without it.
    `is_write`: a replica is sure to reject it."""

    tag: str
    words: Words | bytes
    may_be_denied: bool = False
    is_write: bool = False


class Received(NamedTuple):
    """The `replies` to commands. `stays`: whether their server evicts nothing that was set a moment
    ago."""

    replies: Sequence[Any]
    stays: bool


class NoClient:
    """In the place of a `Client` where REDIS_URL is empty: Redis never answers, and is never
    probed."""

    is_cluster = False
    is_down = False

    def __init__(self) -> None:
        self.on_down: Callable[[], None] = lambda: None

    def call(
        self,
        commands: Sequence[Command],
        server: str,
        *,
        wait: bool = True,
        is_patient: bool = False,
    ) -> Sequence[Any]:
        """Raises CacheUnavailable."""
        raise CacheUnavailable("this process has no REDIS_URL")

    def open_soon(self) -> None:
        """Nothing to open."""

    def open(self) -> None:
        """Nothing to open."""

    def send(self, commands: Sequence[Command]) -> "Connection | None":
        """None: it cannot be sent."""
        return None

    def receive(self, connection: "Connection", server: str) -> Received | None:
        """Never called, because nothing was sent."""
        return None

    def abandon(self, connection: "Connection") -> None:
        """Never called, because nothing was sent."""

    def ask(self, command: Command, *, is_patient: bool = False) -> tuple[str, Any]:
        """Raises CacheUnavailable."""
        raise CacheUnavailable("it is not in use")

    def ask_many(
        self, commands: Sequence[Command], *, is_patient: bool = False, only_on: str = ""
    ) -> tuple[str, Sequence[Any]]:
        """Raises CacheUnavailable."""
        raise CacheUnavailable("it is not in use")

    def probe(self) -> str:
        """Raises CacheUnavailable."""
        raise CacheUnavailable("it is not in use")

    def resume(self) -> None:
        """Nothing to use again."""


def packed_series(verb: str, prefix: str, width: int, numbers: Sequence[int]) -> bytes:
    """A command whose arguments differ only in a number of at most `width` characters."""
    head = f"*{len(numbers) + 1}\r\n${len(verb)}\r\n{verb}\r\n"
    return head.encode() + packed_numbers(prefix, width, numbers)


def packed_numbers(prefix: str, width: int, numbers: Sequence[int]) -> bytes:
    """Words of a command that differ only in a number of at most `width` characters. One formatting
    at C speed: to pack word by word takes as long as Redis takes for an MGET of these keys."""
    word = f"${len(prefix) + width}\r\n{prefix}%0{width}d\r\n".encode()
    return word * len(numbers) % tuple(numbers)


def packed_words(words: Sequence[str | int | bytes]) -> bytes:
    """Words of a command."""
    texts = [word if isinstance(word, bytes) else str(word).encode() for word in words]
    return b"".join([b"$%d\r\n%b\r\n" % (len(text), text) for text in texts])


@cache
def sha1(script: str) -> str:
    """The name by which EVALSHA calls a script that was loaded."""
    return hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()
