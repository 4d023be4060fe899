"""Switching a table's cache off, where Redis failed in a write.

No reader may believe an entry that the write could not fence. So the generation is raised, which
makes every entry of the table unreachable, and nobody asks Redis for the table any more until
`cache.recovery` has switched its cache on again.
"""

import logging
from collections.abc import Callable
from typing import TypeVar

from chalicelib.cache import Generations, Recovery
from chalicelib.db import Database, Generation, Transaction
from chalicelib.errors import AnotherServer, CacheUnavailable
from chalicelib.rows.writer_transactions import Transactions
from chalicelib.tables import Table

log = logging.getLogger("herocache.switch_off")

Result = TypeVar("Result")


class CacheSwitchOff:
    def __init__(
        self,
        database: Database,
        generations: Generations,
        transactions: Transactions,
        recovery: Recovery,
    ) -> None:
        self._database = database
        self._generations = generations
        self._transactions = transactions
        self._recovery = recovery

    def with_change(
        self, table: Table, error: CacheUnavailable, change: Callable[[Transaction], Result]
    ) -> Result:
        """Do `change` in the transaction that switches the cache off because of `error`; what
        `change` returns. It needs no fences, and runs again where the database undid it."""

        def off_and_change(transaction: Transaction) -> Result:
            transaction.switch_off(table)
            return change(transaction)

        log.warning("the cache of %s is switched off: %s", table.name, error)
        self._recovery.start()
        return self._transactions.run(off_and_change)

    def after_commit(self, table: Table, held: Generation, error: CacheUnavailable) -> Generation:
        """For a change that is committed, and whose fences under `held` may be lost because of
        `error`. The generation that holds then. Where Redis has only another data set than `held`
        names, the cache stays on, and no entry of before is believed."""
        if isinstance(error, AnotherServer):
            try:
                self._generations.renew(table, held, error.server)
                return self._database.generation(table)
            except CacheUnavailable as later:
                error = later
        return self.with_change(table, error, lambda transaction: transaction.end(table))
