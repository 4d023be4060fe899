"""Runs work again: after a pause where the database undid it because of a deadlock, and at once
where the connection was lost."""

import random
import time
from collections.abc import Callable, Mapping
from typing import TypeVar

from chalicelib.config import Settings
from chalicelib.db import cache_generation
from chalicelib.db.cache_generation import NoGeneration
from chalicelib.db.engine import Connection
from chalicelib.db.errors import (
    DatabaseError,
    is_undone,
    is_unfit,
    translated_from_connecting,
)
from chalicelib.errors import HerocacheError, OutcomeUnknown
from chalicelib.pool import Pool
from chalicelib.tables import Table

MAX_ATTEMPTS = 4

Result = TypeVar("Result")


class Retries:
    """Gives work a connection, a kept one or a new one, and tries again. Safe for threads."""

    def __init__(
        self,
        settings: Settings,
        pool: Pool[Connection],
        patience_seconds: float,
        max_pause_seconds: float,
    ) -> None:
        """`patience_seconds`: how long each answer of the database may take. `max_pause_seconds`:
        the longest pause before another try."""
        self._settings = settings
        self._pool = pool
        self._patience = patience_seconds
        self._max_pause = max_pause_seconds

    def run(self, work: Callable[[Connection], Result], **connect_options: float | None) -> Result:
        """What `work` returns. It runs again where that is worth it, so it must be safe to run
        twice. Raises DatabaseUnavailable or ConfigurationError where there is no connection, and
        whatever the last run of `work` raises."""
        begun = time.monotonic()
        for attempt in range(MAX_ATTEMPTS):
            connection = self._acquire(connect_options)
            try:
                result = work(connection)
            except DatabaseError as error:
                self._put_back(connection, error)
                if not _is_worth_another_try(error, attempt):
                    raise
                if is_undone(error):
                    self._pause(time.monotonic() - begun)
                continue
            except NoGeneration as new:
                self._pool.release(connection)
                self._add_generation(new.table)
                continue
            except OutcomeUnknown:
                self._pool.discard(connection)
                raise
            except HerocacheError as error:
                self._put_back(connection, error.__cause__)
                raise
            except BaseException:
                self._pool.discard(connection)
                raise
            self._pool.release(connection)
            return result
        raise AssertionError("unreachable: the last attempt returns or raises")

    def _pause(self, seconds_so_far: float) -> None:
        """Let the other transaction end. It may have as much left to do as this one has done, so
        the pause is about as long as the tries so far, which makes each pause longer than the one
        before. It is random, so that two that are in each other's way do not meet again."""
        time.sleep(min(seconds_so_far, self._max_pause) * random.uniform(0.5, 1))

    def _add_generation(self, table: Table) -> None:
        self.run(lambda connection: connection.batch([cache_generation.add(table)]))

    def _acquire(self, connect_options: Mapping[str, float | None]) -> Connection:
        """A kept connection or a new one. Checks that the server has not closed a kept one: after a
        write was sent, nobody could tell whether it was done."""
        try:
            connection = self._pool.acquire(**connect_options)
            if connection.was_closed_by_server():
                self._pool.discard(connection)
                connection = self._pool.acquire(**connect_options)
            connection.wait_at_most(self._patience)
        except DatabaseError as error:
            raise translated_from_connecting(error, self._settings) from error
        return connection

    def _put_back(self, connection: Connection, error: BaseException | None) -> None:
        if connection.open and not is_unfit(error):
            self._pool.release(connection)
        else:
            self._pool.discard(connection)


def _is_worth_another_try(error: DatabaseError, attempt: int) -> bool:
    """Whether to try again: a few times where the database undid the transaction because of another
    one, and once on a new connection where the old one was lost. Not where the server was silent:
    it would be silent again."""
    if is_undone(error):
        return attempt + 1 < MAX_ATTEMPTS
    return is_unfit(error) and attempt == 0 and not isinstance(error.origin, TimeoutError)
