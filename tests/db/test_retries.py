"""What runs again, after which pause, and on which connection. No server, no waiting."""

import random
from collections.abc import Callable
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import pytest
from pymysql.constants import CR, ER

from chalicelib.config import Settings
from chalicelib.db import Transaction, cache_generation, database, retries
from chalicelib.db.cache_generation import NoGeneration
from chalicelib.db.database import Database
from chalicelib.db.engine import LOAD_PAUSE_SECONDS, PAUSE_SECONDS, Sent
from chalicelib.db.errors import DatabaseError
from chalicelib.errors import DatabaseUnavailable, OutcomeUnknown
from chalicelib.pool import Pool
from chalicelib.tables import HEROES

ALWAYS = 99


class Clock:
    """Goes on by what the work and the `pauses` take."""

    def __init__(self) -> None:
        self.now = 0.0
        self.pauses: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """For pauses and for a database whose connections take any COMMIT."""
    connection = SimpleNamespace(
        open=True,
        is_surely_writer=True,
        was_closed_by_server=lambda: False,
        wait_at_most=lambda seconds: None,
        send_commit=lambda statements, is_timed: Sent(statements, is_timed),
        receive_commit=lambda sent: ([], 0),
        drop=lambda: None,
    )
    made = Clock()
    monkeypatch.setattr(retries, "time", made)
    monkeypatch.setattr(database, "_engine", lambda settings, for_loads: lambda: connection)
    return made


def failing(
    clock: Clock, seconds: float, times: int = ALWAYS, code: int = ER.LOCK_DEADLOCK
) -> Callable[[Transaction], str]:
    """Work that fails so many times, each time after so many seconds."""
    errors = [DatabaseError(code, "for this test")] * times

    def work(_: Transaction) -> str:
        if not errors:
            return "done"
        clock.now += seconds
        raise errors.pop()

    return work


def transact(work: Callable[[Transaction], str], *, for_loads: bool = False) -> str:
    settings = Settings("nowhere", "user", "password", "name")
    return Database(settings, for_loads=for_loads).transact(work)


