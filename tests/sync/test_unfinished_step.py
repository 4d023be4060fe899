"""A run that ends within a step, a write that is acknowledged then, and the next run: the write
stays, because no client has touched the public key."""

import contextlib
import threading
from collections.abc import Mapping
from functools import partial
from typing import Any

import pytest

from chalicelib.db import Transaction
from chalicelib.rows import WriteThrough
from chalicelib.sync import range_scan, to_database
from chalicelib.tables import HASH, JSON, TO_CACHE, Table
from tests.support.client import InProcess
from tests.support.topologies import wait_until
from tests.support.witness import Witness
from tests.sync.clients import RedisCli, as_json, ask, product, rows, run, unwatch, watch
from tests.sync.test_faults import (
    MAX_STEPS,
    Killed,
    Steps,
    each_moment,
    expire_lease,
    kill,
    killed_runs,
)

KEYS = range(1, 9)
MANY = 120
BY_A_CLIENT = {3: 31, 4: 41, 5: 51}


@pytest.fixture
def steps(service: InProcess, monkeypatch: pytest.MonkeyPatch) -> Steps:
    return Steps(monkeypatch)


def begin(service: InProcess, witness: Witness, cli: RedisCli, watched: object, form: str) -> None:
    """Rows that were changed (1, 2) and deleted (7), public keys that a client has changed whole
    (3), in part (4), made (5) and deleted (6), and a row that is new (8)."""
    for table in ("watched", "watched_ranges", "sync_runs", "sync_lease", "products"):
        witness.query(f"DELETE FROM {table}")
    for name in cli("KEYS *Product:*"):
        cli("DEL", name)
    service.write([product(key) for key in (1, 2, 3, 4, 6, 7)], TABLE="products")
    watch(service, [*KEYS] if watched == "each" else ["*"], FORM=form)
    run()
    service.write([product(key, Price=2) for key in (1, 2)], TABLE="products")
    witness.query("DELETE FROM products WHERE ProductId = 7")
    put(cli, form, 3, product(3, Price=31))
    put(cli, form, 4, {"Price": 41})
    put(cli, form, 5, product(5, Price=51))
    cli("DEL", name_of(form, 6))
    service.write([product(8, Price=2)], TABLE="products")


def name_of(form: str, key: int) -> str:
    return f"Product:{key}" if form == JSON else f"UsingHash:Product:{key}"


def put(cli: RedisCli, form: str, key: int, row: Mapping[str, object]) -> None:
    if form == JSON:
        cli("SET", name_of(form, key), as_json(row))
        return
    cli("DEL", name_of(form, key))
    cli.redis.hset(name_of(form, key), mapping={name: str(value) for name, value in row.items()})


def prices(witness: Witness) -> dict[int, int]:
    return dict(
        witness.query("SELECT ProductId, Price FROM products WHERE ProductId <= %s", [KEYS[-1]])
    )


@each_moment
@pytest.mark.parametrize(
    ("watched", "form"),
    [("each", JSON), ("every", HASH)]
    + [
        pytest.param(*other, marks=pytest.mark.proof) for other in (("each", HASH), ("every", JSON))
    ],
)
def test_a_write_behind_a_run_that_was_killed_at_any_step_stays(
    service: InProcess,
    witness: Witness,
    cli: RedisCli,
    steps: Steps,
    watched: str,
    form: str,
    when: str,
) -> None:
    prepare = partial(begin, service, witness, cli, watched, form)
    for step in killed_runs(steps, witness, prepare, when):
        found = prices(witness)
        written = [key for key in KEYS if key != 7]
        service.write([product(key, Price=77) for key in written], TABLE="products")
        expected = dict.fromkeys(written, 77)
        # A client has changed these since the last run, and no row had followed.
        expected |= {k: price for k, price in BY_A_CLIENT.items() if found.get(k) != price}
        for _ in range(2):
            run()
            assert prices(witness) == expected, step
        shown = {key: cli.row(name_of(form, key)) for key in KEYS}
        assert {k: int(row["Price"]) for k, row in shown.items() if row} == expected, step
        assert witness.query("SELECT COUNT(*) FROM watched WHERE unfinished IS NOT NULL") == [(0,)]
        left = "SELECT COUNT(*) FROM watched_ranges WHERE unfinished <> ''"
        assert witness.query(left) == [(0,)]


