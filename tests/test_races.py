"""Orders of steps that a busy hour brings about, each played on purpose.

Two containers in one process; where one of them stops, the other goes on.
"""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from pymysql.constants import ER

from chalicelib.cache import entries
from chalicelib.cache.client import Link
from chalicelib.cache.connection import Command
from chalicelib.cache.entries import UNKNOWN_COMMIT, Affected, Cache, Leases, Sent, Token, new_token
from chalicelib.db import Generation
from chalicelib.db.mysql import Answer, Connection, MySQLError
from chalicelib.handlers import requests
from chalicelib.rows import write_through
from chalicelib.rows.service import Storage
from chalicelib.tables import HEROES, NO_KEY, PRODUCTS, Column, Row
from tests.client import InProcess
from tests.conftest import Configure
from tests.witness import Witness
from tests.writers import fence, publish

XP = HEROES.readable["xp"]
ID = HEROES.key


def hero(id: int, name: str, xp: int = 5) -> Row:
    return (id, "Nova", "light", name, xp, "red")


@pytest.fixture
def one(service: InProcess) -> Storage:
    """A container that knows the generation. Heroes 1 and 2 have xp 5."""
    storage = requests.storage()
    storage.write(HEROES, [hero(1, "before"), hero(2, "before")], False)
    return storage


@pytest.fixture
def other(one: Storage, configure: Configure) -> Storage:
    configure()
    storage = requests.storage()
    storage.read(HEROES, ID, [1000], True)
    return storage


@pytest.fixture
def generation(one: Storage, witness: Witness) -> Generation:
    number, enabled, server = witness.generation()
    return Generation(number, enabled, server, 0)


@pytest.fixture
def fences_are_old(monkeypatch: pytest.MonkeyPatch) -> None:
    """As after ten seconds: whoever meets a fence takes its writer for dead."""
    monkeypatch.setattr(entries, "DEAD_WRITER_SECONDS", 0)


def names(storage: Storage, xp: int = 5) -> list[bytes]:
    """Of the heroes with this xp, as a cached read gives them."""
    rows = storage.read(HEROES, XP, [xp], True).json
    return [name for name in (b"before", b"after") for _ in range(rows.count(b'"%b"' % name))]


