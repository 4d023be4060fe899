"""What a request costs, by the servers' own counters. The app is warm: it has its connections."""

import pytest

from tests.client import InProcess, heroes
from tests.conftest import Configure
from tests.witness import Witness

BATCH = 40


@pytest.fixture
def service(service: InProcess) -> InProcess:
    """Warm, with heroes 1 to 40 in the table and none in the cache."""
    service.write([{"id": row["xp"], **row} for row in heroes(BATCH)], use_cache=False)
    service.read([1])
    return service


@pytest.fixture
def values(service: InProcess, witness: Witness) -> list[int]:
    witness.forget_cached()
    return list(range(1, BATCH + 1))


by_id_and_by_xp = pytest.mark.parametrize("by", ["id", "xp"])


@by_id_and_by_xp
def test_a_batch_that_hits_costs_one_redis_round_trip_and_no_statement(
    service: InProcess, witness: Witness, values: list[int], by: str
) -> None:
    service.read(values, BY=by)

    with witness.spent() as spent:
        answer = service.read([*reversed(values), 1, 1], BY=by)

    assert len(answer.rows) == BATCH + 2
    assert spent.commands == {"mget": 1}
    assert spent.cache_round_trips == 1
    assert spent.statements == 0


@by_id_and_by_xp
def test_an_uncached_batch_costs_one_statement_and_no_redis(
    service: InProcess, witness: Witness, values: list[int], by: str
) -> None:
    with witness.spent() as spent:
        assert len(service.read(values, use_cache=False, BY=by).rows) == BATCH

    assert spent.statements == 1
    assert spent.commands == {}


@by_id_and_by_xp
def test_a_batch_that_misses_costs_one_statement(
    service: InProcess, witness: Witness, values: list[int], by: str
) -> None:
    """However many it misses, and it is the last time."""
    service.read(values[:10], BY=by)

    with witness.spent() as first:
        assert len(service.read(values, BY=by).rows) == BATCH
    with witness.spent() as second:
        assert len(service.read(values, BY=by).rows) == BATCH

    assert first.statements == 1
    assert first.commands["mget"] == 1
    assert (second.statements, second.commands) == (0, {"mget": 1})


def test_only_missed_values_are_asked_of_the_database(
    service: InProcess, witness: Witness, values: list[int]
) -> None:
    service.read(values)

    with witness.logged() as statements:
        service.read([*values, 77, 78, 77])

    [select] = [text for text in statements if " FROM heroes " in text]
    assert select.partition(" IN ")[2] == "(77,78)"


@pytest.mark.parametrize("use_cache", [True, False], ids=["cached", "uncached"])
def test_new_rows_cost_one_statement(
    service: InProcess, witness: Witness, values: list[int], use_cache: bool
) -> None:
    with witness.spent() as spent:
        ids = service.write(heroes(BATCH), use_cache).ids

    assert len(ids) == BATCH
    assert spent.statements == 1
    with witness.spent() as read:
        service.read(ids)
    assert read.statements == (0 if use_cache else 1), "written through, or not"


def test_new_rows_without_lookups_cost_one_redis_round_trip(
    service: InProcess, witness: Witness
) -> None:
    row = {"ProductName": "Lamp", "Description": "", "QuantityInStock": 3, "Price": 5}

    with witness.spent() as spent:
        service.write([row] * 10, TABLE="products")

    assert spent.commands == {"set": 10}
    assert spent.cache_round_trips == 1
    assert spent.statements == 1


def test_an_empty_batch_costs_nothing(service: InProcess, witness: Witness) -> None:
    with witness.spent() as spent:
        service.read([])
        service.write([])
        service.read([], use_cache=False)

    assert (spent.statements, spent.commands) == (0, {})


def test_a_warm_app_opens_no_new_connection(
    service: InProcess, witness: Witness, values: list[int]
) -> None:
    with witness.spent() as spent:
        for use_cache in (True, False, True):
            service.read(values, use_cache)
            service.read(values, use_cache, BY="xp")
            service.write(heroes(3), use_cache)
            service.write([{"id": 1, **heroes(1)[0]}], use_cache)
            service.read([0])  # refused
            service.read([99])

    assert spent.database_connections == 0
    assert spent.cache_connections == 0


def test_a_cold_app_opens_one_connection_to_each_server(
    service: InProcess, witness: Witness, values: list[int], configure: Configure
) -> None:
    configure()

    with witness.spent() as spent:
        service.read(values)

    assert spent.database_connections == 1
    assert spent.cache_connections == 1


def test_an_app_without_cache_opens_no_connection_to_redis(
    service: InProcess, witness: Witness, values: list[int], configure: Configure
) -> None:
    configure(REDIS_URL=None)

    with witness.spent() as spent:
        service.read(values)
        service.write(heroes(2))
        service.write([{"id": 1, **heroes(1)[0]}])

    assert spent.cache_connections == 0
    assert spent.commands == {}
