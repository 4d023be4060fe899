"""A write through the service sets the public keys that follow its rows, and costs no trip more."""

import json
import threading
from typing import Any

import pytest

from chalicelib import services
from chalicelib.cache import PublicRow, PublicWrite, entries
from chalicelib.db import Transaction
from chalicelib.errors import CacheUnavailable
from chalicelib.tables import PRODUCTS
from local.servers import MariaDB, Redis
from tests.conftest import Configure
from tests.support.client import InProcess, hero
from tests.support.redis_client import client_of
from tests.support.relay import PASS, relaying
from tests.support.witness import Witness
from tests.sync.clients import RedisCli, product, run, unwatch, watch

each_form = pytest.mark.parametrize("form", ["json", "hash"])
each_way = pytest.mark.parametrize("keys", [[11, 22, 23], ["*"]], ids=["some rows", "every row"])
NAMES = {"json": "Product", "hash": "UsingHash:Product"}


@each_form
@each_way
@pytest.mark.parametrize("use_cache", [True, False])
def test_a_write_is_in_redis_at_once(
    shop: InProcess, cli: RedisCli, form: str, keys: list[object], use_cache: bool
) -> None:
    watch(shop, keys, "to_cache", FORM=form)
    run()
    name = NAMES[form]

    changed = [product(22, Price=5), product(23)]
    shop.write(changed, use_cache, TABLE="products")
    [new] = shop.write([{**product(0), "ProductId": 24}], use_cache, TABLE="products").ids
    assert str(cli.row(f"{name}:22")["Price"]) == "5"
    assert str(cli.row(f"{name}:23")["Price"]) == "400"
    assert bool(cli("EXISTS", f"{name}:{new}")) is (keys == ["*"])

    increment = {"ProductId": 22, "QuantityInStock": -1}
    shop.post({"REQUEST": "increment", "TABLE": "products", "SQLS": [increment]})
    assert str(cli.row(f"{name}:22")["QuantityInStock"]) == "9"

    shop.delete([11], TABLE="products")
    assert cli("EXISTS", f"{name}:11") == 0
    assert cli("TTL", f"{name}:22") == -1


def test_a_new_row_whose_key_the_database_gives_is_there_at_once(
    shop: InProcess, cli: RedisCli
) -> None:
    watch(shop, ["*"], "to_cache")
    row = {name: value for name, value in product(0).items() if name != "ProductId"}
    for use_cache in (True, False):
        [new] = shop.write([row], use_cache, TABLE="products").ids
        assert cli.row(f"Product:{new}") == product(new, ProductName="Product 0")


def test_a_warm_container_learns_of_a_watch_with_its_next_insert(
    shop: InProcess, witness: Witness, cli: RedisCli
) -> None:
    row = {name: value for name, value in product(0).items() if name != "ProductId"}
    shop.write([row], TABLE="products")
    witness.query(
        "INSERT INTO watched (table_name, row_key, direction) VALUES ('products', '*', 'to_cache')"
    )
    [new] = shop.write([row], TABLE="products").ids
    assert cli.row(f"Product:{new}") == product(new, ProductName="Product 0")


