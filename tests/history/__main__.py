"""Runs the history checker.

python -m tests.history --minutes 10   rounds of a minute each; fails on a violation
python -m tests.history --compare      the service and two alternatives, a fault at a time
python -m tests.history --ingredients  fails unless it finds out where one is missing
"""

import argparse
import signal
import sys
import tempfile
import time
from pathlib import Path

from chalicelib.config import DbEngine
from tests.history.compare import compare
from tests.history.ingredients import wrong_verdicts
from tests.history.round import Report, play, servers
from tests.history.worker import MIX_OF_ALL

ROUND_SECONDS = 60
COMPARED_SECONDS = 8


def soak(minutes: float, seed: int, engine: DbEngine) -> Report:
    """Rounds until the time is over, each from empty tables."""
    total = Report()
    until = time.monotonic() + minutes * 60
    with tempfile.TemporaryDirectory() as home, servers(Path(home)) as on:
        while (left := until - time.monotonic()) > 0:
            seed += 1
            folder, seconds = Path(home) / f"round-{seed}", min(ROUND_SECONDS, left)
            report = play(on, folder, seconds, seed=seed, mix=MIX_OF_ALL, engine=engine)
            print(f"round {seed}: {report}\n", flush=True)
            total += report
    return total


def main() -> int:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended before it was done"))
    parser = argparse.ArgumentParser(prog="python -m tests.history")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--compare", action="store_true")
    parser.add_argument("--ingredients", action="store_true")
    parser.add_argument("--seconds", type=float, default=COMPARED_SECONDS, help="a fault compared")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--engine", type=DbEngine, default=DbEngine.MYSQL, help="mysql or dataapi")
    options = parser.parse_args()
    if options.compare:
        compare(options.seconds, options.seed)
        return 0
    if options.ingredients:
        with tempfile.TemporaryDirectory() as home, servers(Path(home)) as on:
            wrong = list(wrong_verdicts(on, Path(home) / "rounds"))
        print("\n".join(wrong) or "each was found out")
        return 1 if wrong else 0
    total = soak(options.minutes, options.seed, options.engine)
    print(f"all rounds: {total}")
    return 1 if total.verdict.violations else 0


if __name__ == "__main__":
    sys.exit(main())
