"""For any rows, the cached, the uncached and the just written answer are the same bytes.

And any text comes back as the text it is, SQL, JSON and Redis commands included.
"""

from collections.abc import Sequence

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.client import InProcess, Row, as_stored, hero
from tests.support.witness import Witness

# The servers outlive an example on purpose: rows of earlier ones are decoys.
bounded = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

ABOVE_ALL_IDS = st.integers(4_000_000_000, 2**32 - 1)
INT = st.integers(-(2**31), 2**31 - 1)
# Every code point but NUL and the halves of surrogate pairs.
TEXT = st.text(
    st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=255
) | st.sampled_from(["", " ", "  padded  ", '"', "\\", "\\'", "null", "🦊" * 255, "\x7f\x01\r\n"])
HERO = st.fixed_dictionaries(
    {
        "hero": TEXT,
        "power": TEXT,
        "name": TEXT,
        "xp": INT | st.integers(-3, 3) | INT.map(str),
        "color": TEXT,
    }
)
KEY = TEXT.map(str.strip).filter(bool)


def assert_same_bytes(
    service: InProcess, witness: Witness, values: Sequence[object], **fields: str
) -> list[Row]:
    """The rows, that are the same four times: as the entries are now, empty, full and unused."""
    just_written = service.read(values, True, **fields)
    witness.forget_cached()
    cold = service.read(values, True, **fields)
    warm = service.read(values, True, **fields)
    uncached = service.read(values, False, **fields)

    assert just_written.content == cold.content == warm.content == uncached.content
    return uncached.rows


@given(rows=st.lists(HERO, min_size=1, max_size=6), absent=st.lists(ABOVE_ALL_IDS), data=st.data())
@bounded
def test_heroes_by_id(
    service: InProcess,
    witness: Witness,
    rows: list[Row],
    absent: list[int],
    data: st.DataObject,
) -> None:
    ids = service.write(rows).ids
    stored = {id: as_stored(id, {**row, "xp": int(row["xp"])}) for id, row in zip(ids, rows)}
    values = data.draw(st.lists(st.sampled_from([*ids, *map(str, ids), *absent]), max_size=12))

    read = assert_same_bytes(service, witness, values)

    assert read == [stored[int(value)] for value in values if int(value) in stored]


@given(
    rows=st.lists(HERO, min_size=1, max_size=6), absent=st.lists(INT, max_size=3), data=st.data()
)
@bounded
def test_heroes_by_xp(
    service: InProcess, witness: Witness, rows: list[Row], absent: list[int], data: st.DataObject
) -> None:
    service.write(rows)
    xps = [row["xp"] for row in rows]
    values = data.draw(st.lists(st.sampled_from([*xps, *absent]), max_size=8))

    read = assert_same_bytes(service, witness, values, BY="xp")

    of_the_table = witness.query("SELECT xp, id FROM heroes ORDER BY id")
    expected = [id for value in values for xp, id in of_the_table if xp == int(value)]
    assert [row["id"] for row in read] == expected


@given(old=st.lists(HERO, min_size=1, max_size=5), data=st.data(), use_cache=st.booleans())
@bounded
def test_replaced_heroes(
    service: InProcess, witness: Witness, old: list[Row], data: st.DataObject, use_cache: bool
) -> None:
    ids = service.write(old).ids
    xps = [int(row["xp"]) for row in old]
    service.read(xps, BY="xp")
    new = [{"id": id, **data.draw(HERO)} for id in data.draw(st.permutations(ids))]
    service.write(new, use_cache)

    assert assert_same_bytes(service, witness, ids) == [
        as_stored(row["id"], {**row, "xp": int(row["xp"])})
        for row in sorted(new, key=lambda row: row["id"])
    ]
    service.read(xps, BY="xp")
    assert_same_bytes(service, witness, [*xps, *(row["xp"] for row in new)], BY="xp")


@given(names=st.dictionaries(KEY, TEXT, min_size=1, max_size=6), data=st.data())
@bounded
def test_employees_by_any_text(
    service: InProcess, witness: Witness, names: dict[str, str], data: st.DataObject
) -> None:
    service.write(
        [{"EmpId": key, "EmpName": name} for key, name in names.items()], TABLE="employees"
    )
    values = data.draw(st.lists(st.sampled_from(list(names)), max_size=12))

    read = assert_same_bytes(service, witness, values, TABLE="employees")

    assert read == [{"EmpId": value, "EmpName": names[value]} for value in values]


TEXTS = [
    "'; DROP TABLE heroes; --",
    "' OR '1'='1",
    '" OR 1=1 #',
    "x'), (1, 'a', 'b', 'c', 1, 'd'); -- ",
    "\\'; DELETE FROM heroes; -- ",
    "\\",
    "%s %d %(name)s {} {0} %%",
    "' UNION SELECT user, password, 1, 1, 1, 1 FROM mysql.user -- ",
    "/*!50000 SLEEP(5) */",
    "0x53514c",
    "NULL",
    "\r\nFLUSHALL\r\n*1\r\n$8\r\nFLUSHALL\r\n",
    "*2\r\n$3\r\nDEL\r\n",
    '{"id": 1}, {"id": 2}',
    '"},{"id":1,"hero":"',
    "</script><script>alert(1)</script>",
    "\u2028\u2029\ufeff\u202e",
    "é e\u0301 ｅ",
    "_%[a-z]*?",
    "-0 NaN Infinity",
]


@pytest.mark.parametrize("text", TEXTS)
def test_any_text_comes_back_as_the_text_it_is(
    service: InProcess, witness: Witness, text: str
) -> None:
    decoy = service.write([hero()]).ids
    row = dict.fromkeys(("hero", "power", "name", "color"), text)
    [id] = service.write([{**row, "xp": 1}]).ids
    employee = {"EmpId": text.strip(), "EmpName": text}
    service.write([employee], TABLE="employees")

    stored = as_stored(id, {**row, "xp": 1})
    assert assert_same_bytes(service, witness, [id]) == [stored]
    service.write([{**stored, "xp": 2}])
    assert assert_same_bytes(service, witness, [2], BY="xp") == [{**stored, "xp": 2}]
    keys = [text.strip()]
    assert assert_same_bytes(service, witness, keys, TABLE="employees") == [employee]
    assert len(service.read(decoy).rows) == 1
    assert (witness.count(), witness.count("employees")) == (2, 1)


@pytest.mark.parametrize("text", TEXTS)
def test_text_where_an_integer_or_a_name_belongs_is_refused(
    service: InProcess, witness: Witness, text: str
) -> None:
    before = witness.state()
    for answer in (
        service.read([text]),
        service.read([text], BY="xp"),
        service.read([1], BY=text),
        service.read([1], TABLE=text),
        service.write([hero(xp=text)]),
        service.write([{"id": text, **hero()}]),
        service.write([hero(**{text: 1})]),
        service.write([hero()], TABLE=text),
        service.post({"REQUEST": text, "SQLS": []}),
        service.post({"REQUEST": "read", "SQLS": [], text: 1}),
    ):
        assert (answer.status, answer.error) == (400, "BadRequest")
    assert witness.state() == before
