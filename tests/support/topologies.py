"""Redis as people run it: one node, TLS, users with rights, clusters, Valkey. All on loopback.

`MINIMAL_RIGHTS` are what the service's user needs, `PUBLIC_RIGHTS` what it needs for watched rows
too, and `CLUSTER_RIGHTS` in a cluster.
"""

import contextlib
import itertools
import random
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis

from chalicelib.tables import TABLES
from local.machine import CLUSTER_BUS_PORTS as BUS_PORTS
from local.machine import LOOPBACK, find_program, port_is_free
from local.servers import Redis
from tests.support.certificates import Authority
from tests.support.witness import ENTRYS, Witness

USER, PASSWORD, PASSWORD_IN_URL = "herocache", "pä55:w/rd@#%", "p%C3%A455%3Aw%2Frd%40%23%25"
ADMIN_PASSWORD = "admin"

MINIMAL_RIGHTS = (
    *("+info", "+script|load"),
    *("+mget", "+evalsha", "+get", "+set", "+del", "+time", "+persist"),
    *(f"~{{{table}.*}}:*" for table in TABLES),
)
PUBLIC_NAMES = [name for t in TABLES.values() if t.public for name in t.public.forms.values()]
# The public keys; their stamps, and what is asked so that only a master answers; the same of a run.
PUBLIC_RIGHTS = (
    *(
        "+type",
        "+strlen",
        "+hlen",
        "+hstrlen",
        "+hget",
        "+hset",
        "+exists",
        "+multi",
        "+msetnx",
        "+exec",
    ),
    *(f"~{name}:*" for name in PUBLIC_NAMES),
    *(f"~{{{name}:*}}:*" for name in PUBLIC_NAMES),
    "~{sync}:*",
)
# The totals of write-behind counters, and which of them are pending.
COUNTER_RIGHTS = ("+hlen", "+hset", "+hkeys", "+hdel", "+mset")
CLUSTER_RIGHTS = ("+cluster|slots",)

READS = "pieces of input"
SLOTS = 16_384
CONVERGE_SECONDS = 60
TRIES_A_MEETING = 100


class Node(Redis):
    """One server. With an `authority` it takes TLS only; if `is_locked` it wants a password."""

    def __init__(
        self,
        home: Path,
        *,
        program: str = "redis-server",
        authority: Authority | None = None,
        is_locked: bool = False,
        is_cluster: bool = False,
    ) -> None:
        arguments = ["--requirepass", ADMIN_PASSWORD] if is_locked else []
        arguments += ["--masterauth", ADMIN_PASSWORD] if is_locked else []
        if is_cluster:
            self.bus_port = next(p for p in random.sample(BUS_PORTS, 100) if port_is_free(p))
            arguments += ["--cluster-enabled", "yes", "--cluster-port", str(self.bus_port)]
            arguments += ["--cluster-node-timeout", "1000", "--cluster-config-file", "nodes.conf"]
            arguments += ["--repl-diskless-sync-delay", "0"]
        super().__init__(home, arguments=arguments)
        self._name = program
        self._authority = authority
        self._is_locked = is_locked

    def client(self) -> "contextlib.closing[redis.Redis]":
        """A connection of the administrator's."""
        options: dict[str, Any] = {"password": ADMIN_PASSWORD} if self._is_locked else {}
        if self._authority:
            options |= {"ssl": True, "ssl_ca_certs": str(self._authority.certificate)}
            options |= {"ssl_check_hostname": False}
        return contextlib.closing(redis.Redis(host=LOOPBACK, port=self.port, **options))

    def ask(self, *words: str | int | bytes) -> Any:
        with self.client() as client:
            return client.execute_command(*words)

    def allow(self, rights: Sequence[str]) -> None:
        """Make the service's user, with these rights and no other."""
        self.ask("ACL", "SETUSER", USER, "reset", "on", f">{PASSWORD}", *rights)

    def url(self) -> str:
        """The setting that leads the service here."""
        who = f"{USER}:{PASSWORD_IN_URL}@" if self._is_locked else ""
        ca = f"?ssl_ca_certs={self._authority.certificate}" if self._authority else ""
        return f"redis{'s' * bool(self._authority)}://{who}{LOOPBACK}:{self.port}{ca}"

    def _executable(self) -> str:
        program = find_program(self._name)
        assert program is not None, f"{self._name} is not installed"
        return program

    def _command(self, port: int) -> list[str]:
        command = super()._command(port)
        if self._authority:
            pair = (self._authority.server_certificate, self._authority.server_key)
            command += ["--port", "0", "--tls-port", str(port), "--tls-auth-clients", "no"]
            command += ["--tls-cert-file", str(pair[0]), "--tls-key-file", str(pair[1])]
            command += ["--tls-ca-cert-file", str(self._authority.certificate)]
            command += ["--tls-replication", "yes", "--tls-cluster", "yes"]
        return command

    def _answers(self) -> bool:
        try:
            with self.client() as client:
                return bool(client.info("server")["process_id"] == self.pid)
        except redis.RedisError:
            return False


