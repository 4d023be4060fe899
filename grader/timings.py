"""How long requests take: over new connections, over a kept one, and within the service.

A round has four requests in random order: over each kind of connection, without the cache and with
it.
"""

import random
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from grader.http_client import Answer, Service
from grader.row_checks import Grader
from grader.text_table import milliseconds, table

EMPTY, BY_ID, BY_XP, WRITE = "an empty read: HTTP alone", "read by id", "read by xp", "write"
NEW, KEPT, WITHIN = "new", "kept", "service"
CONNECTIONS = (NEW, KEPT)
KINDS = (*CONNECTIONS, WITHIN)
LEGEND = (
    "new: a connection for each request; kept: one for all of them;\n"
    "service: the time within it (Server-Timing), without HTTP and the network"
)

Ask = Callable[[Service, bool], Answer]


@dataclass
class Timed:
    """Answers to one kind of request: over each kind of connection, without the cache and with
    it."""

    over: Mapping[str, dict[bool, list[Answer]]] = field(
        default_factory=lambda: {kind: {False: [], True: []} for kind in CONNECTIONS}
    )

    def median(self, kind: str, use_cache: bool) -> float | None:
        """Median seconds over this kind of connection, or within the service (WITHIN); None where
        the service does not say."""
        if kind != WITHIN:
            return statistics.median(answer.seconds for answer in self.over[kind][use_cache])
        answers = [answer for by_use in self.over.values() for answer in by_use[use_cache]]
        within = [a.service_seconds for a in answers if a.service_seconds is not None]
        return statistics.median(within) if within else None

    def cells(self, kind: str) -> list[str]:
        """Without the cache, with it, and by how much that is faster."""
        without, cached = (self.median(kind, use_cache) for use_cache in (False, True))
        if without is None or cached is None:
            return ["-"] * 3
        return [milliseconds(without), milliseconds(cached), f"{without / cached:.2f}"]


def time_flows(grader: Grader, kept: Service, rounds: int) -> dict[str, Timed]:
    """The answers by the name of the request. `kept`: the same service over a kept connection.
    Raises Wrong."""
    services = {NEW: grader.service, KEPT: kept}
    turns = [(kind, use_cache) for kind in CONNECTIONS for use_cache in (False, True)]
    found = {}
    for name, prepare in _flows(grader).items():
        for service in services.values():
            prepare()(service, True)  # from here on, cached reads hit and a connection is kept
        timed = found[name] = Timed()
        for _ in range(rounds):
            for kind, use_cache in random.sample(turns, len(turns)):
                timed.over[kind][use_cache].append(prepare()(services[kind], use_cache))
    return found


def _flows(grader: Grader) -> Mapping[str, Callable[[], Ask]]:
    """By name, a function that prepares a request. Only what it returns is timed."""
    ways = {way.by: way for way in reversed(grader.ways)}
    values = {column: grader.sample(column) for column in ways}

    def read(column: str, asked: Sequence[int]) -> Ask:
        return lambda service, use_cache: service.read(ways[column], asked, use_cache)

    def write() -> Ask:
        rows = grader.fresh_heroes(grader.batch)

        def ask(service: Service, use_cache: bool) -> Answer:
            answer = service.write(rows, use_cache)
            grader.keep(rows, answer)
            return answer

        return ask

    return {
        EMPTY: partial(read, grader.default_column, []),
        BY_ID: partial(read, "id", values["id"]),
        BY_XP: partial(read, "xp", values["xp"]),
        WRITE: write,
    }


def timings_table(found: Mapping[str, Timed], batch: int) -> str:
    """A table of medians, with the speed-up by the cache."""
    heads = [[f"{kind}: no cache", "cache", "gain"] for kind in KINDS]
    head = [f"median ms, batches of {batch}", *(cell for cells in heads for cell in cells)]
    rows = [
        [name, *(cell for kind in KINDS for cell in timed.cells(kind))]
        for name, timed in found.items()
    ]
    return f"{table([head, *rows])}\n\n{LEGEND}"


def explained(found: Mapping[str, Timed]) -> str:
    """A text: why the speed-up is smaller over HTTP than within the service."""
    timed = found[BY_ID]
    cached, without = (timed.median(WITHIN, use_cache) for use_cache in (True, False))
    if cached is None or without is None:
        return (
            "The service sends no Server-Timing. What HTTP and the network cost is about what an\n"
            "empty read takes; the cache cannot make that faster."
        )
    lines = [f"The cache makes the service {without / cached:.1f} times as fast (read by id)."]
    for kind in CONNECTIONS:
        whole, uncached = (timed.median(kind, use_cache) or 0.0 for use_cache in (True, False))
        lines.append(
            f"Over a {kind} connection a cached read takes {milliseconds(whole)} ms: the service"
            f" {milliseconds(cached)}, HTTP and the network {milliseconds(max(0, whole - cached))}."
            f" So the whole request is {uncached / whole:.1f} times as fast."
        )
    return "\n".join(lines)
