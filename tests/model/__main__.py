"""`python -m tests.model`: every order of two writers, two readers, a crash, a flush and an outage.

About two minutes; `tests/test_model.py` has it running beside the other tests. Prints how many
states there are; fails with the shortest trace where a read is stale.
"""

import sys

from tests.model.search import search
from tests.model.state import Faults, World

EVERYTHING = World(faults=Faults(crashes=1, flushes=1, outages=1), converges=False)


def main() -> int:
    result = search(EVERYTHING)
    print(f"{result.states} states, {result.violation or 'no violation'}", *result.trace, sep="\n")
    return 1 if result.violation else 0


if __name__ == "__main__":
    sys.exit(main())
