"""UNCACHED_READS=replica: the replica serves uncached reads, and nothing else.

The replica here is a server of its own with rows of its own, so that it shows who answered.
"""

import time
from collections.abc import Iterator
from typing import ClassVar

import pytest

from chalicelib.cache import generations
from chalicelib.rows import loader
from local.machine import write_private
from local.servers import MariaDB
from tests.conftest import Configure, running
from tests.support.client import InProcess, Row, as_stored, hero, heroes
from tests.support.topologies import wait_until
from tests.support.witness import Witness

READER = "127.0.0.2"
OPTED_IN = {"DB_READER_HOST": READER, "UNCACHED_READS": "replica"}


class Replica(MariaDB):
    title: ClassVar[str] = "replica"
    address: ClassVar[str] = READER


@pytest.fixture(scope="module")
def own_replica(mariadb: MariaDB, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MariaDB]:
    home = tmp_path_factory.mktemp("replica") / "mariadb"
    home.mkdir()
    write_private(home / "password", mariadb.password)
    with running(Replica(home, mariadb.port)) as server:
        server.apply_schema()
        yield server


@pytest.fixture
def replica(own_replica: MariaDB) -> Iterator[MariaDB]:
    """Heroes 1 to 9, all of them called Replica; it runs when a test begins and when it ends."""
    own_replica.start()
    own_replica.query("TRUNCATE heroes")
    for row in rows("Replica"):
        own_replica.query("INSERT INTO heroes VALUES %s", [(*row.values(),)])
    yield own_replica
    own_replica.start()


@pytest.fixture
def service(witness: Witness, configure: Configure, replica: MariaDB) -> InProcess:
    """The writer has the same heroes, all called Writer; nothing is cached."""
    configure(**OPTED_IN)
    service = InProcess()
    service.write(rows("Writer"))
    witness.forget_cached()
    return service


def rows(name: str) -> list[Row]:
    return [as_stored(row["xp"], {**row, "name": name}) for row in heroes(9)]


def names(answer_rows: list[Row]) -> set[str]:
    return {row["name"] for row in answer_rows}


by_id_and_by_xp = pytest.mark.parametrize("by", ["id", "xp"])


@by_id_and_by_xp
def test_a_read_without_the_cache_is_the_replicas(
    service: InProcess, replica: MariaDB, by: str
) -> None:
    replica.query("DELETE FROM heroes WHERE id = 5")

    for _ in range(2):
        answer = service.read([3, 5, 1], use_cache=False, BY=by)
        assert [(row["id"], row["name"]) for row in answer.rows] == [(3, "Replica"), (1, "Replica")]
        assert answer.missing == [5]


def test_pages_without_the_cache_are_the_replicas_and_with_it_the_writers(
    service: InProcess, witness: Witness, replica: MariaDB
) -> None:
    replica.query("UPDATE heroes SET xp = 7")
    witness.query("UPDATE heroes SET xp = 7")

    for use_cache, name in [(False, "Replica"), (True, "Writer")]:
        first = service.read([7], use_cache, BY="xp", LIMIT=4).rows
        rest = service.read([7], use_cache, BY="xp", LIMIT=9, AFTER=4).rows
        assert [row["id"] for row in first + rest] == [*range(1, 10)]
        assert len(first) == 4
        assert names(first + rest) == {name}


