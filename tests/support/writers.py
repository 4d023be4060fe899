"""Plays each step of a writer on the cache by itself, for the table heroes."""

from chalicelib.cache.entries import Affected, Cache
from chalicelib.cache.entry_commands import Token
from chalicelib.db import Generation
from chalicelib.tables import HEROES


def fence(used: Cache, held: Generation, affected: Affected, token: Token) -> float:
    """Return when the fences stand: what `Cache.begin_fence_many` tells."""
    new = [key for key, entry in affected.new.items() if entry is not None]
    return used.begin_fence_many(held, HEROES, affected.fenced, new, token).wait()


def publish(
    used: Cache, held: Generation, affected: Affected, token: Token, committed_at: int = 1
) -> None:
    used.publish_many(held, HEROES, affected, token, committed_at)
