"""A run that has nothing to do asks the database nothing; and whatever gives it something to do."""

from collections.abc import Callable
from typing import Any

import pytest

from chalicelib import services
from chalicelib.cache import entries
from chalicelib.db import Transaction
from chalicelib.errors import CacheUnavailable
from chalicelib.handlers import entry_points
from tests.support.bucket import UploadBucket
from tests.support.client import InProcess
from tests.support.witness import Witness
from tests.sync.clients import RedisCli, product, run, unwatch, watch

Work = Callable[[InProcess, RedisCli], object]

CHANGES: dict[str, Work] = {
    "a write": lambda shop, cli: shop.write([product(22, Price=1)], TABLE="products"),
    "a write of another row": lambda shop, cli: shop.write([product(7)], TABLE="products"),
    "a write past the cache": lambda shop, cli: shop.write([product(7)], False, TABLE="products"),
    "a delete": lambda shop, cli: shop.delete([22], TABLE="products"),
    "an invalidate": lambda shop, cli: shop.invalidate(TABLE="products"),
    "a watch": lambda shop, cli: watch(shop, [7]),
    "an unwatch": lambda shop, cli: unwatch(shop, [11]),
    "SET": lambda shop, cli: cli.put("Product:11", Price=7),
    "HINCRBY": lambda shop, cli: cli("HINCRBY UsingHash:Product:11 Price 1"),
    "DEL": lambda shop, cli: cli("DEL Product:11"),
    "another type": lambda shop, cli: (cli("DEL Product:11"), cli("RPUSH Product:11 1")),
    "SET of a key that follows its row": lambda shop, cli: cli.put("Product:22", Price=7),
    "DEL of a key that follows its row": lambda shop, cli: cli("DEL Product:22"),
    "half a note": lambda shop, cli: cli("SET", "{products.0}:sync", '{"server"'),
    "a note of another release": lambda shop, cli: cli("SET", "{products.0}:sync", "{}"),
    "a lost note": lambda shop, cli: cli("DEL {products.0}:sync"),
    "a note of another server": lambda shop, cli: cli(
        "SET", "{products.0}:sync", '{"server": "another", "ranges": []}'
    ),
    "a flush": lambda shop, cli: cli("FLUSHALL"),
}


@pytest.fixture
def in_step(shop: InProcess) -> InProcess:
    """Product 22 follows in one direction, 11 in the other; a run has looked."""
    watch(shop, [22], "to_cache")
    watch(shop, [11])
    watch(shop, [11], FORM="hash")
    run(None)
    return shop


@pytest.mark.parametrize("keys", [[22], ["*"]], ids=["one row", "every row"])
def test_it_asks_the_database_nothing(
    shop: InProcess, witness: Witness, cli: RedisCli, keys: list[object]
) -> None:
    watch(shop, keys, "to_cache")
    watch(shop, keys, FORM="hash")
    assert run(None)["outcome"] == "done"

    with witness.spent() as spent:
        records = [run(None) for _ in range(3)]

    assert [record["outcome"] for record in records] == ["idle"] * 3
    assert (spent.statements, spent.database_connections) == (0, 0)
    assert witness.count("sync_runs") == 1


@pytest.mark.parametrize("name", CHANGES)
def test_whatever_changes_gives_it_work(in_step: InProcess, cli: RedisCli, name: str) -> None:
    assert run(None)["outcome"] == "idle"

    CHANGES[name](in_step, cli)

    assert run(None)["outcome"] == "done"
    if name == "HINCRBY":  # the JSON form of the same row is its client's too
        assert run(None)["outcome"] == "done"
    assert run(None)["outcome"] == "idle"


def test_garbage_that_was_reported_is_no_work(in_step: InProcess, cli: RedisCli) -> None:
    cli("SET", "Product:11", "garbage")
    assert run(None)["to_database"]["reported"] == 1
    assert run(None)["outcome"] == "idle"


