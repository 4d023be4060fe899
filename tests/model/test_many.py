"""Writes of many rows: every order of their pieces and faults; and what finds it out when an
ingredient is missing."""

from dataclasses import replace

import pytest

from tests.model.many import (
    BOTH,
    EACH_ONE,
    FLUSH,
    LARGE,
    LEAVE,
    LOOKUP,
    OUTAGE,
    REJECTED,
    ROWS,
    SMALL,
    TWO_AND_ONE,
    Many,
    Protocol,
    search,
)

MOST_STATES = 50_000

WITHOUT = {
    "sorted_locks": Many(ROWS, BOTH, readers=0),
    "one_transaction": Many(ROWS, TWO_AND_ONE, REJECTED),
    "lift_all": Many(ROWS, TWO_AND_ONE, REJECTED),
    "all_stand": Many(ROWS, TWO_AND_ONE, OUTAGE),
    "all_judge": Many(LOOKUP, EACH_ONE),
    "leave_waits": Many(ROWS, LEAVE),
    "marker": Many(ROWS, TWO_AND_ONE, FLUSH),
}
# Each takes more than a second. Only a change of the model itself can make them fail.
LONG = {
    "two pieces for one server",
    *("two rows of two servers, one is rejected", "two rows of two servers, a crash"),
    "a row and a lookup on another server, a writer for each row",
}


@pytest.mark.parametrize(
    "world",
    [
        pytest.param(world, id=name, marks=[pytest.mark.proof] * (name in LONG))
        for name, world in SMALL.items()
    ],
)
def test_no_order_of_the_pieces_makes_a_read_stale(world: Many) -> None:
    result = search(world)

    assert not result.violation, "\n".join(result.trace)


@pytest.mark.proof
@pytest.mark.parametrize("world", LARGE.values(), ids=LARGE)
def test_nor_does_one_with_more_faults(world: Many) -> None:
    """Until `MOST_STATES` were met; `python -m tests.model` searches all of it."""
    result = search(world, MOST_STATES)

    assert not result.violation, "\n".join(result.trace)


@pytest.mark.parametrize(("missing", "world"), WITHOUT.items(), ids=WITHOUT)
def test_no_ingredient_can_be_left_out(missing: str, world: Many) -> None:
    result = search(replace(world, protocol=Protocol(**{missing: False})))

    assert result.violation
    assert result.trace
