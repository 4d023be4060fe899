"""Which side counts: the one that was changed since the last run, and else the watch's direction;
and rows that come and go."""

import json

import pytest

from tests.support.client import InProcess
from tests.support.witness import Witness
from tests.sync.clients import RedisCli, product, rows, run, tallies, watch

each_way = pytest.mark.parametrize("keys", [[22], ["*"]], ids=["one row", "every row"])


@each_way
def test_only_the_database_was_changed(
    shop: InProcess, witness: Witness, cli: RedisCli, keys: list[object]
) -> None:
    watch(shop, keys)
    run()
    witness.query("UPDATE products SET Price = 7 WHERE ProductId = 22")

    record = run()

    assert (record["to_database"]["changed"], record["details"]) == (1, [])
    assert cli.row("Product:22")["Price"] == rows(witness, 22)[0]["Price"] == 7


@each_way
def test_both_were_changed_and_redis_counts(
    shop: InProcess, witness: Witness, cli: RedisCli, keys: list[object]
) -> None:
    watch(shop, keys)
    run()
    witness.query("UPDATE products SET Price = 7, Description = 'x' WHERE ProductId = 22")
    cli.put("Product:22", Price=8)

    record = run()

    assert record["to_database"]["changed"] == record["to_database"]["reported"] == 1
    [detail] = record["details"]
    assert detail["key"] == "Product:22"
    assert detail["database"] == product(22, QuantityInStock=3000, Price=7, Description="x")
    assert detail["redis"] == product(22, QuantityInStock=3000, Price=8)
    assert rows(witness, 22) == [cli.row("Product:22")] == [detail["redis"]]


@each_way
def test_both_were_changed_and_the_database_counts(
    shop: InProcess, witness: Witness, cli: RedisCli, keys: list[object]
) -> None:
    watch(shop, keys, "to_cache")
    run()
    witness.query("UPDATE products SET Price = 7 WHERE ProductId = 22")
    cli.put("Product:22", Price=8)

    record = run()

    [detail] = record["details"]
    assert (detail["database"]["Price"], detail["redis"]["Price"]) == (7, 8)
    assert record["to_cache"]["reported"] == 1
    assert cli.row("Product:22")["Price"] == 7


def test_some_columns_change_these_columns_only(
    shop: InProcess, witness: Witness, cli: RedisCli
) -> None:
    watch(shop, [22])
    watch(shop, [11], FORM="hash")
    run()
    cli("SET", "Product:22", '{"Price": "8"}')
    cli("DEL UsingHash:Product:11")
    cli("HSET UsingHash:Product:11 QuantityInStock 5")
    witness.query("UPDATE products SET Description = 'new'")

    run()

    assert rows(witness, 11, 22) == [
        product(11, QuantityInStock=5, Description="new"),
        product(22, QuantityInStock=3000, Price=8, Description="new"),
    ]
    assert cli.row("Product:22") == rows(witness, 22)[0]
    assert len(cli.row("UsingHash:Product:11")) == 5


def test_a_run_changes_nothing_that_is_in_step(shop: InProcess, cli: RedisCli) -> None:
    watch(shop, [22])
    run()
    written = json.dumps(dict(reversed(cli.row("Product:22").items())), indent=4)
    cli("SET", "Product:22", written)

    assert list(tallies(run())) == [(0, 0, 0), (1, 0, 0)]

    assert cli("GET Product:22").decode() == written


@each_way
def test_a_row_that_is_deleted_takes_its_public_key_along(
    shop: InProcess, witness: Witness, cli: RedisCli, keys: list[object]
) -> None:
    watch(shop, keys)
    run()
    witness.query("DELETE FROM products WHERE ProductId = 22")

    run()

    assert cli("EXISTS Product:22") == 0
    assert witness.count("products") == 1


@each_way
def test_a_row_that_was_deleted_and_changed_in_redis_comes_back(
    shop: InProcess, witness: Witness, cli: RedisCli, keys: list[object]
) -> None:
    watch(shop, keys)
    run()
    witness.query("DELETE FROM products WHERE ProductId = 22")
    cli.put("Product:22", Price=8)

    record = run()

    assert record["details"][0]["database"] is None
    assert rows(witness, 22) == [product(22, QuantityInStock=3000, Price=8)]


def test_a_public_key_makes_a_row(shop: InProcess, witness: Witness, cli: RedisCli) -> None:
    watch(shop, [30, 31])
    cli("SET", "Product:30", json.dumps(product(30)))
    cli("SET", "Product:31", '{"Price": 3}')

    record = run()

    assert [each["key"] for each in record["details"]] == ["Product:31"]
    assert "not all columns are given" in record["details"][0]["reason"]
    assert rows(witness, 30, 31) == [product(30)]
    assert shop.read([30], TABLE="products").rows == [product(30)]


def test_keys_of_text_with_braces_have_public_keys(
    service: InProcess, witness: Witness, cli: RedisCli
) -> None:
    keys = ["a", "{a}", "a}b", "{}", "{a", "é {x} y", "*a"]
    people = [{"EmpId": key, "EmpName": "Ada"} for key in keys]
    service.write(people, TABLE="employees")
    watch(service, [*keys], "to_cache", TABLE="employees")
    service.write([{**each, "EmpName": "Bo"} for each in people], TABLE="employees")

    run("employees")

    assert {cli.row(f"Employee:{key}")["EmpName"] for key in keys} == {"Bo"}
    service.delete(["{a}"], TABLE="employees")
    assert cli("EXISTS", "Employee:{a}") == 0


def test_a_watch_on_a_row_counts_more_than_one_on_every_row(
    shop: InProcess, witness: Witness, cli: RedisCli
) -> None:
    watch(shop, ["*"], "to_cache")
    watch(shop, [22], "to_database")
    run()
    for key in (11, 22):
        cli.put(f"Product:{key}", Price=9)

    assert list(tallies(run())) == [(1, 1, 0), (1, 1, 0)]

    assert [row["Price"] for row in rows(witness, 11, 22)] == [400, 9]
