"""The contract of a delete: what it answers, and that no cached answer shows the rows again."""

from collections.abc import Sequence

import pytest

from tests.conftest import Configure
from tests.support.client import InProcess, Row, as_stored, hero, heroes
from tests.support.witness import Witness

LAMP: Row = {"ProductName": "Lamp", "Description": "", "QuantityInStock": 3, "Price": 5}


@pytest.fixture
def service(service: InProcess) -> InProcess:
    """Heroes 1 to 9 in the table and in the cache, by id and by xp."""
    rows = stored()
    service.write(rows)
    assert service.read(range(1, 10), BY="xp").rows == rows
    return service


def stored() -> list[Row]:
    return [as_stored(row["xp"], row) for row in heroes(9)]


def assert_gone(service: InProcess, ids: Sequence[int]) -> None:
    left = [row for row in stored() if row["id"] not in ids]
    for use_cache in (True, True, False):
        for by in ("id", "xp"):
            answer = service.read(range(1, 10), use_cache, BY=by)
            assert answer.rows == left
            assert (answer.missing or []) == sorted(ids)


@pytest.mark.both_engines
def test_the_answer_lists_the_keys_that_existed_in_the_order_asked(service: InProcess) -> None:
    answer = service.delete([7, 99, 3, "5", 1])

    assert answer.text == '{"statusCode":200,"body":"delete success","deleted":[7,3,5,1]}'
    assert_gone(service, [1, 3, 5, 7])


def test_a_key_given_twice_is_listed_once(service: InProcess) -> None:
    assert service.delete([4, 2, 4, "2", 4]).deleted == [4, 2]
    assert_gone(service, [2, 4])


@pytest.mark.both_engines
def test_a_deleted_row_leaves_no_entry_of_its_own_and_of_its_lookup(
    service: InProcess, witness: Witness
) -> None:
    assert len(witness.entries()) == 18

    service.delete([1, 2])

    left = witness.entries()
    assert len(left) == 14
    assert not any(key.endswith((b":1", b":2")) for key in left)


@pytest.mark.both_engines
def test_a_lookup_shows_the_rows_that_are_left(service: InProcess) -> None:
    twins = [{"id": 20, **hero(xp=77)}, {"id": 21, **hero(xp=77)}, {"id": 22, **hero(xp=77)}]
    service.write(twins)
    assert service.read([77], BY="xp").rows == twins

    service.delete([21])

    for use_cache in (True, True, False):
        assert service.read([77], use_cache, BY="xp").rows == [twins[0], twins[2]]


def test_a_row_that_only_the_database_has_is_deleted_too(
    service: InProcess, witness: Witness
) -> None:
    witness.forget_cached()

    assert service.delete([1]).deleted == [1]
    assert_gone(service, [1])


@pytest.mark.both_engines
def test_deleting_what_is_not_there_changes_nothing(service: InProcess, witness: Witness) -> None:
    service.delete([1])
    service.read(range(1, 10))
    before = witness.state()

    for keys in ([1], [1, 77, 4294967295], []):
        assert service.delete(keys).deleted == []
        assert witness.state() == before
    assert_gone(service, [1])


@pytest.mark.parametrize("table", ["heroes", "products"])
def test_a_cold_app_that_deletes_nothing_costs_no_cached_row(
    service: InProcess, witness: Witness, configure: Configure, table: str
) -> None:
    before = witness.state()
    configure()

    assert service.delete([999], TABLE=table).deleted == []

    assert witness.state() == before
    with witness.logged() as statements:
        assert service.read(range(1, 10)).rows == stored()
    assert not [text for text in statements if " FROM heroes " in text]


def test_a_deleted_key_can_be_written_again(service: InProcess) -> None:
    service.delete([3])
    service.write([{"id": 3, **hero(name="second")}])

    for use_cache in (True, True, False):
        assert service.read([3], use_cache).rows == [{"id": 3, **hero(name="second")}]


def test_an_id_is_not_given_again_after_its_row_was_deleted(service: InProcess) -> None:
    [first] = service.write([hero()]).ids
    service.delete([first])
    [second] = service.write([hero()]).ids

    assert second > first


