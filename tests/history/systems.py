"""What can be put to the test: the service, the service with an ingredient taken out, and what
people use today. Each is made once a process and serves requests from then on.

`reach` is to be called at the moments that `moments` names.
"""

from collections.abc import Callable, Mapping
from typing import Any

from chalicelib import handlers, scripts
from chalicelib.cache import Affected, Cache
from chalicelib.db import Generation, Transaction
from chalicelib.line import Command
from chalicelib.tables import Table
from chalicelib.write_through import WriteThrough, _Fences
from tests.history.alternatives import CommitThenSet, Dogpile
from tests.history.moments import BEFORE_COMMIT, BEFORE_FILL, BEFORE_PUBLISH
from tests.history.worker import Invoke

Reach = Callable[[int], None]

HEROCACHE = "herocache"
NO_LEASE_CHECK = "herocache without the lease check"
NO_FENCE = "herocache without fences"
COMMIT_THEN_SET = "commit, then SET"
DOGPILE = "dogpile.cache"


def herocache(reach: Reach) -> Invoke:
    """The real handlers; the moments are put around the cache's verbs: a write commits
    after it sent its fences."""
    fence, begin_fence = Cache.fence_many, Cache.begin_fence_many
    publish, fill = Cache.publish_many, Cache.fill_many

    def fence_many(self: Cache, *arguments: Any) -> None:
        fence(self, *arguments)
        reach(BEFORE_COMMIT)

    def begin_fence_many(self: Cache, *arguments: Any) -> Any:
        sent = begin_fence(self, *arguments)
        reach(BEFORE_COMMIT)
        return sent

    def publish_many(self: Cache, *arguments: Any) -> None:
        reach(BEFORE_PUBLISH)
        publish(self, *arguments)

    def fill_many(self: Cache, *arguments: Any) -> None:
        reach(BEFORE_FILL)
        fill(self, *arguments)

    Cache.fence_many = fence_many  # type: ignore[assignment, method-assign]
    Cache.begin_fence_many = begin_fence_many  # type: ignore[assignment, method-assign]
    Cache.publish_many = publish_many  # type: ignore[assignment, method-assign]
    Cache.fill_many = fill_many  # type: ignore[assignment, method-assign]
    return handlers.invoke


def without_lease_check(reach: Reach) -> Invoke:
    """A reader stores what it read, whoever wrote meanwhile."""
    checked = "redis.call('GET', key) == '\\255L' .. ARGV[1]"
    assert checked in scripts.FILL_MANY, "the lease check is what this takes out"
    unchecked = scripts.FILL_MANY.replace(checked, "true")
    scripts.ALL = tuple(unchecked if s is scripts.FILL_MANY else s for s in scripts.ALL)  # type: ignore[assignment]
    scripts.FILL_MANY = unchecked
    return herocache(reach)


def without_fences(reach: Reach) -> Invoke:
    """A writer commits, then stores the rows and what lookups show: no announcement before."""

    def nothing(self: WriteThrough, *_: Any) -> None:
        return

    def publish_many(
        self: Cache, generation: Generation, table: Table, affected: Affected, _: str
    ) -> None:
        commands = []
        for column, own in ((table.key, affected.new), *affected.fenced.items()):
            for key, cell in zip(
                self._keys.cells(generation.number, table, column, own), own.values()
            ):
                commands.append(Command("", ("DEL", key) if cell is None else ("SET", key, cell)))
        self.link.call(commands, generation.server)

    def none_sent(self: WriteThrough, *_: Any) -> _Fences:
        return _Fences()

    WriteThrough._send_fences = none_sent  # type: ignore[assignment, method-assign]
    WriteThrough._fence = nothing  # type: ignore[assignment, method-assign]
    Cache.publish_many = publish_many  # type: ignore[assignment, method-assign]
    return herocache(reach)


SYSTEMS: Mapping[str, Callable[[Reach], Invoke]] = {
    HEROCACHE: herocache,
    NO_LEASE_CHECK: without_lease_check,
    NO_FENCE: without_fences,
    COMMIT_THEN_SET: CommitThenSet,
    DOGPILE: Dogpile,
}
