"""What a reader may see of one row, given what was committed and when each writer got its answer.

It makes no false accusation: what it calls stale is stale, whatever the servers did in between. A
version whose writer got no answer may have been committed at any time after it was sent, but its
place among the row's other versions is known.
"""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

from tests.history.records import Token

NEVER = 2**63
ALWAYS = -1


@dataclass(frozen=True)
class Version:
    """`token` and `xp` are None where there was no row. `start`: when its writer set out.
    `told`: when the writer was told that it is committed."""

    token: Token | None
    xp: int | None
    start: int = ALWAYS
    told: int = NEVER


@dataclass(frozen=True)
class Ghost:
    """A version that a dying database may have shown and then lost: InnoDB lets others see what is
    committed a moment before it is on the disk, and before its writer is told. `until`: when it
    died."""

    token: Token | None
    xp: int | None
    start: int
    until: int


class RowHistory:
    """The versions of one row in the order of their commits, the first one "no row yet"."""

    def __init__(self, versions: Sequence[Version], ghosts: Sequence[Ghost] = ()) -> None:
        self._ghosts = ghosts
        self.versions = [Version(None, None, ALWAYS, ALWAYS), *versions]
        told = sorted((v.told, i) for i, v in enumerate(self.versions) if v.told < NEVER)
        self._told_at = [at for at, _ in told]
        self._newest_told = list(accumulate((i for _, i in told), max))
        starts = [version.start for version in self.versions]
        self._first_start_from = list(accumulate(reversed(starts), min))[::-1]
        self._positions = {v.token: i for i, v in enumerate(self.versions) if v.token is not None}

    def oldest_allowed(self, start: int) -> int:
        """The version that a read which sets out at `start` sees at least: the newest one that
        some writer had been told of."""
        return self._newest_told[bisect_left(self._told_at, start) - 1]

    def allowed(self, start: int, end: int) -> Iterator[Version]:
        """What a read between these times may have seen."""
        for position in range(self.oldest_allowed(start), len(self.versions)):
            if self._first_start_from[position] > end:
                return
            if self.versions[position].start <= end:
                yield self.versions[position]

    def fault_of(self, token: Token, xp: int, start: int, end: int) -> str:
        """Why a read between these times cannot have shown this; "" where it can."""
        if token not in self._positions:
            seen = any(ghost.token == token for ghost in self.ghosts(start, end))
            return "" if seen else "read of a row never committed"
        position = self._positions[token]
        if self.versions[position].xp != xp:
            return "xp of another version"
        if self.versions[position].start > end:
            return "read before it was written"
        if position < self.oldest_allowed(start):
            return "stale read"
        return ""

    def may_be_absent(self, start: int, end: int) -> bool:
        tokens = [version.token for version in self.allowed(start, end)]
        return None in [*tokens, *(ghost.token for ghost in self.ghosts(start, end))]

    def ghosts(self, start: int, end: int) -> list[Ghost]:
        return [ghost for ghost in self._ghosts if ghost.start <= end and start <= ghost.until]

    def certain(self, xp: int) -> Iterator[tuple[int, int]]:
        """The times (from, until) such that a read that sets out after the first and ends before
        the second must show the row under this `xp`."""
        until = NEVER
        for version in reversed(self.versions):
            if version.xp != xp:
                until = min(until, version.start)
            elif version.told < until:
                yield version.told, until
