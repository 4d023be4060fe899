"""What is too large is rejected with 413 and changes nothing; what just fits is answered."""

import json

import pytest

from tests.support.client import Answer, InProcess, OverHttp, as_stored, hero, heroes
from tests.support.leaks import assert_tells_nothing_internal
from tests.support.witness import Witness

MEGABYTES_6 = 6_000_000
# A text of 4 KB in UTF-8, and of 12 KB when JSON escapes it to ASCII.
WIDE = dict.fromkeys(("hero", "power", "name", "color"), "🦊" * 255)


def assert_too_large(answer: Answer, message: str) -> None:
    assert (answer.status, answer.error) == (413, "TooLarge")
    assert message in answer.message
    assert_tells_nothing_internal(answer)


@pytest.mark.both_engines
def test_at_most_ten_thousand_values_are_read_at_once(service: InProcess, witness: Witness) -> None:
    service.write([{"id": 1, **hero()}])
    before = witness.state()

    for value in (1, "1"):
        assert len(service.read([value] * 10_000).rows) == 10_000
        rejected = service.read([value] * 10_001)
        assert_too_large(rejected, "SQLS: 10001 values, at most 10000")

    assert service.invoke({"REQUEST": "read", "SQLS": [1] * 10_001}) == rejected.fields
    assert witness.state() == before


@pytest.mark.both_engines
def test_at_most_a_thousand_rows_are_written_at_once(service: InProcess, witness: Witness) -> None:
    rows = heroes(1_001)

    assert_too_large(service.write(rows), "SQLS: 1001 rows, at most 1000")
    assert witness.count() == 0

    ids = service.write(rows[:1_000]).ids
    for use_cache in (True, False):
        expected = [as_stored(id, row) for id, row in zip(ids, rows)]
        assert service.read(ids, use_cache).rows == expected


def test_a_body_has_at_most_six_megabytes(service: InProcess, witness: Witness) -> None:
    request = json.dumps({"REQUEST": "write", "SQLS": [hero()]}).encode()

    rejected = service.send(request.ljust(MEGABYTES_6 + 1))
    assert_too_large(rejected, "body: more than 6000000 bytes")
    assert witness.count() == 0

    assert len(service.send(request.ljust(MEGABYTES_6)).ids) == 1


def test_a_body_of_six_megabytes_is_refused_over_http_too(
    server_url: str, witness: Witness
) -> None:
    request = json.dumps({"REQUEST": "write", "SQLS": [hero()]}).encode()

    rejected = OverHttp(server_url).send(request.ljust(MEGABYTES_6 + 1))

    assert_too_large(rejected, "body: more than 6000000 bytes")
    assert witness.count() == 0


def test_a_body_that_is_not_json_is_looked_at_only_below_six_megabytes(
    service: InProcess,
) -> None:
    assert_too_large(service.send(b"\xff" * (MEGABYTES_6 + 1)), "body: more than 6000000 bytes")


@pytest.mark.both_engines
@pytest.mark.parametrize("use_cache", [False, True], ids=["uncached", "cached"])
def test_a_result_has_at_most_six_megabytes(
    service: InProcess, witness: Witness, use_cache: bool
) -> None:
    """By bytes as they are sent, and as Lambda escapes them into an answer of its own."""
    service.write([{"id": 1, "xp": 1, **WIDE}, {"id": 2, **hero(name="n" * 255)}])
    before = witness.state()

    for _ in range(2):
        for values in ([1] * 1_600, [1] * 600, [1] * 10_000):
            rejected = service.read(values, use_cache)
            assert_too_large(rejected, "SQLS: the answer would have")
            assert "at most 6000000; ask for fewer values" in rejected.message
        assert len(service.read([1] * 450, use_cache).rows) == 450
        assert len(service.read([2] * 10_000, use_cache).rows) == 10_000

    assert service.invoke({"REQUEST": "read", "SQLS": [1] * 600})["statusCode"] == 413
    assert witness.state() == before


def test_a_lookup_with_too_many_rows_is_refused(service: InProcess, witness: Witness) -> None:
    """More than could ever fit are not even fetched; fewer are counted in bytes."""
    columns = "hero, power, name, xp, color"
    service.write([{"hero": "", "power": "", "name": "", "xp": 5, "color": ""}], use_cache=False)
    for _ in range(17):
        witness.query(f"INSERT INTO heroes ({columns}) SELECT {columns} FROM heroes")
    for _ in range(4):
        assert len(service.write([{"xp": 6, **WIDE}] * 400, use_cache=False).ids) == 400

    assert_too_large(service.read([5], use_cache=False, BY="xp"), "rows have these xp values")
    for use_cache in (False, True, True):
        assert_too_large(service.read([6], use_cache, BY="xp"), "the answer would have")


@pytest.mark.both_engines
def test_a_row_as_wide_as_its_columns_is_cached_and_read(
    lasting_generations: None, service: InProcess, witness: Witness
) -> None:
    row = {"id": 1, "xp": 2**31 - 1, **WIDE}
    service.write([row])

    for _ in range(2):
        assert service.read([1]).rows == [as_stored(1, row)]
    with witness.spent() as spent:
        service.read([1])
    assert spent.statements == 0
