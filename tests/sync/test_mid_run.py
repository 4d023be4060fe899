"""What happens in the middle of a run: a watch ends or turns round, a client writes, the process
sleeps, one table cannot be used."""

import json
import threading
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

import app
from chalicelib import clocks, services
from chalicelib.errors import BadRequest, DatabaseUnavailable, SchemaMismatch
from chalicelib.rows import WriteThrough
from chalicelib.sync import runs, watches
from chalicelib.tables import HASH, JSON, PRODUCTS
from tests.support.client import InProcess, heroes
from tests.support.witness import Witness
from tests.sync.clients import RedisCli, as_json, product, rows, run, unwatch, watch
from tests.sync.test_faults import expire_lease

Meanwhile = Callable[[str, Callable[[], object]], None]
each_way = pytest.mark.parametrize("keys", [[22], ["*"]], ids=["one row", "every row"])
STEPS = ("deadline", "read_many", "set_many")


@pytest.fixture
def before(service: InProcess, monkeypatch: pytest.MonkeyPatch) -> Meanwhile:
    """`before("read_many", work)`: does the work once, before the next such call of a run."""

    def before(name: str, work: Callable[[], object]) -> None:
        store = type(services.container().public_store)
        call, left = getattr(store, name), [work]

        def then(*arguments: Any, **named: Any) -> Any:
            while left:
                left.pop()()
            return call(*arguments, **named)

        monkeypatch.setattr(store, name, then)

    return before


@each_way
@pytest.mark.parametrize("step", ["deadline", "read_many", "set_new_many"])
def test_a_watch_that_ends_leaves_no_public_key_behind(
    shop: InProcess, cli: RedisCli, before: Meanwhile, keys: list[object], step: str
) -> None:
    watch(shop, keys, "to_cache")
    if step == "read_many":  # a run that sets new public keys reads none
        cli("SET", "Product:22", "half a row")
    before(step, lambda: unwatch(shop, keys))

    assert run()["outcome"] == "done"

    assert cli("KEYS Product:*") == []


def test_a_watch_that_ends_shows_no_row_that_comes_behind_its_end(
    service: InProcess, cli: RedisCli, before: Meanwhile
) -> None:
    """Then no public key was deleted a moment ago, which would reject it."""
    watch(service, ["*"], "to_cache", TABLE="employees")

    def end_and_write() -> None:
        unwatch(service, ["*"], TABLE="employees")
        service.write([{"EmpId": "A", "EmpName": "Ada"}], TABLE="employees")

    before("deadline", end_and_write)

    assert run("employees")["outcome"] == "done"

    assert cli("KEYS Employee:*") == []


@each_way
@pytest.mark.parametrize("step", ["deadline", "read_many"])
def test_a_watch_that_ends_changes_no_row_any_more(
    shop: InProcess,
    witness: Witness,
    cli: RedisCli,
    before: Meanwhile,
    keys: list[object],
    step: str,
) -> None:
    watch(shop, keys)
    run()
    cli.put("Product:22", Price=9)
    before(step, lambda: unwatch(shop, keys))

    assert run()["to_database"]["changed"] == 0

    assert rows(witness, 22) == [product(22, QuantityInStock=3000)]
    assert cli.row("Product:22")["Price"] == 9


@each_way
@pytest.mark.parametrize("step", STEPS)
def test_a_watch_that_turns_round_keeps_what_its_client_writes_from_then_on(
    shop: InProcess,
    witness: Witness,
    cli: RedisCli,
    before: Meanwhile,
    keys: list[object],
    step: str,
) -> None:
    watch(shop, keys, "to_cache")
    run()
    witness.query("UPDATE products SET Price = 7 WHERE ProductId = 22")

    def turn_round() -> None:
        watch(shop, keys, "to_database")
        cli.put("Product:22", Price=9)

    before(step, turn_round)
    run()
    assert cli.row("Product:22")["Price"] == 9

    assert run(None)["outcome"] == "done"
    assert cli.row("Product:22")["Price"] == rows(witness, 22)[0]["Price"] == 9


