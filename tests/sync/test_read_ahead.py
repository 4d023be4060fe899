"""The rows of the next step are read while this one is reconciled."""

from collections.abc import Callable
from typing import Any

import pytest

from chalicelib import services
from chalicelib.db import AskedRange, FoundRange, SentRead
from chalicelib.db.engine import Connection
from chalicelib.db.errors import Code, DatabaseError
from chalicelib.db.retries import Retries
from chalicelib.errors import CacheUnavailable
from chalicelib.sync import range_reader
from chalicelib.sync.reconciliation import Reconciliation
from local.servers.mariadb import integers
from tests.support.client import InProcess
from tests.support.witness import Witness
from tests.sync.clients import RedisCli, product, rows, run, watch

PAGE = 150  # so many that rows which follow are written at once
InFirstStep = Callable[[Callable[[], object]], None]
each_direction = pytest.mark.parametrize("direction", ["to_cache", "to_database"])


@pytest.fixture
def in_first_step(
    service: InProcess, witness: Witness, monkeypatch: pytest.MonkeyPatch
) -> InFirstStep:
    """`in_first_step(work)`: does the work while the first of two pages is reconciled. The row 200
    is in the second one."""
    witness.query(
        "INSERT INTO products SELECT seq, CONCAT('Product ', seq), '', 10, 400"
        f" FROM {integers(1, 2 * PAGE)}"
    )
    monkeypatch.setattr(range_reader, "PAGE_ROWS", PAGE)
    reconcile = Reconciliation.reconcile

    def in_first_step(work: Callable[[], object]) -> None:
        left = [work]

        def working(*arguments: Any) -> None:
            if left:
                left.pop()()
            reconcile(*arguments)

        monkeypatch.setattr(Reconciliation, "reconcile", working)

    return in_first_step


@pytest.fixture
def lent(service: InProcess, monkeypatch: pytest.MonkeyPatch) -> list[Connection]:
    """The connections on which rows are asked for."""
    connections: list[Connection] = []
    lend = Retries.lend

    def lending(retries: Retries) -> Connection:
        connections.append(lend(retries))
        return connections[-1]

    monkeypatch.setattr(Retries, "lend", lending)
    return connections


def test_the_next_rows_are_asked_for_before_the_first_ones_are_reconciled(
    service: InProcess, in_first_step: InFirstStep, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []
    database = services.container().database
    send = database.send_range

    def sending(own: AskedRange) -> SentRead[FoundRange]:
        asked.append(own.after)
        return send(own)

    monkeypatch.setattr(database, "send_range", sending)
    watch(service, ["*"], "to_cache")
    in_first_step(lambda: asked.append("first step"))

    run()

    assert asked == [None, PAGE, "first step", 2 * PAGE]


@each_direction
def test_a_row_that_a_write_has_changed_since_is_not_undone(
    service: InProcess,
    witness: Witness,
    cli: RedisCli,
    in_first_step: InFirstStep,
    direction: str,
) -> None:
    watch(service, ["*"], direction)
    in_first_step(lambda: service.write([product(200, Price=7)], TABLE="products"))

    for _ in range(2):
        assert run()["outcome"] == "done"

    assert rows(witness, 200) == [product(200, Price=7)]
    assert cli.row("Product:200")["Price"] == 7


@each_direction
def test_a_row_that_sql_has_changed_or_deleted_since_counts_with_the_next_run(
    service: InProcess,
    witness: Witness,
    cli: RedisCli,
    in_first_step: InFirstStep,
    direction: str,
) -> None:
    watch(service, ["*"], direction)

    def change() -> None:
        witness.query("UPDATE products SET Price = 7 WHERE ProductId = 200")
        witness.query("DELETE FROM products WHERE ProductId = 201")

    in_first_step(change)

    for _ in range(2):
        assert run()["outcome"] == "done"

    assert rows(witness, 200, 201) == [product(200, Price=7)]
    assert cli.row("Product:200")["Price"] == 7
    assert cli.row("Product:201") is None


def test_a_row_that_sql_has_changed_since_is_told_where_its_client_changed_it_too(
    service: InProcess, witness: Witness, cli: RedisCli, in_first_step: InFirstStep
) -> None:
    watch(service, ["*"])
    run()
    for key in range(1, 2 * PAGE + 1):
        cli.put(f"Product:{key}", Price=5)
    in_first_step(lambda: witness.query("UPDATE products SET Price = 7 WHERE ProductId = 200"))

    record = run()

    assert record["to_database"]["changed"] == 2 * PAGE
    assert [each["key"] for each in record["details"]] == ["Product:200"]
    assert rows(witness, 200) == [product(200, Price=5)]


@each_direction
def test_what_a_client_sets_meanwhile_is_found(
    service: InProcess,
    witness: Witness,
    cli: RedisCli,
    in_first_step: InFirstStep,
    direction: str,
) -> None:
    watch(service, ["*"], direction)
    run()
    in_first_step(lambda: cli.put("Product:200", Price=5))

    run()

    price = 400 if direction == "to_cache" else 5
    assert cli.row("Product:200")["Price"] == price
    assert rows(witness, 200) == [product(200, Price=price)]


def test_rows_that_were_read_long_ago_are_read_again(
    service: InProcess,
    witness: Witness,
    cli: RedisCli,
    in_first_step: InFirstStep,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    watch(service, ["*"], "to_cache")

    def sleep_and_change() -> None:
        witness.query("UPDATE products SET Price = 7 WHERE ProductId = 200")
        monkeypatch.setattr(range_reader, "MAX_AHEAD_SECONDS", 0)

    in_first_step(sleep_and_change)

    run()

    assert cli.row("Product:200")["Price"] == 7


def test_an_answer_that_is_lost_is_asked_for_once_more(
    service: InProcess,
    witness: Witness,
    cli: RedisCli,
    in_first_step: InFirstStep,
    lent: list[Connection],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    watch(service, ["*"], "to_cache")
    lost: list[Connection] = []

    def lose() -> None:
        lost.append(lent[-1])
        monkeypatch.setattr(lost[0], "receive_batch", fail)

    def fail() -> None:
        raise DatabaseError(Code.CR_SERVER_LOST, "lost", "")

    in_first_step(lose)

    assert run()["to_cache"]["changed"] == 2 * PAGE

    assert not lost[0].open
    assert cli.row("Product:200")["Price"] == 400


def test_a_run_that_fails_leaves_no_connection_with_an_answer_behind(
    service: InProcess,
    witness: Witness,
    cli: RedisCli,
    in_first_step: InFirstStep,
    lent: list[Connection],
) -> None:
    watch(service, ["*"], "to_cache")

    def fail() -> None:
        raise CacheUnavailable("away")

    in_first_step(fail)

    with pytest.raises(CacheUnavailable):
        run()

    assert not lent[-1].open
    assert run()["to_cache"]["changed"] == 2 * PAGE