def test_a_client_that_comes_behind_the_killed_run_counts(
    service: InProcess, witness: Witness, cli: RedisCli, steps: Steps
) -> None:
    """Also where the next run is killed, too."""
    prepare = partial(begin, service, witness, cli, "every", JSON)
    for step in killed_runs(steps, witness, prepare):
        service.write([product(key, Price=77) for key in KEYS], TABLE="products")
        for key in KEYS:
            put(cli, JSON, key, product(key, Price=88))
        steps.at = {(steps.count + step, "before"): kill}
        with contextlib.suppress(Killed):
            run()
        steps.at = {}
        expire_lease(witness)
        run()
        assert prices(witness) == dict.fromkeys(KEYS, 88), step


@pytest.mark.parametrize("watched", ["each", "every"])
@pytest.mark.parametrize("range_rows", [2, 5_000])
def test_what_a_killed_run_has_recorded_outlives_another_one(
    service: InProcess,
    witness: Witness,
    cli: RedisCli,
    steps: Steps,
    monkeypatch: pytest.MonkeyPatch,
    watched: str,
    range_rows: int,
) -> None:
    """Row 3 follows in a run that is killed, row 5 in the next one, which is killed too. A range of
    the second run may be shorter."""

    def run_until(key: int, price: int) -> None:
        for step in range(1, MAX_STEPS):
            steps.at = {(steps.count + step, "after"): kill}
            with contextlib.suppress(Killed):
                run()
            expire_lease(witness)
            if prices(witness).get(key) == price:
                break
        steps.at = {}

    begin(service, witness, cli, watched, JSON)
    for key in BY_A_CLIENT:
        put(cli, JSON, key, product(key))
    run()
    put(cli, JSON, 3, product(3, Price=31))
    run_until(3, 31)
    monkeypatch.setattr(range_scan, "RANGE_ROWS", range_rows)
    put(cli, JSON, 1, product(1, Price=11))
    run_until(1, 11)
    service.write([product(key, Price=77) for key in (1, 3)], TABLE="products")
    run()
    assert prices(witness)[1] == prices(witness)[3] == 77


@pytest.mark.parametrize(
    ("watched", "form"),
    [("every", JSON)]
    + [pytest.param(*other, marks=pytest.mark.proof) for other in (("each", HASH), ("each", JSON))],
)
def test_a_client_that_takes_its_change_back_behind_the_killed_run_counts(
    service: InProcess, witness: Witness, cli: RedisCli, steps: Steps, watched: str, form: str
) -> None:

    def prepare() -> None:
        begin(service, witness, cli, watched, form)
        put(cli, form, 3, product(3, Price=31))

    for step in killed_runs(steps, witness, prepare):
        has_followed = prices(witness)[3] == 31
        put(cli, form, 3, product(3))
        run()
        assert prices(witness)[3] == 400, (step, has_followed)
        assert int(cli.row(name_of(form, 3))["Price"]) == 400


