"""A Redis Cluster for one run: masters on loopback, each with an equal part of the slots."""

import contextlib
import random
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import redis

from local.machine import CLUSTER_BUS_PORTS, LOOPBACK, port_is_free
from local.servers import Redis

MASTERS = 3
SLOTS = 16_384
CONVERGE_SECONDS = 30


@contextlib.contextmanager
def cluster(home: Path) -> Iterator[dict[str, str]]:
    """Starts the cluster and gives the settings that lead to it."""
    with contextlib.ExitStack() as stack:
        buses = [_free_port() for _ in range(MASTERS)]
        nodes = [
            stack.enter_context(Redis(home / f"cluster-{i}", arguments=_arguments(bus)))
            for i, bus in enumerate(buses)
        ]
        for i, node in enumerate(nodes):
            first, end = (SLOTS * j // MASTERS for j in (i, i + 1))
            _ask(node, "CLUSTER", "SET-CONFIG-EPOCH", i + 1)
            _ask(node, "CLUSTER", "ADDSLOTSRANGE", first, end - 1)
            for other, bus in zip(nodes[:i], buses):
                _ask(node, "CLUSTER", "MEET", LOOPBACK, other.port, bus)
        _wait_until_whole(nodes)
        yield {**nodes[0].environment(), "REDIS_CLUSTER": "1"}


def _arguments(bus_port: int) -> list[str]:
    cluster = ["--cluster-enabled", "yes", "--cluster-config-file", "nodes.conf"]
    return [*cluster, "--cluster-port", str(bus_port)]


def _free_port() -> int:
    return next(port for port in random.sample(CLUSTER_BUS_PORTS, 100) if port_is_free(port))


def _ask(node: Redis, *words: str | int) -> Any:
    with redis.Redis(host=LOOPBACK, port=node.port) as client:
        return client.execute_command(*words)


def _wait_until_whole(nodes: Sequence[Redis]) -> None:
    deadline = time.monotonic() + CONVERGE_SECONDS
    while not all(_is_whole(node) for node in nodes):
        if time.monotonic() > deadline:
            raise RuntimeError("the Redis cluster did not come together")
        time.sleep(0.02)


def _is_whole(node: Redis) -> bool:
    state = _ask(node, "CLUSTER INFO")
    return (state["cluster_state"], state["cluster_size"]) == ("ok", str(MASTERS))
