"""The contract of a write: what the table and every cached answer hold after it."""

import re

import pytest

from chalicelib.cache import entry_commands
from chalicelib.db import auto_increment
from tests.conftest import Configure
from tests.support.client import InProcess, as_stored, hero, heroes
from tests.support.witness import Witness

with_and_without_cache = pytest.mark.parametrize(
    "use_cache", [True, False], ids=["cached", "uncached"]
)


@pytest.mark.both_engines
@with_and_without_cache
def test_new_rows_get_rising_ids_in_the_order_sent(service: InProcess, use_cache: bool) -> None:
    rows = heroes(50)
    answer = service.write(rows, use_cache)

    assert list(answer.fields) == ["statusCode", "body", "ids"]
    assert all(type(id) is int for id in answer.ids)
    assert answer.ids == sorted(set(answer.ids))
    expected = [as_stored(id, row) for id, row in zip(answer.ids, rows)]
    for read_cached in (True, False):
        assert service.read(answer.ids, read_cached).rows == expected


@pytest.mark.both_engines
@with_and_without_cache
def test_a_row_with_a_key_is_inserted_or_replaces_that_row(
    service: InProcess, use_cache: bool
) -> None:
    service.write([{"id": 5, **hero(name="old")}], use_cache)
    answer = service.write([{"id": 9, **hero()}, {"id": "5", **hero(name="new")}], use_cache)

    assert answer.ids == [9, 5]
    for read_cached in (True, False):
        rows = service.read([5, 9], read_cached).rows
        assert rows == [{"id": 5, **hero(name="new")}, {"id": 9, **hero()}]


@pytest.mark.both_engines
@with_and_without_cache
def test_rows_with_and_without_keys_go_in_one_write(
    service: InProcess, witness: Witness, use_cache: bool
) -> None:
    sent = [hero(xp=1), {"id": 40, **hero(xp=2)}, hero(xp=3), {"id": 7, **hero(xp=4)}, hero(xp=5)]

    ids = service.write(sent, use_cache).ids

    assert (ids[1], ids[3]) == (40, 7)
    assert 40 < ids[0] < ids[2] < ids[4]
    for read_cached in (True, False):
        assert [row["xp"] for row in service.read(ids, read_cached).rows] == [1, 2, 3, 4, 5]
    assert witness.count() == 5


@pytest.mark.both_engines
@with_and_without_cache
def test_an_empty_write_is_a_success_without_ids(
    service: InProcess, witness: Witness, use_cache: bool
) -> None:
    answer = service.write([], use_cache)

    assert answer.text == '{"statusCode":200,"body":"write success","ids":[]}'
    assert witness.count() == 0


@pytest.mark.both_engines
@with_and_without_cache
def test_a_replacement_is_seen_by_every_read_that_was_cached_before(
    service: InProcess, use_cache: bool
) -> None:
    """By id, by the xp it had, and by the xp it now has, which another row has too."""
    service.write([{"id": 1, **hero(xp=100)}, {"id": 2, **hero(xp=200)}])
    before = [service.read([1]), service.read([100], BY="xp"), service.read([200], BY="xp")]
    assert [len(answer.rows) for answer in before] == [1, 1, 1]

    new = {"id": 1, **hero(name="Grace", xp=200)}
    service.write([new], use_cache)

    for read_cached in (True, True, False):
        assert service.read([1], read_cached).rows == [new]
        assert service.read([100], read_cached, BY="xp").missing == [100]
        assert service.read([200], read_cached, BY="xp").rows == [new, {"id": 2, **hero(xp=200)}]


@pytest.mark.both_engines
@with_and_without_cache
def test_a_new_row_is_seen_by_a_lookup_that_was_cached_before(
    service: InProcess, use_cache: bool
) -> None:
    first, second = heroes(2, xp=300)
    [first_id] = service.write([first]).ids
    assert service.read([300, 301], BY="xp").missing == [301]

    [second_id, third_id] = service.write([second, hero(xp=301)], use_cache).ids

    answer = service.read([300, 301], BY="xp")
    assert [row["id"] for row in answer.rows] == [first_id, second_id, third_id]


@pytest.mark.both_engines
@with_and_without_cache
def test_a_row_is_found_although_its_key_was_missing_in_a_cached_read(
    service: InProcess, use_cache: bool
) -> None:
    assert service.read([3, 4]).missing == [3, 4]

    service.write([{"id": 4, **hero()}], use_cache)

    answer = service.read([3, 4])
    assert answer.rows == [{"id": 4, **hero()}]
    assert answer.missing == [3]


