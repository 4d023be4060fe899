"""A run that is killed, overtaken, doubled or slept, and a Redis that forgets: the same end."""

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from chalicelib import errors, services
from chalicelib.cache.client import Client
from chalicelib.db import Database
from chalicelib.sync import range_scan, runs
from local.servers import MariaDB
from tests.support.client import InProcess
from tests.support.witness import Witness
from tests.sync.clients import RedisCli, product, rows, run, watch

MAX_STEPS = 200
# What a step leaves is what the next one finds: between two steps only this process does anything,
# and it dies.
each_moment = pytest.mark.parametrize(
    "when", ["before", pytest.param("after", marks=pytest.mark.proof)]
)


class Killed(BaseException):
    pass


class Steps:
    """Each call to a server is a step. `at`: what happens before or after the step of this
    number."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.count = 0
        self.at: dict[tuple[int, str], Callable[[], None]] = {}
        for owner, name in ((Database, "_run"), (Client, "ask_many"), (Client, "call")):
            patch.setattr(owner, name, self._counting(getattr(owner, name)))

    def _counting(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any, **named: Any) -> Any:
            self.count += 1
            step = self.count
            self.at.pop((step, "before"), lambda: None)()
            answer = call(*arguments, **named)
            self.at.pop((step, "after"), lambda: None)()
            return answer

        return counted


def kill() -> None:
    raise Killed


def begin(shop: InProcess, witness: Witness, cli: RedisCli) -> None:
    """Each kind of work for the next run: rows that changed on one side, and on both."""
    witness.query("DELETE FROM watched_ranges")
    for table in ("watched", "sync_runs", "sync_lease"):
        witness.query(f"DELETE FROM {table}")
    for key in cli("KEYS *Product:*"):
        cli("DEL", key)
    witness.query("DELETE FROM products")
    shop.write([product(key) for key in range(1, 7)], TABLE="products")
    watch(shop, [1, 2, 3, 4, 9])
    watch(shop, ["*"], "to_cache", FORM="hash")
    run()
    cli.put("Product:1", Price=1)
    witness.query("UPDATE products SET Price = 2 WHERE ProductId = 2")
    cli.put("Product:3", Price=3)
    witness.query("UPDATE products SET Price = 33 WHERE ProductId = 3")
    cli("SET", "Product:4", '{"Price": 4}')
    witness.query("DELETE FROM products WHERE ProductId = 5")
    witness.query("UPDATE products SET Price = 6 WHERE ProductId = 6")
    cli("SET", "Product:9", json.dumps(product(9)))


def end(shop: InProcess, witness: Witness, cli: RedisCli) -> None:
    """After that, whatever happened meanwhile."""
    prices = {1: 1, 2: 2, 3: 3, 4: 4, 6: 6, 9: 400}
    assert {row["ProductId"]: row["Price"] for row in rows(witness, *range(10))} == prices
    written = (1, 3, 4, 9)  # through the service, so that the cache has them too
    assert shop.read(written, TABLE="products").rows == rows(witness, *written)
    for key in (1, 2, 3, 4, 9):
        assert cli.row(f"Product:{key}") == rows(witness, key)[0]
    hashes = {int(key.split(b":")[-1]) for key in cli("KEYS UsingHash:*")}
    assert hashes == set(prices)
    for key, price in prices.items():
        assert cli.row(f"UsingHash:Product:{key}")["Price"] == str(price)


def expire_lease(witness: Witness) -> None:
    """Half a minute later."""
    witness.query("UPDATE sync_lease SET expires_at = '2000-01-01'")


def killed_runs(
    steps: Steps, witness: Witness, prepare: Callable[[], object], when: str = "after"
) -> Iterator[int]:
    """The number of each step of a run that was killed before or after it. `prepare` is called
    ahead of each run. The last run comes to its end."""
    for step in range(1, MAX_STEPS):
        prepare()
        steps.at = {(steps.count + step, when): kill}
        try:
            run()
        except Killed:
            expire_lease(witness)
            yield step
            continue
        finally:
            steps.at = {}
        assert step > 10, "a run that does nothing"
        return
    raise AssertionError("it never ends")


@pytest.fixture
def steps(service: InProcess, monkeypatch: pytest.MonkeyPatch) -> Steps:
    return Steps(monkeypatch)


@each_moment
def test_a_run_that_is_killed_at_any_step_is_repeated(
    service: InProcess, witness: Witness, cli: RedisCli, steps: Steps, when: str
) -> None:
    for _ in killed_runs(steps, witness, lambda: begin(service, witness, cli), when):
        assert run()["outcome"] == "done"
        end(service, witness, cli)
    end(service, witness, cli)


def test_a_run_that_is_killed_where_it_splits_a_range_of_rows_forgets_none(
    service: InProcess,
    witness: Witness,
    cli: RedisCli,
    steps: Steps,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """There were more rows since. Behind the split one was changed, but not its public key."""
    monkeypatch.setattr(range_scan, "RANGE_ROWS", 3)

    def prepare() -> None:
        for table in ("watched", "watched_ranges", "products"):
            witness.query(f"DELETE FROM {table}")
        for key in cli("KEYS Product:*"):
            cli("DEL", key)
        fill(witness, 10, 20, 30)
        watch(service, ["*"])
        run()
        fill(witness, *range(11, 16))
        witness.query("UPDATE products SET Price = 8 WHERE ProductId = 30")

    def fill(witness: Witness, *keys: int) -> None:
        for key in keys:
            witness.query("INSERT INTO products VALUES (%s, '', '', 10, 400)", [key])

    for _ in killed_runs(steps, witness, prepare):
        assert run()["outcome"] == "done"
        assert rows(witness, 30)[0]["Price"] == cli.row("Product:30")["Price"] == 8


@pytest.mark.proof
def test_redis_flushed_at_any_step(
    service: InProcess, witness: Witness, cli: RedisCli, steps: Steps
) -> None:
    """What clients left there and no run has read is gone; nothing else is."""
    for step in range(1, MAX_STEPS):
        begin(service, witness, cli)
        steps.at = {(steps.count + step, "before"): lambda: cli("FLUSHALL")}
        run()
        if steps.at:
            break
        run()
        for row in rows(witness, *range(10)):
            key = row["ProductId"]
            assert {k: str(v) for k, v in row.items()} == cli.row(f"UsingHash:Product:{key}")
            if key in (1, 2, 3, 4, 9):
                assert cli.row(f"Product:{key}") == row
        steps.at = {}
    assert 15 < step < MAX_STEPS - 1


@pytest.mark.parametrize("fault", ["made a replica", "connections lost"])
def test_the_database_fails_at_any_step(
    service: InProcess, witness: Witness, cli: RedisCli, steps: Steps, mariadb: MariaDB, fault: str
) -> None:
    """A run that ends with an error is repeated."""

    def fail() -> None:
        if fault == "made a replica":
            witness.query("SET GLOBAL read_only = 1")
            return
        witness.kill_connections(mariadb.user)

    outcomes = Counter[str]()
    for step in range(1, MAX_STEPS):
        begin(service, witness, cli)
        steps.at = {(steps.count + step, "before"): fail}
        try:
            outcomes[run()["outcome"]] += 1
        except errors.HerocacheError as error:
            outcomes[error.kind] += 1
        finally:
            witness.query("SET GLOBAL read_only = 0")
        if steps.at:
            break
        expire_lease(witness)
        assert run()["outcome"] == "done"
        end(service, witness, cli)
    assert 15 < step < MAX_STEPS - 1
    assert set(outcomes) <= {"done", "DatabaseUnavailable", "OutcomeUnknown"}, outcomes
    assert outcomes["DatabaseUnavailable"] > 0 or fault != "made a replica"


def test_a_run_that_is_overtaken_at_any_step_changes_no_row(
    service: InProcess, witness: Witness, cli: RedisCli, steps: Steps
) -> None:
    """It slept so long that its lease ran out, another run has begun and ended, and rows were
    changed since."""
    superseded = 0
    for step in range(1, MAX_STEPS):
        begin(service, witness, cli)
        states: list[object] = []

        def overtake(states: list[object] = states) -> None:
            expire_lease(witness)
            run()
            witness.query("UPDATE products SET Price = 77 WHERE ProductId < 5")
            states.append(rows(witness, *range(10)))

        steps.at = {(steps.count + step, "before"): overtake}
        record = run()
        if steps.at:
            break
        assert rows(witness, *range(10)) == states[0]
        superseded += record["outcome"] == "superseded"
    assert 15 < step < MAX_STEPS - 1
    assert superseded > 10


def test_a_second_run_ends_at_once(
    shop: InProcess, witness: Witness, cli: RedisCli, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch(shop, [22], "to_cache")
    store = type(services.container().public_store)
    read, others = store.read_many, []

    def meanwhile(*arguments: object) -> object:
        others.append(run())
        return read(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(store, "read_many", meanwhile)
    assert run()["outcome"] == "done"
    assert [other["outcome"] for other in others] == ["overlap"]
    assert witness.query("SELECT outcome FROM sync_runs") == [("done",)]


def test_many_events_at_once(shop: InProcess, witness: Witness, cli: RedisCli) -> None:
    begin(shop, witness, cli)
    outcomes: list[str] = []

    def one() -> None:
        outcomes.append(run()["outcome"])

    threads = [threading.Thread(target=one) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)

    assert "done" in outcomes
    assert set(outcomes) <= {"done", "overlap"}
    end(shop, witness, cli)


def test_the_same_event_three_times(shop: InProcess, witness: Witness, cli: RedisCli) -> None:
    begin(shop, witness, cli)
    first, *others = [run() for _ in range(3)]
    assert first["to_database"]["changed"] > 0
    for record in others:
        assert record["outcome"] == "done"
        assert record["to_database"]["changed"] == record["to_cache"]["changed"] == 0
        assert record["details"] == []
    end(shop, witness, cli)


def test_a_run_that_slept_sets_no_public_key(
    shop: InProcess, cli: RedisCli, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch(shop, [22], "to_cache")
    store = type(services.container().public_store)
    monkeypatch.setattr(store, "deadline", lambda *_: 1)

    assert run()["outcome"] == "superseded"

    assert cli("EXISTS Product:22") == 0
    monkeypatch.undo()
    assert run()["outcome"] == "done", "its lease is free"


def test_what_a_client_does_while_a_run_looks_is_not_lost(
    shop: InProcess, witness: Witness, cli: RedisCli, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch(shop, [22], FORM="hash")
    run()
    witness.query("UPDATE products SET Price = 1 WHERE ProductId = 22")
    store = type(services.container().public_store)
    put = store.set_many

    def after_a_count(*arguments: object) -> object:
        cli("HINCRBY UsingHash:Product:22 QuantityInStock -1")
        return put(*arguments)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(store, "set_many", after_a_count)
        run()
    assert cli.row("UsingHash:Product:22")["QuantityInStock"] == "2999"

    record = run()

    assert rows(witness, 22)[0]["QuantityInStock"] == 2999
    assert record["details"][0]["reason"].startswith("both were changed")


def test_a_redis_that_fails_fails_the_run_and_frees_its_lease(
    shop: InProcess, witness: Witness, cli: RedisCli, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch(shop, [22], "to_cache")
    store = type(services.container().public_store)

    def fail(*_: object) -> None:
        raise errors.CacheUnavailable("it is away")

    with monkeypatch.context() as patch:
        patch.setattr(store, "read_many", fail)
        with pytest.raises(errors.CacheUnavailable):
            run()
    [(outcome, details)] = witness.query("SELECT outcome, details FROM sync_runs")
    assert (outcome, json.loads(details)) == (
        "failed",
        [{"key": "products", "reason": "Redis: it is away"}],
    )
    assert run()["outcome"] == "done"


def test_a_record_tells_what_a_run_did(shop: InProcess, witness: Witness, cli: RedisCli) -> None:
    begin(shop, witness, cli)
    witness.query("DELETE FROM sync_runs")
    record = run()

    names = [
        f"{direction}_{count}"
        for direction in ("to_cache", "to_database")
        for count in ("looked", "changed", "reported")
    ]
    [(id, outcome, seconds, details, *counts)] = witness.query(
        "SELECT id, outcome, TIMESTAMPDIFF(SECOND, started_at, finished_at), details,"
        f" {', '.join(names)} FROM sync_runs"
    )
    assert (id, outcome, json.loads(details)) == (record["run"], "done", record["details"])
    assert 0 <= seconds < 60
    told = [
        record[direction][count]
        for direction in ("to_cache", "to_database")
        for count in ("looked", "changed", "reported")
    ]
    assert counts == told


def test_a_run_that_died_is_told(shop: InProcess, witness: Witness) -> None:
    lease = runs.take_lease(services.container().database)
    assert lease
    lease.begin_record()
    expire_lease(witness)
    run()
    assert sorted(witness.query("SELECT outcome FROM sync_runs")) == [("died",), ("done",)]


@pytest.mark.usefixtures("service")
def test_a_run_renews_its_lease_however_short_its_steps_are(
    witness: Witness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each step commits something; none of them alone takes as long as a third of the lease."""
    passed = [0.0]
    monkeypatch.setattr(runs, "clocks", lambda: (passed[0], passed[0]))
    monkeypatch.setattr(runs, "seconds_since", lambda before: passed[0] - before[0])
    lease = runs.take_lease(services.container().database)
    assert lease
    expiry = "SELECT expires_at FROM sync_lease"
    begun = witness.query(expiry)
    for _ in range(4):
        assert witness.query(expiry) == begun, "not before it is due"
        passed[0] += runs.LEASE_SECONDS / 10
        lease.run()

    assert witness.query(expiry) > begun