@by_id_and_by_xp
@pytest.mark.usefixtures("lasting_generations")
def test_a_read_that_fills_the_cache_is_the_writers(
    service: InProcess,
    witness: Witness,
    replica: MariaDB,
    by: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whatever the replica says before, between and after."""
    monkeypatch.setattr(generations, "MEMORY_SECONDS", 60)
    before = statements(replica)
    assert names(service.read(range(1, 10), BY=by).rows) == {"Writer"}
    assert statements(replica) == before

    service.read(range(1, 10), use_cache=False, BY=by)
    with witness.spent() as spent:
        assert names(service.read(range(1, 10), BY=by).rows) == {"Writer"}
    assert spent.commands["mget"] == 1
    assert "evalsha" not in spent.commands


@by_id_and_by_xp
def test_a_read_of_what_a_dead_writer_left_fenced_is_the_writers(
    service: InProcess, witness: Witness, by: str
) -> None:
    """By a locking read, where the fence is old, by a plain one where it is new."""
    service.read(range(1, 10), BY=by)
    for key in witness.entries():
        witness.redis.set(key, a_fence(since=1))
    assert names(service.read(range(1, 10), BY=by).rows) == {"Writer"}
    assert names(service.read(range(1, 10), BY=by).rows) == {"Writer"}

    [(now,)] = witness.query("SELECT UNIX_TIMESTAMP()")
    for key in witness.entries():
        witness.redis.set(key, a_fence(since=now))
    assert names(service.read(range(1, 10), BY=by).rows) == {"Writer"}


def test_a_read_that_redis_cannot_serve_is_the_writers(
    service: InProcess, configure: Configure
) -> None:
    configure(**OPTED_IN, REDIS_URL="redis://127.0.0.1:1")
    for _ in range(2):
        assert names(service.read(range(1, 10)).rows) == {"Writer"}

    configure(**OPTED_IN, REDIS_URL=None)
    assert names(service.read(range(1, 10)).rows) == {"Writer"}


def test_every_change_goes_to_the_writer(
    service: InProcess, witness: Witness, replica: MariaDB
) -> None:
    before = statements(replica)
    for use_cache in (True, False):
        [id] = service.write([hero()], use_cache).ids
        service.write([{"id": id, **hero(name="changed")}], use_cache)
        service.write([{"id": 1, **hero(name="changed")}], use_cache)
    assert service.delete([id, 2]).deleted == [id, 2]
    service.post({"REQUEST": "write", "SQLS": [hero()], "IDEMPOTENCY_KEY": "k"})

    assert statements(replica) == before
    assert witness.count() == 10
    assert replica.query("SELECT COUNT(*), MIN(name), MAX(name) FROM heroes") == [
        (9, "Replica", "Replica")
    ]


def test_the_writer_answers_for_a_killed_replica_until_it_is_back(
    service: InProcess,
    replica: MariaDB,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(loader, "REPLICA_RESTS_SECONDS", 0.5)
    assert names(service.read(range(1, 10), use_cache=False).rows) == {"Replica"}
    replica.kill()

    for _ in range(3):
        assert names(service.read(range(1, 10), use_cache=False).rows) == {"Writer"}
    assert "the writer answers for the replica (DB_READER_HOST)" in caplog.text

    replica.start()
    wait_until(lambda: names(service.read([1], use_cache=False).rows) == {"Replica"})


def test_the_writer_answers_for_a_hanging_replica_and_nobody_waits_for_it_twice(
    service: InProcess, replica: MariaDB, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loader, "REPLICA_RESTS_SECONDS", 2)
    service.read([1], use_cache=False)
    replica.pause()
    assert names(service.read(range(1, 10), use_cache=False).rows) == {"Writer"}

    start = time.monotonic()
    for _ in range(20):
        assert names(service.read(range(1, 10), use_cache=False).rows) == {"Writer"}
    assert time.monotonic() - start < 1

    replica.resume()
    wait_until(lambda: names(service.read([1], use_cache=False).rows) == {"Replica"})


@pytest.mark.parametrize("fault", ["unknown host", "no listener", "another password"])
def test_the_writer_answers_for_a_replica_that_cannot_be_used(
    service: InProcess, configure: Configure, replica: MariaDB, fault: str
) -> None:
    hosts = {"unknown host": "no-such-host.invalid", "no listener": "127.0.0.3"}
    configure(**{**OPTED_IN, "DB_READER_HOST": hosts.get(fault, READER)})
    ours = f"'{replica.user}'@'127.0.0.1'"
    if fault == "another password":
        replica.query(f"ALTER USER {ours} IDENTIFIED BY 'another'")
    try:
        for _ in range(2):
            assert names(service.read(range(1, 10), use_cache=False).rows) == {"Writer"}
    finally:
        replica.query(f"ALTER USER {ours} IDENTIFIED BY '{replica.password}'")


@pytest.mark.parametrize(
    "settings",
    [{"DB_READER_HOST": None}, {"DB_READER_HOST": ""}, {"DB_READER_HOST": READER}],
    ids=["no replica", "an empty name", "a replica"],
)
def test_unless_a_stage_asks_for_the_replica_by_name_the_writer_answers_all(
    service: InProcess, configure: Configure, settings: dict[str, str | None]
) -> None:
    """A write and the read after it must agree, with the cache and without it."""
    for reader in (None, "writer"):
        configure(**settings, UNCACHED_READS=reader)
        for use_cache in (True, False):
            assert names(service.read(range(1, 10), use_cache).rows) == {"Writer"}


def a_fence(since: int) -> bytes:
    return b"\xffF%010d%06d-%010d" % (since, 0, since) + b"t" * 16


def statements(server: MariaDB) -> int:
    """That were sent to it so far and read or changed rows."""
    names = "'Com_select','Com_insert','Com_update','Com_delete','Com_begin'"
    counted = server.query(f"SHOW GLOBAL STATUS WHERE Variable_name IN ({names})")
    return sum(int(count) for _, count in counted)
