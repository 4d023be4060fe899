"""What a request costs, by the servers' own counters and by what passes on its way to the database.

The app is warm: it has its connections and knows the generation.
"""

import hashlib
import socket
import time
from collections.abc import Iterator
from threading import Event

import pytest

from chalicelib import services
from chalicelib.cache import entry_scripts, generations
from chalicelib.db.cache_generation import HAS_CHANGES, IS_WATCHED
from chalicelib.db.statements import IS_READ_ONLY, NOW, guard_time
from chalicelib.rows import service as row_service
from chalicelib.tables import HEROES
from local.machine import LOOPBACK
from local.servers import MariaDB, Redis
from tests.conftest import Configure
from tests.support.client import InProcess, Row, as_stored, hero, heroes
from tests.support.relay import PASS, relaying
from tests.support.witness import Witness

BATCH = 40
LENGTH_BYTES = 3
FIRST_PACKET_OF_QUERY = b"\x00\x03"
OPENING = ["START", "SELECT cache_generation"]
INSERT = ["INSERT", "SELECT"]
"""New rows, and the first key that they were given."""
GUARDED_INSERT = [*OPENING, *INSERT]
COMMITTED = ["COMMIT", "now"]
READ = ["SELECT heroes", "ask"]
PRODUCT = {"ProductName": "Lamp", "Description": "", "QuantityInStock": 3, "Price": 5}

pytestmark = pytest.mark.usefixtures("lasting_generations")
by_id_and_by_xp = pytest.mark.parametrize("by", ["id", "xp"])
cached_and_uncached = pytest.mark.parametrize(
    "use_cache", [True, False], ids=["cached", "uncached"]
)

RoundTrips = list[list[str]]
GUARD_TIME = guard_time(0)[0].partition("%s")[0]


@pytest.fixture
def sent(mariadb: MariaDB, configure: Configure) -> Iterator[RoundTrips]:
    """What the app sends to the database: statements, in short, a list of them a round trip."""
    round_trips: RoundTrips = []

    def listen(piece: bytes) -> int:
        packet = piece[LENGTH_BYTES:]
        if packet.startswith(FIRST_PACKET_OF_QUERY):  # a login has random bytes, a ";" among them
            text = packet.removeprefix(FIRST_PACKET_OF_QUERY).decode(errors="replace")
            round_trips.append([in_short(sql) for sql in text.split(";")])
        return PASS

    with relaying(mariadb.port) as relay:
        relay.judge = listen
        configure(DB_PORT=str(relay.port))
        yield round_trips


def in_short(sql: str) -> str:
    """The verb, and of a SELECT the table; `ask` where it asks whether this is the writer,
    `now` where it asks for the time."""
    if sql in (IS_READ_ONLY[0], NOW[0]) or sql.startswith(GUARD_TIME):
        return "ask" if sql == IS_READ_ONLY[0] else "now"
    verb, *words = sql.replace(IS_WATCHED, "").replace(HAS_CHANGES, "").split()
    return (
        f"{verb} {words[words.index('FROM') + 1]}" if verb == "SELECT" and "FROM" in words else verb
    )


@pytest.fixture
def service(witness: Witness, sent: RoundTrips) -> InProcess:
    """Warm, with heroes 1 to 40 in the table and none in the cache."""
    service = InProcess()
    service.write([{"id": row["xp"], **row} for row in heroes(BATCH)], use_cache=False)
    service.write([PRODUCT], TABLE="products")
    service.read([1])
    witness.forget_cached()
    sent.clear()
    return service


class Overlap:
    """Lets a piece that names `held` on to the database only once Redis has got one that names
    `awaited`: whoever waits for the database first does not get far."""

    def __init__(self) -> None:
        self.happened: list[bool] = []
        self._held = self._awaited = b"nothing yet"
        self._came = Event()

    def expect(self, held: bytes, awaited: bytes) -> None:
        self._held, self._awaited = held, awaited

    def hear_database(self, piece: bytes) -> int:
        if self._held in piece and not self.happened:
            self.happened.append(self._came.wait(timeout=10))
        return PASS

    def hear_redis(self, piece: bytes) -> int:
        if self._awaited in piece:
            self._came.set()
        return PASS


