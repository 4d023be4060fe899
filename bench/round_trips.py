"""The round trips of each flow, of a warm client at N = 100: counted on the wire.

A proxy in front of each server counts them. What nobody waits for lies unread in the client's
socket when the call has returned and everything has arrived: the kernel says so. How many are
waited for one after the other, and not at the same time, a slow network shows.
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
from bench.measure import Seeded, timed, warm_up
from bench.servers import far_away

BATCH = 100
QUIET_SECONDS = 0.03
SLOW_SECONDS = 0.02
TCP_SOCKETS = Path("/proc/net/tcp")


@dataclass(frozen=True)
class Trips:
    """Of one call. `redis` are those it waits for; `unread`: whether one more came after;
    `in_a_row`: how many round trips the whole call takes."""

    mysql: int
    redis: int
    unread: bool
    in_a_row: int


Counts = Mapping[tuple[Flow, str], Trips]
"""By flow and the contender's name."""


def count_trips(environment: Environment, seeded: Seeded, times: int) -> Counts:
    """What most of `times` calls took: now and then one of ours also asks for the generation."""
    with (
        counting(environment) as (watched, *proxies),
        contending(watched, seeded, has_template=False) as contenders,
        far_away(environment, SLOW_SECONDS) as far,
        contending(far, seeded, has_template=False) as slow,
    ):
        return {
            (flow, contender.name): _counted(
                flow, contender, seeded, proxies, times, _in_a_row(flow, far_contender, seeded)
            )
            for contender, far_contender in zip(contenders, slow)
            for flow in FLOWS
            if flow in contender.flows
        }


def _counted(
    flow: Flow,
    contender: Contender,
    seeded: Seeded,
    proxies: Sequence[CountingProxy],
    times: int,
    in_a_row: int,
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
        counted.append(Trips(mysql, redis - unread, unread, in_a_row))
    return statistics.mode(counted)


def _in_a_row(flow: Flow, contender: Contender, seeded: Seeded) -> int:
    """A call of one row takes much less time than one round trip here."""
    batch = seeded.batch(flow, 1)
    warm_up(flow, contender, [batch], seeded)
    return int(min(timed(flow, contender, batch) for _ in range(3)) / SLOW_SECONDS)


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
