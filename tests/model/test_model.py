"""The protocol, every order of its steps and faults; and what finds it out when a step is missing.

The steps carry the names of the functions in `chalicelib`.
"""

from dataclasses import replace

import pytest

from tests.model.search import search
from tests.model.state import Faults, Protocol, World
from tests.model.worlds import (
    BULK,
    FAILBACK,
    FAILOVER,
    FILE,
    HELD_UP,
    LARGE,
    LEFT,
    LOOKUP,
    LOST,
    MANY_PLAIN,
    NEW_ROW,
    OUTAGE,
    PLAIN_IN_LOOKUP,
    REPLACES,
    RETRY,
    SMALL,
    TWO_DRAINS,
    TWO_NEW,
    TWO_PLAIN,
)

MOST_STATES = 50_000

# Each takes half a second or more. Only a change of the model itself can make them fail.
LONG_SMALL = {
    *("a refused change", "a refused row of a key that is new", "two rows of one lookup, a crash"),
    *("a lost connection", "a lost connection, a lookup"),
    *("a file and a new row", "a file and a row, a crash", "a file and a row, an outage"),
    "a row that left a lookup is changed again, a failover",
    "a row that left a lookup is changed again, a flush and a crash",
    "a row that left a lookup is changed again, a sleep",
    "many rows that follow their public keys, a row",
    "many rows that follow their public keys, a row, a crash",
    "plain SQL, a run and a fresh read, a flush",
    "plain SQL, a run and a fresh read, an outage",
    *("plain SQL, a run and a replace", "plain SQL, a run and a new row of one lookup"),
    "plain SQL, a run and a replace in a lookup",
    *("a flush", "a sleep", "an eviction", "a new row that is deleted, a flush"),
    "plain SQL, a run and a replace, a flush",
    "plain SQL, a run and a replace in a lookup, a sleep",
    *("a new row in a lookup, a crash", "two new rows of one lookup, a crash"),
    "a lost connection, two new rows of one lookup",
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
    "raise_unpublished": replace(OUTAGE, faults=Faults(outages=1, evictions=1), converges=False),
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
    "age": replace(TWO_NEW, faults=Faults(sleeps=1)),
    "marker_of_leases": replace(LEFT, faults=Faults(flushes=1)),
    "marker_of_fences": replace(TWO_NEW, faults=Faults(flushes=1)),
    "stamp_only": World(
        writes=(("delete", 0), ("elsewhere", 0), ("replace", 1)),
        rows=(1, 1),
        readers=1,
        faults=Faults(flushes=1),
    ),
    "fresh_incarnation": replace(TWO_NEW, faults=Faults(flushes=1)),
    "publish_awaited": replace(REPLACES, faults=Faults(evictions=1), converges=False),
    "store_good": replace(NEW_ROW, faults=Faults(flushes=1)),
    "fresh_mark": replace(LOOKUP, faults=Faults(crashes=1, refusals=1), converges=False),
    "witness": NEW_ROW,
    "witness_first": NEW_ROW,
    "only_absent": NEW_ROW,
    "tombstone": NEW_ROW,
    "stamp_of_lift": replace(REPLACES, faults=Faults(refusals=1)),
    "make_stand": LOST,
    "leave_waits": LEFT,
    "guard_time": HELD_UP,
    "records_first": PLAIN_IN_LOOKUP,
    "ids_first": MANY_PLAIN,
    "finish_last": TWO_DRAINS,
    "finish_seen": TWO_PLAIN,
    "only_marked": TWO_DRAINS,
    "follow_first": TWO_DRAINS,
}

# Without these the search takes half a second or more to find out. Only a change of the model
# itself can make it fail.
LONG_WITHOUT = {
    *("hold_generation", "marker_of_fences", "publish_awaited", "publish_repeated"),
    *("records_first", "settle_check", "settle_waits", "store_good"),
    *("witness", "witness_first"),
    *("age", "fresh_incarnation", "lost_is_shared", "stamp_only"),
    *("fresh_mark", "fresh_token", "guard", "stamp_repeated"),
    *("name_history", "only_masters", "raise_unpublished", "server_check"),
}


@pytest.mark.parametrize(
    "world",
    [
        pytest.param(world, id=name, marks=[pytest.mark.proof] * (name in LONG_SMALL))
        for name, world in SMALL.items()
    ],
)
def test_no_order_of_steps_makes_a_read_stale(world: World) -> None:
    """All of them."""
    result = search(world)

    assert not result.violation, "\n".join(result.trace)


@pytest.mark.proof
@pytest.mark.parametrize("world", LARGE.values(), ids=LARGE)
def test_nor_does_one_with_more_faults(world: World) -> None:
    """The shortest orders, until `MOST_STATES` were met: that cuts short what has more.
    `python -m tests.model` searches all of it, which takes more than ten minutes."""
    result = search(world, MOST_STATES)

    print(f"{result.states} states, all of them: {result.is_complete}")
    assert not result.violation, "\n".join(result.trace)


@pytest.mark.parametrize(
    ("missing", "world"),
    [
        ("publish_repeated", PLAIN_IN_LOOKUP),
        ("stamp_repeated", PLAIN_IN_LOOKUP),
        ("stamp", PLAIN_IN_LOOKUP),
        ("wait", MANY_PLAIN),
        ("raise_generation", BULK),
        ("wait", BULK),
    ],
)
def test_what_sends_no_fence_needs_its_stamp_or_its_generation_and_the_wait(
    missing: str, world: World
) -> None:
    result = search(replace(world, protocol=Protocol(**{missing: False})))

    assert result.violation


@pytest.mark.parametrize(
    ("missing", "world"),
    [
        pytest.param(name, world, id=name, marks=[pytest.mark.proof] * (name in LONG_WITHOUT))
        for name, world in WITHOUT.items()
    ],
)
def test_no_ingredient_can_be_left_out(missing: str, world: World) -> None:
    result = search(replace(world, protocol=Protocol(**{missing: False})))

    assert result.violation
    assert result.trace