@pytest.fixture
def overlap(
    service: InProcess, mariadb: MariaDB, redis_server: Redis, configure: Configure
) -> Iterator[Overlap]:
    """The service is warm again."""
    overlap = Overlap()
    with relaying(mariadb.port) as database, relaying(redis_server.port) as cache:
        database.judge, cache.judge = overlap.hear_database, overlap.hear_redis
        configure(DB_PORT=str(database.port), REDIS_URL=f"redis://127.0.0.1:{cache.port}")
        for _ in range(2):
            service.read([1])
        yield overlap


def sha1(script: str) -> bytes:
    return hashlib.sha1(script.encode()).hexdigest().encode()


@pytest.fixture
def values(service: InProcess) -> list[int]:
    return list(range(1, BATCH + 1))


# --- reads ----------------------------------------------------------------------------------------


@by_id_and_by_xp
def test_a_batch_that_hits_costs_one_redis_round_trip_and_no_statement(
    service: InProcess, witness: Witness, values: list[int], by: str
) -> None:
    service.read(values, BY=by)

    with witness.spent() as spent:
        answer = service.read([*reversed(values), 1, 1], BY=by)

    assert len(answer.rows) == BATCH + 2
    assert spent.commands == {"mget": 1}
    assert spent.cache_round_trips == 1
    assert spent.statements == 0


