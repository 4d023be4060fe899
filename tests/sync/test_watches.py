"""What becomes of a `watch` and an `unwatch`: what they reject, what they delete, and what they say
and leave where they cannot be finished."""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from chalicelib import services
from chalicelib.db import Statement, Transaction
from chalicelib.errors import CacheUnavailable, DatabaseUnavailable
from chalicelib.sync import range_scan, runs, watches
from tests.conftest import Configure
from tests.support.client import InProcess
from tests.support.witness import Witness
from tests.sync.clients import RedisCli, ask, product, rows, run, unwatch, watch, watched
from tests.sync.test_faults import MAX_STEPS, Killed, Steps, each_moment, kill

ALONE = '"*" means every row, so it stands alone; send ["*"], or only keys'

each_way = pytest.mark.parametrize("keys", [[22], ["*"]], ids=["one row", "every row"])


@contextmanager
def redis_away() -> Iterator[None]:
    """For what tells it of watches."""

    def fail(*_: object, **__: object) -> None:
        raise CacheUnavailable("no answer in time")

    client = type(services.container().public_store._client)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("ask", "ask_many"):
            patch.setattr(client, name, fail)
        yield


@pytest.mark.parametrize("table", ["products", "employees"], ids=["integers", "texts"])
@pytest.mark.parametrize("request_", ["watch", "unwatch"])
@pytest.mark.parametrize(("keys", "place"), [(["*", "7"], 0), (["7", "*"], 1), (["*", "*"], 0)])
def test_every_row_stands_alone(
    service: InProcess, table: str, request_: str, keys: list[object], place: int
) -> None:
    direction = {"DIRECTION": "to_cache"}

    answer = ask(service, request_, TABLE=table, SQLS=keys, **direction)

    assert (answer.status, answer.message) == (400, f"SQLS[{place}]: {ALONE}")
    assert watched(service, TABLE=table) == []


@each_way
def test_a_watch_that_redis_does_not_hear_of_is_sent_again(
    shop: InProcess, cli: RedisCli, keys: list[object]
) -> None:
    run(None)
    assert run(None)["outcome"] == "idle"

    with redis_away():
        answer = ask(shop, "watch", SQLS=keys, DIRECTION="to_cache")

    assert (answer.status, answer.error) == (503, "PublicKeysUnavailable")
    assert answer.message == (
        "the rows are watched, but Redis could not be told (no answer in time): send the request"
        " again"
    )
    watch(shop, keys, "to_cache")
    assert run(None)["outcome"] == "done"
    assert cli.row("Product:22") == product(22, QuantityInStock=3000)


@each_way
@pytest.mark.parametrize("mended_by", ["the request", "the next run"])
def test_an_unwatch_that_redis_does_not_hear_of_is_finished_later(
    shop: InProcess, cli: RedisCli, witness: Witness, keys: list[object], mended_by: str
) -> None:
    watch(shop, keys, "to_cache")
    run()
    if keys == ["*"]:
        shop.write([product(33)], TABLE="products")  # no run has seen it

    with redis_away():
        answer = ask(shop, "unwatch", SQLS=keys)

    assert (answer.status, answer.error) == (503, "PublicKeysUnavailable")
    assert answer.message.startswith("the watches have ended, but Redis could not be told")
    assert watched(shop) == []
    shop.write([product(22, Price=7)], TABLE="products")
    assert cli.row("Product:22")["Price"] == 400, "it follows no more"
    if mended_by == "the request":
        unwatch(shop, keys)
    else:
        assert run()["details"] == []
    assert cli("KEYS Product:*") == []
    assert (witness.count("watched"), witness.count("watched_ranges")) == (0, 0)


