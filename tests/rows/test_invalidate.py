"""Rows that somebody else changed: stale until they are invalidated, never after."""

from collections.abc import Sequence

import pytest

from local.servers import MariaDB
from tests.conftest import Configure
from tests.support.client import InProcess, OverHttp, hero
from tests.support.witness import Witness

RESTORED = ("heroes", "cache_generation")


@pytest.fixture
def cached(service: InProcess) -> InProcess:
    """Heroes 1 to 3 with xp 1 to 3, in the cache by id and by xp."""
    service.write([{"id": i, **hero(xp=i)} for i in (1, 2, 3)])
    for by in ("id", "xp"):
        service.read([1, 2, 3], BY=by)
    return service


def change_elsewhere(witness: Witness) -> None:
    """As a SQL client does it: the service is told nothing."""
    witness.query("UPDATE heroes SET name = 'Elsewhere', xp = 9 WHERE id = 1")
    witness.query("DELETE FROM heroes WHERE id = 2")


@pytest.mark.both_engines
@pytest.mark.parametrize("keys", [[1, 2], ["1", "2"], ["*"], [3]], ids=str)
def test_after_an_invalidate_every_read_sees_what_was_changed_elsewhere(
    cached: InProcess, witness: Witness, keys: Sequence[object]
) -> None:
    """Also by the xp that a row had before: the row says nothing of it any more."""
    change_elsewhere(witness)
    assert cached.read([1]).rows[0]["name"] == "Ada", "a cached read knows nothing of it"

    answer = cached.invalidate(keys)

    assert (answer.status, answer.fields) == (
        200,
        {"statusCode": 200, "body": "invalidate success"},
    )
    for _ in range(2):
        read = cached.read([1, 2, 3])
        assert [(row["id"], row["name"]) for row in read.rows] == [(1, "Elsewhere"), (3, "Ada")]
        assert read.missing == [2]
        by_xp = cached.read([1, 2, 3, 9], BY="xp")
        assert [row["id"] for row in by_xp.rows] == [3, 1]
        assert by_xp.missing == [1, 2]


def test_another_process_sees_it_too_once_it_is_answered(
    cached: InProcess, witness: Witness, server_url: str
) -> None:
    """That one remembers the generation under which it has cached the row."""
    other = OverHttp(server_url)
    for _ in range(3):
        assert other.read([1]).rows[0]["name"] in ("Ada", "Elsewhere")
        change_elsewhere(witness)

        cached.invalidate([1])

        assert other.read([1]).rows[0]["name"] == "Elsewhere"
        cached.write([{"id": 1, **hero(xp=1)}])


def test_no_generation_comes_back_when_its_table_is_made_again(
    service: InProcess, witness: Witness, mariadb: MariaDB, configure: Configure
) -> None:
    """As by the command that an error about a missing table names."""

    def make_again() -> None:
        witness.query("DROP TABLE cache_generation")
        mariadb.apply_schema()
        configure()

    make_again()
    for name in ("Old", "New"):
        service.write([{"id": 1, **hero(name=name)}])
        service.read([1])
        service.invalidate()
    make_again()

    for _ in range(3):
        assert service.read([1]).rows[0]["name"] == "New"


def test_a_generation_that_the_service_adds_by_itself_is_new_too(
    cached: InProcess, witness: Witness, configure: Configure
) -> None:
    begin_a_minute_ago(witness)
    before, *_ = witness.generation()
    witness.query("DELETE FROM cache_generation WHERE table_name = 'heroes'")
    configure()

    assert cached.read([1]).status == 200

    after, *_ = witness.generation()
    assert after > before + 1


def test_no_keys_invalidate_nothing(cached: InProcess, witness: Witness) -> None:
    before = witness.generation()

    assert cached.invalidate([]).fields["body"] == "invalidate success"

    assert witness.generation() == before


def test_other_tables_stay_cached(cached: InProcess, witness: Witness) -> None:
    cached.write([{"EmpId": "E1", "EmpName": "Ada"}], TABLE="employees")

    cached.invalidate()

    with witness.logged() as statements:
        cached.read(["E1"], TABLE="employees")
    assert not any(" FROM employees " in sql for sql in statements)


def test_an_invalidate_works_without_a_cache_of_its_own(
    cached: InProcess, witness: Witness, server_url: str, configure: Configure
) -> None:
    """As from a job that has no way to Redis."""
    other = OverHttp(server_url)
    other.read([1])
    change_elsewhere(witness)
    configure(REDIS_URL=None)

    InProcess().invalidate(["*"])

    assert other.read([1]).rows[0]["name"] == "Elsewhere"


ALONE = '"*" means every row, so it stands alone; send ["*"], or only keys'


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({}, 'SQLS: missing; give a list of keys, or ["*"] for the whole table'),
        (
            {"SQLS": "*"},
            'SQLS: expected a list of keys, or ["*"] for the whole table, got a string',
        ),
        ({"SQLS": ["*", 1]}, f"SQLS[0]: {ALONE}"),
        ({"SQLS": [1, "*"]}, f"SQLS[1]: {ALONE}"),
        ({"SQLS": [0]}, "SQLS[0]: expected an integer from 1 to 4294967295, got 0"),
        ({"SQLS": [1], "BY": "xp"}, "BY: only a read has it; leave it out"),
        (
            {"SQLS": [1], "IDEMPOTENCY_KEY": "k"},
            "IDEMPOTENCY_KEY: an invalidate may be sent again without one; leave it out",
        ),
    ],
)
def test_a_wrong_invalidate_is_refused_and_invalidates_nothing(
    cached: InProcess, witness: Witness, request_: dict[str, object], message: str
) -> None:
    before = witness.generation()

    answer = cached.post({"REQUEST": "invalidate", **request_})

    assert (answer.status, answer.message) == (400, message)
    assert witness.generation() == before


def test_the_header_with_an_idempotency_key_does_no_harm(cached: InProcess) -> None:
    body = b'{"REQUEST": "invalidate", "SQLS": ["*"]}'

    assert cached.ask("POST", "/", {"Idempotency-Key": "k"}, body).status == 200


def begin_a_minute_ago(witness: Witness) -> None:
    """With numbers as the service gives them."""
    witness.query("UPDATE cache_generation SET generation = UNIX_TIMESTAMP() * 1000 - 60000")


def test_a_restore_brings_no_generation_back(
    service: InProcess, witness: Witness, configure: Configure
) -> None:
    """A dump of the database holds its generations too. What was cached under later ones since is
    not to be believed when these numbers are reached again."""
    begin_a_minute_ago(witness)
    configure()
    service.write([{"id": 1, **hero(xp=1)}])
    dump = {table: witness.query(f"SELECT * FROM {table}") for table in RESTORED}
    service.invalidate()
    service.write([{"id": 1, **hero(name="Lost", xp=1)}])
    for table, rows in dump.items():
        witness.query(f"DELETE FROM {table}")
        for row in rows:
            witness.query(f"INSERT INTO {table} VALUES %s", [row])

    service.invalidate()

    for by in ("id", "xp"):
        assert [row["name"] for row in service.read([1], BY=by).rows] == ["Ada"]
