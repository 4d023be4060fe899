"""The protocol, every order of its steps and faults; and what finds it out when a step is missing.

The steps carry the names of the functions in `chalicelib`.
"""

from dataclasses import replace

import pytest

from tests.model.search import search
from tests.model.state import Faults, Protocol, World
from tests.support.beside import Done

REPLACES = World(readers=1)
OUTAGE = replace(REPLACES, faults=Faults(outages=1))
FAILOVER = replace(REPLACES, faults=Faults(failovers=1))
ONE = replace(REPLACES, writes=(("replace", 0),), converges=False)
FAILBACK = replace(ONE, faults=Faults(failovers=1, failbacks=1))
NEW_ROW = World(writes=(("insert", 0), ("delete", 0)), rows=(0,), readers=1)
LOOKUP = World(writes=(("replace", 0), ("replace", 1)), rows=(1, 1), readers=1)
FILE = World(writes=(("load", 0), ("replace", 0)), readers=1)
NEW_IN_LOOKUP = World(writes=(("insert", 0), ("replace", 1)), rows=(0, 1), readers=1)
TWO_NEW = World(writes=(("insert", 0), ("insert", 1)), rows=(0, 0), readers=1)
RETRY = replace(REPLACES, faults=Faults(flushes=1, crashes=1, retries=1), converges=False)
REFUSED = replace(REPLACES, faults=Faults(refusals=1, outages=1))

WORLDS = {
    "a sleep": replace(REPLACES, faults=Faults(sleeps=1)),
    "a sleep and a crash": replace(REPLACES, faults=Faults(sleeps=1, crashes=1), converges=False),
    "two new rows of one lookup, a sleep": replace(TWO_NEW, faults=Faults(sleeps=1)),
    "two rows of one lookup, a sleep and a crash": replace(
        LOOKUP, faults=Faults(sleeps=1, crashes=1), converges=False
    ),
    "a new row in a lookup, a sleep and a flush": replace(
        NEW_IN_LOOKUP, faults=Faults(sleeps=1, flushes=1)
    ),
    "a new row that is deleted, a sleep, a flush": replace(
        NEW_ROW, faults=Faults(sleeps=1, flushes=1)
    ),
    "a new row that is deleted, an outage": replace(NEW_ROW, faults=Faults(outages=1)),
    "a new row that is deleted, a failover": replace(NEW_ROW, faults=Faults(failovers=1)),
    "two new rows of one lookup, an outage": replace(TWO_NEW, faults=Faults(outages=1)),
    "two new rows of one lookup, two flushes": replace(TWO_NEW, faults=Faults(flushes=2)),
    "two new rows of one lookup, a failover": replace(TWO_NEW, faults=Faults(failovers=1)),
    "two new rows of one lookup, a flush, a crash, a retry": replace(
        TWO_NEW, faults=RETRY.faults, converges=False
    ),
    "a new row in a lookup, an eviction": replace(NEW_IN_LOOKUP, faults=Faults(evictions=1)),
    "a new row in a lookup, a failover": replace(NEW_IN_LOOKUP, faults=Faults(failovers=1)),
    "two new rows of one lookup, a flush and an outage": replace(
        TWO_NEW, faults=Faults(outages=1, flushes=1)
    ),
    "a file and a new row": World(writes=(("load", 0), ("insert", 1)), rows=(1, 0), readers=1),
    "three new rows of one lookup": World(
        writes=(("insert", 0), ("insert", 1), ("insert", 2)), rows=(0, 0, 0), readers=1
    ),
    "three rows of one lookup": World(
        writes=(("replace", 0), ("replace", 1), ("insert", 2)), rows=(1, 1, 0), readers=1
    ),
    "three replaces": World(
        writes=(("replace", 0), ("replace", 0), ("replace", 0)), rows=(1,), readers=1
    ),
    "a flush": replace(REPLACES, faults=Faults(flushes=1)),
    "a crash": replace(REPLACES, faults=Faults(crashes=1)),
    "a flush and a crash, two readers": World(faults=Faults(flushes=1, crashes=1), converges=False),
    "an outage": OUTAGE,
    "a failover": FAILOVER,
    "a failover and a failback": FAILBACK,
    "a crash, a flush and an outage": replace(
        REPLACES, faults=Faults(crashes=1, flushes=1, outages=1), converges=False
    ),
    "a flush, a crash and a retry": RETRY,
    "an outage, a crash and a retry": replace(
        RETRY, faults=Faults(outages=1, crashes=1, retries=1), max_generations=4
    ),
    "a failover, a crash and a retry": replace(
        ONE, faults=Faults(failovers=1, crashes=1, retries=1)
    ),
    "two rows of one lookup, a flush, a crash and a retry": replace(
        LOOKUP, faults=RETRY.faults, converges=False
    ),
    "a new row that is deleted, a flush": replace(NEW_ROW, faults=Faults(flushes=1)),
    "two rows of one lookup, a crash": replace(LOOKUP, faults=Faults(crashes=1)),
    "two rows of one lookup, a flush": replace(LOOKUP, faults=Faults(flushes=1)),
    "two rows of one lookup, an outage": replace(LOOKUP, faults=Faults(outages=1)),
    "two rows of one lookup, a failover": replace(LOOKUP, faults=Faults(failovers=1)),
    "two new rows of one lookup, a crash": replace(TWO_NEW, faults=Faults(crashes=1)),
    "two new rows of one lookup, a flush": replace(TWO_NEW, faults=Faults(flushes=1)),
    "an eviction": replace(REPLACES, faults=Faults(evictions=1)),
    "two rows of one lookup, an eviction": replace(LOOKUP, faults=Faults(evictions=1)),
    "two new rows of one lookup, an eviction": replace(TWO_NEW, faults=Faults(evictions=1)),
    "a refused change": replace(REPLACES, faults=Faults(refusals=1)),
    "a refused change and an outage": REFUSED,
    "a refused change and a flush": replace(REPLACES, faults=Faults(refusals=1, flushes=1)),
    "a refused change in a lookup": replace(LOOKUP, faults=Faults(refusals=1)),
    "a refused new row in a lookup": replace(NEW_IN_LOOKUP, faults=Faults(refusals=1)),
    "a refused row of a key that is new": replace(NEW_ROW, faults=Faults(refusals=1)),
    "a file and a row, a crash": replace(FILE, faults=Faults(crashes=1)),
    "a file and a row, an outage": replace(FILE, faults=Faults(outages=1)),
    "a new row in a lookup, a crash": replace(NEW_IN_LOOKUP, faults=Faults(crashes=1)),
    "a new row in a lookup, a flush": replace(NEW_IN_LOOKUP, faults=Faults(flushes=1)),
    "a new row in a lookup, an outage": replace(NEW_IN_LOOKUP, faults=Faults(outages=1)),
}

