"""Rows with NULL in a declared column: named, never answered, and mended by requests."""

import json

import pytest

from chalicelib import services
from chalicelib.cache import entry_commands
from chalicelib.rows.lazy_loading import MISSES_TO_EXPECT_ONE
from tests.support.client import InProcess, as_stored, hero
from tests.support.differing_tables import Tables, assert_mismatch
from tests.support.topologies import wait_until
from tests.support.witness import Witness


@pytest.mark.parametrize(("column", "value"), [("power", "''"), ("xp", "0")])
def test_a_row_with_null_is_named_and_never_answered(
    service: InProcess, database: Tables, witness: Witness, column: str, value: str
) -> None:
    database.query(f"ALTER TABLE heroes MODIFY {column} {'INT' if value == '0' else 'VARCHAR(9)'}")
    service.write([{"id": 5, **hero()}, {"id": 6, **hero()}])
    database.query(f"UPDATE heroes SET {column} = NULL WHERE id = 6")
    witness.forget_cached()

    for use_cache in (True, False, True):
        answer = service.read([5, 6], use_cache)
        mend = assert_mismatch(answer, f"heroes.{column} is NULL", "id is 6")
        assert service.read([5], use_cache).rows == [as_stored(5, hero())]
    statement, _, request = mend.partition("for example ")[2].partition("; then send ")
    assert statement == f"UPDATE heroes SET {column} = {value} WHERE {column} IS NULL"
    assert service.read([0], BY="xp").missing == [0]

    database.query(statement)
    assert service.post(json.loads(request.partition(", or cached")[0])).status == 200
    assert len(service.read([0], BY="xp").rows) == (value == "0")
    for use_cache in (True, False):
        [row] = service.read([6], use_cache).rows
        assert json.dumps(row[column]) == value.replace("'", '"')


@pytest.mark.parametrize("use_cache", [True, False])
def test_a_row_with_null_can_be_replaced_and_deleted(
    service: InProcess, database: Tables, use_cache: bool
) -> None:
    database.query("ALTER TABLE heroes MODIFY xp INT, MODIFY power VARCHAR(9)")
    for id in (5, 6):
        database.query(f"INSERT INTO heroes VALUES ({id}, 'h', NULL, 'n', NULL, 'c')")

    assert service.write([{"id": 5, **hero(xp=3)}], use_cache).ids == [5]
    assert service.delete([6]).deleted == [6]

    for read_cached in (True, False):
        assert service.read([5, 6], read_cached).rows == [as_stored(5, hero(xp=3))]
        assert service.read([3], read_cached, BY="xp").rows == [as_stored(5, hero(xp=3))]


@pytest.mark.parametrize("use_cache", [True, False])
@pytest.mark.parametrize("column", ["QuantityInStock", "Description"])
def test_a_row_with_null_is_not_counted(
    service: InProcess, database: Tables, witness: Witness, column: str, use_cache: bool
) -> None:
    kind = "VARCHAR(9)" if column == "Description" else "INT"
    database.query(f"ALTER TABLE products MODIFY {column} {kind}")
    values = {"ProductName": "p", "Description": "d", "QuantityInStock": 1, "Price": 1}
    service.write([values] * 2, TABLE="products")
    database.query(f"UPDATE products SET {column} = NULL WHERE ProductId = 2")
    before = witness.database_state()

    counted = [{"ProductId": id, "QuantityInStock": 1} for id in (1, 2)]
    fields = {"TABLE": "products", "SQLS": counted, "USE_CACHE": use_cache}
    answer = service.post({"REQUEST": "increment", **fields})

    assert_mismatch(answer, f"products.{column} is NULL", "ProductId is 2")
    assert witness.database_state() == before


@pytest.mark.parametrize("misses", [0, MISSES_TO_EXPECT_ONE])
def test_a_read_that_fails_lets_nobody_wait_for_its_rows(
    service: InProcess,
    database: Tables,
    witness: Witness,
    monkeypatch: pytest.MonkeyPatch,
    misses: int,
) -> None:
    monkeypatch.setattr(entry_commands, "LEASE_MILLISECONDS", 60_000)
    database.query("ALTER TABLE heroes MODIFY power VARCHAR(9)")
    service.write([{"id": 5, **hero()}, {"id": 6, **hero()}])
    database.query("UPDATE heroes SET power = NULL WHERE id = 6")
    witness.forget_cached()
    services.container().rows._lazy_loading._misses_in_a_row = misses

    assert_mismatch(service.read([5, 6]))

    wait_until(lambda: not witness.redis.keys("*:id:*"))
