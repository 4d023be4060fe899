"""Write-behind counters: increments are kept in Redis, and every read shows them at once."""

import math
import struct
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest
import redis

from chalicelib import clocks, services
from chalicelib.cache import CounterTotals, declaration
from chalicelib.cache import connection as redis_connection
from chalicelib.cache.commands import Command
from chalicelib.cache.openings import Openings
from chalicelib.cache.routing import Connection
from chalicelib.cache.write_behind_scripts import SETTLE, add
from chalicelib.column_types import INTEGER, UNSIGNED_KEY, Integer
from chalicelib.db import Database, applied_deltas
from chalicelib.ingest.service import MAX_SMALL_ROWS
from chalicelib.rows import write_behind
from chalicelib.rows.write_behind import WriteBehind
from chalicelib.tables import MAX_COUNTED, MAX_WRITE_BEHIND, Column, Counter, Row, Table
from local.servers import MariaDB
from tests.conftest import Configure
from tests.support.client import Answer, InProcess
from tests.support.pages import BEHIND, PAGES, counted, increment, page, pages_table, shown, stored
from tests.support.redis_client import client_of
from tests.support.topologies import wait_until
from tests.support.witness import Witness

pytestmark = pytest.mark.both_engines

MAXIMUM = 2**31 - 1
CACHED = (True, True, False)


