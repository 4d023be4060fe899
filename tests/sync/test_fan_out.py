"""A run with many rows hands ranges of them to the function `sync_range`: what comes twice, late or
never, and who dies or sleeps meanwhile. The same end."""

import json
import random
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from app import sync_range
from chalicelib import errors, services
from chalicelib.handlers import entry_points
from chalicelib.ingest import Bucket
from chalicelib.rows import WriteThrough
from chalicelib.sync import fan_out, range_claims, range_scan, range_worker, runs, service
from chalicelib.tables import Table
from local.servers.mariadb import integers
from tests.conftest import Configure
from tests.support.bucket import Event, UploadBucket, owned_by
from tests.support.client import InProcess, heroes
from tests.support.witness import Witness
from tests.sync.clients import RedisCli, product, run, tallies, unwatch, watch
from tests.sync.test_faults import MAX_STEPS, Killed, Steps, each_moment, expire_lease, kill

ROWS = 10_000
# In the run, in a range, and at a time: no more than one answer of the Data API holds.
IN_RUN, HANDED, STEP = 2_000, 3_400, 250


@pytest.fixture
def sizes(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def sizes(in_run: int = IN_RUN, handed: int = HANDED, step: int = STEP) -> None:
        monkeypatch.setattr(service, "MAX_ROWS_IN_RUN", in_run)
        monkeypatch.setattr(fan_out, "MAX_ROWS_IN_RANGE", handed)
        monkeypatch.setattr(range_scan, "RANGE_ROWS", step)
        for module in (service, range_worker):
            monkeypatch.setattr(module, "BATCH_ROWS", step)

    sizes()
    monkeypatch.setattr(range_worker, "POLL_SECONDS", 0.01)
    return sizes


@pytest.fixture
def shop(witness: Witness, configure: Configure, bucket: UploadBucket, sizes: object) -> InProcess:
    configure(RANGES_BUCKET=bucket.name)
    return InProcess()


def fill(witness: Witness, first: int, last: int) -> None:
    witness.query(
        "INSERT INTO products SELECT seq, CONCAT('Product ', seq), '', 10, 400"
        f" FROM {integers(first, last)}"
    )


def told(bucket: UploadBucket, run: int) -> list[Event]:
    """The events of a run's ranges, as S3 sends them, in their order."""
    listed = bucket.keys()
    count = len([key for key in listed if key.startswith(f"{run}/")])
    keys = [f"{run}/{number}.json" for number in range(1, count + 1)]
    assert all(json.loads(bucket.get(key) or "")["run"] == run for key in keys)
    return [event_of(bucket, key) for key in keys]


def event_of(bucket: UploadBucket, key: str) -> Event:
    stored = {"bucket": {"name": bucket.name}, "object": {"key": key, "size": 9}}
    return {"Records": [{"eventName": "ObjectCreated:Put", "s3": stored}]}


def begun(ranges: int) -> Any:
    """The record of a run that has handed out so many ranges."""
    record = run()
    assert (record["outcome"], record["ranges"]) == ("running", ranges)
    return record


def work_off(event: Event) -> Any:
    [record] = sync_range(event, None)
    return record


def ended(witness: Witness, run: int) -> tuple[str, tuple[int, ...], tuple[int, ...]]:
    """What `sync_runs` says: looked at, changed, reported."""
    [(outcome, *counts)] = witness.query(
        "SELECT outcome, to_cache_looked, to_cache_changed, to_cache_reported, to_database_looked,"
        " to_database_changed, to_database_reported FROM sync_runs WHERE id = %s",
        [run],
    )
    return outcome, tuple(counts[:3]), tuple(counts[3:])


def all_public(cli: RedisCli, form: str = "Product:*") -> dict[int, Any]:
    keys = cli("KEYS", form)
    values: Any = cli.redis.mget(keys)
    return {int(k.split(b":")[-1]): json.loads(v) for k, v in zip(keys, values)}


def all_rows(witness: Witness) -> dict[int, Any]:
    names = list(product(1))
    found = witness.query(f"SELECT {','.join(names)} FROM products")
    return {row[0]: dict(zip(names, row)) for row in found}


def test_ranges_are_worked_off_in_any_order_and_the_last_one_ends_the_run(
    shop: InProcess, witness: Witness, cli: RedisCli, bucket: UploadBucket
) -> None:
    fill(witness, 1, ROWS)
    watch(shop, ["*"], "to_cache")

    record = begun(ranges=3)
    events = told(bucket, record["run"])
    random.shuffle(events)
    done = []
    for event in events:
        assert ended(witness, record["run"])[0] == "running"
        done.append(work_off(event))

    assert {each["outcome"] for each in done} == {"done"}
    assert sorted(each["to_cache"]["looked"] for each in done) == [3_200, 3_400, 3_400]
    assert ended(witness, record["run"]) == ("done", (ROWS, ROWS, 0), (0, 0, 0))
    assert all_public(cli) == all_rows(witness)
    assert witness.query("SELECT synced_at IS NULL FROM watched") == [(0,)]
    assert is_idle()


def test_who_is_told_that_a_run_has_ended_is_told_all_that_it_did(
    shop: InProcess, witness: Witness, bucket: UploadBucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where its ranges end between the two questions of who waits for it."""
    fill(witness, 1, ROWS)
    watch(shop, ["*"], "to_cache")
    record = begun(ranges=3)
    ranges_of = range_claims.ranges_of

    def end_meanwhile(*arguments: Any) -> Any:
        monkeypatch.setattr(range_worker, "ranges_of", ranges_of)
        found = ranges_of(*arguments)
        for event in told(bucket, record["run"]):
            work_off(event)
        return found

    monkeypatch.setattr(range_worker, "ranges_of", end_meanwhile)
    worker = services.container().range_worker
    told_first, _ = worker.progress(record["run"])
    told_then, done = worker.progress(record["run"])

    assert told_first.outcome == "running"
    assert (told_then.outcome, told_then.tallies["to_cache"].looked, done) == ("done", ROWS, 3)


def test_the_second_run_finds_its_ranges_and_splits_those_that_have_grown(
    shop: InProcess, witness: Witness, cli: RedisCli, bucket: UploadBucket
) -> None:
    fill(witness, 1, 2_500)
    fill(witness, 20_001, 20_500)
    watch(shop, ["*"], "to_cache")
    for event in told(bucket, begun(ranges=1)["run"]):
        work_off(event)
    fill(witness, 5_001, 15_000)
    witness.query("DELETE FROM products WHERE ProductId BETWEEN 2100 AND 2200")
    witness.query("UPDATE products SET Price = 7 WHERE ProductId = 20500")

    record = begun(ranges=5)
    for event in told(bucket, record["run"]):
        work_off(event)

    assert all_public(cli) == all_rows(witness)
    # The deleted ones are looked at, too.
    looked, changed, _ = ended(witness, record["run"])[1]
    assert (looked, changed) == (13_000, 10_000 + 101 + 1)
    assert list(tallies(run_alone())) == [(12_899, 0, 0), (0, 0, 0)]


def test_rows_between_those_of_a_range_part_what_both_sides_had_last(
    shop: InProcess,
    witness: Witness,
    cli: RedisCli,
    bucket: UploadBucket,
    sizes: Callable[..., None],
) -> None:
    """Each of the ranges that are handed out knows what its own rows had."""
    sizes(in_run=3, handed=4, step=3)
    for key in (10, 20, 30):
        fill(witness, key, key)
    watch(shop, ["*"])
    run_alone()
    fill(witness, 11, 19)
    witness.query("UPDATE products SET Price = 8 WHERE ProductId = 30")

    for event in reversed(told(bucket, begun(ranges=3)["run"])):
        work_off(event)

    assert all_rows(witness)[30]["Price"] == cli.row("Product:30")["Price"] == 8


def is_idle() -> bool:
    """The other tables are looked at first."""
    return [run(None)["to_cache"]["looked"], run(None)["outcome"]] == [0, "idle"]


def run_alone() -> Any:
    return services.container().sync.run("products", alone=True)


def test_rows_follow_public_keys_in_ranges(
    shop: InProcess, witness: Witness, cli: RedisCli, bucket: UploadBucket
) -> None:
    fill(witness, 1, ROWS)
    watch(shop, ["*"])
    watch(shop, [9_999], "to_cache")
    run_alone()
    for key in (7, 4_999, 5_001, 9_998, 9_999, 10_000):
        cli.put(f"Product:{key}", Price=key)
    cli("SET", "Product:6000", "garbage")

    record = begun(ranges=4)
    for event in told(bucket, record["run"]):
        work_off(event)

    outcome, to_cache, to_database = ended(witness, record["run"])
    assert (outcome, to_cache, to_database) == ("done", (1, 1, 0), (ROWS - 1, 5, 1))
    rows = all_rows(witness)
    assert [rows[key]["Price"] for key in (7, 4_999, 9_998, 10_000)] == [7, 4_999, 9_998, 10_000]
    assert rows[9_999]["Price"] == 400
    [(details,)] = witness.query("SELECT details FROM sync_runs WHERE id = %s", [record["run"]])
    assert [detail["key"] for detail in json.loads(details)] == ["Product:6000"]
    assert is_idle()
    cli.put("Product:9000", Price=1)
    assert run(None)["outcome"] == "running", "the note knows the keys of every range"


def test_what_follows_rows_that_another_range_changes_behind_it_is_left_to_the_next_run(
    shop: InProcess,
    witness: Witness,
    cli: RedisCli,
    bucket: UploadBucket,
    sizes: Callable[..., None],
) -> None:
    """Many rows that follow their JSON set no Hash at once. The Hashes were looked at before."""
    sizes(in_run=1, step=150)
    fill(witness, 1, 400)
    watch(shop, ["*"])
    watch(shop, ["*"], "to_cache", FORM="hash")
    run_alone()
    for key in range(151, 301):
        cli.put(f"Product:{key}", Price=7)
    for event in reversed(told(bucket, begun(ranges=2)["run"])):
        work_off(event)
    assert all_rows(witness)[200]["Price"] == 7
    assert cli("HGET", "UsingHash:Product:200", "Price") == b"400"

    record = run(None)
    for event in told(bucket, record["run"]):
        work_off(event)

    assert cli("HGET", "UsingHash:Product:200", "Price") == b"7"


def test_a_row_with_the_key_that_stands_for_every_row_is_no_row_watched_by_itself(
    shop: InProcess,
    witness: Witness,
    cli: RedisCli,
    bucket: UploadBucket,
    sizes: Callable[..., None],
) -> None:
    """Also in a range where other rows are."""
    sizes(in_run=1, handed=10, step=10)
    names = ["!", "*", "A", "B"]
    shop.write([{"EmpId": name, "EmpName": "Ada"} for name in names], TABLE="employees")
    watch(shop, ["B"], "to_cache", TABLE="employees")
    watch(shop, ["*"], "to_cache", TABLE="employees")
    record = run("employees")

    for event in told(bucket, record["run"]):
        work_off(event)

    assert {cli.row(f"Employee:{name}")["EmpName"] for name in names} == {"Ada"}
    unwatch(shop, ["*"], TABLE="employees")
    assert cli("KEYS Employee:*") == [b"Employee:B"]


@pytest.fixture
def unpadded(witness: Witness) -> Iterator[None]:
    """The keys of employees sort as they are, not as if blanks followed them."""
    modify = "ALTER TABLE employees MODIFY EmpId VARCHAR(255) COLLATE {} NOT NULL"
    [(version,)] = witness.query("SELECT VERSION()")
    witness.query(modify.format(f"utf8mb4_{'nopad' if 'MariaDB' in version else '0900'}_bin"))
    yield
    witness.query(modify.format("utf8mb4_bin"))


@pytest.mark.usefixtures("unpadded")
@pytest.mark.parametrize("direction", ["to_cache", "to_database"])
@pytest.mark.parametrize("rows", [2, 3])
def test_rows_whose_keys_have_control_characters_in_ranges(
    shop: InProcess,
    witness: Witness,
    cli: RedisCli,
    bucket: UploadBucket,
    sizes: Callable[..., None],
    direction: str,
    rows: int,
) -> None:
    """Each is in one range, and looked at once."""
    sizes(in_run=rows, handed=rows + 1, step=rows)
    names = ["a", "a\x01", "a\x01\x01", "a\x02b", "ab", "b", "b\x01", "c"]
    shop.write([{"EmpId": name, "EmpName": "Ada"} for name in names], TABLE="employees")
    watch(shop, ["*"], direction, TABLE="employees")
    for number in range(3):
        names.append(f"a\x01{number}")
        shop.write([{"EmpId": names[-1], "EmpName": "Ada"}], TABLE="employees")
        record = run("employees")
        for event in told(bucket, record["run"]):
            work_off(event)

        _, to_cache, to_database = ended(witness, record["run"])
        looked, changed, _ = to_cache if direction == "to_cache" else to_database
        assert looked == len(names)
        # Those of direction `to_cache` that are new were set with the write.
        assert changed == (direction == "to_database") + 8 * (number == 0)
        assert sorted(cli("KEYS Employee:*")) == sorted(
            f"Employee:{name}".encode() for name in names
        )


def test_a_row_whose_key_begins_with_a_control_character_is_in_the_first_range(
    shop: InProcess,
    witness: Witness,
    cli: RedisCli,
    bucket: UploadBucket,
    sizes: Callable[..., None],
) -> None:
    """The database takes it for less than an empty text."""
    sizes(in_run=1, handed=2, step=2)
    names = ["\x01a", "a", "b"]
    shop.write([{"EmpId": name, "EmpName": "Ada"} for name in names], TABLE="employees")
    watch(shop, [*names], TABLE="employees")
    record = run("employees")

    for event in told(bucket, record["run"]):
        work_off(event)

    assert ended(witness, record["run"]) == ("done", (0, 0, 0), (3, 3, 0))
    assert {cli.row(f"Employee:{name}")["EmpName"] for name in names} == {"Ada"}


def test_a_run_waits_for_every_reader_of_rows_in_ranges_before_it_ends(
    shop: InProcess,
    witness: Witness,
    cli: RedisCli,
    bucket: UploadBucket,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fill(witness, 1, ROWS)
    watch(shop, ["*"])
    run_alone()
    for key in range(1, 201):
        cli.put(f"Product:{key}", Price=9)
    record, waited = begun(ranges=4), []

    def wait(_: object, table: Table) -> None:
        outcome, *_ = ended(witness, record["run"])
        waited.append((table.name, outcome))

    monkeypatch.setattr(WriteThrough, "wait_for_readers", wait)
    for event in told(bucket, record["run"]):
        work_off(event)

    assert waited == [("products", "running")]
    assert ended(witness, record["run"])[0] == "done"


def test_rows_that_are_watched_one_by_one_in_ranges(
    shop: InProcess, witness: Witness, cli: RedisCli, bucket: UploadBucket
) -> None:
    fill(witness, 1, 7_000)
    watch(shop, [*range(1, 7_001)], "to_cache")

    record = begun(ranges=3)
    for event in told(bucket, record["run"]):
        work_off(event)

    assert ended(witness, record["run"]) == ("done", (7_000, 7_000, 0), (0, 0, 0))
    assert all_public(cli) == all_rows(witness)
    assert witness.query("SELECT COUNT(*) FROM watched WHERE seen IS NULL") == [(0,)]
    unwatch(shop, [*range(1, 7_001)])
    assert all_public(cli) == {}


def test_an_event_three_times_and_at_once(
    shop: InProcess, witness: Witness, cli: RedisCli, bucket: UploadBucket
) -> None:
    fill(witness, 1, ROWS)
    watch(shop, ["*"], "to_cache")
    record = begun(ranges=3)
    events = told(bucket, record["run"]) * 3
    outcomes: list[str] = []
    before_all = deadlocks(witness)
    threads = [
        threading.Thread(target=lambda event=event: outcomes.append(work_off(event)["outcome"]))
        for event in events
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)

    assert outcomes == ["done"] * 9
    assert deadlocks(witness) == before_all
    assert ended(witness, record["run"]) == ("done", (ROWS, ROWS, 0), (0, 0, 0))
    assert all_public(cli) == all_rows(witness)
    before = ended_at(witness, record["run"])
    assert work_off(events[0])["outcome"] == "done", "late, when all is over"
    assert ended_at(witness, record["run"]) == before


def deadlocks(witness: Witness) -> int:
    metrics = "information_schema.innodb_metrics WHERE name = 'lock_deadlocks'"
    [(count,)] = witness.query(f"SELECT count FROM {metrics}")
    return int(count)


def empty(witness: Witness, cli: RedisCli) -> None:
    for table in ("products", "watched", "watched_ranges", "sync_lease", "sync_runs"):
        witness.query(f"DELETE FROM {table}")
    cli("FLUSHALL")


def ended_at(witness: Witness, run: int) -> Any:
    return witness.query("SELECT finished_at, details FROM sync_runs WHERE id = %s", [run])


def test_a_function_that_slept_does_not_change_what_another_one_has_noted(
    shop: InProcess,
    witness: Witness,
    cli: RedisCli,
    bucket: UploadBucket,
    sizes: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Meanwhile a row is gone: so what both call the first rows are not the same."""
    sizes(in_run=5, handed=100, step=5)
    fill(witness, 1, 20)
    watch(shop, ["*"], "to_cache")
    [event] = told(bucket, begun(ranges=1)["run"])
    store = type(services.container().public_store)
    keep = store.keep

    def keep_later(*arguments: Any) -> None:
        monkeypatch.setattr(store, "keep", keep)
        witness.query("DELETE FROM products WHERE ProductId = 6")
        witness.query("UPDATE sync_ranges SET expires_at = '2000-01-01'")
        assert work_off(event)["outcome"] == "done"
        keep(*arguments)

    monkeypatch.setattr(store, "keep", keep_later)
    assert work_off(event)["outcome"] == "superseded"

    assert is_idle()
    cli.put("Product:11", Price=1)
    assert run(None)["outcome"] != "idle"


@each_moment
def test_a_function_that_is_killed_at_any_step_is_called_again(
    shop: InProcess,
    witness: Witness,
    cli: RedisCli,
    bucket: UploadBucket,
    sizes: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    when: str,
) -> None:
    """It goes on where the last one came to: what is done is not looked at again."""
    sizes(in_run=4, handed=12, step=4)
    steps = Steps(monkeypatch)
    for step in range(1, MAX_STEPS):
        empty(witness, cli)
        fill(witness, 1, 20)
        watch(shop, ["*"], "to_cache")
        record = begun(ranges=2)
        first, second = told(bucket, record["run"])
        work_off(first)
        steps.at = {(steps.count + step, when): kill}
        try:
            work_off(second)
            break
        except Killed:
            witness.query("UPDATE sync_ranges SET expires_at = '2000-01-01'")
            assert work_off(second)["outcome"] == "done"
        outcome, (looked, changed, _), _ = ended(witness, record["run"])
        assert (outcome, looked) == ("done", 20)
        # Between its step in Redis and its COMMIT it was killed: then it is in step already.
        assert 16 <= changed <= 20
        assert all_public(cli) == all_rows(witness)
    assert ended(witness, record["run"])[0] == "done"
    assert 8 < step < MAX_STEPS - 1


@pytest.mark.parametrize("is_faster", [False, True], ids=["", "a client is faster"])
def test_what_stood_in_the_first_steps_is_known_after_a_later_one_is_killed(
    shop: InProcess,
    cli: RedisCli,
    witness: Witness,
    bucket: UploadBucket,
    sizes: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    is_faster: bool,
) -> None:
    """So the next run looks where a client changes it, at once or later."""
    sizes(in_run=4, handed=100, step=4)
    fill(witness, 1, 16)
    watch(shop, ["*"], "to_cache")
    cli("SET", "Product:1", "of a client")
    [event] = told(bucket, begun(ranges=1)["run"])
    store = type(services.container().public_store)
    put, put_new, calls = store.set_many, store.set_new_many, []

    def a_client_is_faster(*arguments: Any) -> Any:
        monkeypatch.setattr(store, "set_many", put)
        cli("SET", "Product:1", "of a faster client")
        return put(*arguments)

    def die_at_the_second(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            raise Killed
        return put_new(*arguments)

    if is_faster:
        monkeypatch.setattr(store, "set_many", a_client_is_faster)
    with monkeypatch.context() as patch:
        patch.setattr(store, "set_new_many", die_at_the_second)
        with pytest.raises(Killed):
            work_off(event)
    witness.query("UPDATE sync_ranges SET expires_at = '2000-01-01'")
    assert work_off(event)["outcome"] == "done"

    if not is_faster:
        assert is_idle()
        cli.put("Product:1", Price=1)
    assert run(None)["outcome"] == "running"


def test_a_function_that_is_killed_in_a_range_leaves_it_when_its_claim_ends(
    shop: InProcess,
    witness: Witness,
    cli: RedisCli,
    bucket: UploadBucket,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fill(witness, 1, 3_000)
    watch(shop, ["*"], "to_cache")
    [event] = told(bucket, begun(ranges=1)["run"])
    store = type(services.container().public_store)
    put, calls = store.set_new_many, []

    def die_at_the_third(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise Killed
        return put(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(store, "set_new_many", die_at_the_third)
        with pytest.raises(Killed):
            work_off(event)
    [(after, seconds)] = witness.query(
        "SELECT after_key, TIMESTAMPDIFF(SECOND, UTC_TIMESTAMP(6), expires_at) FROM sync_ranges"
        " WHERE number = 1"
    )
    assert after == "500"
    assert 0 < seconds <= runs.LEASE_SECONDS

    with monkeypatch.context() as patch:
        patch.setattr(range_worker, "LEASE_SECONDS", -1)
        assert work_off(event)["outcome"] == "taken", "it may live"
    witness.query("UPDATE sync_ranges SET expires_at = '2000-01-01'")
    record = work_off(event)
    assert (record["outcome"], record["to_cache"]["looked"]) == ("done", 3_000)
    assert all_public(cli) == all_rows(witness)


@pytest.mark.parametrize(
    "direction", ["to_cache", pytest.param("to_database", marks=pytest.mark.proof)]
)
def test_a_function_that_slept_while_a_new_run_began_writes_nothing(
    shop: InProcess,
    witness: Witness,
    cli: RedisCli,
    bucket: UploadBucket,
    sizes: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    direction: str,
) -> None:
    sizes(in_run=4, handed=12, step=4)
    steps, superseded = Steps(monkeypatch), 0
    for step in range(1, MAX_STEPS):
        empty(witness, cli)
        fill(witness, 1, 12)
        watch(shop, ["*"], direction)
        run_alone()
        for key in range(1, 13):
            cli.put(f"Product:{key}", Price=1)
        [event] = told(bucket, begun(ranges=1)["run"])
        states: list[object] = []

        def overtake(states: list[object] = states) -> None:
            expire_lease(witness)
            assert run_alone()["outcome"] == "done"
            witness.query("UPDATE products SET Price = 77")
            states.append(all_rows(witness))

        steps.at = {(steps.count + step, "before"): overtake}
        outcome = work_off(event)["outcome"]
        if steps.at:
            break
        assert all_rows(witness) == states[0]
        superseded += outcome == "superseded"
    assert 5 < step < MAX_STEPS - 1
    assert superseded > 4


def test_an_event_that_comes_after_another_run_began_does_nothing(
    shop: InProcess, witness: Witness, cli: RedisCli, bucket: UploadBucket
) -> None:
    fill(witness, 1, ROWS)
    watch(shop, ["*"], "to_cache")
    first = begun(ranges=3)["run"]
    late = told(bucket, first)
    expire_lease(witness)
    second = begun(ranges=3)["run"]
    with witness.spent() as spent:
        records = [work_off(event) for event in late]
    assert [record["outcome"] for record in records] == ["superseded"] * 3
    assert spent.commands == {}, "the database says so, and Redis is not asked"
    assert all_public(cli) == {}
    for event in told(bucket, second):
        work_off(event)
    assert ended(witness, first)[0] == "died"
    assert ended(witness, second) == ("done", (ROWS, ROWS, 0), (0, 0, 0))
    assert all_public(cli) == all_rows(witness)


def test_a_range_that_never_comes_is_left_to_the_next_run(
    shop: InProcess, witness: Witness, cli: RedisCli, bucket: UploadBucket
) -> None:
    fill(witness, 1, ROWS)
    watch(shop, ["*"], "to_cache")
    first = begun(ranges=3)["run"]
    work_off(told(bucket, first)[1])
    assert run()["outcome"] == "overlap", "it may still come"
    [(seconds,)] = witness.query(
        "SELECT TIMESTAMPDIFF(SECOND, UTC_TIMESTAMP(6), expires_at) FROM sync_lease"
    )
    assert runs.LEASE_SECONDS < seconds <= runs.HANDED_SECONDS
    expire_lease(witness)
    assert run(None)["outcome"] == "running", "no note says that all is in step"
    [(second,)] = witness.query("SELECT MAX(run) FROM sync_ranges")
    for event in told(bucket, second):
        work_off(event)
    assert ended(witness, second)[0] == "done"
    assert all_public(cli) == all_rows(witness)


@pytest.mark.parametrize("name", ["sync_lease", "sync_ranges"])
def test_a_function_renews_its_claim_and_the_lease_of_its_run(
    shop: InProcess,
    witness: Witness,
    bucket: UploadBucket,
    sizes: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    """With its first transaction, and then when a third of the time has passed."""
    sizes(in_run=4, handed=100, step=4)
    fill(witness, 1, 16)
    watch(shop, ["*"], "to_cache")
    passed = [0.0]
    monkeypatch.setattr(runs, "clocks", lambda: (passed[0], passed[0]))
    monkeypatch.setattr(runs, "seconds_since", lambda before: passed[0] - before[0])
    lease = range_claims.claim(services.container().database, begun(ranges=1)["run"], 1).lease
    assert lease

    for seconds, is_renewed in ((0, True), (runs.LEASE_SECONDS / 4, False), (10, True)):
        passed[0] += seconds
        witness.query(f"UPDATE {name} SET expires_at = UTC_TIMESTAMP(6) + INTERVAL 5 SECOND")
        lease.run()
        left = "TIMESTAMPDIFF(SECOND, UTC_TIMESTAMP(6), MAX(expires_at))"
        assert witness.query(f"SELECT {left} > 10 FROM {name}") == [(is_renewed,)]


def test_a_range_that_begins_late_keeps_its_run_from_the_schedule(
    shop: InProcess,
    witness: Witness,
    cli: RedisCli,
    bucket: UploadBucket,
    sizes: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It has come when the time for it was nearly over: it renews the run's lease at once."""
    sizes(in_run=4, handed=100, step=4)
    fill(witness, 1, 16)
    watch(shop, ["*"], "to_cache")
    [event] = told(bucket, begun(ranges=1)["run"])
    store = type(services.container().public_store)
    put_new, outcomes = store.set_new_many, []

    def the_time_is_over(*arguments: Any) -> Any:
        witness.query(
            "UPDATE sync_lease SET expires_at = '2000-01-01'"
            " WHERE expires_at < UTC_TIMESTAMP(6) + INTERVAL 10 SECOND"
        )
        outcomes.append(run(None)["outcome"])
        return put_new(*arguments)

    witness.query("UPDATE sync_lease SET expires_at = UTC_TIMESTAMP(6) + INTERVAL 5 SECOND")
    monkeypatch.setattr(store, "set_new_many", the_time_is_over)

    assert work_off(event)["outcome"] == "done"

    assert {*outcomes} == {"overlap"}
    assert all_public(cli) == all_rows(witness)


def test_two_schedules_at_once(
    shop: InProcess, witness: Witness, cli: RedisCli, bucket: UploadBucket
) -> None:
    fill(witness, 1, ROWS)
    watch(shop, ["*"], "to_cache")
    records: list[Any] = []
    threads = [threading.Thread(target=lambda: records.append(run(None))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    by_outcome = {record["outcome"]: record for record in records}
    assert sorted(record["outcome"] for record in records) == ["overlap"] * 3 + ["running"]
    events = told(bucket, by_outcome["running"]["run"])
    assert len(events) == 3 == len(bucket.keys())
    for event in events:
        work_off(event)
    assert all_public(cli) == all_rows(witness)


def test_who_dies_before_it_has_ended_the_run_does_so_when_it_is_called_again(
    shop: InProcess, witness: Witness, bucket: UploadBucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(witness, 1, 3_000)
    watch(shop, ["*"], "to_cache")
    record = begun(ranges=1)
    [event] = told(bucket, record["run"])

    def die(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(range_worker.RangeWorker, "_end", die)
        with pytest.raises(Killed):
            work_off(event)
    assert ended(witness, record["run"])[0] == "running"
    assert work_off(event)["outcome"] == "done"
    assert ended(witness, record["run"]) == ("done", (3_000, 3_000, 0), (0, 0, 0))
    assert run()["outcome"] == "running", "the lease was free"


def test_a_bucket_of_another_account_gets_no_ranges(
    shop: InProcess, witness: Witness, configure: Configure, bucket: UploadBucket
) -> None:
    configure(RANGES_BUCKET=bucket.name, BUCKET_OWNER="444455556666")
    fill(witness, 1, 3_000)
    watch(shop, ["*"], "to_cache")
    with (
        owned_by("111122223333"),
        pytest.raises(errors.BucketUnavailable, match=r"AccessDenied.* is BUCKET_OWNER its owner"),
    ):
        run()
    assert bucket.keys() == set()


def test_a_bucket_that_is_gone_is_named_with_its_setting(
    shop: InProcess, witness: Witness, configure: Configure
) -> None:
    configure(RANGES_BUCKET="gone")
    fill(witness, 1, 3_000)
    watch(shop, ["*"], "to_cache")
    with pytest.raises(errors.BucketUnavailable, match=r"gone cannot .* \(RANGES_BUCKET\)"):
        run()


def test_a_bucket_that_fails_fails_the_run_and_frees_its_lease(
    shop: InProcess, witness: Witness, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(witness, 1, 3_000)
    watch(shop, ["*"], "to_cache")

    def fail(*_: object) -> None:
        raise errors.BucketUnavailable("it is away")

    with monkeypatch.context() as patch:
        patch.setattr(Bucket, "write", fail)
        services.forget()
        with pytest.raises(errors.BucketUnavailable):
            run()
    assert witness.query("SELECT outcome FROM sync_runs") == [("failed",)]
    services.forget()
    begun(ranges=1)


def test_an_error_is_raised_so_that_lambda_calls_again(
    shop: InProcess, witness: Witness, bucket: UploadBucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(witness, 1, 3_000)
    watch(shop, ["*"], "to_cache")
    [event] = told(bucket, begun(ranges=1)["run"])
    store = type(services.container().public_store)
    with monkeypatch.context() as patch:
        patch.setattr(store, "deadline", lambda *_: 1)
        with pytest.raises(errors.CacheUnavailable, match="too slow"):
            work_off(event)
    monkeypatch.setattr(range_worker, "LEASE_SECONDS", -1)  # it waits for no claim
    assert work_off(event)["outcome"] == "done", "it was released"


def test_few_rows_cost_one_statement_more_where_ranges_can_be_handed_out(
    shop: InProcess, witness: Witness, configure: Configure, bucket: UploadBucket
) -> None:
    fill(witness, 1, 50)
    watch(shop, ["*"], "to_cache")
    watch(shop, [1, 2, 3])
    run()

    def spent_in_a_run() -> tuple[int, int]:
        """Of three runs the least: one may find that its memory of a generation has run out."""
        spent = []
        for _ in range(3):
            with witness.spent() as each:
                assert run()["ranges"] == 0
            spent.append((each.statements, each.cache_round_trips))
        return min(spent)

    configure(RANGES_BUCKET=bucket.name)
    with_bucket = spent_in_a_run()
    configure(RANGES_BUCKET=None)
    statements, cache_round_trips = spent_in_a_run()
    assert with_bucket == (statements + 1, cache_round_trips), "are there too many rows?"
    assert bucket.keys() == set()


def test_a_stage_without_a_bucket_works_off_everything_in_the_run(
    shop: InProcess, witness: Witness, cli: RedisCli, configure: Configure
) -> None:
    configure(RANGES_BUCKET=None)
    fill(witness, 1, ROWS)
    watch(shop, ["*"], "to_cache")
    assert list(tallies(run())) == [(ROWS, ROWS, 0), (0, 0, 0)]
    assert all_public(cli) == all_rows(witness)


def test_an_object_that_is_no_range_is_left_alone(shop: InProcess, bucket: UploadBucket) -> None:
    for key in ("incoming/products/p.csv", "results/1/1.json", "x/1.json", "1/1"):
        assert entry_points.sync_range(event_of(bucket, key)) == []
    [record] = entry_points.sync_range(event_of(bucket, "1/1.json"))
    assert record["outcome"] == "superseded"
    assert sync_range({"run": 1}, None)["statusCode"] == 400


def test_a_range_that_fails_on_a_bug_does_not_keep_others_from_being_worked_off(
    shop: InProcess,
    witness: Witness,
    cli: RedisCli,
    bucket: UploadBucket,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fill(witness, 1, ROWS)
    watch(shop, ["*"], "to_cache")
    events = told(bucket, begun(ranges=3)["run"])
    together = {"Records": [record for event in events for record in event["Records"]]}
    own = range_worker.RangeWorker.work_off
    first: list[int] = []

    def fail_once(self: range_worker.RangeWorker, run: int, number: int) -> dict[str, Any]:
        if not first:
            first.append(number)
            raise RuntimeError("for this test")
        return own(self, run, number)

    monkeypatch.setattr(range_worker.RangeWorker, "work_off", fail_once)

    with pytest.raises(RuntimeError, match="for this test"):
        entry_points.sync_range(together)

    outcomes = [outcome for (outcome,) in witness.query("SELECT outcome FROM sync_ranges")]
    assert outcomes.count("done") >= len(events) - 1


def test_a_range_in_another_bucket_is_refused(
    shop: InProcess, witness: Witness, cli: RedisCli, bucket: UploadBucket, s3_port: int
) -> None:
    """Whoever may put objects there is not asked who they are."""
    fill(witness, 1, 3_000)
    watch(shop, ["*"], "to_cache")
    [event] = told(bucket, begun(ranges=1)["run"])
    key = event["Records"][0]["s3"]["object"]["key"]
    with pytest.raises(errors.BadRequest, match="is not the one in RANGES_BUCKET"):
        sync_range(event_of(UploadBucket(s3_port), key), None)
    assert all_public(cli) == {}
    assert work_off(event)["outcome"] == "done"


@pytest.fixture
def wide(witness: Witness) -> Iterator[None]:
    """Products have room for keys that no request can name."""
    modify = "ALTER TABLE products MODIFY ProductId {} UNSIGNED NOT NULL AUTO_INCREMENT"
    witness.query(modify.format("BIGINT"))
    yield
    witness.query("DELETE FROM products")
    witness.query(modify.format("INT"))


@pytest.mark.usefixtures("wide")
def test_ranges_begin_and_end_at_keys_that_no_request_can_name(
    shop: InProcess,
    witness: Witness,
    cli: RedisCli,
    bucket: UploadBucket,
    sizes: Callable[..., None],
) -> None:
    sizes(in_run=2, handed=3, step=2)
    keys = [1, 2, 3, *range(5_000_000_001, 5_000_000_010)]
    for key in keys:
        witness.query("INSERT INTO products VALUES (%s, '', '', 10, 400)", [key])
    watch(shop, ["*"], "to_cache")
    for price in (400, 7):
        witness.query("UPDATE products SET Price = %s", [price])
        record = begun(ranges=4)
        for event in told(bucket, record["run"]):
            assert work_off(event)["outcome"] == "done"
        assert ended(witness, record["run"])[1] == (len(keys), len(keys), 0)
        assert all_public(cli) == all_rows(witness)
    assert is_idle()


def test_a_table_that_fails_when_ranges_of_it_are_ready_is_looked_at_by_the_next_run(
    shop: InProcess,
    witness: Witness,
    cli: RedisCli,
    bucket: UploadBucket,
    sizes: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also where another table hands ranges out."""
    sizes(in_run=2, handed=100, step=2)
    shop.write(heroes(5))
    fill(witness, 1, 5)
    watch(shop, ["*"], "to_cache", TABLE="heroes")
    watch(shop, ["*"], "to_cache", TABLE="heroes", FORM="hash")
    watch(shop, ["*"], "to_cache")
    add = fan_out.FanOut.add_every_row

    def fail(self: Any, table: Table, form: str, *arguments: Any, **named: Any) -> None:
        if (table.name, form) == ("heroes", "hash"):
            raise errors.DatabaseUnavailable("no answer in time")
        add(self, table, form, *arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(fan_out.FanOut, "add_every_row", fail)
        with pytest.raises(errors.DatabaseUnavailable):
            run(None)
    [(first,)] = witness.query("SELECT id FROM sync_runs")
    for event in told(bucket, first):
        work_off(event)
    assert ended(witness, first)[0] == "failed"
    assert len(cli("KEYS Product:*")) == 5

    second = run(None)

    assert second["outcome"] == "running"
    for event in told(bucket, second["run"]):
        work_off(event)
    assert len(cli("KEYS UsingHash:Hero:*")) == len(cli("KEYS Hero:*")) == 5
    assert is_idle()
