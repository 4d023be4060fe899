"""One contract on every Redis people run: one node, TLS, a user with few rights, clusters, Valkey.

Valkey is among them where it is installed. The servers count rows, entries and round trips.
"""

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from chalicelib.cache import timeouts
from chalicelib.tables import TABLES
from local.machine import find_program
from tests.conftest import Configure
from tests.support.certificates import Authority
from tests.support.client import InProcess, Row, as_stored, hero, heroes
from tests.support.topologies import READS, Topology, cluster, one_node, start_afresh
from tests.support.witness import Witness

BATCH = 100
Topologies = dict[str, Callable[[Path], contextlib.AbstractContextManager[Topology]]]

TOPOLOGIES: Topologies = {
    "one node": one_node,
    "TLS": lambda home: one_node(home, authority=Authority(home / "ca")),
    "user and password": lambda home: one_node(home, is_locked=True),
    "cluster": cluster,
    "cluster with TLS and password": lambda home: cluster(
        home, authority=Authority(home / "ca"), is_locked=True
    ),
}
VALKEY: Topologies = {
    "Valkey": lambda home: one_node(home, program="valkey-server"),
    "Valkey cluster": lambda home: cluster(home, program="valkey-server"),
}
if find_program("valkey-server"):
    TOPOLOGIES |= VALKEY


@pytest.fixture(scope="module", params=TOPOLOGIES)
def topology(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Topology]:
    with TOPOLOGIES[request.param](tmp_path_factory.mktemp("topology")) as topology:
        yield topology


@pytest.fixture
def service(
    witness: Witness, configure: Configure, topology: Topology, monkeypatch: pytest.MonkeyPatch
) -> InProcess:
    """On an empty table and an empty Redis of this topology, which it has met. Patient: how long
    a busy machine takes is not what these tests are about."""
    monkeypatch.setattr(timeouts, "TIMEOUT_SECONDS", 5)
    start_afresh(witness, topology)
    configure(**topology.settings())
    service = InProcess()
    for table in TABLES:
        service.read(["1"], TABLE=table)
        service.read(["1"], TABLE=table)
    return service


def stored(count: int, **columns: object) -> list[Row]:
    """Heroes 1 to `count`, each with an xp of its own."""
    return [as_stored(row["xp"], {**row, **columns}) for row in heroes(count)]


def in_the_table(witness: Witness, count: int) -> list[Row]:
    """Heroes 1 to `count`, put there behind the cache's back."""
    rows = stored(count)
    witness.query(
        f"INSERT INTO heroes VALUES {','.join(['%s'] * count)}", [(*row.values(),) for row in rows]
    )
    return rows


def assert_cached(
    service: InProcess, witness: Witness, values: Sequence[object], rows: list[Row], **fields: str
) -> None:
    """The answer is `rows`, and the database was not asked for one."""
    with witness.logged() as statements:
        assert service.read(values, True, **fields).rows == rows

    selects = [text for text in statements if "SELECT" in text]
    assert not [text[:100] for text in selects if "cache_generation" not in text]


@pytest.mark.parametrize("by", ["id", "xp"])
def test_a_read_misses_once_and_then_hits(
    service: InProcess, witness: Witness, topology: Topology, by: str
) -> None:
    rows = in_the_table(witness, BATCH)
    values = list(range(1, BATCH + 1))
    assert service.read([*values, 9999], BY=by).rows == rows
    again = [*rows[::-1], rows[6], rows[6]]
    assert_cached(service, witness, [*reversed(values), 7, 7], again, BY=by)
    assert len(topology.entries()) == BATCH


def test_written_rows_are_cached_before_anyone_reads_them(
    service: InProcess, witness: Witness
) -> None:
    rows = heroes(BATCH)
    ids = service.write(rows).ids

    expected = [as_stored(id, row) for id, row in zip(ids, rows)]
    assert_cached(service, witness, ids, expected)
    assert service.read(range(1, BATCH + 1), BY="xp").rows == expected


