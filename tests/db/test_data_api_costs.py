"""How many calls of the Data API a request costs."""

from collections.abc import Iterator

import pytest

from app import employees
from local.servers import DataApi
from tests.conftest import Configure
from tests.support.client import InProcess, Row, hero, heroes
from tests.support.data_api import UNUSED, spent
from tests.support.witness import Witness

WARM_CALLS: dict[str, tuple[Row, int]] = {
    "cached read": ({"REQUEST": "read", "SQLS": [1, 2, 1]}, 0),
    "cached read by a lookup": ({"REQUEST": "read", "SQLS": [1], "BY": "xp"}, 0),
    "uncached read": ({"REQUEST": "read", "SQLS": [*range(1, 101)], "USE_CACHE": "False"}, 1),
    "miss": ({"REQUEST": "read", "SQLS": [*range(50, 100)]}, 1),
    # BEGIN, the generation, INSERT, the keys, what the lookup shows, COMMIT, the time.
    "insert": ({"REQUEST": "write", "SQLS": heroes(100)}, 7),
    # Nothing is shown, so no time is needed behind the COMMIT.
    "insert without lookups": (
        {
            "REQUEST": "write",
            "TABLE": "products",
            "SQLS": [{"ProductName": "", "Description": "", "QuantityInStock": 1, "Price": 1}],
        },
        6,
    ),
    # BEGIN, the generation, the rows, INSERT, the time, what the lookup shows, COMMIT, the time.
    "replace": ({"REQUEST": "write", "SQLS": [{"id": 1, **hero()}]}, 8),
    "delete": ({"REQUEST": "delete", "SQLS": [1, 2]}, 7),
}


@pytest.fixture
def service(witness: Witness, configure: Configure, data_api: DataApi) -> Iterator[InProcess]:
    configure(**data_api.environment(), **UNUSED)
    yield InProcess()
    data_api.control(reset=True)  # an open transaction would keep the next test from its tables


@pytest.mark.usefixtures("lasting_generations")
@pytest.mark.parametrize("name", WARM_CALLS)
def test_a_warm_request_costs_so_many_calls(
    service: InProcess, data_api: DataApi, name: str
) -> None:
    request, expected = WARM_CALLS[name]
    for table in ("heroes", "products"):
        service.read([1], TABLE=table)
    service.write([{"id": row["xp"], **row} for row in heroes(20)])
    service.write(WARM_CALLS["insert without lookups"][0]["SQLS"], TABLE="products")
    service.read([1, 2])
    service.read([1], BY="xp")
    data_api.control(reset=True)

    assert service.post(request).status == 200

    calls = spent(data_api)
    assert sum(calls.values()) == expected, calls


def test_a_thousand_employees_cost_few_calls(service: InProcess, data_api: DataApi) -> None:
    """Also in a cold container, the list of all included."""
    data_api.control(reset=True)
    listed = [{"EmpId": f"E{i:04}", "EmpName": f"Ada {i}"} for i in range(1_000)]
    assert len(employees({"Employees": listed}, None)) == 1_000
    assert sum(spent(data_api).values()) <= 25
