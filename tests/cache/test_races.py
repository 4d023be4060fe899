"""Rare orders of steps, each played on purpose.

There are two containers in one process: while one of them is held at a step, the other goes on.
"""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from pymysql.constants import ER
from pymysql.cursors import Cursor

from chalicelib import clocks as clocks_module
from chalicelib import services
from chalicelib.cache import entry_commands, generations, routing
from chalicelib.cache.client import MAX_EARLY_CONNECTIONS, Client
from chalicelib.cache.commands import Command, Received
from chalicelib.cache.entries import Affected, Cache, Leases, Pending, new_token
from chalicelib.cache.entry_commands import Token
from chalicelib.cache.recovery import Recovery
from chalicelib.column_types import String
from chalicelib.db import Committed, Generation, Transaction, database
from chalicelib.db.engine import Rows, Sent
from chalicelib.db.errors import DatabaseError
from chalicelib.db.mysql import connection as mysql_connection
from chalicelib.db.mysql import connector as mysql_connector
from chalicelib.db.mysql.connection import Connection
from chalicelib.errors import (
    AnotherServer,
    CacheUnavailable,
    DatabaseUnavailable,
    NotAtOnce,
    OutcomeUnknown,
)
from chalicelib.rows import changed_entries, fences, write_through
from chalicelib.rows.service import RowService
from chalicelib.rows.write_through import WriteThrough
from chalicelib.tables import HEROES, NO_KEY, PRODUCTS, Column, Row, Table, tables_with
from local.servers import MariaDB
from tests.conftest import Configure
from tests.support.client import InProcess
from tests.support.redis_client import client_of
from tests.support.relay import PASS, relaying
from tests.support.topologies import wait_until
from tests.support.witness import Witness
from tests.support.writers import fence, publish

XP = HEROES.readable["xp"]
ID = HEROES.key
CONNECTION_KILLED = 1927
NOW = "TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6))"


def hero(id: int, name: str, xp: int = 5) -> Row:
    return (id, "Nova", "light", name, xp, "red")


@pytest.fixture
def one(service: InProcess) -> RowService:
    """A container that knows the generation. Heroes 1 and 2 have xp 5."""
    storage = services.container().rows
    storage.write(HEROES, [hero(1, "before"), hero(2, "before")], False)
    return storage


@pytest.fixture
def other(one: RowService, configure: Configure) -> RowService:
    configure()
    storage = services.container().rows
    storage.read(HEROES, ID, [1000], True)
    return storage


@pytest.fixture
def generation(one: RowService, witness: Witness) -> Generation:
    number, enabled, server = witness.generation()
    return Generation(number, enabled, server, 0)


@pytest.fixture
def fences_may_be_evicted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Redis may evict what was just set: a write waits until it is published."""
    monkeypatch.setattr(routing.Connection, "keeps_new_keys", False)


@pytest.fixture
def fences_are_old(monkeypatch: pytest.MonkeyPatch) -> None:
    """As after ten seconds: whoever meets a fence takes its writer for dead."""
    monkeypatch.setattr(entry_commands, "DEAD_WRITER_SECONDS", 0)


def names(storage: RowService, xp: int = 5) -> list[bytes]:
    """Of the heroes with this xp, as a cached read gives them."""
    rows = storage.read(HEROES, XP, [xp], True).json
    return [name for name in (b"before", b"after") for _ in range(rows.count(b'"%b"' % name))]


@pytest.mark.usefixtures("fences_are_old")
def test_a_reader_that_settles_a_fence_sees_that_another_writer_came_and_went(
    one: RowService, other: RowService, generation: Generation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fence of a dead writer holds the same writers then as when the reader met it."""
    fenced = Affected({XP: {5: None}})
    fence(services.container().cache, generation, fenced, new_token())
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
    one: RowService, witness: Witness, generation: Generation
) -> None:
    """Another one is dead. The reader's SELECT would not wait for who has no row lock yet; nor must
    readers take locks for as long as quick writers overlap."""
    dead, alive = new_token(), new_token()
    used = services.container().cache
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
    one: RowService, other: RowService, monkeypatch: pytest.MonkeyPatch
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
    one: RowService, witness: Witness, generation: Generation
) -> None:
    """Redis was emptied between the two fences; the second writer read the lookup before the first
    one committed."""
    first, second = new_token(), new_token()
    used = services.container().cache
    fence(used, generation, Affected({XP: {5: None}}), first)
    witness.forget_cached()
    fence(used, generation, Affected({XP: {5: None}}), second)
    publish(used, generation, Affected({XP: {5: b"with the first"}}), first)
    publish(used, generation, Affected({XP: {5: b"without the first"}}), second)

    assert witness.entries() == {}


def test_a_writer_alone_on_a_lookup_shows_it_with_the_rows_of_others(
    one: RowService, other: RowService, witness: Witness
) -> None:
    one.write(HEROES, [hero(9, "after", xp=6), hero(3, "after")], True)

    shown = {key: entry for key, entry in witness.entries().items() if b":xp:" in key}
    assert sorted(entry.count(b'"id"') for entry in shown.values()) == [1, 3]
    assert names(other) == [b"before", b"before", b"after"]


def test_a_lookup_with_too_many_other_rows_is_not_read_for_a_write(
    one: RowService, witness: Witness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changed_entries, "MAX_SHOWN_ROWS", 2)
    one.write(HEROES, [hero(3, "after")], True)

    assert not [key for key in witness.entries() if b":xp:" in key]
    assert names(one) == [b"before", b"before", b"after"]


