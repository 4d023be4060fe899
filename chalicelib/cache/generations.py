"""Generations: under which number entries may be believed now, and how long a write must wait.

The generation of a table is a row of the database, so that it changes in one transaction with the
table's rows. Raising it makes every entry of the table unreachable. A container remembers it for
`MEMORY_SECONDS`. So a write under a new generation is acknowledged only when no container remembers
the old one. A container remembers longer while it cannot ask the database: the write therefore
waits until the database has answered for `MEMORY_SECONDS` without a gap.
"""

import logging
import math
import time
from dataclasses import dataclass

from chalicelib.cache.entries import Cache
from chalicelib.clocks import clocks, seconds_since
from chalicelib.db import Database, Generation
from chalicelib.errors import CacheUnavailable, DatabaseUnavailable
from chalicelib.single_flight import SingleFlight
from chalicelib.tables import Table

log = logging.getLogger("herocache.generations")

MEMORY_SECONDS = 0.5

# A reader that gets no answer for so long goes on with the last generation that it knew.
REFRESH_TIMEOUT_SECONDS = 0.3

# How often a write that waits asks whether the database answers. It gives each answer what is left
# of REFRESH_TIMEOUT_SECONDS, and so notices every silence that made a reader go on.
CHECK_SECONDS = 0.1

# A write that waits gives up where the database is still, or again, away after so long.
PATIENCE_SECONDS = 2.0

# A write also gives up where its own process slept so often while it waited: each time it waits
# anew, and a process with too little CPU would sleep for ever.
MAX_SLEEPS = 8

# A generation that was retired so long ago is in nobody's memory, unless the database was away
# since: the COMMIT that retired it has ended, however slow it was.
SURELY_KNOWN_SECONDS = 600


@dataclass
class _Memory:
    """`known_since`: since when everyone who asked the database was told this generation, as far as
    the database answered. Times are monotonic seconds."""

    generation: Generation
    valid_until: float
    known_since: float


