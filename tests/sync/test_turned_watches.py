"""Watches that turn from to_cache to to_database: what a write has set under a public key meanwhile
is no change of a client, and what a client sets is."""

from typing import Any

import pytest

from chalicelib import services
from chalicelib.sync.watches import Watches
from chalicelib.tables import FORMS
from tests.support.client import InProcess
from tests.support.witness import Witness
from tests.sync.clients import RedisCli, ask, product, rows, run, unwatch, watch, watched
from tests.sync.test_faults import Steps, killed_runs
from tests.sync.test_unfinished_step import name_of, put
from tests.sync.test_watches import redis_away

row_or_public_key = pytest.mark.parametrize("change", ["row", "public key"])


def price(witness: Witness) -> object:
    return rows(witness, 22)[0]["Price"]


def write_price(shop: InProcess, price: int) -> None:
    shop.write([product(22, Price=price)], TABLE="products")


def change_once_more(shop: InProcess, cli: RedisCli, change: str) -> int:
    """The row, or the public key: that to what the first run saw. The price that counts then."""
    if change == "row":
        write_price(shop, 6)
        return 6
    cli.put("Product:22", Price=400, QuantityInStock=3000)
    return 400


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("before", ["watched alone", "with every row"])
@pytest.mark.parametrize("change", ["row", "public key"])
def test_a_watch_that_turns_round_knows_what_a_write_has_set_at_once(
    shop: InProcess, cli: RedisCli, witness: Witness, form: str, before: str, change: str
) -> None:
    """The public key is what the last run saw again, or nobody has touched it since the write."""
    watch(shop, [22] if before == "watched alone" else ["*"], "to_cache", FORM=form)
    run()
    shop.write([product(22, Price=5)], TABLE="products")
    watch(shop, [22], FORM=form)
    if change == "row":
        shop.write([product(22, Price=6)], TABLE="products")
    elif form == "json":
        cli.put("Product:22", Price=400, QuantityInStock=3000)
    else:
        cli("HSET UsingHash:Product:22 Price 400 QuantityInStock 3000")

    run()

    assert rows(witness, 22)[0]["Price"] == (6 if change == "row" else 400)


def test_what_a_client_has_set_before_its_watch_counts(
    shop: InProcess, cli: RedisCli, witness: Witness
) -> None:
    watch(shop, ["*"], "to_cache")
    run()
    cli.put("Product:22", Price=77)
    watch(shop, [22])

    run()

    assert rows(witness, 22)[0]["Price"] == 77


@pytest.mark.parametrize("form", FORMS)
def test_a_watch_turns_round_also_where_a_row_is_not_as_declared(
    shop: InProcess, witness: Witness, form: str
) -> None:
    watch(shop, [11, 22], "to_cache", FORM=form)
    witness.query("ALTER TABLE products MODIFY Description VARCHAR(255) NULL")
    try:
        witness.query("UPDATE products SET Description = NULL WHERE ProductId = 22")

        assert watch(shop, [11, 22, 99], FORM=form) == 3
    finally:
        witness.query("DELETE FROM products")
        witness.query("ALTER TABLE products MODIFY Description VARCHAR(255) NOT NULL")


@row_or_public_key
def test_a_watch_that_is_sent_again_knows_what_a_write_has_set(
    shop: InProcess, cli: RedisCli, witness: Witness, change: str
) -> None:
    watch(shop, [22], "to_cache")
    run()
    write_price(shop, 5)
    with redis_away():
        assert ask(shop, "watch", SQLS=[22], DIRECTION="to_database").status == 503
    watch(shop, [22])
    expected = change_once_more(shop, cli, change)

    run()

    assert price(witness) == expected


