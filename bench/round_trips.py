"""The round trips of each flow, of a warm client at N = 100: counted on the wire.

A proxy in front of each server counts them. What nobody waits for lies unread in the client's
socket when the call has returned and everything has arrived: the kernel says so.
"""

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.cold_start import counting
from bench.contenders import Contender, Environment
from bench.counting_proxy import CountingProxy
from bench.flows import FLOWS, Flow
from bench.lineup import contending
from bench.measure import Seeded, warm_up

BATCH = 100
QUIET_SECONDS = 0.03
TCP_SOCKETS = Path("/proc/net/tcp")


@dataclass(frozen=True)
class Trips:
    """Of one call. `redis` are those it waits for; `unread`: whether one more came after."""

    mysql: int
    redis: int
    unread: bool

    @property
    def waited_for(self) -> int:
        return self.mysql + self.redis


Counts = Mapping[tuple[Flow, str], Trips]
"""By flow and the contender's name."""


def count_trips(environment: Environment, seeded: Seeded, times: int) -> Counts:
    """What most of `times` calls took: now and then one of ours also asks for the generation."""
    with (
        counting(environment) as (far, *proxies),
        contending(far, seeded, has_template=False) as contenders,
    ):
        return {
            (flow, contender.name): _counted(flow, contender, seeded, proxies, times)
            for contender in contenders
            for flow in FLOWS
            if flow in contender.flows
        }


def _counted(
    flow: Flow,
    contender: Contender,
    seeded: Seeded,
    proxies: Sequence[CountingProxy],
    times: int,
) -> Trips:
    batch = seeded.batch(flow, BATCH)
    warm_up(flow, contender, [batch], seeded)
    counted = []
    for _ in range(times):
        call = contender.prepare(flow, batch)
        before = _quiet_counts(proxies)
        call()
        mysql, redis = (after - b for after, b in zip(_quiet_counts(proxies), before))
        unread = redis > 0 and _has_unread(proxies[1].port)  # an earlier call's may lie there
        counted.append(Trips(mysql, redis - unread, unread))
    return statistics.mode(counted)


def _quiet_counts(proxies: Sequence[CountingProxy]) -> list[int]:
    """Once nothing is under way any more."""
    counts = [proxy.round_trips for proxy in proxies]
    while True:
        time.sleep(QUIET_SECONDS)
        last, counts = counts, [proxy.round_trips for proxy in proxies]
        if counts == last:
            return counts


def _has_unread(port: int) -> bool:
    """Whether bytes from loopback's `port` wait in the socket they were sent to. Linux alone."""
    for line in TCP_SOCKETS.read_text().splitlines()[1:]:
        _, _, remote, _, queues, *_ = line.split()
        if remote.endswith(f":{port:04X}") and int(queues.partition(":")[2], 16):
            return True
    return False
