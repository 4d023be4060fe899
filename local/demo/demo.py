"""`make demo`: reads and writes go on while Redis is killed and comes back; each answer is checked.

Two services use the same servers: herocache, and commit-then-SET, the usual way to cache. Redis
comes back with the data it had when it was killed, as a Redis that persists or is restored does.
What was written meanwhile is not in it. Compare the stale answers, not the milliseconds: `chalice
local` serves herocache, a bare HTTP server serves the other.
"""

import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from local.demo.clients import Glance, Players
from local.machine import ROOT
from local.servers import App, MariaDB, Redis
from local.servers.app import QuietApp
from local.terminal import say

WELL, KILLED, BACK = "all is well", "Redis is killed", "Redis is back"
# The seconds of each phase.
PHASES: Mapping[str, int] = {WELL: 5, KILLED: 5, BACK: 8}
HEADS = ("reads", "hits", "median ms", "failed", "stale")


class CommitThenSet(QuietApp):
    """The other service (commit_then_set.py)."""

    title = "commit-then-SET"
    takes_over_listener = False

    def _command(self, port: int) -> list[str]:
        return [sys.executable, "-X", self._identity, "-m", "local.demo.commit_then_set", str(port)]

    def _environment(self) -> dict[str, str]:
        return {**super()._environment(), "PYTHONPATH": str(ROOT)}


def demo() -> int:
    """Returns the exit code: 1 where herocache failed a request or answered with older data."""
    say("demo", "starts MariaDB, Redis and two services of its own; it takes half a minute")
    with (
        tempfile.TemporaryDirectory(prefix="herocache-demo-") as home,
        servers(Path(home)) as (redis, ours, other),
        playing([Players("herocache", ours.url, 1), Players(other.title, other.url, 1001)]) as both,
    ):
        screen = Screen()
        second = 0
        for phase, seconds in PHASES.items():
            if phase == KILLED:
                redis.kill()
            if phase == BACK:
                redis.start_again()
            for _ in range(seconds):
                time.sleep(1)
                second += 1
                glances = {players.name: players.glance() for players in both}
                screen.show(second, phase, glances)
        return judged(glances, both[0].first_failure)


@contextmanager
def servers(home: Path) -> Iterator[tuple[Redis, App, App]]:
    """Starts MariaDB, Redis and both services. All of them end with the block."""
    mariadb = MariaDB(home / "mariadb")
    redis = Redis(home / "redis", arguments=["--appendonly", "yes"])
    ours, other = QuietApp(home / "app"), CommitThenSet(home / "other")
    with ExitStack() as stack:
        for server in (mariadb, redis, ours, other):
            stack.callback(server.stop)
            if isinstance(server, App):
                server.settings = {**mariadb.environment(), **redis.environment()}
            server.begin()
        for server in (mariadb, redis, ours, other):
            server.wait_until_it_answers()
        mariadb.apply_schema()
        yield redis, ours, other


@contextmanager
def playing(both: Sequence[Players]) -> Iterator[Sequence[Players]]:
    """Lets the clients of both services work until the block ends."""
    try:
        for players in both:
            players.start()
        yield both
    finally:
        for players in both:
            players.stop()


def judged(glances: Mapping[str, Glance], first_failure: str) -> int:
    """Prints what was seen. Returns the exit code."""
    ours, other = glances.values()
    print(
        f"\nRedis was killed and came back with the data it had, among {ours.reads:,} reads and"
        f" {ours.writes:,} writes.\n"
        f"herocache        {ours.stale:,} stale reads, {ours.failed:,} failed requests\n"
        f"commit-then-SET  {other.stale:,} stale reads of {other.reads:,}: older than a write that"
        " was acknowledged before\n"
    )
    if ours.failed:
        say("failed", f"first: {first_failure}")
    return 1 if ours.stale or ours.failed or not ours.reads else 0


class Screen:
    """Shows one changing table on a terminal, else a line for every second."""

    def __init__(self) -> None:
        self._is_live = sys.stdout.isatty()
        self._lines_drawn = 0

    def show(self, second: int, phase: str, glances: Mapping[str, Glance]) -> None:
        if not self._is_live:
            figures = (f"{name}: {in_words(glance)}" for name, glance in glances.items())
            print(f"{second:>2} s  {phase:<16} {'  |  '.join(figures)}", flush=True)
            return
        total = sum(PHASES.values())
        head = "".join(f"{word:>11}" for word in HEADS)
        lines = [f"second {second} of {total}: {phase}", f"{'':<16}{head}"]
        for name, glance in glances.items():
            lines.append(f"{name:<16}" + "".join(f"{text:>11}" for text in columns(glance)))
        up = f"\x1b[{self._lines_drawn}A" if self._lines_drawn else ""
        print(up + "".join(f"\x1b[K{line}\n" for line in lines), end="", flush=True)
        self._lines_drawn = len(lines)


def columns(glance: Glance) -> tuple[str, ...]:
    """The figures under HEADS."""
    hits = "-" if glance.hits is None else f"{glance.hits:.0%}"
    totals = f"{glance.failed:,}", f"{glance.stale:,}"
    return f"{glance.reads:,}", hits, f"{glance.median_ms:.1f}", *totals


def in_words(glance: Glance) -> str:
    reads, hits, median_ms, failed, stale = columns(glance)
    return f"{reads} reads, hits {hits}, median {median_ms} ms, failed {failed}, stale {stale}"
