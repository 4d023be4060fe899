"""`python -m tests.model`: every order of two writers and a reader with three faults.

A crash, a flush and an outage beside two replaces of one row; a process that sleeps, a crash and a
flush beside two new rows of one lookup. Prints how many states there are; fails with the shortest
trace where a read is stale.
"""

import sys

from tests.model.search import search
from tests.model.state import Faults, World

WORLDS = (
    World(readers=1, faults=Faults(crashes=1, flushes=1, outages=1), converges=False),
    World(
        writes=(("insert", 0), ("insert", 1)),
        rows=(0, 0),
        readers=1,
        faults=Faults(sleeps=1, crashes=1, flushes=1),
        converges=False,
    ),
)


def main() -> int:
    results = [search(world) for world in WORLDS]
    wrong = [result for result in results if result.violation]
    print(f"{sum(result.states for result in results)} states, {len(wrong)} violations")
    for result in wrong:
        print(result.violation, *result.trace, sep="\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
