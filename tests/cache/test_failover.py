"""Redis comes back with less than it had, or as another server; the writer of the database changes.

The entries of an old or another Redis are never believed, and a COMMIT is never sent twice.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from operator import itemgetter
from typing import Any

import pytest
import redis

from chalicelib import services
from chalicelib.cache import connection as redis_connection
from chalicelib.cache import generations, keys
from chalicelib.cache.connection import NAMED_FOR_SECONDS
from chalicelib.cache.entries import Cache, Pending
from chalicelib.cache.generations import MEMORY_SECONDS
from chalicelib.config import Settings
from chalicelib.db import Generation, Transaction
from chalicelib.errors import AnotherServer
from chalicelib.rows.service import RowService
from chalicelib.tables import HEROES
from local.servers import MariaDB, Redis
from tests.conftest import Configure, running
from tests.support.client import InProcess, Row, as_stored, hero
from tests.support.relay import CUT_AFTER, CUT_BEFORE, PASS, Relay, relaying
from tests.support.topologies import wait_until
from tests.support.witness import Witness, connect_to_redis

CHANGED, DELETED, LEFT, MOVED = 1, 2, 3, 4
# A primary begins the copy at once, and does not wait for more replicas.
AT_ONCE = ("--repl-diskless-sync-delay", "0")
SYNCED_WITHIN_SECONDS = 60
USED_AGAIN_WITHIN_SECONDS = 60
# Longer than a generation is remembered, because the machine may be busy.
FORGOTTEN_SECONDS = MEMORY_SECONDS + 0.5


@pytest.fixture(scope="module")
def own_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    with running(Redis(tmp_path_factory.mktemp("failing") / "redis", arguments=AT_ONCE)) as server:
        yield server


@pytest.fixture
def redis_server(own_redis: Redis) -> Iterator[Redis]:
    """One that these tests may break; it runs, and is nobody's replica, when a test begins."""
    (own_redis.home / "dump.rdb").unlink(missing_ok=True)
    own_redis.start()
    yield own_redis
    own_redis.kill()
    (own_redis.home / "dump.rdb").unlink(missing_ok=True)
    own_redis.start()


@pytest.fixture
def service(witness: Witness, configure: Configure) -> InProcess:
    """Warm. Heroes 1 to 4 in the table and the cache, by id and by xp."""
    configure()
    return prepared(InProcess())


def prepared(service: InProcess) -> InProcess:
    """The first read takes a Redis into use that no generation names yet. A first write would not:
    its rows would not be in the cache."""
    service.read([CHANGED])
    assert len(service.write(BEFORE).ids) == len(BEFORE)
    assert rows_of(service) == BEFORE
    return service


BEFORE = [as_stored(id, hero(name="before", xp=id)) for id in (CHANGED, DELETED, LEFT, MOVED)]
AFTER = [
    as_stored(CHANGED, hero(name="after", xp=CHANGED)),
    as_stored(LEFT, hero(name="before", xp=LEFT)),
    as_stored(MOVED, hero(name="before", xp=DELETED)),
]


def change(service: InProcess) -> None:
    """From BEFORE to AFTER: acknowledged."""
    service.write([AFTER[0], AFTER[2]])
    answer = service.post({"REQUEST": "delete", "SQLS": [DELETED]})
    assert answer.fields["deleted"] == [DELETED]


def rows_of(service: InProcess, use_cache: bool = True) -> list[Row]:
    """The heroes by id; by xp they are the same, each under its own."""
    xps = range(1, 5)
    by_id = service.read(xps, use_cache).rows
    by_xp = service.read(xps, use_cache, BY="xp").rows
    assert [row for row in sorted(by_xp, key=itemgetter("id")) if row["id"] in xps] == by_id
    return by_id


def assert_used_again(service: InProcess, witness: Witness) -> None:
    """Answers stay right, and come from the cache before long."""
    deadline = time.monotonic() + USED_AGAIN_WITHIN_SECONDS
    while True:
        assert rows_of(service) == AFTER
        with witness.spent() as spent:
            for by in ("id", "xp"):
                assert service.read([row[by] for row in AFTER], BY=by).rows == AFTER
        if spent.statements == 0:
            return
        assert time.monotonic() < deadline, "the cache is not used although it is back"


def values_in(client: "redis.Redis") -> str:
    """All that a Redis holds in its entries of rows, as one text."""
    keys: Any = client.keys("*:id:*")
    return str([client.get(key) for key in keys])