@pytest.mark.usefixtures("fences_are_old")
def test_a_reader_that_settles_a_fence_sees_that_another_writer_came_and_went(
    one: Storage, other: Storage, generation: Generation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fence of a dead writer holds the same writers then as when the reader met it."""
    fenced = Affected({XP: {5: None}})
    fence(requests.cache(), generation, fenced, new_token())
    load = one._lazy_loading._load

    def load_and_sleep(*arguments: object, **options: object) -> object:
        loaded = load(*arguments, **options)  # type: ignore[arg-type]
        monkeypatch.undo()
        other.write(HEROES, [hero(2, "after")], True)
        return loaded

    monkeypatch.setattr(one._lazy_loading, "_load", load_and_sleep)
    assert names(one) == [b"before", b"before"]

    for storage in (one, other):
        assert names(storage) == [b"before", b"after"]


def test_an_entry_is_not_settled_while_a_writer_that_just_came_holds_it(
    one: Storage, witness: Witness, generation: Generation
) -> None:
    """Another one is dead. The reader's SELECT would not wait for who has no row lock yet; nor must
    readers take locks for as long as quick writers overlap."""
    dead, alive = new_token(), new_token()
    used = requests.cache()
    fenced = Affected({XP: {5: None}})
    fence(used, generation, fenced, dead)
    [key] = witness.redis.keys("*:xp:*")
    found: bytes = witness.redis.get(key)  # type: ignore[assignment]
    witness.redis.set(key, found[:19] + b"%010d" % 1 + found[29:])

    def leases() -> Leases:
        return used.lease_many(generation, HEROES, XP, [5], new_token())

    assert list(leases().abandoned) == [5]
    fence(used, generation, fenced, alive)
    assert leases().fenced == [5]
    publish(used, generation, fenced, alive)
    assert list(leases().abandoned) == [5]
    publish(used, generation, fenced, dead)
    assert leases().granted == [5]


def test_of_two_writers_that_overlap_on_a_lookup_neither_shows_it(
    one: Storage, other: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first one read what it shows before the second one committed, and publishes last."""
    publish_many = Cache.publish_many

    def publish_late(self: Cache, *arguments: object) -> None:
        monkeypatch.undo()
        other.write(HEROES, [hero(4, "after")], True)
        publish_many(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Cache, "publish_many", publish_late)
    one.write(HEROES, [hero(3, "before")], True)

    for storage in (one, other):
        assert names(storage) == [b"before"] * 3 + [b"after"]


def test_a_writer_whose_fence_was_lost_lets_no_other_one_show_a_lookup(
    one: Storage, witness: Witness, generation: Generation
) -> None:
    """Redis was emptied between the two fences; the second writer read the lookup before the first
    one committed."""
    first, second = new_token(), new_token()
    used = requests.cache()
    fence(used, generation, Affected({XP: {5: None}}), first)
    witness.forget_cached()
    fence(used, generation, Affected({XP: {5: None}}), second)
    publish(used, generation, Affected({XP: {5: b"with the first"}}), first)
    publish(used, generation, Affected({XP: {5: b"without the first"}}), second)

    assert witness.entries() == {}


def test_a_writer_alone_on_a_lookup_shows_it_with_the_rows_of_others(
    one: Storage, other: Storage, witness: Witness
) -> None:
    one.write(HEROES, [hero(9, "after", xp=6), hero(3, "after")], True)

    shown = {key: entry for key, entry in witness.entries().items() if b":xp:" in key}
    assert sorted(entry.count(b'"id"') for entry in shown.values()) == [1, 3]
    assert names(other) == [b"before", b"before", b"after"]


def test_a_lookup_with_too_many_other_rows_is_not_read_for_a_write(
    one: Storage, witness: Witness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(write_through, "MAX_SHOWN_ROWS", 2)
    one.write(HEROES, [hero(3, "after")], True)

    assert not [key for key in witness.entries() if b":xp:" in key]
    assert names(one) == [b"before", b"before", b"after"]


def test_a_writer_that_slept_after_it_sent_its_fences_does_not_rely_on_them(
    one: Storage, other: Storage, witness: Witness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They may have been settled. No reader believes an entry then."""
    number, *_ = witness.generation()
    monkeypatch.setattr(write_through, "MAX_FENCE_SECONDS", -1)
    one.write(HEROES, [hero(3, "after")], True)

    assert witness.generation()[:2] == (number + 1, False)
    assert names(other) == [b"before", b"before", b"after"]


@pytest.mark.parametrize("use_cache", [True, False])
def test_a_row_with_the_key_of_a_cached_one_that_is_gone_is_seen(
    one: Storage, other: Storage, witness: Witness, use_cache: bool
) -> None:
    """TRUNCATE lets the database give its keys from 1 again, and tells nobody."""
    [key] = one.write(HEROES, [(NO_KEY, *hero(0, "before")[1:])], True)
    assert other.read(HEROES, HEROES.key, [key], True).hits == 1
    witness.query("TRUNCATE heroes")
    rows: list[Row] = [(NO_KEY, *hero(0, "after")[1:])] * int(key)

    assert key in one.write(HEROES, rows, use_cache)

    for storage in (one, other):
        assert b"after" in storage.read(HEROES, HEROES.key, [key], True).json


def test_a_repeated_write_lets_such_a_row_be_seen_too(
    one: Storage, other: Storage, witness: Witness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first try died when its rows were committed."""
    [key] = one.write(HEROES, [(NO_KEY, *hero(0, "before")[1:])], True)
    witness.query("TRUNCATE heroes")
    rows: list[Row] = [(NO_KEY, *hero(0, "after")[1:])] * int(key)
    monkeypatch.setattr(Cache, "publish_many", die)
    with pytest.raises(ZeroDivisionError):
        one.write(HEROES, rows, True, "key")
    monkeypatch.undo()

    assert key in other.write(HEROES, rows, True, "key")

    for storage in (one, other):
        assert b"after" in storage.read(HEROES, HEROES.key, [key], True).json


def test_each_try_of_a_write_has_fences_of_its_own(
    one: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What lifts those of a try that failed may come while the next one's stand."""
    commit, begin_fence_many = Connection.batch_and_commit, Cache.begin_fence_many
    tokens: list[Token] = []

    def be_a_victim(self: Connection, *arguments: Any) -> list[Answer]:
        if len(tokens) == 1:
            raise MySQLError(ER.LOCK_DEADLOCK, "for this test")
        return commit(self, *arguments)

    def note_token(self: Cache, *arguments: Any) -> Sent[float]:
        tokens.append(arguments[-1])
        return begin_fence_many(self, *arguments)

    monkeypatch.setattr(Connection, "batch_and_commit", be_a_victim)
    monkeypatch.setattr(Cache, "begin_fence_many", note_token)
    one.write(HEROES, [hero(3, "after")], True)

    assert len(set(tokens)) == 2


def die(*_: object) -> None:
    raise ZeroDivisionError


# --- fences that come late ------------------------------------------------------------------------


@pytest.fixture
def until_fences_come(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], None]:
    """What is done between the COMMIT of the next write and its fences, which the network holds
    back for so long."""

    def hold_back(meanwhile: Callable[[], object]) -> None:
        def begin(self: Link, commands: Sequence[Command]) -> object:
            return HELD_BACK

        def finish(self: Link, line: object, server: str) -> None:
            """They were never sent: who waits sends them."""
            assert line is HELD_BACK
            monkeypatch.undo()
            meanwhile()

        monkeypatch.setattr(Link, "begin", begin)
        monkeypatch.setattr(Link, "finish", finish)

    return hold_back


HELD_BACK = object()
CHANGES: dict[str, tuple[Callable[[Storage], object], Callable[[Storage], object]]] = {
    "two inserts": (
        lambda one: one.write(HEROES, [(NO_KEY, *hero(0, "before")[1:])], True),
        lambda other: other.write(HEROES, [(NO_KEY, *hero(0, "after")[1:])], True),
    ),
    "two replaces": (
        lambda one: one.write(HEROES, [hero(1, "between")], True),
        lambda other: other.write(HEROES, [hero(1, "after")], True),
    ),
    "a replace and a delete": (
        lambda one: one.write(HEROES, [hero(1, "between")], True),
        lambda other: other.delete(HEROES, [1]),
    ),
    "a delete and an insert": (
        lambda one: one.delete(HEROES, [1]),
        lambda other: other.write(HEROES, [hero(1, "after")], True),
    ),
}


@pytest.mark.parametrize("is_flushed", [False, True], ids=["", "and a flush"])
@pytest.mark.parametrize("name", CHANGES)
def test_a_writer_whose_fences_come_after_another_one_has_come_and_gone_shows_nothing(
    one: Storage,
    other: Storage,
    witness: Witness,
    until_fences_come: Callable[[Callable[[], object]], None],
    name: str,
    is_flushed: bool,
) -> None:
    """It has read its rows before the other one changed them."""
    first, second = CHANGES[name]

    def come_and_go() -> None:
        second(other)
        if is_flushed:
            witness.redis.flushall()
            other.write(HEROES, [hero(77, "apart", xp=77)], True)  # makes a watermark

    until_fences_come(come_and_go)
    first(one)

    for storage in (one, other):
        for column, value in ((ID, 1), (XP, 5)):
            cached = storage.read(HEROES, column, [value], True).json
            assert cached == storage.read(HEROES, column, [value], False).json


def test_a_writer_whose_fences_come_after_a_repeated_request_shows_nothing(
    one: Storage,
    other: Storage,
    witness: Witness,
    until_fences_come: Callable[[Callable[[], object]], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The first try died behind its COMMIT and its fences were lost; the second one was
    acknowledged."""

    def come_again() -> None:
        with monkeypatch.context() as patch:
            patch.setattr(Cache, "publish_many", die)
            with pytest.raises(ZeroDivisionError):
                other.write(HEROES, [hero(30, "after")], True, "key")
        witness.forget_cached()
        other.write(HEROES, [hero(30, "after")], True, "key")

    until_fences_come(come_again)
    one.write(HEROES, [(NO_KEY, *hero(0, "before")[1:])], True)

    for storage in (one, other):
        assert names(storage) == [b"before", b"before", b"before", b"after"]


def test_a_new_row_that_is_gone_when_its_witness_comes_is_not_stored(
    one: Storage,
    other: Storage,
    witness: Witness,
    until_fences_come: Callable[[Callable[[], object]], None],
) -> None:
    """Another one has deleted it, and Redis has lost the tombstone."""
    row = (NO_KEY, "Lamp", "", 3, 5)

    def delete_it() -> None:
        [(key,)] = witness.query("SELECT MAX(ProductId) FROM products")
        other.delete(PRODUCTS, [key])
        witness.redis.flushall()

    one.write(PRODUCTS, [row], True)
    until_fences_come(delete_it)
    [key] = one.write(PRODUCTS, [row], True)

    for storage in (one, other):
        assert storage.read(PRODUCTS, PRODUCTS.key, [key], True).missing == [key]


@pytest.mark.parametrize("column", [ID, XP], ids=["row", "lookup"])
@pytest.mark.parametrize("first", [0, 1])
def test_of_two_writers_that_fence_an_entry_together_neither_shows_it(
    one: Storage, witness: Witness, generation: Generation, column: Column, first: int
) -> None:
    """A fence that comes late does not take the place of one that stands."""
    used, tokens = requests.cache(), [new_token(), new_token()]
    fenced, shown = Affected({column: {5: None}}), Affected({column: {5: b"shown"}})
    for token in tokens:
        fence(used, generation, fenced, token)

    publish(used, generation, shown, tokens[first])
    assert used.lease_many(generation, HEROES, column, [5], new_token()).fenced == [5]
    publish(used, generation, shown, tokens[1 - first])

    assert witness.entries() == {}


def test_a_watermark_tells_of_the_latest_change_and_never_goes_back(
    one: Storage, witness: Witness, generation: Generation
) -> None:
    used, fenced = requests.cache(), Affected({XP: {5: None}})
    witness.redis.flushall()

    def published_at(*times: int) -> float:
        for committed_at in times:
            token = new_token()
            fence(used, generation, fenced, token)
            publish(used, generation, fenced, token, committed_at)
        return fence(used, generation, fenced, new_token())

    assert fence(used, generation, fenced, new_token()) == UNKNOWN_COMMIT, "it was lost"
    assert fence(used, generation, fenced, new_token()) == 0
    assert published_at(2_000_000_000_000_001) == 2_000_000_000_000_001
    assert published_at(1_000_000_000_000_000, 0) == 2_000_000_000_000_001
    witness.redis.flushall()
    publish(used, generation, fenced, new_token(), 1_000_000_000_000_000)
    assert fence(used, generation, fenced, new_token()) == UNKNOWN_COMMIT


def test_a_row_that_another_writer_was_faster_to_insert_is_replaced(
    one: Storage, other: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its INSERT fails in the piece that has the COMMIT: it certainly did not happen."""
    begin_fence_many = Cache.begin_fence_many

    def fence_late(self: Cache, *arguments: Any) -> Sent[float]:
        monkeypatch.undo()
        other.write(HEROES, [hero(7, "before", xp=7)], True)
        return begin_fence_many(self, *arguments)

    monkeypatch.setattr(Cache, "begin_fence_many", fence_late)
    one.write(HEROES, [hero(7, "after", xp=7)], True)

    for storage in (one, other):
        assert names(storage, xp=7) == [b"after"]
        assert b"after" in storage.read(HEROES, ID, [7], True).json