@pytest.mark.both_engines
def test_what_was_written_is_what_is_cached(service: InProcess, witness: Witness) -> None:
    """Also where a row takes the place of another one."""
    rows = [as_stored(id, row) for id, row in enumerate(heroes(3), 1)]
    for version in ("first", "second"):
        service.write([{**row, "name": version} for row in rows])
        before = witness.entries()
        answers = [
            service.read([row["id"] for row in rows], use_cache) for use_cache in (True, False)
        ]

        assert [row["name"] for row in answers[0].rows] == [version] * 3
        assert answers[0].content == answers[1].content
        assert len(before) == 6, "by id and by xp"
        assert service.read([1, 2, 3], BY="xp").content == answers[1].content
        assert witness.entries() == before


def test_a_row_that_was_written_past_the_cache_is_cached_when_it_is_read_again(
    service: InProcess, witness: Witness
) -> None:
    """Not at once: a writer of the row as it was new may still be on its way."""
    service.write([{"id": 1, **hero()}])
    service.write([{"id": 1, **hero(name="Grace")}], use_cache=False)
    assert witness.entries() == {}

    [tombstone] = witness.redis.keys("*:id:*1")
    assert entry_commands.WITNESS_MILLISECONDS < entry_commands.TOMBSTONE_MILLISECONDS
    assert 0 < witness.redis.pttl(tombstone) <= entry_commands.TOMBSTONE_MILLISECONDS
    witness.redis.delete(tombstone)
    for _ in range(2):
        assert [row["name"] for row in service.read([1]).rows] == ["Grace"]
    assert list(witness.entries()) == [tombstone]


@pytest.mark.both_engines
@with_and_without_cache
def test_several_rows_can_trade_their_lookup_values(service: InProcess, use_cache: bool) -> None:
    one, two = {"id": 1, **hero(xp=10)}, {"id": 2, **hero(xp=20)}
    service.write([one, two])
    service.read([10, 20], BY="xp")

    service.write([{**one, "xp": 20}, {**two, "xp": 10}], use_cache)

    for read_cached in (True, False):
        answer = service.read([10, 20], read_cached, BY="xp")
        assert [(row["id"], row["xp"]) for row in answer.rows] == [(2, 10), (1, 20)]


@pytest.mark.both_engines
def test_a_value_is_stored_as_its_column_declares(service: InProcess, witness: Witness) -> None:
    [id] = service.write([hero(xp="-10")]).ids

    for use_cache in (True, False):
        assert service.read([id], use_cache).rows == [as_stored(id, hero(xp=-10))]
    assert witness.query("SELECT xp FROM heroes") == [(-10,)]


@pytest.mark.both_engines
def test_a_row_may_name_its_columns_in_any_order(service: InProcess) -> None:
    [id] = service.write([dict(reversed(hero().items()))]).ids

    for use_cache in (True, False):
        [row] = service.read([id], use_cache).rows
        assert list(row) == ["id", "hero", "power", "name", "xp", "color"]


@pytest.mark.both_engines
def test_an_id_is_never_given_twice_even_after_the_highest_row_is_gone(
    service: InProcess, witness: Witness
) -> None:
    [first] = service.write([hero()]).ids
    witness.query("DELETE FROM heroes")

    [second] = service.write([hero()]).ids

    assert second > first


@pytest.mark.both_engines
def test_a_write_without_a_free_id_is_refused_and_undone(
    service: InProcess, witness: Witness
) -> None:
    use_up_ids(witness)
    before = witness.state()
    for rows in ([hero()], [hero(), {"id": 3, **hero()}]):
        rejected = service.write(rows)

        assert (rejected.status, rejected.error) == (400, "BadRequest")
        assert "no free id above the highest one is left" in rejected.message
        assert witness.state() == before


def use_up_ids(witness: Witness) -> None:
    highest = (2**32 - 1, "Nova", "light", "Ada", 1, "red")
    witness.query("INSERT INTO heroes VALUES %s", [highest])


def test_what_an_operator_is_told_to_do_gives_ids_again(
    service: InProcess, witness: Witness
) -> None:
    """The highest row was deleted: its id is used up all the same."""
    ids = service.write(heroes(3)).ids
    use_up_ids(witness)
    service.delete([2**32 - 1])
    rejected = service.write(heroes(2))  # MySQL has the highest one left
    [statement] = re.findall(r"ALTER TABLE heroes AUTO_INCREMENT = \d+", rejected.message)

    witness.query(statement)

    assert service.write([hero()]).ids == [ids[-1] + 1]


@pytest.mark.both_engines
def test_an_id_far_above_all_others_is_refused(service: InProcess, witness: Witness) -> None:
    """It would use up the ids of all rows that bring none."""
    ids = service.write(heroes(3)).ids
    farthest = ids[-1] + auto_increment.MAX_KEY_GAP
    for rows in ([{"id": farthest + 1, **hero()}], [hero(), {"id": 2**32 - 1, **hero()}]):
        rejected = service.write(rows)

        assert (rejected.status, rejected.error) == (400, "BadRequest")
        assert f"is more than 1000000000 above {ids[-1]}, the highest one" in rejected.message
        assert witness.count() == 3

    assert service.write([{"id": farthest, **hero()}, hero()]).ids == [farthest, farthest + 1]
    assert service.write([{"id": farthest, **hero(name="replaced")}]).ids == [farthest]


