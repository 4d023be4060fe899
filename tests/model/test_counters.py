"""Write-behind counters: every order of increments, runs, reads and faults; and what finds it out
when an ingredient is missing."""

from dataclasses import replace

import pytest

from tests.model.counters import LARGE, SMALL, WORLDS, Counters, Faults, Protocol, search

MOST_STATES = 50_000
THREE, PRUNED = WORLDS["three"], WORLDS["pruned"]
ONE_RUN, TWO_RUNS = WORLDS["one run"], WORLDS["two runs"]

WITHOUT = {
    "ledger": replace(TWO_RUNS, faults=Faults(crashes=1)),
    "commit_first": TWO_RUNS,
    "publish_first": replace(TWO_RUNS, faults=Faults(expiries=1)),
    "same_totals": TWO_RUNS,
    "kept": TWO_RUNS,
    "reject_old_read": replace(TWO_RUNS, faults=Faults(expiries=1)),
    "lock": TWO_RUNS,
    "new_epoch": replace(THREE, faults=Faults(failovers=1)),
    "behind": replace(THREE, faults=Faults(failovers=1)),
    "copy_key": replace(TWO_RUNS, faults=Faults(copies=1)),
    "copy_done": replace(ONE_RUN, faults=Faults(copies=1, crashes=1)),
    "refusal_kept": replace(ONE_RUN, faults=Faults(copies=1, crashes=1)),
    "server_check": replace(THREE, faults=Faults(failovers=1)),
    "floor": replace(PRUNED, faults=Faults(expiries=1, failovers=1)),
}


@pytest.mark.parametrize("world", SMALL.values(), ids=SMALL)
def test_each_read_shows_each_increment_once(world: Counters) -> None:
    result = search(world)

    assert not result.violation, "\n".join(result.trace)


@pytest.mark.proof
@pytest.mark.parametrize("world", LARGE.values(), ids=LARGE)
def test_so_it_does_with_two_faults(world: Counters) -> None:
    """Until `MOST_STATES` were met; `python -m tests.model` searches all of it."""
    result = search(world, MOST_STATES)

    assert not result.violation, "\n".join(result.trace)


@pytest.mark.parametrize(("missing", "world"), WITHOUT.items(), ids=WITHOUT)
def test_no_ingredient_can_be_left_out(missing: str, world: Counters) -> None:
    result = search(replace(world, protocol=Protocol(**{missing: False})))

    assert result.violation
    assert result.trace
