"""What can be put to the test: the service, the service with an ingredient taken out, and what
people use today. Each is made once a process and serves requests from then on.

`reach` is to be called at the moments that `moments` names.
"""

from collections.abc import Callable, Mapping
from typing import Any

from chalicelib.cache import connection as redis_connection
from chalicelib.cache import entry_scripts, timeouts
from chalicelib.cache.commands import Command
from chalicelib.cache.entries import Affected, Cache
from chalicelib.db import (
    Generation,
    Transaction,
    applied_deltas,
    cache_generation,
    database,
    statements,
)
from chalicelib.errors import HerocacheError
from chalicelib.handlers import entry_points
from chalicelib.ingest import service as ingest_service
from chalicelib.ingest.events import LOADED
from chalicelib.rows.fences import Fences
from chalicelib.rows.idempotency import IdempotentChange, Recorded
from chalicelib.tables import Table
from tests.history.alternatives import CommitThenSet, Dogpile
from tests.history.stop_points import BEFORE_COMMIT, BEFORE_FILL, BEFORE_PUBLISH
from tests.history.worker import Answer, Invoke

Reach = Callable[[int], None]

HEROCACHE = "herocache"
NO_LEASE_CHECK = "herocache without the lease check"
NO_FENCE = "herocache without fences"
NO_WATERMARK = "herocache without watermarks"
NO_REPLAY = "herocache without what a replay does"
NO_RAISE = "herocache without new generations"
NO_REDELIVERY = "herocache without what a second delivery does"
NO_WRITER_CHECK = "herocache without asking for the writer"
NO_SERVER_NAME = "herocache without names of servers"
NO_ROW_LOCK = "herocache without locks on rows"
NO_APPLIED = "herocache without what is applied"
COMMIT_THEN_SET = "commit, then SET"
DOGPILE = "dogpile.cache"


def herocache(reach: Reach) -> Invoke:
    """The real handlers; the moments are put around the cache's verbs: a write commits
    after it sent its fences."""
    begin_fence = Cache.begin_fence_many
    publish, fill = Cache.publish_many, Cache.fill_many

    def begin_fence_many(self: Cache, *arguments: Any) -> Any:
        sent = begin_fence(self, *arguments)
        reach(BEFORE_COMMIT)
        return sent

    def publish_many(self: Cache, *arguments: Any) -> None:
        reach(BEFORE_PUBLISH)
        publish(self, *arguments)

    def fill_many(self: Cache, *arguments: Any) -> None:
        if any(arguments[3].values()):
            reach(BEFORE_FILL)
        fill(self, *arguments)

    Cache.begin_fence_many = begin_fence_many  # type: ignore[assignment, method-assign]
    Cache.publish_many = publish_many  # type: ignore[assignment, method-assign]
    Cache.fill_many = fill_many  # type: ignore[assignment, method-assign]
    return _invoke


def _invoke(payload: Answer) -> Answer:
    """A request, or the event of an upload or of the sync."""
    if "REQUEST" in payload:
        return entry_points.invoke(payload)
    try:
        if "Records" not in payload:
            return {"statusCode": 200, **entry_points.sync(payload)}
        [told] = entry_points.ingest(payload)
    except HerocacheError as error:
        return entry_points.failed_invocation(error)
    assert told["status"] == LOADED, told
    return {"statusCode": 200, "ids": [row["id"] for row in told["first_rows"]]}


def without_lease_check(reach: Reach) -> Invoke:
    """A reader stores what it read, whoever wrote meanwhile."""
    _replace_in("FILL_MANY", "entries[i] == '\\255L' .. ARGV[1]", "true")
    return herocache(reach)


