"""Whatever stands under a public key, a run goes on: what no column takes is reported and stays."""

import json

import pytest

from tests.support.client import InProcess
from tests.support.witness import Witness
from tests.sync.clients import RedisCli, product, rows, run, tallies, watch, watched

WHOLE = json.dumps(product(22))
GARBAGE: dict[str, tuple[list[list[str]], str]] = {
    "a list": ([["RPUSH", "Product:22", "1"]], "it holds a list"),
    "a Hash": ([["HSET", "Product:22", "Price", "1"]], "it holds a hash"),
    "half JSON": ([["SET", "Product:22", WHOLE[:40]]], "it is not the JSON of a row"),
    "nothing": ([["SET", "Product:22", ""]], "it is not the JSON of a row"),
    "no UTF-8": ([["SET", "Product:22", "\udcff"]], "it is not the JSON of a row"),
    "UTF-16": (
        [["SET", "Product:22", WHOLE.encode("utf-16").decode(errors="surrogateescape")]],
        "it is not the JSON of a row",
    ),
    "a number": ([["SET", "Product:22", "7"]], "it is JSON, but no object: 7"),
    "deep": ([["SET", "Product:22", "[" * 5000]], "it is nested too deeply"),
    "10 MB": ([["SET", "Product:22", "x" * 10_000_000]], "it holds 10000000 bytes, more than"),
    "a name twice": ([["SET", "Product:22", '{"Price": 1, "Price": 2}']], "a name comes twice"),
    "another row's": ([["SET", "Product:22", '{"ProductId": 11}']], "expected 22, got 11"),
    "an unknown column": ([["SET", "Product:22", '{"Cost": 1}']], "products has no column 'Cost'"),
    "a fraction": ([["SET", "Product:22", '{"Price": 1.5}']], "Price: expected an integer"),
    "too large": ([["SET", "Product:22", '{"Price": 9999999999}']], "Price: expected an integer"),
    "endless": ([["SET", "Product:22", '{"Price": ' + "9" * 5000 + "}"]], "it is not the JSON"),
    "long": ([["SET", "Product:22", '{"ProductName": "' + "x" * 256 + '"}']], "ProductName: exp"),
    "NaN": ([["SET", "Product:22", '{"Price": NaN}']], "Price: expected an integer"),
}
HASHES: dict[str, tuple[list[list[str]], str]] = {
    "a string": ([["SET", "UsingHash:Product:22", "1"]], "it holds a string"),
    "an unknown field": (
        [["HSET", "UsingHash:Product:22", "Cost", "1"]],
        "1 of its fields are no columns of products",
    ),
    "a word": ([["HSET", "UsingHash:Product:22", "Price", "dear"]], "Price: expected an integer"),
    "a large field": (
        [["HSET", "UsingHash:Product:22", "ProductName", "x" * 10_000_000]],
        "it holds 10000000 bytes, more than a row can have",
    ),
    "no UTF-8": (
        [["HSET", "UsingHash:Product:22", "ProductName", "\udcff"]],
        "a field is not UTF-8",
    ),
}


def spoil(cli: RedisCli, commands: list[list[str]]) -> None:
    for words in commands:
        cli("DEL", words[1])
        cli.redis.execute_command(*[word.encode(errors="surrogateescape") for word in words])


@pytest.mark.parametrize("name", GARBAGE)
def test_garbage_is_reported_and_left_as_it_is_and_the_run_goes_on(
    shop: InProcess, witness: Witness, cli: RedisCli, name: str
) -> None:
    watch(shop, [11, 22])
    run()
    commands, reason = GARBAGE[name]
    spoil(cli, commands)
    before = cli("DUMP Product:22")
    cli.put("Product:11", Price=1)

    record = run()

    assert list(tallies(record)) == [(0, 0, 0), (2, 1, 1)]
    [detail] = record["details"]
    assert detail["key"] == "Product:22"
    assert reason in detail["reason"]
    assert len(json.dumps(record)) < 5_000
    assert cli("DUMP Product:22") == before
    assert rows(witness, 11, 22) == [product(11, Price=1), product(22, QuantityInStock=3000)]


@pytest.mark.parametrize("name", HASHES)
def test_a_hash_with_garbage_is_reported_and_left_as_it_is(
    shop: InProcess, witness: Witness, cli: RedisCli, name: str
) -> None:
    watch(shop, [22], FORM="hash")
    commands, reason = HASHES[name]
    spoil(cli, commands)
    before = cli("DUMP UsingHash:Product:22")

    record = run()

    assert list(tallies(record)) == [(0, 0, 0), (1, 0, 1)]
    assert reason in record["details"][0]["reason"]
    assert cli("DUMP UsingHash:Product:22") == before
    assert rows(witness, 22) == [product(22, QuantityInStock=3000)]


