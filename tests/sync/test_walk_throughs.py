"""The two walk-throughs of the proof of concept, with its numbers and redis-cli as the other
client; and what the runs after them find."""

from tests.support.client import InProcess
from tests.support.witness import Witness
from tests.sync.clients import (
    RedisCli,
    product,
    rows,
    run,
    tallies,
    unwatch,
    watch,
    watched,
)


def test_product_22_at_3000_in_the_database_and_2000_in_redis(
    shop: InProcess, witness: Witness, cli: RedisCli
) -> None:
    assert watch(shop, [22]) == 1
    run()
    cli.put("Product:22", QuantityInStock=2000)

    assert list(tallies(run())) == [(0, 0, 0), (1, 1, 0)]

    assert rows(witness, 22) == [product(22, QuantityInStock=2000)]
    assert cli.row("Product:22") == product(22, QuantityInStock=2000)
    for cached in (True, False):
        read = shop.read([22], cached, TABLE="products")
        assert read.rows == [product(22, QuantityInStock=2000)]


def test_its_first_run_takes_what_stands_in_redis_already(
    shop: InProcess, witness: Witness, cli: RedisCli
) -> None:
    cli("SET", "Product:22", '{"ProductId": 22, "QuantityInStock": 2000}')
    watch(shop, [22])

    run()

    assert rows(witness, 22) == [product(22, QuantityInStock=2000)]
    assert cli.row("Product:22") == product(22, QuantityInStock=2000), "it is completed"


def test_product_11_at_400_in_the_database_and_500_in_redis(
    shop: InProcess, witness: Witness, cli: RedisCli
) -> None:
    watch(shop, [11], "to_cache")
    run()
    cli.put("Product:11", Price=500)

    assert list(tallies(run())) == [(1, 1, 0), (0, 0, 0)]

    assert rows(witness, 11) == [product(11, Price=400)]
    assert cli.row("Product:11") == product(11, Price=400)


def test_a_hash_is_counted_in_redis(shop: InProcess, witness: Witness, cli: RedisCli) -> None:
    watch(shop, [22], FORM="hash")
    run()
    assert cli.row("UsingHash:Product:22") == {
        name: str(value) for name, value in product(22, QuantityInStock=3000).items()
    }
    assert cli("HINCRBY UsingHash:Product:22 QuantityInStock -1") == 2999
    cli("HINCRBY UsingHash:Product:22 Price 100")

    run()

    assert rows(witness, 22) == [product(22, QuantityInStock=2999, Price=500)]
    assert cli("TTL UsingHash:Product:22") == -1
    assert cli("EXISTS Product:22") == 0


def test_both_forms_of_a_row_stand_side_by_side(
    shop: InProcess, witness: Witness, cli: RedisCli
) -> None:
    watch(shop, [11], "to_cache")
    watch(shop, [11], FORM="hash")
    run()
    cli("HSET UsingHash:Product:11 Price 550")

    run()

    assert rows(witness, 11) == [product(11, Price=550)]
    assert cli.row("Product:11") == product(11, Price=550)
    assert [each.get("form") for each in watched(shop)] == ["hash", None]


def test_what_is_watched_is_told(shop: InProcess) -> None:
    assert watch(shop, [22, "11", 22]) == 2
    unseen = [{"key": key, "direction": "to_database", "synced_at": None} for key in (11, 22)]
    assert watched(shop) == unseen

    record = run()

    for each in watched(shop):
        assert each["synced_at"] >= record["started_at"]
    unwatch(shop, [11])
    assert [each["key"] for each in watched(shop)] == [22]


def test_a_watch_ends_and_what_followed_a_row_goes(shop: InProcess, cli: RedisCli) -> None:
    watch(shop, [11], "to_cache")
    watch(shop, [22])
    run()

    unwatch(shop, [11, 22], DIRECTION="to_database")
    assert [each["key"] for each in watched(shop)] == [11]
    unwatch(shop, [11, 22])

    assert watched(shop) == []
    assert cli("EXISTS Product:11") == 0
    assert cli("EXISTS Product:22") == 1, "it is its client's"


def test_every_row_is_watched(shop: InProcess, witness: Witness, cli: RedisCli) -> None:
    assert watch(shop, ["*"], "to_cache") == 2
    run()
    assert cli.row("Product:11") == product(11)

    witness.query("DELETE FROM products WHERE ProductId = 11")
    witness.query("INSERT INTO products VALUES (5, 'Five', '', 5, 5)")
    witness.query("UPDATE products SET Price = 7 WHERE ProductId = 22")
    assert list(tallies(run())) == [(3, 3, 0), (0, 0, 0)]

    assert cli("EXISTS Product:11") == 0
    assert [cli.row(f"Product:{key}")["Price"] for key in (5, 22)] == [5, 7]
    unwatch(shop, ["*"])
    assert cli("KEYS Product:*") == []
    assert witness.count("watched_ranges") == 0
