"""The pauses before a transaction runs again that the database undid. No server, no waiting."""

import random
from collections.abc import Callable
from types import SimpleNamespace

import pytest
from pymysql.constants import CR, ER

from chalicelib.config import Settings
from chalicelib.db import Transaction, database, retries
from chalicelib.db.database import Database
from chalicelib.db.engine import LOAD_PAUSE_SECONDS, PAUSE_SECONDS, Sent
from chalicelib.db.errors import DatabaseError
from chalicelib.errors import DatabaseUnavailable

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