@pytest.mark.both_engines
def test_rows_with_keys_of_text_are_deleted(service: InProcess) -> None:
    """Each key is what it is: case, accents and Unicode forms are not taken for another."""
    keys = ["e1", "E1", "é", "e\u0301", "日本", "x'; DROP TABLE employees; --", "%s", "k" * 255]
    people: list[Row] = [{"EmpId": key, "EmpName": key} for key in keys]
    service.write(people, TABLE="employees")
    assert service.read(keys, TABLE="employees").rows == people

    gone = [keys[5], "nobody", keys[3], keys[1]]
    assert service.delete(gone, TABLE="employees").deleted == [keys[5], keys[3], keys[1]]

    left = [row for row in people if row["EmpId"] not in gone]
    for use_cache in (True, True, False):
        assert service.read(keys, use_cache, TABLE="employees").rows == left


@pytest.mark.both_engines
def test_rows_of_a_table_without_lookups_are_deleted(service: InProcess) -> None:
    ids = service.write([LAMP] * 3, TABLE="products").ids

    assert service.delete(ids[:2], TABLE="products").deleted == ids[:2]

    for use_cache in (True, False):
        answer = service.read(ids, use_cache, TABLE="products")
        assert (answer.rows, answer.missing) == ([{"ProductId": ids[2], **LAMP}], ids[:2])
    assert len(service.read(range(1, 10)).rows) == 9, "heroes of the same ids are another table's"


@pytest.mark.both_engines
def test_a_thousand_rows_are_deleted_at_once_and_no_more(service: InProcess) -> None:
    ids = service.write(heroes(1000)).ids

    rejected = service.delete([*ids, 1])
    assert (rejected.status, rejected.error) == (413, "TooLarge")
    assert "at most 1000" in rejected.message
    assert service.delete(ids[::-1]).deleted == ids[::-1]
    assert service.read(ids).missing == ids


@pytest.mark.parametrize("use_cache", ["True", "False", True, False])
def test_the_cache_follows_whatever_use_cache_says(service: InProcess, use_cache: object) -> None:
    request = {"REQUEST": "delete", "SQLS": [1, 2], "USE_CACHE": use_cache}

    assert service.post(request).deleted == [1, 2]
    assert_gone(service, [1, 2])


def test_the_lambda_function_deletes_too(service: InProcess) -> None:
    answer = service.invoke({"REQUEST": "delete", "SQLS": [5, 99]})

    assert answer == {"statusCode": 200, "body": "delete success", "deleted": [5]}
    assert_gone(service, [5])


BAD_REQUESTS: dict[str, tuple[Row, str]] = {
    "no list": ({"SQLS": 5}, "SQLS"),
    "no keys": ({}, "SQLS"),
    "a row": ({"SQLS": [{"id": 5}]}, "SQLS[0]"),
    "half a number": ({"SQLS": [1, 2.5]}, "SQLS[1]"),
    "a truth": ({"SQLS": [True]}, "SQLS[0]"),
    "nothing": ({"SQLS": [1, None]}, "SQLS[1]"),
    "zero": ({"SQLS": [0]}, "SQLS[0]"),
    "below zero": ({"SQLS": [-1]}, "SQLS[0]"),
    "beyond the largest": ({"SQLS": [2**32]}, "SQLS[0]"),
    "by a lookup": ({"SQLS": [1], "BY": "xp"}, "BY"),
    "by the key": ({"SQLS": [1], "BY": "id"}, "BY"),
    "no such table": ({"SQLS": [1], "TABLE": "villains"}, "TABLE"),
    "no such field": ({"SQLS": [1], "WHERE": "1=1"}, "WHERE"),
    "an empty key of text": ({"SQLS": [""], "TABLE": "employees"}, "SQLS[0]"),
    "a padded key of text": ({"SQLS": ["a", "b "], "TABLE": "employees"}, "SQLS[1]"),
    "a number for text": ({"SQLS": [1], "TABLE": "employees"}, "SQLS[0]"),
}


@pytest.mark.parametrize("name", BAD_REQUESTS)
def test_a_bad_delete_names_the_place_and_deletes_nothing(
    service: InProcess, witness: Witness, name: str
) -> None:
    fields, place = BAD_REQUESTS[name]
    before = witness.state()

    answer = service.post({"REQUEST": "delete", **fields})

    assert (answer.status, answer.error) == (400, "BadRequest")
    assert place in answer.message
    assert witness.state() == before
