"""A watch turns or ends while a run is under way: the run does nothing behind that, and loses
nothing of what is known."""

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from chalicelib import services
from chalicelib.db import Transaction
from chalicelib.sync import range_scan, to_database
from chalicelib.sync.range_scan import Scan
from chalicelib.sync.runs import Lease, Turned
from chalicelib.sync.to_database import ToDatabase
from chalicelib.sync.watch_beginnings import WatchBeginnings
from chalicelib.sync.watches import Watches
from chalicelib.tables import FORMS, PRODUCTS
from tests.support.client import InProcess
from tests.support.topologies import wait_until
from tests.support.witness import Witness
from tests.sync.clients import RedisCli, as_json, product, run, unwatch, watch
from tests.sync.test_faults import Killed, expire_lease, kill
from tests.sync.test_turned_watches import price, write_price
from tests.sync.test_unfinished_step import name_of


def once(monkeypatch: pytest.MonkeyPatch, owner: type, name: str, do: Callable[[], object]) -> None:
    """`do` something just before this method is called for the first time."""
    method = getattr(owner, name)

    def first(*arguments: Any, **named: Any) -> Any:
        monkeypatch.setattr(owner, name, method)
        do()
        return method(*arguments, **named)

    monkeypatch.setattr(owner, name, first)


class HalfAWatch:
    """A request that turns the watch of one row, in two halves: the watch has turned, and what both
    sides have then is recorded."""

    def __init__(self, shop: InProcess, monkeypatch: pytest.MonkeyPatch) -> None:
        self._shop = shop
        self._monkeypatch = monkeypatch
        self._record: Callable[[], object] | None = None

    @property
    def is_over(self) -> bool:
        return self._record is None

    def begin(self, **fields: str) -> None:
        record = WatchBeginnings.record

        def later(*arguments: Any) -> None:
            self._record = lambda: record(*arguments)

        with self._monkeypatch.context() as patch:
            patch.setattr(WatchBeginnings, "record", later)
            watch(self._shop, [22], **fields)

    def end(self) -> None:
        """Once."""
        if self._record:
            self._record()
        self._record = None


@pytest.mark.parametrize("way", ["few rows", "many rows"])
@pytest.mark.parametrize(
    ("owner", "name"), [(Scan, "every_row"), (to_database._StepClaim, "begin")]
)
@pytest.mark.parametrize("is_killed", [False, True])
def test_a_run_of_every_row_leaves_a_row_that_is_watched_alone_meanwhile_to_the_next_one(
    shop: InProcess,
    cli: RedisCli,
    witness: Witness,
    monkeypatch: pytest.MonkeyPatch,
    way: str,
    owner: type,
    name: str,
    is_killed: bool,
) -> None:
    """What that watch remembers is older. A write behind the run would be undone."""
    if way == "many rows":
        monkeypatch.setattr(to_database, "MIN_ROWS_AT_ONCE", 1)
    watch(shop, ["*"])
    run()
    cli.put("Product:22", Price=7)
    once(monkeypatch, owner, name, lambda: watch(shop, [22]))
    with monkeypatch.context() as patch, suppress(Killed):
        if is_killed:
            once(patch, to_database.ToDatabase, "_tell_written", kill)
        run()
    expire_lease(witness)
    is_followed = price(witness) == 7
    write_price(shop, 6)

    run()

    assert price(witness) == (6 if is_followed else 7)


