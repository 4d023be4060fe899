"""A run also brings to the cache what other clients of the database changed."""

from dataclasses import replace
from typing import Any, cast

import pytest

from chalicelib import services, tables
from chalicelib.cache import generations
from chalicelib.sync.range_scan import Scan
from chalicelib.tables import Table
from local.servers import MariaDB
from tests.support.client import InProcess, hero, heroes
from tests.support.witness import Witness
from tests.sync.clients import RedisCli, product, watch


def run(**event: object) -> Any:
    import app

    return app.sync({"table": "heroes", **event}, None)


@pytest.fixture(params=["public", "without public keys"])
def declared(
    request: pytest.FixtureRequest, service: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Heroes have public keys, or have none."""
    if request.param != "public":
        found = cast(dict[str, Table], tables.TABLES)
        monkeypatch.setitem(found, "heroes", replace(found["heroes"], public=None))
        services.forget()


@pytest.mark.usefixtures("triggers", "declared")
def test_plain_sql_by_a_condition_without_a_key_is_seen_after_one_run(
    service: InProcess, witness: Witness
) -> None:
    service.write(heroes(4))
    for _ in range(2):
        service.read([1, 2, 3, 4])
        service.read([2, 99], BY="xp")
    witness.query("UPDATE heroes SET xp = 99 WHERE name = 'Ada 2'")

    assert run()["outcome"] == "done"

    assert [row["xp"] for row in service.read([1, 2]).rows] == [1, 99]
    assert [row["id"] for row in service.read([99], BY="xp").rows] == [2]
    assert service.read([2], BY="xp").missing == [2]
    assert witness.query("SELECT COUNT(*) FROM changed_entries") == [(0,)]


@pytest.mark.usefixtures("triggers")
def test_the_public_key_of_a_row_goes_that_no_run_has_seen(
    shop: InProcess, witness: Witness, cli: RedisCli
) -> None:
    """A write has set it at once, and plain SQL has deleted the row."""
    watch(shop, ["*"], "to_cache")
    run(table="products")
    shop.write([product(33), product(34)], TABLE="products")
    witness.query("DELETE FROM products WHERE ProductId = 33")
    assert cli("EXISTS Product:33")
    run(table="products")
    assert sorted(cli("KEYS Product:*")) == [b"Product:11", b"Product:22", b"Product:34"]


@pytest.mark.usefixtures("triggers")
def test_it_goes_also_where_the_row_has_the_key_that_stands_for_every_row(
    shop: InProcess, witness: Witness, cli: RedisCli
) -> None:
    watch(shop, ["*"], "to_cache", TABLE="employees")
    run(table="employees")
    names = ["*", "A"]
    shop.write([{"EmpId": name, "EmpName": "Ada"} for name in names], TABLE="employees")
    witness.query("DELETE FROM employees")
    assert len(cli("KEYS Employee:*")) == 2
    run(table="employees")
    assert cli("KEYS Employee:*") == []


@pytest.mark.usefixtures("triggers")
def test_it_goes_with_the_next_run_where_one_dies_that_has_drained_the_change(
    shop: InProcess, witness: Witness, cli: RedisCli, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch(shop, ["*"], "to_cache")
    run(table="products")
    shop.write([product(33), product(34)], TABLE="products")
    witness.query("DELETE FROM products WHERE ProductId = 33")
    with monkeypatch.context() as patch:
        patch.setattr(Scan, "deleted", die)
        with pytest.raises(Died):
            run(table="products")

    run(table="products")

    assert sorted(cli("KEYS Product:*")) == [b"Product:11", b"Product:22", b"Product:34"]
    assert witness.count("changed_entries") == 0


class Died(Exception):
    pass


def die(*_: object, **__: object) -> None:
    raise Died


@pytest.mark.usefixtures("triggers", "declared")
@pytest.mark.parametrize("is_fresh", [False, True])
def test_who_reads_tells_the_schedule_of_plain_sql(
    service: InProcess, witness: Witness, monkeypatch: pytest.MonkeyPatch, is_fresh: bool
) -> None:
    """With what it asks of the database anyway."""
    monkeypatch.setattr(generations, "MEMORY_SECONDS", 0.0)
    service.write(heroes(2))
    service.read([1, 2])
    assert (run(table=None)["outcome"], run(table=None)["outcome"]) == ("done", "idle")
    witness.query("UPDATE heroes SET xp = 99 WHERE id = 2")
    assert run(table=None)["outcome"] == "idle", "nobody has asked the database"

    for _ in range(2):  # nobody waits for what the first one tells Redis
        service.read([1], FRESH=is_fresh)

    services.forget()  # the function is a container of its own
    assert run(table=None)["outcome"] == "done"
    assert witness.count("changed_entries") == 0
    assert service.read([2]).rows[0]["xp"] == 99
    assert run(table=None)["outcome"] == "idle"


@pytest.mark.usefixtures("triggers")
def test_a_change_that_is_not_committed_yet_holds_nobody_up(
    service: InProcess, mariadb: MariaDB, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generations, "MEMORY_SECONDS", 0.0)
    service.write(heroes(2))
    with mariadb.connect_as_root() as other, other.cursor() as cursor:
        cursor.execute("BEGIN")
        cursor.execute("UPDATE heroes SET xp = 99 WHERE id = 2")
        assert service.read([1, 2]).rows
        assert service.write([hero(id=1)]).ids == [1]
        assert run()["outcome"] == "done"
        cursor.execute("ROLLBACK")


def test_a_run_tells_where_such_changes_are_not_recorded(service: InProcess) -> None:
    told = run()["unrecorded"]
    assert list(told) == ["heroes"]
    assert "trigger" in told["heroes"]
