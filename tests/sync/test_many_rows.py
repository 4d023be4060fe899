"""Rows that go through a run a thousand at a time: what is the same as with one row."""

import json
import threading
from typing import Any

import pytest

from chalicelib import services
from chalicelib.cache import Found, Late
from chalicelib.config import DbEngine
from chalicelib.rows import WriteThrough
from chalicelib.sync import to_database
from chalicelib.sync.plain_rows import PLAIN_ROWS, plain_rows
from chalicelib.sync.public_values import parse
from chalicelib.tables import DIRECTIONS, FORMS, PRODUCTS, Key, Table
from local.servers.mariadb import integers
from tests.conftest import ENGINE
from tests.support.client import InProcess, OverHttp
from tests.support.witness import Witness
from tests.sync.clients import RedisCli, as_json, product, rows, run, watch

# Each has its own way to be shown in JSON.
TEXTS = (
    *("plain", "", 'a "quote"', "back\\slash", "tab\tand\nline", "\x0b\x1f\x7f", "it's"),
    *("naïve", "日本", "\U0001f600", "\u2028", "a/b", "%s", "</script>", "\u00a0"),
)


@pytest.mark.parametrize("form", FORMS)
def test_public_keys_hold_what_a_read_answers_whatever_is_in_a_text(
    service: InProcess, witness: Witness, cli: RedisCli, form: str
) -> None:
    products = [product(n, Description=text) for n, text in enumerate(TEXTS, 1)]
    service.write(products, TABLE="products")
    watch(service, ["*"], "to_cache", FORM=form)

    assert run()["to_cache"] == {"looked": len(TEXTS), "changed": len(TEXTS), "reported": 0}

    answer = service.read([each["ProductId"] for each in products], TABLE="products")
    assert answer.rows == products
    if form == "json":
        names = [f"Product:{each['ProductId']}" for each in products]
        assert ",".join(text.decode() for text in cli("MGET", *names)) in answer.text
    else:
        shown = [cli.row(f"UsingHash:Product:{each['ProductId']}") for each in products]
        assert [each["Description"] for each in shown] == [*TEXTS]


def test_public_keys_that_are_there_already_do_not_keep_new_ones_waiting(
    shop: InProcess, cli: RedisCli
) -> None:
    cli("SET", "Product:22", "half a row")
    watch(shop, ["*"], "to_cache")

    assert run()["to_cache"] == {"looked": 2, "changed": 2, "reported": 0}
    assert [cli.row(f"Product:{key}")["ProductId"] for key in (11, 22)] == [11, 22]


@pytest.mark.parametrize("meanwhile", ["a client", "a delete"])
def test_a_run_leaves_alone_what_happens_before_it_sets_new_public_keys(
    shop: InProcess, cli: RedisCli, monkeypatch: pytest.MonkeyPatch, meanwhile: str
) -> None:
    watch(shop, ["*"], "to_cache")
    store = type(services.container().public_store)
    # With a client's value there it first looks at all of them.
    name = "set_many" if meanwhile == "a client" else "set_new_many"
    put = getattr(store, name)

    def afterwards(*arguments: Any, **named: Any) -> Any:
        if meanwhile == "a client":
            cli("SET", "Product:22", "mine")
        else:
            shop.delete([22], TABLE="products")
        return put(*arguments, **named)

    monkeypatch.setattr(store, name, afterwards)
    if meanwhile == "a client":
        cli("SET", "Product:11", "half a row")

    assert run()["to_cache"]["changed"] == 1

    assert cli.row("Product:11") == product(11)
    assert cli("GET", "Product:22") == (b"mine" if meanwhile == "a client" else None)


