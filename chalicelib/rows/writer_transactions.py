"""Transactions on the writer. One that fails tells that the database was away."""

from collections.abc import Callable
from typing import Concatenate, ParamSpec, TypeVar

from chalicelib.cache import Generations
from chalicelib.db import Database, Transaction

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


class Transactions:
    def __init__(self, database: Database, generations: Generations) -> None:
        self._database = database
        database.on_unavailable = generations.mark_stale

    def run(
        self,
        attempt: Callable[Concatenate[Transaction, Arguments], Result],
        *arguments: Arguments.args,
        **named: Arguments.kwargs,
    ) -> Result:
        """What `attempt` returns, once that is committed. Where the database undid it, it runs
        again. Raises as `Database.transact`."""
        return self._database.transact(
            lambda transaction: attempt(transaction, *arguments, **named)
        )