@pytest.mark.parametrize(
    ("form", "garbage"),
    [
        (JSON, ("SET", "x" * 100_000)),
        (JSON, ("RPUSH", "no row")),
        (HASH, ("HSET", "ProductName", "x" * 100_000)),
        (HASH, ("SET", "no row")),
    ],
)
def test_a_row_does_not_replace_what_its_client_puts_in_the_place_of_garbage(
    shop: InProcess,
    witness: Witness,
    cli: RedisCli,
    before: Meanwhile,
    form: str,
    garbage: tuple[str, ...],
) -> None:
    watch(shop, [22], "to_cache", FORM=form)
    run()
    name = PRODUCTS.public_key(form, 22)
    good = product(22, QuantityInStock=3000)

    def put(command: str, *words: str) -> None:
        cli("DEL", name)
        cli(command, name, *words)

    def turn_round() -> None:
        watch(shop, [22], "to_database", FORM=form)
        mine = {**good, "Price": 9}
        if form == JSON:
            put("SET", as_json(mine))
        else:
            put("HSET", *[str(word) for item in mine.items() for word in item])

    put(*garbage)
    before("set_many", turn_round)
    run()
    run()
    assert int(cli.row(name)["Price"]) == rows(witness, 22)[0]["Price"] == 9

    watch(shop, [22], "to_cache", FORM=form)
    put(*garbage)
    run()
    assert int(cli.row(name)["Price"]) == 9, "the row counts again"


def test_a_watch_on_one_row_is_heard_while_every_row_is_looked_at(
    shop: InProcess, cli: RedisCli, before: Meanwhile
) -> None:
    watch(shop, ["*"], "to_cache")

    def take_over() -> None:
        watch(shop, [22])
        cli("SET", "Product:22", '{"Price": 9}')

    before("deadline", take_over)
    run()
    assert cli.row("Product:22") == {"Price": 9}
    assert cli.row("Product:11") == product(11)


def test_rows_that_a_write_showed_at_once_go_with_the_watch_on_every_row(
    shop: InProcess, cli: RedisCli
) -> None:
    """No run has seen them."""
    watch(shop, ["*"], "to_cache")
    watch(shop, [22], "to_cache")
    shop.write([product(key) for key in (22, 23, 24)], TABLE="products")
    assert len(cli("KEYS Product:*")) == 3

    unwatch(shop, ["*"])

    assert cli("KEYS Product:*") == [b"Product:22"]


