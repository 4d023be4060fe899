"""The same in a Redis Cluster, where each public key has a slot of its own."""

from collections.abc import Iterator
from typing import Any

import pytest
from redis import RedisCluster

from chalicelib.cache import timeouts
from tests.conftest import Configure, end_app
from tests.support.client import InProcess
from tests.support.pages import counted, increment, page, pages_table, stored
from tests.support.topologies import Topology, cluster, start_afresh
from tests.support.witness import Witness
from tests.sync.clients import RedisCli, product, rows, run, tallies, unwatch, watch


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Topology]:
    with cluster(tmp_path_factory.mktemp("cluster")) as topology:
        yield topology


@pytest.fixture
def cli(shared: Topology) -> Iterator[RedisCli]:
    client: Any = RedisCluster(host="127.0.0.1", port=shared.masters[0].port)
    yield RedisCli(client)
    client.close()


@pytest.fixture
def shop(
    witness: Witness,
    configure: Configure,
    shared: Topology,
    monkeypatch: pytest.MonkeyPatch,
) -> InProcess:
    monkeypatch.setattr(timeouts, "TIMEOUT_SECONDS", 5)
    start_afresh(witness, shared)
    configure(**shared.settings())
    service = InProcess()
    service.read([1])
    service.write([product(key, QuantityInStock=3000) for key in range(11, 51)], TABLE="products")
    return service


def test_product_22_and_its_hash(shop: InProcess, witness: Witness, cli: RedisCli) -> None:
    watch(shop, [22])
    watch(shop, [23], FORM="hash")
    run()
    cli.put("Product:22", QuantityInStock=2000)
    assert cli("HINCRBY UsingHash:Product:23 QuantityInStock -1") == 2999

    assert list(tallies(run())) == [(0, 0, 0), (2, 2, 0)]

    assert rows(witness, 22, 23) == [
        product(22, QuantityInStock=2000),
        product(23, QuantityInStock=2999),
    ]
    assert [run(None)["outcome"] for _ in range(2)] == ["done", "idle"]


@pytest.mark.parametrize("form", ["json", "hash"])
def test_every_row_at_every_run_and_at_once(
    shop: InProcess, witness: Witness, cli: RedisCli, form: str
) -> None:
    name = "Product" if form == "json" else "UsingHash:Product"
    watch(shop, ["*"], "to_cache", FORM=form)
    assert list(tallies(run())) == [(40, 40, 0), (0, 0, 0)]

    shop.write([product(key, Price=1) for key in range(11, 31)], TABLE="products")
    shop.delete([50], TABLE="products")
    prices = [str(cli.row(f"{name}:{key}")["Price"]) for key in range(11, 50)]
    assert prices == ["1"] * 20 + ["400"] * 19
    assert cli("EXISTS", f"{name}:50") == 0

    unwatch(shop, ["*"], FORM=form)
    assert not any(cli("EXISTS", f"{name}:{key}") for key in range(11, 51))


def test_keys_with_braces_have_their_stamp_in_their_slot(shop: InProcess, cli: RedisCli) -> None:
    keys = ["a", "{a}", "a}b", "{}", "{a", "é {x} y"]
    people = [{"EmpId": key, "EmpName": "Ada"} for key in keys]
    watch(shop, [*keys], "to_cache", TABLE="employees")
    shop.write(people, TABLE="employees")
    assert [cli("EXISTS", f"Employee:{key}") for key in keys] == [1] * len(keys)
    stamps = ["{Employee:a}:stamp", "Employee:{a}\0stamp", "{Employee:{a}:stamp"]
    stamps.append("Employee:é {x} y\0stamp")
    assert [cli("EXISTS", stamp) for stamp in stamps] == [1] * len(stamps)
    assert run("employees")["to_cache"] == {"looked": 6, "changed": 0, "reported": 0}


def test_write_behind_counters_of_a_bucket_that_takes_several_scripts(
    shop: InProcess, witness: Witness, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = range(16, 16 * 900, 16)
    with pages_table(witness, monkeypatch):
        end_app()  # it knows only the tables that were declared before
        shop.write([page(nr) for nr in keys], TABLE="pages")
        items = [{"nr": nr, "views": 1} for nr in keys]
        answer = shop.post({"REQUEST": "increment", "TABLE": "pages", "SQLS": items})
        assert counted(answer) == [{"nr": nr, "views": 11} for nr in keys]
        rows = shop.read([*keys], TABLE="pages").rows
        assert rows == [page(nr, views=11) for nr in keys]


def test_write_behind_counters_of_rows_on_several_servers(
    shop: InProcess, witness: Witness, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = range(1, 21)
    with pages_table(witness, monkeypatch):
        end_app()  # it knows only the tables that were declared before
        shop.write([page(nr) for nr in keys], TABLE="pages")
        for total in (11, 12, 13):
            items = [{"nr": nr, "views": 1} for nr in keys]
            answer = shop.post({"REQUEST": "increment", "TABLE": "pages", "SQLS": items})
            assert counted(answer) == [{"nr": nr, "views": total} for nr in keys]
            assert counted(increment(shop, 1, 0)) == [{"nr": 1, "views": total}]
            for way in ({}, {"BY": "title"}):
                for use_cache in (True, True, False):
                    values: list[object] = ["news"] if way else [*keys]
                    rows = shop.read(values, use_cache, TABLE="pages", **way).rows
                    assert rows == [page(nr, views=total) for nr in keys]
            if total > 11:
                assert run("pages")["counted"] == len(keys)
                assert stored(witness) == dict.fromkeys(keys, total)
        missing = [{"nr": 1, "views": 1}, {"nr": 99, "views": 1}]
        assert shop.post({"REQUEST": "increment", "TABLE": "pages", "SQLS": missing}).status == 400
        run("pages")
        assert stored(witness) == dict.fromkeys(keys, 13)
        assert [run(None)["outcome"] for _ in range(2)] == ["done", "idle"]