def without_fences(reach: Reach) -> Invoke:
    """A writer commits, then stores the rows and what lookups show: no announcement before."""
    fence = "redis.call('SET', KEYS[i], '\\255F' .. changed .. shared .. holders, 'PX', ARGV[2])"
    _replace_in("FENCE_MANY", fence, "")

    def publish_many(
        self: Cache, generation: Generation, table: Table, affected: Affected, *_: Any
    ) -> None:
        commands = []
        for column, own in ((table.key, affected.new), *affected.fenced.items()):
            for key, entry in zip(
                self._keys.entries(generation.number, table, column, own), own.values()
            ):
                commands.append(Command("", ("DEL", key) if entry is None else ("SET", key, entry)))
        self._client.call(commands, generation.server_name)

    Cache.publish_many = publish_many  # type: ignore[assignment, method-assign]
    return herocache(reach)


def without_watermarks(reach: Reach) -> Invoke:
    """A writer publishes what it read, whenever its fences came to Redis. Silence is borne for
    longer: time enough for another writer between the two."""
    timeouts.TIMEOUT_SECONDS = 2.0

    def allow(self: Fences, read_at: int) -> bool:
        self.wait()
        return True

    Fences.allow = allow  # type: ignore[method-assign]
    return herocache(reach)


def without_replayed_entries(reach: Reach) -> Invoke:
    """A request that comes again is answered, and nothing else."""
    recorded = IdempotentChange.recorded

    def answer_alone(self: IdempotentChange, transaction: Transaction) -> Recorded:
        return Recorded(recorded(self, transaction).answer, {})

    IdempotentChange.recorded = answer_alone  # type: ignore[method-assign]
    return herocache(reach)


def without_new_generations(reach: Reach) -> Invoke:
    """What a large file changed stays in the cache as it was."""
    Transaction.raise_generation = lambda self, table: self.end(table)  # type: ignore[method-assign]
    return herocache(reach)


def without_new_generations_for_small_files(reach: Reach) -> Invoke:
    """A file that is delivered again is acknowledged, and nothing else."""
    ingest_service.MAX_SMALL_BYTES = 1 << 18
    return without_new_generations(reach)


def without_asking_for_the_writer(reach: Reach) -> Invoke:
    """A replica is believed as the writer is."""
    for module in (cache_generation, database):
        module.reject_replica = lambda is_read_only: None  # type: ignore[attr-defined]
    return herocache(reach)


def without_server_names(reach: Reach) -> Invoke:
    """Whichever Redis answers is the one that was there before."""
    redis_connection.server_name = lambda process, history, number=0: "any"
    return herocache(reach)


def without_row_locks(reach: Reach) -> Invoke:
    """A writer changes what it read, whoever changed it meanwhile."""
    statements.lock = statements.rows_of_keys
    return herocache(reach)


def _replace_in(name: str, words: str, others: str) -> None:
    script = getattr(entry_scripts, name)
    assert words in script, f"{name} is another one by now"
    changed = script.replace(words, others)
    entry_scripts.ALL = tuple(changed if s is script else s for s in entry_scripts.ALL)  # type: ignore[assignment]
    setattr(entry_scripts, name, changed)


def without_applied_deltas(reach: Reach) -> Invoke:
    """A run adds totals to the rows, and nobody notes how much of them."""
    applied_deltas.put = lambda table, texts: []
    return herocache(reach)


SYSTEMS: Mapping[str, Callable[[Reach], Invoke]] = {
    HEROCACHE: herocache,
    NO_LEASE_CHECK: without_lease_check,
    NO_FENCE: without_fences,
    NO_WATERMARK: without_watermarks,
    NO_REPLAY: without_replayed_entries,
    NO_RAISE: without_new_generations,
    NO_REDELIVERY: without_new_generations_for_small_files,
    NO_WRITER_CHECK: without_asking_for_the_writer,
    NO_SERVER_NAME: without_server_names,
    NO_ROW_LOCK: without_row_locks,
    NO_APPLIED: without_applied_deltas,
    COMMIT_THEN_SET: CommitThenSet,
    DOGPILE: Dogpile,
}