def test_a_watch_waits_for_writes_that_do_not_know_of_it(
    shop: InProcess, cli: RedisCli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise a run would see the old row, and note that there is nothing to do; and the write
    would tell nobody."""
    commit, steps = Transaction._send_commit, list[str]()

    def watch_and_run() -> None:
        watch(shop, [22], "to_cache")
        steps.append("watched")
        run(None)

    watching = threading.Thread(target=watch_and_run)

    def commit_late(self: Transaction, *arguments: Any, **named: Any) -> Any:
        monkeypatch.undo()
        watching.start()
        watching.join(0.3)
        steps.append("committed")
        return commit(self, *arguments, **named)

    monkeypatch.setattr(Transaction, "_send_commit", commit_late)
    shop.write([product(22, Price=5)], TABLE="products")
    watching.join()

    assert steps == ["committed", "watched"]
    assert cli.row("Product:22")["Price"] == 5


def test_what_the_client_decides_is_left_to_the_run(shop: InProcess, cli: RedisCli) -> None:
    watch(shop, ["*"], "to_cache")
    watch(shop, [22])
    run()
    shop.write([product(11, Price=5), product(22, Price=5)], TABLE="products")
    assert [cli.row(f"Product:{key}")["Price"] for key in (11, 22)] == [5, 400]


def test_an_earlier_row_does_not_replace_a_later_one(
    shop: InProcess, cli: RedisCli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The publish of the first write is held back until the second one is acknowledged."""
    watch(shop, [22], "to_cache")
    publish, held, go = entries.Cache.publish_many, threading.Event(), threading.Event()

    def slowly(*arguments: object, **named: object) -> None:
        if threading.current_thread() is first:
            held.set()
            go.wait(timeout=10)
        publish(*arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(entries.Cache, "publish_many", slowly)
    first = threading.Thread(target=lambda: shop.write([product(22, Price=1)], TABLE="products"))
    first.start()
    held.wait(timeout=10)
    shop.write([product(22, Price=2)], TABLE="products")
    go.set()
    first.join(timeout=10)

    assert cli.row("Product:22")["Price"] == 2


def test_a_run_that_read_before_a_write_does_not_undo_it(
    shop: InProcess, witness: Witness, cli: RedisCli, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch(shop, [22], "to_cache")
    run()
    witness.query("UPDATE products SET Price = 3 WHERE ProductId = 22")
    store = type(services.container().public_store)
    read = store.read_many

    def after_a_write(*arguments: object) -> object:
        shop.write([product(22, Price=4)], TABLE="products")
        return read(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(store, "read_many", after_a_write)
    record = run()

    assert record["outcome"] == "done"
    assert cli.row("Product:22")["Price"] == 4


@pytest.mark.parametrize("form", ["json", "hash"])
def test_a_run_counts_as_earlier_than_a_write_that_was_committed_behind_its_select(
    shop: InProcess, cli: RedisCli, form: str
) -> None:
    """The write had its row locked at 100, and was committed by 200."""
    store = services.container().public_store
    row = (22, "Lamp", "", 1, 2)
    write = PublicWrite({form: [PublicRow(22, row)]}, read_at=100, by=200)
    client_of(services.container().cache).ask_many(write.commands(PRODUCTS, is_cluster=False))

    for read_at, is_set in ((99, False), (150, False), (200, False), (201, True)):
        old = PublicRow(22, (22, "Old", "", 1, read_at))
        assert store.set_many(PRODUCTS, form, [old], read_at, until=0) == [is_set]
        assert str(cli.row(f"{NAMES[form]}:22")["Price"]) == ("201" if is_set else "2")


def test_a_write_does_not_bring_back_what_is_not_watched_any_more(
    shop: InProcess, cli: RedisCli, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch(shop, [22], "to_cache")
    run()
    publish = entries.Cache.publish_many

    def after_the_watch(*arguments: object, **named: object) -> None:
        unwatch(shop, [22])
        publish(*arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(entries.Cache, "publish_many", after_the_watch)
    shop.write([product(22, Price=2)], TABLE="products")

    assert cli("EXISTS Product:22") == 0


@pytest.mark.usefixtures("lasting_generations")
@pytest.mark.parametrize("is_watched", [True, False])
def test_a_write_of_a_watched_row_costs_no_trip_more(
    shop: InProcess,
    witness: Witness,
    mariadb: MariaDB,
    configure: Configure,
    is_watched: bool,
) -> None:
    trips: list[str] = []

    def listen(piece: bytes) -> int:
        trips.append(piece[5:].decode(errors="replace"))
        return PASS

    if is_watched:
        watch(shop, [22], "to_cache")
    with relaying(mariadb.port) as relay:
        relay.judge = listen
        configure(DB_PORT=str(relay.port))
        for _ in range(2):
            shop.write([product(22)], TABLE="products")
        trips.clear()
        with witness.spent() as spent:
            shop.write([product(22, Price=1)], TABLE="products")
    lock, commit = trips
    assert (" FROM watched WHERE table_name = " in commit) is is_watched
    assert commit.count("watched") == is_watched
    assert lock.count("watched") == 2, "with the generation: is there a watch on the table?"
    assert spent.cache_round_trips == 2


def test_other_tables_pay_nothing(shop: InProcess, witness: Witness, cli: RedisCli) -> None:
    watch(shop, ["*"], "to_cache")
    shop.write([hero()])
    assert not cli("KEYS Hero:*")


def test_a_run_mends_what_a_write_could_not_tell(
    shop: InProcess, cli: RedisCli, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch(shop, [22], "to_cache")
    run()
    monkeypatch.setattr(entries.Cache, "publish_many", lambda *_, **__: None)
    shop.write([product(22, Price=2)], TABLE="products")
    assert cli.row("Product:22")["Price"] == 400

    run(None)

    assert json.loads(cli("GET Product:22"))["Price"] == 2


@pytest.mark.parametrize(
    ("form", "rights"),
    [("json", ["~{*"]), ("hash", ["~{*", "~UsingHash:*", "-hset"])],
    ids=["no right to the key", "no right to the command"],
)
def test_a_right_that_is_missing_for_public_keys_does_not_cost_the_cache(
    shop: InProcess,
    cli: RedisCli,
    redis_server: Redis,
    configure: Configure,
    form: str,
    rights: list[str],
) -> None:
    """The run says so."""
    watch(shop, [11, 22], "to_cache", FORM=form)
    cli("ACL", "SETUSER", "poor", "on", ">word", "resetkeys", "+@all", *rights)
    try:
        configure(REDIS_URL=f"redis://poor:word@127.0.0.1:{redis_server.port}")
        shop.read([11, 22], TABLE="products")
        shop.write([product(11, Price=5)], TABLE="products")
        shop.delete([22], TABLE="products")

        assert not services.container().cache.is_down
        read = shop.read([11], TABLE="products")
        assert read.rows == [product(11, Price=5)]
        assert read.headers["cache-status"].startswith("herocache; hit")
        with pytest.raises(CacheUnavailable, match="its user lacks a right"):
            run()
        assert run("heroes")["outcome"] == "done"
    finally:
        cli("ACL", "DELUSER", "poor")
