"""The database is killed, silent, read-only or locked: a quick 503, and right answers once it is
back."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pymysql
import pytest
from pymysql.constants import CR, ER

from app import storage
from chalicelib import services
from chalicelib.db.engine import ANSWER_TIMEOUT_SECONDS, Connection
from chalicelib.db.mysql.connection import as_database_error
from chalicelib.db.mysql.driver import DriverConnection
from chalicelib.db.statements import READ_ONLY
from chalicelib.errors import CacheUnavailable, DatabaseUnavailable
from chalicelib.tables import HEROES
from local.servers import MariaDB
from local.servers.mariadb import integers
from tests import conftest
from tests.conftest import Configure
from tests.support.client import Answer, InProcess, Row, as_stored, hero
from tests.support.leaks import assert_tells_nothing_internal
from tests.support.relay import CUT_AFTER, CUT_BEFORE, PASS, relaying
from tests.support.topologies import wait_until
from tests.support.witness import Witness

# The promise is 3 s. This leaves room for a busy machine; who waits without a limit takes longer.
MAX_SECONDS = 15
CACHED, STORED, NEW = 1, 2, 3
CLOSED_WHILE_IDLE, CONNECTION_KILLED = 4031, 1927
# Of RDS Proxy, which waited for a connection to the database; and of ProxySQL.
PROXY_TIMED_OUT = (9501, 9001)
# Storage, memory, locks, transactions, a node that is not ready, a table that is changed.
FOR_A_MOMENT = (1030, 1037, 1206, 1637, 1047, 1412, CR.CR_SERVER_GONE_ERROR, CLOSED_WHILE_IDLE)

READ_STORED: Row = {"REQUEST": "read", "SQLS": [STORED]}
REQUESTS: dict[str, Row] = {
    "uncached read": {**READ_STORED, "USE_CACHE": "False"},
    "cold read": READ_STORED,
    "half cached read": {**READ_STORED, "SQLS": [CACHED, STORED]},
    "cold lookup": {**READ_STORED, "SQLS": [77], "BY": "xp"},
    "insert": {"REQUEST": "write", "SQLS": [hero(name="new")]},
    "replace": {"REQUEST": "write", "SQLS": [{"id": STORED, **hero(name="new")}]},
    "mixed write": {"REQUEST": "write", "SQLS": [{"id": NEW, **hero()}, hero()]},
    "write once": {"REQUEST": "write", "SQLS": [hero(name="new")], "IDEMPOTENCY_KEY": "once"},
    "delete": {"REQUEST": "delete", "SQLS": [STORED]},
}
SLEEPING = "FROM information_schema.processlist WHERE state = 'User sleep'"

each_request = pytest.mark.parametrize("request_name", REQUESTS)


mariadb = conftest.breakable_mariadb  # the fixture


@pytest.fixture
def service(service: InProcess) -> InProcess:
    """Warm; hero 1 in the table and the cache, hero 2 in the table only."""
    service.write([{"id": STORED, **hero()}], use_cache=False)
    service.write([{"id": CACHED, **hero()}])
    assert service.read([CACHED]).rows == [as_stored(CACHED, hero())]
    return service


def timed(service: InProcess, request: object) -> tuple[Answer, float]:
    start = time.monotonic()
    answer = service.post(request)
    return answer, time.monotonic() - start


def assert_unavailable(answer: Answer) -> None:
    assert answer.status == 503
    assert answer.error in ("DatabaseUnavailable", "OutcomeUnknown")
    assert int(answer.headers["retry-after"]) > 0
    assert_tells_nothing_internal(answer)


def assert_everything_works(service: InProcess, name: str) -> None:
    answer = service.post(REQUESTS[name])
    assert answer.status == 200, answer.text
    if REQUESTS[name]["REQUEST"] == "write":
        expected = [as_stored(id, row) for id, row in zip(answer.ids, REQUESTS[name]["SQLS"])]
        for use_cache in (True, False):
            assert service.read(answer.ids, use_cache).rows == expected
    if REQUESTS[name]["REQUEST"] == "delete":
        for use_cache in (True, False):
            assert service.read([STORED], use_cache).missing == [STORED]


@pytest.mark.parametrize("is_warm", [True, False], ids=["warm", "cold"])
def test_a_killed_database_is_a_quick_503(
    service: InProcess, mariadb: MariaDB, configure: Configure, is_warm: bool
) -> None:
    if not is_warm:
        configure()
    mariadb.kill()

    for request in REQUESTS.values():
        answer, seconds = timed(service, request)

        assert_unavailable(answer)
        assert seconds < MAX_SECONDS


@pytest.mark.parametrize("is_warm", [True, False], ids=["warm", "cold"])
def test_a_silent_database_is_a_503_in_time_and_works_when_it_is_back(
    service: InProcess, mariadb: MariaDB, configure: Configure, is_warm: bool
) -> None:
    if not is_warm:
        configure()
    mariadb.pause()

    with ThreadPoolExecutor(len(REQUESTS)) as pool:
        start = time.monotonic()
        futures = [pool.submit(storage, request, None) for request in REQUESTS.values()]
        answer, seconds = timed(service, REQUESTS["uncached read"])
        answers = [future.result() for future in futures]
        all_seconds = time.monotonic() - start

    assert_unavailable(answer)
    assert {answer["statusCode"] for answer in answers} == {503}
    assert seconds <= all_seconds < MAX_SECONDS

    mariadb.resume()
    for name in REQUESTS:
        assert_everything_works(service, name)


@pytest.mark.parametrize("fault", ["kill", "pause"])
def test_cached_reads_keep_working(service: InProcess, mariadb: MariaDB, fault: str) -> None:
    getattr(mariadb, fault)()

    for _ in range(3):
        answer, seconds = timed(service, {"REQUEST": "read", "SQLS": [CACHED, CACHED]})

        assert answer.rows == [as_stored(CACHED, hero())] * 2
        assert seconds < MAX_SECONDS


def test_a_database_that_was_silent_is_not_asked_again(service: InProcess) -> None:
    """It would be silent again, and the caller waits."""
    asked: list[Connection] = []

    def ask(connection: Connection) -> None:
        asked.append(connection)
        connection.wait_at_most(0.05)
        connection.rows(("SELECT SLEEP(0.5)", ()))

    with pytest.raises(DatabaseUnavailable):
        services.container().database._run(ask)

    assert len(asked) == 1


@pytest.mark.parametrize("is_kept", [True, False], ids=["kept", "new"])
def test_who_is_next_on_a_connection_waits_no_less_than_others(
    service: InProcess, is_kept: bool
) -> None:
    """The generation is asked for with less patience."""
    database = services.container().database
    if not is_kept:
        database._pool.clear()
    waits: list[float] = []

    def note_wait(connection: Connection) -> None:
        assert isinstance(connection, DriverConnection)
        waits.append(connection._read_timeout)

    database.generation(HEROES, ANSWER_TIMEOUT_SECONDS - 0.5)
    assert database._pool.has_idle
    database._run(note_wait)

    assert waits == [ANSWER_TIMEOUT_SECONDS]


@each_request
def test_the_first_request_after_a_restart_works(
    service: InProcess, mariadb: MariaDB, request_name: str
) -> None:
    """Nobody asked while it was away: the kept connections are dead without anyone knowing."""
    mariadb.kill()
    mariadb.start()

    assert_everything_works(service, request_name)


@each_request
def test_the_first_request_after_an_outage_works(
    service: InProcess, mariadb: MariaDB, request_name: str
) -> None:
    mariadb.kill()
    assert_unavailable(service.post(REQUESTS["uncached read"]))
    mariadb.start()

    assert_everything_works(service, request_name)


@each_request
def test_a_connection_that_the_server_closed_is_replaced(
    service: InProcess, witness: Witness, request_name: str
) -> None:
    """As servers do with those that idle too long."""
    assert witness.kill_connections("herocache"), "the app keeps its connection"

    assert_everything_works(service, request_name)


@each_request
def test_what_mysql_says_to_a_connection_that_was_idle_for_long_is_a_lost_connection(
    service: InProcess, mariadb: MariaDB, configure: Configure, request_name: str
) -> None:
    """MySQL says it in the place of an answer, and has not run what was sent. MariaDB says
    nothing."""
    said: list[int] = []
    with relaying(mariadb.port) as relay:
        configure(DB_PORT=str(relay.port))
        assert service.read([STORED], use_cache=False).rows
        relay.last_words = error_packet(CLOSED_WHILE_IDLE)

        def say_once(piece: bytes) -> int:
            said.append(1)
            return CUT_BEFORE if len(said) == 1 else PASS

        relay.judge = say_once

        assert_everything_works(service, request_name)

    assert said


def error_packet(code: int) -> bytes:
    """An error in the place of an answer."""
    words = b"\xff" + code.to_bytes(2, "little") + b"#HY000The connection is lost"
    return len(words).to_bytes(3, "little") + b"\x01" + words


@pytest.mark.parametrize(
    "code",
    [ER.SERVER_SHUTDOWN, CONNECTION_KILLED, CR.CR_SERVER_GONE_ERROR, CR.CR_SERVER_LOST],
)
@pytest.mark.parametrize("name", ["insert", "mixed write", "write once"])
def test_what_a_proxy_says_of_a_lost_database_leaves_the_outcome_unknown(
    service: InProcess,
    witness: Witness,
    mariadb: MariaDB,
    configure: Configure,
    code: int,
    name: str,
) -> None:
    """It has passed on the write with its COMMIT, and says what a server says that did not come so
    far."""
    request = REQUESTS[name]
    count = witness.count()
    with relaying(mariadb.port) as relay:
        configure(DB_PORT=str(relay.port))
        assert service.read([STORED], use_cache=False).rows
        relay.last_words = error_packet(code)
        verdicts = iter([CUT_AFTER])
        relay.judge = lambda piece: next(verdicts, PASS) if b";COMMIT" in piece else PASS

        answer = service.post(request)

        wait_until(lambda: witness.count() > count)
        is_once = "IDEMPOTENCY_KEY" in request
        assert answer.status == 200 if is_once else answer.error == "OutcomeUnknown", answer.text
        assert witness.count() == count + len(request["SQLS"])


@each_request
@pytest.mark.parametrize("code", PROXY_TIMED_OUT)
def test_what_a_proxy_says_without_a_database_is_a_503(
    service: InProcess, mariadb: MariaDB, configure: Configure, request_name: str, code: int
) -> None:
    with relaying(mariadb.port) as relay:
        configure(DB_PORT=str(relay.port))
        assert service.read([STORED], use_cache=False).rows
        relay.last_words = error_packet(code)
        relay.judge = lambda piece: CUT_BEFORE if b"SELECT" in piece else PASS

        answer = service.post(REQUESTS[request_name])
        assert_unavailable(answer)
        assert str(code) in answer.message or answer.error == "OutcomeUnknown", answer.text
        relay.judge = lambda piece: PASS

        assert_everything_works(service, request_name)


@each_request
@pytest.mark.parametrize("code", FOR_A_MOMENT)
def test_what_a_server_cannot_do_for_a_moment_is_a_503(
    service: InProcess, mariadb: MariaDB, configure: Configure, request_name: str, code: int
) -> None:
    with relaying(mariadb.port) as relay:
        configure(DB_PORT=str(relay.port))
        assert service.read([STORED], use_cache=False).rows
        relay.last_words = error_packet(code)
        relay.judge = lambda piece: CUT_BEFORE if b"SELECT" in piece else PASS

        assert_unavailable(service.post(REQUESTS[request_name]))
        relay.judge = lambda piece: PASS

        assert_everything_works(service, request_name)


@each_request
def test_all_connections_that_the_server_closed_are_replaced(
    service: InProcess, witness: Witness, request_name: str
) -> None:
    """As after requests at the same time, and a pause."""
    kept = services.container().database._pool
    connections = [kept.acquire(), kept.acquire(), kept.acquire()]
    for connection in connections:
        kept.release(connection)
        witness.query("KILL %s", [connection.thread_id()])  # type: ignore[attr-defined]
    wait_until(lambda: all(each.was_closed_by_server() for each in connections))

    assert_everything_works(service, request_name)


def test_a_database_that_became_read_only_is_a_503(service: InProcess, witness: Witness) -> None:
    """As the old writer is after a failover: what it has may be older than what was acknowledged.
    What is cached goes on while the generation is known."""
    before = witness.database_state()
    with witness.server_has("read_only", 1):
        for name in REQUESTS:
            answer = service.post(REQUESTS[name])

            assert_unavailable(answer)
            assert "read-only" in answer.message
            assert answer.error == "DatabaseUnavailable", "it certainly did not happen"
        assert witness.database_state() == before

    assert_everything_works(service, "mixed write")


def test_transactions_that_are_read_only_by_a_setting_are_a_503_that_names_it(
    service: InProcess, witness: Witness, configure: Configure
) -> None:
    """The server is no replica then: it answers reads."""
    is_mariadb = "MariaDB" in witness.query("SELECT VERSION()")[0][0]
    variable = "tx_read_only" if is_mariadb else "transaction_read_only"
    before = witness.database_state()
    with witness.server_has(variable, 1):
        configure()
        for name in ("insert", "replace", "mixed write", "write once", "delete"):
            answer = service.post(REQUESTS[name])

            assert_unavailable(answer)
            assert answer.error == "DatabaseUnavailable", "it certainly did not happen"
            assert "transaction_read_only" in answer.message
        assert service.read([STORED]).rows
        assert witness.database_state() == before

    configure()
    assert_everything_works(service, "mixed write")


@pytest.mark.parametrize("variable", ["@@read_only", "@@innodb_read_only"])
@pytest.mark.parametrize(
    ("value", "is_replica"),
    [("0", 0), ("1", 1), ("'OFF'", 0), ("'ON'", 1), ("'NO_LOCK'", 1), ("'NO_LOCK_NO_ADMIN'", 1)],
)
def test_a_replica_is_known_by_numbers_and_by_the_names_of_mariadb_12(
    witness: Witness, variable: str, value: str, is_replica: int
) -> None:
    """A variable of the user stands for the server's, which has only one of the two kinds."""
    witness.query(f"SET @stands_for = {value}")
    asked = READ_ONLY.replace(variable, "@stands_for")
    assert "@stands_for" in asked

    assert witness.query(f"SELECT {asked}, IF(NOT {asked}, 0, 1)") == [(is_replica, is_replica)]


