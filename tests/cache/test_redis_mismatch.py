"""Settings that do not fit their Redis are named in `/health?deep=1` and in the log.

Also: the service's user needs exactly the rights in `topologies.MINIMAL_RIGHTS`.
"""

import contextlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import redis

from chalicelib import services
from chalicelib.cache import generations
from chalicelib.cache.recovery import GOOD_PROBES
from chalicelib.errors import CacheUnavailable
from chalicelib.tables import TABLES
from local.machine import LOOPBACK
from tests.conftest import Configure
from tests.support.certificates import Authority
from tests.support.client import InProcess, hero
from tests.support.leaks import assert_tells_nothing_internal
from tests.support.topologies import (
    ADMIN_PASSWORD,
    CLUSTER_RIGHTS,
    MINIMAL_RIGHTS,
    PASSWORD,
    PASSWORD_IN_URL,
    USER,
    Topology,
    cluster,
    one_node,
    start_afresh,
    wait_until,
)
from tests.support.witness import Witness

SIGNED_ELSEWHERE = "certificate is not signed by a trusted authority"
NO_ENTRY = "rejects the user or the password, or misses one"
UNREADABLE = "ssl_ options name cannot be read"
MISMATCHES = {
    "TLS server over redis://": ("redis://{host}:{tls}", "", "TLS needs rediss://"),
    "plain server over rediss://": ("rediss://{host}:{plain}", "", "without TLS needs redis://"),
    "authority of another": ("rediss://{host}:{tls}?ssl_ca_certs={other_ca}", "", SIGNED_ELSEWHERE),
    "authority of the system": ("rediss://{host}:{tls}", "", SIGNED_ELSEWHERE),
    "authority not there": ("rediss://{host}:{tls}?ssl_ca_certs=/no/such", "", UNREADABLE),
    "authority without text": ("rediss://{host}:{tls}?ssl_ca_certs=/dev/null", "", UNREADABLE),
    "certificate of another host": (
        "rediss://{host}:{other_name}?ssl_ca_certs={other_ca}",
        "",
        "certificate is for another host name",
    ),
    "no password": ("redis://{host}:{locked}", "", NO_ENTRY),
    "wrong password": ("redis://{user}:wrong-horse@{host}:{locked}", "", NO_ENTRY),
    "wrong user": ("redis://somebody:{password}@{host}:{locked}", "", NO_ENTRY),
    "password nobody asked for": ("redis://:wrong-horse@{host}:{plain}", "", NO_ENTRY),
    "cluster as a single node": (
        "redis://{user}:{password}@{host}:{cluster}",
        "0",
        "set REDIS_CLUSTER=1",
    ),
    "single node as a cluster": ("redis://{host}:{plain}", "1", "take REDIS_CLUSTER out"),
    "database number of a cluster": (
        "redis://:{admin}@{host}:{cluster}/1",
        "1",
        "take the number out",
    ),
    "no such database number": ("redis://{host}:{plain}/99", "", "take the number out"),
    "replica": ("redis://{host}:{replica}", "", "it is a replica"),
}


@dataclass(frozen=True)
class Places:
    """What the settings above are filled with."""

    values: dict[str, object]
    locked: Topology
    cluster: Topology


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Places]:
    home = tmp_path_factory.mktemp("mismatch")
    ours, others = Authority(home / "ca"), Authority(home / "other-ca", "DNS:elsewhere.example")
    with contextlib.ExitStack() as stack:
        enter = stack.enter_context
        topologies = {
            "plain": enter(one_node(home / "plain")),
            "tls": enter(one_node(home / "tls", authority=ours)),
            "locked": enter(one_node(home / "locked", is_locked=True)),
            "cluster": enter(cluster(home / "cluster", masters=1, is_locked=True)),
            "replica": enter(one_node(home / "replica")),
            "other_name": enter(one_node(home / "name", authority=others)),
        }
        ports = {name: topology.masters[0].port for name, topology in topologies.items()}
        topologies["replica"].masters[0].ask("REPLICAOF", LOOPBACK, ports["plain"])
        who = {"host": LOOPBACK, "user": USER, "password": PASSWORD_IN_URL}
        who["admin"] = ADMIN_PASSWORD
        values = {**ports, **who, "other_ca": others.certificate}
        yield Places(values, topologies["locked"], topologies["cluster"])


