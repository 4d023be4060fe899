"""Generations: under which number entries may be believed now, and how long a write must wait.

The number is a row of the database, so that it changes in one transaction with the rows it speaks
for. A container remembers it for `MEMORY_SECONDS`; raising it makes every entry of the table
unreachable, for everyone, that much later. So a write under a number that is new waits until all
memory of the old one has gone before it is acknowledged. Memory lasts longer where the database
cannot be asked: the wait counts from when it answered without a gap.
"""

import logging
import math
import threading
import time
from dataclasses import dataclass

from chalicelib.cache.entries import Cache
from chalicelib.db import Database, Generation
from chalicelib.errors import CacheUnavailable, DatabaseUnavailable, OutcomeUnknown
from chalicelib.tables import Table

log = logging.getLogger("herocache.generations")

MEMORY_SECONDS = 0.5
REFRESH_TIMEOUT_SECONDS = 0.3
"""A reader that gets no answer for so long goes on with the last generation it knew."""
CHECK_SECONDS = 0.1
"""How often a write that waits makes sure that the database answers. With the time it gives that,
what is left of a refresh, it notices every silence that made a reader go on."""
PATIENCE_SECONDS = 2.0
SURELY_KNOWN_SECONDS = 600
"""A generation retired so long ago is in nobody's memory, unless the database was away since: the
COMMIT that retired it has ended, however slow it was."""


@dataclass
class _Memory:
    """`known_since`: from when on the database has told everyone who asked, if it answered."""

    generation: Generation
    valid_until: float
    known_since: float


class Generations:
    """What this container remembers. Threads may share it: they replace whole entries."""

    def __init__(self, database: Database, cache: Cache) -> None:
        self._database = database
        self._cache = cache
        self._memory: dict[str, _Memory] = {}
        self._refreshing = threading.Lock()
        self._answers_since = -math.inf  # inf while the database cannot be asked
        self._untold: set[str] = set()

    def current(self, table: Table) -> Generation:
        """The generation to read under; one SELECT when memory has run out, however many threads
        need it. While the database cannot be asked the last one known holds, here or by the hint
        that others left in Redis: nobody can commit a raise to a database that is away, and one
        committed just before is not acknowledged. Raises DatabaseUnavailable where none is
        known, or where only a replica answers: the writer may be reached by others."""
        memory = self._memory.get(table.name)
        if memory is None:
            return self._ask(table, None)
        if time.monotonic() < memory.valid_until:
            return memory.generation
        with self._refreshing:
            memory = self._memory.get(table.name)
            if memory is not None and time.monotonic() < memory.valid_until:
                return memory.generation
            return self._ask(table, memory)

    def _ask(self, table: Table, memory: _Memory | None) -> Generation:
        asked = time.monotonic()
        try:
            generation = self._database.generation(table, REFRESH_TIMEOUT_SECONDS)
            self._untold.add(table.name)  # told before or not: Redis may have lost it
        except DatabaseUnavailable as error:
            log.warning("the generation of %s was not to be had at once: %s", table.name, error)
            self.doubt()
            if error.has_other_writer:
                raise
            last_known = self._last_known(table, memory)
            if last_known is not None:
                until = time.monotonic() + MEMORY_SECONDS
                self._remember(table, _Memory(last_known, until, math.inf))
                return last_known
            generation = self._database.generation(table)
        self.saw(table, generation, asked)
        return generation

    def _last_known(self, table: Table, memory: _Memory | None) -> Generation | None:
        """The later of what this container remembers, which may have slept since, and the hint."""
        hint = self._hint(table)
        if memory is None or (hint is not None and hint.number > memory.generation.number):
            return hint
        return memory.generation

    def saw(self, table: Table, generation: Generation, asked: float) -> float:
        """Remember what the database said to a question put at `asked`; since when everyone who
        asked was told, without a gap. Both in monotonic seconds."""
        now = time.monotonic()
        self._answers_since = min(self._answers_since, now)
        is_old = generation.age_seconds >= SURELY_KNOWN_SECONDS
        new = _Memory(generation, asked + MEMORY_SECONDS, -math.inf if is_old else now)
        known_since = min(self._remember(table, new).known_since, now)
        return max(known_since, self._answers_since)

    def _remember(self, table: Table, new: _Memory) -> _Memory:
        """Never an earlier generation than before; what is remembered then."""
        old = self._memory.get(table.name)
        if old is not None and old.generation.number > new.generation.number:
            return old
        if old is None or old.generation.number < new.generation.number:
            self._untold.add(table.name)
        else:
            new.known_since = min(old.known_since, new.known_since)
        self._memory[table.name] = new
        return new

    def doubt(self) -> None:
        """The database did not answer: others, too, may go on with what they knew before."""
        self._answers_since = math.inf

    def remembered(self, table: Table) -> Generation | None:
        """The last one known, however long ago: not to be believed before it was asked for."""
        memory = self._memory.get(table.name)
        return memory.generation if memory else None

    def is_due(self, table: Table) -> bool:
        """Whether `current` will ask the database."""
        memory = self._memory.get(table.name)
        return memory is None or time.monotonic() >= memory.valid_until

    def forget(self, table: Table) -> None:
        """Ask again at the next call."""
        self._memory.pop(table.name, None)

    def wait_until_known(self, table: Table, generation: Generation, asked: float) -> None:
        """Return when no container reads under an earlier generation any more: at once, but for
        MEMORY_SECONDS after this container met a generation that was just raised, or the database
        was away. Raises OutcomeUnknown where it goes away meanwhile, and stays so."""
        known_since = self.saw(table, generation, asked)
        self.leave_hint(table)
        give_up = time.monotonic() + PATIENCE_SECONDS
        while (left := known_since + MEMORY_SECONDS - time.monotonic()) > 0:
            time.sleep(min(left, CHECK_SECONDS))
            try:
                self._database.generation(table, REFRESH_TIMEOUT_SECONDS - CHECK_SECONDS)
            except DatabaseUnavailable as error:
                self.doubt()
                known_since = time.monotonic()
                if known_since > give_up:
                    raise OutcomeUnknown(
                        "the rows are written, but the database went away before every reader could"
                        " learn that; read them before you write them again"
                    ) from error

    def use_server(self, table: Table, generation: Generation, server: str) -> None:
        """Raise the generation for the entries of `server`, from the next call on; where the
        database cannot do that now the next one tries again."""
        if generation.server:
            log.warning(
                "%s: the cache moved to another server, its entries are dropped", table.name
            )
        else:
            log.info("%s: the cache is used from now on", table.name)
        try:
            self._database.switch_on(table, generation.number, server)
        except DatabaseUnavailable as error:
            log.warning("the generation of %s stays: %s", table.name, error)
        self.forget(table)

    def leave_hint(self, table: Table) -> None:
        """Tell Redis what this container learnt, after all that somebody waits for."""
        memory = self._memory.get(table.name)
        if memory is None or table.name not in self._untold:
            return
        self._untold.discard(table.name)
        generation = memory.generation
        if self._cache.is_configured and generation.enabled and generation.server:
            try:
                self._cache.leave_hint(table, generation)
            except CacheUnavailable as error:
                log.info("no hint left for %s: %s", table.name, error)

    def _hint(self, table: Table) -> Generation | None:
        try:
            return self._cache.hint(table)
        except CacheUnavailable as error:
            log.info("no hint found for %s: %s", table.name, error)
            return None