def test_rows_that_another_transaction_holds_are_a_503_in_time(
    service: InProcess, witness: Witness
) -> None:
    before = witness.database_state()
    witness.query("BEGIN")
    witness.query("SELECT * FROM heroes WHERE id = %s FOR UPDATE", [STORED])

    answer, seconds = timed(service, REQUESTS["replace"])

    assert_unavailable(answer)
    assert "another transaction holds the rows" in answer.message
    assert seconds < MAX_SECONDS
    assert len(service.write([hero()]).ids) == 1, "other rows are free"
    witness.query("DELETE FROM heroes WHERE id > %s", [STORED])
    witness.query("COMMIT")
    witness.redis.delete(*witness.redis.keys(f"*:id:{NEW:010}") or ["none"])
    assert witness.database_state() == before
    assert_everything_works(service, "replace")


@each_request
def test_a_table_that_somebody_changes_is_a_503_that_wrote_nothing(
    service: InProcess, witness: Witness, mariadb: MariaDB, request_name: str
) -> None:
    """As ALTER TABLE does. Also where the COMMIT came with the rows: nobody need wonder about
    it."""
    before = witness.database_state()
    with mariadb.connect_as_root() as other:
        other.query("LOCK TABLES heroes WRITE")
        answer, seconds = timed(service, REQUESTS[request_name])

    assert_unavailable(answer)
    assert "another transaction holds the rows" in answer.message
    assert seconds < MAX_SECONDS
    assert witness.database_state() == before
    assert_everything_works(service, request_name)


