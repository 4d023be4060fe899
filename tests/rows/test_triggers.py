"""Triggers that change a row before it is written: the cache holds what the table does."""

from collections.abc import Iterator
from typing import Any

import pytest

from chalicelib import services
from chalicelib.cache.entries import Cache
from local.servers import MariaDB
from tests.conftest import Configure
from tests.support.client import InProcess, as_stored, hero
from tests.support.database_users import user_who_sees_no_triggers
from tests.support.witness import Witness


@pytest.fixture
def trigger(service: InProcess, witness: Witness, configure: Configure) -> Iterator[None]:
    """Halves the xp of every hero that is written."""
    for event in ("INSERT", "UPDATE"):
        witness.query(
            f"CREATE TRIGGER halve_{event} BEFORE {event} ON heroes FOR EACH ROW SET"
            " NEW.color = LOWER(NEW.color), NEW.xp = IF(NEW.xp >= 100, NEW.xp DIV 2, NEW.xp)"
        )
    configure()
    yield
    for event in ("INSERT", "UPDATE"):
        witness.query(f"DROP TRIGGER IF EXISTS halve_{event}")


def assert_cached_is_stored(service: InProcess, ids: list[int], *values: int) -> None:
    for use_cache in (True, True):
        assert service.read(ids, use_cache).rows == service.read(ids, use_cache=False).rows
        for xp in values:
            cached = service.read([xp], use_cache, BY="xp")
            stored = service.read([xp], use_cache=False, BY="xp")
            assert (cached.rows, cached.missing) == (stored.rows, stored.missing)


@pytest.mark.usefixtures("trigger")
@pytest.mark.parametrize("use_cache", [True, False])
@pytest.mark.parametrize("given", [{}, {"id": 7}])
def test_a_row_that_a_trigger_changes_is_cached_as_it_is_stored(
    service: InProcess, given: dict[str, int], use_cache: bool
) -> None:
    service.write([hero(xp=1)])
    for xp in (50, 60, 100, 120):
        service.read([xp], BY="xp")

    [id] = service.write([{**given, **hero(xp=100, color="RED")}], use_cache).ids

    assert service.read([id]).rows == [as_stored(id, hero(xp=50, color="red"))]
    assert_cached_is_stored(service, [id], 50, 60, 100, 120)
    assert [row["id"] for row in service.read([50], BY="xp").rows] == [id]

    service.write([{"id": id, **hero(xp=120, color="RED")}], use_cache)

    assert service.read([id]).rows == [as_stored(id, hero(xp=60, color="red"))]
    assert_cached_is_stored(service, [id], 50, 60, 100, 120)
    assert service.read([50], BY="xp").missing == [50]
    assert service.delete([id]).deleted == [id]
    assert_cached_is_stored(service, [id], 50, 60)


@pytest.mark.usefixtures("trigger")
def test_the_entry_of_the_stored_value_is_fenced_before_the_row_can_be_read(
    service: InProcess, witness: Witness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fence for the value that the request has would leave that entry to be filled meanwhile."""
    service.write([hero(xp=50)])
    service.read([50], BY="xp")
    publish_many = Cache.publish_many
    shown_meanwhile: list[bytes] = []

    def shown() -> list[bytes]:
        keys = [key for key in witness.entries() if b":xp:" in key]
        return [key for key in keys if int(key.rpartition(b":")[2]) == 50]

    def publish(*arguments: Any) -> None:
        shown_meanwhile.extend(shown())
        publish_many(*arguments)

    assert shown()
    monkeypatch.setattr(Cache, "publish_many", publish)

    assert len(service.write([hero(xp=100)]).ids) == 1
    assert shown_meanwhile == []
    assert len(service.read([50], BY="xp").rows) == 2


@pytest.mark.usefixtures("trigger")
def test_a_repeated_write_lifts_the_entries_of_the_stored_rows(
    service: InProcess, witness: Witness
) -> None:
    request = {"REQUEST": "write", "IDEMPOTENCY_KEY": "k", "SQLS": [hero(xp=100)]}
    service.read([50], BY="xp")

    [id] = service.post(request).ids
    assert service.post(request).ids == [id]

    assert_cached_is_stored(service, [id], 50, 100)


@pytest.mark.usefixtures("trigger")
def test_rows_are_cached_as_stored_where_the_user_cannot_see_triggers(
    service: InProcess, mariadb: MariaDB, configure: Configure
) -> None:
    with user_who_sees_no_triggers(mariadb, configure):
        [id] = service.write([hero(xp=100)]).ids

        assert_cached_is_stored(service, [id], 50, 100)
        assert services.container().database._schema_check._rewriting == {"heroes"}


def test_nothing_is_read_back_from_a_table_without_triggers(service: InProcess) -> None:
    service.write([hero()])

    assert services.container().database._schema_check._rewriting == set()


def test_a_trigger_that_changes_keys_is_refused(service: InProcess, witness: Witness) -> None:
    witness.query(
        "CREATE TRIGGER shift BEFORE INSERT ON heroes FOR EACH ROW"
        " SET @last = IFNULL(@last, 0) + 10, NEW.id = @last"
    )
    try:
        for rows in ([hero(), hero()], [{"id": 7, **hero()}]):
            answer = service.write(rows)
            assert (answer.status, answer.error) == (500, "SchemaMismatch"), answer.text
            assert "a trigger that changes id" in answer.message
            assert witness.count() == 0
    finally:
        witness.query("DROP TRIGGER shift")
