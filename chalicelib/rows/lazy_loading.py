"""Lazy loading: reads from the cache, reads from the database what it lacks, and stores that.

The order matters: a reader takes a lease before its SELECT, and stores what it read only where that
lease still stands. A reader that cannot have the lease answers from the database and stores
nothing. Read `get_many` beside docs/cache.md; `tests/model` tries every order of the steps.
"""

import logging
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from chalicelib.cache import (
    LEASE,
    MARK,
    Cache,
    Entry,
    Generations,
    Leases,
    Pending,
    Recovery,
    new_token,
)
from chalicelib.db import Generation
from chalicelib.errors import AnotherServer, CacheUnavailable, DatabaseUnavailable
from chalicelib.rows.loader import RowLoader
from chalicelib.tables import Column, Key, Table

log = logging.getLogger("herocache.lazy_loading")

# How long a reader waits, in steps, for another one that fills an entry: 50 ms in all.
POLL_SECONDS = (0.001, 0.002, 0.004, 0.008, 0.016, 0.019)

# After so many reads in a row that missed, the next one is expected to miss too. Then it leases at
# once, which saves a round trip where it misses, and is slower where it hits.
MISSES_TO_EXPECT_ONE = 4
MAX_VALUES_TO_LEASE = 1_000

Entries = dict[Key, Entry]


class Found(NamedTuple):
    """`entries`: the entry of each value; None where no row has the value. `joined`: all entries
    with commas between, where the cache had every one. `hits`: how many the cache had; None where
    it is not in use."""

    entries: Sequence[Entry | None]
    joined: bytes = b""
    hits: int | None = None