def test_a_run_that_slept_before_a_range_sets_no_public_key(
    shop: InProcess,
    witness: Witness,
    cli: RedisCli,
    before: Meanwhile,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Another run has begun meanwhile, and sets the same keys."""
    watch(shop, [22], "to_cache")

    def sleep() -> None:
        expire_lease(witness)
        assert runs.take_lease(services.container().database)
        later = SimpleNamespace(time=lambda: time.time() + 60, monotonic=time.monotonic)
        monkeypatch.setattr(clocks, "time", later)

    before("deadline", sleep)

    assert run()["outcome"] == "superseded"

    assert cli("EXISTS Product:22") == 0


@each_way
def test_a_run_that_slept_behind_its_select_sets_no_earlier_row(
    shop: InProcess,
    cli: RedisCli,
    keys: list[object],
) -> None:
    """So long that the stamp of a write is gone, while no other run has begun."""
    watch(shop, keys, "to_cache")
    run()
    store, database = services.container().public_store, services.container().database
    deadline, fetch = store.deadline, database.fetch_dated if keys == [22] else database.fetch_range
    slept_seconds = runs.RANGE_SECONDS + 1

    def sleep_behind(*arguments: Any) -> Any:
        found = fetch(*arguments)
        asleep.undo()
        shop.write([product(22, Price=7)], TABLE="products")
        cli("DEL", "{Product:22}:stamp")
        return found

    with pytest.MonkeyPatch.context() as asleep:
        asleep.setattr(store, "deadline", lambda seconds: deadline(seconds - slept_seconds))
        asleep.setattr(database, fetch.__name__, sleep_behind)
        outcome = run()["outcome"]
    assert cli.row("Product:22")["Price"] == 7
    assert outcome == "superseded"


def test_a_range_whose_rows_take_long_to_write_is_finished(
    shop: InProcess, witness: Witness, cli: RedisCli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its first deadline has come by then."""
    watch(shop, [11, 22])
    cli("SET", "Product:11", '{"Price": 9}')
    store = type(services.container().public_store)
    deadline, first = store.deadline, [1]
    monkeypatch.setattr(store, "deadline", lambda *a: first.pop() if first else deadline(*a))

    assert run()["outcome"] == "done"

    assert cli.row("Product:11") == rows(witness, 11)[0] == product(11, Price=9)
    assert cli.row("Product:22") == rows(witness, 22)[0]


def test_a_row_with_null_is_reported_and_the_others_are_brought_in_step(
    shop: InProcess, witness: Witness, cli: RedisCli
) -> None:
    watch(shop, [11, 22])
    run()
    witness.query("ALTER TABLE products MODIFY Description VARCHAR(255) NULL")
    try:
        witness.query("UPDATE products SET Description = NULL WHERE ProductId = 22")
        cli.put("Product:11", Price=9)

        record = run()
        assert record["outcome"] == "done"
        [detail] = record["details"]
        assert detail["key"] == "Product:22"
        assert "Description is NULL" in detail["reason"]
        assert rows(witness, 11) == [product(11, Price=9)]
        assert cli.row("Product:22") == product(22, QuantityInStock=3000)
    finally:
        witness.query("DELETE FROM products")
        witness.query("ALTER TABLE products MODIFY Description VARCHAR(255) NOT NULL")


def test_a_row_that_goes_while_some_of_its_columns_are_written_is_reported(
    shop: InProcess, witness: Witness, cli: RedisCli, before: Meanwhile
) -> None:
    watch(shop, [22])
    run()
    cli("SET", "Product:22", '{"Price": 9}')
    before("read_many", lambda: witness.query("DELETE FROM products WHERE ProductId = 22"))

    [detail] = run()["details"]

    assert "not all columns are given" in detail["reason"]
    assert cli.row("Product:22") == {"Price": 9}


def test_a_table_that_cannot_be_used_does_not_keep_the_others_waiting(
    shop: InProcess, witness: Witness, cli: RedisCli
) -> None:
    shop.write(heroes(1))
    watch(shop, [1], "to_cache", TABLE="heroes")
    watch(shop, [22], "to_cache")
    witness.query("ALTER TABLE heroes RENAME COLUMN power TO might")
    services.forget()
    try:
        with pytest.raises(SchemaMismatch, match="power"):
            run(None)
    finally:
        witness.query("ALTER TABLE heroes RENAME COLUMN might TO power")
        services.forget()

    assert cli.row("Product:22") == product(22, QuantityInStock=3000)
    [(outcome, details)] = witness.query("SELECT outcome, details FROM sync_runs")
    assert outcome == "failed"
    assert [each["key"] for each in json.loads(details)] == ["heroes"]
    assert run(None)["outcome"] == "done"
    assert cli("EXISTS Hero:1")


def test_a_bug_fails_the_run_and_frees_its_lease(
    shop: InProcess, witness: Witness, before: Meanwhile
) -> None:
    watch(shop, [22], "to_cache")
    before("read_many", lambda: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        run()
    assert witness.query("SELECT outcome FROM sync_runs") == [("failed",)]
    assert run()["outcome"] == "done"


def failing(error: Exception) -> None:
    raise error


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (BadRequest("no"), "no"),
        (DatabaseUnavailable("a lock of another client"), "a lock of another client"),
        (ZeroDivisionError("internal"), "a bug: see the log"),
    ],
    ids=["a row is rejected", "the database fails", "a bug"],
)
def test_whatever_fails_in_one_table_the_others_are_looked_at(
    shop: InProcess,
    witness: Witness,
    cli: RedisCli,
    before: Meanwhile,
    error: Exception,
    reason: str,
) -> None:
    shop.write(heroes(1))
    watch(shop, [1], "to_cache", TABLE="heroes")
    watch(shop, [22], "to_cache")
    before("read_many", lambda: failing(error))

    with pytest.raises(type(error)):
        run(None)

    assert cli.row("Product:22") == product(22, QuantityInStock=3000)
    [(outcome, details)] = witness.query("SELECT outcome, details FROM sync_runs")
    assert (outcome, json.loads(details)) == ("failed", [{"key": "heroes", "reason": reason}])
    assert run(None)["outcome"] == "done"
    assert cli("EXISTS Hero:1")


