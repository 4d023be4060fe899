"""A run also brings to the cache what other clients of the database changed."""

from typing import Any

import pytest

from tests.support.client import InProcess, heroes
from tests.support.witness import Witness


def run(**event: object) -> Any:
    import app

    return app.sync({"table": "heroes", **event}, None)


@pytest.mark.usefixtures("triggers")
def test_plain_sql_by_a_condition_without_a_key_is_seen_after_one_run(
    service: InProcess, witness: Witness
) -> None:
    service.write(heroes(4))
    for _ in range(2):
        service.read([1, 2, 3, 4])
        service.read([2, 99], BY="xp")
    witness.query("UPDATE heroes SET xp = 99 WHERE name = 'Ada 2'")

    assert run()["outcome"] == "done"

    assert [row["xp"] for row in service.read([1, 2]).rows] == [1, 99]
    assert [row["id"] for row in service.read([99], BY="xp").rows] == [2]
    assert service.read([2], BY="xp").missing == [2]
    assert witness.query("SELECT COUNT(*) FROM changed_entries") == [(0,)]


def test_a_run_tells_where_such_changes_are_not_recorded(service: InProcess) -> None:
    told = run()["unrecorded"]
    assert list(told) == ["heroes"]
    assert "trigger" in told["heroes"]