def test_a_change_while_a_run_looks_is_work_for_the_next(
    in_step: InProcess, cli: RedisCli, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = type(services.container().public_store)
    read = store.read_many

    def then_a_write(*arguments: object) -> object:
        found = read(*arguments)  # type: ignore[arg-type]
        in_step.write([product(7)], TABLE="products")
        cli("HINCRBY UsingHash:Product:11 Price 1")
        return found

    with monkeypatch.context() as patch:
        patch.setattr(store, "read_many", then_a_write)
        assert run()["outcome"] == "done"
    outcomes = [run(None)["outcome"] for _ in range(3)]
    assert outcomes == ["done", "done", "idle"], "the second for the JSON of product 11"


def test_a_write_tells_it_before_its_commit(
    in_step: InProcess, witness: Witness, cli: RedisCli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its process may die behind the COMMIT."""
    monkeypatch.setattr(entries.Cache, "publish_many", lambda *_, **__: None)
    in_step.write([product(22, Price=1)], TABLE="products")
    assert run(None)["outcome"] == "done"
    assert cli.row("Product:22")["Price"] == 1


def test_a_loaded_file_is_work(
    in_step: InProcess, bucket: UploadBucket, cli: RedisCli, witness: Witness
) -> None:
    watch(in_step, ["*"], "to_cache")
    run(None)
    entry_points.ingest(bucket.put("incoming/products/p.csv", "7,Seven,,1,2\n"))
    assert run(None)["outcome"] == "done"
    assert cli.row("Product:7")["Price"] == 2


def test_what_redis_was_not_told_of_is_work_once_it_answers_again(
    in_step: InProcess, witness: Witness, cli: RedisCli, monkeypatch: pytest.MonkeyPatch
) -> None:
    recovery = services.container().recovery
    started = []

    def fail(*_: object) -> None:
        raise CacheUnavailable("no answer in time")

    witness.query("UPDATE products SET Price = 7")
    with monkeypatch.context() as patch:
        patch.setattr(entries.Cache, "delete_note", fail)
        patch.setattr(recovery, "start", lambda: started.append(True))
        in_step.invalidate(TABLE="products")
    assert started
    recovery._take_into_use(services.container().cache.probe())
    assert run(None)["outcome"] == "done"
    assert cli.row("Product:22")["Price"] == 7


def test_a_run_that_is_asked_for_looks(in_step: InProcess, witness: Witness, cli: RedisCli) -> None:
    """Plain SQL deletes no note."""
    witness.query("UPDATE products SET Price = 7")
    assert run(None)["outcome"] == "idle"

    assert run("products")["outcome"] == "done"
    assert cli.row("Product:22")["Price"] == 7


def test_after_a_day_it_looks(in_step: InProcess, cli: RedisCli) -> None:
    assert 86_000 < cli("TTL {products.0}:sync") <= 86_400


def test_a_stage_without_redis_has_nothing_to_do(
    shop: InProcess, configure: Callable[..., None]
) -> None:
    configure(REDIS_URL="")
    assert run(None)["outcome"] == "no cache"


def test_a_run_between_the_fences_of_a_write_and_its_commit_leaves_work(
    in_step: InProcess, cli: RedisCli, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit, outcomes = Transaction.send_commit, []

    def after_a_run(*arguments: Any) -> Any:
        outcomes.append(run("products")["outcome"])
        return commit(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Transaction, "send_commit", after_a_run)
        in_step.write([product(11, Price=1)], TABLE="products")
    assert outcomes == ["done"]
    assert run(None)["outcome"] == "done"
    assert cli.row("Product:11")["Price"] == 1


def test_what_follows_rows_that_a_run_has_just_changed_is_looked_at_in_the_same_run(
    shop: InProcess, cli: RedisCli
) -> None:
    """So the next one has nothing to do."""
    watch(shop, [22], FORM="json")
    watch(shop, [22], "to_cache", FORM="hash")
    run(None)
    cli.put("Product:22", Price=7)

    run(None)

    assert cli("HGET UsingHash:Product:22 Price") == b"7"
    assert run(None)["outcome"] == "idle"
