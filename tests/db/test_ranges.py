"""Rows of a range, which the database joins in one value."""

import pytest

from chalicelib import services
from chalicelib.db import batches
from chalicelib.db.batches import joined_texts
from chalicelib.tables import PRODUCTS, Key
from local.servers.mariadb import integers
from tests.support.client import InProcess
from tests.support.witness import Witness

TEXTS: dict[Key, bytes] = {1: b'{"a":1}', 20: '{"a":"é"}'.encode(), 300: b'{"a":"}"}'}
JOINED = "\n".join([f"{key}\n{text.decode()}" for key, text in TEXTS.items()])


def test_a_joined_range_is_split_in_its_rows() -> None:
    assert joined_texts(PRODUCTS, JOINED, 3) == TEXTS
    assert joined_texts(PRODUCTS, None, 0) == {}


def test_a_text_that_may_need_an_escape_is_left_to_others() -> None:
    assert joined_texts(PRODUCTS, JOINED.replace("é", "\\t"), 3) == {**TEXTS, 20: None}


@pytest.mark.parametrize(
    "joined",
    [
        *(JOINED[:end] for end in range(1, len(JOINED))),
        JOINED + "\n4\n{}",
        JOINED.replace("20", "301"),
    ],
)
def test_a_range_that_is_cut_or_in_another_order_is_not_believed(joined: str) -> None:
    assert joined_texts(PRODUCTS, joined, 3) is None


@pytest.mark.parametrize("is_joined", [True, False])
def test_a_range_ends_where_it_is_asked_to(
    service: InProcess, witness: Witness, monkeypatch: pytest.MonkeyPatch, is_joined: bool
) -> None:
    if not is_joined:
        monkeypatch.setattr(batches, "joined_texts", lambda *_: None)
    witness.query(
        f"INSERT INTO products SELECT seq, CONCAT('é', seq), '\t', 1, 2 FROM {integers(1, 9)}"
    )
    database = services.container().database

    def found(after: int | None, last: int | None, most: int) -> tuple[list[Key], bool]:
        _, texts, is_more = database.fetch_range(PRODUCTS, after, last, most)
        return [*texts], is_more

    assert found(None, None, 20) == ([*range(1, 10)], False)
    assert found(None, None, 4) == ([1, 2, 3, 4], True)
    assert found(4, 7, 3) == ([5, 6, 7], True)
    assert found(4, 6, 3) == ([5, 6], False)
    assert found(9, None, 3) == ([], False)