@each_way
@each_moment
def test_an_unwatch_that_dies_at_any_step_is_finished_by_the_next_one(
    shop: InProcess,
    cli: RedisCli,
    witness: Witness,
    keys: list[object],
    when: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    steps = Steps(monkeypatch)
    watch(shop, [11])
    for step in range(1, MAX_STEPS):
        watch(shop, keys, "to_cache")
        run()
        steps.at = {(steps.count + step, when): kill}
        try:
            unwatch(shop, keys)
            steps.at = {}
            break
        except Killed:
            unwatch(shop, keys)
        assert cli("KEYS Product:*") == [b"Product:11"]
        assert [each["key"] for each in watched(shop)] == [11]
        assert witness.count("watched_ranges") == 0
        assert run(None)["outcome"] == "done"
    assert 5 < step < MAX_STEPS


@each_way
def test_a_watch_that_comes_before_the_end_of_another_is_kept(
    shop: InProcess, cli: RedisCli, witness: Witness, keys: list[object]
) -> None:
    watch(shop, keys, "to_cache")
    run()
    with redis_away():
        ask(shop, "unwatch", SQLS=keys)
    watch(shop, keys)
    cli.put("Product:22", Price=7)
    unwatch(shop, [11])
    run()
    assert rows(witness, 22)[0]["Price"] == cli.row("Product:22")["Price"] == 7
    assert [each["direction"] for each in watched(shop)] == ["to_database"]


@each_way
@pytest.mark.parametrize("runs", [0, 2])
@pytest.mark.parametrize("direction", [None, "to_database"])
@pytest.mark.parametrize("way", ["unwatch", "SQL"])
def test_public_keys_of_clients_stay_also_where_they_followed_their_rows_before(
    shop: InProcess,
    cli: RedisCli,
    witness: Witness,
    keys: list[object],
    runs: int,
    direction: str | None,
    way: str,
) -> None:
    watch(shop, keys, "to_cache")
    run()
    watch(shop, keys)
    for _ in range(runs):
        run()
    cli.put("Product:22", Price=7)
    if way == "unwatch":
        unwatch(shop, keys, **({"DIRECTION": direction} if direction else {}))
    else:
        witness.query("DELETE FROM watched")
    run()
    assert cli.row("Product:22")["Price"] == 7
    assert (witness.count("watched"), witness.count("watched_ranges")) == (0, 0)


@pytest.mark.parametrize("change", ["row", "public key", "both"])
@pytest.mark.parametrize(
    "way", ["watch", "unwatch", "unwatch and watch", "watch in a run", "watch, and no other"]
)
def test_what_both_sides_had_moves_between_a_watch_on_every_row_and_one_on_a_row(
    shop: InProcess,
    cli: RedisCli,
    witness: Witness,
    monkeypatch: pytest.MonkeyPatch,
    way: str,
    change: str,
) -> None:
    monkeypatch.setattr(range_scan, "RANGE_ROWS", 1)  # so there are ranges
    watch(shop, ["*"])
    if "unwatch" in way:
        watch(shop, [22])
    run()
    run()
    if way == "watch in a run":
        every_row = range_scan.Scan.every_row

        def watch_meanwhile(*arguments: Any, **named: Any) -> Any:
            monkeypatch.setattr(range_scan.Scan, "every_row", every_row)
            watch(shop, [22])
            return every_row(*arguments, **named)

        monkeypatch.setattr(range_scan.Scan, "every_row", watch_meanwhile)
        run()
    if "unwatch" in way:
        unwatch(shop, [22])
    if way in ("watch", "unwatch and watch", "watch, and no other"):
        watch(shop, [22])
    if way == "watch, and no other":
        unwatch(shop, ["*"])
    if change != "public key":
        shop.write([product(22, Price=77)], TABLE="products")
    if change != "row":
        cli.put("Product:22", Price=5)

    found = [run()["details"] for _ in range(2)]

    assert cli.row("Product:22")["Price"] == (77 if change == "row" else 5)
    assert rows(witness, 22)[0]["Price"] == (77 if change == "row" else 5)
    assert [len(each) for each in found] == [int(change == "both"), 0]
    assert witness.query("SELECT direction FROM watched") == [("to_database",)] * (
        1 if way in ("unwatch", "watch, and no other") else 2
    )


@pytest.mark.parametrize("key", [11, 22])
@pytest.mark.parametrize("way", ["watch", "unwatch", "watch, and no other"])
def test_what_both_sides_had_moves_also_of_the_last_row_of_a_range(
    shop: InProcess,
    cli: RedisCli,
    witness: Witness,
    monkeypatch: pytest.MonkeyPatch,
    way: str,
    key: int,
) -> None:
    """Its key is also the one behind which the next range begins."""
    monkeypatch.setattr(range_scan, "RANGE_ROWS", 1)
    watch(shop, ["*"])
    if way == "unwatch":
        watch(shop, [key])
    run()
    run()
    if way == "unwatch":
        unwatch(shop, [key])
    else:
        watch(shop, [key])
    if way == "watch, and no other":
        unwatch(shop, ["*"])
    shop.write([product(key, Price=77)], TABLE="products")

    run()

    assert (cli.row(f"Product:{key}")["Price"], rows(witness, key)[0]["Price"]) == (77, 77)


def test_what_both_sides_had_stays_known_where_a_range_is_split(
    shop: InProcess, cli: RedisCli, witness: Witness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the last row before the split, and of the first one behind it."""
    monkeypatch.setattr(range_scan, "RANGE_ROWS", 3)
    watch(shop, ["*"])
    run()
    shop.write([product(key) for key in (5, 6)], TABLE="products")
    shop.write([product(key, Price=77) for key in (11, 22)], TABLE="products")

    run()

    assert witness.query("SELECT after_key FROM watched_ranges ORDER BY 1") == [("",), ("11",)]
    assert [cli.row(f"Product:{key}")["Price"] for key in (11, 22)] == [77, 77]
    assert [row["Price"] for row in rows(witness, 11, 22)] == [77, 77]


def test_a_watch_on_every_row_that_begins_anew_remembers_nothing(
    shop: InProcess, cli: RedisCli, witness: Witness
) -> None:
    """Also where no run has looked since the earlier one has ended."""
    watch(shop, ["*"])
    run()
    unwatch(shop, ["*"])
    shop.write([product(22, Price=77)], TABLE="products")
    watch(shop, ["*"])

    run()

    assert (cli.row("Product:22")["Price"], rows(witness, 22)[0]["Price"]) == (400, 400)


def test_what_moves_back_takes_the_place_of_what_a_range_has_from_before(
    shop: InProcess, cli: RedisCli, witness: Witness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run before has not come to the range. Both sides had nothing last."""
    watch(shop, ["*"])
    run()
    as_before = cli("GET Product:22")
    watch(shop, [22])
    with monkeypatch.context() as patch:
        patch.setattr(range_scan.Scan, "every_row", lambda *_: None)
        witness.query("DELETE FROM products WHERE ProductId = 22")
        cli("DEL Product:22")
        run()
    unwatch(shop, [22])
    cli.redis.set("Product:22", as_before)

    run()

    assert cli("GET Product:22") == as_before


@pytest.mark.parametrize("keys", [[22], ["*"]])
@pytest.mark.parametrize("step", ["deadline", "read_many", "delete_many"])
def test_what_a_client_sets_behind_a_watch_stays_while_an_earlier_one_ends(
    shop: InProcess,
    cli: RedisCli,
    witness: Witness,
    monkeypatch: pytest.MonkeyPatch,
    keys: list[object],
    step: str,
) -> None:
    watch(shop, keys, "to_cache")
    run()
    store = type(services.container().public_store)
    call = getattr(store, step)

    def somebody_watches_before(*arguments: Any) -> Any:
        monkeypatch.setattr(store, step, call)
        watch(shop, keys, "to_database")
        cli.put("Product:22", Price=7)
        return call(*arguments)

    monkeypatch.setattr(store, step, somebody_watches_before)
    unwatch(shop, keys)
    run()
    assert cli.row("Product:22")["Price"] == rows(witness, 22)[0]["Price"] == 7


@each_way
def test_an_unwatch_that_slept_deletes_nothing_that_is_watched_again(
    shop: InProcess,
    cli: RedisCli,
    witness: Witness,
    keys: list[object],
) -> None:
    """Also where a client sets what stood there before."""
    watch(shop, keys, "to_cache")
    run()
    cli.put("Product:22", Price=7)
    store, database = services.container().public_store, services.container().database
    deadline, run_statements = store.deadline, database.run
    slept_seconds = runs.RANGE_SECONDS + 1

    def sleep_behind(*statements: Statement) -> Any:
        answers = run_statements(*statements)
        if watches.ENDED in statements[0][1] and statements[0][0].startswith("SELECT row_key"):
            asleep.undo()
            watch(shop, keys, "to_database")
            cli.put("Product:22", Price=7)
        return answers

    with pytest.MonkeyPatch.context() as asleep:
        asleep.setattr(store, "deadline", lambda seconds: deadline(seconds - slept_seconds))
        asleep.setattr(database, "run", sleep_behind)
        answer = ask(shop, "unwatch", SQLS=keys)
    run()
    assert cli.row("Product:22")["Price"] == rows(witness, 22)[0]["Price"] == 7
    assert answer.error == "PublicKeysUnavailable"


def test_a_write_that_shows_its_row_while_a_watch_ends_leaves_no_public_key(
    shop: InProcess, cli: RedisCli, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch(shop, [22], "to_cache")
    run()
    store = type(services.container().public_store)
    read_many = store.read_many

    def a_late_write_follows(*arguments: Any) -> Any:
        monkeypatch.setattr(store, "read_many", read_many)
        found = read_many(*arguments)
        cli.put("Product:22", Price=7)
        return found

    monkeypatch.setattr(store, "read_many", a_late_write_follows)
    unwatch(shop, [22])
    assert not cli("EXISTS Product:22")


@each_way
def test_a_public_key_that_changes_all_the_time_is_left_to_the_next_unwatch_or_run(
    shop: InProcess,
    cli: RedisCli,
    witness: Witness,
    monkeypatch: pytest.MonkeyPatch,
    keys: list[object],
) -> None:
    watch(shop, keys, "to_cache")
    run()
    store = type(services.container().public_store)
    read_many, count = store.read_many, itertools.count()

    def a_client_is_faster(*arguments: Any) -> Any:
        found = read_many(*arguments)
        cli.put("Product:22", Price=next(count))
        return found

    with monkeypatch.context() as patch:
        patch.setattr(store, "read_many", a_client_is_faster)
        answer = ask(shop, "unwatch", SQLS=keys)

    assert (answer.status, answer.error) == (503, "PublicKeysUnavailable")
    assert "other clients change some of the public keys all the time" in answer.message
    assert (cli("KEYS Product:*"), watched(shop)) == ([b"Product:22"], [])
    assert run(None)["outcome"] == "done"
    assert (cli("KEYS Product:*"), witness.count("watched")) == ([], 0)


def test_public_keys_go_also_where_somebody_watches_another_row_again_meanwhile(
    shop: InProcess, cli: RedisCli, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch(shop, [11, 22], "to_cache")
    run()
    store = type(services.container().public_store)
    read_many = store.read_many

    def somebody_watches_before(*arguments: Any) -> Any:
        monkeypatch.setattr(store, "read_many", read_many)
        watch(shop, [11], "to_cache")
        return read_many(*arguments)

    monkeypatch.setattr(store, "read_many", somebody_watches_before)
    unwatch(shop, [11, 22])
    run()
    assert cli("KEYS Product:*") == [b"Product:11"]


def test_public_keys_stay_that_clients_set_after_a_watch_ended_within_a_run(
    shop: InProcess, cli: RedisCli, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch(shop, ["*"], "to_cache")
    store = type(services.container().public_store)
    set_new = store.set_new_many

    def it_ends_before(*arguments: Any) -> Any:
        monkeypatch.setattr(store, "set_new_many", set_new)
        unwatch(shop, ["*"])
        return set_new(*arguments)

    monkeypatch.setattr(store, "set_new_many", it_ends_before)
    run()
    cli("SET", "Product:22", "mine")
    for _ in range(2):
        run()
    assert cli("KEYS Product:*") == [b"Product:22"]


@pytest.mark.parametrize("name", ["Hero", "Product", "Employee"])
def test_no_two_tables_have_the_same_public_keys(
    service: InProcess, configure: Configure, name: str
) -> None:
    configure(DB_TABLE=name)
    answer = ask(service, "watch", TABLE=name, SQLS=[1], DIRECTION="to_cache")
    assert (answer.status, answer.message) == (
        400,
        f"TABLE: {name} has no public keys; its rows cannot be watched",
    )


def test_ranges_come_in_the_order_of_the_database(
    service: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A control character comes before the end of a text, because that counts as blanks."""
    monkeypatch.setattr(range_scan, "RANGE_ROWS", 5)
    before, behind = [f"x\x01{i}" for i in range(9)], [f"x!{i}" for i in range(10)]
    keys = [*before, "x", *behind]  # so "x" ends a range
    service.write([{"EmpId": key, "EmpName": "n"} for key in keys], TABLE="employees")
    watch(service, ["*"], "to_cache", TABLE="employees")
    assert run("employees")["to_cache"] == {"looked": 20, "changed": 20, "reported": 0}
    for _ in range(2):
        assert run("employees")["to_cache"] == {"looked": 20, "changed": 0, "reported": 0}


@pytest.mark.parametrize("request_", ["watch", "unwatch"])
def test_a_request_that_cannot_wait_for_a_writer_may_be_sent_again(
    shop: InProcess, monkeypatch: pytest.MonkeyPatch, request_: str
) -> None:
    watch(shop, [11], "to_cache")
    keys = [*range(1, 1001)]  # more than one statement takes
    before = Transaction.wait_for_writers

    def fail(*_: object) -> None:
        raise DatabaseUnavailable("a writer takes long")

    monkeypatch.setattr(Transaction, "wait_for_writers", fail)
    answer = ask(shop, request_, SQLS=keys, DIRECTION="to_cache")

    assert (answer.status, answer.error) == (503, "DatabaseUnavailable")
    monkeypatch.setattr(Transaction, "wait_for_writers", before)
    assert ask(shop, request_, SQLS=keys, DIRECTION="to_cache").status == 200
    assert [each["key"] for each in watched(shop)] == (keys if request_ == "watch" else [])


def test_a_watch_of_its_own_in_the_other_direction_learns_nothing_of_the_one_on_every_row(
    shop: InProcess, witness: Witness, cli: RedisCli
) -> None:
    """That one remembers the row as the last run saw it. Since then a write has changed both, and
    then a client has set the public key to what it was before."""
    watch(shop, ["*"], "to_cache")
    run()
    shop.write([product(22, Price=5)], TABLE="products")
    names = "table_name, row_key, direction"
    witness.query(f"INSERT INTO watched ({names}) VALUES ('products', 22, 'to_database')")
    cli.put("Product:22", QuantityInStock=3000, Price=400)

    run()

    assert rows(witness, 22)[0]["Price"] == (cli.row("Product:22") or {})["Price"] == 400
