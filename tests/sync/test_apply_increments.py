"""A run adds what write-behind counters have in Redis to the rows, once, and no read notices."""

import os
import random
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from typing import Any, cast

import pytest

from chalicelib import services
from chalicelib.cache import CounterTotals, declaration, write_behind_totals
from chalicelib.cache import connection as redis_connection
from chalicelib.column_types import INTEGER, STRING_KEY
from chalicelib.rows import work
from chalicelib.rows.pending_increments import read_totals
from chalicelib.rows.write_through import WriteThrough
from chalicelib.sync import apply_increments
from chalicelib.tables import TABLES, Column, Table
from tests.support.client import ROOT, InProcess
from tests.support.pages import BEHIND, PAGES, counted, increment, page, pages_table, shown, stored
from tests.support.redis_client import client_of
from tests.support.witness import Witness
from tests.sync.clients import RedisCli, run, watch
from tests.sync.test_faults import MAX_STEPS, Killed, Steps, each_moment, expire_lease, kill

PROCESSES = 3
INCREMENTS = 40


@pytest.fixture
def pages(service: InProcess, witness: Witness, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with pages_table(witness, monkeypatch):
        service.write([page(1), page(2)], TABLE="pages")
        yield


@pytest.mark.both_engines
@pytest.mark.usefixtures("pages")
def test_a_run_adds_them_to_the_row_once(service: InProcess, witness: Witness) -> None:
    for total in (11, 12):
        increment(service, 1)
        assert run("pages")["counted"] == 1
        for _ in range(2):
            assert stored(witness) == {1: total, 2: 10}
            assert shown(service, 1) == {total}
            assert "counted" not in run("pages")


@pytest.mark.usefixtures("pages")
def test_rows_to_which_nothing_is_left_to_add_are_not_counted(service: InProcess) -> None:
    """A write in between has replaced what was counted; or it was written through."""
    increment(service, 1, 5)
    service.write([page(1)], TABLE="pages")
    increment(service, 2, 5)
    increment(service, 2, 5, IDEMPOTENCY_KEY="k")
    assert "counted" not in run("pages")
    assert shown(service, 1) | shown(service, 2) == {10, 20}


@pytest.mark.usefixtures("pages")
def test_a_key_that_the_database_shows_with_zeros_in_front_counts_once_too(
    service: InProcess, witness: Witness
) -> None:
    witness.query("ALTER TABLE pages MODIFY nr INT UNSIGNED ZEROFILL AUTO_INCREMENT")
    increment(service, 1, 5)
    for _ in range(2):
        run("pages")
        assert stored(witness)[1] == 15
        assert counted(increment(service, 1, 0)) == [{"nr": 1, "views": 15}]
        assert shown(service, 1) == {15}


@pytest.mark.usefixtures("pages", "lasting_generations")
def test_after_a_run_the_next_increment_still_is_one_script(
    service: InProcess, witness: Witness
) -> None:
    increment(service, 1)
    run("pages")
    with witness.spent() as spent:
        increment(service, 1)
    assert (spent.statements, spent.commands["evalsha"]) == (0, 1)


@pytest.mark.usefixtures("pages")
def test_totals_go_a_while_after_they_are_in_the_row(service: InProcess, witness: Witness) -> None:
    increment(service, 1)
    [name] = witness.redis.scan_iter("*:totals:*")
    assert witness.redis.ttl(name) == -1
    run("pages")
    assert 0 < witness.redis.ttl(name) <= write_behind_totals.SETTLED_SECONDS
    increment(service, 1)
    assert witness.redis.ttl(name) == -1
    run("pages")
    witness.redis.delete(name)
    assert shown(service, 1) == {12}
    assert counted(increment(service, 1)) == [{"nr": 1, "views": 13}]
    run("pages")
    assert stored(witness)[1] == 13


@pytest.mark.usefixtures("pages")
def test_an_increment_while_a_run_adds_is_left_to_the_next_run(
    service: InProcess, witness: Witness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Behind its look at the totals, and behind its COMMIT."""
    for name in ("_send_fences", "_publish"):
        before = max(shown(service, 1))
        increment(service, 1)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(WriteThrough, name, counting_first(getattr(WriteThrough, name), service))
            run("pages")
        assert stored(witness)[1] == before + 1
        assert shown(service, 1) == {before + 2}
        assert run("pages")["counted"] == 1
        assert stored(witness)[1] == before + 2


def counting_first(step: Callable[..., Any], service: InProcess) -> Callable[..., Any]:
    def counting(*arguments: Any, **named: Any) -> Any:
        increment(service, 1)
        return step(*arguments, **named)

    return counting


@pytest.mark.usefixtures("pages")
def test_what_is_counted_for_a_row_that_comes_back_while_a_run_looks_is_kept(
    service: InProcess, witness: Witness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Behind its look for the row, and before its look at the totals."""
    increment(service, 1, 5)
    service.delete([1], TABLE="pages")

    def read(*asked: Any) -> Any:
        monkeypatch.setattr(apply_increments, "read_totals", read_totals)
        service.write([page(1)], TABLE="pages")
        increment(service, 1, 3)
        return read_totals(*asked)

    monkeypatch.setattr(apply_increments, "read_totals", read)
    assert not run("pages").get("details")
    for name in witness.redis.scan_iter("*:totals:*"):
        if witness.redis.ttl(name) > 0:
            witness.redis.delete(name)  # it has expired
    assert shown(service, 1) == {13}
    run("pages")
    assert stored(witness)[1] == 13


@pytest.mark.usefixtures("pages")
@each_moment
def test_every_read_is_exact_while_a_run_is_killed_at_each_step(
    service: InProcess, witness: Witness, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """Also after the next run. Each run finds increments of before, and some of after."""
    steps = Steps(monkeypatch)
    total = 10
    for step in range(1, MAX_STEPS):
        increment(service, 1, 2)
        increment(service, 2, -1)
        total += 2
        steps.at = {(steps.count + step, when): kill}
        try:
            run("pages")
            break
        except Killed:
            steps.at = {}
            expire_lease(witness)
        assert shown(service, 1) == {total}
        increment(service, 1, 3)
        total += 3
        assert shown(service, 1) == {total}
        if step % 2:
            assert run("pages")["outcome"] == "done"
            assert stored(witness)[1] == total
    steps.at = {}
    assert 15 < step < MAX_STEPS - 1
    run("pages")
    assert shown(service, 1) == {total}
    assert stored(witness) == {1: total, 2: 10 - step}


def counting(nr: int) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "tests.support.pages", str(nr), str(INCREMENTS)],
        cwd=ROOT,
        env={**os.environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.usefixtures("pages")
def test_processes_that_count_while_runs_are_killed_read_exactly_what_they_added(
    service: InProcess, witness: Witness, monkeypatch: pytest.MonkeyPatch
) -> None:
    service.write([page(nr, title="own") for nr in range(1, PROCESSES + 1)], TABLE="pages")
    with ExitStack() as stack:
        children = [stack.enter_context(counting(nr)) for nr in range(1, PROCESSES + 1)]
        steps = Steps(monkeypatch)
        killed = runs = 0
        while any(child.poll() is None for child in children):
            runs += 1
            steps.at = {(steps.count + 1 + runs % 30, "after"): kill} if runs % 3 else {}
            try:
                run("pages")
            except Killed:
                killed += 1
                expire_lease(witness)
        for child in children:
            text, _ = child.communicate()
            assert child.returncode == 0, text
    steps.at = {}
    run("pages")
    assert killed > 3
    own = dict.fromkeys(range(2, PROCESSES + 1), 10)
    assert stored(witness) == {1: 10 + PROCESSES * INCREMENTS, **own}
    votes = witness.query("SELECT nr, votes FROM pages ORDER BY nr")
    assert dict(votes) == {nr: INCREMENTS * nr for nr in range(1, PROCESSES + 1)}


@pytest.mark.usefixtures("pages")
def test_a_run_with_nothing_counted_asks_the_database_nothing(
    service: InProcess, witness: Witness
) -> None:
    increment(service, 1)
    run("pages")
    for _ in range(2):
        run(None)
    with witness.spent() as spent:
        assert run(None)["outcome"] == "idle"
    assert spent.statements == 0
    increment(service, 1)
    assert run(None)["outcome"] == "done"
    assert stored(witness)[1] == 12


def flush(witness: Witness) -> None:
    witness.redis.flushall()


@pytest.mark.proof
@pytest.mark.usefixtures("pages")
def test_redis_flushed_at_any_step_leaves_no_wrong_row(
    service: InProcess, witness: Witness, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = Steps(monkeypatch)
    for step in range(1, MAX_STEPS):
        [before] = shown(service, 1)
        increment(service, 1, 100)
        steps.at = {(steps.count + step, "before"): lambda: flush(witness)}
        run("pages")
        assert stored(witness)[1] in (before, before + 100)
        assert shown(service, 1) == {stored(witness)[1]}
        if steps.at:
            break
    assert 15 < step < MAX_STEPS - 1


@pytest.mark.usefixtures("pages")
def test_a_redis_with_older_totals_adds_nothing(service: InProcess, witness: Witness) -> None:
    """Restored from a backup, for example: of the epoch that is in the row, and of one before."""
    increment(service, 1, 5)
    [name] = witness.redis.scan_iter("*:totals:*")
    old: Any = witness.redis.get(name)
    for lose in (False, True):
        increment(service, 1, 3)
        if lose:
            witness.redis.delete(name)
            increment(service, 1, 1)
        run("pages")
        [known] = {stored(witness)[1]}
        witness.redis.set(name, old)
        witness.redis.hset("{pages.0}:totals", "1", "")
        assert shown(service, 1) == {known}
        run("pages")
        assert stored(witness)[1] == known
        witness.redis.set(name, old)
        assert counted(increment(service, 1, 1)) == [{"nr": 1, "views": known + 1}]
        assert shown(service, 1) == {known + 1}
        run("pages")
        assert stored(witness)[1] == known + 1


@pytest.mark.usefixtures("pages")
def test_a_row_that_is_counted_after_the_list_of_pending_rows_is_lost_is_added(
    service: InProcess, witness: Witness
) -> None:
    increment(service, 1, 5)
    witness.redis.delete("{pages.0}:totals")
    assert counted(increment(service, 1)) == [{"nr": 1, "views": 16}]
    assert run("pages")["counted"] == 1
    assert stored(witness)[1] == 16


@pytest.mark.usefixtures("pages")
def test_a_redis_whose_clock_is_behind_loses_no_increment(
    service: InProcess, witness: Witness
) -> None:
    """It has taken over without the totals of a later time, which are in the row."""
    increment(service, 1, 5)
    run("pages")
    [(later,)] = witness.query("SELECT applied FROM applied_deltas WHERE row_key = '1'")
    epoch = int(later[:16]) + 3_600 * 1_000_000
    witness.query("UPDATE applied_deltas SET applied = %s", [f"{epoch}{later[16:]}"])
    witness.redis.flushall()
    for total in (16, 17):
        assert counted(increment(service, 1)) == [{"nr": 1, "views": total}]
        assert shown(service, 1) == {total}
        run("pages")
        assert stored(witness)[1] == total


@pytest.mark.usefixtures("pages")
@pytest.mark.parametrize("is_kept", [True, False])
@pytest.mark.parametrize("is_cached", [True, False])
def test_nothing_is_added_to_older_totals_by_an_older_line(
    service: InProcess,
    witness: Witness,
    monkeypatch: pytest.MonkeyPatch,
    is_cached: bool,
    is_kept: bool,
) -> None:
    """A Redis takes over that has the row as it was before a run, in its entry; or the row was read
    before that run. It lacks an increment that is in the row since: another one in its place would
    count as that. The connection leads to the old one, which has taken over again, or is kept no
    longer."""
    monkeypatch.setattr(redis_connection, "NAMED_FOR_SECONDS", 0)
    witness.forget_cached()
    service.read([1], TABLE="pages")
    increment(service, 1, 1)
    names = [*witness.redis.scan_iter("{pages.*")]
    older: Any = {name: witness.redis.dump(name) for name in names}

    def take_over() -> None:
        increment(service, 1, 10)
        run("pages")
        witness.redis.flushall()
        for name, packed in older.items():
            witness.redis.restore(name, 0, packed)
        witness.redis.execute_command("REPLICAOF", "127.0.0.1", "1")
        witness.redis.execute_command("REPLICAOF", "NO", "ONE")
        if not is_kept:
            client_of(services.container().cache)._pool.clear()

    if is_cached:
        take_over()
        answer = increment(service, 1, 100)
    else:
        used = services.container().rows._write_behind
        read_records = used._records

        def read_then_take_over(*asked: Any) -> list[bytes]:
            records = read_records(*asked)
            monkeypatch.setattr(used, "_records", read_records)
            take_over()
            return records

        monkeypatch.setattr(used, "_records", read_then_take_over)
        [entry] = witness.redis.scan_iter("{pages.*:nr:*1")
        witness.redis.delete(entry)
        answer = increment(service, 1, 100)
    assert answer.status in (200, 503), answer.text
    known = 21 + 100 * (answer.status == 200)
    assert shown(service, 1) == {known}
    assert counted(increment(service, 1, 1000)) == [{"nr": 1, "views": known + 1000}]
    run("pages")
    assert stored(witness)[1] == known + 1000


@pytest.mark.usefixtures("pages")
def test_what_cannot_be_added_is_reported(service: InProcess, witness: Witness) -> None:
    for nr in (1, 2):
        increment(service, nr, 1)
    witness.query("DELETE FROM pages WHERE nr = 1")
    witness.query("UPDATE pages SET views = 2147483647 WHERE nr = 2")
    for is_first in (True, False):
        details = {each["key"]: each["reason"] for each in run("pages")["details"]}
        assert "leave its range" in details["pages 2"]
        assert ("pages 1" in details) == is_first
    witness.query("UPDATE pages SET views = 0 WHERE nr = 2")
    assert run("pages")["details"] == []
    assert stored(witness) == {2: 1}


@pytest.mark.usefixtures("pages")
@pytest.mark.parametrize(
    ("column", "amount"),
    [("SMALLINT", 32758), ("INT UNSIGNED", -11), ("INT NOT NULL CHECK (views < 100)", 90)],
    ids=["narrower", "without negative values", "with a check"],
)
def test_what_the_column_does_not_take_keeps_no_other_row_waiting(
    service: InProcess, witness: Witness, column: str, amount: int
) -> None:
    """The column was changed, and this process does not know of it."""
    service.write([page(nr) for nr in range(1, 6)], TABLE="pages")
    witness.query(f"ALTER TABLE pages MODIFY views {column}")
    for nr in range(1, 6):
        increment(service, nr, amount if nr == 2 else 1)

    for is_first in (True, False):
        record = run("pages")
        assert (record["outcome"], record.get("counted")) == ("done", 4 if is_first else None)
        [detail] = record["details"]
        assert detail["key"] == "pages 2"
        assert detail["reason"].endswith("nothing was added")
    assert stored(witness) == {1: 11, 2: 10, 3: 11, 4: 11, 5: 11}
    assert shown(service, 2) == {10 + amount}

    increment(service, 2, 1 - amount)
    assert run("pages")["details"] == []
    assert stored(witness)[2] == 11


@pytest.mark.both_engines
@pytest.mark.usefixtures("pages")
def test_rows_that_do_not_fit_into_one_answer_of_the_database_are_added_to(
    service: InProcess, witness: Witness
) -> None:
    """The RDS Data API gives 1 MiB, and here rows are longer than declared."""
    witness.query("ALTER TABLE pages MODIFY title TEXT NOT NULL, DROP INDEX title")
    keys = range(101, 401)
    for key in keys:
        witness.query("INSERT INTO pages VALUES (%s, REPEAT('a', 8000), 10, 0, 5)", [key])
    items = [{"nr": key, "views": 1} for key in keys]
    counted(service.post({"REQUEST": "increment", "TABLE": "pages", "SQLS": items}))
    assert run("pages")["counted"] == len(keys)
    assert {stored(witness)[key] for key in keys} == {11}


@pytest.mark.usefixtures("pages")
def test_a_counter_that_became_null_keeps_no_other_row_waiting(
    service: InProcess, witness: Witness
) -> None:
    for nr in (1, 2):
        increment(service, nr, 1)
    witness.query("ALTER TABLE pages MODIFY views INT NULL")
    witness.query("UPDATE pages SET views = NULL WHERE nr = 1")
    [detail] = run("pages")["details"]
    assert (detail["key"], stored(witness)) == ("pages 1", {1: None, 2: 11})
    assert "pages.views is NULL" in detail["reason"]
    assert increment(service, 1, IDEMPOTENCY_KEY="k").error == "SchemaMismatch"


@pytest.mark.usefixtures("pages")
@pytest.mark.parametrize(
    ("column", "amount", "limit"),
    [("SMALLINT", 32758, "the maximum 32767"), ("INT UNSIGNED", -11, "the minimum 0")],
)
def test_an_increment_takes_no_counter_past_what_the_real_column_takes(
    service: InProcess, witness: Witness, column: str, amount: int, limit: str
) -> None:
    witness.query(f"ALTER TABLE pages MODIFY views {column} NOT NULL")
    services.forget()
    for is_warm in (False, True):
        answer = increment(service, 1, amount)
        assert (answer.status, answer.error) == (409, "CounterOutOfRange"), is_warm
        assert limit in answer.message
    increment(service, 1, amount - 1 if amount > 0 else amount + 1)
    run("pages")
    assert shown(service, 1) == {stored(witness)[1]} == {32767 if amount > 0 else 0}


@pytest.mark.usefixtures("pages")
def test_public_keys_show_what_was_counted_up_to_the_run(
    service: InProcess, witness: Witness
) -> None:
    cli = RedisCli(witness.redis)
    for form in ("json", "hash"):
        watch(service, [1], "to_cache", TABLE="pages", FORM=form)
        watch(service, [2], "to_database", TABLE="pages", FORM=form)
    for total in (11, 12):
        for nr in (1, 2):
            increment(service, nr)
        run("pages")
        for name in ("Page:1", "UsingHash:Page:1", "Page:2", "UsingHash:Page:2"):
            assert int(cli.row(name)["views"]) == total


@pytest.mark.usefixtures("pages")
def test_a_public_key_that_its_row_follows_takes_no_increment_back(
    service: InProcess, witness: Witness
) -> None:
    """Also where an increment comes behind the moment at which the run added the others."""
    cli = RedisCli(witness.redis)
    watch(service, [2], "to_database", TABLE="pages", FORM="hash")
    run("pages")
    increment(service, 2)
    cli("HINCRBY UsingHash:Page:2 stock -1")
    run("pages")
    assert shown(service, 2) == {11}
    assert witness.query("SELECT views, stock FROM pages WHERE nr = 2") == [(11, 4)]
    assert cli.row("UsingHash:Page:2")["views"] == "11"
    increment(service, 2)
    cli("HSET UsingHash:Page:2 views 999")
    run("pages")
    assert shown(service, 2) == {12}
    assert cli.row("UsingHash:Page:2")["views"] == "12"


@pytest.mark.usefixtures("pages")
@pytest.mark.parametrize("form", ["json", "hash"])
@pytest.mark.parametrize("change", ["write", "sql", "increment"])
@pytest.mark.parametrize("has_counted", [False, True])
def test_a_row_that_was_changed_does_not_follow_what_no_client_has_changed(
    service: InProcess, witness: Witness, form: str, change: str, has_counted: bool
) -> None:
    """Its public key shows the counters as they were at the last run."""
    watch(service, [1], "to_database", TABLE="pages", FORM=form)
    run("pages")
    run("pages")
    if change == "write":
        service.write([page(1, stock=50)], TABLE="pages")
    elif change == "sql":
        witness.query("UPDATE pages SET stock = 50 WHERE nr = 1")
    else:
        items = [{"nr": 1, "stock": 45}]
        assert service.post({"REQUEST": "increment", "TABLE": "pages", "SQLS": items}).status == 200
    if has_counted:
        increment(service, 1, 5)
    for _ in range(2):
        assert not run("pages").get("details")
        assert witness.query("SELECT stock FROM pages WHERE nr = 1") == [(50,)]
    shown_row = RedisCli(witness.redis).row(PAGES.public_key(form, 1))
    assert (int(shown_row["stock"]), int(shown_row["views"])) == (50, 15 if has_counted else 10)


@pytest.mark.usefixtures("pages")
def test_a_deleted_row_that_comes_back_from_its_public_key_shows_what_stands_there(
    service: InProcess, witness: Witness
) -> None:
    """Also where what was counted for it was not in the row when it was deleted, without Redis."""
    cli = RedisCli(witness.redis)
    watch(service, [2], "to_database", TABLE="pages", FORM="hash")
    run("pages")
    for without_redis in (False, True):
        increment(service, 2, 5)
        if without_redis:
            witness.query("DELETE FROM pages WHERE nr = 2")
        else:
            service.delete([2], TABLE="pages")
        cli("HINCRBY UsingHash:Page:2 stock -1")
        run("pages")
        assert stored(witness)[2] == 10
        assert shown(service, 2) == {10}


@pytest.mark.proof
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.usefixtures("pages")
def test_in_any_order_of_changes_and_killed_runs_every_read_is_exact(
    service: InProcess, witness: Witness, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    chance = random.Random(seed)
    steps = Steps(monkeypatch)
    views = {1: 10, 2: 10}
    for i in range(120):
        nr, amount = chance.choice((1, 2)), chance.randint(-20, 20)
        match chance.randrange(16):
            case 0 | 1 | 2 | 3 | 4 | 5:
                fields = {"IDEMPOTENCY_KEY": str(i)} if chance.random() < 0.3 else {}
                answer = increment(service, nr, amount, **fields)
                assert answer.status == (200 if nr in views else 400), answer.text
                if nr in views:
                    views[nr] += amount
                    assert counted(answer) == [{"nr": nr, "views": views[nr]}]
            case 6 | 7:
                service.write([page(nr, views=amount)], chance.random() < 0.5, TABLE="pages")
                views[nr] = amount
            case 8:
                service.delete([nr], TABLE="pages")
                views.pop(nr, None)
            case 9 if nr in views:
                witness.query("UPDATE pages SET views = views + 7 WHERE nr = %s", [nr])
                service.invalidate(TABLE="pages")
                views[nr] += 7
            case 9:
                witness.query("INSERT INTO pages VALUES (%s, 'news', 7, 0, 5)", [nr])
                service.invalidate(TABLE="pages")
                views[nr] = 7
            case 10 | 11 | 12:
                moment = (steps.count + chance.randint(1, 40), chance.choice(("before", "after")))
                steps.at = {moment: kill}
                with suppress(Killed):
                    run("pages")
                steps.at = {}
                expire_lease(witness)
            case 13:
                run("pages")
                assert stored(witness) == views
            case 14:
                for name in witness.redis.scan_iter("*:totals:*"):
                    if witness.redis.ttl(name) > 0:
                        witness.redis.delete(name)
            case 15:
                for name in witness.redis.scan_iter("{pages.*:[nt][ri]*:*"):
                    witness.redis.delete(name)
        for key in (1, 2):
            assert shown(service, key) == ({views[key]} if key in views else set()), i


def applied(witness: Witness) -> set[str]:
    """The keys of the rows that have a text of their own, and '' for the floor."""
    return {key for (key,) in witness.query("SELECT row_key FROM applied_deltas")}


@pytest.fixture
def pruned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each run that counts something prunes, and a day is over at once."""
    monkeypatch.setattr(apply_increments, "PRUNE_SHARE", 1)
    monkeypatch.setattr(apply_increments, "KEPT_SECONDS", -60)


@pytest.mark.both_engines
@pytest.mark.usefixtures("pages", "pruned")
def test_what_is_forgotten_of_a_row_counts_no_more_when_its_totals_come_back(
    service: InProcess, witness: Witness
) -> None:
    increment(service, 1, 5)
    [name] = witness.redis.scan_iter("*:totals:*")
    old: Any = witness.redis.get(name)
    run("pages")
    assert applied(witness) == {"1"}
    witness.redis.delete(name)  # they have expired
    increment(service, 2, 1)
    run("pages")
    assert applied(witness) == {"", "2"}  # totals of row 2 may still be read

    witness.redis.set(name, old)  # with a backup of Redis
    witness.redis.hset("{pages.0}:totals", "1", "")
    for use_cache in (False, True):
        assert service.read([1], use_cache, TABLE="pages").rows == [page(1, views=15)]
        service.invalidate(TABLE="pages")
    run("pages")
    assert stored(witness)[1] == 15
    for total in (16, 17):
        assert counted(increment(service, 1)) == [{"nr": 1, "views": total}]
        assert shown(service, 1) == {total}
        run("pages")
        assert stored(witness)[1] == total
    assert counted(increment(service, 2, IDEMPOTENCY_KEY="k")) == [{"nr": 2, "views": 12}]


@pytest.mark.usefixtures("pages", "pruned")
@pytest.mark.parametrize("is_forgotten", [False, True])
def test_a_row_made_anew_beside_older_totals_counts_no_later_ones_that_come_back(
    service: InProcess, witness: Witness, is_forgotten: bool
) -> None:
    """Redis fails over to a server with older totals, and back."""
    increment(service, 1, 5)
    [name] = witness.redis.scan_iter("*:totals:*")
    older: Any = witness.redis.get(name)
    increment(service, 1, 3)
    later: Any = witness.redis.get(name)
    run("pages")
    if is_forgotten:
        witness.redis.delete(name)  # they have expired
        increment(service, 2, 1)
        run("pages")
        assert "1" not in applied(witness)
    service.delete([1], TABLE="pages")
    witness.redis.set(name, older)
    service.write([page(1)], TABLE="pages")
    assert shown(service, 1) == {10}
    witness.redis.set(name, later)
    witness.redis.hset("{pages.0}:totals", "1", "")
    assert shown(service, 1) == {10}
    run("pages")
    assert stored(witness)[1] == 10


@pytest.mark.usefixtures("pages", "pruned")
@pytest.mark.parametrize("began", ["before", "at the same time as"])
def test_nothing_that_is_pending_is_forgotten(
    service: InProcess, witness: Witness, began: str
) -> None:
    """Not even where it began before what is forgotten, or in the same request, and was never in
    its row."""
    increment(service, 1, 5)
    [name] = witness.redis.scan_iter("*:totals:*1")
    packed: Any = witness.redis.get(name)
    epoch = CounterTotals.unpack(packed).epoch
    witness.query("UPDATE pages SET views = 2147483647 WHERE nr = 1")  # it does not fit any more
    increment(service, 2, 1)
    for _ in range(2):
        run("pages")
        if began != "before":
            witness.query(
                "UPDATE applied_deltas SET applied = CONCAT(%s, SUBSTRING(applied, 17))"
                " WHERE row_key = '2'",
                [f"{epoch:016d}"],
            )
        for name in witness.redis.scan_iter("*:totals:*2"):
            witness.redis.delete(name)  # they have expired
    assert "2" in applied(witness)
    witness.query("UPDATE pages SET views = 10 WHERE nr = 1")
    service.invalidate(TABLE="pages")
    assert shown(service, 1) == {15}
    run("pages")
    assert stored(witness)[1] == 15


@pytest.mark.usefixtures("pages")
def test_a_total_that_redis_cannot_hold_exactly_is_rejected(
    service: InProcess, witness: Witness
) -> None:
    increment(service, 1)
    [name] = witness.redis.scan_iter("*:totals:*")
    packed: Any = witness.redis.get(name)
    totals_ = CounterTotals.unpack(packed)
    sums = (2**53 - 3, 0)
    numbers = struct.pack("<4d", totals_.epoch, totals_.count, *sums)
    witness.redis.set(name, declaration(("views", "votes")) + numbers + b"\nviews votes")
    text = f"{totals_.epoch} {totals_.count} views={sums[0]} votes=0"
    witness.query("INSERT INTO applied_deltas VALUES ('pages', '1', %s)", [text])
    service.invalidate(TABLE="pages")
    assert counted(increment(service, 1, 2)) == [{"nr": 1, "views": 12}]
    assert increment(service, 1, 1).status == 409
    assert counted(increment(service, 1, -3)) == [{"nr": 1, "views": 9}]
    run("pages")
    assert stored(witness)[1] == 9


def test_counters_of_rows_with_texts_as_keys(
    service: InProcess, witness: Witness, monkeypatch: pytest.MonkeyPatch
) -> None:
    columns = (Column("name", STRING_KEY), Column("views", INTEGER, BEHIND))
    monkeypatch.setitem(cast(dict[str, Table], TABLES), "tags", Table("tags", columns))
    witness.query("CREATE TABLE tags (name VARCHAR(255) PRIMARY KEY, views INT NOT NULL)")
    witness.query("ALTER TABLE tags CONVERT TO CHARACTER SET utf8mb4 COLLATE utf8mb4_bin")
    witness.query(
        "INSERT INTO cache_generation (table_name, generation, enabled) VALUES ('tags', 1, 1)"
    )
    try:
        rows = [{"name": name, "views": 10} for name in ("é", "7")]
        service.write(rows, TABLE="tags")
        for name in ("é", "7"):
            items = [{"name": name, "views": 5}]
            counted(service.post({"REQUEST": "increment", "TABLE": "tags", "SQLS": items}))

        assert run("tags")["counted"] == 2

        assert dict(witness.query("SELECT name, views FROM tags")) == {"é": 15, "7": 15}
    finally:
        witness.query("DELETE FROM cache_generation WHERE table_name = 'tags'")
        witness.query("DROP TABLE tags")


@pytest.mark.usefixtures("pages")
def test_what_is_counted_while_its_row_is_written_is_added_to_that(
    service: InProcess, witness: Witness, monkeypatch: pytest.MonkeyPatch
) -> None:
    increment(service, 1, 5)

    def count_meanwhile(*arguments: Any) -> Any:
        found = read_totals(*arguments)
        increment(service, 1, 2)
        return found

    with monkeypatch.context() as patch:
        patch.setattr(work, "read_totals", count_meanwhile)
        service.write([page(1, views=100)], TABLE="pages")

    assert shown(service, 1) == {102}
    run("pages")
    assert stored(witness)[1] == 102
    assert shown(service, 1) == {102}