@pytest.mark.both_engines
def test_no_row_of_requests_uses_up_the_ids(service: InProcess, witness: Witness) -> None:
    """Each of these is near enough to the one before."""
    id, rejected = 0, list[str]()
    for gap in (auto_increment.MAX_KEY_GAP,) * 5 + (200_000_000, 20_000_000, 1_000_000) * 20:
        answer = service.write([{"id": min(id + gap, 2**32 - 1), **hero()}])
        if answer.status == 200:
            [id] = answer.ids
        else:
            rejected.append(answer.message)

    assert all(" is above 3221225469: too few" in message for message in rejected)
    assert rejected
    [given] = service.write([hero()]).ids
    assert given == id + 1
    assert 2**32 - given > 1_000_000_000, "are left"


def test_rows_above_the_highest_id_that_a_request_may_name_are_replaced(
    service: InProcess, witness: Witness
) -> None:
    """Somebody else has put one there."""
    witness.query("INSERT INTO heroes VALUES %s", [(3_500_000_000, "", "", "", 0, "")])
    for id in (3_400_000_000, 3_500_000_000):
        assert service.write([{"id": id, **hero()}]).ids == [id]
    assert service.write([{"id": 3_500_000_001, **hero()}]).status == 400


def test_ids_are_those_of_a_server_that_gives_every_third_one(
    service: InProcess, witness: Witness, configure: Configure
) -> None:
    """As servers that take writes side by side do."""
    with witness.server_has("auto_increment_increment", 3):
        configure()
        ids = service.write(heroes(4)).ids

    assert [id for (id,) in witness.query("SELECT id FROM heroes ORDER BY id")] == ids
    for use_cache in (True, False):
        names = [row["name"] for row in service.read(ids, use_cache).rows]
        assert names == [row["name"] for row in heroes(4)]


# What an operator may set for all clients of the server.
ODD_SETTINGS = {
    "sql_select_limit": 1,
    "max_join_size": 1,
    "completion_type": "RELEASE",
    "completion_type, too": "CHAIN",
    "sql_mode": "ANSI,NO_BACKSLASH_ESCAPES,PIPES_AS_CONCAT",
    "autocommit": 0,
}


@pytest.mark.parametrize("name", ODD_SETTINGS)
def test_no_setting_of_the_server_changes_what_is_read_and_written(
    service: InProcess, witness: Witness, configure: Configure, name: str
) -> None:
    with witness.server_has(name.partition(",")[0], ODD_SETTINGS[name]):
        configure()
        ids = service.write(heroes(4, hero="\\ ' \" ||")).ids
        assert len(service.read(ids, use_cache=False).rows) == 4
        assert service.write([{"id": ids[0], **hero(xp=9)}]).ids == [ids[0]]
        assert [row["id"] for row in service.read([9], BY="xp").rows] == [ids[0]]
        assert service.invalidate().status == 200
        raised = witness.generation()
        witness.redis.flushall()
        assert len(service.read(ids).rows) == 4
        assert witness.generation() > raised, "a statement by itself is committed"
        assert service.delete(ids).status == 200

    assert witness.count("heroes") == 0


def test_a_batch_that_is_longer_than_the_server_takes_is_told_so(
    service: InProcess, witness: Witness, configure: Configure
) -> None:
    long = dict.fromkeys(("hero", "power", "name", "color"), "x" * 255)
    witness.query("SET GLOBAL max_allowed_packet = 65536")
    try:
        configure()
        for rows in (heroes(100, **long), [{"id": 7, **hero()}, *heroes(100, **long)]):
            answer = service.write(rows)

            assert (answer.status, answer.error) == (413, "TooLarge"), answer.text
            assert "max_allowed_packet" in answer.message
            assert "send fewer items at a time" in answer.message
        assert len(service.write(heroes(3, **long)).ids) == 3
    finally:
        witness.query("SET GLOBAL max_allowed_packet = DEFAULT")

    assert witness.count("heroes") == 3


def test_a_cached_row_expires_after_about_ttl_seconds(
    service: InProcess, witness: Witness, configure: Configure
) -> None:
    configure(TTL="1000")
    ids = service.write(heroes(20)).ids
    for _ in range(2):
        service.read(range(1, 21), BY="xp")
    service.write([{"id": id, **hero(xp=30)} for id in ids[:10]])

    lives = {witness.redis.ttl(key) for key in witness.entries()}

    assert len(lives) > 1, "entries stored together must not all expire together"
    assert 800 <= min(lives) <= max(lives) <= 1200