@pytest.mark.parametrize("name", GARBAGE)
def test_a_public_key_that_follows_its_row_is_mended(
    shop: InProcess, cli: RedisCli, name: str
) -> None:
    watch(shop, [22], "to_cache")
    run()
    spoil(cli, GARBAGE[name][0])

    assert list(tallies(run())) == [(1, 1, 0), (0, 0, 0)]

    assert cli.row("Product:22") == product(22, QuantityInStock=3000)


@pytest.mark.parametrize("direction", ["to_cache", "to_database"])
@pytest.mark.parametrize(
    "words", ["PEXPIREAT Product:22 1", "RENAME Product:22 x", "DEL Product:22"]
)
def test_a_public_key_that_is_gone_comes_back(
    shop: InProcess, witness: Witness, cli: RedisCli, direction: str, words: str
) -> None:
    watch(shop, [22], direction)
    run()
    cli(words)

    run()

    assert cli.row("Product:22") == product(22, QuantityInStock=3000)
    assert rows(witness, 22) == [product(22, QuantityInStock=3000)]


def test_what_the_database_rejects_is_reported_and_the_others_are_written(
    shop: InProcess, witness: Witness, cli: RedisCli
) -> None:
    watch(shop, [11, 22, 4_294_967_295])
    run()
    witness.query("ALTER TABLE products ADD CONSTRAINT fair CHECK (Price < 1000)")
    try:
        cli.put("Product:11", Price=999)
        cli.put("Product:22", Price=1001)
        cli("SET", "Product:4294967295", json.dumps(product(4_294_967_295)))

        record = run()
    finally:
        witness.query("ALTER TABLE products DROP CONSTRAINT fair")

    assert list(tallies(record)) == [(0, 0, 0), (3, 1, 2)]
    reasons = {each["key"]: each["reason"] for each in record["details"]}
    assert "CHECK constraint fair" in reasons["Product:22"]
    assert "more than 1000000000 above" in reasons["Product:4294967295"]
    assert [row["Price"] for row in rows(witness, 11, 22)] == [999, 400]


SENSELESS = {
    "there is no table nothing; there are": ("nothing", "1", "json", "to_cache"),
    "there is no form 'xml'; there are json, hash": ("products", "1", "xml", "to_cache"),
    "there is no direction 'up'; there are to_cache": ("products", "1", "json", "up"),
    "'abc' is no ProductId": ("products", "abc", "json", "to_cache"),
    "'022' is no ProductId": ("products", "022", "json", "to_cache"),
}


def test_watches_are_managed_by_plain_sql_too(
    shop: InProcess, witness: Witness, cli: RedisCli
) -> None:
    for values in [*SENSELESS.values(), ("products", "22", "hash", "to_database")]:
        witness.query(
            "INSERT INTO watched (table_name, row_key, form, direction) VALUES (%s, %s, %s, %s)",
            values,
        )

    record = run()

    assert record["outcome"] == "done"
    reasons = sorted(each["reason"] for each in record["details"])
    assert len(reasons) == len(SENSELESS)
    assert all(reason.startswith(words) for reason, words in zip(reasons, sorted(SENSELESS))), (
        reasons
    )
    assert cli.row("UsingHash:Product:22")["QuantityInStock"] == "3000"
    assert [(each["key"], each["form"]) for each in watched(shop)] == [(22, "hash")]


def test_a_watch_with_a_blank_behind_its_key_hides_no_row(
    shop: InProcess, witness: Witness, cli: RedisCli
) -> None:
    """The database takes it for the key without the blank. It makes no sense, and counts
    nothing."""
    watch(shop, ["*"])
    run()
    witness.query(
        "INSERT INTO watched (table_name, row_key, direction)"
        " VALUES ('products', '22 ', 'to_cache')"
    )
    cli.put("Product:11", Price=1)
    cli.put("Product:22", Price=2)

    record = run()

    assert list(tallies(record)) == [(0, 0, 0), (2, 2, 0)]
    assert [each["reason"] for each in record["details"]] == ["'22 ' is no ProductId"]
    assert [row["Price"] for row in rows(witness, 11, 22)] == [1, 2]
