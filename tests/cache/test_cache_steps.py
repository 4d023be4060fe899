"""Each step of the protocol alone, on real servers: what it must do, and what it must leave.

Tests of whole requests would notice such a fault only in a rare order of requests.
"""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import redis

from chalicelib import services
from chalicelib.cache import entry_commands, generations, recovery
from chalicelib.cache.client import MAX_EARLY_CONNECTIONS, Client
from chalicelib.cache.entries import Affected, Cache, new_token
from chalicelib.cache.entry_commands import Entry
from chalicelib.cache.entry_scripts import FENCE, LEASE, MARK
from chalicelib.cache.generations import Generations
from chalicelib.cache.keys import MAX_KEYS_A_SCRIPT
from chalicelib.cache.recovery import Recovery
from chalicelib.cache.routing import Connection
from chalicelib.config import Settings
from chalicelib.db import Database, Generation
from chalicelib.errors import AnotherServer, CacheUnavailable, DatabaseUnavailable, TooLarge
from chalicelib.rows import fences, lazy_loading, loader
from chalicelib.rows.idempotency import Recorded
from chalicelib.rows.work import Work
from chalicelib.single_flight import SingleFlight
from chalicelib.tables import HEROES, Column, Key, Row, Table
from tests.support.client import InProcess
from tests.support.redis_client import client_of
from tests.support.topologies import wait_until
from tests.support.witness import Witness
from tests.support.writers import fence, publish

ID, XP = HEROES.key, HEROES.readable["xp"]
MANY = list(range(1, 31))
TOKEN = "t" * 16
THREADS = 8


def hero(id: int, name: str = "before") -> Row:
    return (id, "Nova", "light", name, 5, "red")


@pytest.fixture
def used(service: InProcess) -> Cache:
    """The app's, which has served a request."""
    service.read([1000])
    return services.container().cache


@pytest.fixture
def held(used: Cache, witness: Witness) -> Generation:
    number, enabled, server = witness.generation()
    return Generation(number, enabled, server, 0)


def entry(witness: Witness, id: int = 1) -> bytes:
    [key] = witness.redis.keys(f"*:id:*{id}")
    found = witness.redis.get(key)
    assert isinstance(found, bytes)
    return found


# --- leases and fills -----------------------------------------------------------------------------


def test_a_lease_ends_by_itself(used: Cache, held: Generation, witness: Witness) -> None:
    """Its reader may have died."""
    used.lease_many(held, HEROES, ID, [1], TOKEN)

    [key] = witness.redis.keys("*:id:*1")
    assert 0 < witness.redis.pttl(key) <= entry_commands.LEASE_MILLISECONDS


def test_a_lease_that_is_asked_for_again_is_granted_again(
    used: Cache, held: Generation, witness: Witness
) -> None:
    """The first reply was lost: nobody else would fill the entry."""
    for _ in range(2):
        assert used.lease_many(held, HEROES, ID, [1], TOKEN).granted == [1]
    assert used.lease_many(held, HEROES, ID, [1], new_token()).waiting == [1]


def test_an_entry_is_filled_under_its_own_lease_only(
    used: Cache, held: Generation, witness: Witness
) -> None:
    used.lease_many(held, HEROES, ID, [1], TOKEN)
    used.fill_many(held, HEROES, ID, {1: b"{}"}, new_token())
    used.fill_many(held, HEROES, ID, {2: b"{}"}, TOKEN)
    assert used.get_many(held, HEROES, ID, [1, 2]) == [LEASE + TOKEN.encode(), None]

    used.fill_many(held, HEROES, ID, {1: b"{}"}, TOKEN)
    assert used.get_many(held, HEROES, ID, [1]) == [b"{}"]


