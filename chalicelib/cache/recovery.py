"""Takes Redis back into use after it failed, in a thread of its own.

The failure itself starts the thread, or a request that finds a table's cache switched off. A
container has one such thread at most, and it ends when its work is done. When Lambda freezes the
container, the thread is frozen too, and goes on with the next request. So it counts its probes, and
no time: a container that is frozen most of the time finds Redis again within a few requests. What
the thread of another container has done, it need not do again.
"""

import logging
import threading
import time

from chalicelib.cache.entries import Cache
from chalicelib.cache.generations import REFRESH_TIMEOUT_SECONDS, Generations
from chalicelib.db import Database
from chalicelib.errors import CacheUnavailable, DatabaseUnavailable, SchemaMismatch

log = logging.getLogger("herocache.recovery")

PROBE_SECONDS = 0.25
# In a row.
GOOD_PROBES = 3
# Then the thread ends. The next request that meets the failure starts another one.
MAX_PROBES = 240


class Recovery:
    """Probes Redis until it has answered a few times in a row. Then raises the generation of each
    table whose cache is switched off, and takes it into use."""

    def __init__(self, database: Database, cache: Cache, generations: Generations) -> None:
        self._database = database
        self._cache = cache
        self._generations = generations
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None
        cache.on_down(lambda: self.start())

    def start(self) -> None:
        """Start the thread and return at once. Nothing happens where one runs."""
        with self._starting:
            if self._cache.is_configured and not (self._thread and self._thread.is_alive()):
                self._thread = threading.Thread(target=self._run, name="recovery", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        good = probes = 0
        while probes < MAX_PROBES:
            time.sleep(PROBE_SECONDS)
            probes += 1
            try:
                server = self._cache.probe()
                good += 1
                if good >= GOOD_PROBES:
                    self._take_into_use(server)
                    if self._is_done():
                        return
                    good = 0
            except CacheUnavailable:
                good = 0

    def _is_done(self) -> bool:
        """Whether this thread can end. It cannot where Redis failed again meanwhile: whoever
        noticed that saw this thread at work, and started no other."""
        with self._starting:
            if not self._cache.is_down:
                self._thread = None
            return self._thread is None

    def _take_into_use(self, server: str) -> None:
        """Retire the hint of each table first, or leave the right one where its cache is on: it may
        name a generation that was retired while Redis was away, and a container that cannot ask the
        database would believe it. And have the next run of the sync look at the table: Redis may
        not have been told of changes."""
        self._cache.resume()
        for table in self._cache.tables.values():
            try:
                asked = time.monotonic()
                generation = self._database.generation(table, REFRESH_TIMEOUT_SECONDS)
                if generation.enabled:
                    self._generations.saw(table, generation, asked)
                    self._generations.leave_hint(table, wait=True)
                    self._cache.delete_note(table)
                else:
                    self._cache.retire_hint(table, generation.number)
                    data_set = self._cache.begin_incarnation(table, server)
                    self._database.switch_on(table, generation.number, data_set)
                    self._generations.forget(table)
                    log.warning("the cache of %s is in use again", table.name)
            except SchemaMismatch as error:
                log.info("the cache of %s stays off: %s", table.name, error)
            except DatabaseUnavailable as error:
                log.warning("the cache of %s stays off: %s", table.name, error)
                known = self._generations.remembered(table)
                if known is not None and not known.enabled:
                    self._cache.retire_hint(table, known.number)