def test_a_deleted_row_belongs_to_the_part_of_a_range_in_which_its_key_lies(
    service: InProcess,
    witness: Witness,
    cli: RedisCli,
    steps: Steps,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The range has become too large. Row 1 is made again, behind a run that was killed."""

    def prepare() -> None:
        begin(service, witness, cli, "every", JSON)
        monkeypatch.setattr(range_scan, "RANGE_ROWS", 2)
        witness.query("DELETE FROM products WHERE ProductId = 1")

    for step in killed_runs(steps, witness, prepare):
        service.write([product(1, Price=77)], TABLE="products")
        for _ in range(2):
            run()
            assert prices(witness)[1] == 77, step
            assert cli.row("Product:1")["Price"] == 77, step
        monkeypatch.setattr(range_scan, "RANGE_ROWS", 5_000)


@pytest.mark.parametrize("watched", ["each", "every"])
def test_a_write_behind_a_run_that_was_killed_when_many_rows_had_followed_stays(
    service: InProcess,
    witness: Witness,
    cli: RedisCli,
    monkeypatch: pytest.MonkeyPatch,
    watched: str,
) -> None:
    """But where a client has changed a public key since then, that counts."""
    keys = range(1, MANY + 1)
    service.write([product(key) for key in keys], TABLE="products")
    watch(service, [*keys] if watched == "each" else ["*"])
    run()
    cli.redis.mset({f"Product:{key}": as_json(product(key, Price=9)) for key in keys})
    real = WriteThrough.replace_many

    def kill_behind(*arguments: Any) -> None:
        real(*arguments)
        raise Killed

    with monkeypatch.context() as patched, contextlib.suppress(Killed):
        patched.setattr(WriteThrough, "replace_many", kill_behind)
        run()
    expire_lease(witness)
    service.write([product(key, Price=10) for key in keys], TABLE="products")
    put(cli, JSON, 3, product(3))
    put(cli, JSON, 4, product(4, Price=11))
    for _ in range(2):
        run()
        expected = {key: {3: 400, 4: 11}.get(key, 10) for key in KEYS}
        assert prices(witness) == expected
        assert {key: cli.row(f"Product:{key}")["Price"] for key in KEYS} == expected


@pytest.mark.proof
def test_many_rows_that_were_written_at_once(
    service: InProcess, witness: Witness, cli: RedisCli, steps: Steps
) -> None:
    keys = range(1, MANY + 1)

    def prepare() -> None:
        for table in ("watched", "watched_ranges", "sync_runs", "sync_lease", "products"):
            witness.query(f"DELETE FROM {table}")
        service.write([product(key) for key in keys], TABLE="products")
        watch(service, ["*"])
        run()
        texts = {f"Product:{key}": as_json(product(key, Price=9)) for key in keys}
        cli.redis.mset(texts)

    for step in killed_runs(steps, witness, prepare):
        has_followed = rows(witness, 1)[0]["Price"] == 9
        service.write([product(key, Price=10) for key in keys], TABLE="products")
        run()
        expected = 10 if has_followed else 9
        assert {row["Price"] for row in rows(witness, *keys)} == {expected}, step


@pytest.mark.parametrize("then", ["unwatch", TO_CACHE])
def test_rows_do_not_follow_behind_the_end_of_a_watch(
    service: InProcess,
    witness: Witness,
    cli: RedisCli,
    monkeypatch: pytest.MonkeyPatch,
    then: str,
) -> None:
    """The run has asked whether they are watched for all rows of the step at once."""
    monkeypatch.setattr(to_database, "MAX_WRITTEN_ROWS", 2)
    begin(service, witness, cli, "every", HASH)
    for key in (1, 2, 3, 4, 6):
        put(cli, HASH, key, {"Price": 9})
    real = WriteThrough.change
    answers: list[str] = []

    def end_watch() -> None:
        if then == "unwatch":
            unwatch(service, ["*"], FORM=HASH)
        else:
            watch(service, ["*"], then, FORM=HASH)
        service.write([product(key, Price=77) for key in KEYS], TABLE="products")

    def change(self: WriteThrough, *arguments: object, **named: object) -> object:
        if not answers and any(getattr(each, "is_of_sync", False) for each in arguments):
            answers.append("first")
            done = real(self, *arguments, **named)  # type: ignore[arg-type]
            thread = threading.Thread(target=end_watch)
            thread.start()
            thread.join()
            return done
        return real(self, *arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(WriteThrough, "change", change)
    assert run()["outcome"] == "done"
    assert answers
    assert prices(witness) == dict.fromkeys(KEYS, 77)
    run()
    assert prices(witness) == dict.fromkeys(KEYS, 77)
    assert ask(service, "watched").status == 200


@pytest.mark.parametrize("then", ["unwatch", TO_CACHE])
def test_many_rows_do_not_follow_behind_the_end_of_a_watch(
    service: InProcess,
    witness: Witness,
    cli: RedisCli,
    monkeypatch: pytest.MonkeyPatch,
    then: str,
) -> None:
    keys = range(1, MANY + 1)
    service.write([product(key) for key in keys], TABLE="products")
    watch(service, ["*"])
    run()
    cli.redis.mset({f"Product:{key}": as_json(product(key, Price=9)) for key in keys})
    real = WriteThrough.replace_many
    calls = []

    def end_before(*arguments: Any) -> None:
        calls.append("at once")
        if then == "unwatch":
            unwatch(service, ["*"])
        else:
            watch(service, ["*"], then)
        real(*arguments)

    monkeypatch.setattr(WriteThrough, "replace_many", end_before)
    run()
    assert calls == ["at once"]
    assert witness.query("SELECT DISTINCT Price FROM products") == [(400,)]


def test_the_end_of_a_watch_waits_for_rows_that_follow(
    service: InProcess, witness: Witness, cli: RedisCli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run whose transaction has begun commits before the watch has ended, or not at all."""
    begin(service, witness, cli, "every", HASH)
    witness.query("DELETE FROM watched_ranges")  # a range that is there would be waited for
    put(cli, HASH, 1, {"Price": 9})
    ended = threading.Event()
    real = to_database._StepClaim.record
    threads: list[threading.Thread] = []

    def end_watch() -> None:
        unwatch(service, ["*"], FORM=HASH)
        ended.set()

    def record(self: object, *arguments: object) -> None:
        real(self, *arguments)  # type: ignore[arg-type]
        if not threads:
            threads.append(threading.Thread(target=end_watch))
            threads[0].start()
            assert not ended.wait(0.3)

    monkeypatch.setattr(to_database._StepClaim, "record", record)
    run()
    threads[0].join()
    found = prices(witness)
    run()
    assert prices(witness) == found


@pytest.mark.parametrize("count", [1, MANY], ids=["few rows", "many at once"])
def test_rows_that_wait_for_the_end_of_a_watch_do_not_follow(
    service: InProcess,
    witness: Witness,
    cli: RedisCli,
    monkeypatch: pytest.MonkeyPatch,
    count: int,
) -> None:
    """The transaction of a run waits for the generation that the `unwatch` holds."""
    keys = range(1, count + 1)
    service.write([product(key) for key in keys], TABLE="products")
    watch(service, ["*"])
    run()
    for key in keys:
        cli.put(f"Product:{key}", Price=9)
    wait_for_writers, records = Transaction.wait_for_writers, list[Any]()
    later = threading.Thread(target=lambda: records.append(run()))
    waits = (
        "SELECT 1 FROM information_schema.processlist WHERE id <> CONNECTION_ID() AND"
        " info REGEXP 'cache_generation.*(SHARE MODE|FOR UPDATE)$'"
    )

    def run_behind(transaction: Transaction, table: Table) -> None:
        monkeypatch.setattr(Transaction, "wait_for_writers", wait_for_writers)
        wait_for_writers(transaction, table)
        later.start()
        wait_until(lambda: bool(witness.query(waits) or records))

    monkeypatch.setattr(Transaction, "wait_for_writers", run_behind)
    unwatch(service, ["*"])
    later.join()

    assert [record["to_database"]["changed"] for record in records] == [0]
    assert witness.query("SELECT DISTINCT Price FROM products") == [(400,)]
