"""What a table may declare, and rows encoded as it declares them."""

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib import services
from chalicelib.tables import EMPLOYEES, HEROES, NotAsDeclared, Row, Table
from tests.support.client import InProcess, hero
from tests.support.differing_tables import Tables


@given(
    st.lists(st.tuples(st.integers(1, 9), *[st.text()] * 3, st.integers(), st.text()), max_size=5)
)
def test_a_batch_is_encoded_as_each_row_by_itself_would_be(rows: list[Row]) -> None:
    encoded = HEROES.encode_many(rows)

    assert encoded == [HEROES.encode(row) for row in rows]
    names = [column.name for column in HEROES.columns]
    for row, text in zip(rows, encoded):
        assert json.loads(text) == dict(zip(names, row))


@pytest.mark.parametrize("wrong", [None, 1.0, True, b"x", [1], object()])
@pytest.mark.parametrize("position", range(len(HEROES.columns)))
def test_the_encoder_refuses_what_is_not_declared(position: int, wrong: Any) -> None:
    good: Row = (1, "Nova", "light", "Ada", 10, "red")
    bad: Row = tuple(wrong if i == position else value for i, value in enumerate(good))

    for rows in ([bad], [good, bad], [bad, good]):
        with pytest.raises(NotAsDeclared, match=f"heroes.{HEROES.columns[position].name} "):
            HEROES.encode_many(rows)


def test_a_string_for_an_integer_and_the_other_way_round_is_refused() -> None:
    for bad in ((1, 2, "light", "Ada", 10, "red"), (1, "Nova", "light", "Ada", "10", "red")):
        with pytest.raises(NotAsDeclared, match=r"(a string|an integer)$"):
            HEROES.encode(bad)


def test_a_lookup_that_names_no_column_cannot_be_declared() -> None:
    with pytest.raises(ValueError, match="heroes: the lookup XP names no column; there are id, "):
        replace(HEROES, lookups=("XP",))


def test_what_is_stored_may_stand_for_what_is_declared(
    service: InProcess, database: Tables
) -> None:
    """Narrower values, under the same keys of the cache."""
    assert services.container().database.as_stored(EMPLOYEES) == EMPLOYEES
    database.query("ALTER TABLE heroes MODIFY hero VARCHAR(20) CHARACTER SET utf8mb3 NOT NULL")
    database.query("ALTER TABLE heroes MODIFY xp TINYINT UNSIGNED NOT NULL")

    stored: Table = services.container().database.as_stored(HEROES)

    types = {column.name: column.type for column in stored.columns}
    assert types["hero"].takes_texts(["x" * 20, "ß\uffff"])
    assert not types["hero"].takes_texts(["x" * 21])
    assert not types["hero"].takes_texts(["x", "✨🌠"])
    assert types["xp"].takes_texts(["0", "255"])
    assert not types["xp"].takes_texts(["-1"])
    assert not types["xp"].takes_texts(["256"])
    for column, declared in zip(stored.columns, HEROES.columns):
        assert getattr(column.type, "width", 0) == getattr(declared.type, "width", 0)
    assert service.write([hero()]).status == 200
