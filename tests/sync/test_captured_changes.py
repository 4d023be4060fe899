"""Changes by other clients of the database: recorded by triggers, brought to the cache, seen by
every read after that. The service's own changes are not recorded."""

import json
import random
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from chalicelib import services
from chalicelib.cache.entries import Cache
from chalicelib.column_types import STRING
from chalicelib.db import Database, change_capture
from chalicelib.db.data_api import Connector, connector
from chalicelib.db.engine import Rows
from chalicelib.db.mysql.connection import Connection
from chalicelib.db.statements import Statement
from chalicelib.handlers import entry_points
from chalicelib.handlers.contract import REQUESTS
from chalicelib.ingest import service as ingest_service
from chalicelib.ingest.load_data import _may_replace
from chalicelib.rows import WriteThrough, changed_entries, write_through
from chalicelib.rows.loader import RowLoader
from chalicelib.sync import captured_changes
from chalicelib.tables import EMPLOYEES, HEROES, PRODUCTS, TABLES, Column, Key, Table, tables_with
from local.servers import DataApi, MariaDB
from local.servers.mariadb import integers
from seed import make_triggers
from tests.conftest import Configure, drop_triggers
from tests.support.aurora import emulated_load_from_s3
from tests.support.bucket import UploadBucket
from tests.support.client import InProcess, as_stored, hero, heroes
from tests.support.database_users import user_who_sees_no_triggers
from tests.support.witness import Witness

Change = Any  # a connection in a transaction
FRESH = "FRESH"


@pytest.fixture(scope="module")
def left_behind(mariadb: MariaDB) -> Iterator[None]:
    """No trigger, for the tests of other modules."""
    yield
    drop_triggers(mariadb)


@pytest.fixture
def triggers(left_behind: None, witness: Witness, mariadb: MariaDB) -> None:
    """On every declared table, and nothing recorded."""
    mariadb.apply_triggers(TABLES.values())
    witness.query("TRUNCATE changed_entries")


@pytest.fixture
def cached(triggers: None, service: InProcess) -> InProcess:
    """Heroes 1 to 4 with xp 1 to 4, by key and by lookup in the cache."""
    service.write([{"id": row["xp"], **row} for row in heroes(4)])
    for _ in range(2):
        service.read([1, 2, 3, 4])
        service.read([1, 2, 3, 4, 5], BY="xp")
    return service


def drain(table: Table = HEROES) -> Sequence[Key] | None:
    return services.container().captured_changes.drain(table)


def records(witness: Witness) -> list[tuple[str, Any, int]]:
    found = witness.query("SELECT table_name, entries, is_shown FROM changed_entries ORDER BY id")
    return [(table, json.loads(entries), is_shown) for table, entries, is_shown in found]


def assert_as_in_the_table(service: InProcess, witness: Witness) -> None:
    """By key and by lookup, twice, so that the second read finds what the first one stored."""
    for _ in range(2):
        for values, by in ((range(1, 9), "id"), (range(9), "xp")):
            answers = [service.read(list(values), use_cache, BY=by) for use_cache in (True, False)]
            assert answers[0].content == answers[1].content


def is_stale(service: InProcess, witness: Witness) -> bool:
    cached, stored = (service.read([1, 2, 3, 4], use_cache) for use_cache in (True, False))
    return cached.content != stored.content


# --- what is seen after a drain -------------------------------------------------------------------

CHANGES: dict[str, tuple[str, list[int]]] = {
    "update": ("UPDATE heroes SET color = 'blue' WHERE name LIKE 'Ada%%'", [1, 2, 3, 4]),
    "update of a lookup": ("UPDATE heroes SET xp = xp + 1 WHERE name <> 'Ada 1'", [2, 3, 4]),
    "update of a key": ("UPDATE heroes SET id = 7 WHERE name = 'Ada 2'", [2, 7]),
    "insert": (
        "INSERT INTO heroes VALUES (6, 'N', 'l', 'n', 3, 'c'), (5, 'N', 'l', 'n', 1, 'c')",
        [6, 5],
    ),
    "insert or update": (
        "INSERT INTO heroes VALUES (2, 'N', 'l', 'n', 4, 'c'), (5, 'N', 'l', 'n', 1, 'c')"
        " ON DUPLICATE KEY UPDATE xp = VALUES(xp)",
        [2, 5],
    ),
    "delete": ("DELETE FROM heroes WHERE name IN ('Ada 4', 'Ada 2')", [2, 4]),
    "replace": ("REPLACE INTO heroes VALUES (3, 'N', 'l', 'n', 1, 'c')", [3]),
    "load": ("", [8]),
}


@pytest.mark.parametrize("name", [name for name in CHANGES if name != "load"])
def test_a_change_by_another_client_is_seen_after_a_drain(
    cached: InProcess, witness: Witness, name: str
) -> None:
    statement, keys = CHANGES[name]
    witness.query(statement.replace("%%", "%"))

    assert drain() == keys

    assert_as_in_the_table(cached, witness)
    assert records(witness) == []
    assert drain() == ()