def test_before_each_further_try_it_pauses_longer(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """About as long as it has tried so far: the other transaction may have as much left to do."""
    monkeypatch.setattr(random, "uniform", lambda low, high: high)

    with pytest.raises(DatabaseUnavailable):
        transact(failing(clock, 0.01))

    assert clock.pauses == pytest.approx([0.01, 0.03, 0.07])


def test_two_in_each_others_way_pause_differently(clock: Clock) -> None:
    for _ in range(8):
        assert transact(failing(clock, 0.01, times=1)) == "done"

    assert len({*clock.pauses}) == 8
    assert all(0.005 <= pause <= 0.01 for pause in clock.pauses)


@pytest.mark.parametrize(
    ("for_loads", "longest"), [(False, PAUSE_SECONDS), (True, LOAD_PAUSE_SECONDS)]
)
def test_no_pause_is_longer_than_a_request_or_a_load_can_wait(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, for_loads: bool, longest: float
) -> None:
    monkeypatch.setattr(random, "uniform", lambda low, high: high)

    with pytest.raises(DatabaseUnavailable):
        transact(failing(clock, 20), for_loads=for_loads)

    assert clock.pauses == [longest] * 3


def test_a_lost_connection_is_replaced_without_a_pause(clock: Clock) -> None:
    assert transact(failing(clock, 0.01, times=1, code=CR.CR_SERVER_LOST)) == "done"
    assert clock.pauses == []


# --- how often, and on which connection -----------------------------------------------------------

READ_ONLY, OF_RDS_PROXY, OF_PROXYSQL = 1290, 9501, 9001


class Kept:
    """A connection that can be kept."""

    def __init__(self) -> None:
        self.open = True
        self.is_closed_by_server = False
        self.patience = 0.0

    def was_closed_by_server(self) -> bool:
        return self.is_closed_by_server

    def wait_at_most(self, seconds: float) -> None:
        self.patience = seconds

    def drop(self) -> None:
        self.open = False


class Pooled:
    """Retries on a pool of such connections; `opened` are all that there were."""

    def __init__(self) -> None:
        self.opened: list[Kept] = []
        self.pool: Pool[Any] = Pool(self.open, lambda connection: connection.drop())
        settings = Settings("nowhere", "user", "password", "name")
        self.retries = retries.Retries(settings, self.pool, 3, 1)

    def open(self) -> Kept:
        self.opened.append(Kept())
        return self.opened[-1]

    def used_until(self, error: BaseException | None) -> list[Any]:
        """The connections on which work was done that fails with `error` each time."""
        used = []

        def work(connection: Any) -> None:
            used.append(connection)
            if error:
                raise error

        with suppress(BaseException):
            self.retries.run(work)
        return used


def caused_by(code: int) -> DatabaseUnavailable:
    error = DatabaseUnavailable("for this test")
    error.__cause__ = DatabaseError(code, "for this test")
    return error


@pytest.mark.parametrize(
    ("code", "tries"),
    [
        (ER.LOCK_DEADLOCK, retries.MAX_ATTEMPTS),
        (CR.CR_SERVER_LOST, 2),
        (CR.CR_SERVER_GONE_ERROR, 2),
        (READ_ONLY, 2),
        (OF_RDS_PROXY, 2),
        (OF_PROXYSQL, 2),
        (ER.DATA_TOO_LONG, 1),
    ],
)
def test_work_is_tried_as_often_as_that_can_help(clock: Clock, code: int, tries: int) -> None:
    """A lost connection is replaced once: the new one would be lost too."""
    assert len(Pooled().used_until(DatabaseError(code, "for this test"))) == tries


def test_a_silent_database_is_not_asked_twice(clock: Clock) -> None:
    silent = DatabaseError(CR.CR_SERVER_LOST, "for this test")
    silent.origin = TimeoutError()

    assert len(Pooled().used_until(silent)) == 1


@pytest.mark.parametrize(
    ("error", "is_kept"),
    [
        (None, True),
        (DatabaseError(ER.DATA_TOO_LONG, "for this test"), True),
        (DatabaseError(ER.LOCK_DEADLOCK, "for this test"), True),
        (caused_by(ER.DATA_TOO_LONG), True),
        (DatabaseError(CR.CR_SERVER_LOST, "for this test"), False),
        (DatabaseError(READ_ONLY, "for this test"), False),
        (DatabaseError(OF_RDS_PROXY, "for this test"), False),
        (caused_by(CR.CR_SERVER_LOST), False),
        (caused_by(READ_ONLY), False),
        (OutcomeUnknown("for this test"), False),
        (KeyError("a bug"), False),
        (KeyboardInterrupt(), False),
    ],
    ids=repr,
)
def test_a_connection_is_kept_only_where_the_next_user_can_trust_it(
    clock: Clock, error: BaseException | None, is_kept: bool
) -> None:
    """Each is given back or closed, and none is lost."""
    pooled = Pooled()
    last = pooled.used_until(error)[-1]

    assert last.open == is_kept
    assert pooled.pool.take() is (last if is_kept else None)


def test_a_connection_that_was_closed_meanwhile_is_not_kept(clock: Clock) -> None:
    pooled = Pooled()

    def close(connection: Any) -> None:
        connection.open = False
        raise DatabaseError(ER.DATA_TOO_LONG, "for this test")

    with pytest.raises(DatabaseError):
        pooled.retries.run(close)
    assert not pooled.pool.has_idle


def test_no_work_begins_on_a_connection_that_the_server_has_closed(clock: Clock) -> None:
    """After a write was sent, nobody could tell whether it was done."""
    pooled = Pooled()
    [kept] = pooled.used_until(None)
    kept.is_closed_by_server = True

    [used] = pooled.used_until(None)

    assert used is not kept
    assert not kept.open
    assert used.patience == 3


def test_a_kept_connection_waits_as_long_as_a_new_one(clock: Clock) -> None:
    """Who used it before may have had another patience."""
    pooled = Pooled()
    [kept] = pooled.used_until(None)
    kept.patience = 99

    assert pooled.used_until(None) == [kept]
    assert kept.patience == 3


def test_a_new_table_gets_its_generation_on_the_same_connection(clock: Clock) -> None:
    """Under work that holds a connection, the only one of a busy database, nobody could add it."""
    pooled, added = Pooled(), list[Any]()

    def work(connection: Any) -> str:
        connection.batch = added.extend
        if not added:
            raise NoGeneration(HEROES)
        return "done"

    assert pooled.retries.run(work) == "done"
    assert added == [cache_generation.add(HEROES)]
    assert [pooled.pool.take()] == pooled.opened


def test_a_database_that_takes_no_connection_is_unavailable(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> Kept:
        raise DatabaseError(CR.CR_CONN_HOST_ERROR, "for this test")

    monkeypatch.setattr(Pooled, "open", lambda self: refuse())

    with pytest.raises(DatabaseUnavailable):
        Pooled().retries.run(lambda connection: None)


@pytest.mark.parametrize("file_seconds", [0.2, 6, 40])
def test_of_two_files_in_opposite_orders_the_second_is_loaded_too(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, file_seconds: float
) -> None:
    """The database ends the one that has done less. They meet in the middle of what the first one
    has left to load. Without pauses they meet at each of four tries, and the second one fails."""
    monkeypatch.setattr(random, "uniform", lambda low, high: low)

    def load(_: Transaction) -> str:
        if clock.now < file_seconds:
            clock.now += (file_seconds - clock.now) / 2
            raise DatabaseError(ER.LOCK_DEADLOCK, "for this test")
        return "done"

    assert transact(load, for_loads=True) == "done"