def test_a_lookup_with_long_other_rows_is_not_read_whole_for_a_write(
    witness: Witness, configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An operator gave a column more room than is declared."""
    receive_batch, received = Connection.receive_batch, list[int]()

    def listen(self: Connection) -> list[Rows]:
        answers = receive_batch(self)
        received.append(len(repr(answers)))
        return answers

    witness.query("CREATE TABLE long_heroes LIKE heroes")
    try:
        witness.query("ALTER TABLE long_heroes MODIFY name MEDIUMTEXT NOT NULL")
        witness.query("INSERT INTO long_heroes VALUES (1, '', '', REPEAT('x', 65536), 5, '')")
        configure(DB_TABLE="long_heroes")
        table, storage = tables_with("long_heroes")["long_heroes"], services.container().rows
        new = (NO_KEY, *hero(0, "after")[1:])
        storage.write(table, [new], True)
        with monkeypatch.context() as patch:
            patch.setattr(Connection, "receive_batch", listen)
            for row in (new, hero(1000, "after")):
                storage.write(table, [row], True)

        for use_cache in (True, True, False):
            shown = storage.read(table, XP, [5], use_cache).json
            assert (shown.count(b"after"), shown.count(b"x" * 65536)) == (3, 1)
        assert received
        assert max(received) < 10_000
    finally:
        witness.query("DROP TABLE long_heroes")
        witness.query("DELETE FROM cache_generation WHERE table_name = 'long_heroes'")


def test_as_many_other_rows_are_read_as_have_room() -> None:
    wide = replace(HEROES, columns=(*HEROES.columns[:-1], Column("color", String(65_536))))

    assert changed_entries.max_shown_rows(HEROES) == changed_entries.MAX_SHOWN_ROWS
    assert changed_entries.max_shown_rows(wide) < 32


def test_a_writer_that_slept_after_it_sent_its_fences_does_not_rely_on_them(
    one: RowService, other: RowService, witness: Witness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They may have been settled. No reader believes an entry then."""
    number, *_ = witness.generation()
    monkeypatch.setattr(fences, "MAX_FENCE_SECONDS", -1)
    one.write(HEROES, [hero(3, "after")], True)

    assert witness.generation()[:2] == (number + 1, False)
    assert names(other) == [b"before", b"before", b"after"]


@pytest.mark.own_deadlines
@pytest.mark.parametrize(
    "clocks", [(-3600, 6), (6, 0)], ids=["its clock was set back", "its machine slept"]
)
@pytest.mark.parametrize(
    ("owner", "step"), [(Cache, "begin_fence_many"), (Pending, "wait")], ids=["sent", "waited for"]
)
def test_a_writer_notices_by_two_clocks_that_it_slept(
    one: RowService,
    witness: Witness,
    monkeypatch: pytest.MonkeyPatch,
    owner: type,
    step: str,
    clocks: tuple[float, float],
) -> None:
    """Behind the step that sent its fences, or behind the one that waited for them."""
    number, *_ = witness.generation()
    do, now = getattr(owner, step), clocks_module.clocks

    def sleep_behind_it(self: object, *arguments: Any) -> object:
        done = do(self, *arguments)
        passed = [at + more for at, more in zip(now(), clocks)]
        for module in (clocks_module, generations):  # it sleeps once, not while it waits
            monkeypatch.setattr(module, "clocks", lambda: passed)
        return done

    monkeypatch.setattr(owner, step, sleep_behind_it)
    monkeypatch.setattr(Recovery, "start", lambda self: None)
    one.write(HEROES, [hero(3, "after")], True)

    assert witness.generation()[:2] == (number + 1, False)


NEW = (NO_KEY, *hero(0, "after")[1:])


def test_the_deadline_of_an_insert_counts_from_what_the_database_told_last(
    one: RowService, witness: Witness
) -> None:
    """A container that only inserts hears the time from its inserts: the database's clock was set
    back since it read the generation."""
    known = services.container().generations
    one.write(HEROES, [NEW], True)
    held = known.remembered(HEROES)
    assert held
    hour = 3_600_000_000
    known.saw(HEROES, replace(held, told_at=held.told_at + hour), time.monotonic())
    one.write(HEROES, [NEW], True)

    [(now,)] = witness.query(f"SELECT {NOW}")
    held = known.remembered(HEROES)
    assert held
    assert abs(held.database_time(in_seconds=0) - now) < hour / 2


def test_an_insert_does_not_count_on_what_the_database_told_long_ago(
    one: RowService, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("two clocks drift apart")

    one.write(HEROES, [NEW], True)
    monkeypatch.setattr(write_through, "MAX_SECONDS_SINCE_TOLD", -1)
    monkeypatch.setattr(Transaction, "send_insert", never)
    one.write(HEROES, [NEW], True)

    assert names(one) == [b"before", b"before", b"after", b"after"]


WRITES: dict[str, Callable[[RowService], object]] = {
    "insert": lambda storage: storage.write(HEROES, [(NO_KEY, *hero(0, "after")[1:])], True),
    "replace": lambda storage: storage.write(HEROES, [hero(1, "after")], True),
    "delete": lambda storage: storage.delete(HEROES, [1]),
}
each_write = pytest.mark.parametrize("name", WRITES)


@each_write
def test_nobody_believes_what_a_writer_changed_that_died_behind_its_commit(
    one: RowService, other: RowService, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Its fences were sent before."""
    commit = Connection.receive_commit

    def commit_and_die(self: Connection, *arguments: Any) -> None:
        commit(self, *arguments)
        raise KeyboardInterrupt

    for column, value in ((ID, 1), (XP, 5)):
        other.read(HEROES, column, [value], True)
    monkeypatch.setattr(Connection, "receive_commit", commit_and_die)
    with pytest.raises(KeyboardInterrupt):
        WRITES[name](one)
    monkeypatch.undo()

    assert_nothing_is_stale(other)


@each_write
def test_a_write_with_an_unknown_outcome_whose_fences_fail_lets_nobody_believe_an_entry(
    one: RowService, other: RowService, witness: Witness, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """The caller is told to read its rows."""
    number, *_ = witness.generation()
    commit = Connection.receive_commit

    def commit_and_lose_the_answer(self: Connection, *arguments: Any) -> None:
        commit(self, *arguments)
        monkeypatch.setattr(Connection, "receive_commit", commit)
        raise OutcomeUnknown("for this test")

    def fail(self: Pending[int]) -> None:
        self.close()
        raise CacheUnavailable("for this test")

    monkeypatch.setattr(Recovery, "start", lambda self: None)
    monkeypatch.setattr(Connection, "receive_commit", commit_and_lose_the_answer)
    monkeypatch.setattr(Pending, "wait", fail)
    with pytest.raises(OutcomeUnknown):
        WRITES[name](one)

    assert witness.generation()[:2] == (number + 1, False)


@pytest.mark.own_deadlines
@pytest.mark.usefixtures("fences_may_be_evicted")
def test_a_write_waits_until_redis_has_published_it(
    one: RowService, witness: Witness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redis is still from the COMMIT on: nobody knows then what becomes of the fences."""
    commit = Connection.receive_commit

    def commit_and_pause(self: Connection, *arguments: Any) -> object:
        done = commit(self, *arguments)
        witness.redis.client_pause(500)
        return done

    number, *_ = witness.generation()
    monkeypatch.setattr(Recovery, "start", lambda self: None)
    with monkeypatch.context() as patch:
        patch.setattr(Connection, "receive_commit", commit_and_pause)
        one.write(HEROES, [hero(1, "after", xp=6)], True)

    assert witness.generation()[:2] == (number + 1, False)


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Of each write from here on whether it waits until Redis has published it."""
    told, publish_many = list[object](), Cache.publish_many

    def publish_(self: Cache, *arguments: Any) -> None:
        told.append(arguments[5])
        publish_many(self, *arguments)

    monkeypatch.setattr(Cache, "publish_many", publish_)
    return told


@pytest.mark.parametrize(
    ("limit", "policy", "keeps"),
    [
        (10**8, "noeviction", True),
        (10**8, "allkeys-lru", True),
        (10**8, "volatile-lru", True),
        (10**8, "allkeys-random", False),
        (10**8, "volatile-ttl", False),
        (10**8, "allkeys-lfu", False),
        (0, "allkeys-lfu", True),
    ],
)
def test_a_write_waits_until_redis_has_published_it_where_its_fences_may_be_evicted(
    one: RowService,
    configure: Configure,
    witness: Witness,
    waits: list[object],
    limit: int,
    policy: str,
    keeps: bool,
) -> None:
    before = witness.redis.config_get("maxmemory*")
    witness.redis.config_set("maxmemory", limit)
    witness.redis.config_set("maxmemory-policy", policy)
    configure()
    storage = services.container().rows
    storage.read(HEROES, ID, [1000], True)
    try:
        for write in WRITES.values():
            write(storage)
    finally:
        for name in ("maxmemory", "maxmemory-policy"):
            witness.redis.config_set(name, str(before[name]))

    assert waits == [not keeps] * len(WRITES)


@pytest.mark.parametrize("kept", [[True, True], [True, False], [False, True], [False, False]])
def test_of_the_servers_of_a_cluster_each_must_keep_new_keys(kept: list[bool]) -> None:
    connection = routing.Connection("redis://localhost", [], is_cluster=True)
    nodes: list[Any] = [SimpleNamespace(keeps_new_keys=keeps) for keeps in kept]
    connection._nodes = nodes

    assert connection.keeps_new_keys == (kept == [True, True])


@each_write
def test_a_write_waits_where_another_one_has_published_a_later_change(
    one: RowService, waits: list[object], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Its fences came late, so it stores nothing."""

    def come_late(self: fences.Fences, read_at: int) -> bool:
        return self.wait() < 0

    one.read(HEROES, ID, [1000], True)
    monkeypatch.setattr(fences.Fences, "allow", come_late)
    WRITES[name](one)

    assert waits == [True]


@each_write
def test_a_write_waits_where_another_thread_loses_the_connection_that_fenced(
    one: RowService, waits: list[object], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """A closed connection knows no policy of its server."""
    receive = Client.receive
    one.read(HEROES, ID, [1000], True)

    def receive_and_lose(
        self: Client, connection: routing.Connection, server: str
    ) -> Received | None:
        for node in connection._nodes:
            node.keeps_new_keys = False
        received = receive(self, connection, server)
        connection.close()
        return received

    monkeypatch.setattr(Client, "receive", receive_and_lose)
    WRITES[name](one)

    assert waits == [True]


@each_write
def test_a_write_whose_fences_nobody_confirms_lets_nobody_believe_an_entry(
    one: RowService, other: RowService, witness: Witness, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """They were sent, and Redis went away before the COMMIT was done. Nobody knows whether they
    stand."""

    def send_in_vain(self: Client, commands: Sequence[Command]) -> object:
        return HELD_BACK

    def hear_nothing(*_: object) -> None:
        raise CacheUnavailable("for this test")

    assert names(other) == [b"before", b"before"]
    number, *_ = witness.generation()
    monkeypatch.setattr(Recovery, "start", lambda self: None)
    monkeypatch.setattr(changed_entries, "leave_a_lookup", lambda *_: False)
    with monkeypatch.context() as patch:
        patch.setattr(Client, "send", send_in_vain)
        patch.setattr(Client, "receive", hear_nothing)
        WRITES[name](one)

    assert witness.generation()[:2] == (number + 1, False)
    assert_nothing_is_stale(one, other)


@pytest.mark.parametrize("error", [CacheUnavailable("for this test"), AnotherServer("another")])
@pytest.mark.parametrize(
    ("name", "after", "standing"),
    [
        ("insert", [b"before", b"before", b"after"], 1),
        ("replace", [b"before", b"after"], 2),
        ("delete", [b"before"], 2),
    ],
)
def test_a_write_whose_publish_is_lost_is_seen(
    one: RowService,
    other: RowService,
    witness: Witness,
    monkeypatch: pytest.MonkeyPatch,
    error: CacheUnavailable,
    name: str,
    after: list[bytes],
    standing: int,
) -> None:
    """Its fences stand: nobody believes the entries. Later somebody settles them."""

    def fail(*_: object) -> None:
        raise error

    def seen(storage: RowService) -> list[bytes]:
        """By the lookup; and the same by the keys."""
        rows = storage.read(HEROES, ID, [1, 2, 3], True).json
        found = names(storage)
        assert [rows.count(b'"%b"' % word) for word in set(found)] == [
            found.count(word) for word in set(found)
        ]
        return found

    assert seen(other) == [b"before", b"before"]
    generation = witness.generation()
    with monkeypatch.context() as patch:
        patch.setattr(Cache, "publish_many", fail)
        WRITES[name](one)

    assert witness.generation() == generation
    for storage in (one, other):
        assert seen(storage) == after
    assert witness.fences() == standing
    monkeypatch.setattr(entry_commands, "DEAD_WRITER_SECONDS", 0)
    for storage in (one, other):
        assert seen(storage) == after
    wait_until(lambda: witness.fences() == 0)


new_row: Row = (NO_KEY, *hero(0, "after")[1:])


@pytest.mark.parametrize(
    ("rows", "key"),
    [
        pytest.param([new_row], "", id="insert"),
        pytest.param([new_row], "key", id="insert with an idempotency key"),
        pytest.param([hero(1, "after")], "", id="replace"),
        pytest.param([hero(1, "after", xp=6)], "", id="replace that leaves a lookup"),
        pytest.param([hero(9, "after")], "", id="key that is new"),
        pytest.param([hero(1, "after"), new_row], "", id="both"),
    ],
)
def test_no_write_waits_until_redis_has_published_it_where_its_fences_stay(
    one: RowService, waits: list[object], rows: list[Row], key: str
) -> None:
    one.read(HEROES, ID, [1000], True)
    one.write(HEROES, rows, True, key)
    one.delete(HEROES, [2])

    assert waits == [False, False]


def test_others_write_while_a_file_is_loaded(one: RowService, other: RowService) -> None:
    """That takes minutes. So the generation, which all writers hold, is raised last."""

    def load(_: object) -> None:
        other.write(HEROES, [hero(2, "after")], True)

    one._write_through.replace_all(HEROES, load)

    for storage in (one, other):
        assert names(storage) == [b"before", b"after"]


@each_write
def test_a_write_waits_for_who_raises_the_generation(
    one: RowService, other: RowService, witness: Witness, name: str
) -> None:
    """Else its fences would be on entries that nobody reads any more."""
    waits = "SHOW GLOBAL STATUS WHERE Variable_name = 'Innodb_row_lock_current_waits' AND Value > 0"
    witness.query("START TRANSACTION")
    witness.query("UPDATE cache_generation SET generation = generation + 1")
    with ThreadPoolExecutor(1) as thread:
        writing = thread.submit(WRITES[name], one)
        wait_until(lambda: bool(witness.query(waits)))
        witness.query("COMMIT")
        writing.result()

    assert_nothing_is_stale(one, other)


@each_write
def test_a_commit_is_told_as_of_the_latest_time_at_which_it_may_have_been(
    one: RowService,
    witness: Witness,
    generation: Generation,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    """Else who read just before it would take what he read for the latest."""
    [(begun,)] = witness.query(f"SELECT {NOW}")
    monkeypatch.setattr(mysql_connection, "NOW", (f"SELECT 10000000 + {NOW}", ()))
    WRITES[name](one)

    told = fence(services.container().cache, generation, Affected({XP: {6: None}}), new_token())
    assert begun + 10_000_000 <= told


@pytest.mark.parametrize("code", [CONNECTION_KILLED, ER.SERVER_SHUTDOWN, ER.QUERY_INTERRUPTED])
def test_a_write_whose_commit_is_answered_with_an_error_is_not_done_again(
    one: RowService, witness: Witness, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """The server may have committed before it was told to end."""
    receive_commit = Connection.receive_commit

    def be_killed(self: Connection) -> list[Rows]:
        answers = receive_batch(self)
        self.answered = len(answers) - 2
        raise DatabaseError(code, "for this test")

    def receive(self: Connection, sent: Sent) -> tuple[list[Rows], int]:
        monkeypatch.setattr(Connection, "receive_batch", be_killed)
        return receive_commit(self, sent)

    count, receive_batch = witness.count(), Connection.receive_batch
    monkeypatch.setattr(Connection, "receive_commit", receive)
    with pytest.raises(OutcomeUnknown):
        one.write(HEROES, [(NO_KEY, *hero(0, "after")[1:])], True)

    assert witness.count() == count + 1


@pytest.mark.usefixtures("fences_may_be_evicted")
@pytest.mark.parametrize("fault", ["away", "moved", "moved and away", "emptied"])
@pytest.mark.parametrize("times", [1, 2], ids=["write", "replay"])
def test_what_cannot_be_published_is_acknowledged_once_nobody_remembers_the_generation(
    one: RowService,
    other: RowService,
    witness: Witness,
    monkeypatch: pytest.MonkeyPatch,
    fault: str,
    times: int,
) -> None:
    """Where Redis answers, only as another data set, the cache stays on."""
    known = other._lazy_loading._generations
    held = known.current(HEROES)
    errors = {
        "away": CacheUnavailable("for this test"),
        "moved": AnotherServer("another"),
        "moved and away": AnotherServer("another"),
        "emptied": AnotherServer(held.server_name),
    }
    stays_on = fault in ("moved", "emptied")

    def fail(*_: object) -> None:
        raise errors[fault]

    if fault == "moved":
        monkeypatch.setattr(Cache, "begin_incarnation", lambda *_: "another:1")

    for turn in range(times):
        if turn == times - 1:
            monkeypatch.setattr(Recovery, "start", lambda self: None)
            monkeypatch.setattr(Cache, "publish_many", fail)
            known.forget(HEROES)
            known.current(HEROES)
        one.write(HEROES, [hero(1, "after")], True, "key")

    assert known.is_due(HEROES)
    assert witness.generation()[:2] == (held.number + 1, stays_on)


@pytest.mark.parametrize("use_cache", [True, False])
def test_a_row_with_the_key_of_a_cached_one_that_is_gone_is_seen(
    one: RowService, other: RowService, witness: Witness, use_cache: bool
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
    one: RowService, other: RowService, witness: Witness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first try died when its rows were committed."""
    [key] = one.write(HEROES, [(NO_KEY, *hero(0, "before")[1:])], True)
    witness.query("TRUNCATE heroes")
    rows: list[Row] = [(NO_KEY, *hero(0, "after")[1:])] * int(key)
    monkeypatch.setattr(Cache, "publish_many", die)
    with pytest.raises(Died):
        one.write(HEROES, rows, True, "key")
    monkeypatch.undo()

    assert key in other.write(HEROES, rows, True, "key")

    for storage in (one, other):
        assert b"after" in storage.read(HEROES, HEROES.key, [key], True).json


def test_a_repeated_write_is_answered_where_a_lookup_is_not_declared_any_more(
    one: RowService, witness: Witness
) -> None:
    """It was when the first one was recorded, before a deployment."""
    first = one.write(HEROES, [hero(3, "after")], True, "key")
    witness.query("""UPDATE idempotency SET answer = REPLACE(answer, '"xp"', '"level"')""")

    assert one.write(HEROES, [hero(3, "after")], True, "key") == first


def test_each_try_of_a_write_has_fences_of_its_own(
    one: RowService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What lifts those of a try that failed may come while the next one's stand."""
    commit, begin_fence_many = Connection.send_commit, Cache.begin_fence_many
    tokens: list[Token] = []

    def be_a_victim(self: Connection, *arguments: Any) -> Sent:
        if len(tokens) == 1:
            raise DatabaseError(ER.LOCK_DEADLOCK, "for this test")
        return commit(self, *arguments)

    def note_token(self: Cache, *arguments: Any) -> Pending[int]:
        tokens.append(arguments[-1])
        return begin_fence_many(self, *arguments)

    monkeypatch.setattr(Connection, "send_commit", be_a_victim)
    monkeypatch.setattr(Cache, "begin_fence_many", note_token)
    one.write(HEROES, [hero(3, "after")], True)

    assert len(set(tokens)) == 2


ROWS: dict[str, Row] = {
    "insert": (NO_KEY, *hero(0, "after")[1:]),
    "replace": hero(1, "after"),
}


@pytest.mark.parametrize("name", ROWS)
def test_what_is_written_right_behind_a_large_write_is_in_the_cache(
    one: RowService, other: RowService, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """To make the SQL of that one took a while; its COMMIT does not lie ahead by so much."""
    row = ROWS[name]
    mogrify = Cursor.mogrify

    def be_slow(self: Cursor, *arguments: Any) -> str:
        time.sleep(0.4)
        return mogrify(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Cursor, "mogrify", be_slow)
        one.write(HEROES, [row], True)

    time.sleep(0.3)  # for a busy machine: what was sent first may have waited to be read
    [key] = one.write(HEROES, [row], True)

    assert one.read(HEROES, ID, [key], True).hits == 1
    assert one.read(HEROES, XP, [5], True).hits == 1


@pytest.mark.parametrize("name", ROWS)
def test_what_cannot_be_read_of_the_answer_to_a_commit_does_not_undo_it(
    one: RowService, other: RowService, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Such as another row with this xp that is too long for the driver."""
    receive_commit, receive_batch = Connection.receive_commit, Connection.receive_batch

    def fail(self: Connection) -> list[Rows]:
        receive_batch(self)
        monkeypatch.undo()
        raise MemoryError("a row that is too long for the driver")

    def receive(self: Connection, sent: Sent) -> tuple[list[Rows], int]:
        monkeypatch.setattr(Connection, "receive_batch", fail)
        return receive_commit(self, sent)

    monkeypatch.setattr(Connection, "receive_commit", receive)
    with pytest.raises(OutcomeUnknown):
        one.write(HEROES, [ROWS[name]], True)

    for storage in (one, other):
        assert b"after" in names(storage)
        cached = storage.read(HEROES, ID, [1], True).json
        assert cached == storage.read(HEROES, ID, [1], False).json


def test_a_bug_while_the_commit_is_under_way_is_no_failure_that_seems_certain(
    one: RowService, other: RowService, witness: Witness, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise KeyError

    assert names(other) == [b"before", b"before"]
    with monkeypatch.context() as patch:
        patch.setattr(Table, "encode_keyless", fail)
        with pytest.raises(OutcomeUnknown):
            one.write(HEROES, [(NO_KEY, *hero(0, "after")[1:])], True)
    wait_until(lambda: witness.count() == 3)

    assert names(other) == [b"before", b"before", b"after"]


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize("key", ["", "key"], ids=["", "with a key"])
def test_a_bug_behind_the_commit_is_no_failure_that_seems_certain(
    one: RowService, witness: Witness, monkeypatch: pytest.MonkeyPatch, name: str, key: str
) -> None:
    def fail(*_: object) -> None:
        raise KeyError

    for _ in range(MAX_EARLY_CONNECTIONS):
        with monkeypatch.context() as patch:
            patch.setattr(changed_entries, "with_lookups", fail)
            if key:
                one.write(HEROES, [ROWS[name]], True, key)
            else:
                with pytest.raises(OutcomeUnknown):
                    one.write(HEROES, [ROWS[name]], True)

    assert client_of(services.container().cache)._early_turns._value == MAX_EARLY_CONNECTIONS
    assert_nothing_is_stale(one)


@each_write
def test_a_write_with_an_unknown_outcome_that_slept_lets_nobody_believe_an_entry(
    one: RowService, witness: Witness, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Its fences may have been settled."""
    number, *_ = witness.generation()
    commit = Connection.receive_commit

    def commit_and_sleep(self: Connection, *arguments: Any) -> None:
        monkeypatch.setattr(Connection, "receive_commit", commit)
        monkeypatch.setattr(fences, "MAX_FENCE_SECONDS", -1)
        commit(self, *arguments)
        raise OutcomeUnknown("for this test")

    monkeypatch.setattr(Connection, "receive_commit", commit_and_sleep)
    with pytest.raises(OutcomeUnknown):
        WRITES[name](one)

    assert witness.generation()[0] > number


@pytest.mark.usefixtures("fences_are_old")
@pytest.mark.parametrize("name", ROWS)
def test_a_commit_that_the_network_holds_back_for_long_is_refused(
    one: RowService,
    other: RowService,
    witness: Witness,
    mariadb: MariaDB,
    configure: Configure,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    """Its writer has told that the outcome is unknown, and a reader has settled its fences."""
    monkeypatch.setattr(mysql_connector, "ANSWER_TIMEOUT_SECONDS", 0.2)
    monkeypatch.setattr(database, "ANSWER_TIMEOUT_SECONDS", 0.2)
    monkeypatch.setattr(write_through, "MAX_SECONDS_TO_COMMIT", 0.4)
    arrives = threading.Event()
    connected = "SELECT COUNT(*) FROM information_schema.processlist"
    others = witness.query(connected)

    def hold_back(piece: bytes) -> int:
        if b";COMMIT" in piece:
            arrives.wait()
        return PASS

    with relaying(mariadb.port) as relay:
        configure(DB_PORT=str(relay.port))
        late = services.container().rows
        late.read(HEROES, ID, [1], True)
        relay.judge = hold_back
        try:
            with pytest.raises(OutcomeUnknown):
                late.write(HEROES, [(*ROWS[name][:3], "late", *ROWS[name][4:])], True)
            time.sleep(0.4)
            assert names(other) == [b"before", b"before"]
        finally:
            arrives.set()
        wait_until(lambda: witness.query(connected) <= others)

    assert witness.query("SELECT name FROM heroes") == [("before",), ("before",)]


@each_write
def test_a_write_that_slept_behind_its_fences_is_not_committed(
    one: RowService, witness: Witness, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Readers may have settled them: nobody would tell of a COMMIT whose answer is lost."""
    before = witness.database_state()
    begin_fence_many = Cache.begin_fence_many

    def sleep_behind_it(self: Cache, *arguments: Any) -> Pending[int]:
        pending = begin_fence_many(self, *arguments)
        time.sleep(0.4)
        return pending

    monkeypatch.setattr(write_through, "MAX_SECONDS_TO_COMMIT", 0.3)
    monkeypatch.setattr(Cache, "begin_fence_many", sleep_behind_it)
    with pytest.raises(DatabaseUnavailable, match="nothing was written"):
        WRITES[name](one)

    assert witness.database_state() == before


@pytest.mark.parametrize(
    ("row", "block", "unblock"),
    [
        (ROWS["insert"], ["LOCK TABLES heroes READ"], "UNLOCK TABLES"),
        (
            hero(3, "after"),
            ["START TRANSACTION", "INSERT INTO heroes VALUES (3, '', '', '', 1, '')"],
            "ROLLBACK",
        ),
    ],
    ids=["insert", "replace"],
)
def test_a_write_that_the_database_holds_up_behind_its_fences_is_not_committed(
    one: RowService,
    witness: Witness,
    monkeypatch: pytest.MonkeyPatch,
    row: Row,
    block: Sequence[str],
    unblock: str,
) -> None:
    """Before it has changed its rows: a reader who settles the fences waits for no lock then."""
    begin_fence_many = Cache.begin_fence_many
    blocked: list[threading.Timer] = []
    told: list[Exception] = []

    def be_blocked(self: Cache, *arguments: Any) -> Pending[int]:
        if not blocked:
            for sql in block:
                witness.query(sql)
            blocked.append(threading.Timer(0.6, witness.query, [unblock]))
            blocked[0].start()
        return begin_fence_many(self, *arguments)

    @contextmanager
    def listen(*arguments: Any) -> Iterator[None]:
        try:
            with lifted_if_undone(*arguments):
                yield
        except Exception as error:
            told.append(error)
            raise

    lifted_if_undone = WriteThrough._lifted_if_undone
    monkeypatch.setattr(WriteThrough, "_lifted_if_undone", listen)
    monkeypatch.setattr(write_through, "MAX_SECONDS_TO_COMMIT", 0.3)
    monkeypatch.setattr(Cache, "begin_fence_many", be_blocked)
    with suppress(DatabaseUnavailable):
        one.write(HEROES, [row], True)
    blocked[0].join()

    assert isinstance(told[0], NotAtOnce | DatabaseUnavailable)
    assert not isinstance(told[0], OutcomeUnknown)


class Died(BaseException):
    """As a process that is killed: nobody answers for it."""


def die(*_: object) -> None:
    raise Died


def assert_nothing_is_stale(*containers: RowService) -> None:
    for storage in containers:
        for column, value in ((ID, 1), (XP, 5)):
            cached = storage.read(HEROES, column, [value], True).json
            assert cached == storage.read(HEROES, column, [value], False).json


# --- fences that come late ------------------------------------------------------------------------


@pytest.fixture
def until_fences_come(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], None]:
    """What is done between the COMMIT of the next write and its fences, which the network holds
    back for so long."""

    def hold_back(meanwhile: Callable[[], object]) -> None:
        def send(self: Client, commands: Sequence[Command]) -> object:
            return HELD_BACK

        def receive(self: Client, connection: object, server: str) -> None:
            """They were never sent: who waits sends them."""
            assert connection is HELD_BACK
            monkeypatch.undo()
            meanwhile()

        monkeypatch.setattr(Client, "send", send)
        monkeypatch.setattr(Client, "receive", receive)

    return hold_back


HELD_BACK = object()
CHANGES: dict[str, tuple[Callable[[RowService], object], Callable[[RowService], object]]] = {
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
}


@pytest.mark.parametrize("is_flushed", [False, True], ids=["", "and a flush"])
@pytest.mark.parametrize("name", CHANGES)
def test_a_writer_whose_fences_come_after_another_one_has_come_and_gone_shows_nothing(
    one: RowService,
    other: RowService,
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

    until_fences_come(come_and_go)
    first(one)

    assert_nothing_is_stale(one, other)


def change(one: RowService, name: str) -> None:
    if name == "a delete":
        one.delete(HEROES, [1])
    else:
        one.write(HEROES, [hero(1, "after", xp=6)], True)


@pytest.mark.parametrize("name", ["a delete", "a replace"])
def test_a_row_leaves_a_lookup_only_once_its_entry_is_fenced(
    one: RowService,
    other: RowService,
    until_fences_come: Callable[[Callable[[], object]], None],
    name: str,
) -> None:
    """Who changes the row next does not know that this entry shows it, and may be acknowledged
    before the writer that knows has published."""
    assert names(other) == [b"before", b"before"]
    committed: list[bool] = []

    def look() -> None:
        row = other.read(HEROES, ID, [1], False).json
        committed.append(b"before" not in row)

    until_fences_come(look)
    change(one, name)

    assert committed == [False]
    assert names(other) == [b"before"]


@pytest.mark.parametrize("name", ["a delete", "a replace"])
def test_a_flush_before_a_row_leaves_a_lookup_lets_no_reader_store_it(
    one: RowService,
    other: RowService,
    generation: Generation,
    witness: Witness,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    """Who changes the row next does not know of that entry, and is acknowledged before the first
    writer publishes. In a cluster its entries may be in a bucket that was not flushed."""
    waits = "SHOW GLOBAL STATUS WHERE Variable_name = 'Innodb_row_lock_current_waits' AND Value > 0"
    commit, seen = Transaction.send_commit, list[bytes]()

    def flushed(self: Transaction, *arguments: Any) -> Callable[[], Committed]:
        monkeypatch.undo()
        [marker] = witness.redis.keys(f"*heroes*:marker:{generation.incarnation}")
        witness.redis.flushall()
        reading = threads.submit(names, other)
        wait_until(lambda: reading.done() or bool(witness.query(waits)))
        committed = commit(self, *arguments)()
        reading.result()
        witness.redis.set(marker, 0)  # of the other bucket
        other.write(HEROES, [hero(1, "later", xp=6)], True)
        seen.extend(names(other))
        return lambda: committed

    with ThreadPoolExecutor(1) as threads:
        monkeypatch.setattr(Transaction, "send_commit", flushed)
        change(one, name)

    assert seen == names(other) == [b"before"]


@pytest.mark.parametrize("name", CHANGES)
def test_it_counts_from_when_it_read_its_rows_however_late_it_hears_of_its_commit(
    one: RowService,
    other: RowService,
    witness: Witness,
    until_fences_come: Callable[[Callable[[], object]], None],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    """The other one's COMMIT is earlier than the latest time at which its own may have been."""
    first, second = CHANGES[name]
    until_fences_come(lambda: second(other))
    monkeypatch.setattr(mysql_connection, "NOW", (f"SELECT 10000000 + {NOW}", ()))
    first(one)

    assert_nothing_is_stale(one, other)


def test_a_rejected_write_whose_fences_come_late_does_not_bring_back_what_it_read(
    one: RowService,
    other: RowService,
    until_fences_come: Callable[[Callable[[], object]], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The database let go of its rows when it undid it."""

    def undo(self: Connection, *_: object) -> None:
        self.rollback()
        raise DatabaseError(ER.LOCK_WAIT_TIMEOUT, "for this test")

    until_fences_come(lambda: other.write(HEROES, [hero(1, "after")], True))
    monkeypatch.setattr(Connection, "send_commit", undo)
    with pytest.raises(DatabaseUnavailable):
        one.write(HEROES, [hero(1, "between")], True)

    assert_nothing_is_stale(one, other)


def test_a_write_that_was_undone_leaves_its_rows_in_the_cache_as_they_were(
    one: RowService, other: RowService, witness: Witness, monkeypatch: pytest.MonkeyPatch
) -> None:
    def undo(self: Connection, *_: object) -> None:
        self.rollback()
        raise DatabaseError(ER.LOCK_WAIT_TIMEOUT, "for this test")

    monkeypatch.setattr(Connection, "send_commit", undo)
    with pytest.raises(DatabaseUnavailable):
        one.write(HEROES, [hero(1, "after")], True)
    monkeypatch.undo()

    assert list(witness.entries().values()) == [HEROES.encode(hero(1, "before"))]
    assert names(other) == [b"before", b"before"]


def test_a_writer_whose_fences_come_after_a_repeated_request_shows_nothing(
    one: RowService,
    other: RowService,
    witness: Witness,
    until_fences_come: Callable[[Callable[[], object]], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The first try died behind its COMMIT and its fences were lost; the second one was
    acknowledged."""

    def come_again() -> None:
        with monkeypatch.context() as patch:
            patch.setattr(Cache, "publish_many", die)
            with pytest.raises(Died):
                other.write(HEROES, [hero(30, "after")], True, "key")
        witness.forget_cached()
        other.write(HEROES, [hero(30, "after")], True, "key")

    until_fences_come(come_again)
    one.write(HEROES, [(NO_KEY, *hero(0, "before")[1:])], True)

    for storage in (one, other):
        assert names(storage) == [b"before", b"before", b"before", b"after"]


def test_a_new_row_that_is_gone_when_its_witness_comes_is_not_stored(
    one: RowService,
    other: RowService,
    witness: Witness,
    until_fences_come: Callable[[Callable[[], object]], None],
) -> None:
    """Another one has deleted it, and Redis has lost the tombstone and the marker."""
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
    one: RowService, witness: Witness, generation: Generation, column: Column, first: int
) -> None:
    """A fence that comes late does not take the place of one that stands."""
    used, tokens = services.container().cache, [new_token(), new_token()]
    fenced, shown = Affected({column: {5: None}}), Affected({column: {5: b"shown"}})
    for token in tokens:
        fence(used, generation, fenced, token)

    publish(used, generation, shown, tokens[first])
    assert used.lease_many(generation, HEROES, column, [5], new_token()).fenced == [5]
    publish(used, generation, shown, tokens[1 - first])

    assert witness.entries() == {}


def test_a_watermark_tells_of_the_latest_change_and_never_goes_back(
    one: RowService, witness: Witness, generation: Generation
) -> None:
    used, fenced = services.container().cache, Affected({XP: {5: None}})

    def published_at(*times: int) -> int:
        for committed_at in times:
            token = new_token()
            fence(used, generation, fenced, token)
            publish(used, generation, fenced, token, committed_at)
        return fence(used, generation, fenced, new_token())

    assert published_at(3_000_000_000_000_001) == 3_000_000_000_000_001
    assert published_at(1_000_000_000_000_000, 0) == 3_000_000_000_000_001


def test_a_row_that_another_writer_was_faster_to_insert_is_replaced(
    one: RowService, other: RowService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its INSERT fails in the batch that has the COMMIT: it certainly did not happen."""
    begin_fence_many = Cache.begin_fence_many

    def fence_late(self: Cache, *arguments: Any) -> Pending[int]:
        monkeypatch.undo()
        other.write(HEROES, [hero(7, "before", xp=8)], True)
        return begin_fence_many(self, *arguments)

    monkeypatch.setattr(Cache, "begin_fence_many", fence_late)
    one.write(HEROES, [hero(7, "after", xp=7)], True)

    for storage in (one, other):
        assert names(storage, xp=7) == [b"after"]
        assert names(storage, xp=8) == []
        assert b"after" in storage.read(HEROES, ID, [7], True).json


@each_write
def test_the_fences_of_a_dead_writer_outlive_any_transaction(
    one: RowService, other: RowService, witness: Witness, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Its COMMIT may still come: a transaction over the RDS Data API lives three idle minutes, and
    the COMMIT of another waits for a backup of the database."""
    for column, value in ((ID, 1), (XP, 5)):
        other.read(HEROES, column, [value], True)
    monkeypatch.setattr(Cache, "publish_many", die)
    with pytest.raises(Died):
        WRITES[name](one)

    keys = [key for key in witness.redis.scan_iter("*:xp:*") if witness.redis.get(key)]
    assert keys
    for key in keys:
        assert witness.redis.pttl(key) > 3_600_000


@pytest.mark.parametrize("pause", [0.0, 0.3])
def test_a_container_that_slept_behind_the_hint_believes_it_no_longer_than_others_wait(
    one: RowService,
    other: RowService,
    witness: Witness,
    monkeypatch: pytest.MonkeyPatch,
    pause: float,
) -> None:
    known = one._lazy_loading._generations
    generation, read_hint = known._database.generation, known._hint
    has_read, goes_on = threading.Event(), threading.Event()

    def be_silent(*_: object) -> Generation:
        monkeypatch.setattr(known._database, "generation", generation)
        raise DatabaseUnavailable("for this test")

    def sleep_behind(table: Any) -> Generation | None:
        found = read_hint(table)
        has_read.set()
        goes_on.wait(60)
        return found

    one.write(HEROES, [hero(1, "earlier")], True)
    assert b"earlier" in one.read(HEROES, ID, [1], True).json
    time.sleep(generations.MEMORY_SECONDS)
    monkeypatch.setattr(known._database, "generation", be_silent)
    monkeypatch.setattr(known, "_hint", sleep_behind)
    asleep = threading.Thread(target=one.read, args=(HEROES, ID, [1], True))
    asleep.start()
    assert has_read.wait(30)
    witness.query("UPDATE heroes SET name = 'after' WHERE id = 1")
    other.invalidate(HEROES)
    time.sleep(pause)
    goes_on.set()
    asleep.join()

    assert b"after" in one.read(HEROES, ID, [1], True).json
