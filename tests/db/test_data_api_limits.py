"""The limits of the Data API, from the side of the service: what just fits into a call is sent in
one, and what does not is cut before it is sent."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from chalicelib.db import batches
from chalicelib.db.data_api import connection
from chalicelib.tables import HEROES, NO_KEY
from local.servers import DataApi
from tests.conftest import Configure
from tests.support.client import Answer, InProcess, Row, as_stored, hero, heroes
from tests.support.data_api import UNUSED, spent
from tests.support.witness import Witness
from tests.sync.clients import run, watch

LONG = ("hero", "power", "name", "color")
# Four bytes each in UTF-8; and six each in JSON.
LONGEST = {"wide": "\U0001f320" * 255, "control": "\x01" * 255}


@pytest.fixture
def service(witness: Witness, configure: Configure, data_api: DataApi) -> Iterator[InProcess]:
    configure(**data_api.environment(), **UNUSED)
    yield InProcess()
    data_api.control(reset=True)  # an open transaction would keep the next test from its tables


def in_utf8(service: InProcess, rows: list[Row]) -> Answer:
    """A write whose body has no escapes where it needs none."""
    request = {"REQUEST": "write", "SQLS": rows}
    return service.send(json.dumps(request, ensure_ascii=False).encode())


def long_heroes(text: str, count: int) -> list[Row]:
    return [hero(**dict.fromkeys(LONG, text)) for _ in range(count)]


def read_whole(service: InProcess, whole: list[Row], use_cache: bool) -> None:
    """In parts, because they do not fit into one answer of the service."""
    for start in range(0, len(whole), 400):
        part = whole[start : start + 400]
        assert service.read([row["id"] for row in part], use_cache).rows == part
    page: list[Row] = []
    while page := service.read(
        [10], use_cache, BY="xp", LIMIT=400, **({"AFTER": page[-1]["id"]} if page else {})
    ).rows:
        assert page == whole[:400]
        whole = whole[400:]
    assert whole == []


@pytest.mark.parametrize("name", [pytest.param("wide", marks=pytest.mark.proof), "control"])
def test_a_thousand_of_the_longest_rows_go_in_and_out(
    service: InProcess, witness: Witness, name: str
) -> None:
    rows = long_heroes(LONGEST[name], 1_000 if name == "wide" else 950)
    added = in_utf8(service, rows).ids
    assert added == list(range(added[0], added[0] + len(rows)))
    whole = [as_stored(id, row) for id, row in zip(added, rows)]

    read_whole(service, whole, use_cache=True)
    witness.forget_cached()
    for _ in range(2):
        read_whole(service, whole, use_cache=False)

    other = [{"id": row["id"], **hero(xp=11)} for row in whole]
    assert in_utf8(service, other).ids == added
    assert service.read(added).rows == [as_stored(row["id"], row) for row in other]
    assert in_utf8(service, [{**row, "id": id} for id, row in zip(added, rows)]).ids == added
    read_whole(service, whole, use_cache=True)
    assert service.delete(added).deleted == added
    assert witness.count() == 0


def test_a_statement_is_cut_where_a_call_is_full_to_the_byte(
    service: InProcess, data_api: DataApi
) -> None:
    """The server takes at most 4 MiB."""

    def sent_bytes(row: Row) -> int:
        values = (NO_KEY, *HEROES.parse_many([row])[0][1:])
        return len(json.dumps(values)) + len(values) * batches._BYTES_BESIDE_VALUE

    [whole] = long_heroes(LONGEST["wide"], 1)
    count, left = divmod(connection.MAX_STATEMENT_BYTES, sent_bytes(whole))
    assert count > 200
    empty = hero(**dict.fromkeys(LONG, ""))
    wide, plain = divmod(left - sent_bytes(empty), len(json.dumps(LONGEST["wide"][0])) - 2)
    service.write([hero()])
    costs = []
    for more in (0, 1):
        text = LONGEST["wide"][0] * wide + "a" * (plain + more)
        texts = [text[start : start + 255] for start in range(0, 4 * 255, 255)]
        rows = [whole] * count + [hero(**dict(zip(LONG, texts)))]
        assert sum(map(sent_bytes, rows)) == connection.MAX_STATEMENT_BYTES + more
        data_api.control(reset=True)
        ids = in_utf8(service, rows).ids
        costs.append(spent(data_api)["ExecuteStatement"])
        assert ids == list(range(ids[0], ids[0] + len(rows)))
        assert service.read(ids[-1:], use_cache=False).rows == [as_stored(ids[-1], rows[-1])]
    assert costs == [5, 8], "of two statements each tells its first key"


def test_an_answer_is_cut_where_one_is_full(
    service: InProcess, data_api: DataApi, witness: Witness
) -> None:
    fitting = batches.most_rows(connection.Connection(None, 1, False, ()), HEROES)  # type: ignore[arg-type]
    ids = in_utf8(service, long_heroes(LONGEST["wide"], fitting + 1)).ids
    for count in (fitting, fitting + 1):
        data_api.control(reset=True)
        assert len(service.read(ids[:count], use_cache=False).rows) == count
        assert spent(data_api) == {"ExecuteStatement": 1 + (count > fitting)}


@pytest.mark.proof
@pytest.mark.parametrize("use_cache", [True, False], ids=["cached", "uncached"])
@pytest.mark.parametrize("by", [pytest.param("id", marks=pytest.mark.proof), "xp"])
def test_as_many_values_are_read_as_a_request_may_name(
    service: InProcess, by: str, use_cache: bool
) -> None:
    """The names of so many parameters make more SQL than a call may have."""
    service.write([{"id": row["xp"], **row} for row in heroes(1_000)])
    service.invalidate()

    found = service.read(range(1, 10_001), use_cache, BY=by)

    assert [row["id"] for row in found.rows] == list(range(1, 1_001))
    assert len(found.missing) == 9_000


def test_a_lookup_of_many_values_is_in_the_order_of_the_keys(service: InProcess) -> None:
    """Whichever statement found a row."""
    service.write([{"id": id, **hero(xp=-id % 7)} for id in range(1, 50)])

    rows = service.read([5, 1, *range(100, 9_000)], use_cache=False, BY="xp").rows

    assert [(row["xp"], row["id"]) for row in rows] == sorted(
        [(row["xp"], row["id"]) for row in rows], key=lambda each: (-each[0], each[1])
    )
    assert len(rows) == 14


# --- rows that are longer than declared, up to what one answer holds ------------------------------


@pytest.fixture
def roomy(witness: Witness) -> Iterator[Callable[..., list[Row]]]:
    """Puts rows there whose power has these lengths, where the column is longer than declared."""

    def put(*lengths: int) -> list[Row]:
        witness.query("DELETE FROM heroes")
        for id, length in enumerate(lengths, 1):
            values = [id, "a", length, "c", 7, "d"]
            witness.query("INSERT INTO heroes VALUES (%s, %s, REPEAT('b', %s), %s, %s, %s)", values)
        stored = [hero(hero="a", power="b" * n, name="c", xp=7, color="d") for n in lengths]
        return [as_stored(id, row) for id, row in enumerate(stored, 1)]

    witness.query("ALTER TABLE heroes MODIFY power MEDIUMTEXT NOT NULL")
    yield put
    witness.query("DELETE FROM heroes")
    witness.query("ALTER TABLE heroes MODIFY power VARCHAR(255) NOT NULL")


def highest(holds: Callable[[int], bool], low: int, high: int) -> int:
    """The highest number from `low` on and below `high` for which `holds`; it does for `low`."""
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low


@pytest.mark.parametrize("by", ["id", "xp"])
def test_an_answer_just_under_1_mib_is_one_call_and_one_just_over_is_cut(
    service: InProcess, data_api: DataApi, roomy: Callable[..., list[Row]], by: str
) -> None:
    service.read([1], use_cache=False)

    def calls(last: int) -> int:
        rows = roomy(*[60_000] * 17, last)
        data_api.control(reset=True)
        values = [row["id"] for row in rows] if by == "id" else [7]
        assert service.read(values, use_cache=False, BY=by).rows == rows
        return spent(data_api)["ExecuteStatement"]

    most = highest(lambda last: calls(last) == 1, 1_000, 60_000)

    assert 2**20 - 5_000 < 17 * 60_000 + most < 2**20
    assert calls(most + 1) >= 3, "one that is refused, and its parts"


def test_a_row_just_under_64_kib_is_read_and_of_one_just_over_the_reason_is_told(
    service: InProcess, roomy: Callable[..., list[Row]]
) -> None:
    def status(length: int) -> int:
        roomy(10, length)
        return service.read([1, 2], use_cache=False).status

    most = highest(lambda length: status(length) == 200, 65_000, 66_000)

    assert 65_536 - 50 < most < 65_536
    roomy(10, most + 1)
    for answer in (
        service.read([1, 2], use_cache=False),
        service.read([2]),
        service.read([7], BY="xp"),
        service.write([{"id": 2, **hero()}]),
        service.delete([2]),
    ):
        assert (answer.status, answer.error) == (413, "TooLarge")
        assert "longer than declared" in answer.message
    assert len(service.read([1]).rows) == 1


@pytest.mark.parametrize("keys", [["*"], [*range(1, 41)]], ids=["every row", "one by one"])
def test_rows_that_are_too_long_together_for_a_run_of_the_sync_are_read_a_few_at_a_time(
    service: InProcess, roomy: Callable[..., list[Row]], witness: Witness, keys: list[object]
) -> None:
    rows = roomy(*[60_000] * 40)
    watch(service, keys, "to_cache", TABLE="heroes")

    record = run("heroes")

    assert (record["outcome"], record["to_cache"]["changed"]) == ("done", len(rows))
    names = [f"Hero:{row['id']}" for row in rows]
    stored: Any = witness.redis.mget(names)
    assert [json.loads(text) for text in stored] == rows


def test_rows_that_are_too_long_together_for_a_write_are_changed_a_few_at_a_time(
    service: InProcess, data_api: DataApi, roomy: Callable[..., list[Row]]
) -> None:
    rows = [{"id": row["id"], **hero()} for row in roomy(*[60_000] * 20)]

    rejected = service.write(rows)

    assert (rejected.status, rejected.error) == (413, "TooLarge")
    assert "fewer at a time" in rejected.message
    assert data_api.control()["transactions"] == 0
    for part in (rows[:10], rows[10:]):
        assert len(service.write(part).ids) == 10
    assert service.read(range(1, 21)).rows == rows