def test_a_generation_that_was_read_a_while_ago_costs_one_statement_more(
    service: InProcess,
    witness: Witness,
    values: list[int],
    sent: RoundTrips,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(generations, "MEMORY_SECONDS", 0)
    service.write([{"id": 1, **hero()}])
    service.read(values)
    sent.clear()

    with witness.spent() as spent:
        assert len(service.read(values).rows) == BATCH

    assert sent == [["SELECT cache_generation"]]
    assert spent.statements == 1
    assert spent.commands.pop("mget") == 1
    hint = {"evalsha": 1, "get": 1, "set": 1}
    assert spent.commands == hint, "for those who cannot ask the database"


def test_entries_are_on_their_way_while_the_database_tells_the_generation(
    service: InProcess, values: list[int], overlap: Overlap, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generations, "MEMORY_SECONDS", 0)
    service.write([hero()])
    service.read(values)
    overlap.expect(b"cache_generation", b"MGET")

    assert len(service.read(values).rows) == BATCH

    assert overlap.happened == [True]


def test_entries_of_a_generation_that_has_gone_are_not_believed(
    service: InProcess, witness: Witness, overlap: Overlap, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They came early, the news that they are void came with the generation."""
    monkeypatch.setattr(generations, "MEMORY_SECONDS", 0)
    [id] = service.write([hero(name="before")]).ids
    service.read([id])
    witness.query("UPDATE cache_generation SET generation = generation + 1")
    witness.query("UPDATE heroes SET name = 'after' WHERE id = %s", [id])
    overlap.expect(b"cache_generation", b"MGET")

    assert [row["name"] for row in service.read([id]).rows] == ["after"]

    assert overlap.happened == [True]


@by_id_and_by_xp
def test_an_uncached_batch_costs_one_round_trip_and_no_redis(
    service: InProcess, witness: Witness, values: list[int], sent: RoundTrips, by: str
) -> None:
    with witness.spent() as spent:
        assert len(service.read(values, use_cache=False, BY=by).rows) == BATCH

    assert sent == [READ]
    assert spent.commands == {}


@by_id_and_by_xp
def test_a_batch_that_misses_costs_one_round_trip_to_the_database(
    service: InProcess, witness: Witness, values: list[int], sent: RoundTrips, by: str
) -> None:
    """However many it misses, and it is the last time."""
    service.read(values[:10], BY=by)
    sent.clear()

    with witness.spent() as first:
        assert len(service.read(values, BY=by).rows) == BATCH
    with witness.spent() as second:
        assert len(service.read(values, BY=by).rows) == BATCH

    assert sent == [READ]
    assert first.commands["evalsha"] == 2, "lease and fill"
    assert first.commands["mget"] == 1 + 2, "one in each script"
    assert first.cache_round_trips == 3
    assert (second.statements, second.commands) == (0, {"mget": 1})


def test_after_some_misses_in_a_row_one_costs_a_redis_round_trip_less(
    service: InProcess, witness: Witness, sent: RoundTrips, values: list[int]
) -> None:
    """The next one leases at once. A hit is by MGET again after one that was not."""
    for id in values[:4]:
        service.read([id])

    with witness.spent() as miss:
        service.read(values[4:])
    with witness.spent() as first_hit:
        service.read(values)
    with witness.spent() as hit:
        service.read(values)

    assert (miss.commands["evalsha"], miss.cache_round_trips) == (2, 2), "lease and fill"
    assert miss.commands["mget"] == 2, "one in each script"
    assert (first_hit.commands["evalsha"], first_hit.cache_round_trips) == (1, 1)
    assert hit.commands == {"mget": 1}


def test_only_missed_values_are_asked_of_the_database(
    service: InProcess, witness: Witness, values: list[int]
) -> None:
    service.read(values)

    with witness.logged() as statements:
        service.read([*values, 77, 78, 77])

    [select] = [text for text in statements if " FROM heroes " in text]
    assert select.partition(" IN ")[2].startswith("(77,78);")


def test_nobody_waits_until_what_was_read_is_stored(
    service: InProcess,
    redis_server: Redis,
    configure: Configure,
    values: list[int],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A Redis that goes silent with the last step of a miss is not even noticed."""
    fill = sha1(entry_scripts.FILL_MANY)
    heard: list[bool] = []
    is_silent = Event()

    def silence_the_fill(piece: bytes) -> int:
        heard.append(fill in piece)
        if fill in piece:
            relay.silence()
            is_silent.set()
        return PASS

    with relaying(redis_server.port) as relay:
        configure(REDIS_URL=f"redis://127.0.0.1:{relay.port}")
        for _ in range(2):
            service.read([1])
        relay.judge = silence_the_fill
        assert len(service.read(values[1:]).rows) == BATCH - 1
        assert is_silent.wait(timeout=10)
        relay.end_silence()
        assert len(service.read(values).rows) == BATCH

    assert heard == [False, False, True, False], "MGET, lease, fill; MGET"
    assert "Redis is left alone" not in caplog.text


# --- writes ---------------------------------------------------------------------------------------


@cached_and_uncached
def test_new_rows_cost_one_round_trip_to_the_database_and_two_to_redis(
    service: InProcess, witness: Witness, sent: RoundTrips, use_cache: bool
) -> None:
    with witness.spent() as spent:
        ids = service.write(heroes(BATCH), use_cache).ids

    assert len(ids) == BATCH
    shown = ["SELECT heroes"] * use_cache
    assert sent == [[*OPENING, *shown, *INSERT, *COMMITTED]]
    assert spent.statements == 6 + len(shown)
    assert spent.cache_round_trips == 2, "fence meanwhile, then publish"
    sent.clear()
    service.read(ids)
    assert len(sent) == (0 if use_cache else 1), "written through, or not"


NEW, REPLACED = heroes(BATCH), [{"id": 1, **hero(xp=30)}]


@pytest.mark.parametrize("rows", [NEW, REPLACED], ids=["new", "replaced"])
def test_what_was_written_is_a_hit_by_key_and_by_every_lookup(
    service: InProcess, witness: Witness, sent: RoundTrips, rows: list[Row]
) -> None:
    """Also a lookup that showed other rows before."""
    service.read([row["xp"] for row in rows], BY="xp")
    ids = service.write(rows).ids
    sent.clear()

    by_id = service.read(ids).rows
    by_xp = service.read([row["xp"] for row in rows], BY="xp").rows

    assert sent == []
    assert by_id == [as_stored(id, row) for id, row in zip(ids, rows)]
    assert by_xp == service.read([row["xp"] for row in rows], False, BY="xp").rows
    assert len(by_xp) == 2 * len(rows)


def test_new_rows_are_a_hit_while_their_publish_is_on_its_way(
    service: InProcess, redis_server: Redis, configure: Configure
) -> None:
    """The app has several connections to Redis. The next read goes behind the publish, on the same
    one, however slow that is."""
    published = sha1(entry_scripts.PUBLISH_MANY)

    def be_slow(piece: bytes) -> int:
        if published in piece:
            time.sleep(0.3)
        return PASS

    with relaying(redis_server.port) as relay:
        configure(REDIS_URL=f"redis://127.0.0.1:{relay.port}")
        service.read([1])
        used, held = services.container().cache, services.container().generations.current(HEROES)
        for pending in [used.begin_get_many(held, HEROES, HEROES.key, [1]) for _ in range(3)]:
            pending.wait()
        relay.judge = be_slow
        [row] = heroes(1)
        [id] = service.write([row]).ids

        for answer in (service.read([row["xp"]], BY="xp"), service.read([id])):
            assert answer.headers["cache-status"].startswith("herocache; hit")
            assert answer.rows[-1] == as_stored(id, row)


def test_new_rows_are_fenced_while_the_database_inserts_them(
    service: InProcess, overlap: Overlap
) -> None:
    overlap.expect(b"INSERT", sha1(entry_scripts.FENCE_MANY))

    assert len(service.write(heroes(BATCH)).ids) == BATCH

    assert overlap.happened == [True]


def test_a_connection_to_redis_that_somebody_ends_is_no_round_trip(
    service: InProcess, witness: Witness, redis_server: Redis
) -> None:
    """One that an earlier test left behind ends when Python collects it, at any time: also as the
    counting begins."""
    left = [socket.create_connection((LOOPBACK, redis_server.port)) for _ in range(60)]
    for connection in left:
        connection.sendall(b"PING\r\n")
        assert connection.recv(100) == b"+PONG\r\n"
    service.read([1])

    for _ in range(20):
        left.pop().close()
        with witness.spent() as spent:
            left.pop().close()
            service.read([1])
            left.pop().close()

        assert spent.cache_round_trips == 1, "a hit"


def test_new_rows_are_fenced_again_where_the_generation_was_raised_meanwhile(
    service: InProcess, witness: Witness
) -> None:
    """Their fences went to entries that nobody reads any more."""
    [row] = heroes(1)
    witness.query("UPDATE cache_generation SET generation = generation + 1")

    with witness.spent() as spent:
        [id] = service.write([row]).ids

    # Nobody waits for the last two: they may come together.
    assert 4 <= spent.cache_round_trips <= 5, "fence and lift, fence, publish, a hint"
    assert service.read([row["xp"]], BY="xp").rows[-1] == {"id": id, **row}


def test_nobody_waits_until_new_rows_without_lookups_are_stored(
    service: InProcess,
    redis_server: Redis,
    configure: Configure,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Nothing that anyone may rely on depends on it."""
    store = sha1(entry_scripts.STORE_NEW_MANY)
    is_silent = Event()

    def silence_the_store(piece: bytes) -> int:
        if store in piece:
            relay.silence()
            is_silent.set()
        return PASS

    with relaying(redis_server.port) as relay:
        configure(REDIS_URL=f"redis://127.0.0.1:{relay.port}")
        for _ in range(2):
            service.read([1], TABLE="products")
        relay.judge = silence_the_store
        ids = service.write([PRODUCT] * 10, TABLE="products").ids
        assert is_silent.wait(timeout=10)
        relay.end_silence()
        assert len(service.read(ids, TABLE="products").rows) == 10

    assert "Redis is left alone" not in caplog.text


def test_new_rows_that_nobody_could_have_cached_cost_no_redis(
    service: InProcess, witness: Witness, sent: RoundTrips
) -> None:
    """No lookup shows them, and they are not to be stored."""
    with witness.spent() as spent:
        service.write([PRODUCT] * 10, use_cache=False, TABLE="products")

    assert sent == [[*GUARDED_INSERT, "COMMIT"]]
    assert spent.commands == {}


def test_new_rows_without_lookups_are_stored_in_two_redis_round_trips(
    service: InProcess, witness: Witness, sent: RoundTrips
) -> None:
    with witness.spent() as spent:
        ids = service.write([PRODUCT] * 10, TABLE="products").ids

    assert sent == [[*GUARDED_INSERT, *COMMITTED]]
    assert spent.cache_round_trips == 2, "the witness, and the rows where it still stands"
    assert spent.commands["evalsha"] == 2
    sent.clear()
    assert len(service.read(ids, TABLE="products").rows) == 10
    assert sent == []


@cached_and_uncached
def test_replacing_rows_costs_two_round_trips_to_each_server(
    service: InProcess, witness: Witness, values: list[int], sent: RoundTrips, use_cache: bool
) -> None:
    """Three in a row: they are locked and read; fenced while they are changed and committed;
    published."""
    with witness.spent() as spent:
        service.write([{"id": id, **hero()} for id in values], use_cache)

    shown = ["SELECT heroes"] * use_cache
    assert sent == [[*OPENING, "SELECT heroes"], ["INSERT", "now", *shown, *COMMITTED]]
    assert spent.cache_round_trips == 2
    assert spent.commands["evalsha"] == 2, "all entries of both columns in one fence, one publish"
    sent.clear()
    service.read(values)
    assert len(sent) == (0 if use_cache else 1), "written through, or not"


@pytest.mark.parametrize("row", [hero(), {"id": 1, **hero()}], ids=["new", "replaced"])
def test_where_triggers_may_change_rows_a_write_costs_one_round_trip_more(
    service: InProcess, witness: Witness, sent: RoundTrips, row: Row
) -> None:
    """It reads them back before it fences what shows them."""
    witness.query("CREATE TRIGGER redden BEFORE INSERT ON heroes FOR EACH ROW SET NEW.color = 'r'")
    try:
        services.container().database._schema_check._fitting.clear()
        service.write([row])
        sent.clear()
        service.write([row])
    finally:
        witness.query("DROP TRIGGER redden")

    insert = [*OPENING, *INSERT], ["SELECT heroes"]
    replace = [*OPENING, "SELECT heroes"], ["INSERT", "SELECT heroes"]
    assert sent == [
        *(replace if "id" in row else insert),
        ["now", "SELECT heroes", *COMMITTED],
    ]


def test_rows_with_and_without_keys_go_in_three_round_trips(
    service: InProcess, witness: Witness, values: list[int], sent: RoundTrips
) -> None:
    with witness.spent() as spent:
        service.write([hero(), {"id": 1, **hero()}, {"id": 77, **hero()}, hero()])

    lock, change, commit = sent
    assert (lock, commit) == (
        [*OPENING, "SELECT heroes"],
        ["now", "SELECT heroes", *COMMITTED],
    )
    assert change == ["INSERT", "INSERT", *INSERT], "replaced, given a key, without one"
    assert spent.cache_round_trips == 2


def test_deleting_rows_costs_what_replacing_them_does(
    service: InProcess, witness: Witness, values: list[int], sent: RoundTrips
) -> None:
    with witness.spent() as spent:
        service.delete([*values, 99])

    assert sent == [[*OPENING, "SELECT heroes"], ["DELETE", "now", *COMMITTED]]
    assert spent.cache_round_trips == 2


def test_deleting_rows_that_are_not_there_changes_nothing(
    service: InProcess, witness: Witness, sent: RoundTrips
) -> None:
    with witness.spent() as spent:
        service.delete([98, 99])

    assert sent == [[*OPENING, "SELECT heroes"], ["SELECT", "COMMIT"]]
    assert spent.commands == {}


def test_an_idempotency_key_costs_new_rows_one_round_trip_more_and_others_none(
    service: InProcess, sent: RoundTrips, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But for one in fifty, which forgets old keys too."""
    monkeypatch.setattr(row_service, "PRUNE_SHARE", 0)
    service.write(heroes(2), IDEMPOTENCY_KEY="order-1")
    first = list(sent)
    sent.clear()
    service.write(heroes(2), IDEMPOTENCY_KEY="order-1")

    claim, hold = ["START", "INSERT", "SELECT idempotency"], ["SELECT cache_generation"]
    insert = [*claim, *hold, *INSERT]
    assert first == [insert, ["UPDATE", "now", "SELECT heroes", *COMMITTED]]
    assert sent == [insert, ["ROLLBACK"], claim, [*hold, "COMMIT"]]
    sent.clear()
    service.write([{"id": 1, **hero()}], IDEMPOTENCY_KEY="order-2")
    replace = [*claim, *hold, "SELECT heroes"]
    assert sent == [replace, ["INSERT", "UPDATE", "now", "SELECT heroes", *COMMITTED]]


# --- what costs nothing ---------------------------------------------------------------------------


def test_an_empty_batch_costs_nothing(service: InProcess, witness: Witness) -> None:
    with witness.spent() as spent:
        service.read([])
        service.write([])
        service.delete([])
        service.read([], use_cache=False)

    assert (spent.statements, spent.commands) == (0, {})


def test_a_warm_app_opens_no_new_connection(
    service: InProcess, witness: Witness, values: list[int]
) -> None:
    with witness.spent() as spent:
        for use_cache in (True, False, True):
            service.read(values, use_cache)
            service.read(values, use_cache, BY="xp")
            service.write(heroes(3), use_cache)
            service.write([{"id": 1, **heroes(1)[0]}], use_cache)
            service.delete([2])
            service.read([0])  # refused
            service.read([99])

    assert spent.database_connections == 0
    assert spent.cache_connections == 0


def test_a_cold_app_opens_one_connection_to_each_server(
    service: InProcess, witness: Witness, values: list[int], configure: Configure
) -> None:
    configure()

    with witness.spent() as spent:
        service.read(values)

    assert spent.database_connections == 1
    assert spent.cache_connections == 1


def test_an_app_without_cache_opens_no_connection_to_redis_and_asks_for_no_generation(
    service: InProcess, witness: Witness, values: list[int], configure: Configure
) -> None:
    """Where nobody else has a cache either."""
    witness.give_cache_to("")
    configure(REDIS_URL=None)
    service.write(heroes(2))

    with witness.spent() as spent:
        service.read(values)
        service.write(heroes(2))
        service.write([{"id": 1, **heroes(1)[0]}])

    assert spent.statements == 2 + 5 + 6, "as with a cache, but nobody asks when it was committed"
    assert spent.cache_connections == 0
    assert spent.commands == {}


# --- the first time -------------------------------------------------------------------------------


@pytest.fixture
def redis_of_a_new_database(service: InProcess, witness: Witness, sent: RoundTrips) -> str:
    """No table has entries on it so far, the app only a connection to the database. Its name."""
    witness.give_cache_to("")
    services.forget()
    service.read([1], use_cache=False)
    sent.clear()
    return witness.server


def assert_used(witness: Witness, expected: int, server: str) -> None:
    number, enabled, data_set = witness.generation()
    assert (number, enabled) == (expected, True)
    assert data_set.startswith(f"{server}:")


def test_the_first_write_of_all_finds_out_where_the_entries_are(
    service: InProcess, witness: Witness, sent: RoundTrips, redis_of_a_new_database: str
) -> None:
    number, *_ = witness.generation()

    ids = service.write(heroes(2)).ids

    write = [[*OPENING, *INSERT], ["now", "SELECT heroes", *COMMITTED]]
    assert sent == [["SELECT cache_generation"], ["UPDATE"], *write]
    assert_used(witness, number + 1, redis_of_a_new_database)
    sent.clear()
    assert len(service.read(ids).rows) == 2
    assert sent == []


def test_so_does_the_first_read_of_all_and_the_second_one_fills(
    service: InProcess, witness: Witness, sent: RoundTrips, redis_of_a_new_database: str
) -> None:
    number, *_ = witness.generation()

    for expected in (
        [["SELECT cache_generation"], ["UPDATE"], READ],
        [["SELECT cache_generation"], READ],
        [],
    ):
        assert len(service.read([1, 2]).rows) == 2
        assert sent == expected
        sent.clear()
    assert_used(witness, number + 1, redis_of_a_new_database)