@pytest.mark.parametrize("name", ["MGET", "lease first"])
@pytest.mark.parametrize(
    "found", [b"\xff", b"\xffX", b"\xff\xfe{}", b"\xffF", b"\xffF" + b"x" * 60]
)
def test_what_looks_like_a_mark_and_is_none_is_no_value(
    service: InProcess, witness: Witness, found: bytes, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stranger has written there. No answer has it, and a write replaces it."""
    stored = {column.name: value for column, value in zip(HEROES.columns, hero(1))}
    service.write([stored])
    witness.forget_cached()
    assert service.read([1]).rows == [stored]
    [key] = witness.redis.keys("*:id:*1")
    witness.redis.set(key, found)
    if name == "lease first":
        reader = services.container().rows._lazy_loading
        monkeypatch.setattr(reader, "_misses_in_a_row", lazy_loading.MISSES_TO_EXPECT_ONE)

    assert service.read([1]).rows == [stored]
    if not found.startswith(FENCE):
        wait_until(lambda: entry(witness) == HEROES.encode(hero(1)))
    other = {**stored, "name": "after"}
    service.write([other])
    assert service.read([1]).rows == [other]


def test_a_reader_that_waits_does_not_take_a_fence_for_a_value(
    used: Cache, held: Generation, witness: Witness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A writer came while another reader filled the entry."""
    row_service = services.container().rows
    row_service.write(HEROES, [hero(1)], False)
    witness.forget_cached()
    used.lease_many(held, HEROES, ID, [1], TOKEN)

    def fence_it(seconds: float) -> None:
        fence(used, held, Affected({ID: {1: None}}), new_token())

    monkeypatch.setattr(lazy_loading, "time", SimpleNamespace(sleep=fence_it))

    assert row_service.read(HEROES, ID, [1], True).json == HEROES.encode(hero(1))
    assert entry(witness).startswith(FENCE)


def test_a_reader_that_waits_is_answered_with_what_the_other_one_fills(
    used: Cache, held: Generation, witness: Witness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However late within the time that it waits."""
    used.lease_many(held, HEROES, ID, [1], TOKEN)
    turns = []

    def fill_at_last(seconds: float) -> None:
        turns.append(seconds)
        if len(turns) == len(lazy_loading.POLL_SECONDS):
            used.fill_many(held, HEROES, ID, {1: b'{"id":1}'}, TOKEN)

    monkeypatch.setattr(lazy_loading, "time", SimpleNamespace(sleep=fill_at_last))
    with witness.logged() as statements:
        assert services.container().rows.read(HEROES, ID, [1], True).json == b'{"id":1}'
    assert not [text for text in statements if "FROM heroes" in text]


def test_what_a_writer_leaves_lives_long_enough(
    used: Cache, held: Generation, witness: Witness
) -> None:
    """A tombstone longer than any witness; and a writer relies on no fence that counts as dead."""
    publish(used, held, Affected({ID: {1: None}}), TOKEN)

    [key] = witness.redis.keys("*:id:*1")
    assert witness.redis.pttl(key) > entry_commands.WITNESS_MILLISECONDS
    assert fences.MAX_FENCE_SECONDS < entry_commands.DEAD_WRITER_SECONDS


def test_a_tombstone_keeps_its_place(used: Cache, held: Generation) -> None:
    """No reader settles it: who still stores the new row that is gone would find the place free."""
    publish(used, held, Affected({ID: {1: None}}), TOKEN)

    assert used.lease_many(held, HEROES, ID, [1], new_token()).fenced == [1]


@pytest.mark.parametrize("by", [ID, XP])
def test_a_read_that_finds_no_row_leaves_no_lease(
    used: Cache, witness: Witness, by: Column
) -> None:
    """The next one would wait for nobody."""
    services.container().rows.read(HEROES, by, [1, 2], True)
    used.probe()  # whatever was sent before it has arrived

    assert witness.redis.keys(f"*:{by.name}:*") == []


def test_a_read_that_fails_leaves_no_lease(
    used: Cache, witness: Witness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For whatever reason."""
    services.container().rows.write(HEROES, [hero(1)], False)
    monkeypatch.setattr(loader, "MAX_RESULT_BYTES", 0)
    with pytest.raises(TooLarge):
        services.container().rows.read(HEROES, XP, [5], True)
    used.probe()  # whatever was sent before it has arrived

    assert witness.redis.keys("*:xp:*") == []


@pytest.mark.parametrize("is_witnessed", [True, False])
def test_a_new_row_is_stored_while_its_witness_stands_only(
    used: Cache, held: Generation, witness: Witness, is_witnessed: bool
) -> None:
    """Without it Redis was emptied, or much time has passed."""
    new = Affected(new={1: b"{}"})
    fence(used, held, new, TOKEN)
    if not is_witnessed:
        witness.redis.delete(*witness.redis.keys("*:witness:*"))
    publish(used, held, new, TOKEN)
    used.probe()  # whatever was sent before it has arrived

    assert len(witness.entries()) == is_witnessed


def test_more_new_rows_than_one_command_names_are_stored_too(
    used: Cache, held: Generation, witness: Witness
) -> None:
    """Their witness goes with the last of the commands."""
    new = Affected(new=dict.fromkeys(range(1, 2 * MAX_KEYS_A_SCRIPT + 2), b"{}"))
    fence(used, held, new, TOKEN)
    publish(used, held, new, TOKEN)
    used.probe()  # whatever was sent before it has arrived

    assert len(witness.entries()) == len(new.new)
    assert witness.redis.keys("*:witness:*") == []


@pytest.mark.own_deadlines
@pytest.mark.parametrize("steps", [1, 2])
def test_what_another_one_publishes_while_fences_come_outlives_their_witness(
    used: Cache,
    held: Generation,
    witness: Witness,
    monkeypatch: pytest.MonkeyPatch,
    steps: int,
) -> None:
    """Or the watermark tells of it. Else a new row that is stored late would come back over its
    change, once that has expired."""
    monkeypatch.setattr(used._make, "_ttl", (900, 0))
    with monkeypatch.context() as patch:
        patch.setattr(Client, "send", lambda *_: None)
        pending = used.begin_fence_many(held, HEROES, {}, [1], TOKEN)
    replies = [*used._client.call(pending._commands[:steps], held.server_name)]
    changed = Affected({ID: {1: b"{}"}})
    fence(used, held, changed, "another")
    publish(used, held, changed, "another", committed_at=7)
    time.sleep(0.05)
    if steps < len(pending._commands):
        replies += used._client.call(pending._commands[steps:], held.server_name)

    [value], [own] = witness.entries(), witness.redis.keys(f"*:witness:{TOKEN}")
    is_told = pending._result(replies) >= 7
    assert is_told == (steps == 1)
    assert is_told or witness.redis.pttl(value) >= witness.redis.pttl(own)


def store_by_filling(used: Cache, held: Generation) -> None:
    used.lease_many(held, HEROES, ID, MANY, TOKEN)
    used.fill_many(held, HEROES, ID, dict.fromkeys(MANY, b"{}"), TOKEN)


def store_by_settling(used: Cache, held: Generation) -> None:
    fence(used, held, Affected({ID: dict.fromkeys(MANY)}), TOKEN)
    fences = used.get_many(held, HEROES, ID, MANY)
    settled: dict[Key, tuple[Entry, Entry | None]] = {
        id: (fence or b"", b"{}") for id, fence in zip(MANY, fences)
    }
    used.settle_many(held, HEROES, ID, settled)


def store_by_publishing(used: Cache, held: Generation) -> None:
    affected = Affected({ID: dict.fromkeys(MANY, b"{}")})
    fence(used, held, affected, TOKEN)
    publish(used, held, affected, TOKEN)


def store_as_new(used: Cache, held: Generation) -> None:
    affected = Affected(new=dict.fromkeys(MANY, b"{}"))
    fence(used, held, affected, TOKEN)
    publish(used, held, affected, TOKEN)


@pytest.mark.parametrize(
    "store", [store_by_filling, store_by_settling, store_by_publishing, store_as_new]
)
def test_what_is_stored_together_does_not_expire_together(
    used: Cache, held: Generation, witness: Witness, store: Callable[[Cache, Generation], None]
) -> None:
    store(used, held)

    assert used.get_many(held, HEROES, ID, MANY) == [b"{}"] * len(MANY)
    lives = {round(witness.redis.ttl(key) / 10) for key in witness.entries()}
    assert len(lives) > 3
    assert 3200 <= 10 * min(lives) <= 10 * max(lives) <= 4000


# --- settling -------------------------------------------------------------------------------------


def settled_by_a_read(monkeypatch: pytest.MonkeyPatch, commit: Callable[[], None]) -> bytes:
    """What a reader answers that takes the writer for dead; `commit` is called while it waits."""
    row_service = services.container().rows
    with monkeypatch.context() as patch, ThreadPoolExecutor(1) as thread:
        patch.setattr(entry_commands, "DEAD_WRITER_SECONDS", 0)
        reading = thread.submit(row_service.read, HEROES, ID, [1], True)
        commit()
        return reading.result().json


def test_a_fence_is_settled_once_its_writer_has_let_go_of_the_row(
    used: Cache, held: Generation, witness: Witness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was slow, and not dead: the reader's SELECT waits for it."""
    services.container().rows.write(HEROES, [hero(1)], False)
    witness.query("START TRANSACTION")
    witness.query("UPDATE heroes SET name = 'after' WHERE id = 1")
    fence(used, held, Affected({ID: {1: None}}), TOKEN)

    def commit() -> None:
        waiting = "SHOW GLOBAL STATUS LIKE 'Innodb_row_lock_current_waits'"
        wait_until(lambda: witness.query(waiting)[0][1] != "0")
        witness.query("COMMIT")

    assert settled_by_a_read(monkeypatch, commit) == HEROES.encode(hero(1, "after"))
    assert services.container().rows.read(HEROES, ID, [1], True).json == HEROES.encode(
        hero(1, "after")
    )


def test_a_fence_stands_for_as_long_again_where_its_writer_does_not_let_go_of_the_row(
    used: Cache, held: Generation, witness: Witness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the reader finds is old as soon as that writer commits, and it may die then."""
    services.container().rows.write(HEROES, [hero(1)], False)
    witness.query("START TRANSACTION")
    witness.query("UPDATE heroes SET name = 'after' WHERE id = 1")
    fence(used, held, Affected({ID: {1: None}}), TOKEN)
    met = entry(witness)

    assert settled_by_a_read(monkeypatch, lambda: None) == HEROES.encode(hero(1))
    witness.query("COMMIT")

    wait_until(lambda: entry(witness) != met)
    assert entry(witness).startswith(FENCE)


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2), (2, 1, 0)])
def test_a_shared_fence_stands_until_the_last_writer_lifts_it(
    used: Cache, held: Generation, order: tuple[int, ...]
) -> None:
    fenced, tokens = Affected({XP: {5: None}}), [new_token() for _ in order]
    for token in tokens:
        fence(used, held, fenced, token)

    for at in order:
        assert used.lease_many(held, HEROES, XP, [5], new_token()).fenced == [5]
        publish(used, held, fenced, tokens[at])
    assert used.lease_many(held, HEROES, XP, [5], new_token()).granted == [5]


def test_a_fence_that_is_sent_twice_is_lifted_once(used: Cache, held: Generation) -> None:
    """The first reply was lost."""
    fenced = Affected({XP: {5: None}})
    for _ in range(2):
        fence(used, held, fenced, TOKEN)
    publish(used, held, fenced, TOKEN)

    assert used.lease_many(held, HEROES, XP, [5], new_token()).granted == [5]


def test_a_shared_fence_that_a_reader_renews_is_still_shared(
    used: Cache, held: Generation, witness: Witness
) -> None:
    """The last writer may have read before another one committed, who is gone."""
    first, last = new_token(), new_token()
    for token in (first, last):
        fence(used, held, Affected({XP: {5: None}}), token)
    publish(used, held, Affected({XP: {5: None}}), first)
    [found] = used.get_many(held, HEROES, XP, [5])
    used.settle_many(held, HEROES, XP, {5: (found or b"", MARK)})
    publish(used, held, Affected({XP: {5: b"{}"}}), last)

    assert witness.entries() == {}


# --- the marker -----------------------------------------------------------------------------------


def test_a_data_set_without_its_marker_takes_no_mark(
    used: Cache, held: Generation, witness: Witness
) -> None:
    """Redis was emptied. Nobody would know what else it has lost."""
    witness.redis.flushall()

    for step in (
        lambda: used.lease_many(held, HEROES, ID, [1], TOKEN),
        lambda: fence(used, held, Affected({ID: {1: None}}), TOKEN),
        lambda: fence(used, held, Affected(new={1: b"{}"}), TOKEN),
    ):
        with pytest.raises(AnotherServer) as raised:
            step()
        assert raised.value.server == held.server_name == witness.server
    assert witness.redis.keys("*:id:*") == []


def test_nothing_that_comes_late_brings_back_a_marker(
    used: Cache, held: Generation, witness: Witness
) -> None:
    """Nor a value: what was set before Redis was emptied is not there any more."""
    entries_ = Affected({ID: {1: b"{}"}}, {2: b"{}"})
    fence(used, held, entries_, TOKEN)
    [met] = used.get_many(held, HEROES, ID, [1])
    used.lease_many(held, HEROES, ID, [3], TOKEN)
    witness.redis.flushall()
    publish(used, held, entries_, TOKEN)
    used.fill_many(held, HEROES, ID, {3: b"{}"}, TOKEN)
    used.settle_many(held, HEROES, ID, {1: (met or b"", b"{}")})
    used.probe()  # whatever was sent before it has arrived

    assert witness.redis.keys("*:marker:*") == []
    assert witness.entries() == {}


def test_each_incarnation_has_a_name_of_its_own(
    used: Cache, held: Generation, witness: Witness
) -> None:
    """Also where the last try failed: its marker may come late."""
    names = {used.begin_incarnation(HEROES, held.server_name) for _ in range(3)}

    assert len(names | {held.server}) == 4
    for name in names:
        next_one = Generation(held.number, True, name, 0)
        assert used.lease_many(next_one, HEROES, ID, [len(names)], TOKEN).granted


def test_an_incarnation_has_begun_once_redis_has_its_markers(
    used: Cache, held: Generation, witness: Witness
) -> None:
    """A marker that came later could come behind a loss of all entries, and say that there was
    none."""
    witness.redis.client_pause(300, all=False)
    data_set = used.begin_incarnation(HEROES, held.server_name)

    assert witness.redis.exists(f"{{heroes.0}}:marker:{data_set.rpartition(':')[2]}") == 1


@pytest.mark.parametrize("switch_on", ["a reader", "a writer", "a recovery"])
def test_a_marker_stands_before_a_generation_names_it(
    used: Cache,
    held: Generation,
    witness: Witness,
    monkeypatch: pytest.MonkeyPatch,
    switch_on: str,
) -> None:
    """Who met the generation first would find another data set again."""
    markers = []
    switch = Database.switch_on

    def switch_on_(self: Database, table: Table, number: int, server: str) -> None:
        markers.append(witness.redis.keys(f"*:marker:{server.rpartition(':')[2]}"))
        switch(self, table, number, server)

    monkeypatch.setattr(Database, "switch_on", switch_on_)
    rows = services.container().rows
    if switch_on == "a recovery":
        witness.query("UPDATE cache_generation SET enabled = 0 WHERE table_name = 'heroes'")
        container = services.container()
        known = Generations(container.database, used)
        Recovery(container.database, used, known)._take_into_use(used.probe())
    else:
        witness.redis.flushall()
        if switch_on == "a reader":
            rows.read(HEROES, ID, [1], True)
        else:
            rows.write(HEROES, [hero(1)], True)

    assert [len(found) for found in markers] == [1]
    number, enabled, server = witness.generation()
    assert (number, enabled) == (held.number + 1, True)
    assert server.startswith(f"{held.server_name}:")
    assert server != held.server


def test_a_hint_is_retired_before_the_cache_is_switched_on(
    used: Cache, held: Generation, witness: Witness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It names a generation that was retired while Redis was away. The one who switches on may die
    behind that."""
    hints: list[Generation | None] = []
    switch = Database.switch_on

    def switch_on(self: Database, table: Table, number: int, server: str) -> None:
        hints.append(used.hint(table))
        switch(self, table, number, server)

    used.leave_hint(HEROES, held, wait=True)
    assert used.hint(HEROES) == held
    witness.query(
        "UPDATE cache_generation SET generation = generation + 1, enabled = 0"
        " WHERE table_name = 'heroes'"
    )
    monkeypatch.setattr(Database, "switch_on", switch_on)
    database = services.container().database
    Recovery(database, used, Generations(database, used))._take_into_use(used.probe())

    assert hints == [None]


@pytest.mark.parametrize("knows", [False, True], ids=["a new container", "one that knew it"])
def test_where_the_cache_stayed_on_the_hint_that_a_recovery_leaves_is_what_the_database_tells(
    used: Cache, held: Generation, witness: Witness, knows: bool
) -> None:
    """Another container raised the generation while Redis was away, and is frozen since."""
    database = services.container().database
    known = Generations(database, used)
    if knows:
        assert known.current(HEROES).number == held.number
    used.leave_hint(HEROES, held, wait=True)
    witness.query(
        "UPDATE cache_generation SET generation = generation + 1 WHERE table_name = 'heroes'"
    )
    Recovery(database, used, known)._take_into_use(used.probe())

    assert used.hint(HEROES) == replace(held, number=held.number + 1)


@pytest.mark.parametrize("by", ["a generation", "a hint"])
def test_a_data_set_without_an_incarnation_is_another_one(
    used: Cache, held: Generation, witness: Witness, by: str
) -> None:
    """As an earlier release named it."""
    old = Generation(held.number, True, held.server_name, 0)
    if by == "a hint":
        used.leave_hint(HEROES, held, wait=True)
        assert used.hint(HEROES) == held
        [hint] = witness.redis.keys("*heroes*:generation")
        witness.redis.set(hint, f"{old.number} {old.server}")
        assert used.hint(HEROES) is None
    else:
        with pytest.raises(AnotherServer):
            used.get_many(old, HEROES, ID, [1])


def test_a_marker_lives_for_as_long_again_with_each_write(
    used: Cache, held: Generation, witness: Witness
) -> None:
    [key] = witness.redis.keys(f"*heroes*:marker:{held.incarnation}")
    witness.redis.pexpire(key, 60_000)
    publish(used, held, Affected({ID: {1: None}}), TOKEN)

    assert witness.redis.pttl(key) > entry_commands.MARKER_MILLISECONDS - 60_000


def test_of_the_markers_of_a_cluster_all_must_stand_and_the_latest_counts(
    environment: dict[str, str], held: Generation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each bucket of a table has its own."""
    settings = Settings.from_environment({**environment, "REDIS_CLUSTER": "1"})
    in_cluster = Cache(settings)
    told: list[bytes | None] = [b"5", b"7"] * 8
    answer = SimpleNamespace(
        is_cluster=True, send=lambda commands: None, call=lambda *_, **__: [*[b"OK"] * 16, *told]
    )
    monkeypatch.setattr(in_cluster, "_client", answer)

    assert in_cluster.begin_fence_many(held, HEROES, {}, None, TOKEN).wait() == 7
    told[3] = None
    with pytest.raises(AnotherServer):
        in_cluster.begin_fence_many(held, HEROES, {}, None, TOKEN).wait()


# --- generations ----------------------------------------------------------------------------------


@pytest.fixture
def known(used: Cache) -> Generations:
    return Generations(services.container().database, used)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What time it is for what is remembered."""
    now = [1000.0]
    patched = SimpleNamespace(monotonic=lambda: now[0], sleep=time.sleep)
    monkeypatch.setattr(generations, "time", patched)
    return now


def test_memory_counts_from_the_question(
    known: Generations, clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another container may raise the generation while the answer is on its way."""
    ask = Database.generation

    def answer_late(self: Database, *arguments: Any) -> Generation:
        answer = ask(self, *arguments)
        clock[0] += generations.MEMORY_SECONDS - 0.1
        return answer

    monkeypatch.setattr(Database, "generation", answer_late)
    known.current(HEROES)

    assert not known.is_due(HEROES)
    clock[0] += 0.1
    assert known.is_due(HEROES)


def test_an_earlier_generation_does_not_take_the_place_of_a_later_one(
    known: Generations, held: Generation
) -> None:
    later = Generation(held.number + 1, True, held.server, 0)
    known.saw(HEROES, later, time.monotonic())
    known.saw(HEROES, held, time.monotonic())

    assert known.remembered(HEROES) == later


Ask = Callable[..., Generation]


@pytest.fixture
def waiting(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows with each thread that needs a generation of which memory ran out."""
    threads, ask = list[int](), SingleFlight.ask

    def ask_(self: Any, *arguments: Any) -> Any:
        threads.append(1)
        return ask(self, *arguments)

    monkeypatch.setattr(SingleFlight, "ask", ask_)
    return threads


def wait_for(waiting: list[int], count: int) -> None:
    wait_until(lambda: len(waiting) >= count)
    time.sleep(0.02)  # the last one is noted, and about to wait


@pytest.fixture
def asked(
    known: Generations, waiting: list[int], monkeypatch: pytest.MonkeyPatch
) -> Callable[[Ask], list[object]]:
    """What threads get that need the generation at the same time, where the given function answers
    once all of them wait. There is no hint."""

    def asked(answer: Ask) -> list[object]:
        def answer_when_all_wait(self: Database, *arguments: Any) -> Generation:
            wait_for(waiting, THREADS)
            return answer(self, *arguments)

        def current(_: int) -> object:
            try:
                return known.current(HEROES)
            except DatabaseUnavailable as error:
                return error

        known._memory["heroes"].valid_until = 0
        with monkeypatch.context() as patch, ThreadPoolExecutor(THREADS) as pool:
            patch.setattr(Database, "generation", answer_when_all_wait)
            return list(pool.map(current, range(THREADS)))

    known.current(HEROES)
    monkeypatch.setattr(Generations, "_hint", lambda *_: None)
    return asked


@pytest.mark.usefixtures("lasting_generations")
def test_threads_whose_memory_ran_out_ask_once(
    asked: Callable[[Ask], list[object]], held: Generation
) -> None:
    questions, ask = list[int](), Database.generation

    def answer(*arguments: Any) -> Generation:
        questions.append(1)
        return ask(*arguments)

    answers = asked(answer)

    assert {each.number for each in answers if isinstance(each, Generation)} == {held.number}
    assert (len(answers), len(questions)) == (THREADS, 1)


def test_threads_that_wait_for_a_question_that_fails_fail_with_it(
    known: Generations, asked: Callable[[Ask], list[object]], held: Generation
) -> None:
    """Each with a question of its own, the last of them would wait for all. Where there is no hint,
    a question that is quickly given up is followed by one that is not. What is asked later is asked
    anew."""
    questions = list[int]()

    def answer(*_: Any) -> Generation:
        questions.append(1)
        raise DatabaseUnavailable("for this test")

    answers = asked(answer)

    assert [type(each) for each in answers] == [DatabaseUnavailable] * THREADS
    assert len(questions) == 2
    assert known.current(HEROES).number == held.number


def test_an_answer_to_a_question_put_too_long_ago_is_not_shared(
    known: Generations, held: Generation, waiting: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Since it was put, a later generation may have been acknowledged. Those who waited for it ask
    again, once."""
    later = Generation(held.number + 1, True, held.server, 0)
    asking, questions = threading.Event(), list[int]()

    def answer(*_: Any) -> Generation:
        questions.append(1)
        asking.set()
        wait_for(waiting, THREADS)
        return held if len(questions) == 1 else later

    known.current(HEROES)
    known._memory["heroes"].valid_until = 0
    monkeypatch.setattr(generations, "MEMORY_SECONDS", 0.01)
    monkeypatch.setattr(Database, "generation", answer)
    with ThreadPoolExecutor(THREADS) as pool:
        first = pool.submit(known.current, HEROES)
        asking.wait()
        time.sleep(0.02)
        others = [pool.submit(known.current, HEROES) for _ in range(THREADS - 1)]
        assert first.result() == held
        assert [other.result() for other in others] == [later] * (THREADS - 1)
    assert len(questions) < THREADS


def test_a_write_counts_from_before_its_transaction(
    used: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it learns there is as old as that."""
    transact, wait = Database.transact, Generations.wait_until_known
    begun, asked = list[float](), list[float]()

    def transact_(self: Database, work: Any) -> Any:
        begun.append(time.monotonic())
        return transact(self, work)

    def wait_(self: Generations, *arguments: Any) -> None:
        asked.append(arguments[-1])
        wait(self, *arguments)

    monkeypatch.setattr(Database, "transact", transact_)
    monkeypatch.setattr(Generations, "wait_until_known", wait_)
    writing = services.container().rows._write_through
    writing.change(HEROES, Work([hero(1)]), store=True)
    writing.replace_all(HEROES, lambda transaction: None)
    writing.show_again(HEROES, lambda transaction: Recorded((), {"id": [1]}))
    writing.wait_for_readers(HEROES)

    assert all(at <= start for at, start in zip(asked, begun, strict=True))
    assert len(asked) == 4


def test_only_the_generation_that_was_met_is_raised_for_another_server(
    used: Cache, held: Generation, witness: Witness
) -> None:
    """Somebody else was faster."""
    services.container().database.switch_on(HEROES, held.number - 1, "another")
    assert witness.generation() == (held.number, True, held.server)

    services.container().database.switch_on(HEROES, held.number, "another")
    assert witness.generation() == (held.number + 1, True, "another")


# --- what fails -----------------------------------------------------------------------------------


def test_a_write_that_cannot_publish_switches_the_cache_off(
    used: Cache, held: Generation, witness: Witness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody knows whether its fences stand: Redis may evict what was just set."""

    def fail(self: Cache, *_: object) -> None:
        raise CacheUnavailable("for this test")

    monkeypatch.setattr(Cache, "publish_many", fail)
    monkeypatch.setattr(Connection, "keeps_new_keys", False)
    monkeypatch.setattr(Recovery, "start", lambda self: None)
    services.container().rows.write(HEROES, [hero(1)], True)

    assert witness.generation() == (held.number + 1, False, held.server)


def test_an_early_reply_of_another_server_is_not_believed(
    used: Cache, held: Generation, witness: Witness
) -> None:
    moved = Generation(held.number, True, "another", 0)
    for begin in (
        lambda: used.begin_get_many(moved, HEROES, ID, [1]),
        lambda: used.begin_lease_many(moved, HEROES, ID, [1], TOKEN),
        lambda: used.begin_fence_many(moved, HEROES, {XP: {5: None}}, None, TOKEN),
    ):
        sent: Any = begin()
        with pytest.raises(AnotherServer):
            sent.wait()


def test_what_was_sent_early_is_given_back_where_it_is_not_needed(
    used: Cache, witness: Witness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The table was switched off meanwhile, or the database goes away."""
    row_service, known = (
        services.container().rows,
        services.container().rows._lazy_loading._generations,
    )
    monkeypatch.setattr(Recovery, "start", lambda self: None)
    for missed in (0, lazy_loading.MISSES_TO_EXPECT_ONE):
        for _ in range(MAX_EARLY_CONNECTIONS + 1):
            row_service._lazy_loading._misses_in_a_row = missed
            witness.query("UPDATE cache_generation SET enabled = 1, generation = generation + 1")
            known.forget(HEROES)
            known.current(HEROES)
            known._memory["heroes"].valid_until = 0
            witness.query("UPDATE cache_generation SET enabled = 0, generation = generation + 1")
            row_service.read(HEROES, ID, [1], True)

    assert client_of(used)._early_turns._value == MAX_EARLY_CONNECTIONS


@pytest.mark.parametrize("is_under_way", [False, True], ids=["", "while it is taken into use"])
def test_redis_is_probed_whatever_found_that_it_failed(
    used: Cache, monkeypatch: pytest.MonkeyPatch, is_under_way: bool
) -> None:
    """Also a command that nobody waits for, and one that fails while a thread takes Redis back."""
    monkeypatch.setattr(recovery, "PROBE_SECONDS", 0)
    recovering = services.container().recovery
    take_into_use = recovering._take_into_use
    failures = [redis.ConnectionError("for this test")] * 2
    taken: list[bool] = []

    def fail_then(server: str) -> None:
        take_into_use(server)
        if is_under_way and not taken:
            client_of(used)._mark_down(failures.pop())
        taken.append(client_of(used).is_down)

    monkeypatch.setattr(recovering, "_take_into_use", fail_then)
    client_of(used)._mark_down(failures.pop())
    wait_until(lambda: bool(taken) and not taken[-1])

    assert not client_of(used).is_down
    assert len(taken) == 1 + is_under_way


@pytest.mark.parametrize(
    ("answers", "probes"),
    [("+-+-+-+++", 9), ("+++", 3), ("++-++-+++", 9)],
)
def test_redis_is_used_again_after_some_good_probes_in_a_row(
    used: Cache, monkeypatch: pytest.MonkeyPatch, answers: str, probes: int
) -> None:
    """One that answers every other time would fail requests again and again."""
    asked = list[int]()
    probe = client_of(used).probe

    def answer() -> str:
        asked.append(1)
        if answers[len(asked) - 1] == "-":
            raise CacheUnavailable("for this test")
        return probe()

    client_of(used).is_down = True
    monkeypatch.setattr(client_of(used), "probe", answer)
    monkeypatch.setattr(recovery, "PROBE_SECONDS", 0)
    known = Generations(services.container().database, used)
    Recovery(services.container().database, used, known).start()
    wait_until(lambda: not client_of(used).is_down)

    assert len(asked) == probes


@pytest.mark.parametrize("step", ["send", "receive"])
@pytest.mark.parametrize("error", [KeyError, redis.ConnectionError])
def test_an_early_turn_is_given_back_where_an_error_ends_it(
    used: Cache, monkeypatch: pytest.MonkeyPatch, step: str, error: type[Exception]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    rows = services.container().rows
    for _ in range(MAX_EARLY_CONNECTIONS):
        rows._lazy_loading._generations._memory["heroes"].valid_until = 0
        with monkeypatch.context() as patch, suppress(KeyError):
            patch.setattr(Connection, step, fail)
            rows.read(HEROES, ID, [1], True)

    assert client_of(used)._early_turns._value == MAX_EARLY_CONNECTIONS