def test_a_replacement_is_seen_by_id_and_by_both_xp_at_once(
    service: InProcess, witness: Witness
) -> None:
    service.write(stored(BATCH))
    service.read(range(1, BATCH + 1), BY="xp")
    changed = [{**row, "xp": 1000, "name": "changed"} for row in stored(BATCH)]

    assert service.write(changed).ids == list(range(1, BATCH + 1))

    assert_cached(service, witness, list(range(1, BATCH + 1)), changed)
    assert service.read([1, 2, 3], BY="xp").missing == [1, 2, 3]
    assert service.read([1000], BY="xp").rows == changed
    assert_cached(service, witness, [1000], changed, BY="xp")


def test_a_deleted_row_is_gone_by_id_and_by_xp(service: InProcess, witness: Witness) -> None:
    rows = stored(BATCH)
    service.write(rows)
    for by in ("id", "xp"):
        assert len(service.read(range(1, BATCH + 1), BY=by).rows) == BATCH

    assert service.delete([9999, *range(2, BATCH + 1)]).deleted == list(range(2, BATCH + 1))

    for by in ("id", "xp"):
        answer = service.read(range(1, BATCH + 1), BY=by)
        assert answer.rows == rows[:1]
        assert answer.missing == list(range(2, BATCH + 1))


@pytest.mark.parametrize("count", [1000, 10_000])
def test_a_large_batch_is_filled_and_read(
    service: InProcess, witness: Witness, topology: Topology, count: int
) -> None:
    rows = in_the_table(witness, count)
    values = list(range(1, count + 1))
    for by in ("id", "xp"):
        assert service.read(values, BY=by).rows == rows
        assert_cached(service, witness, values, rows, BY=by)


def test_values_that_all_share_a_bucket_are_filled_and_read(
    service: InProcess, witness: Witness
) -> None:
    """In a cluster they are all on one server."""
    rows = [as_stored(16 * row["xp"], row) for row in heroes(10_000)]
    values = [int(row["id"]) for row in rows]
    for start in range(0, len(rows), 1000):
        service.write(rows[start : start + 1000])
    assert_cached(service, witness, values, rows)


def test_a_raised_generation_makes_every_entry_unreachable(
    service: InProcess, witness: Witness, topology: Topology, configure: Configure
) -> None:
    service.write(stored(BATCH))
    service.read([1], BY="xp")
    witness.query("UPDATE heroes SET name = 'loaded in bulk'")
    witness.query("UPDATE cache_generation SET generation = generation + 1")
    configure(**topology.settings())  # a container that does not remember the last one

    expected = stored(BATCH, name="loaded in bulk")
    assert service.read(range(1, BATCH + 1)).rows == expected
    assert service.read([1], BY="xp").rows == expected[:1]
    assert_cached(service, witness, list(range(1, BATCH + 1)), expected)


def test_any_unicode_comes_back_as_it_was_written(service: InProcess, witness: Witness) -> None:
    texts = ["日本", "😀", 'quo"te\\', "\u2028", "e\u0301", "ÿþ", "\x7f\x01", "{heroes.0}", "\r\n"]
    rows = [as_stored(i, hero(name=text, xp=-i)) for i, text in enumerate(texts, 1)]
    service.write(rows)
    assert_cached(service, witness, list(range(1, len(texts) + 1)), rows)
    people = [{"EmpId": f"{i}{text}.", "EmpName": text} for i, text in enumerate(texts)]
    assert service.write(people, TABLE="employees").ids == [person["EmpId"] for person in people]
    assert_cached(
        service, witness, [person["EmpId"] for person in people], people, TABLE="employees"
    )


def test_a_full_hit_costs_one_round_trip_to_each_server_at_most(
    service: InProcess, topology: Topology, lasting_generations: None
) -> None:
    """On one node it is one MGET; in a cluster one a bucket."""
    service.write(stored(BATCH))
    service.read(range(1, BATCH + 1))
    with topology.spent() as spent:
        service.read(range(1, BATCH + 1))

    total: Counter[str] = sum(spent, Counter())
    assert set(total) == {"mget", "persist", READS}, "the second one is refused by a replica"
    assert total["mget"] == (16 if topology.is_cluster else 1)
    assert len(spent) == (3 if topology.is_cluster else 1)
    if not topology.is_tls:  # there a server reads by records
        assert all(asked[READS] == 1 for asked in spent)
