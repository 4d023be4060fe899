"""What becomes of a `watch` and an `unwatch`: what they reject, and what they delete."""

import pytest

from tests.support.client import InProcess
from tests.sync.clients import ask, watched

ALONE = '"*" means every row, so it stands alone; send ["*"], or only keys'


@pytest.mark.parametrize("table", ["products", "employees"], ids=["integers", "texts"])
@pytest.mark.parametrize("request_", ["watch", "unwatch"])
@pytest.mark.parametrize(("keys", "place"), [(["*", "7"], 0), (["7", "*"], 1), (["*", "*"], 0)])
def test_every_row_stands_alone(
    service: InProcess, table: str, request_: str, keys: list[object], place: int
) -> None:
    direction = {"DIRECTION": "to_cache"}

    answer = ask(service, request_, TABLE=table, SQLS=keys, **direction)

    assert (answer.status, answer.message) == (400, f"SQLS[{place}]: {ALONE}")
    assert watched(service, TABLE=table) == []
