"""`python -m tests.model`: every world, whole. Prints how many states each has.

Fails with the shortest trace where a read is stale.
"""

import sys
from itertools import chain

from tests.model import counters, many
from tests.model.search import search
from tests.model.worlds import LARGE, SMALL


def main() -> int:
    states, wrong = 0, 0
    results = chain(
        ((name, search(world)) for name, world in {**SMALL, **LARGE}.items()),
        ((name, counters.search(world)) for name, world in counters.ALL_WORLDS.items()),
        ((name, many.search(world)) for name, world in many.ALL_WORLDS.items()),
    )
    for name, result in results:
        states += result.states
        wrong += bool(result.violation)
        print(f"{result.states:10,} {name}", *result.trace, sep="\n", flush=True)
    print(f"{states:,} states, {wrong} violations")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