class LazyLoading:
    def __init__(
        self, loader: RowLoader, cache: Cache, generations: Generations, recovery: Recovery
    ) -> None:
        self._load = loader.load
        self._cache = cache
        self._generations = generations
        self._recovery = recovery
        self._misses_in_a_row = 0

    def get_many(self, table: Table, column: Column, values: Sequence[Key]) -> Found:
        """The entries of the distinct `values`. One MGET where all are in the cache. After some
        reads that missed, one script reads and leases in one round trip. Raises
        DatabaseUnavailable, TooLarge. An error of the cache is never raised: the database
        answers."""
        lease_first = (
            self._misses_in_a_row >= MISSES_TO_EXPECT_ONE and len(values) <= MAX_VALUES_TO_LEASE
        )
        token = new_token() if lease_first else ""
        early = self._send_early(table, column, values, token)
        try:
            generation = self._generation(table)
            if generation is None:
                return _found(values, self._load(table, column, values))
            try:
                confirmed = early.wait_under(generation) if early else None
                if lease_first:
                    found = self._fill(generation, table, column, values, token, confirmed)
                else:
                    found = self._read(generation, table, column, values, confirmed)
                self._generations.leave_hint(table)
                return found
            except CacheUnavailable as error:
                self._give_up_cache(table, generation, error)
                return _found(values, self._load(table, column, values))
        finally:
            if early:
                early.close()

    def _send_early(
        self, table: Table, column: Column, values: Sequence[Key], token: str
    ) -> Pending[Any] | None:
        """Where the database must be asked for the generation, send the first command to Redis at
        the same time, under the last generation known: if the database confirms that generation,
        the early reply is valid. A lease where there is a `token`, else a MGET."""
        if not self._generations.is_due(table):
            return None
        last_known = self._generations.remembered(table)
        if last_known is None:
            self._cache.open_soon()
            return None
        if not last_known.enabled:
            return None
        if token:
            return self._cache.begin_lease_many(last_known, table, column, values, token)
        return self._cache.begin_get_many(last_known, table, column, values)

    def _generation(self, table: Table) -> Generation | None:
        """The generation to read under; None where the cache is not to be used."""
        if not self._cache.is_configured:
            return None
        generation = self._generations.current(table)
        if not generation.enabled:
            self._recovery.start()
            return None
        return generation

    def _read(
        self,
        generation: Generation,
        table: Table,
        column: Column,
        values: Sequence[Key],
        stored: Sequence[Entry | None] | None,
    ) -> Found:
        """Read the entries by one MGET, unless it was sent early and brought what is `stored`; fill
        those that have no value."""
        if stored is None:
            stored = self._cache.get_many(generation, table, column, values)
        if None not in stored:
            joined = b",".join(stored)  # type: ignore[arg-type]
            # A line of counters may have any byte.
            if MARK not in joined or (table.write_behind and not _is_any_marked(stored)):
                self._misses_in_a_row = 0
                return Found(stored, joined, len(values))
        entries = {
            value: entry
            for value, entry in zip(values, stored)
            if entry is not None and not entry.startswith(MARK)
        }
        lacking = [value for value in values if value not in entries]
        hits = len(entries)
        found = self._fill(generation, table, column, lacking, new_token(), None)
        entries |= {
            value: entry for value, entry in zip(lacking, found.entries) if entry is not None
        }
        return _found(values, entries, hits)

    def _fill(
        self,
        generation: Generation,
        table: Table,
        column: Column,
        values: Sequence[Key],
        token: str,
        leases: Leases | None,
    ) -> Found:
        """Lease the entries, unless `leases` were sent early; load their rows from the database;
        fill the entries that are leased to us."""
        if leases is None:
            leases = self._cache.lease_many(generation, table, column, values, token)
        entries = leases.found
        hits = len(entries)
        self._misses_in_a_row = 0 if hits == len(values) else self._misses_in_a_row + 1
        if leases.granted or leases.fenced:
            loaded = self._load_leased(generation, table, column, leases, token)
            filled = {value: loaded.get(value) for value in leases.granted}
            self._cache.fill_many(generation, table, column, filled, token)
            entries |= loaded
        if leases.abandoned:
            entries |= self._settle(generation, table, column, leases.abandoned)
        if leases.waiting:
            entries |= self._wait(generation, table, column, leases.waiting)
        return _found(values, entries, hits)

    def _load_leased(
        self, generation: Generation, table: Table, column: Column, leases: Leases, token: str
    ) -> Entries:
        """Load the rows from the database. Where that fails, give the leases back: other readers
        would wait for them."""
        try:
            return self._load(table, column, [*leases.granted, *leases.fenced])
        except Exception:
            with suppress(CacheUnavailable):
                unfilled = dict.fromkeys(leases.granted)
                self._cache.fill_many(generation, table, column, unfilled, token)
            raise

    def _settle(
        self, generation: Generation, table: Table, column: Column, fences: Entries
    ) -> Entries:
        """Settle fences whose writers are dead: replace each by what the database holds. If a
        writer is alive after all, its rows are still locked: then wait for it, or let the fences
        stand for as long again."""
        try:
            loaded = self._load(table, column, list(fences), after_writers=True)
            settled = {value: (fence, loaded.get(value)) for value, fence in fences.items()}
        except DatabaseUnavailable as error:
            log.warning("fences of %s left standing: %s", table.name, error)
            loaded = self._load(table, column, list(fences))
            settled = {value: (fence, MARK) for value, fence in fences.items()}
        self._cache.settle_many(generation, table, column, settled)
        return loaded

    def _wait(
        self, generation: Generation, table: Table, column: Column, values: Sequence[Key]
    ) -> Entries:
        """Wait for another reader to fill the entries. Load those that it has not filled in
        time."""
        entries: Entries = {}
        waiting = list(values)
        for seconds in POLL_SECONDS:
            time.sleep(seconds)
            stored = self._cache.get_many(generation, table, column, waiting)
            still = []
            for value, entry in zip(waiting, stored):
                if entry is not None and entry.startswith(LEASE):
                    still.append(value)
                elif entry is not None and not entry.startswith(MARK):
                    entries[value] = entry
            waiting = still
            if not waiting:
                break
        lacking = [value for value in values if value not in entries]
        return entries | self._load(table, column, lacking) if lacking else entries

    def _give_up_cache(self, table: Table, generation: Generation, error: CacheUnavailable) -> None:
        """Give the cache up for this read. Other reads use it again once the generation names the
        server that answers, once Redis has recovered, or once a connection is open."""
        if isinstance(error, AnotherServer):
            self._generations.use_server(table, generation, error.server)
        elif self._cache.is_down:
            self._recovery.start()


def _is_any_marked(stored: Sequence[Entry | None]) -> bool:
    return any(entry is not None and entry.startswith(MARK) for entry in stored)


def _found(values: Sequence[Key], entries: Entries, hits: int | None = None) -> Found:
    return Found([entries.get(value) for value in values], hits=hits)