@row_or_public_key
def test_a_run_that_goes_on_forgets_nothing_of_a_watch_that_turns(
    shop: InProcess,
    cli: RedisCli,
    witness: Witness,
    monkeypatch: pytest.MonkeyPatch,
    change: str,
) -> None:
    """It is about to keep what it saw before a write and the watch."""
    watch(shop, [22], "to_cache")
    run()
    kept = Watches.kept

    def turned_before(*arguments: Any) -> Any:
        monkeypatch.setattr(Watches, "kept", kept)
        write_price(shop, 5)
        watch(shop, [22])
        return kept(*arguments)

    monkeypatch.setattr(Watches, "kept", turned_before)
    run()
    expected = change_once_more(shop, cli, change)

    run()

    assert price(witness) == expected


def test_a_watch_that_turns_forgets_nothing_of_a_run_that_is_faster(
    shop: InProcess, cli: RedisCli, witness: Witness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has read row and public key, and a client and a run change both before it records that."""
    watch(shop, [22], "to_cache")
    run()
    store = type(services.container().public_store)
    read_many = store.read_many

    def a_run_is_faster(*arguments: Any) -> Any:
        monkeypatch.setattr(store, "read_many", read_many)
        found = read_many(*arguments)
        cli.put("Product:22", Price=7)
        run()
        return found

    monkeypatch.setattr(store, "read_many", a_run_is_faster)
    watch(shop, [22])
    assert price(witness) == 7
    write_price(shop, 8)

    run()

    assert price(witness) == 8


def test_a_run_after_the_turn_tells_that_both_were_changed(
    shop: InProcess, cli: RedisCli, witness: Witness
) -> None:
    watch(shop, [22], "to_cache")
    run()
    watch(shop, [22])
    write_price(shop, 6)
    cli.put("Product:22", Price=7)

    record = run()

    assert price(witness) == 7
    assert "both were changed" in str(record)


@row_or_public_key
def test_a_watch_on_every_row_knows_what_one_on_a_row_has_recorded(
    shop: InProcess, cli: RedisCli, witness: Witness, change: str
) -> None:
    watch(shop, ["*"], "to_cache")
    run()
    write_price(shop, 5)
    watch(shop, [22])
    watch(shop, ["*"])
    expected = change_once_more(shop, cli, change)

    run()

    assert price(witness) == expected


@row_or_public_key
def test_a_watch_that_turns_behind_a_killed_run_knows_what_a_write_has_set(
    shop: InProcess,
    cli: RedisCli,
    witness: Witness,
    monkeypatch: pytest.MonkeyPatch,
    change: str,
) -> None:
    """What that run had begun is still recorded."""
    steps = Steps(monkeypatch)

    def prepare() -> None:
        witness.query("DELETE FROM watched")
        witness.query("DELETE FROM sync_lease")
        cli("DEL", "Product:22")
        shop.write([product(22, QuantityInStock=3000)], TABLE="products")
        watch(shop, [22])
        run()
        witness.query("UPDATE products SET Price = 2 WHERE ProductId = 22")

    for step in killed_runs(steps, witness, prepare):
        watch(shop, [22], "to_cache")
        write_price(shop, 5)
        watch(shop, [22])
        expected = change_once_more(shop, cli, change)

        run()

        assert price(witness) == expected, step


@pytest.mark.parametrize("is_touched", [False, True])
def test_a_watch_that_is_sent_behind_a_killed_run_tells_what_that_run_followed_from_what_came_since(
    shop: InProcess,
    cli: RedisCli,
    witness: Witness,
    monkeypatch: pytest.MonkeyPatch,
    is_touched: bool,
) -> None:
    """The row has followed the public key, but that is not kept. Then a write changes the row."""
    steps = Steps(monkeypatch)
    public: list[Any] = []

    def prepare() -> None:
        write_price(shop, 5)
        watch(shop, [22])
        run()
        cli.put("Product:22", Price=77)
        public[:] = [cli("GET", "Product:22")]

    followed = 0
    for step in killed_runs(steps, witness, prepare):
        if price(witness) != 77:
            continue
        followed += 1
        write_price(shop, 6)
        if is_touched:
            cli.put("Product:22", Price=88)
        watch(shop, [22])
        cli("SET", "Product:22", public[0])

        run()

        assert price(witness) == (77 if is_touched else 6), step
    assert followed


def test_a_watch_names_no_time_before_the_first_run(
    shop: InProcess, cli: RedisCli, witness: Witness
) -> None:
    """Also where it finds both sides equal, and records that."""
    watch(shop, ["*"], "to_cache")
    run()
    watch(shop, [22])
    assert witness.query("SELECT seen IS NOT NULL FROM watched WHERE row_key = '22'") == [(1,)]

    assert watched(shop)[-1] == {"key": 22, "direction": "to_database", "synced_at": None}


def test_what_every_row_had_is_forgotten_where_a_row_followed_the_other_way_meanwhile(
    shop: InProcess, cli: RedisCli, witness: Witness
) -> None:
    """No run comes in between. The client sets what the last run saw, behind the `unwatch`."""
    watch(shop, ["*"])
    run()
    seen = cli("GET", "Product:22")
    watch(shop, [22], "to_cache")
    write_price(shop, 5)
    unwatch(shop, [22])
    cli("SET", "Product:22", seen)

    run()

    assert price(witness) == 400
    assert cli("GET", "Product:22") == seen


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("value", ["another row", "no row", "nothing"])
@pytest.mark.parametrize(
    "before", ["to_cache", "to_database", "every row", "every row, then the row", "left"]
)
def test_what_a_run_saw_is_forgotten_where_a_client_has_set_something_since(
    shop: InProcess, cli: RedisCli, witness: Witness, form: str, value: str, before: str
) -> None:
    """Behind the turn the client sets just what the run saw."""
    name = name_of(form, 22)
    watch(shop, ["*"] if before.startswith("every") or before == "left" else [22], FORM=form)
    if before == "to_cache":
        watch(shop, [22], "to_cache", FORM=form)
    run()
    seen = cli.row(name)
    if before == "every row, then the row":
        watch(shop, [22], FORM=form)
    watch(shop, [22], "to_cache", FORM=form)
    write_price(shop, 5)
    cli("DEL", name)
    if value == "another row":
        put(cli, form, 22, {**seen, "Price": 77})
    elif value == "no row":
        cli("RPUSH", name, "x")
    watch(shop, [22], FORM=form)
    cli("DEL", name)
    put(cli, form, 22, seen)
    if before == "left":
        unwatch(shop, [22], FORM=form)

    run()

    assert price(witness) == 400
    assert cli.row(name) == seen


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("before", ["the row", "every row"])
def test_what_a_run_saw_is_known_still_where_a_write_could_not_set_the_public_key(
    shop: InProcess, cli: RedisCli, witness: Witness, form: str, before: str
) -> None:
    watch(shop, [22] if before == "the row" else ["*"], FORM=form)
    run()
    watch(shop, [22], "to_cache", FORM=form)
    name = name_of(form, 22)
    seen = cli.row(name)
    write_price(shop, 5)
    cli("DEL", name)
    put(cli, form, 22, seen)  # as if the write had set nothing
    watch(shop, [22], FORM=form)

    run()

    assert price(witness) == 5
    assert str(cli.row(name)["Price"]) == "5"


def test_a_run_does_not_believe_what_a_watch_on_every_row_remembers_that_has_ended(
    shop: InProcess, cli: RedisCli, witness: Witness
) -> None:
    """Its direction was to_cache: a write has set the public key since."""
    watch(shop, ["*"], "to_cache")
    run()
    write_price(shop, 5)
    with redis_away():
        assert ask(shop, "watch", SQLS=[22], DIRECTION="to_database").status == 503
    cli.put("Product:22", Price=400, QuantityInStock=3000)
    with redis_away():
        assert ask(shop, "unwatch", SQLS=["*"]).status == 503

    run()

    assert price(witness) == 400
