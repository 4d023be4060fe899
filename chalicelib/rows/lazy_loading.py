"""Reads: from the cache what it has, from the database what it lacks, and that into the cache.

The order matters and is proved in `tests/model`: a lease before the SELECT, and a store only where
that lease still stands. A reader that cannot have the lease answers from the database and stores
nothing. `storage` calls in.
"""

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import closing, nullcontext, suppress
from typing import NamedTuple, Protocol, TypeVar

from chalicelib.cache.entries import Cache, Entry, Leases, Sent, new_token
from chalicelib.cache.generations import Generations
from chalicelib.cache.recovery import Recovery
from chalicelib.cache.scripts import LEASE, MARK
from chalicelib.db import Generation
from chalicelib.errors import AnotherServer, CacheUnavailable, DatabaseUnavailable
from chalicelib.tables import Column, Key, Table

log = logging.getLogger("herocache.lazy_loading")

POLL_SECONDS = (0.001, 0.002, 0.004, 0.008, 0.016, 0.019)
"""How long a reader waits, in steps, for another one that fills an entry: 50 ms in all."""

MAX_VALUES_TO_LEASE = 1_000
MISSES_TO_EXPECT_ONE = 4
"""After so many reads in a row that missed the next one will too: to lease at once saves a round
trip. A read that hits is slower that way."""

_NOTHING_SENT = nullcontext()

Result = TypeVar("Result")
Entries = dict[Key, Entry]


class Found(NamedTuple):
    """The entry of each value, None where no row has it; where every one was in the cache, all of
    them with commas between; and how many were there, None where the cache is not in use."""

    entries: Sequence[Entry | None]
    joined: bytes = b""
    hits: int | None = None


class Loader(Protocol):
    def __call__(
        self, table: Table, column: Column, values: Sequence[Key], *, after_writers: bool = False
    ) -> Entries:
        """The entries of those values that have rows, fresh from the writer. One SELECT."""


class LazyLoading:
    def __init__(
        self, load: Loader, cache: Cache, generations: Generations, recovery: Recovery
    ) -> None:
        self._load = load
        self._cache = cache
        self._generations = generations
        self._recovery = recovery
        self._misses_in_a_row = 0

    def get_many(self, table: Table, column: Column, values: Sequence[Key]) -> Found:
        """The entries of the (distinct) `values`. One MGET when all hit; a script that reads and
        leases in one round trip after some reads that missed. Raises
        DatabaseUnavailable, TooLarge; never for the cache's sake."""
        early = self._early(table)
        if self._misses_in_a_row >= MISSES_TO_EXPECT_ONE and len(values) <= MAX_VALUES_TO_LEASE:
            token = new_token()
            leasing = (
                self._cache.begin_lease_many(early, table, column, values, token) if early else None
            )
            with closing(leasing) if leasing else _NOTHING_SENT:
                return self._get(
                    table,
                    column,
                    values,
                    lambda held: self._filled(
                        held, table, column, values, token, _waited(leasing, held)
                    ),
                )
        reading = self._cache.begin_get_many(early, table, column, values) if early else None
        with closing(reading) if reading else _NOTHING_SENT:
            return self._get(
                table,
                column,
                values,
                lambda held: self._read(held, table, column, values, _waited(reading, held)),
            )

    def _get(
        self,
        table: Table,
        column: Column,
        values: Sequence[Key],
        look: Callable[[Generation], Found],
    ) -> Found:
        """What `look` finds in the cache, and else the database."""
        generation = self._generation(table)
        if generation is None:
            return _found(values, self._load(table, column, values))
        try:
            found = look(generation)
            self._generations.leave_hint(table)
            return found
        except CacheUnavailable as error:
            self._answer_without(table, generation, error)
            return _found(values, self._load(table, column, values))

    def _early(self, table: Table) -> Generation | None:
        """The last generation known where the database is to be asked for it. Redis need not wait
        for the answer: if the database confirms that generation, the early reply is valid."""
        if not self._generations.is_due(table):
            return None
        last_known = self._generations.remembered(table)
        return last_known if last_known is not None and last_known.enabled else None

    def _generation(self, table: Table) -> Generation | None:
        """The one to read under, None where the cache is not to be used."""
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
        """By one MGET, which may have brought what is `stored` already, if all hit."""
        if stored is None:
            stored = self._cache.get_many(generation, table, column, values)
        if None not in stored:
            joined = b",".join(stored)  # type: ignore[arg-type]
            if MARK not in joined:
                self._misses_in_a_row = 0
                return Found(stored, joined, len(values))
        entries = {
            value: entry
            for value, entry in zip(values, stored)
            if entry is not None and not entry.startswith(MARK)
        }
        lacking = [value for value in values if value not in entries]
        hits = len(entries)
        found = self._filled(generation, table, column, lacking, new_token(), None)
        entries |= {
            value: entry for value, entry in zip(lacking, found.entries) if entry is not None
        }
        return _found(values, entries, hits)

    def _filled(
        self,
        generation: Generation,
        table: Table,
        column: Column,
        values: Sequence[Key],
        token: str,
        leases: Leases | None,
    ) -> Found:
        """Leased, loaded, filled; or found meanwhile. The `leases` may be there already."""
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
        """From the database. Where that fails the leases go back: other readers would wait."""
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
        """Lift fences whose writers are dead. If one lives after all its rows are still locked:
        this waits for it, or lets the fences stand for as long again."""
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
        """What another reader fills; from the database where that takes too long."""
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

    def _answer_without(
        self, table: Table, generation: Generation, error: CacheUnavailable
    ) -> None:
        if isinstance(error, AnotherServer):
            self._generations.use_server(table, generation, error.server)
        else:
            self._recovery.start()


def _waited(sent: Sent[Result] | None, held: Generation) -> Result | None:
    return sent.wait_under(held) if sent else None


def _found(values: Sequence[Key], entries: Entries, hits: int | None = None) -> Found:
    return Found([entries.get(value) for value in values], hits=hits)