def test_both_forms_follow_where_clients_own_both(
    shop: InProcess, witness: Witness, cli: RedisCli
) -> None:
    """The JSON was looked at before the row followed the Hash."""
    watch(shop, [22])
    watch(shop, [22], FORM="hash")
    run()
    cli("HINCRBY UsingHash:Product:22 Price 100")
    run(None)
    assert rows(witness, 22)[0]["Price"] == 500

    assert run(None)["outcome"] == "done"

    assert cli.row("Product:22")["Price"] == 500
    assert run(None)["outcome"] == "idle"


def test_no_count_of_a_client_is_lost_while_runs_look(
    shop: InProcess, witness: Witness, cli: RedisCli
) -> None:
    watch(shop, [22], FORM="hash")
    run()

    def count() -> None:
        for _ in range(300):
            cli("HINCRBY UsingHash:Product:22 QuantityInStock -1")

    clients = [threading.Thread(target=count) for _ in range(4)]
    for client in clients:
        client.start()
    while any(client.is_alive() for client in clients):
        assert run()["details"] == []
    run()

    assert rows(witness, 22) == [product(22, QuantityInStock=1800)]
    assert cli.row("UsingHash:Product:22")["QuantityInStock"] == "1800"


@pytest.mark.parametrize("table", ["nothing", "", 7, ["products"], {"products": 1}])
def test_an_event_for_a_table_that_is_none_is_rejected(service: InProcess, table: object) -> None:
    with pytest.raises(BadRequest, match="is none; there are heroes, products, employees"):
        app.sync({"table": table}, None)


def test_so_it_is_where_many_rows_are_watched_one_by_one(
    shop: InProcess, witness: Witness, cli: RedisCli, before: Meanwhile
) -> None:
    watch(shop, ["*"], "to_cache")
    watch(shop, [*range(1000, 1000 + watches.MAX_KEYS)])
    run()
    witness.query("UPDATE products SET Price = 7")

    def turn_round() -> None:
        watch(shop, [22])
        cli.put("Product:22", Price=9)

    before("read_many", turn_round)
    run()

    assert [cli.row(f"Product:{key}")["Price"] for key in (11, 22)] == [7, 9]


def test_a_run_that_slept_does_not_clear_what_a_later_watch_on_every_row_needs(
    shop: InProcess, witness: Witness, cli: RedisCli
) -> None:
    """It began before somebody watched every row."""
    watch(shop, ["*"], "to_cache")
    run()

    services.container().watches.ranges.clear(PRODUCTS, "json")

    assert witness.count("watched_ranges") == 1
    assert sorted(cli("KEYS Product:*")) == [b"Product:11", b"Product:22"]
    witness.query("DELETE FROM watched")
    run()
    assert witness.count("watched_ranges") == 0
    assert len(cli("KEYS Product:*")) == 2, "only an unwatch tells whose they are"


def test_a_row_that_gets_the_value_of_its_public_key_meanwhile_is_in_step(
    shop: InProcess, witness: Witness, cli: RedisCli, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch(shop, [22])
    run()
    cli.put("Product:22", Price=5)
    change = WriteThrough.change

    def change_later(*arguments: Any, **named: Any) -> Any:
        witness.query("UPDATE products SET Price = 5 WHERE ProductId = 22")
        return change(*arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(WriteThrough, "change", change_later)
        assert run()["to_database"] == {"looked": 1, "changed": 0, "reported": 0}

    witness.query("UPDATE products SET Price = 6 WHERE ProductId = 22")
    assert run()["to_database"] == {"looked": 1, "changed": 1, "reported": 0}
    assert (cli.row("Product:22") or {})["Price"] == rows(witness, 22)[0]["Price"] == 6
