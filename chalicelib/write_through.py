"""Writes: into the database in one transaction, and through it into the cache.

The order matters and is proved in `tests/model`: fences stand before the COMMIT and while the rows
are locked, publishing comes after it, the acknowledgement last. A write that cannot fence takes the
table's cache out of use in its own transaction. `storage` calls in.
"""

import logging
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from chalicelib.cache import Affected, Cache, Cell, Early, Token, new_token
from chalicelib.db import Change, Database, Generation, Transaction
from chalicelib.errors import (
    AnotherServer,
    CacheUnavailable,
    DatabaseUnavailable,
    OutcomeUnknown,
)
from chalicelib.generations import Generations
from chalicelib.recovery import Recovery
from chalicelib.tables import Column, Key, Row, Table

log = logging.getLogger("herocache.write_through")

Apply = Callable[[Transaction], Change]
Result = TypeVar("Result")


class WriteThrough:
    def __init__(
        self, database: Database, cache: Cache, generations: Generations, recovery: Recovery
    ) -> None:
        self._database = database
        self._cache = cache
        self._generations = generations
        self._recovery = recovery

    def change(
        self, table: Table, apply: Apply, *, store: bool, new_rows: Sequence[Row] = ()
    ) -> Change:
        """Commit what `apply` does to `table`; every read that starts after this has returned
        sees it. With `store` the new rows are in the cache too, else they are just not stale
        there. Where `apply` does nothing but insert rows without keys, `new_rows` are these:
        their fences are set while the database works. Raises DatabaseUnavailable,
        OutcomeUnknown, and whatever `apply` raises."""
        if not self._generations.remembered(table):
            self._introduce(table)
        token = new_token()
        asked = time.monotonic()
        affected = Affected()
        held = None

        def with_fences(transaction: Transaction) -> Change:
            nonlocal affected, held
            early = Early()

            def fence_early() -> None:
                nonlocal early
                early = self._fence_early(table, new_rows, store, token)

            if new_rows:
                transaction.meanwhile(fence_early)
            try:
                change = apply(transaction)
                held = change.generation
                affected = _affected(table, change, store) if self._is_cached(held) else Affected()
                must_fence = affected != Affected() and not change.repeated
                if must_fence and early.wait(held) is None:
                    self._cache.fence_many(held, table, affected, token)
            finally:
                early.close()
            return change

        def without_cache(transaction: Transaction) -> Change:
            transaction.switch_off(table)
            return apply(transaction)

        try:
            try:
                change = self._transact(table, with_fences)
            except AnotherServer as error:
                assert held is not None, "it was read before the fences were set"
                self._generations.use_server(table, held, error.server)
                change = self._transact(table, with_fences)
        except CacheUnavailable as error:
            log.warning("the cache of %s is switched off: %s", table.name, error)
            self._recovery.start()
            change = self._transact(table, without_cache)
            generation = change.generation
        else:
            generation = self._published(table, change.generation, affected, token)
        self._generations.wait_until_known(table, generation, asked)
        return change

    def replace_all(self, table: Table, apply: Callable[[Transaction], Result]) -> Result:
        """Commit what `apply` does, which may be to any number of rows; every read that starts
        after this has returned sees it. The whole table leaves the cache. Raises as `change`."""
        asked = time.monotonic()

        def with_new_generation(transaction: Transaction) -> tuple[Result, Generation]:
            result = apply(transaction)
            return result, transaction.raise_generation(table)

        result, generation = self._transact(table, with_new_generation)
        self._generations.wait_until_known(table, generation, asked)
        return result

    def _transact(self, table: Table, work: Callable[[Transaction], Result]) -> Result:
        try:
            return self._database.transact(work)
        except DatabaseUnavailable:
            self._generations.doubt()
            raise

    def _introduce(self, table: Table) -> None:
        """Where the table has no Redis server yet it gets one here: learnt in the transaction it
        would cost that one's keys."""
        generation = self._generations.current(table)
        if generation.server or not self._cache.is_configured:
            return
        try:
            self._generations.use_server(table, generation, self._cache.link.probe())
        except CacheUnavailable as error:
            log.info("the cache of %s stays without a server: %s", table.name, error)

    def _fence_early(
        self, table: Table, new_rows: Sequence[Row], store: bool, token: Token
    ) -> Early:
        """Send the fences that new rows need, under the generation that will probably be held.
        Called once their INSERT is on its way: a fence that grows old before its transaction has
        its locks would be settled too soon."""
        generation = self._generations.remembered(table)
        if generation is None or not self._is_cached(generation):
            return Early()
        return self._cache.begin_fence_many(
            generation, table, _lookups(table, new_rows), store, token
        )

    def _is_cached(self, generation: Generation) -> bool:
        """Whether some reader may believe cells under this generation. Where this container has
        no Redis but others have, it must not write behind their backs: the fence fails."""
        return generation.enabled and (self._cache.is_configured or bool(generation.server))

    def _published(
        self, table: Table, generation: Generation, affected: Affected, token: str
    ) -> Generation:
        """Lift the fences; the generation that holds then. Where Redis went away after the COMMIT
        nobody knows whether the fences stand: the cache is switched off after all."""
        if affected == Affected():
            return generation
        try:
            self._cache.publish_many(generation, table, affected, token)
        except CacheUnavailable as error:
            if not affected.fenced:
                log.info("new rows of %s are not in the cache: %s", table.name, error)
                self._recovery.start()
                return generation
            log.warning("the cache of %s is switched off: %s", table.name, error)
            self._recovery.start()
            return self._switched_off(table)
        return generation

    def _switched_off(self, table: Table) -> Generation:
        def switch_off(transaction: Transaction) -> Change:
            transaction.switch_off(table)
            return transaction.hold(table)

        try:
            return self._transact(table, switch_off).generation
        except DatabaseUnavailable as error:
            raise OutcomeUnknown(
                "the rows are written, but neither the cache nor the database can be told so that"
                " every reader sees them; read them before you write them again"
            ) from error


def entries_of(table: Table, change: Change) -> dict[str, list[Key]]:
    """The values, by column, of all entries that show or showed one of the rows."""
    affected = _affected(table, change, store=False)
    return {column.name: list(values) for column, values in affected.fenced.items()}


def _affected(table: Table, change: Change, store: bool) -> Affected:
    """The rows' own cells, and every lookup cell that shows or showed one of them. What was done
    before just goes: to publish without a fence leaves alone what a writer fences."""
    if change.repeated:
        columns = change.repeated.items()
        return Affected({table.readable[name]: dict.fromkeys(keys) for name, keys in columns})
    rows: dict[Key, Cell | None] = {row[0]: None for row in change.before}
    new: dict[Key, Cell] = {}
    cells = table.encode_many(change.after) if store else [None] * len(change.after)
    for row, cell in zip(change.after, cells):
        if row[0] not in change.new_keys:
            rows[row[0]] = cell
        elif cell is not None:
            new[row[0]] = cell
    fenced = {table.key: rows} if rows else {}
    return Affected(fenced | _lookups(table, (*change.before, *change.after)), new)


def _lookups(table: Table, rows: Sequence[Row]) -> dict[Column, dict[Key, Cell | None]]:
    """The cells of lookups that show one of `rows`."""
    if not rows:
        return {}
    return {column: dict.fromkeys(table.values(rows, column)) for column in table.lookup_columns}