def test_without_a_drain_the_cache_does_not_know(cached: InProcess, witness: Witness) -> None:
    """Otherwise the other tests show nothing."""
    witness.query("UPDATE heroes SET color = 'blue' WHERE name = 'Ada 1'")

    assert is_stale(cached, witness)
    assert cached.read([1, 2, 3, 4]).headers["cache-status"] == 'herocache; hit; detail="4 of 4"'


def test_only_the_entries_of_changed_rows_leave_the_cache(
    cached: InProcess, witness: Witness
) -> None:
    witness.query("UPDATE heroes SET xp = 4 WHERE name = 'Ada 3'")
    drain()

    assert cached.read([1, 2, 4]).headers["cache-status"].startswith("herocache; hit")
    assert cached.read([1, 2], BY="xp").headers["cache-status"].startswith("herocache; hit")


def test_a_transaction_that_is_rolled_back_records_nothing(
    cached: InProcess, mariadb: MariaDB, witness: Witness
) -> None:
    with mariadb.connect_as_root() as client, client.cursor() as cursor:
        cursor.execute("START TRANSACTION")
        cursor.execute("UPDATE heroes SET xp = 4")
        assert records(witness) == []
        cursor.execute("ROLLBACK")

    assert records(witness) == []
    assert drain() == ()


def test_keys_come_once_and_in_the_order_of_the_changes(
    cached: InProcess, witness: Witness
) -> None:
    for key in (3, 1, 3, 2, 1):
        witness.query("UPDATE heroes SET xp = xp + 1 WHERE id = %s", [key])

    assert drain() == [3, 1, 2]


def test_a_change_whose_record_comes_late_is_not_lost(
    cached: InProcess, mariadb: MariaDB, witness: Witness
) -> None:
    """It has a lower id than a record that was drained already."""
    with mariadb.connect_as_root() as client, client.cursor() as cursor:
        cursor.execute("START TRANSACTION")
        cursor.execute("UPDATE heroes SET xp = 8 WHERE id = 1")
        witness.query("UPDATE heroes SET xp = 8 WHERE id = 2")
        assert drain() == [2]
        cursor.execute("COMMIT")

    assert drain() == [1]
    assert_as_in_the_table(cached, witness)


def test_each_table_has_records_of_its_own(cached: InProcess, witness: Witness) -> None:
    cached.write([{"EmpId": "E1", "EmpName": "Ada"}], TABLE="employees")
    witness.query("UPDATE employees SET EmpName = 'Bo'")
    witness.query("UPDATE heroes SET xp = 4 WHERE id = 1")

    assert drain(EMPLOYEES) == ["E1"]
    assert cached.read(["E1"], TABLE="employees").rows == [{"EmpId": "E1", "EmpName": "Bo"}]
    assert drain(PRODUCTS) == ()
    assert drain(HEROES) == [1]


TEXTS = [
    "a",
    "ä",
    "é",
    "☃",
    "🌠",
    "\\",
    '"',
    "'",
    "\n\t\x01",
    "{}",
    "%s",
    ":p0",
    "x" * 255,
    "🌠" * 255,
]


def test_any_text_is_recorded_as_it_is(cached: InProcess, witness: Witness) -> None:
    rows = [{"EmpId": text.strip() or "-", "EmpName": "Ada"} for text in TEXTS]
    cached.write(rows, TABLE="employees")
    keys = [row["EmpId"] for row in rows]
    cached.read(keys, TABLE="employees")
    witness.query("UPDATE employees SET EmpName = 'Bo'")

    assert set(drain(EMPLOYEES) or ()) == set(keys)

    found = cached.read(keys, TABLE="employees").rows
    assert {row["EmpName"] for row in found} == {"Bo"}


def test_a_lookup_of_text_is_recorded_too(mariadb: MariaDB, witness: Witness) -> None:
    """No declared table has one."""
    table = replace(HEROES, name="of_text", lookups=("name", "xp"))
    witness.query("CREATE TABLE of_text LIKE heroes")
    try:
        witness.query("ALTER TABLE of_text MODIFY name TEXT CHARACTER SET latin1 NULL")
        witness.query("ALTER TABLE of_text MODIFY xp INT(9) UNSIGNED ZEROFILL")
        mariadb.apply_triggers([table])
        witness.query("TRUNCATE changed_entries")
        witness.query("INSERT INTO of_text VALUES (1, 'h', 'p', 'é', 7, 'c')")
        witness.query("UPDATE of_text SET name = NULL")
        witness.query(f"UPDATE of_text SET name = '{'é' * 20_000}'")

        entries = [entries for _, entries, _ in records(witness)]
        assert entries == [
            {"id": [1], "name": ["é"], "xp": [7]},
            {"id": [1, 1], "name": ["é", None], "xp": [7, 7]},
            {"id": [1, 1], "name": [None, "é" * 255], "xp": [7, 7]},
        ]
        found = captured_changes._entries_in(table, [(1, json.dumps(each)) for each in entries])
        assert found == {"id": [1], "name": ["é", "é" * 255], "xp": [7]}
    finally:
        witness.query("DROP TABLE of_text")
        witness.query("TRUNCATE changed_entries")