WITHOUT = {
    "lease_check": REPLACES,
    "fence": replace(REPLACES, faults=Faults(crashes=1)),
    "raise_unfenced": replace(OUTAGE, converges=False),
    "wait": replace(OUTAGE, converges=False),
    "server_check": replace(FAILOVER, converges=False),
    "append": replace(REPLACES, faults=Faults(crashes=1)),
    "own_fence_check": REPLACES,
    "lost_is_shared": replace(LOOKUP, faults=Faults(evictions=1)),
    "settle_check": REPLACES,
    "settle_waits": replace(REPLACES, faults=Faults(crashes=1)),
    "raise_unpublished": replace(OUTAGE, faults=Faults(outages=1, flushes=1), converges=False),
    "hold_generation": replace(OUTAGE, converges=False),
    "raise_generation": FILE,
    "publish_repeated": RETRY,
    "stamp_repeated": replace(LOOKUP, faults=RETRY.faults, converges=False),
    "shared_goes": LOOKUP,
    "fresh_token": replace(LOOKUP, readers=0, faults=Faults(refusals=1, outages=1, evictions=1)),
    "only_masters": FAILBACK,
    "name_history": FAILBACK,
    "guard": replace(TWO_NEW, faults=Faults(outages=1), converges=False),
    "stamp": TWO_NEW,
    "life": replace(TWO_NEW, faults=Faults(flushes=1)),
    "publish_awaited": replace(REPLACES, faults=Faults(flushes=1), converges=False),
    "store_good": replace(NEW_ROW, faults=Faults(flushes=1)),
    "fresh_mark": replace(LOOKUP, faults=Faults(crashes=1, refusals=1), converges=False),
    "witness": NEW_ROW,
    "only_absent": NEW_ROW,
    "tombstone": NEW_ROW,
}

# Without these the search takes long to find out.
LONG_WITHOUT = {"fresh_mark", "fresh_token", "guard", "stamp_repeated"}


def has_many_orders(world: World) -> bool:
    return len(world.writes) > 2 or sum(world.faults) > 1


def proof_if(is_long: bool) -> list[pytest.MarkDecorator]:
    return [pytest.mark.proof] if is_long else []


@pytest.mark.parametrize(
    "world",
    [
        pytest.param(world, id=name, marks=proof_if(has_many_orders(world)))
        for name, world in WORLDS.items()
    ],
)
def test_no_order_of_steps_makes_a_read_stale(world: World) -> None:
    result = search(world, max_states=30_000)

    print(f"{result.states} states, all of them: {result.is_complete}")
    assert not result.violation, "\n".join(result.trace)


@pytest.mark.timeout(1200)  # it leaves the cores to the other tests
def test_nor_do_all_faults_at_once(long_search: Done) -> None:
    """What `python -m tests.model` searches, all of it."""
    output = long_search.stdout.decode()

    print(output)
    assert long_search.returncode == 0, output + long_search.stderr.decode()
    assert int(output.split()[0]) > 200_000, "the search ended early"


@pytest.mark.parametrize(
    ("missing", "world"),
    [
        pytest.param(name, world, id=name, marks=proof_if(name in LONG_WITHOUT))
        for name, world in WITHOUT.items()
    ],
)
def test_no_ingredient_can_be_left_out(missing: str, world: World) -> None:
    result = search(replace(world, protocol=Protocol(**{missing: False})))

    assert result.violation
    assert result.trace