def test_new_public_keys_are_set_at_once_and_leave_nothing_behind(
    shop: InProcess, cli: RedisCli, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch(shop, ["*"], "to_cache")
    store = type(services.container().public_store)
    monkeypatch.setattr(store, "set_many", None)  # the way of few rows

    assert run()["to_cache"] == {"looked": 2, "changed": 2, "reported": 0}

    assert [cli.row(f"Product:{key}")["ProductId"] for key in (11, 22)] == [11, 22]
    assert cli("KEYS", "*guard*") == []


@pytest.mark.parametrize("what", ["too late", "a stamp", "no script", "something is there"])
def test_new_public_keys_are_set_all_or_none(service: InProcess, cli: RedisCli, what: str) -> None:
    store = services.container().public_store
    store.wake()
    texts: dict[Key, bytes] = {key: as_json(product(key)).encode() for key in (11, 22)}
    if what == "a stamp":
        cli("SET", "{Product:22}:stamp", "1 1")
    if what == "something is there":
        cli("SET", "Product:22", "")
    if what == "no script":
        cli("SCRIPT", "FLUSH")

    if what == "too late":
        with pytest.raises(Late):
            store.set_new_many(PRODUCTS, texts, until=1)
    else:
        assert store.set_new_many(PRODUCTS, texts, until=store.deadline(9)) == []

    assert cli("EXISTS", "Product:11", "{products.0}:sync:guard") == 0


MANY = 120
# Over the Data API they are written as a few rows are.
AT_ONCE = [MANY] if DbEngine.MYSQL.value == ENGINE else []


@pytest.fixture
def many(service: InProcess, witness: Witness, cli: RedisCli) -> InProcess:
    """So many products, in the cache and under public keys, which they follow."""
    witness.query(
        "INSERT INTO products SELECT seq, CONCAT('Product ', seq), '', 10, 400"
        f" FROM {integers(1, MANY)}"
    )
    watch(service, ["*"])
    run()
    service.read([*range(1, MANY + 1)], TABLE="products")
    return service


def put_all(cli: RedisCli, encode: Any = as_json, **changes: object) -> None:
    texts = {
        f"Product:{n}": encode(product(n, **{"Price": 9, **changes})) for n in range(1, MANY + 1)
    }
    cli("MSET", *[word for pair in texts.items() for word in pair])


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many rows were written at once, each time."""
    calls: list[int] = []
    replace_many = WriteThrough.replace_many

    def counted(self: WriteThrough, table: Table, before: Any, after: Any, claim: Any) -> None:
        replace_many(self, table, before, after, claim)
        calls.append(len(before))

    monkeypatch.setattr(WriteThrough, "replace_many", counted)
    return calls


@pytest.mark.parametrize("encode", [as_json, json.dumps], ids=["as we write it", "with blanks"])
def test_many_rows_follow_their_public_keys_at_once(
    many: InProcess, witness: Witness, cli: RedisCli, at_once: list[int], encode: Any
) -> None:
    put_all(cli, encode, ProductName="it's 100 %")

    record = run()

    assert record["to_database"] == {"looked": MANY, "changed": MANY, "reported": 0}
    assert at_once == AT_ONCE
    expected = [product(n, Price=9, ProductName="it's 100 %") for n in range(1, MANY + 1)]
    assert rows(witness, *range(1, MANY + 1)) == expected
    assert many.read([*range(1, MANY + 1)], TABLE="products").rows == expected
    assert run()["to_database"] == {"looked": MANY, "changed": 0, "reported": 0}


def test_another_process_sees_them_too_once_the_run_is_done(
    many: InProcess, cli: RedisCli, server_url: str
) -> None:
    """That one remembers the generation under which it has cached the row."""
    other = OverHttp(server_url)
    other.read([1], TABLE="products")
    put_all(cli)
    seen = threading.Event()

    def read_all_the_while() -> None:
        while not seen.is_set():
            other.read([1], TABLE="products")

    reader = threading.Thread(target=read_all_the_while)
    reader.start()
    try:
        assert run()["outcome"] == "done"
        assert other.read([1], TABLE="products").rows[0]["Price"] == 9
    finally:
        seen.set()
        reader.join()


def test_of_many_rows_those_that_were_changed_on_both_sides_are_told(
    many: InProcess, witness: Witness, cli: RedisCli, at_once: list[int]
) -> None:
    witness.query("UPDATE products SET Price = 7 WHERE ProductId = 3")
    put_all(cli)

    record = run()

    [detail] = record["details"]
    assert (detail["key"], detail["database"]["Price"]) == ("Product:3", 7)
    assert detail["redis"] == rows(witness, 3)[0] == product(3, Price=9)
    assert at_once == AT_ONCE


def test_rows_with_gaps_between_their_keys_follow_in_all_columns_at_once(
    many: InProcess, witness: Witness, cli: RedisCli, at_once: list[int], monkeypatch: Any
) -> None:
    monkeypatch.setattr(to_database, "MIN_ROWS_AT_ONCE", MANY // 2)
    expected = {
        n: product(n, ProductName=f"it's {n}%s", Description="naïve", QuantityInStock=n, Price=-n)
        for n in range(2, MANY + 1, 2)
    }
    cli("MSET", *[w for n, row in expected.items() for w in (f"Product:{n}", as_json(row))])

    assert run()["to_database"]["changed"] == MANY // 2

    assert at_once == [count // 2 for count in AT_ONCE]
    found = rows(witness, *range(1, MANY + 1))
    assert found == [expected.get(n, product(n)) for n in range(1, MANY + 1)]


def test_a_row_that_only_the_database_has_changed_is_left_out_of_many(
    many: InProcess, witness: Witness, cli: RedisCli, at_once: list[int]
) -> None:
    expected = [product(n, Price=7 if n == 3 else n) for n in range(1, MANY + 1)]
    texts = {f"Product:{row['ProductId']}": as_json(row) for row in expected}
    del texts["Product:3"]
    cli("MSET", *[word for pair in texts.items() for word in pair])
    witness.query("UPDATE products SET Price = 7 WHERE ProductId = 3")

    assert run()["to_database"]["changed"] == MANY

    assert at_once == [count - 1 for count in AT_ONCE]
    assert rows(witness, *range(1, MANY + 1)) == expected
    assert cli.row("Product:3")["Price"] == 7


def test_many_rows_whose_key_is_a_text_follow_at_once(
    service: InProcess, witness: Witness, cli: RedisCli, at_once: list[int]
) -> None:
    witness.query(f"INSERT INTO employees SELECT CONCAT('é', seq), 'Ada' FROM {integers(1, MANY)}")
    watch(service, ["*"], TABLE="employees")
    run("employees")
    texts = {
        f"Employee:é{n}": as_json({"EmpId": f"é{n}", "EmpName": "Bea"}) for n in range(1, MANY + 1)
    }
    cli("MSET", *[word for pair in texts.items() for word in pair])

    assert run("employees")["to_database"] == {"looked": MANY, "changed": MANY, "reported": 0}

    assert at_once == AT_ONCE
    assert witness.query("SELECT DISTINCT EmpName FROM employees") == [("Bea",)]


@pytest.mark.parametrize("change", ["UPDATE products SET Price = 407", "DELETE FROM products"])
def test_rows_that_change_alike_just_before_many_are_written_are_told(
    many: InProcess,
    witness: Witness,
    cli: RedisCli,
    monkeypatch: pytest.MonkeyPatch,
    at_once: list[int],
    change: str,
) -> None:
    # Of these two the update leaves the sum of their JSON's CRC-32 as it is.
    for key, name in [(3, "gwhy"), (4, "coyt")]:
        cli("SET", f"Product:{key}", as_json(product(key, ProductName=name)))
    run()
    put_all(cli)
    replace_many = WriteThrough.replace_many

    def afterwards(*arguments: Any) -> None:
        witness.query(f"{change} WHERE ProductId IN (3, 4)")
        replace_many(*arguments)

    monkeypatch.setattr(WriteThrough, "replace_many", afterwards)

    record = run()

    assert at_once == []
    assert record["to_database"]["changed"] == MANY
    assert [detail["key"] for detail in record["details"]] == ["Product:3", "Product:4"]
    for detail in record["details"]:
        assert (detail["database"] or {}).get("Price") == (407 if "UPDATE" in change else None)
    assert {row["Price"] for row in rows(witness, *range(1, MANY + 1))} == {9}


def test_many_rows_of_which_the_database_rejects_one(
    many: InProcess, witness: Witness, cli: RedisCli
) -> None:
    witness.query("ALTER TABLE products ADD CONSTRAINT fair CHECK (Price < 1000)")
    try:
        put_all(cli)
        cli("SET", "Product:3", as_json(product(3, Price=1000)))

        record = run()
    finally:
        witness.query("ALTER TABLE products DROP CONSTRAINT fair")

    assert record["to_database"] == {"looked": MANY, "changed": MANY - 1, "reported": 1}
    assert "CHECK constraint fair" in record["details"][0]["reason"]
    assert [row["Price"] for row in rows(witness, 2, 3, 4)] == [9, 400, 9]


PLAIN = b'{"ProductId":3,"ProductName":"a","Description":"","QuantityInStock":1,"Price":8}'


@pytest.mark.parametrize(
    "text",
    [
        '{"ProductId":3,"ProductName":"a","Description":"","QuantityInStock":1,"Price":2147483648}',
        '{"ProductId":3,"ProductName":"a","Description":"","QuantityInStock":1,"Price":"7"}',
        '{"ProductId":4,"ProductName":"a","Description":"","QuantityInStock":1,"Price":7}',
        '{"ProductId":3,"ProductName":"a","Description":"","QuantityInStock":01,"Price":7}',
        '{"ProductId":3,"ProductName":"%s","Description":"","QuantityInStock":1,"Price":7}'
        % ("x" * 256),
        '{"ProductId":3,"ProductName":"a","Price":1,"Price":7}',
        b'{"ProductId":3,"ProductName":"\xff","Description":"","QuantityInStock":1,"Price":7}',
        '{"ProductId":3,"ProductName":"\\u0041","Description":"","QuantityInStock":1,"Price":7}',
        '{"Price":7}',
        '{"Price":7}\n{"Price":7}',
        '{"ProductId":3,"ProductName":"a","Description":"","QuantityInStock":1,"Price":-0}',
        '{"ProductId":3,"ProductName":"a","Description":"","QuantityInStock":1,"Price":7}\n',
        '{"ProductId":3,"ProductName":"a\tb","Description":"","QuantityInStock":1,"Price":7}',
        '{"ProductId":3,"ProductName":"a","Description":"","QuantityInStock":1,2,"Price":7}',
        '{"ProductId":3,"ProductName":"a","Description":"","QuantityInStock":1,"Price":7}"',
        '{"ProductId":3,"ProductName":"a","Description":"","QuantityInStock";1,"Price":7}',
        '{"ProductId":3,"ProductName":"a","Description":"","QuantityInStock":1,"Price":7]',
        '{"ProductId":3,"ProductName":"a","Price":1,"QuantityInStock":1,"Description":""}',
        '{"ProductId":3,"ProductName":"a"b","Description":"","QuantityInStock":1,"Price":7}',
        '{"ProductId":3,"ProductName":"a","b","Description":"","QuantityInStock":1,"Price":7}',
        '{"ProductId":3,"ProductName":"a,"Description":"","QuantityInStock":1,"Price":7}',
        '{"ProductId":3,"ProductName":1,"Description":"","QuantityInStock":1,"Price":7}',
        '{"ProductId":3,"ProductName":"a","Description":"","QuantityInStock":1,"Price":7,"x":1}',
    ],
)
def test_what_needs_a_closer_look_is_not_taken_for_a_plain_row(text: str | bytes) -> None:
    text = text if isinstance(text, bytes) else text.encode()

    assert plain_rows(PRODUCTS, {3: PLAIN}, {3: text}) == ({}, {})


@pytest.mark.parametrize(
    "text", [PLAIN.replace(b'"a"', b'"%b"' % (b"x" * 256)), PLAIN.replace(b":8", b":2147483648")]
)
def test_a_value_that_is_not_changed_is_looked_at_too(text: bytes) -> None:
    assert plain_rows(PRODUCTS, {3: text}, {3: text}) == ({}, {})


@pytest.mark.parametrize("joint", [b'"', b'""'])
def test_two_texts_that_are_rows_only_where_they_are_put_together_are_none(joint: bytes) -> None:
    keys = range(1, 2 * PLAIN_ROWS + 1)
    before: dict[Key, bytes] = {key: PLAIN.replace(b":3", b":%d" % key) for key in keys}
    after = {key: text.replace(b'e":8', b'e":9') for key, text in before.items()}
    start, _, end = after[2].partition(joint)
    found: dict[Key, Found] = {**after, 1: after[1] + joint + start, 2: end}

    plain, columns = plain_rows(PRODUCTS, before, found)

    assert plain == {key: after[key] for key in keys[PLAIN_ROWS:]}
    assert [*columns.values()] == [["9"] * PLAIN_ROWS]


def test_a_text_that_looks_like_the_end_of_a_name_is_left_to_others() -> None:
    keys = range(1, 2 * PLAIN_ROWS + 1)
    before: dict[Key, bytes] = {key: PLAIN.replace(b":3", b":%d" % key) for key in keys}
    before[1] = before[1].replace(b'"a"', b'":a"')
    after: dict[Key, Found] = {
        key: before[key].replace(b'e":8', b'e":9') for key in keys[PLAIN_ROWS:]
    }
    found = {**before, **after}

    plain, columns = plain_rows(PRODUCTS, before, found)

    assert [*plain] == [*keys[PLAIN_ROWS:]]
    assert [*columns.values()] == [["9"] * PLAIN_ROWS]


def test_a_plain_row_is_taken_as_one_by_one() -> None:
    texts: dict[Key, bytes] = {
        n: encode(product(n, Description=text)).encode()
        for n, text in enumerate(["", "it's", "naïve", "\U0001f600", "x" * 255, "-0", "["], 3)
        for encode in (as_json, json.dumps)
        if "\\" not in encode(text)
    }

    before = {key: PRODUCTS.encode((key, "", "?", 1, 0)) for key in texts}
    found, columns = plain_rows(PRODUCTS, before, texts)

    for key, text in texts.items():
        values = parse(PRODUCTS, key, text)
        assert values is not None
        assert found[key] == PRODUCTS.encode((key, *values.values()))
    rows = [PRODUCTS.decode(text) for text in found.values()]
    assert [column.name for column in columns] == [c.name for c in PRODUCTS.columns[1:]]
    assert [*columns.values()] == [[*map(str, own)] for own in zip(*rows)][1:]
    assert len(found) == len(texts) == 7


def test_a_run_that_was_overtaken_writes_none_of_many_rows(
    many: InProcess, witness: Witness, cli: RedisCli, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_all(cli)
    replace_many = WriteThrough.replace_many

    def too_late(*arguments: Any) -> None:
        witness.query("UPDATE sync_lease SET token = token + 1")
        replace_many(*arguments)

    monkeypatch.setattr(WriteThrough, "replace_many", too_late)

    assert run()["outcome"] == "superseded"
    assert {row["Price"] for row in rows(witness, *range(1, MANY + 1))} == {400}


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_what_is_kept_of_rows_with_long_keys_fits_into_a_statement(
    service: InProcess, witness: Witness, cli: RedisCli, direction: str
) -> None:
    count = 40 if DbEngine.DATA_API.value == ENGINE else 4_990
    keys = [f"{n:04}".ljust(255, "\U0001f600") for n in range(count)]
    for start in range(0, len(keys), 500):
        part = keys[start : start + 500]
        marks = ",".join(["(%s, 'Ada')"] * len(part))
        witness.query(f"INSERT INTO employees (EmpId, EmpName) VALUES {marks}", part)
    watch(service, ["*"], direction, TABLE="employees")

    assert run("employees")[direction] == {"looked": count, "changed": count, "reported": 0}

    assert cli.row(f"Employee:{keys[-1]}") == {"EmpId": keys[-1], "EmpName": "Ada"}
    assert run("employees")[direction] == {"looked": count, "changed": 0, "reported": 0}


@pytest.mark.both_engines
def test_rows_that_do_not_fit_into_one_answer_of_the_database_follow_too(
    shop: InProcess, witness: Witness, cli: RedisCli
) -> None:
    """The RDS Data API gives 1 MiB, and here rows are longer than declared."""
    witness.query("ALTER TABLE products MODIFY Description TEXT NOT NULL")
    try:
        keys = range(101, 401)
        for key in keys:
            witness.query("INSERT INTO products VALUES (%s, '', REPEAT('a', 8000), 10, 400)", [key])
        watch(shop, [*keys])
        for key in keys:
            cli("SET", f"Product:{key}", json.dumps(product(key, Price=7)))

        assert run()["outcome"] == "done"

        assert {row["Price"] for row in rows(witness, *keys)} == {7}
    finally:
        witness.query("DELETE FROM products")
        witness.query("ALTER TABLE products MODIFY Description VARCHAR(255) NOT NULL")