def test_a_run_that_has_listed_a_watch_before_it_turned_undoes_no_client(
    shop: InProcess, cli: RedisCli, witness: Witness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It began between the first step of the `watch` and the last one. Behind that the client sets
    what the run before saw."""
    watch(shop, [22], "to_cache")
    run()
    seen = cli("GET", "Product:22")
    write_price(shop, 5)
    once(monkeypatch, WatchBeginnings, "record", run)
    watch(shop, [22])
    cli("SET", "Product:22", seen)

    run()

    assert price(witness) == 400


@pytest.mark.parametrize("form", FORMS)
def test_a_run_sets_no_public_key_behind_the_turn_of_its_watch(
    shop: InProcess,
    cli: RedisCli,
    witness: Witness,
    monkeypatch: pytest.MonkeyPatch,
    form: str,
) -> None:
    """It has asked just before. The `watch` has found what stood there, and a write follows."""
    watch(shop, [22], "to_cache", FORM=form)
    run()
    witness.query("UPDATE products SET Price = 7 WHERE ProductId = 22")
    store = type(services.container().public_store)
    once(monkeypatch, store, "set_many", lambda: watch(shop, [22], FORM=form))
    run()
    assert str((cli.row(name_of(form, 22)) or {})["Price"]) == "400"
    write_price(shop, 8)

    run()

    assert price(witness) == 8
    assert str((cli.row(name_of(form, 22)) or {})["Price"]) == "8"


@pytest.mark.parametrize("way", ["turns round", "ends and begins"])
@pytest.mark.parametrize("method", ["_reconcile", "_read"])
def test_a_run_does_not_take_a_watch_that_turned_twice_for_what_it_was(
    shop: InProcess,
    cli: RedisCli,
    witness: Witness,
    monkeypatch: pytest.MonkeyPatch,
    way: str,
    method: str,
) -> None:
    """In between, a write has set the public key. The client sets what the last run saw."""
    watch(shop, [22])
    run()
    seen = cli("GET", "Product:22")

    def turn_twice() -> None:
        if way == "ends and begins":
            unwatch(shop, [22])
        watch(shop, [22], "to_cache")
        write_price(shop, 5)
        watch(shop, [22])
        cli("SET", "Product:22", seen)

    once(monkeypatch, Scan, method, turn_twice)
    run()

    assert price(witness) == 400
    assert cli("GET", "Product:22") == seen


def test_a_step_that_is_done_anew_knows_what_it_has_written(
    shop: InProcess, cli: RedisCli, witness: Witness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The row has followed its public key. Then another watch turns, and a write comes."""
    watch(shop, [11, 22])
    run()
    cli.put("Product:22", Price=7)

    def turn_and_write() -> None:
        assert price(witness) == 7
        watch(shop, [11], "to_cache")
        write_price(shop, 8)

    once(monkeypatch, Watches, "kept", turn_and_write)
    record = run()

    assert record["outcome"] == "done"
    assert price(witness) == 8 == (cli.row("Product:22") or {})["Price"]


def test_a_run_ends_where_watches_turn_all_the_time(
    shop: InProcess, cli: RedisCli, witness: Witness, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch(shop, [11, 22])
    run()
    cli.put("Product:22", Price=7)
    kept = Watches.kept

    def turned_before(*arguments: Any) -> Any:
        watch(shop, [11])
        return kept(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Watches, "kept", turned_before)
        with pytest.raises(Turned, match="turn or end all the time; the next run goes on"):
            run()
    assert witness.query("SELECT outcome FROM sync_runs ORDER BY id DESC LIMIT 1") == [("failed",)]
    write_price(shop, 8)

    assert run(None)["outcome"] == "done"

    assert price(witness) == 8 == (cli.row("Product:22") or {})["Price"]


def test_a_new_watch_does_not_make_a_run_begin_its_step_anew(
    shop: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody may watch one row after another while a run goes on."""
    watch(shop, [22])
    kept, calls = Watches.kept, list[int]()

    def watched_before(*arguments: Any) -> Any:
        calls.append(1)
        watch(shop, [100 + len(calls)])
        return kept(*arguments)

    monkeypatch.setattr(Watches, "kept", watched_before)
    run()

    assert calls == [1]


@pytest.mark.parametrize("is_killed", [False, True], ids=["", "behind a killed run"])
@pytest.mark.parametrize("when", ["within the step", "behind the run"])
def test_what_is_known_of_a_row_that_is_watched_alone_meanwhile_is_not_forgotten(
    shop: InProcess,
    cli: RedisCli,
    witness: Witness,
    monkeypatch: pytest.MonkeyPatch,
    is_killed: bool,
    when: str,
) -> None:
    """Also what a killed run has begun. The `watch` takes it over within the step, or later."""
    watch(shop, ["*"])
    run()
    if is_killed:
        cli.put("Product:22", Price=7)
        with monkeypatch.context() as patch, suppress(Killed):
            once(patch, ToDatabase, "_tell_written", kill)
            run()
        expire_lease(witness)
        assert price(witness) == 7
    write_price(shop, 6)
    half = HalfAWatch(shop, monkeypatch)
    once(monkeypatch, Scan, "every_row", half.begin)
    if when == "within the step":
        once(monkeypatch, Scan, "_reconcile", half.end)
    run()
    half.end()

    run()

    assert price(witness) == 6 == (cli.row("Product:22") or {})["Price"]


def test_a_run_looks_past_a_watch_that_is_not_answered_yet(
    shop: InProcess, cli: RedisCli, witness: Witness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It lists the watch while that turns. Behind the answer the client sets what the run before
    saw."""
    watch(shop, [22], "to_cache")
    run()
    seen = cli("GET", "Product:22")
    write_price(shop, 5)
    half = HalfAWatch(shop, monkeypatch)

    def end() -> None:
        half.end()
        cli("SET", "Product:22", seen)

    once(monkeypatch, Lease, "turns", half.begin)
    once(monkeypatch, Scan, "_read", end)
    run()
    if not half.is_over:
        end()

    run()

    assert price(witness) == 400
    assert cli("GET", "Product:22") == seen


def test_a_step_that_is_done_anew_looks_past_a_watch_that_is_not_answered_yet(
    shop: InProcess, cli: RedisCli, witness: Witness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The `watch` is sent again, while a client sets another value, and then what the last run
    saw."""
    watch(shop, [22])
    run()
    seen = cli("GET", "Product:22")
    write_price(shop, 5)
    half = HalfAWatch(shop, monkeypatch)

    def end() -> None:
        half.end()
        cli("SET", "Product:22", seen)

    def begin() -> None:
        half.begin()
        cli.put("Product:22", Price=9)
        once(monkeypatch, Scan, "_read", end)

    once(monkeypatch, Scan, "_read", begin)
    run()
    assert not half.is_over
    end()

    run()

    assert price(witness) == 400
    assert cli("GET", "Product:22") == seen


def test_so_does_a_range_that_is_handed_out(
    shop: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch(shop, [11])
    half = HalfAWatch(shop, monkeypatch)
    half.begin()
    watches = services.container().watches

    def listed() -> list[object]:
        pages = watches.between(PRODUCTS, "json", "to_database", "", "22")
        return [row.key for page in pages for row in page]

    assert listed() == [11]
    half.end()
    assert listed() == [11, 22]


def test_a_run_waits_for_a_write_that_does_not_know_of_the_turn(
    shop: InProcess, cli: RedisCli, witness: Witness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So does the `watch`. That write then sets the public key at once, and another follows."""
    watch(shop, [22], "to_cache")
    run()
    commit = Transaction._send_commit
    threads = [threading.Thread(target=do) for do in (lambda: watch(shop, [22]), run)]

    def commit_late(self: Transaction, *arguments: Any, **named: Any) -> Any:
        monkeypatch.undo()
        threads[0].start()
        wait_until(lambda: witness.query("SELECT direction FROM watched") == [("to_database",)])
        threads[1].start()
        threads[1].join(0.5)
        return commit(self, *arguments, **named)

    monkeypatch.setattr(Transaction, "_send_commit", commit_late)
    write_price(shop, 5)
    for thread in threads:
        thread.join()
    assert (cli.row("Product:22") or {})["Price"] == 5
    write_price(shop, 6)

    run()

    assert price(witness) == 6 == (cli.row("Product:22") or {})["Price"]


def test_what_is_recorded_of_a_watch_that_has_turned_once_more_does_not_count(
    shop: InProcess, cli: RedisCli, witness: Witness, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch(shop, [22], "to_cache")
    run()
    write_price(shop, 5)
    half = HalfAWatch(shop, monkeypatch)

    def turn_twice() -> None:
        watch(shop, [22], "to_cache")
        write_price(shop, 6)
        half.begin()

    once(monkeypatch, Watches, "recorded", turn_twice)
    watch(shop, [22])
    half.end()
    write_price(shop, 7)

    run()

    assert price(witness) == 7 == (cli.row("Product:22") or {})["Price"]


def test_a_range_that_is_begun_anew_knows_what_was_written_in_it(
    shop: InProcess, cli: RedisCli, witness: Witness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is the second part of one that has become too large."""
    monkeypatch.setattr(range_scan, "RANGE_ROWS", 1)
    cli("SET", "Product:22", as_json(product(22, Price=7)))
    watch(shop, ["*"])

    def turn_and_write() -> None:
        assert price(witness) == 7
        watch(shop, [11])
        write_price(shop, 8)

    once(monkeypatch, ToDatabase, "_tell_written", turn_and_write)
    run()

    assert price(witness) == 8 == (cli.row("Product:22") or {})["Price"]


@pytest.mark.parametrize("is_alone", [True, False], ids=["", "beside another row"])
def test_what_a_watch_has_recorded_within_a_step_is_not_written_over(
    shop: InProcess,
    cli: RedisCli,
    witness: Witness,
    monkeypatch: pytest.MonkeyPatch,
    is_alone: bool,
) -> None:
    """The other row is put under its public key: before that the step records what it begins."""
    watch(shop, [11, 22])
    run()
    cli.put("Product:22", Price=7)
    with monkeypatch.context() as patch, suppress(Killed):
        once(patch, ToDatabase, "_tell_written", kill)
        run()
    expire_lease(witness)
    seven = str(cli("GET", "Product:22"), "utf-8")
    write_price(shop, 6)
    if not is_alone:
        shop.write([product(11, Price=1)], TABLE="products")

    def change_and_take_back() -> None:
        cli.put("Product:22", Price=6)
        watch(shop, [22])
        cli("SET", "Product:22", seven)

    once(monkeypatch, ToDatabase, "_edits", change_and_take_back)
    run()
    run()

    assert price(witness) == 7


def test_a_watch_that_ends_once_more_gives_back_what_it_knows_then(
    shop: InProcess, witness: Witness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run is about to give back what it knew before."""
    watch(shop, ["*"])
    watch(shop, [22])
    run()
    unwatch(shop, [22])

    def end_once_more() -> None:
        watch(shop, [22], "to_cache")
        write_price(shop, 5)
        watch(shop, [22])
        unwatch(shop, [22])
        write_price(shop, 6)

    once(monkeypatch, Watches, "forgetting_left", end_once_more)
    run()

    assert price(witness) == 6


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("method", ["stamp_many", "read_many"])
def test_a_write_beside_the_request_that_turns_its_watch_is_not_undone(
    shop: InProcess,
    cli: RedisCli,
    witness: Witness,
    monkeypatch: pytest.MonkeyPatch,
    form: str,
    method: str,
) -> None:
    """It knows that the watch has turned, and leaves the public key alone."""
    watch(shop, [22], "to_cache", FORM=form)
    write_price(shop, 5)
    store = type(services.container().public_store)
    once(monkeypatch, store, method, lambda: write_price(shop, 6))
    watch(shop, [22], FORM=form)

    run()

    assert price(witness) == 6
    assert str((cli.row(name_of(form, 22)) or {})["Price"]) == "6"


@pytest.mark.parametrize("who", ["the next run", "the request, sent again"])
@pytest.mark.parametrize("form", FORMS)
def test_a_write_after_a_request_that_died_when_its_watch_had_turned_is_not_undone(
    shop: InProcess,
    cli: RedisCli,
    witness: Witness,
    monkeypatch: pytest.MonkeyPatch,
    who: str,
    form: str,
) -> None:
    """A write before the turn has set the public key."""
    watch(shop, [22], "to_cache", FORM=form)
    write_price(shop, 5)
    half = HalfAWatch(shop, monkeypatch)
    half.begin(FORM=form)
    write_price(shop, 6)
    if who != "the next run":
        watch(shop, [22], FORM=form)
        write_price(shop, 7)

    run()

    expected = 6 if who == "the next run" else 7
    assert price(witness) == expected
    assert str((cli.row(name_of(form, 22)) or {})["Price"]) == str(expected)


@pytest.mark.parametrize("change", ["row", "public key"])
def test_a_watch_that_ends_before_its_turn_is_recorded_gives_back_the_row_from_before(
    shop: InProcess,
    cli: RedisCli,
    witness: Witness,
    monkeypatch: pytest.MonkeyPatch,
    change: str,
) -> None:
    """To the watch on every row. A write before the turn has set the public key."""
    watch(shop, ["*"])
    watch(shop, [22], "to_cache")
    run()
    write_price(shop, 5)
    HalfAWatch(shop, monkeypatch).begin()
    if change == "row":
        write_price(shop, 6)
    else:
        cli.put("Product:22", Price=7)
    unwatch(shop, [22])

    run()

    expected = 6 if change == "row" else 7
    assert price(witness) == expected == (cli.row("Product:22") or {})["Price"]


def test_a_run_that_records_a_turn_undoes_no_write_beside_it(
    shop: InProcess, witness: Witness, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch(shop, [22], "to_cache")
    write_price(shop, 5)
    HalfAWatch(shop, monkeypatch).begin()
    store = type(services.container().public_store)
    once(monkeypatch, store, "read_many", lambda: write_price(shop, 6))

    run()
    run()

    assert price(witness) == 6