@pytest.mark.own_deadlines
@pytest.mark.parametrize("mismatch", MISMATCHES)
def test_a_mismatch_is_named_in_the_health_report_and_in_the_log(
    mismatch: str,
    witness: Witness,
    configure: Configure,
    places: Places,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """And a read is answered all the same."""
    witness.give_cache_to("")
    template, is_cluster, words = MISMATCHES[mismatch]
    configure(REDIS_URL=template.format(**places.values), REDIS_CLUSTER=is_cluster)
    service = InProcess()

    answer = service.health("?deep=1")
    assert (answer.status, answer.fields["status"]) == (200, "degraded")
    assert words in answer.fields["cache"]["error"]
    assert_tells_nothing_internal(answer)

    configure(REDIS_URL=template.format(**places.values), REDIS_CLUSTER=is_cluster)
    caplog.clear()
    assert service.read([1]).missing == [1]
    wait_until(lambda: words in caplog.text)
    with pytest.raises(CacheUnavailable) as raised:
        services.container().sync.run("heroes")
    assert words in str(raised.value)
    for secret in ("wrong-horse", PASSWORD, PASSWORD_IN_URL):
        assert secret not in caplog.text + answer.text + str(raised.value)


def test_a_redis_that_is_full_and_keeps_everything_is_named_and_left_alone(
    places: Places, witness: Witness, configure: Configure, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody believes it has recovered because it answers."""
    full = places.locked
    full.masters[0].allow(MINIMAL_RIGHTS)
    start_afresh(witness, full)
    configure(**full.settings())
    service = InProcess()
    with full.masters[0].client() as client:
        client.config_set("maxmemory-policy", "noeviction")
        client.config_set("maxmemory", 1)
        try:
            assert "it is full" in service.health("?deep=1").fields["cache"]["error"]
            service.write([{"id": 1, **hero()}])
            before = refused_sets(client)
            wait_until(lambda: refused_sets(client) > before + GOOD_PROBES)
            enabled = "SELECT enabled FROM cache_generation WHERE table_name = 'heroes'"
            assert witness.query(enabled) == [(0,)]
        finally:
            client.config_set("maxmemory", 0)


def refused_sets(client: redis.Redis) -> int:
    stats: dict[str, Any] = client.info("commandstats")
    return int(stats["cmdstat_set"]["rejected_calls"])


@pytest.mark.parametrize(
    "option",
    ["ssl_ca_cert=/file", "socket_timeout=5", "decode_responses=1", "protocol=3", "db=1", "x="],
)
@pytest.mark.parametrize("scheme", ["redis", "rediss"])
def test_an_option_that_would_break_the_protocol_is_refused(
    service: InProcess, configure: Configure, scheme: str, option: str
) -> None:
    configure(REDIS_URL=f"{scheme}://{LOOPBACK}:6379?{option}")

    answer = service.read([1])

    assert (answer.status, answer.error) == (500, "ConfigurationError")
    assert answer.message.startswith("REDIS_URL")


def test_options_of_tls_are_refused_without_tls(service: InProcess, configure: Configure) -> None:
    configure(REDIS_URL=f"redis://{LOOPBACK}:6379?ssl_ca_certs=/file")

    assert service.read([1]).error == "ConfigurationError"


@pytest.fixture
def locked(places: Places, witness: Witness) -> Topology:
    start_afresh(witness, places.locked)
    return places.locked


def uses(service: InProcess) -> Iterator[object]:
    """Everything there is to do, step by step."""
    yield service.health("?deep=1")
    for table in TABLES:
        for _ in range(3):
            yield service.read(["7"], TABLE=table)
    yield service.write([{"id": 7, **hero()}])
    yield service.read([10, 11], BY="xp")
    yield service.write([{"id": 7, **hero(xp=11)}, hero()])
    yield service.read([7, 8])
    # As after half a second: the generation is asked for, and the entries at the same time.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(generations, "MEMORY_SECONDS", 0.0)
        yield service.write([{"id": 7, **hero(xp=12)}])
        yield service.read([7])
        yield service.read([7])
    yield service.delete([7])


def test_the_minimal_rights_are_enough(
    locked: Topology, configure: Configure, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    locked.masters[0].allow(MINIMAL_RIGHTS)
    configure(**locked.settings())

    assert len(list(uses(InProcess()))) > len(TABLES)
    assert "right" not in caplog.text
    assert "refused" not in caplog.text
    assert "switched off" not in caplog.text


@pytest.mark.parametrize("right", MINIMAL_RIGHTS)
def test_every_one_of_the_minimal_rights_is_needed(
    locked: Topology, configure: Configure, right: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    locked.masters[0].allow([other for other in MINIMAL_RIGHTS if other != right])
    configure(**locked.settings())

    assert any("its user lacks a right" in caplog.text for _ in uses(InProcess()))


def test_in_a_cluster_one_more_right_is_needed(places: Places, configure: Configure) -> None:
    [node] = places.cluster.masters
    configure(**places.cluster.settings())
    service = InProcess()
    for rights, status in ((MINIMAL_RIGHTS, "degraded"), (MINIMAL_RIGHTS + CLUSTER_RIGHTS, "ok")):
        node.allow(rights)
        report = service.health("?deep=1").fields
        assert report["status"] == status
    assert len(CLUSTER_RIGHTS) == 1