# --- own changes ----------------------------------------------------------------------------------


def test_the_services_own_changes_are_not_recorded(cached: InProcess, witness: Witness) -> None:
    cached.write([hero(xp=4)], use_cache=False)
    cached.write([hero(xp=4), {"id": 2, **hero(xp=1)}])
    cached.write([hero()], IDEMPOTENCY_KEY="k")
    cached.write([hero()], IDEMPOTENCY_KEY="k")
    cached.delete([3])
    cached.write(
        [{"ProductName": "L", "Description": "w", "QuantityInStock": 1, "Price": 1}],
        TABLE="products",
    )
    cached.post(
        {
            "REQUEST": "increment",
            "TABLE": "products",
            "SQLS": [{"ProductId": 1, "QuantityInStock": 1}],
        }
    )
    entry_points.add_employees({"EmpId": "E1", "EmpName": "Ada"})

    assert witness.count("employees") == 1
    assert records(witness) == []


def loaded(bucket: UploadBucket, has_keys: bool) -> str:
    columns = ["id" * has_keys, "hero", "power", "name", "xp", "color"]
    rows = [[str(row["xp"] + 2) * has_keys, *map(str, row.values())] for row in heroes(30)]
    body = "\n".join(",".join(filter(None, row)) for row in (columns, *rows)) + "\n"
    [summary] = entry_points.ingest(bucket.put("incoming/heroes/a.csv", body))
    assert summary["rows"] == 30, summary
    return str(summary["status"])


@pytest.mark.parametrize("has_keys", [True, False])
@pytest.mark.parametrize("is_large", [True, False])
def test_a_load_is_not_recorded(
    cached: InProcess,
    witness: Witness,
    bucket: UploadBucket,
    monkeypatch: pytest.MonkeyPatch,
    has_keys: bool,
    is_large: bool,
) -> None:
    if is_large:
        monkeypatch.setattr(ingest_service, "MAX_SMALL_BYTES", 0)

    assert loaded(bucket, has_keys) == "loaded"
    assert records(witness) == []


@pytest.mark.parametrize("has_keys", [True, False])
def test_a_load_that_the_database_does_itself_is_not_recorded(
    cached: InProcess,
    witness: Witness,
    bucket: UploadBucket,
    configure: Configure,
    monkeypatch: pytest.MonkeyPatch,
    has_keys: bool,
) -> None:
    monkeypatch.setattr(ingest_service, "MAX_SMALL_BYTES", 0)
    configure(INGEST_ENGINE="aurora")

    with emulated_load_from_s3() as uris:
        assert loaded(bucket, has_keys) == "loaded"

    assert len(uris) == 1
    assert records(witness) == []


def test_the_triggers_do_not_make_a_load_take_the_longer_way(
    triggers: None, service: InProcess, witness: Witness
) -> None:
    """A table with other triggers is loaded by way of a temporary one."""

    def may_replace() -> bool:
        return services.container().database.transact(lambda t: _may_replace(t, HEROES))

    assert may_replace()
    witness.query("CREATE TRIGGER of_others AFTER DELETE ON heroes FOR EACH ROW SET @deleted = 1")
    try:
        assert not may_replace()
    finally:
        witness.query("DROP TRIGGER of_others")


@pytest.mark.usefixtures("lasting_generations")
def test_a_write_costs_no_more_where_other_clients_changes_are_recorded(
    triggers: None, service: InProcess, mariadb: MariaDB, witness: Witness
) -> None:
    def cost() -> list[tuple[int, int]]:
        costs = []
        for _ in range(2):  # the first one is cold
            for request in (
                [hero(xp=7)],
                [{"id": 1, **hero(xp=8)}],
                [hero(xp=7), {"id": 2, **hero(xp=9)}],
            ):
                with witness.spent() as spent:
                    service.write(request)
                costs.append((spent.statements, spent.cache_round_trips))
        return costs[3:]

    with_triggers = cost()
    drop_triggers(mariadb)

    assert with_triggers == cost()


