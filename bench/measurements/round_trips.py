"""The round trips of each workload, for a warm client and batches of 100, counted on the wire.

A proxy in front of each server counts them. An answer that nobody waits for lies unread in the
client's socket after the call; the kernel shows that. How many round trips follow one another, and
do not overlap, is seen from the time of a call over a slow network.
"""

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.candidates.candidate import Candidate, Environment
from bench.candidates.groups import one_node_candidates
from bench.measurements.interleaved import Seeded, timed, warm_up
from bench.proxies.count import CountingProxy, counting
from bench.servers.mariadb_and_redis import far_away
from bench.workloads import WORKLOADS, Workload

BATCH = 100
QUIET_SECONDS = 0.03
SLOW_SECONDS = 0.02
TCP_SOCKETS = Path("/proc/net/tcp")


@dataclass(frozen=True)
class Trips:
    """The round trips of one call. `redis`: those it waits for. `unread`: whether there is one more
    that it does not wait for. `in_a_row`: how many follow one another."""

    mysql: int
    redis: int
    unread: bool
    in_a_row: int


# By workload and the candidate's name.
Counts = Mapping[tuple[Workload, str], Trips]


def count_trips(environment: Environment, seeded: Seeded, times: int) -> Counts:
    """The most frequent counts of `times` calls: now and then ours also reads the generation."""
    with (
        counting(environment) as (watched, *proxies),
        one_node_candidates(watched, seeded, has_template=False) as candidates,
        far_away(environment, SLOW_SECONDS) as far,
        one_node_candidates(far, seeded, has_template=False) as slow,
    ):
        return {
            (workload, candidate.name): _counted(
                workload,
                candidate,
                seeded,
                proxies,
                times,
                _in_a_row(workload, far_candidate, seeded),
            )
            for candidate, far_candidate in zip(candidates, slow)
            for workload in WORKLOADS
            if workload in candidate.workloads
        }


def _counted(
    workload: Workload,
    candidate: Candidate,
    seeded: Seeded,
    proxies: Sequence[CountingProxy],
    times: int,
    in_a_row: int,
) -> Trips:
    batch = seeded.batch(workload, BATCH)
    warm_up(workload, candidate, [batch], seeded)
    counted = []
    for _ in range(times):
        call = candidate.prepare(workload, batch)
        before = _quiet_counts(proxies)
        call()
        mysql, redis = (after - b for after, b in zip(_quiet_counts(proxies), before))
        unread = redis > 0 and _has_unread(proxies[1].port)  # an earlier call's may lie there
        counted.append(Trips(mysql, redis - unread, unread, in_a_row))
    return statistics.mode(counted)


def _in_a_row(workload: Workload, candidate: Candidate, seeded: Seeded) -> int:
    """How many round trips of a slow network fit into one call. The work for one row is too short
    to count as one."""
    batch = seeded.batch(workload, 1)
    warm_up(workload, candidate, [batch], seeded)
    return int(min(timed(workload, candidate, batch) for _ in range(3)) / SLOW_SECONDS)


def _quiet_counts(proxies: Sequence[CountingProxy]) -> list[int]:
    """The counts, once they no longer rise."""
    counts = [proxy.round_trips for proxy in proxies]
    while True:
        time.sleep(QUIET_SECONDS)
        last, counts = counts, [proxy.round_trips for proxy in proxies]
        if counts == last:
            return counts


def _has_unread(port: int) -> bool:
    """Whether a socket holds unread bytes from loopback's `port`. On Linux only."""
    for line in TCP_SOCKETS.read_text().splitlines()[1:]:
        _, _, remote, _, queues, *_ = line.split()
        if remote.endswith(f":{port:04X}") and int(queues.partition(":")[2], 16):
            return True
    return False
