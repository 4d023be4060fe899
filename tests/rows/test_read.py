"""The contract of a read, the same with and without the cache."""

import pytest

from tests.support.client import InProcess, Row, as_stored, hero, heroes
from tests.support.witness import Witness

cold_warm_and_uncached = pytest.mark.parametrize(
    ("use_cache", "times"), [(False, 1), (True, 1), (True, 2)], ids=["uncached", "cold", "warm"]
)

DECOYS = heroes(20, color="decoy")


def stored(service: InProcess, rows: list[Row]) -> list[Row]:
    """Put there without the cache, between decoys; as a read gives them."""
    service.write(DECOYS, use_cache=False)
    ids = service.write(rows, use_cache=False).ids
    service.write(DECOYS, use_cache=False)
    return [as_stored(id, row) for id, row in zip(ids, rows)]


@pytest.mark.both_engines
@cold_warm_and_uncached
def test_rows_come_in_the_order_asked_and_repeats_are_repeated(
    service: InProcess, use_cache: bool, times: int
) -> None:
    a, b, c = stored(service, [hero(xp=501), hero(xp=502), hero(xp=503)])

    for by in ("id", "xp"):
        for _ in range(times):
            answer = service.read([c[by], a[by], c[by], b[by], a[by]], use_cache, BY=by)

        assert answer.rows == [c, a, c, b, a]
        assert list(answer.fields) == ["statusCode", "body"]
        assert answer.headers["content-type"] == "application/json"


@pytest.mark.both_engines
@cold_warm_and_uncached
def test_values_without_a_row_are_left_out_and_told_once(
    service: InProcess, use_cache: bool, times: int
) -> None:
    [row] = stored(service, [hero(xp=501)])

    for _ in range(times):
        by_id = service.read([999, row["id"], 4_294_967_295, 999], use_cache)
        by_xp = service.read([-1, 501, 502, -1], use_cache, BY="xp")

    assert by_id.rows == by_xp.rows == [row]
    assert by_id.missing == [999, 4_294_967_295]
    assert by_xp.missing == [-1, 502]


@pytest.mark.both_engines
@cold_warm_and_uncached
def test_all_values_without_a_row_are_an_empty_body(
    service: InProcess, use_cache: bool, times: int
) -> None:
    for _ in range(times):
        answer = service.read([7, 8], use_cache)

    assert answer.rows == []
    assert answer.missing == [7, 8]


@pytest.mark.both_engines
@cold_warm_and_uncached
def test_a_lookup_gives_every_row_by_id_and_value_after_value(
    service: InProcess, use_cache: bool, times: int
) -> None:
    rows = stored(service, [hero(xp=xp) for xp in (700, -5, 700, -5, 700)])
    of_700, of_minus_5 = rows[0::2], rows[1::2]

    for _ in range(times):
        answer = service.read([-5, 700, -5], use_cache, BY="xp")

    assert answer.rows == [*of_minus_5, *of_700, *of_minus_5]


@pytest.mark.both_engines
@cold_warm_and_uncached
def test_a_row_has_every_column_in_declared_order_and_typed(
    service: InProcess, use_cache: bool, times: int
) -> None:
    [row] = stored(service, [hero(xp="10", name="10", color="")])

    for _ in range(times):
        answer = service.read([row["id"]], use_cache)

    expected = (
        f'{{"statusCode":200,"body":[{{"id":{row["id"]},"hero":"Nova","power":"light",'
        '"name":"10","xp":10,"color":""}]}'
    )
    assert answer.text == expected


@pytest.mark.both_engines
@pytest.mark.parametrize("values", [[1], [2, 1], [1, 2, 3, 4]])
def test_a_half_cached_batch_is_whole_and_in_order(service: InProcess, values: list[int]) -> None:
    rows = [as_stored(i, row) for i, row in enumerate(heroes(4), 1)]
    service.write(rows, use_cache=False)
    service.read(values)

    answer = service.read([4, 3, 9, 2, 1, 3])

    assert [row["id"] for row in answer.rows] == [4, 3, 2, 1, 3]
    assert answer.missing == [9]


@pytest.mark.both_engines
def test_values_may_be_strings_of_integers(service: InProcess) -> None:
    [row] = stored(service, [hero(xp=-44)])

    assert service.read([str(row["id"])]).rows == [row]
    assert service.read([row["id"], str(row["id"])]).rows == [row, row]
    assert service.read(["-44"], BY="xp").rows == [row]
    assert service.read(["77", 78]).missing == [77, 78]


@pytest.mark.both_engines
def test_no_values_are_no_rows(service: InProcess) -> None:
    for use_cache in (True, False):
        answer = service.read([], use_cache)

        assert answer.text == '{"statusCode":200,"body":[]}'


@pytest.mark.both_engines
def test_the_ends_of_the_ranges_can_be_stored_and_read(
    service: InProcess, witness: Witness
) -> None:
    lowest, highest = {"id": 1, **hero(xp=-(2**31))}, {"id": 2**32 - 1, **hero(xp=2**31 - 1)}
    witness.query("INSERT INTO heroes VALUES %s", [(2**32 - 1, "", "", "", 0, "")])
    service.write([lowest, highest])

    for use_cache in (True, False):
        assert service.read([1, 2**32 - 1], use_cache).rows == [lowest, highest]
        by_xp = service.read([-(2**31), 2**31 - 1], use_cache, BY="xp")
        assert by_xp.rows == [lowest, highest]


def test_ten_thousand_values_are_read_at_once(service: InProcess) -> None:
    for first in range(0, 9_000, 1_000):
        rows = [{"id": first + row["xp"], **row} for row in heroes(1_000)]
        service.write(rows, use_cache=False)
    values = list(range(10_000, 0, -1))

    for use_cache in (False, True, True):
        answer = service.read(values, use_cache)

        assert [row["id"] for row in answer.rows] == values[1_000:]
        assert answer.missing == values[:1_000]
