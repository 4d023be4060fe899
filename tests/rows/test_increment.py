"""Increments of counters: exact, all or none, and seen by every read after them."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, cast

import pytest

from chalicelib import services
from chalicelib.tables import PRODUCTS, TABLES, Counter, Table
from tests.support.client import Answer, InProcess
from tests.support.witness import Witness

pytestmark = pytest.mark.both_engines

MAXIMUM = 2**31 - 1
LAMP = {"ProductName": "Lamp", "Description": "warm", "QuantityInStock": 10, "Price": 400}


def increment(service: InProcess, items: object, **fields: object) -> Answer:
    return service.post({"REQUEST": "increment", "TABLE": "products", "SQLS": items, **fields})


def values(answer: Answer) -> Any:
    assert answer.status == answer.fields["statusCode"] == 200, answer.text
    assert list(answer.fields) == ["statusCode", "body", "values"]
    assert answer.fields["body"] == "increment success"
    return answer.fields["values"]


def by(key: int, amount: object) -> dict[str, object]:
    return {"ProductId": key, "QuantityInStock": amount}


def stock(witness: Witness) -> list[int]:
    return [row[0] for row in witness.query("SELECT QuantityInStock FROM products ORDER BY 1")]


@pytest.fixture
def lamps(service: InProcess) -> InProcess:
    """Products 1, 2 and 3."""
    service.write([LAMP] * 3, TABLE="products")
    return service


def test_the_answer_has_the_new_values_in_the_order_asked(lamps: InProcess) -> None:
    assert values(increment(lamps, [by(3, -1), by(1, "5")])) == [by(3, 9), by(1, 15)]
    assert values(increment(lamps, [])) == []


@pytest.mark.parametrize("is_read", [True, False])
@pytest.mark.parametrize("use_cache", ["True", "False"])
def test_every_read_shows_it(lamps: InProcess, is_read: bool, use_cache: str) -> None:
    if is_read:
        lamps.read([1], TABLE="products")
    increment(lamps, [by(1, -10)], USE_CACHE=use_cache)
    for cached in (True, False):
        [row] = lamps.read([1], cached, TABLE="products").rows
        assert row == {"ProductId": 1, **LAMP, "QuantityInStock": 0}


def test_after_it_the_cache_has_the_row(lamps: InProcess) -> None:
    increment(lamps, [by(1, 1)])
    assert "hit" in lamps.read([1], TABLE="products").headers["cache-status"]


def test_a_counter_stops_at_its_minimum_and_all_or_none_is_done(
    lamps: InProcess, witness: Witness
) -> None:
    refused = increment(lamps, [by(1, -1), by(2, -11)])

    assert (refused.status, refused.error) == (409, "CounterOutOfRange")
    assert refused.message == (
        "SQLS[1].QuantityInStock: 10 -11 would pass the minimum 0; nothing was changed"
    )
    assert stock(witness) == [10, 10, 10]
    assert [row["QuantityInStock"] for row in lamps.read([1, 2], TABLE="products").rows] == [10, 10]


def test_a_counter_stops_at_what_its_column_takes(lamps: InProcess, witness: Witness) -> None:
    refused = increment(lamps, [by(1, MAXIMUM - 9)])
    assert refused.status == 409
    assert f"10 +{MAXIMUM - 9} would pass the maximum {MAXIMUM}" in refused.message
    assert values(increment(lamps, [by(1, MAXIMUM - 10)])) == [by(1, MAXIMUM)]
    assert stock(witness) == [10, 10, MAXIMUM]


@pytest.mark.parametrize(
    ("column", "minimum", "amount", "limit"),
    [
        ("SMALLINT UNSIGNED", 0, 65_526, "the maximum 65535"),
        ("TINYINT", -1_000, -139, "the minimum -128"),
        ("TINYINT", None, -139, "the minimum -128"),
    ],
)
def test_a_counter_stops_at_what_the_real_column_takes(
    lamps: InProcess,
    witness: Witness,
    monkeypatch: pytest.MonkeyPatch,
    column: str,
    minimum: int | None,
    amount: int,
    limit: str,
) -> None:
    key, name, text, counter, price = PRODUCTS.columns
    counter = replace(counter, counter=Counter(minimum=minimum))
    table = replace(PRODUCTS, columns=(key, name, text, counter, price))
    monkeypatch.setitem(cast(dict[str, Table], TABLES), "products", table)
    witness.query(f"ALTER TABLE products MODIFY QuantityInStock {column} NOT NULL")
    services.forget()
    try:
        rejected = increment(lamps, [by(1, amount)])
        assert (rejected.status, rejected.error) == (409, "CounterOutOfRange")
        assert f"10 {amount:+d} would pass {limit}; nothing was changed" in rejected.message
        nearer = amount - 1 if amount > 0 else amount + 1
        assert values(increment(lamps, [by(1, nearer)])) == [by(1, 10 + nearer)]
    finally:
        witness.query("DELETE FROM products")
        witness.query("ALTER TABLE products MODIFY QuantityInStock INT NOT NULL")


def test_a_counter_below_its_minimum_may_go_up(service: InProcess) -> None:
    service.write([{**LAMP, "QuantityInStock": -5}], TABLE="products")
    assert values(increment(service, [by(1, 2)])) == [by(1, -3)]
    assert increment(service, [by(1, -1)]).status == 409


def test_a_row_that_is_not_there_is_named_and_nothing_is_done(
    lamps: InProcess, witness: Witness
) -> None:
    refused = increment(lamps, [by(1, 1), by(99, 1)])
    assert (refused.status, refused.error) == (400, "BadRequest")
    assert refused.message == "SQLS[1].ProductId: products has no row 99; nothing was changed"
    assert stock(witness) == [10, 10, 10]


REJECTED: dict[str, tuple[object, str]] = {
    "no counter": (
        [{"ProductId": 1, "Price": 1}],
        "SQLS[0]: 'Price' is no counter; give ProductId and what to add to QuantityInStock",
    ),
    "no such column": ([{"ProductId": 1, "x": 1}], "SQLS[0]: 'x' is no counter; give ProductId"),
    "nothing to add": ([{"ProductId": 1}], "SQLS[0]: nothing to add; give ProductId and what"),
    "no key": ([{"QuantityInStock": 1}], "SQLS[0].ProductId: missing; give ProductId and what"),
    "no object": ([1], "SQLS[0]: expected an object with ProductId and what to add"),
    "no integer": ([by(1, 1.5)], "SQLS[0].QuantityInStock: expected an integer, got 1.5"),
    "far": ([by(1, 2**33)], "SQLS[0].QuantityInStock: expected an integer from -4294967296 to"),
    "twice": ([by(1, 1), by(1, 1)], "SQLS[1].ProductId: 1 is also the key of SQLS[0]"),
    "no list": (by(1, 1), "SQLS: expected a list of increments, got an object"),
}


@pytest.mark.parametrize("name", REJECTED)
def test_a_wrong_increment_is_told_and_changes_nothing(
    lamps: InProcess, witness: Witness, name: str
) -> None:
    items, words = REJECTED[name]
    rejected = increment(lamps, items)
    assert (rejected.status, rejected.error) == (400, "BadRequest")
    assert rejected.message.startswith(words), rejected.message
    assert stock(witness) == [10, 10, 10]


def test_a_table_without_counters_says_where_there_are_some(service: InProcess) -> None:
    rejected = increment(service, [{"id": 1, "xp": 1}], TABLE="heroes")
    assert rejected.status == 400
    assert (
        rejected.message
        == "TABLE: heroes has no counter; the counters are products.QuantityInStock"
    )


def test_with_an_idempotency_key_it_is_done_once(lamps: InProcess, witness: Witness) -> None:
    answers = [increment(lamps, [by(2, -3)], IDEMPOTENCY_KEY="order 7") for _ in range(3)]
    assert [values(answer) for answer in answers] == [[by(2, 7)]] * 3
    assert stock(witness) == [7, 10, 10]
    other = increment(lamps, [by(2, -4)], IDEMPOTENCY_KEY="order 7")
    assert (other.status, other.error) == (409, "Conflict")


def test_the_same_increment_in_other_json_is_the_same_request(
    lamps: InProcess, witness: Witness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A JSON object has no order, so a retry may name the counters in another one."""
    columns = [replace(c, counter=Counter()) if c.name == "Price" else c for c in PRODUCTS.columns]
    products = replace(PRODUCTS, columns=tuple(columns))
    monkeypatch.setitem(cast(dict[str, Table], TABLES), "products", products)
    services.forget()
    once = {"ProductId": 2, "Price": 5, "QuantityInStock": -3}
    again = dict(reversed(once.items()))

    answers = [increment(lamps, [item], IDEMPOTENCY_KEY="order 7") for item in (once, again)]

    assert answers[0].content == answers[1].content, answers[1].text
    assert values(answers[1]) == [{"ProductId": 2, "QuantityInStock": 7, "Price": 405}]
    assert stock(witness) == [7, 10, 10]


def test_increments_at_the_same_time_are_all_counted(lamps: InProcess, witness: Witness) -> None:
    def one(_: int) -> Any:
        return values(increment(lamps, [by(1, 1), by(2, -1)]))[0]["QuantityInStock"]

    lamps.write([{**LAMP, "ProductId": 2, "QuantityInStock": 40}], TABLE="products")
    with ThreadPoolExecutor(8) as pool:
        seen = sorted(pool.map(one, range(40)))
    assert seen == list(range(11, 51)), "two increments were given the same value"
    assert stock(witness) == [0, 10, 50]
    assert increment(lamps, [by(2, -1)]).status == 409