# --- Redis ----------------------------------------------------------------------------------------


def test_a_flushed_redis_is_filled_anew(service: InProcess, witness: Witness) -> None:
    change(service)
    witness.redis.flushall()

    assert_used_again(service, witness)


@pytest.mark.parametrize("key", [{}, {"id": 1}])
@pytest.mark.parametrize("found", [b"", b"12.5"])
def test_a_marker_that_tells_no_time_counts_as_lost(
    service: InProcess, witness: Witness, found: bytes, key: dict[str, int]
) -> None:
    """A stranger has written there: nobody knows which changes were published."""
    service.write([hero(xp=101)])
    number, _, data_set = witness.generation()
    witness.redis.set(keys.marker(HEROES, 0, data_set.rpartition(":")[2]), found)

    [id] = service.write([{**key, **hero(xp=102)}]).ids

    assert witness.generation()[0] > number
    written = [as_stored(id, hero(xp=102))]
    assert service.read([id]).rows == service.read([102], BY="xp").rows == written


def test_a_flush_between_the_announcement_and_the_commit_leaves_nothing_stale(
    service: InProcess, witness: Witness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader finds the entries empty then, and would store the rows as they were."""
    begin_fence_many = Cache.begin_fence_many
    reads: list[Future[object]] = []

    def flushed(self: Cache, *arguments: Any) -> Pending[int]:
        sent = begin_fence_many(self, *arguments)
        if not reads:
            wait_until(lambda: witness.fences() > 0)
            witness.redis.flushall()
            reads.append(threads.submit(InProcess().read, range(1, 5)))
            wait_until(lambda: reads[0].done() or is_locked(witness))
        return sent

    monkeypatch.setattr(Cache, "begin_fence_many", flushed)
    with ThreadPoolExecutor(1) as threads:
        change(service)
        reads[0].result()
    monkeypatch.undo()

    assert rows_of(service) == AFTER


def is_locked(witness: Witness) -> bool:
    """Whether somebody waits for a row."""
    waits = "SHOW GLOBAL STATUS WHERE Variable_name = 'Innodb_row_lock_current_waits' AND Value > 0"
    return bool(witness.query(waits))


@pytest.mark.parametrize("noticed", [True, False], ids=["noticed", "unnoticed"])
def test_a_redis_restarted_with_an_old_snapshot_is_not_believed(
    service: InProcess, redis_server: Redis, witness: Witness, noticed: bool
) -> None:
    witness.redis.save()
    change(service)
    redis_server.kill()
    if noticed:
        assert rows_of(service) == AFTER
    redis_server.start()

    assert "before" in values_in(witness.redis), "the snapshot holds what is stale now"
    assert_used_again(service, witness)


@pytest.fixture
def replica(
    redis_server: Redis, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Redis, Relay]]:
    """A server that follows the main one, and the network between the two."""
    home = tmp_path_factory.mktemp("replica") / "redis"
    with running(Redis(home, arguments=AT_ONCE)) as server, relaying(redis_server.port) as between:
        yield server, between


def follow(server: Redis, port: int) -> None:
    """Make it a replica; return when it has everything."""
    with connect_to_redis(server) as client:
        client.execute_command("REPLICAOF", "127.0.0.1", port)
        deadline = time.monotonic() + SYNCED_WITHIN_SECONDS
        while client.info("replication")["master_link_status"] != "up":
            assert time.monotonic() < deadline, "the replica never caught up"
            time.sleep(0.05)


def promote(server: Redis) -> None:
    with connect_to_redis(server) as client:
        client.execute_command("REPLICAOF", "NO", "ONE")
        assert "before" in values_in(client), "it missed what changed"


@pytest.mark.parametrize("noticed", [True, False], ids=["noticed", "unnoticed"])
def test_a_promoted_replica_that_missed_writes_is_not_believed(
    mariadb: MariaDB,
    configure: Configure,
    redis_server: Redis,
    replica: tuple[Redis, Relay],
    noticed: bool,
) -> None:
    server, between = replica
    with relaying(redis_server.port) as endpoint:
        configure(REDIS_URL=f"redis://127.0.0.1:{endpoint.port}")
        service = prepared(InProcess())
        follow(server, between.port)
        between.silence()
        change(service)
        redis_server.kill()
        endpoint.cut()
        if noticed:
            assert rows_of(service) == AFTER
        promote(server)
        endpoint.target = server.port

        promoted = Witness(mariadb, server)
        try:
            assert_used_again(service, promoted)
        finally:
            promoted.close()


def test_a_container_that_comes_later_does_not_believe_a_promoted_replica_either(
    witness: Witness, configure: Configure, redis_server: Redis, replica: tuple[Redis, Relay]
) -> None:
    """It never talked to the server that was there before."""
    server, between = replica
    configure()
    service = prepared(InProcess())
    follow(server, between.port)
    between.silence()
    change(service)
    promote(server)

    configure(REDIS_URL=f"redis://127.0.0.1:{server.port}")
    for _ in range(3):
        assert rows_of(InProcess()) == AFTER


def test_another_database_of_the_same_redis_has_entries_of_its_own(
    service: InProcess, redis_server: Redis, configure: Configure
) -> None:
    """A deployment changes the number in REDIS_URL, and old containers go on for a while."""
    old = services.container().rows
    configure(REDIS_URL=f"{redis_server.environment()['REDIS_URL'].rstrip('/')}/1")
    change(service)

    assert b"after" in old.read(HEROES, HEROES.key, [CHANGED], True).json


def test_a_master_made_a_replica_under_kept_connections_is_found_out_at_once(
    witness: Witness,
    configure: Configure,
    redis_server: Redis,
    replica: tuple[Redis, Relay],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The endpoint leads elsewhere, but kept connections lead to a server that takes over what the
    promoted one has. Neither the generation nor the server's name is asked for again."""
    service = failed_over(configure, redis_server, replica)
    monkeypatch.setattr(redis_connection, "NAMED_FOR_SECONDS", math.inf)
    for memory in services.container().rows._lazy_loading._generations._memory.values():
        memory.valid_until = math.inf

    assert "before" in values_in(witness.redis), "it has what the promoted one had"
    for _ in range(3):
        assert rows_of(service) == AFTER


@pytest.mark.parametrize("is_warm", [True, False], ids=["kept connections", "a new container"])
def test_a_master_that_was_a_replica_meanwhile_is_not_believed(
    witness: Witness,
    configure: Configure,
    redis_server: Redis,
    replica: tuple[Redis, Relay],
    is_warm: bool,
) -> None:
    """The same process, the same connections, and what the other one had. Nobody asked for the
    table while that was the master."""
    service = failed_over(configure, redis_server, replica)
    if not is_warm:
        configure()
    time.sleep(NAMED_FOR_SECONDS)

    promote(redis_server)

    for _ in range(3):
        assert rows_of(service) == AFTER
    number, *_ = witness.generation()
    time.sleep(FORGOTTEN_SECONDS)
    assert rows_of(service) == AFTER
    assert witness.generation()[0] == number, "it is in use again"


def test_a_reply_that_nobody_waited_for_tells_of_a_master_that_was_a_replica_meanwhile(
    service: InProcess, witness: Witness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is the master again when its entries are read, and not yet asked for its name."""
    monkeypatch.setattr(redis_connection, "NAMED_FOR_SECONDS", math.inf)
    number, enabled, server = witness.generation()
    held, used = Generation(number, enabled, server, 0), services.container().cache
    assert None not in used.get_many(held, HEROES, HEROES.key, [CHANGED])

    witness.redis.execute_command("REPLICAOF", "127.0.0.1", "1")
    used.fill_many(held, HEROES, HEROES.key, {CHANGED: None}, "t" * 16)
    witness.redis.ping()  # what was sent before it is done
    witness.redis.execute_command("REPLICAOF", "NO", "ONE")

    with pytest.raises(AnotherServer):
        used.get_many(held, HEROES, HEROES.key, [CHANGED])


def test_a_question_whose_answer_nobody_waited_for_is_asked_again(
    service: InProcess, witness: Witness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was due to ask the server for its name. What was sent with it was not needed."""
    number, enabled, server = witness.generation()
    held, used = Generation(number, enabled, server, 0), services.container().cache
    assert None not in used.get_many(held, HEROES, HEROES.key, [CHANGED])

    witness.redis.execute_command("REPLICAOF", "127.0.0.1", "1")
    witness.redis.execute_command("REPLICAOF", "NO", "ONE")
    with monkeypatch.context() as patch:
        patch.setattr(redis_connection, "NAMED_FOR_SECONDS", 0)
        used.begin_get_many(held, HEROES, HEROES.key, [CHANGED]).close()
    monkeypatch.setattr(redis_connection, "NAMED_FOR_SECONDS", 3600)

    with pytest.raises(AnotherServer):
        used.get_many(held, HEROES, HEROES.key, [CHANGED])


def failed_over(
    configure: Configure, redis_server: Redis, replica: tuple[Redis, Relay]
) -> InProcess:
    """Warm, on a server that is a replica now of one that missed the last writes."""
    server, between = replica
    follow(server, between.port)
    configure()
    service = prepared(InProcess())
    for _ in range(2):
        assert rows_of(service) == BEFORE
    wait_until(lambda: "before" in values_in(connect_to_redis(server)))
    between.silence()
    change(service)
    promote(server)
    follow(redis_server, server.port)
    return service


# --- the database ---------------------------------------------------------------------------------


@pytest.fixture
def endpoint(mariadb: MariaDB, configure: Configure, witness: Witness) -> Iterator[Relay]:
    """The way to the database, which the app takes."""
    with relaying(mariadb.port) as relay:
        configure(DB_PORT=str(relay.port))
        yield relay


@pytest.fixture
def through(endpoint: Relay) -> InProcess:
    """The app behind it, warm."""
    return prepared(InProcess())


def once(verdict: int, words: bytes) -> Callable[[bytes], int]:
    """Judges the first piece with these words so, and lets all others pass."""
    met: list[bytes] = []

    def judge(piece: bytes) -> int:
        if words not in piece or met:
            return PASS
        met.append(piece)
        return verdict

    return judge


def count_of(witness: Witness, name: str, expected: int) -> int:
    """Rows with this name, once there are as many or after a moment."""
    deadline = time.monotonic() + SYNCED_WITHIN_SECONDS
    while True:
        [(count,)] = witness.query("SELECT COUNT(*) FROM heroes WHERE name = %s", [name])
        if count >= expected or time.monotonic() > deadline:
            return int(count)


@pytest.mark.parametrize("verdict", [CUT_BEFORE, CUT_AFTER], ids=["lost", "sent"])
def test_a_read_whose_connection_breaks_is_tried_once_more(
    through: InProcess, endpoint: Relay, verdict: int
) -> None:
    endpoint.judge = once(verdict, b"FROM heroes WHERE")

    assert rows_of(through, use_cache=False) == BEFORE


def test_a_read_whose_connections_keep_breaking_is_a_503(
    through: InProcess, endpoint: Relay
) -> None:
    pieces: list[bytes] = []

    def judge(piece: bytes) -> int:
        if b"FROM heroes WHERE" not in piece:
            return PASS
        pieces.append(piece)
        return CUT_BEFORE

    endpoint.judge = judge
    answer = through.read([CHANGED], use_cache=False)

    assert (answer.status, answer.error) == (503, "DatabaseUnavailable")
    assert len(pieces) == 2


@pytest.mark.parametrize("verdict", [CUT_BEFORE, CUT_AFTER], ids=["lost", "sent"])
def test_a_write_whose_connection_breaks_before_the_commit_happens_once(
    through: InProcess, endpoint: Relay, witness: Witness, verdict: int
) -> None:
    endpoint.judge = once(verdict, b"FOR UPDATE")

    [id] = through.write([{"id": 40, **hero(name="cut")}]).ids

    assert through.read([id]).rows == [as_stored(id, hero(name="cut"))]
    assert count_of(witness, "cut", 1) == 1


@pytest.mark.parametrize("verdict", [CUT_BEFORE, CUT_AFTER], ids=["lost", "sent"])
@pytest.mark.parametrize("words", [b"INSERT INTO heroes", b"COMMIT"])
@pytest.mark.parametrize("key", [{}, {"id": CHANGED}], ids=["insert", "replace"])
def test_a_write_with_an_idempotency_key_is_tried_again_by_the_service_and_happens_once(
    through: InProcess, endpoint: Relay, witness: Witness, verdict: int, words: bytes, key: Row
) -> None:
    endpoint.judge = once(verdict, words)

    [id] = through.write([{**key, **hero(name="cut")}], IDEMPOTENCY_KEY="order-1").ids

    assert through.read([id]).rows == [as_stored(id, hero(name="cut"))]
    assert count_of(witness, "cut", 1) == 1


@pytest.mark.parametrize(
    ("verdict", "happened"), [(CUT_BEFORE, 0), (CUT_AFTER, 1)], ids=["lost", "sent"]
)
@pytest.mark.parametrize("key", [{}, {"id": CHANGED}], ids=["insert", "replace"])
def test_a_commit_whose_answer_is_lost_is_never_sent_again(
    through: InProcess,
    endpoint: Relay,
    witness: Witness,
    verdict: int,
    happened: int,
    key: Row,
) -> None:
    endpoint.judge = once(verdict, b"COMMIT")

    answer = through.write([{**key, **hero(name="cut", xp=CHANGED)}])

    assert (answer.status, answer.error) == (503, "OutcomeUnknown")
    assert "may or may not have happened" in answer.message
    assert count_of(witness, "cut", happened) == happened
    for use_cache in (True, False):
        names = [row["name"] for row in rows_of(through, use_cache)]
        assert names.count("cut") == happened * len(key)


@pytest.fixture
def read_only(mariadb: MariaDB) -> Iterator[Callable[[bool], None]]:
    def switch(on: bool) -> None:
        mariadb.query(f"SET GLOBAL read_only = {int(on)}")

    yield switch
    switch(False)


@pytest.fixture(params=[False, True], ids=["", "who may write to a replica"])
def user(request: pytest.FixtureRequest, mariadb: MariaDB) -> Iterator[None]:
    """The service's. A connection has the rights that its user had when it was opened."""
    name = f"'{mariadb.user}'@'127.0.0.1'"
    right = "READ_ONLY ADMIN" if mariadb.is_mariadb else "CONNECTION_ADMIN"
    if request.param:
        mariadb.query(f"GRANT {right} ON *.* TO {name}")
    yield
    if request.param:
        mariadb.query(f"REVOKE {right} ON *.* FROM {name}")


@pytest.mark.parametrize("rows", [[hero(name="moved")], [{"id": CHANGED, **hero(name="moved")}]])
def test_a_write_that_meets_a_demoted_writer_goes_to_the_new_one_once(
    user: None,
    through: InProcess,
    endpoint: Relay,
    witness: Witness,
    read_only: Callable[[bool], None],
    rows: Sequence[Row],
) -> None:
    """The kept connection leads to what is a replica now (1290), a new one to the new writer."""
    read_only(True)
    endpoint.welcome = lambda: read_only(False)

    [id] = through.write(rows).ids

    assert witness.query("SELECT @@read_only") == [(0,)]
    assert through.read([id]).rows == [as_stored(id, hero(name="moved"))]
    assert count_of(witness, "moved", 1) == 1


@pytest.mark.parametrize("cache", [None, ""], ids=["cached", "no cache"])
@pytest.mark.parametrize("user", [True], indirect=True, ids=["who may write to a replica"])
def test_a_write_whose_writer_is_demoted_before_its_commit_is_not_acknowledged(
    user: None,
    configure: Configure,
    witness: Witness,
    read_only: Callable[[bool], None],
    monkeypatch: pytest.MonkeyPatch,
    cache: str | None,
) -> None:
    """It has locked its rows there. The new writer would never hear of the change."""
    configure(**({} if cache is None else {"REDIS_URL": cache}))
    service = InProcess()
    key = {"id": CHANGED}
    service.write([{**key, **hero(name="before")}])
    commit = Transaction._send_commit

    def commit_late(self: Transaction, *arguments: Any, **named: Any) -> Any:
        monkeypatch.undo()
        read_only(True)
        return commit(self, *arguments, **named)

    monkeypatch.setattr(Transaction, "_send_commit", commit_late)
    answer = service.write([{**key, **hero(name="after")}])

    assert (answer.status, answer.error) == (503, "DatabaseUnavailable")
    assert count_of(witness, "after", 0) == 0


@pytest.fixture
def demoted(
    through: InProcess,
    endpoint: Relay,
    witness: Witness,
    read_only: Callable[[bool], None],
    monkeypatch: pytest.MonkeyPatch,
) -> InProcess:
    """Its kept connections lead to what is a replica now. New ones lead to the new writer, where
    hero 1 was changed and the table left the cache; generations are asked for each time."""

    def promote() -> None:
        read_only(False)
        witness.query("UPDATE heroes SET name = 'after' WHERE id = %s", [CHANGED])
        witness.query("UPDATE cache_generation SET generation = generation + 1")

    read_only(True)
    endpoint.welcome = promote
    monkeypatch.setattr(generations, "MEMORY_SECONDS", 0)
    for memory in services.container().rows._lazy_loading._generations._memory.values():
        memory.valid_until = 0
    return through


@pytest.mark.parametrize("by", ["id", "xp"])
@pytest.mark.parametrize("use_cache", [True, False], ids=["cached", "uncached"])
def test_a_read_that_meets_a_demoted_writer_goes_to_the_new_one(
    demoted: InProcess, use_cache: bool, by: str
) -> None:
    [row] = demoted.read([CHANGED], use_cache, BY=by).rows

    assert row["name"] == "after"


def test_the_list_of_all_rows_comes_from_the_new_writer(demoted: InProcess) -> None:
    names = [row[3] for row in services.container().rows.all_rows(HEROES, 10_000)]

    assert names[0] == "after"


@pytest.fixture
def kept_twice(through: InProcess) -> None:
    """As after two requests at the same time."""
    kept = services.container().database._pool
    for connection in [kept.acquire(), kept.acquire()]:
        kept.release(connection)


def test_of_the_kept_connections_to_a_demoted_writer_only_one_is_tried(
    kept_twice: None, demoted: InProcess
) -> None:
    [row] = demoted.read([CHANGED], use_cache=False).rows

    assert row["name"] == "after"


def test_a_read_that_misses_asks_the_writer_although_the_generation_is_known(
    demoted: InProcess, witness: Witness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it fills the cache with is everybody's."""
    monkeypatch.setattr(generations, "MEMORY_SECONDS", 60)
    known = services.container().rows._lazy_loading._generations
    asked = time.monotonic()
    number, enabled, server = witness.generation()
    known.saw(HEROES, Generation(number, enabled, server, 0), asked)
    witness.forget_cached()

    assert demoted.read([CHANGED]).rows[0]["name"] == "after"
    assert all(b"before" not in entry for entry in witness.entries().values())


def test_a_delete_of_rows_that_are_not_there_asks_the_writer(
    demoted: InProcess, witness: Witness, endpoint: Relay
) -> None:
    """It reads and changes nothing: a replica would not refuse it."""
    promote = endpoint.welcome

    def promote_and_insert() -> None:
        promote()
        witness.query("INSERT INTO heroes VALUES (9, 'Nova', 'light', 'Ada', 9, 'red')")

    endpoint.welcome = promote_and_insert

    assert demoted.delete([9]).deleted == [9]


def test_where_only_a_replica_answers_a_generation_that_is_due_is_not_believed(
    demoted: InProcess, endpoint: Relay
) -> None:
    """The writer is elsewhere, and may be raising it."""
    endpoint.welcome = lambda: None

    answer = demoted.read([CHANGED])

    assert (answer.status, answer.error) == (503, "DatabaseUnavailable")
    assert "it is read-only now: a failover is going on" in answer.message


def test_killed_connections_fail_no_request(
    through: InProcess, mariadb: MariaDB, witness: Witness
) -> None:
    """Between requests: a kept connection that is dead is found out before it is used."""
    for turn in range(5):
        witness.kill_connections(mariadb.user)
        rows = [as_stored(LEFT, hero(name=f"turn {turn}"))]

        assert through.write(rows).ids == [LEFT]
        assert through.read([LEFT], use_cache=turn % 2 == 0).rows == rows


# --- races that need two faults, or a slow one ----------------------------------------------------


def container(settings: Settings) -> RowService:
    return services.Container(settings).rows


@pytest.mark.own_deadlines
@pytest.mark.parametrize("ttl", ["1", "3600"])
def test_a_row_stored_late_does_not_come_back_over_a_newer_one(
    witness: Witness,
    mariadb: MariaDB,
    redis_server: Redis,
    monkeypatch: pytest.MonkeyPatch,
    ttl: str,
) -> None:
    """The writer of a new row sleeps after its commit, until another's row has left the cache by
    its short TTL. The writer's own TTL may be longer, as during a deployment that changes it."""
    environment = {**mariadb.environment(), **redis_server.environment(), "TTL": "1"}
    settings = Settings.from_environment(environment)
    quick = container(settings)
    slow = container(replace(settings, ttl_seconds=int(ttl)))
    old, new = (("Nova", "light", name, 10, "red") for name in ("old", "new"))
    slow.write(HEROES, [(0, *old)], True)
    publish_many = Cache.publish_many

    def late(self: Cache, *arguments: object) -> None:
        monkeypatch.undo()
        [(id,)] = witness.query("SELECT MAX(id) FROM heroes")
        quick.write(HEROES, [(id, *new)], True)
        time.sleep(1.2)
        publish_many(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Cache, "publish_many", late)
    [id] = slow.write(HEROES, [(0, *old)], True)

    assert b"new" in quick.read(HEROES, HEROES.key, [id], True).json
