"""The Redis keys of entries are the same in every process and in every release: containers of two
releases serve side by side during a deployment, and a writer must fence what the others read.
"""

import pytest

from chalicelib.cache import keys
from chalicelib.cache.commands import packed_numbers, packed_words
from chalicelib.cache.keys import Keys
from chalicelib.tables import EMPLOYEES, HEROES, Column, Key, Table

ID, XP = HEROES.key, HEROES.readable["xp"]
BUCKETS_OF_TEXTS = {"E1": 5, "E2": 15, "e2": 13, "Zoë": 10, "雪": 10}
BUCKETS_OF_IDS = {1: 1, 16: 0, 4_294_967_295: 15}
BUCKETS_OF_XPS = {5: 5, -1: 15, -2_147_483_648: 0}
WRITTEN: dict[Key, str] = {1: "0000000001", 16: "0000000016", 5: "00000000005", -1: "-0000000001"}


@pytest.mark.parametrize("is_cluster", [True, False], ids=["cluster", "one server"])
@pytest.mark.parametrize(
    ("table", "column", "buckets"),
    [
        pytest.param(EMPLOYEES, EMPLOYEES.key, BUCKETS_OF_TEXTS, id="text"),
        pytest.param(HEROES, ID, BUCKETS_OF_IDS, id="id"),
        pytest.param(HEROES, XP, BUCKETS_OF_XPS, id="xp"),
    ],
)
def test_the_key_of_an_entry_stays(
    table: Table, column: Column, buckets: dict[Key, int], is_cluster: bool
) -> None:
    bucket_of = buckets if is_cluster else dict.fromkeys(buckets, 0)
    written = {value: WRITTEN.get(value, str(value)) for value in buckets}

    assert Keys(is_cluster).entries(7, table, column, buckets) == [
        f"{{{table.name}.{bucket_of[value]}}}:7:{column.name}:{written[value]}" for value in buckets
    ]
    groups = Keys(is_cluster).groups([*buckets])
    placed = {place: bucket for bucket, places in groups for place in places}
    assert [placed[place] for place in range(len(buckets))] == [*bucket_of.values()]


def test_the_totals_of_a_row_are_in_the_bucket_of_its_entry() -> None:
    assert Keys(is_cluster=True).counter_totals(EMPLOYEES, BUCKETS_OF_TEXTS) == [
        f"{{employees.{bucket}}}:totals:{text}" for text, bucket in BUCKETS_OF_TEXTS.items()
    ]


def test_what_stands_beside_the_entries_of_a_bucket_has_their_hash_tag() -> None:
    assert keys.marker(HEROES, 3, "of") == "{heroes.3}:marker:of"
    assert keys.witness(HEROES, 3, "by") == "{heroes.3}:witness:by"
    assert keys.hint(HEROES) == "{heroes.0}:generation"


@pytest.mark.parametrize("column", [ID, XP], ids=["id", "xp"])
def test_keys_that_are_packed_together_are_those_that_are_packed_one_by_one(column: Column) -> None:
    values = [value for value in (1, 16, -1) if column is XP or value > 0]
    names = Keys(is_cluster=False).entries(7, HEROES, column, values)
    series = Keys(is_cluster=False).series(7, HEROES, column)

    assert series is not None
    assert packed_numbers(*series, values) == packed_words(names)
