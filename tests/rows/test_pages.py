"""LIMIT and AFTER: the rows of one value of a lookup, page after page."""

import pytest

from chalicelib.rows import loader
from tests.support.client import InProcess, Row, as_stored, hero, heroes

each_way = pytest.mark.parametrize("use_cache", [True, False], ids=["cached", "uncached"])


def stored(service: InProcess, count: int) -> list[Row]:
    """Heroes with xp 7, between decoys."""
    rows = [hero(xp=7, name=f"Ada {i}") for i in range(count)]
    ids = [service.write([hero(xp=8), row, hero(xp=6)]).ids[1] for row in rows]
    return [as_stored(id, row) for id, row in zip(ids, rows)]


@pytest.mark.both_engines
@each_way
def test_pages_together_are_all_rows_of_the_value_in_the_order_of_their_keys(
    service: InProcess, use_cache: bool
) -> None:
    rows = stored(service, 7)
    found: list[Row] = []
    while page := service.read(
        [7], use_cache, BY="xp", LIMIT=3, **({"AFTER": found[-1]["id"]} if found else {})
    ).rows:
        assert len(page) <= 3
        found += page

    assert found == rows == service.read([7], use_cache, BY="xp").rows


@pytest.mark.both_engines
@each_way
def test_a_limit_alone_gives_the_first_rows_and_after_alone_the_rest(
    service: InProcess, use_cache: bool
) -> None:
    rows = stored(service, 4)

    assert service.read([7], use_cache, BY="xp", LIMIT=3).rows == rows[:3]
    assert service.read([7], use_cache, BY="xp", LIMIT="3", AFTER=0).rows == rows[:3]
    assert service.read(["7"], use_cache, BY="xp", AFTER=str(rows[0]["id"])).rows == rows[1:]


def test_a_value_without_rows_is_missing_but_not_one_whose_pages_end(service: InProcess) -> None:
    last = stored(service, 1)[-1]["id"]

    assert service.read([99], BY="xp", LIMIT=2).missing == [99]
    answer = service.read([7], BY="xp", LIMIT=2, AFTER=last)
    assert (answer.rows, answer.missing) == ([], None)


def test_a_page_shows_a_row_right_after_its_write_and_leaves_the_cached_value_alone(
    service: InProcess,
) -> None:
    stored(service, 2)
    service.read([7], BY="xp")

    [new] = service.write([hero(xp=7)]).ids

    assert service.read([7], BY="xp", LIMIT=1, AFTER=new - 1).rows[0]["id"] == new
    assert len(service.read([7], BY="xp").rows) == 3


def test_what_is_too_large_as_a_whole_can_be_read_in_pages(
    service: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = stored(service, 40)
    monkeypatch.setattr(loader, "MAX_RESULT_BYTES", 2_000)

    rejected = service.read([7], False, BY="xp")

    assert (rejected.status, rejected.error) == (413, "TooLarge")
    assert "for one value with LIMIT and AFTER" in rejected.message
    assert service.read([7], BY="xp", LIMIT=10).rows == rows[:10]


def test_a_page_is_read_without_the_cache_and_says_so(service: InProcess) -> None:
    stored(service, 1)

    answer = service.read([7], BY="xp", LIMIT=1)

    assert answer.headers["cache-status"] == (
        'herocache; fwd=bypass; detail="pages are not cached"'
    )
    answer = service.read([7], False, BY="xp", LIMIT=1)
    assert answer.headers["cache-status"] == "herocache; fwd=bypass"


def test_a_table_without_lookups_has_no_pages(service: InProcess) -> None:
    answer = service.post({"REQUEST": "read", "SQLS": [1], "TABLE": "products", "LIMIT": 1})

    assert answer.message == (
        "LIMIT: goes with a read by a lookup, and this one is by ProductId; leave it out"
    )


BY_ID = 'goes with a read by a lookup, and this one is by id; leave it out, or read with BY="xp"'


def test_no_values_have_no_page(service: InProcess) -> None:
    assert service.read([], BY="xp", LIMIT=1).rows == []


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"LIMIT": 1}, f"LIMIT: {BY_ID}"),
        ({"AFTER": 1}, f"AFTER: {BY_ID}"),
        ({"BY": "xp", "LIMIT": 0}, "LIMIT: expected an integer from 1 to 10000, got 0"),
        ({"BY": "xp", "LIMIT": 10_001}, "LIMIT: expected an integer from 1 to 10000, got 10001"),
        ({"BY": "xp", "LIMIT": None}, "LIMIT: expected an integer, got null"),
        ({"BY": "xp", "AFTER": "x"}, "AFTER: expected an integer, got 'x'"),
        (
            {"BY": "xp", "AFTER": -1},
            "AFTER: expected an integer from 0 to 9223372036854775807, got -1",
        ),
    ],
)
def test_a_wrong_page_is_refused(
    service: InProcess, fields: dict[str, object], message: str
) -> None:
    answer = service.post({"REQUEST": "read", "SQLS": [1], **fields})

    assert (answer.status, answer.message) == (400, message)


def test_pages_are_of_one_value(service: InProcess) -> None:
    for name in ("LIMIT", "AFTER"):
        answer = service.post({"REQUEST": "read", "SQLS": [1, 2], "BY": "xp", name: 1})
        assert answer.message == f"{name}: goes with one value in SQLS, got 2"


def test_only_a_read_has_pages(service: InProcess) -> None:
    answer = service.write(heroes(1), LIMIT=1)

    assert answer.message == "LIMIT: only a read has it; leave it out"