class Generations:
    """What this container remembers of each table. Threads may share it: they replace a table's
    memory as a whole."""

    def __init__(self, database: Database, cache: Cache) -> None:
        self._database = database
        self._cache = cache
        self._memory: dict[str, _Memory] = {}
        # With each answer goes until when it may be used, in monotonic seconds.
        self._refreshing = SingleFlight[tuple[Generation, float]]()
        self._answers_since = -math.inf  # inf while the database cannot be asked
        self._hints_due: set[str] = set()  # tables whose hint in Redis may be missing or old
        database.on_unavailable = self.mark_stale

    def current(self, table: Table) -> Generation:
        """The generation to read under. One question when memory has run out, however many threads
        need it: they have one answer, or one failure.

        While the database cannot be asked, the last generation known still holds: the one that this
        container remembers, or the hint that others left in Redis. Nobody can raise it in a
        database that is away, and a raise that was committed just before is not acknowledged yet.
        Raises DatabaseUnavailable where none is known, or where only a replica answers, because
        others may reach the writer."""
        needed_at = time.monotonic()
        memory = self._memory.get(table.name)
        if memory is None:
            return self._ask(table, None)[0]
        if needed_at < memory.valid_until:
            return memory.generation
        while True:
            generation, until = self._refreshing.ask(table.name, lambda: self._refreshed(table))
            if needed_at <= until:  # else another thread has asked too long before
                return generation

    def _refreshed(self, table: Table) -> tuple[Generation, float]:
        memory = self._memory.get(table.name)
        if memory is not None and time.monotonic() < memory.valid_until:
            return memory.generation, memory.valid_until
        return self._ask(table, memory)

    def _ask(self, table: Table, memory: _Memory | None) -> tuple[Generation, float]:
        asked = time.monotonic()
        try:
            generation = self._database.generation(table, REFRESH_TIMEOUT_SECONDS)
            self._hints_due.add(table.name)  # also if it was left before: Redis may have lost it
        except DatabaseUnavailable as error:
            log.warning("the generation of %s was not to be had at once: %s", table.name, error)
            if error.has_other_writer:
                raise
            # Counted from before the hint is read: a later raise waits for as long.
            until = time.monotonic() + MEMORY_SECONDS
            last_known = self._last_known(table, memory)
            if last_known is not None:
                self._remember(table, _Memory(last_known, until, math.inf))
                return last_known, until
            generation = self._database.generation(table)
        self.saw(table, generation, asked)
        return generation, asked + MEMORY_SECONDS

    def _last_known(self, table: Table, memory: _Memory | None) -> Generation | None:
        """The later one of the hint and of what this container remembers. None where there is no
        hint: then the remembered generation may be retired, because this container may have slept
        since it was told."""
        hint = self._hint(table)
        if hint and memory and memory.generation.number > hint.number:
            return memory.generation
        return hint

    def saw(self, table: Table, generation: Generation, asked: float) -> float:
        """Remember what the database answered to a question put at `asked`. Returns since when
        everyone who asks is told so, without a gap. Both are monotonic seconds."""
        now = time.monotonic()
        self._answers_since = min(self._answers_since, now)
        is_old = generation.age_seconds >= SURELY_KNOWN_SECONDS
        new = _Memory(generation, asked + MEMORY_SECONDS, -math.inf if is_old else now)
        known_since = min(self._remember(table, new).known_since, now)
        return max(known_since, self._answers_since)

    def _remember(self, table: Table, new: _Memory) -> _Memory:
        """Remember `new`, unless a later generation is remembered. Returns what is remembered
        then."""
        old = self._memory.get(table.name)
        if old is not None and old.generation.number > new.generation.number:
            return old
        if old is None or old.generation.number < new.generation.number:
            self._hints_due.add(table.name)
        else:
            new.known_since = min(old.known_since, new.known_since)
        self._memory[table.name] = new
        return new

    def mark_stale(self) -> None:
        """The database did not answer. Other containers may have had no answer either, and go on
        with stale memory: from now on nobody is sure to know the latest generation."""
        self._answers_since = math.inf

    def remembered(self, table: Table) -> Generation | None:
        """The last generation known, however long ago. Believe it only if the database confirms
        it."""
        memory = self._memory.get(table.name)
        return memory.generation if memory else None

    def is_due(self, table: Table) -> bool:
        """Whether `current` would ask the database."""
        memory = self._memory.get(table.name)
        return memory is None or time.monotonic() >= memory.valid_until

    def forget(self, table: Table) -> None:
        """Let the next call of `current` ask the database."""
        self._memory.pop(table.name, None)

    def wait_until_known(self, table: Table, generation: Generation, asked: float) -> None:
        """Return when no container reads under an earlier generation any more. That is at once,
        unless the generation was raised, or the database was away, in the last MEMORY_SECONDS.
        Raises DatabaseUnavailable where the database goes away while this waits, and stays away;
        or where this process is too slow to know that it does not."""
        known_since = self.saw(table, generation, asked)
        if known_since + MEMORY_SECONDS > time.monotonic():
            # A container that cannot ask the database uses the hint: it must have arrived.
            self.leave_hint(table, wait=True)
            known_since = max(known_since, time.monotonic())
        self.leave_hint(table)
        give_up, answered, sleeps = time.monotonic() + PATIENCE_SECONDS, clocks(), 0
        while (left := known_since + MEMORY_SECONDS - time.monotonic()) > 0:
            time.sleep(min(left, CHECK_SECONDS))
            try:
                self._database.generation(table, REFRESH_TIMEOUT_SECONDS - CHECK_SECONDS)
            except DatabaseUnavailable:
                known_since = time.monotonic()
                if known_since > give_up:
                    raise
            if seconds_since(answered) > REFRESH_TIMEOUT_SECONDS:
                # This process slept: it may have missed an outage.
                known_since, sleeps = time.monotonic(), sleeps + 1
                if sleeps > MAX_SLEEPS:
                    self.mark_stale()
                    raise DatabaseUnavailable(
                        "this process is too slow to know that the database answered all the while"
                    )
            answered = clocks()

    def use_server(self, table: Table, generation: Generation, server: str) -> None:
        """As `renew`. Where it cannot be done now, the next request tries again."""
        try:
            self.renew(table, generation, server)
        except (CacheUnavailable, DatabaseUnavailable) as error:
            log.warning("the generation of %s stays: %s", table.name, error)

    def renew(self, table: Table, generation: Generation, server: str) -> None:
        """Raise the generation, unless it is raised already, so that it names a new data set on
        `server` and no entry from before is believed. Raises CacheUnavailable,
        DatabaseUnavailable."""
        if generation.server_name == server and generation.is_of(table):
            log.warning("%s: Redis was emptied, its entries are dropped", table.name)
        elif generation.server_name == server:
            log.warning(
                "%s: another version of the service declares this table in another way, its entries"
                " are dropped",
                table.name,
            )
        elif generation.server:
            log.warning(
                "%s: the cache moved to another server, its entries are dropped", table.name
            )
        else:
            log.info("%s: the cache is used from now on", table.name)
        data_set = self._cache.begin_incarnation(table, server)
        self._database.switch_on(table, generation.number, data_set)
        self.forget(table)

    def leave_hint(self, table: Table, *, wait: bool = False) -> None:
        """Leave in Redis what this container learnt, as a hint, if that is due. With `wait` it is
        left in any case, and has arrived; without it may be lost on its way."""
        memory = self._memory.get(table.name)
        if memory is None or not (wait or table.name in self._hints_due):
            return
        self._hints_due.discard(table.name)
        generation = memory.generation
        if self._cache.is_configured and generation.enabled and generation.server:
            try:
                self._cache.leave_hint(table, generation, wait=wait)
            except CacheUnavailable as error:
                log.info("no hint left for %s: %s", table.name, error)

    def _hint(self, table: Table) -> Generation | None:
        try:
            return self._cache.hint(table)
        except CacheUnavailable as error:
            log.info("no hint found for %s: %s", table.name, error)
            return None