@pytest.fixture
def pages(service: InProcess, witness: Witness, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with pages_table(witness, monkeypatch):
        service.write([page(1), page(2)], TABLE="pages")
        yield


@pytest.mark.usefixtures("pages")
def test_every_read_shows_it_and_the_row_stays(service: InProcess, witness: Witness) -> None:
    for total in (11, 12, 13):
        assert counted(increment(service, 1)) == [{"nr": 1, "views": total}]
        assert shown(service, 1) == {total}
        assert shown(service, 2) == {10}
    assert stored(witness) == {1: 10, 2: 10}


@pytest.mark.usefixtures("pages")
def test_a_read_returns_the_same_bytes_with_and_without_the_cache(service: InProcess) -> None:
    increment(service, 2, "-5")
    expected = [page(1), page(2, views=5)]
    for by in ({}, {"BY": "title"}, {"BY": "title", "LIMIT": 2}):
        values = ["news"] if by else [1, 2]
        answers = [service.read(values, cached, TABLE="pages", **by) for cached in CACHED]
        assert len({answer.content for answer in answers}) == 1
        assert answers[0].rows == expected
    answer = service.read([2, 3, 1, 2], TABLE="pages")
    assert [row["views"] for row in answer.rows] == [5, 10, 5]
    assert answer.missing == [3]


@pytest.mark.usefixtures("pages", "lasting_generations")
def test_an_increment_of_a_cached_row_is_one_script(service: InProcess, witness: Witness) -> None:
    witness.forget_cached()  # a row that was written is not in the cache for a while
    service.read([1], TABLE="pages")
    with witness.spent() as spent:
        increment(service, 1)
    assert spent.statements == 0
    assert spent.commands["evalsha"] == 1


@pytest.mark.usefixtures("pages")
def test_several_rows_and_counters_all_or_none(service: InProcess) -> None:
    def ask(*items: dict[str, int]) -> Answer:
        return service.post({"REQUEST": "increment", "TABLE": "pages", "SQLS": items})

    first = {"nr": 2, "views": 1, "votes": 2}
    assert counted(ask(first, {"nr": 1, "votes": -3})) == [
        {"nr": 2, "views": 11, "votes": 2},
        {"nr": 1, "votes": -3},
    ]
    for last, status in (({"nr": 9, "views": 1}, 400), ({"nr": 1, "views": MAXIMUM}, 409)):
        rejected = ask(first, last)
        assert rejected.status == status
        assert "SQLS[1].views" in rejected.message or "no row 9" in rejected.message
        assert "nothing was changed" in rejected.message
    assert service.read([1, 2], TABLE="pages").rows == [
        page(1, votes=-3),
        page(2, views=11, votes=2),
    ]


@pytest.mark.usefixtures("pages")
@pytest.mark.parametrize("amounts", [((1, 2), (1, 2)), ((1, 2), (1, 3)), ((1, 2), (4, 2))])
def test_rows_get_the_same_or_not(service: InProcess, amounts: Sequence[tuple[int, int]]) -> None:
    items = [
        {"nr": nr, "views": views, "votes": votes} for nr, (views, votes) in enumerate(amounts, 1)
    ]
    shown = [item | {"views": 10 + item["views"]} for item in items]
    assert counted(service.post({"REQUEST": "increment", "TABLE": "pages", "SQLS": items})) == shown
    # All with a total now, and with their entries in the cache.
    again = [item | {"views": 10 + 2 * item["views"], "votes": 2 * item["votes"]} for item in items]
    assert counted(service.post({"REQUEST": "increment", "TABLE": "pages", "SQLS": items})) == again


@pytest.mark.usefixtures("pages")
def test_a_counter_stops_at_what_its_column_takes(service: InProcess) -> None:
    rejected = increment(service, 1, MAXIMUM - 9)
    assert (rejected.status, rejected.error) == (409, "CounterOutOfRange")
    assert f"SQLS[0].views: 10 +{MAXIMUM - 9} would pass the maximum {MAXIMUM}" in rejected.message
    assert counted(increment(service, 1, MAXIMUM - 10)) == [{"nr": 1, "views": MAXIMUM}]
    assert increment(service, 1).status == 409
    assert counted(increment(service, 1, -MAXIMUM)) == [{"nr": 1, "views": 0}]


@pytest.mark.usefixtures("pages")
def test_a_counter_stops_there_with_an_idempotency_key_too(
    service: InProcess, witness: Witness
) -> None:
    increment(service, 1, MAXIMUM - 10)
    rejected = increment(service, 1, IDEMPOTENCY_KEY="k")
    assert (rejected.status, rejected.error) == (409, "CounterOutOfRange")
    assert shown(service, 1) == {MAXIMUM}
    witness.query("UPDATE pages SET views = %s WHERE nr = 2", [MAXIMUM])
    service.invalidate(TABLE="pages")
    increment(service, 2, -5)
    assert counted(increment(service, 2, 5, IDEMPOTENCY_KEY="l")) == [{"nr": 2, "views": MAXIMUM}]


@pytest.mark.usefixtures("pages")
def test_a_counter_that_sql_moved_out_of_range_can_be_counted_back(
    service: InProcess, witness: Witness
) -> None:
    increment(service, 1, 9)
    witness.query("UPDATE pages SET views = %s WHERE nr = 1", [MAXIMUM])
    service.invalidate(TABLE="pages")
    assert increment(service, 1).status == 409
    for left in range(6, -9, -3):
        assert counted(increment(service, 1, -3)) == [{"nr": 1, "views": MAXIMUM + left}]


@pytest.mark.usefixtures("pages")
def test_with_an_idempotency_key_or_another_counter_it_is_written_through(
    service: InProcess, witness: Witness
) -> None:
    increment(service, 1, 5)
    for _ in range(2):
        assert counted(increment(service, 1, IDEMPOTENCY_KEY="k")) == [{"nr": 1, "views": 16}]
    both = {"nr": 1, "views": 1, "stock": -1}
    answer = service.post({"REQUEST": "increment", "TABLE": "pages", "SQLS": [both]})
    assert counted(answer) == [{"nr": 1, "views": 17, "stock": 4}]
    # With what was counted before: otherwise nobody could tell whether the value still fits.
    assert stored(witness)[1] == 17
    assert shown(service, 1) == {17}


@pytest.mark.usefixtures("pages")
def test_who_waits_for_the_row_knows_what_was_added_to_it_meanwhile(
    service: InProcess, witness: Witness, mariadb: MariaDB
) -> None:
    """By a run, which has the lock on the row."""
    increment(service, 1, 5)
    [name] = witness.redis.scan_iter("*:totals:*1")
    packed: Any = witness.redis.get(name)
    text = CounterTotals.unpack(packed).text
    with mariadb.connect_as_root() as run, run.cursor() as cursor:
        run.begin()
        cursor.execute("UPDATE pages SET views = views + 5 WHERE nr = 1")
        cursor.execute("INSERT INTO applied_deltas VALUES ('pages', '1', %s)", [text])
        with ThreadPoolExecutor(1) as pool:
            asked = pool.submit(increment, service, 1, IDEMPOTENCY_KEY="k")
            waits = (
                "SELECT 1 FROM information_schema.processlist"
                " WHERE info LIKE %s AND id <> CONNECTION_ID()"
            )
            while not witness.query(waits, ["%applied_deltas%ORDER BY nr FOR UPDATE"]):
                assert not asked.done(), asked.result().text
            run.commit()
            assert counted(asked.result()) == [{"nr": 1, "views": 16}]
    service.invalidate(TABLE="pages")
    assert shown(service, 1) == {16}


@pytest.mark.usefixtures("pages")
def test_a_written_row_has_the_values_it_was_written_with(service: InProcess) -> None:
    increment(service, 1, 5)
    for use_cache in (True, False):
        service.write([page(1, views=100)], use_cache, TABLE="pages")
        assert shown(service, 1) == {100}
        assert counted(increment(service, 1)) == [{"nr": 1, "views": 101}]
        assert shown(service, 1) == {101}


@pytest.mark.usefixtures("pages")
def test_a_deleted_row_takes_its_increments_along(service: InProcess) -> None:
    increment(service, 1, 5)
    service.delete([1], TABLE="pages")
    assert increment(service, 1).status == 400
    service.write([page(1, views=7)], TABLE="pages")
    assert shown(service, 1) == {7}
    assert counted(increment(service, 1)) == [{"nr": 1, "views": 8}]


@pytest.mark.usefixtures("pages")
def test_a_row_that_comes_back_by_sql_shows_nothing_of_what_was_deleted(
    service: InProcess, witness: Witness
) -> None:
    increment(service, 1, 5)
    service.delete([1], TABLE="pages")
    witness.query("INSERT INTO pages VALUES (1, 'news', 7, 0, 5)")
    service.invalidate(TABLE="pages")
    assert shown(service, 1) == {7}
    assert counted(increment(service, 1)) == [{"nr": 1, "views": 8}]


@pytest.mark.usefixtures("pages")
def test_a_change_by_sql_and_an_increment_add_up(service: InProcess, witness: Witness) -> None:
    increment(service, 1, 5)
    witness.query("UPDATE pages SET views = views + 100 WHERE nr = 1")
    service.invalidate(TABLE="pages")
    assert shown(service, 1) == {115}


@pytest.mark.usefixtures("pages")
def test_a_flush_loses_increments_and_no_row(service: InProcess, witness: Witness) -> None:
    increment(service, 1, 5)
    witness.redis.flushall()
    assert shown(service, 1) == {10}
    assert counted(increment(service, 1)) == [{"nr": 1, "views": 11}]
    assert shown(service, 1) == {11}


@pytest.mark.usefixtures("pages")
def test_a_script_that_runs_twice_adds_once(
    service: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a connection closes behind the first copy."""
    client = services.container().cache.counter_totals._client
    ask_many = client.ask_many

    def ask_twice(asked: Sequence[Command], **options: Any) -> object:
        ask_many(asked, **options)
        return ask_many(asked, **options)

    monkeypatch.setattr(client, "ask_many", ask_twice)
    for total in (11, 12):
        assert counted(increment(service, 1)) == [{"nr": 1, "views": total}]
    assert shown(service, 1) == {12}


@pytest.mark.usefixtures("pages", "lasting_generations")
@pytest.mark.parametrize("step", ["the reply", "another connection"])
def test_a_script_is_not_sent_again_once_its_first_copy_may_be_forgotten(
    service: InProcess, witness: Witness, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """The process slept while it waited for the reply, and its connection is lost; or while it
    waited for another one."""
    witness.forget_cached()
    wait_until(lambda: bool(service.read([1], TABLE="pages").rows and witness.entries()))
    exchange, opened = Connection.exchange, Openings.wait
    lost: list[object] = []

    def sleep() -> None:
        later = SimpleNamespace(time=lambda: time.time() + 60, monotonic=time.monotonic)
        patch.setattr(clocks, "time", later)

    def lose_reply(self: Connection, asked: Sequence[Command], wait: bool) -> Sequence[object]:
        replies = exchange(self, asked, wait)
        if lost or not (copies := witness.redis.keys("*:copy:*")):
            return replies
        lost.append(replies)
        witness.redis.delete(*copies)
        if step == "the reply":
            sleep()
        raise redis.ConnectionError("for this test")

    def open_late(self: Openings, *arguments: Any, **named: Any) -> Connection:
        connection = opened(self, *arguments, **named)
        if lost:
            sleep()
        return connection

    with monkeypatch.context() as patch:
        patch.setattr(Connection, "exchange", lose_reply)
        patch.setattr(Openings, "wait", open_late)
        answer = increment(service, 1)
    assert lost
    assert (answer.status, answer.error) == (503, "OutcomeUnknown")
    wait_until(
        lambda: service.post({"REQUEST": "read", "TABLE": "pages", "SQLS": [1]}).status == 200
    )
    assert shown(service, 1) == {11}


@pytest.mark.usefixtures("pages", "lasting_generations")
def test_a_script_whose_second_copy_finds_no_entry_has_added(
    service: InProcess, witness: Witness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was added, and must not be added again."""
    witness.forget_cached()
    wait_until(lambda: bool(service.read([1], TABLE="pages").rows and witness.entries()))
    client = services.container().cache.counter_totals._client
    ask_many = client.ask_many
    asked_twice: list[object] = []

    def ask_twice(asked: Sequence[Command], **options: Any) -> object:
        first = ask_many(asked, **options)
        if asked_twice:
            return first
        asked_twice.append(first)
        names = witness.redis.keys("*:nr:*")
        assert witness.redis.delete(*[name for name in names if b":total" not in name])
        return ask_many(asked, **options)

    monkeypatch.setattr(client, "ask_many", ask_twice)
    answer = increment(service, 1)
    monkeypatch.setattr(client, "ask_many", ask_many)
    assert asked_twice
    assert answer.error == "OutcomeUnknown"
    assert shown(service, 1) == {11}


def add_by_script(
    witness: Witness,
    copy: str,
    amounts: dict[str, int],
    row: int = 0,
    limits: tuple[int, int] = (0, 10),
) -> object:
    """The reply of the script, for a row with these counters that all have the value `row`."""
    names = tuple(amounts)
    count = len(names)
    head = declaration(names) + struct.pack(f"<{2 * count}d", *limits * count)
    line = declaration(names) + struct.pack(f"<{2 + 2 * count}d", 0, 0, *(row, 0) * count)
    packed = struct.pack(f"<{count}d", *amounts.values())
    words: list[int | bytes | str] = [10_000, head, f"\n{' '.join(names)}", 1, packed, line]
    return witness.redis.register_script(add(names))(["pending", copy, "totals"], words)


def test_a_second_copy_of_a_script_repeats_its_refusal_and_adds_nothing(witness: Witness) -> None:
    refused: object = [b"range", 0, 0, b"7"]
    assert add_by_script(witness, "first", {"views": 4}, 7) == refused
    assert add_by_script(witness, "second", {"views": 3}, 7) == [10]
    assert add_by_script(witness, "second", {"views": 3}, 7) == [10]
    assert add_by_script(witness, "third", {"views": -5}, 7) == [5]
    assert add_by_script(witness, "first", {"views": 4}, 7) == refused
    assert add_by_script(witness, "fourth", {"views": 0}, 7) == [5]


@pytest.mark.usefixtures("pages")
def test_a_server_that_was_made_a_replica_does_not_even_refuse(
    service: InProcess, witness: Witness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a kept connection. What it knows may be old."""
    monkeypatch.setattr(redis_connection, "NAMED_FOR_SECONDS", math.inf)
    witness.forget_cached()
    service.read([1], TABLE="pages")
    assert increment(service, 1, 2**31).status == 409
    witness.redis.execute_command("REPLICAOF", "127.0.0.1", "1")
    try:
        assert increment(service, 1, 2**31).status == 503
    finally:
        witness.redis.execute_command("REPLICAOF", "NO", "ONE")


def test_totals_of_another_declaration_count_by_the_name_of_the_counter(witness: Witness) -> None:
    add_by_script(witness, "1", {"views": 1})
    assert add_by_script(witness, "2", {"votes": 5, "views": 1}) == [5, 2]
    settle(witness)
    assert add_by_script(witness, "3", {"votes": 1, "views": 1}) == [6, 3]
    assert add_by_script(witness, "4", {"views": 1}) == [4]
    assert witness.redis.hlen("pending") == 1


def settle(witness: Witness) -> None:
    totals: Any = witness.redis.get("totals")
    witness.redis.register_script(SETTLE)(["pending", "totals"], [60_000, "totals", totals])
    assert witness.redis.hlen("pending") == 0
    assert witness.redis.pttl("totals") > 0


@pytest.mark.usefixtures("pages")
def test_while_the_row_is_fenced_it_counts_too(service: InProcess, witness: Witness) -> None:
    """A writer of the row that died, for example."""
    witness.forget_cached()
    assert counted(increment(service, 1)) == [{"nr": 1, "views": 11}]
    [entry] = witness.redis.scan_iter("{pages.*:nr:*1")
    witness.redis.set(entry, b"\xffF" + b"0" * 16 + b"-")
    assert counted(increment(service, 1)) == [{"nr": 1, "views": 12}]
    assert shown(service, 1) == {12}


@pytest.mark.usefixtures("pages")
def test_many_at_once_all_count(service: InProcess) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: counted(increment(service, 1))[0]["views"], range(200)))
    assert sorted(answers) == list(range(11, 211))
    assert shown(service, 1) == {210}


@pytest.mark.usefixtures("pages")
def test_without_redis_in_the_settings_it_is_written_through(
    service: InProcess, witness: Witness, configure: Configure
) -> None:
    configure(REDIS_URL=None)
    assert counted(increment(service, 1)) == [{"nr": 1, "views": 11}]
    assert shown(service, 1) == {11}
    assert stored(witness)[1] == 11


@pytest.mark.usefixtures("pages")
def test_while_redis_is_away_the_table_is_not_answered_for(
    service: InProcess, witness: Witness, monkeypatch: pytest.MonkeyPatch
) -> None:
    increment(service, 1, 5)
    monkeypatch.setattr(services.container().recovery, "start", lambda: None)
    client_of(services.container().cache)._mark_down(redis.TimeoutError("for this test"))
    for answer in (
        increment(service, 1),
        increment(service, 1, IDEMPOTENCY_KEY="k"),
        service.read([1], TABLE="pages"),
        service.read([1], False, TABLE="pages"),
        service.write([page(1, views=1)], TABLE="pages"),
    ):
        assert (answer.status, answer.error) == (503, "CountersUnavailable"), answer.text
        assert "nothing was changed" in answer.message
    assert service.read([1]).status == 200
    monkeypatch.undo()
    assert stored(witness) == {1: 10, 2: 10}


@pytest.mark.usefixtures("pages")
def test_who_slept_after_it_read_a_row_neither_shows_it_nor_adds_to_it(
    service: InProcess, witness: Witness, monkeypatch: pytest.MonkeyPatch
) -> None:
    add: dict[str, object] = {"REQUEST": "increment", "SQLS": [{"nr": 1, "views": 1}]}
    with monkeypatch.context() as patch:
        patch.setattr(write_behind, "MAX_READ_SECONDS", -1)
        for request in ({"REQUEST": "read", "SQLS": [1]}, add):
            witness.forget_cached()
            answer = service.post({**request, "TABLE": "pages"})
            assert (answer.status, answer.error) == (503, "CountersUnavailable")
    assert shown(service, 1) == {10}


@pytest.mark.usefixtures("pages")
@pytest.mark.parametrize("way", [{}, {"BY": "title"}, {"BY": "title", "LIMIT": 2}])
@pytest.mark.parametrize("use_cache", [True, False])
def test_who_slept_between_the_rows_and_their_totals_does_not_show_them(
    service: InProcess,
    witness: Witness,
    monkeypatch: pytest.MonkeyPatch,
    way: dict[str, object],
    use_cache: bool,
) -> None:
    """The totals may have been added to the rows meanwhile, and be gone."""
    load = Database.fetch_many

    def load_and_sleep(self: Database, *arguments: Any, **named: Any) -> Sequence[Row]:
        rows = load(self, *arguments, **named)
        time.sleep(0.02)
        return rows

    witness.forget_cached()
    with monkeypatch.context() as patch:
        patch.setattr(write_behind, "MAX_READ_SECONDS", 0.01)
        patch.setattr(Database, "fetch_many", load_and_sleep)
        read = {"REQUEST": "read", "SQLS": ["news"] if way else [1], "USE_CACHE": use_cache}
        answer = service.post({**read, **way, "TABLE": "pages"})
    assert (answer.status, answer.error) == (503, "CountersUnavailable")


@pytest.mark.usefixtures("pages")
def test_an_increment_counts_only_where_redis_answered_before_its_row_was_read(
    service: InProcess, witness: Witness, configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another one may have older totals, and what it lacks may be in the row since."""
    records = WriteBehind._records

    def read_and_fail_over(self: WriteBehind, *arguments: Any) -> list[bytes]:
        found = records(self, *arguments)
        witness.redis.execute_command("REPLICAOF", "127.0.0.1", "1")
        witness.redis.execute_command("REPLICAOF", "NO", "ONE")
        return found

    configure()  # it knows no generation, and so of no entry
    with monkeypatch.context() as patch:
        patch.setattr(redis_connection, "NAMED_FOR_SECONDS", 0)
        patch.setattr(WriteBehind, "_records", read_and_fail_over)
        answer = increment(service, 1)
    assert (answer.status, answer.error) == (503, "CountersUnavailable")
    assert witness.redis.keys("*:totals:*") == []
    assert counted(increment(service, 1)) == [{"nr": 1, "views": 11}]


def test_a_declaration_that_cannot_be_kept_is_refused() -> None:
    with pytest.raises(ValueError, match="no minimum"):
        Counter(minimum=0, write_behind=True)
    columns = (Column("nr", UNSIGNED_KEY), Column("views", INTEGER, BEHIND))
    with pytest.raises(ValueError, match="views is a key or a lookup"):
        Table("pages", columns, lookups=("views",))
    wide = Integer(0, 2**53)
    with pytest.raises(ValueError, match="exactly"):
        Table("pages", (Column("nr", UNSIGNED_KEY), Column("views", wide, BEHIND)))
    for names in (counters(MAX_WRITE_BEHIND + 1), ["n" * 60 + name for name in counters(14)]):
        own = [Column(name, INTEGER, BEHIND) for name in names]
        with pytest.raises(ValueError, match="too many write-behind counters"):
            Table("pages", (Column("nr", UNSIGNED_KEY), *own))


def counters(count: int) -> list[str]:
    return [f"counter_{n}" for n in range(count)]


def test_redis_takes_the_script_of_as_many_counters_as_a_table_may_have(witness: Witness) -> None:
    assert witness.redis.script_load(add(tuple(counters(MAX_WRITE_BEHIND))))


def test_a_counter_stops_at_the_highest_value_that_it_may_be_declared_with(
    witness: Witness,
) -> None:
    """One more would look the same to Redis."""
    limits = (-MAX_COUNTED, MAX_COUNTED)

    reply = add_by_script(witness, "copy", {"views": 2}, MAX_COUNTED - 1, limits)

    assert reply == [b"range", 0, 0, str(MAX_COUNTED - 1).encode()]


def test_no_statement_is_too_long_that_says_what_is_applied_to_many_rows() -> None:
    """The RDS Data API takes 65,536 characters, nine of them for a value. A small file has the most
    rows."""
    text = CounterTotals(10**15, 1, {"views": 1}).text
    made = applied_deltas.put(PAGES, dict.fromkeys(range(MAX_SMALL_ROWS), text))
    assert sum(len(values) for _, values in made) == 3 * MAX_SMALL_ROWS
    assert max(len(sql.replace("%s", "a" * 9)) for sql, _ in made) <= 65_536
