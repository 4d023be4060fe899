"""Reads: from the cache what it has, from the database what it lacks, and that into the cache.

The order matters and is proved in `tests/model`: a lease before the SELECT, and a store only where
that lease still stands. A reader that cannot have the lease answers from the database and stores
nothing. `storage` calls in.
"""

import logging
import time
from collections.abc import Sequence
from contextlib import closing, nullcontext
from typing import NamedTuple, Protocol

from chalicelib.cache import Cache, Cell, Sent, new_token
from chalicelib.db import Generation
from chalicelib.errors import AnotherServer, CacheUnavailable, DatabaseUnavailable
from chalicelib.generations import Generations
from chalicelib.recovery import Recovery
from chalicelib.scripts import LEASE, MARK
from chalicelib.tables import Column, Key, Table

log = logging.getLogger("herocache.lazy_loading")

POLL_SECONDS = (0.001, 0.002, 0.004, 0.008, 0.016, 0.019)
"""How long a reader waits, in steps, for another one that fills a cell: 50 ms in all."""

Cells = dict[Key, Cell]


class Found(NamedTuple):
    """The cell of each value, None where no row has it; and, where every one was in the cache, all
    of them with commas between."""

    cells: Sequence[Cell | None]
    joined: bytes = b""


class Loader(Protocol):
    def __call__(
        self, table: Table, column: Column, values: Sequence[Key], *, after_writers: bool = False
    ) -> Cells:
        """The cells of those values that have rows, fresh from the writer. One SELECT."""


class LazyLoading:
    def __init__(
        self, load: Loader, cache: Cache, generations: Generations, recovery: Recovery
    ) -> None:
        self._load = load
        self._cache = cache
        self._generations = generations
        self._recovery = recovery

    def get_many(self, table: Table, column: Column, values: Sequence[Key]) -> Found:
        """The cells of the (distinct) `values`. One MGET when all hit. Raises
        DatabaseUnavailable, TooLarge; never for the cache's sake."""
        sent = self._send_early(table, column, values)
        with closing(sent) if sent else nullcontext():
            generation = self._generation(table)
            if generation is None:
                return _found(values, self._load(table, column, values))
            try:
                stored = sent.wait(generation) if sent else None
                if stored is None:
                    stored = self._cache.get_many(generation, table, column, values)
                if None not in stored:
                    joined = b",".join(stored)  # type: ignore[arg-type]
                    if MARK not in joined:
                        self._generations.leave_hint(table)
                        return Found(stored, joined)
                cells = self._complete(generation, table, column, values, stored)
                self._generations.leave_hint(table)
            except CacheUnavailable as error:
                self._answer_without(table, generation, error)
                cells = self._load(table, column, values)
            return _found(values, cells)

    def _send_early(self, table: Table, column: Column, values: Sequence[Key]) -> Sent | None:
        """Where the database is to be asked for the generation, the MGET need not wait for the
        answer. If the database confirms the same generation, the early reply is valid."""
        last_known = self._generations.remembered(table)
        if last_known is None or not last_known.enabled or not self._generations.is_due(table):
            return None
        return self._cache.begin_get_many(last_known, table, column, values)

    def _generation(self, table: Table) -> Generation | None:
        """The one to read under, None where the cache is not to be used."""
        if not self._cache.is_configured:
            return None
        generation = self._generations.current(table)
        if not generation.enabled:
            self._recovery.start()
            return None
        return generation

    def _complete(
        self,
        generation: Generation,
        table: Table,
        column: Column,
        values: Sequence[Key],
        stored: Sequence[Cell | None],
    ) -> Cells:
        """What was found, and what was not: leased, loaded, filled."""
        cells = {
            value: cell
            for value, cell in zip(values, stored)
            if cell is not None and not cell.startswith(MARK)
        }
        lacking = [value for value in values if value not in cells]
        token = new_token()
        leases = self._cache.lease_many(generation, table, column, lacking, token)
        cells |= leases.found
        if leases.granted or leases.fenced:
            loaded = self._load(table, column, [*leases.granted, *leases.fenced])
            filled = {value: loaded.get(value) for value in leases.granted}
            self._cache.fill_many(generation, table, column, filled, token)
            cells |= loaded
        if leases.abandoned:
            cells |= self._settle(generation, table, column, leases.abandoned)
        if leases.waiting:
            cells |= self._wait(generation, table, column, leases.waiting)
        return cells

    def _settle(self, generation: Generation, table: Table, column: Column, fences: Cells) -> Cells:
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
    ) -> Cells:
        """What another reader fills; from the database where that takes too long."""
        cells: Cells = {}
        waiting = list(values)
        for seconds in POLL_SECONDS:
            time.sleep(seconds)
            stored = self._cache.get_many(generation, table, column, waiting)
            still = []
            for value, cell in zip(waiting, stored):
                if cell is not None and cell.startswith(LEASE):
                    still.append(value)
                elif cell is not None and not cell.startswith(MARK):
                    cells[value] = cell
            waiting = still
            if not waiting:
                break
        lacking = [value for value in values if value not in cells]
        return cells | self._load(table, column, lacking) if lacking else cells

    def _answer_without(
        self, table: Table, generation: Generation, error: CacheUnavailable
    ) -> None:
        if isinstance(error, AnotherServer):
            self._generations.use_server(table, generation, error.server)
        else:
            self._recovery.start()


def _found(values: Sequence[Key], cells: Cells) -> Found:
    return Found([cells.get(value) for value in values])