@dataclass(frozen=True)
class Topology:
    """Servers that are one Redis for the service; the first is the one it is given."""

    masters: Sequence[Node]
    is_cluster: bool = False

    @property
    def is_tls(self) -> bool:
        return self.masters[0].url().startswith("rediss:")

    def owner(self, slot: int) -> Node:
        """The master that has the slot. Only of a cluster that nobody changed."""
        return self.masters[slot * len(self.masters) // SLOTS]

    def settings(self) -> dict[str, str]:
        return {"REDIS_URL": self.masters[0].url(), "REDIS_CLUSTER": str(int(self.is_cluster))}

    def flush(self) -> None:
        for node in self.masters:
            node.ask("FLUSHALL")

    def entries(self) -> set[bytes]:
        """Their keys, of all masters."""
        keys: set[bytes] = set()
        for node in self.masters:
            with node.client() as client:
                keys |= set(client.scan_iter(ENTRYS, count=10_000))
        return keys

    @contextlib.contextmanager
    def spent(self) -> Iterator[list[Counter[str]]]:
        """Filled when the block ends: what each master was asked."""
        with contextlib.ExitStack() as stack:
            clients = [stack.enter_context(node.client()) for node in self.masters]
            before = [_asked(client) for client in clients]
            spent: list[Counter[str]] = []
            yield spent
            for client, calls in zip(clients, before):
                spent.append(_asked(client) - calls - Counter({READS: 1}))  # this look's own


def _asked(client: redis.Redis) -> Counter[str]:
    """Commands by name, INFO left out; and the pieces of input that were read."""
    info: Any = client.info("everything")
    asked = Counter({READS: int(info["total_reads_processed"])})
    for name, stats in info.items():
        if name.startswith("cmdstat_") and name != "cmdstat_info":
            asked[name.removeprefix("cmdstat_")] = int(stats["calls"])
    return asked


@contextlib.contextmanager
def one_node(home: Path, **options: Any) -> Iterator[Topology]:
    with Node(home / "redis", **options) as node:
        if options.get("is_locked"):
            node.allow((*MINIMAL_RIGHTS, *PUBLIC_RIGHTS, *COUNTER_RIGHTS))
        yield Topology([node])
    assert node.pid is None


@contextlib.contextmanager
def cluster(home: Path, masters: int = 3, **options: Any) -> Iterator[Topology]:
    """Each master has an equal part of the slots."""
    nodes = [Node(home / f"redis-{i}", is_cluster=True, **options) for i in range(masters)]
    with contextlib.ExitStack() as stack:
        for node in nodes:
            stack.callback(node.stop)
        with ThreadPoolExecutor() as threads:
            list(threads.map(Node.start, nodes))
        for i, node in enumerate(nodes):
            first, end = (SLOTS * j // masters for j in (i, i + 1))
            node.ask("CLUSTER", "SET-CONFIG-EPOCH", i + 1)
            node.ask("CLUSTER", "ADDSLOTSRANGE", first, end - 1)
            if options.get("is_locked"):
                rights = (*MINIMAL_RIGHTS, *PUBLIC_RIGHTS, *COUNTER_RIGHTS)
                node.allow((*rights, *CLUSTER_RIGHTS))
        pairs = itertools.combinations(nodes, 2)
        meet_until(pairs, lambda: all(is_whole(node, masters) for node in nodes))
        yield Topology(nodes, is_cluster=True)
    assert not any(node.pid for node in nodes)


def start_afresh(witness: Witness, topology: Topology) -> None:
    """No entry, and no table that remembers another Redis or a fault of an earlier test."""
    topology.flush()
    witness.give_cache_to("")


def meet_until(pairs: Iterable[tuple[Node, Node]], holds: Callable[[], bool]) -> None:
    """Have them meet until this holds. On a busy machine a node may not answer another one within
    the timeout of nodes, and then it is forgotten."""
    tried, pairs = itertools.count(), [*pairs]

    def holds_now() -> bool:
        if next(tried) % TRIES_A_MEETING == 0:
            for one, other in pairs:
                one.ask("CLUSTER", "MEET", LOOPBACK, other.port, other.bus_port)
        return holds()

    wait_until(holds_now)


def is_whole(node: Node, masters: int) -> bool:
    """Whether the node knows a server for each slot, all of them well."""
    state: dict[str, str] = node.ask("CLUSTER INFO")
    return (state["cluster_state"], state["cluster_size"]) == ("ok", str(masters))


def wait_until(holds: Callable[[], bool], seconds: float = CONVERGE_SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it never came to be so"
        time.sleep(0.02)


@contextlib.contextmanager
def replica_of(topology: Topology, position: int, home: Path) -> Iterator[Node]:
    """A replica, in step with its master; the cluster makes it the master when that one dies."""
    with Node(home, is_cluster=True) as node:
        source, count = topology.masters[position], len(topology.masters)
        meet_until([(node, master) for master in topology.masters], lambda: is_whole(node, count))
        wait_until(lambda: node_id(source) in str(node.ask("CLUSTER NODES")))
        node.ask("CLUSTER", "REPLICATE", node_id(source))
        wait_until(lambda: node.ask("INFO", "replication")["master_link_status"] == "up")
        wait_until(lambda: node_id(node) in str(topology.masters[0].ask("CLUSTER NODES")))
        yield node
    assert node.pid is None


def is_master(node: Node) -> bool:
    return bool(node.ask("INFO", "replication")["role"] == "master")


class SlotMove:
    """A slot of a cluster on its way from one master to another, step by step."""

    def __init__(self, topology: Topology, slot: int) -> None:
        self._masters, self._slot = topology.masters, slot
        self._source = topology.owner(slot)
        self._target = next(node for node in topology.masters if node is not self._source)

    def begin(self) -> None:
        self._target.ask("CLUSTER", "SETSLOT", self._slot, "IMPORTING", node_id(self._source))
        self._source.ask("CLUSTER", "SETSLOT", self._slot, "MIGRATING", node_id(self._target))

    def move_entries(self, at_most: int) -> None:
        keys = self._source.ask("CLUSTER", "GETKEYSINSLOT", self._slot, at_most)
        where = (LOOPBACK, self._target.port, "", 0, 5000)
        self._source.ask("MIGRATE", *where, "KEYS", *keys)

    def finish(self) -> None:
        for node in (self._target, self._source, *self._masters):
            node.ask("CLUSTER", "SETSLOT", self._slot, "NODE", node_id(self._target))

    def undo(self) -> None:
        """Back to where it was, without its entries."""
        for node in (self._source, self._target, *self._masters):
            node.ask("FLUSHALL")
            node.ask("CLUSTER", "SETSLOT", self._slot, "STABLE")
            node.ask("CLUSTER", "SETSLOT", self._slot, "NODE", node_id(self._source))


def node_id(node: Node) -> str:
    with node.client() as client:
        return str(client.cluster("MYID").decode())