@pytest.fixture
def slow_rows(witness: Witness, mariadb: MariaDB) -> Iterator[None]:
    """Inserting a hero named 'slow' takes longer than anyone waits."""
    witness.query(
        "CREATE TRIGGER slow BEFORE INSERT ON heroes FOR EACH ROW"
        " IF NEW.name = 'slow' THEN DO SLEEP(60); END IF"
    )
    yield
    for (id,) in mariadb.query(f"SELECT id {SLEEPING}"):
        mariadb.query("KILL %s", [id])
    mariadb.query("DROP TRIGGER slow")


def test_keys_that_a_bulk_insert_gives_out_are_a_503_in_time(
    service: InProcess, slow_rows: None, mariadb: MariaDB
) -> None:
    """MariaDB says "failed to read auto-increment value" then, as where no key is left. MySQL 8
    gives keys to both at the same time."""
    rows = f"SELECT 'a', 'b', IF(seq = 2, 'slow', 'c'), 1, 'd' FROM {integers(1, 2)}"
    with ThreadPoolExecutor(1) as pool:
        bulk = pool.submit(
            mariadb.query, f"INSERT INTO heroes (hero, power, name, xp, color) {rows}"
        )
        while not mariadb.query(f"SELECT id {SLEEPING}"):
            time.sleep(0.01)

        answer, seconds = timed(service, {"REQUEST": "write", "SQLS": [hero()]})

        for (id,) in mariadb.query(f"SELECT id {SLEEPING}"):
            mariadb.query("KILL %s", [id])
        assert bulk.exception()
    [(is_held,)] = mariadb.query("SELECT @@innodb_autoinc_lock_mode < 2")
    if is_held:
        assert_unavailable(answer)
        assert "holds the counter of the keys" in answer.message
    else:
        assert answer.status == 200
    assert seconds < MAX_SECONDS
    assert service.write([hero()]).status == 200