def test_where_the_data_api_does_not_take_an_assignment_a_request_of_its_own_makes_it(
    triggers: None,
    witness: Witness,
    configure: Configure,
    data_api: DataApi,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def requests() -> int:
        data_api.control(reset=True)
        assert service.write([{"id": 1, **hero()}]).ids == [1]
        assert service.write([hero()]).ids
        return sum(data_api.control()["requests"].values())

    service = InProcess()
    counts = []
    for mark in (change_capture.MARK_OWN_HERE, ":unknown AND "):
        monkeypatch.setattr(connector, "MARK_OWN_HERE", mark)
        configure(**data_api.environment())
        service.write([{"id": 1, **hero()}])
        counts.append(requests())

    assert counts[1] == counts[0] + 2
    assert records(witness) == []


# --- faults ---------------------------------------------------------------------------------------


class Died(Exception):
    pass


def die(*_: object, **__: object) -> None:
    raise Died


@pytest.mark.parametrize("moment", ["follow", "finish"])
def test_who_dies_before_the_records_go_leaves_them_to_the_next_one(
    cached: InProcess, witness: Witness, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    witness.query("UPDATE heroes SET xp = xp + 1")
    follow = die if moment == "follow" else lambda keys: None
    with monkeypatch.context() as patch:
        if moment == "finish":
            patch.setattr(captured_changes.CapturedChanges, "_finish", die)
        with pytest.raises(Died):
            services.container().captured_changes.drain(HEROES, follow)

    assert len(records(witness)) == 4
    assert_as_in_the_table(cached, witness)

    assert drain() == [1, 2, 3, 4]
    assert records(witness) == []
    assert_as_in_the_table(cached, witness)


def test_what_follows_is_told_the_keys_before_the_records_go(
    cached: InProcess, witness: Witness
) -> None:
    told: list[Any] = []
    witness.query("UPDATE heroes SET xp = xp + 1 WHERE id > 2")

    services.container().captured_changes.drain(
        HEROES, lambda keys: told.append((keys, records(witness)))
    )
    services.container().captured_changes.drain(HEROES, lambda keys: told.append(keys))

    [(keys, left)] = told
    assert keys == [3, 4]
    assert len(left) == 2


def test_a_reader_that_read_before_the_change_does_not_bring_the_old_row_back(
    cached: InProcess, witness: Witness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has a lease, and has read the row: then the row is changed and drained."""
    witness.forget_cached()
    cached.read([1])
    witness.forget_cached()
    fill_many = Cache.fill_many

    def late(self: Cache, *arguments: Any) -> None:
        if threading.current_thread() is reader:
            witness.query("UPDATE heroes SET color = 'blue', xp = 2 WHERE id = 1")
            drained.append(services.container().captured_changes.drain(HEROES))
        fill_many(self, *arguments)

    def read(values: list[int], by: str) -> None:
        shown.append(cached.read(values, BY=by).rows)

    drained: list[Any] = []
    shown: list[Any] = []
    monkeypatch.setattr(Cache, "fill_many", late)
    for values, by in (([1], "id"), ([1], "xp"), ([2], "xp")):
        witness.query("UPDATE heroes SET color = 'red', xp = 1 WHERE id = 1")
        drain()
        witness.forget_cached()
        reader = threading.Thread(target=read, args=(values, by))
        reader.start()
        reader.join()
        assert_as_in_the_table(cached, witness)
    assert drained == [[1]] * 3
    assert shown[0] == [as_stored(1, hero(name="Ada 1", xp=1))]


@pytest.mark.parametrize("late", ["fences", "publish"])
def test_a_writer_that_read_before_the_change_does_not_bring_the_old_row_back(
    cached: InProcess, witness: Witness, monkeypatch: pytest.MonkeyPatch, late: str
) -> None:
    """It moves hero 1 to xp 2, and has read hero 2, which has that xp too. Then hero 2 is changed
    and drained."""
    writer = threading.Thread(target=cached.write, args=([{"id": 1, **hero(xp=2)}],))
    drained: list[Any] = []

    def change() -> None:
        if threading.current_thread() is writer and not drained:
            drained.append(())
            witness.query("UPDATE heroes SET color = 'blue' WHERE id = 2")
            drained[0] = services.container().captured_changes.drain(HEROES)

    begin_fence_many, publish_many = Cache.begin_fence_many, Cache.publish_many

    def begin_late(*arguments: Any) -> Any:
        def wait() -> float:
            change()
            return begin_fence_many(*arguments).wait()

        if threading.current_thread() is not writer:
            return begin_fence_many(*arguments)
        return SimpleNamespace(is_sent=True, wait=wait, close=lambda: None)

    def publish_late(*arguments: Any) -> None:
        change()
        publish_many(*arguments)

    if late == "fences":
        # Where a row leaves a lookup, the writer waits for its fences before the COMMIT.
        monkeypatch.setattr(changed_entries, "leave_a_lookup", lambda *_: False)
        monkeypatch.setattr(Cache, "begin_fence_many", begin_late)
    else:
        monkeypatch.setattr(Cache, "publish_many", publish_late)
    writer.start()
    writer.join()

    assert drained == [[2]]
    assert [row["color"] for row in cached.read([2], BY="xp").rows] == ["red", "blue"]
    assert_as_in_the_table(cached, witness)


def test_entries_that_a_reader_stored_under_a_new_generation_leave_the_cache_too(
    cached: InProcess, witness: Witness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody raised the generation, a reader stored the rows under it, and then they were
    changed: all of it while the database was asked what is left."""
    batch = Connection.batch

    def one_by_one(self: Connection, asked: Sequence[Statement]) -> list[Rows]:
        if len(asked) != 2 or not any(change_capture.RECORDS in text for text, _ in asked):
            return batch(self, asked)
        monkeypatch.undo()
        first = batch(self, asked[:1])
        witness.query("UPDATE cache_generation SET generation = generation + 1")
        services.container().generations.forget(HEROES)
        for _ in range(2):
            cached.read([1])
        witness.query("UPDATE heroes SET color = 'blue' WHERE id = 1")
        return [*first, *batch(self, asked[1:])]

    monkeypatch.setattr(Connection, "batch", one_by_one)
    services.container().captured_changes.drain(HEROES)
    drain()

    assert_as_in_the_table(cached, witness)


def test_more_entries_than_leave_at_once_leave_too(
    cached: InProcess, witness: Witness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(write_through, "MAX_DROPPED_AT_ONCE", 2)
    witness.query("UPDATE heroes SET color = 'blue' WHERE id < 6")

    assert drain() == [1, 2, 3, 4]

    assert_as_in_the_table(cached, witness)


def test_two_drains_at_once_lose_nothing(cached: InProcess, witness: Witness) -> None:
    drained: list[Sequence[Key] | None] = []
    changed = threading.Event()

    def go_on_draining(_: int) -> None:
        while not changed.is_set():
            drained.append(drain())

    with ThreadPoolExecutor(2) as pool:
        done = pool.map(go_on_draining, range(2))
        for i in range(60):
            key = random.randint(1, 4)
            witness.query("UPDATE heroes SET xp = %s WHERE id = %s", [i % 9, key])
        changed.set()
        list(done)
    drained.append(drain())

    assert records(witness) == []
    assert {key for keys in drained for key in keys or ()} == {1, 2, 3, 4}
    assert_as_in_the_table(cached, witness)


def test_a_drain_while_redis_is_away_switches_the_cache_off(
    cached: InProcess, witness: Witness, configure: Configure
) -> None:
    configure(REDIS_URL="redis://127.0.0.1:1")
    witness.query("UPDATE heroes SET xp = 8 WHERE id = 1")

    assert drain() == [1]

    assert not witness.generation()[1]
    configure()
    assert not is_stale(cached, witness)


# --- many changes ---------------------------------------------------------------------------------


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of what is read one by one, and in a page."""
    monkeypatch.setattr(captured_changes, "MAX_RECORDS", 3)
    monkeypatch.setattr(change_capture, "PAGE", 4)


@pytest.mark.usefixtures("few")
def test_after_many_changes_the_whole_table_leaves_the_cache(
    cached: InProcess, witness: Witness
) -> None:
    before, *_ = witness.generation()
    for _ in range(3):
        witness.query("UPDATE heroes SET xp = xp + 1")
    assert len(records(witness)) == 12
    told: list[Any] = []

    assert services.container().captured_changes.drain(HEROES, told.append) is None

    assert told == [None]
    assert witness.generation()[0] == before + 1
    assert records(witness) == []
    assert_as_in_the_table(cached, witness)
    assert drain() == ()


@pytest.fixture
def open_change(mariadb: MariaDB, cached: InProcess, witness: Witness) -> Iterator[Change]:
    """Of heroes 3 and 4 by a client that has not committed it yet. Its two records have ids between
    those of four others."""
    with mariadb.connect_as_root() as client, client.cursor() as cursor:
        change_two(witness, 5)
        cursor.execute("START TRANSACTION")
        for key in (3, 4):
            cursor.execute("UPDATE heroes SET xp = 7 WHERE id = %s", (key,))
        yield client


def change_two(witness: Witness, xp: int) -> None:
    """Heroes 1 and 2. A statement for each, which locks no other one."""
    for key in (1, 2):
        witness.query("UPDATE heroes SET xp = %s WHERE id = %s", [xp, key])


@pytest.mark.usefixtures("few")
def test_of_many_changes_none_goes_that_was_recorded_meanwhile(
    cached: InProcess, open_change: Change, witness: Witness
) -> None:
    change_two(witness, 6)

    services.container().captured_changes.drain(HEROES, lambda keys: open_change.commit())

    assert [entries["id"][0] for _, entries, _ in records(witness)] == [3, 4]
    while drain() != ():
        pass
    assert_as_in_the_table(cached, witness)


@pytest.mark.usefixtures("few")
def test_of_many_changes_none_goes_unseen_where_another_drain_takes_as_many(
    cached: InProcess, open_change: Change, witness: Witness
) -> None:
    used = services.container().captured_changes
    early = used._show(HEROES, shown_too=True)
    change_two(witness, 6)

    def meanwhile(_: object) -> None:
        assert not is_stale(cached, witness)
        open_change.commit()
        used._finish(early, keep=False)

    assert used.drain(HEROES, meanwhile) is None

    assert drain() == [3, 4]
    assert_as_in_the_table(cached, witness)


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("is_fresh", [True, False])
def test_of_many_changes_none_counts_as_seen_that_came_behind_the_new_generation(
    cached: InProcess,
    open_change: Change,
    witness: Witness,
    monkeypatch: pytest.MonkeyPatch,
    is_fresh: bool,
) -> None:
    """A reader has stored the rows under that generation, as they were before the change."""
    change_two(witness, 6)
    replace_all = WriteThrough.replace_all

    def raise_and_lose_the_race(self: WriteThrough, *arguments: Any) -> object:
        done = replace_all(self, *arguments)
        for _ in range(2):
            cached.read([1, 2, 3, 4])
        open_change.commit()
        return done

    with monkeypatch.context() as patch:
        patch.setattr(WriteThrough, "replace_all", raise_and_lose_the_race)
        if is_fresh:
            services.container().captured_changes.show(HEROES)
        else:
            drain()

    assert is_stale(cached, witness)
    services.container().captured_changes.show(HEROES)
    assert not is_stale(cached, witness)


@pytest.mark.usefixtures("few", "open_change")
@pytest.mark.parametrize("is_fresh", [True, False])
def test_many_changes_are_brought_to_the_cache_while_a_client_takes_its_time(
    cached: InProcess, witness: Witness, is_fresh: bool
) -> None:
    change_two(witness, 6)

    if is_fresh:
        assert {row["xp"] for row in cached.read([1, 2], FRESH=True).rows} == {6}
        assert [is_shown for *_, is_shown in records(witness)] == [1] * 4
    else:
        assert drain() is None
        assert records(witness) == []


def test_more_than_five_thousand_changes_are_drained(cached: InProcess, witness: Witness) -> None:
    witness.query(
        f"INSERT INTO heroes SELECT seq + 10, 'N', 'l', 'n', 3, 'c' FROM {integers(1, 12_000)}"
    )
    assert drain() is None
    assert records(witness) == []
    assert drain() == ()

    witness.query("UPDATE heroes SET color = 'b' WHERE id <= 5006")
    assert drain() == [1, 2, 3, 4, *range(11, 5_007)]


def test_an_answer_of_the_data_api_that_is_too_large_drops_the_whole_table(
    triggers: None, witness: Witness, configure: Configure, data_api: DataApi
) -> None:
    configure(**data_api.environment())
    witness.query(
        f"INSERT INTO employees SELECT CONCAT(REPEAT('ä', 240), seq), 'n' FROM {integers(1, 3_000)}"
    )

    assert isinstance(services.container().database._connect, Connector)
    assert drain(EMPLOYEES) is None
    assert records(witness) == []


@pytest.mark.parametrize(
    "entries",
    ['{"id": [1]}', '{"id": ["1"], "xp": [1]}', '{"id": [1], "xp": [true]}', '{"xp": [1]}'],
)
def test_a_record_of_a_table_that_was_declared_in_another_way_drops_the_whole_table(
    cached: InProcess, witness: Witness, entries: str
) -> None:
    before, *_ = witness.generation()
    witness.query("INSERT INTO changed_entries VALUES (NULL, 'heroes', %s, NOW(), 0)", [entries])

    assert drain() is None

    assert witness.generation()[0] == before + 1
    assert records(witness) == []


def test_a_drain_with_nothing_to_do_asks_the_database_once(
    cached: InProcess, witness: Witness
) -> None:
    drain()
    with witness.spent() as spent:
        assert drain() == ()

    assert spent.commands == {}


# --- FRESH ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("fresh", [True, "True", "true"])
def test_a_fresh_read_sees_the_change_at_once(
    cached: InProcess, witness: Witness, fresh: object
) -> None:
    witness.query("UPDATE heroes SET color = 'blue', xp = 5 WHERE name = 'Ada 1'")
    assert is_stale(cached, witness)

    [row] = cached.read([1], FRESH=fresh).rows

    assert (row["color"], row["xp"]) == ("blue", 5)
    assert_as_in_the_table(cached, witness)


@pytest.mark.usefixtures("lasting_generations")
def test_a_fresh_read_leaves_the_records_to_the_sync_and_does_its_work_once(
    cached: InProcess, witness: Witness
) -> None:
    witness.query("UPDATE heroes SET xp = 5 WHERE id IN (1, 2)")
    cached.read([3], FRESH=True)
    assert [is_shown for *_, is_shown in records(witness)] == [1, 1]

    with witness.spent() as spent:
        answer = cached.read([3], FRESH=True)

    assert "evalsha" not in spent.commands
    assert answer.headers["cache-status"].startswith("herocache; hit")
    assert drain() == [1, 2]
    assert records(witness) == []


@pytest.mark.usefixtures("few")
def test_a_fresh_read_after_many_changes_sees_them_and_raises_the_generation_once(
    cached: InProcess, witness: Witness
) -> None:
    witness.query("UPDATE heroes SET xp = 5")
    before, *_ = witness.generation()

    for _ in range(2):
        assert {row["xp"] for row in cached.read([1, 2, 3, 4], FRESH=True).rows} == {5}

    assert witness.generation()[0] == before + 1
    assert drain() is None
    assert records(witness) == []


@pytest.mark.usefixtures("lasting_generations")
def test_a_fresh_read_sees_what_another_container_drained_a_moment_ago(
    cached: InProcess, witness: Witness
) -> None:
    """That one has raised the generation and deleted the records; this one remembers the old
    generation."""
    witness.query("UPDATE heroes SET xp = 5")
    witness.query("UPDATE cache_generation SET generation = generation + 1")
    witness.query("TRUNCATE changed_entries")

    assert {row["xp"] for row in cached.read([1, 2, 3, 4], FRESH=True).rows} == {5}


def test_a_fresh_read_without_the_cache_asks_the_writer(
    cached: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bool] = []
    load, load_page = RowLoader.load, RowLoader.load_page

    def listening(
        self: RowLoader, *arguments: Any, from_replica: bool = False, **named: Any
    ) -> Any:
        asked.append(from_replica)
        return load(self, *arguments, from_replica=from_replica, **named)

    def listening_page(self: RowLoader, *arguments: Any, from_replica: bool) -> Any:
        asked.append(from_replica)
        return load_page(self, *arguments, from_replica=from_replica)

    monkeypatch.setattr(RowLoader, "load", listening)
    monkeypatch.setattr(RowLoader, "load_page", listening_page)
    for fresh in (True, False):
        cached.read([1], use_cache=False, FRESH=fresh)
        cached.read([1], use_cache=False, FRESH=fresh, BY="xp", LIMIT=1)

    assert asked == [False, False, True, True]


@pytest.mark.parametrize(
    "fields",
    [{"USE_CACHE": False}, {"BY": "xp", "LIMIT": 1}, {"BY": "xp", "USE_CACHE": "False"}],
    ids=["uncached", "page", "uncached lookup"],
)
@pytest.mark.parametrize("committed", ["before", "meanwhile"])
def test_no_read_is_older_than_a_fresh_one_that_does_not_use_the_cache(
    cached: InProcess,
    witness: Witness,
    fields: dict[str, object],
    committed: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fetch = RowLoader._fetch

    def change() -> None:
        witness.query("UPDATE heroes SET xp = 1, color = 'blue' WHERE name = 'Ada 1'")

    def change_and_fetch(self: RowLoader, *arguments: Any, **named: Any) -> Any:
        monkeypatch.undo()
        change()
        return fetch(self, *arguments, **named)

    if committed == "before":
        change()
    else:
        monkeypatch.setattr(RowLoader, "_fetch", change_and_fetch)

    [row] = cached.post({"REQUEST": "read", "SQLS": [1], "FRESH": True, **fields}).rows

    assert row["color"] == "blue"
    assert_as_in_the_table(cached, witness)


@pytest.mark.parametrize("fresh", ["yes", 1, None])
def test_a_wrong_fresh_is_named(service: InProcess, fresh: object) -> None:
    answer = service.read([1], FRESH=fresh)

    assert (answer.status, answer.error) == (400, "BadRequest")
    assert answer.message.startswith('FRESH: expected "True" or "False", in any case')


@pytest.mark.parametrize("request_", [name for name in REQUESTS if name != "read"])
def test_only_a_read_is_fresh(service: InProcess, request_: str) -> None:
    answer = service.post({"REQUEST": request_, "SQLS": [], FRESH: True})

    assert answer.message == "FRESH: only a read has it; leave it out"


def test_a_fresh_read_without_the_table_of_records_says_what_to_do(
    service: InProcess, witness: Witness
) -> None:
    witness.query("RENAME TABLE changed_entries TO hidden")
    try:
        answer = service.read([1], FRESH=True)
    finally:
        witness.query("RENAME TABLE hidden TO changed_entries")

    assert (answer.status, answer.error) == (500, "SchemaMismatch")
    assert "lacks the service's own changed_entries" in answer.message
    assert "seed/schema.sql" in answer.message


# --- what is told where nothing is recorded -------------------------------------------------------


def unrecorded(service: InProcess) -> list[str]:
    database = service.health("?deep=1").fields["database"]
    assert database["ok"]
    found: list[str] = database.get("unrecorded", [])
    return found


def test_a_trigger_that_somebody_dropped_is_told_with_what_mends_it(
    cached: InProcess, witness: Witness, mariadb: MariaDB
) -> None:
    assert unrecorded(cached) == []
    name = next(name for name in change_capture.triggers(HEROES) if "update" in name)
    witness.query(f"DROP TRIGGER {name}")

    [text] = unrecorded(cached)

    assert text.startswith("heroes: changes by other clients are not recorded")
    assert "< seed/triggers.sql (on AWS: make infra)" in text
    assert text.endswith(HEROES.told_to_cache)
    assert services.container().captured_changes.unrecorded(HEROES) == text
    assert services.container().captured_changes.unrecorded(PRODUCTS) == ""
    mariadb.apply_triggers([HEROES])
    assert unrecorded(cached) == []


def test_a_trigger_of_an_older_declaration_is_told(cached: InProcess, witness: Witness) -> None:
    witness.query("CREATE TRIGGER captured_old AFTER UPDATE ON heroes FOR EACH ROW SET @old = 1")

    [text] = unrecorded(cached)

    assert text.endswith(": DROP TRIGGER captured_old")
    witness.query(text.rpartition(": ")[2])
    assert unrecorded(cached) == []


def test_a_table_that_is_not_declared_gets_its_statements(
    service: InProcess, witness: Witness, configure: Configure
) -> None:
    witness.query("CREATE TABLE superheroes LIKE heroes")
    try:
        configure(DB_TABLE="superheroes")
        text = next(text for text in unrecorded(service) if text.startswith("superheroes"))
        script = text.partition("missing: DELIMITER //\n//\n")[2].rpartition("\n//\n")[0]
        for statement in script.split("\n//\n"):
            witness.query(statement)

        assert not any(text.startswith("superheroes") for text in unrecorded(service))
        witness.query("INSERT INTO superheroes VALUES (1, 'h', 'p', 'n', 7, 'c')")
        assert drain(tables_with("superheroes")["superheroes"]) == [1]
    finally:
        witness.query("DROP TABLE superheroes")
        witness.query("DELETE FROM cache_generation WHERE table_name = 'superheroes'")


def test_a_user_who_may_not_see_triggers_is_told_so(
    triggers: None,
    service: InProcess,
    mariadb: MariaDB,
    witness: Witness,
    configure: Configure,
) -> None:
    """MariaDB shows him the names of triggers all the same, MySQL nothing."""
    with user_who_sees_no_triggers(mariadb, configure):
        witness.query("INSERT INTO heroes VALUES (1, 'h', 'p', 'n', 7, 'c')")
        assert drain() == [1], "it reads and deletes the records all the same"

        drop_triggers(mariadb)
        texts = unrecorded(service)
        assert [text.partition(":")[0] for text in texts] == list(TABLES)
        assert "nobody can tell" in texts[0]
        assert "GRANT TRIGGER ON heroes" in texts[0]


def test_a_client_without_rights_on_the_records_is_recorded(
    cached: InProcess, mariadb: MariaDB, witness: Witness
) -> None:
    [(name,)] = witness.query("SELECT DATABASE()")
    witness.query("CREATE USER other@'127.0.0.1' IDENTIFIED BY 'of-nobody-else'")
    try:
        witness.query(f"GRANT SELECT, UPDATE ON {name}.heroes TO other@'127.0.0.1'")
        with (
            mariadb._connect("other", "of-nobody-else") as client,
            client.cursor() as cursor,
        ):
            cursor.execute("UPDATE heroes SET xp = 5 WHERE name = 'Ada 1'")
    finally:
        witness.query("DROP USER other@'127.0.0.1'")

    assert drain() == [1]


# --- the triggers ---------------------------------------------------------------------------------


def test_the_file_of_triggers_is_what_the_declarations_make() -> None:
    text = make_triggers.FILE.read_text(encoding="utf-8")

    assert text == make_triggers.HEAD + change_capture.script(TABLES.values()), (
        "run python -m seed.make_triggers"
    )


def test_another_declaration_makes_triggers_of_another_name() -> None:
    with_lookup = replace(HEROES, lookups=("xp", "name"))
    longer = Table("employees", (EMPLOYEES.key, Column("EmpName", STRING)), lookups=("EmpName",))

    assert not change_capture.triggers(HEROES).keys() & change_capture.triggers(with_lookup).keys()
    assert not change_capture.triggers(EMPLOYEES).keys() & change_capture.triggers(longer).keys()
    assert all(len(name) < 64 for name in change_capture.triggers(HEROES))


def test_the_triggers_change_no_row_so_that_new_rows_still_go_in_one_batch(
    cached: InProcess,
) -> None:
    database: Database = services.container().database

    assert database._schema_check._rewriting == set()
    assert database.transact(lambda t: t.can_insert_at_once(HEROES, [(0, *"hpn", 1, "c")]))
