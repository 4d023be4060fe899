"""Redis users with rights: what watched rows need, and no other right."""

import logging
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from chalicelib.errors import CacheUnavailable, HerocacheError
from tests.conftest import Configure
from tests.support.client import InProcess
from tests.support.pages import counted, increment, page, pages_table, stored
from tests.support.topologies import (
    ADMIN_PASSWORD,
    CLUSTER_RIGHTS,
    COUNTER_RIGHTS,
    MINIMAL_RIGHTS,
    PUBLIC_RIGHTS,
    Topology,
    cluster,
    one_node,
    start_afresh,
)
from tests.support.witness import Witness
from tests.sync.clients import RedisCli, run, use_every_public_key

# Each right is taken away once: a dozen servers and a cluster.
pytestmark = pytest.mark.proof

MAKERS = {"one node": one_node, "cluster": cluster}


@pytest.fixture(scope="module", params=MAKERS)
def shared(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Topology]:
    with MAKERS[request.param](tmp_path_factory.mktemp("rights"), is_locked=True) as topology:
        yield topology


@pytest.fixture
def locked(shared: Topology, witness: Witness, configure: Configure) -> Topology:
    start_afresh(witness, shared)
    configure(**shared.settings())
    for node in shared.masters:
        node.ask("ACL", "LOG", "RESET")
    return shared


@pytest.fixture
def cli(locked: Topology) -> Iterator[RedisCli]:
    """As the administrator."""
    kind: Any = redis.RedisCluster if locked.is_cluster else redis.Redis
    client = kind(host="127.0.0.1", port=locked.masters[0].port, password=ADMIN_PASSWORD)
    yield RedisCli(client)
    client.close()


def allow(topology: Topology, *rights: str) -> None:
    for node in topology.masters:
        node.allow((*rights, *CLUSTER_RIGHTS) if topology.is_cluster else rights)


def test_the_rights_are_enough_for_watched_rows(locked: Topology, cli: RedisCli) -> None:
    allow(locked, *MINIMAL_RIGHTS, *PUBLIC_RIGHTS)

    use_every_public_key(InProcess(), cli)

    assert [node.ask("ACL", "LOG") for node in locked.masters] == [[]] * len(locked.masters)


@pytest.mark.parametrize("shared", ["one node"], indirect=True)
@pytest.mark.parametrize("right", PUBLIC_RIGHTS)
def test_every_one_of_them_is_needed_and_a_run_says_so(
    locked: Topology, cli: RedisCli, right: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    allow(locked, *MINIMAL_RIGHTS, *[other for other in PUBLIC_RIGHTS if other != right])

    with pytest.raises((AssertionError, CacheUnavailable)):
        use_every_public_key(InProcess(), cli)

    assert "its user lacks a right" in caplog.text


def count_and_sync(service: InProcess, witness: Witness) -> None:
    for total in (11, 12):
        assert counted(increment(service, 1)) == [{"nr": 1, "views": total}]
        assert run("pages")["counted"] == 1
        assert stored(witness)[1] == total


PAGES_RIGHT = "~{pages.*}:*"


@pytest.mark.parametrize("right", ["none", *COUNTER_RIGHTS])
@pytest.mark.parametrize("shared", ["one node"], indirect=True)
def test_write_behind_counters_need_each_of_their_rights(
    locked: Topology, witness: Witness, monkeypatch: pytest.MonkeyPatch, right: str
) -> None:
    rights = [*MINIMAL_RIGHTS, *PUBLIC_RIGHTS, *COUNTER_RIGHTS, PAGES_RIGHT, "~Page:*"]
    with pages_table(witness, monkeypatch):
        allow(locked, *rights)
        InProcess().write([page(1)], TABLE="pages")
        allow(locked, *[other for other in rights if other != right])
        if right == "none":
            count_and_sync(InProcess(), witness)
            assert [node.ask("ACL", "LOG") for node in locked.masters] == [[]]
        else:
            with pytest.raises((AssertionError, HerocacheError)):
                count_and_sync(InProcess(), witness)