@pytest.mark.usefixtures("slow_rows")
@pytest.mark.parametrize("fault", ["kill", "stop", "wait"])
def test_a_write_that_fails_half_way_has_written_nothing(
    service: InProcess, mariadb: MariaDB, witness: Witness, fault: str
) -> None:
    """The rows with keys are in, uncommitted; the one without a key is being inserted."""
    rows = [{"id": NEW, **hero()}, {"id": STORED, **hero(name="new")}, hero(name="slow")]
    before = witness.query("SELECT * FROM heroes ORDER BY id")
    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(storage, {"REQUEST": "write", "SQLS": rows}, None)
        while not witness.query(f"SELECT id {SLEEPING}"):
            assert not writing.done(), writing.result()
        if fault == "kill":
            mariadb.kill()
        elif fault == "stop":
            for (id,) in mariadb.query(f"SELECT id {SLEEPING}"):
                mariadb.query("KILL QUERY %s", [id])
        answer = writing.result()
    mariadb.start()

    assert answer["statusCode"] == 503
    assert tuple(mariadb.query("SELECT * FROM heroes ORDER BY id")) == tuple(before)
    assert service.read([CACHED, STORED, NEW]).missing == [NEW]
    assert [row["name"] for row in service.read([CACHED, STORED]).rows] == ["Ada", "Ada"]


def test_gone_is_what_was_not_sent_also_while_another_error_is_handled() -> None:
    """Python takes that one for the cause: a try behind it is still told what a proxy answers."""
    told = pymysql.OperationalError(CR.CR_SERVER_GONE_ERROR, "of a proxy")
    codes = []
    try:
        raise CacheUnavailable("no answer in time")
    except CacheUnavailable:
        try:
            raise told
        except pymysql.OperationalError as error:
            codes.append(as_database_error(error).code)
        try:
            try:
                raise BrokenPipeError
            except OSError:
                raise pymysql.OperationalError(
                    CR.CR_SERVER_GONE_ERROR, "the driver's own"
                ) from None
        except pymysql.OperationalError as error:
            codes.append(as_database_error(error).code)
    assert codes == [CR.CR_SERVER_LOST, CR.CR_SERVER_GONE_ERROR]
