"""Drains in the model: what brings changes by plain SQL to the cache. Each function is one atomic
step of `CapturedChanges`.

A run of the sync drains, a read with FRESH shows: that one leaves the records to the next run.
"""

from collections.abc import Iterator

from tests.model import writers
from tests.model.state import ENDED, State, World
from tests.model.writers import Step

# A run of the sync that finds so many records as it takes out one by one, one that finds more, and
# a read with FRESH. A FRESH read without the cache has its SELECT before these steps.
KINDS = frozenset({"run", "run_of_many", "fresh"})


def steps(world: World, state: State, index: int) -> Iterator[Step]:
    writer = state.writers[index]
    if writer.at in ENDED:
        return
    for label, after in STEPS[writer.at](world, state, index):
        yield f"{world.writes[index][0]}: {label}", after
    if state.faults.crashes and writer.at != "write_many":
        yield from writers.crashes(world, state, index)


def begin(world: World, state: State, index: int) -> Iterator[Step]:
    """The records that are left. What must be seen at the end was committed by now: a little more
    than what was committed when it began. The container asks for the generation behind it."""
    state = state.writer(index, floor=state.captured)
    if world.protocol.records_first:
        yield from find(world, state, index)
    else:
        newer, generation = state.watching, state.newest
        yield "asks", state.writer(index, at="find", newer=newer, generation=generation)


def find(world: World, state: State, index: int) -> Iterator[Step]:
    is_fresh = world.writes[index][0] == "fresh"
    found = state.records - state.shown if is_fresh else state.records
    at = "ask" if world.protocol.records_first else "bring"
    after = state.writer(index, at=at, records=found)
    yield f"finds {len(found)} records", after


def ask(world: World, state: State, index: int) -> Iterator[Step]:
    """The generation, in the same round trip but with a later statement; and what time it is."""
    newer, generation = state.watching, state.newest
    yield "asks", state.writer(index, at="bring", newer=newer, generation=generation)


def bring(world: World, state: State, index: int) -> Iterator[Step]:
    """Where there are no records nothing is left to do: who deleted them has waited."""
    writer = state.writers[index]
    if not writer.records:
        yield "nothing is left", _ended(state, index)
    elif not world.protocol.finish_last:
        yield from finish(world, _followed(world, state, index), index)
    else:
        yield from _taken_out(world, state, index)


def _taken_out(world: World, state: State, index: int) -> Iterator[Step]:
    """By a publish, or of many records all entries of the table: then it reads the ids again."""
    writer = state.writers[index]
    if world.writes[index][0] != "run_of_many":
        is_cached = state.generations[writer.generation].enabled
        is_cached = is_cached and world.protocol.publish_repeated
        at = "publish_repeated" if is_cached else "wait_until_known"
        yield "takes the entries out", state.writer(index, at=at)
    elif world.protocol.ids_first:
        after = state.writer(index, at="raise_all", records=state.records, newer=frozenset())
        yield "reads the ids", after
    else:
        yield "reads no ids yet", state.writer(index, at="raise_all", newer=frozenset())


def raise_all(world: World, state: State, index: int) -> Iterator[Step]:
    """`WriteThrough.replace_all`, which changes nothing but the generation."""
    if writers.can_raise(world, state):
        after = state.raised(*state.generations[-1])
        after = after.writer(index, at="wait_until_known", generation=after.newest)
        yield f"generation {after.newest}", after


def wait_until_known(world: World, state: State, index: int) -> Iterator[Step]:
    """What every reader has seen by now."""
    number = state.writers[index].generation
    if world.protocol.wait and any(reader.memory < number for reader in state.readers):
        return
    if not world.protocol.finish_last:
        yield "ends", _ended(state, index)
    else:
        yield "every reader knows", state.writer(index, at="follow", newer=frozenset())


def follow(world: World, state: State, index: int) -> Iterator[Step]:
    """The run works on the rows that were changed, before it deletes their records."""
    if world.writes[index][0] == "fresh" or not world.protocol.follow_first:
        yield from finish(world, state, index)
    else:
        yield "follows", _followed(world, state, index).writer(index, at="finish")


def finish(world: World, state: State, index: int) -> Iterator[Step]:
    """The records that were found: the run deletes them, the fresh read marks them."""
    kind, writer = world.writes[index][0], state.writers[index]
    done = writer.records
    if not world.protocol.finish_seen or (kind == "run_of_many" and not world.protocol.ids_first):
        done = state.records
    if kind == "fresh" and world.protocol.only_marked:
        after = state._replace(shown=state.shown | (done & state.records))
    else:
        after = state._replace(records=state.records - done, shown=state.shown - done)
    if not world.protocol.follow_first:
        yield "finishes", after.writer(index, at="follow_late")
    elif not world.protocol.finish_last:
        yield from _taken_out(world, after, index)
    else:
        yield "finishes", _ended(after, index)


def follow_late(world: World, state: State, index: int) -> Iterator[Step]:
    yield "follows", _ended(_followed(world, state, index), index)


def _followed(world: World, state: State, index: int) -> State:
    """Of many records it is told that any row may have changed."""
    is_any = world.writes[index][0] == "run_of_many"
    heard = state.unheard if is_any else state.writers[index].records
    return state._replace(unheard=state.unheard - heard)


def _ended(state: State, index: int) -> State:
    """Each read that starts now shows what was committed when it began."""
    acknowledged = tuple(map(max, state.acknowledged, state.writers[index].floor))
    return state._replace(acknowledged=acknowledged).ended(index, "acknowledged")


STEPS = {
    **writers.STEPS,
    "write_many": begin,
    "find": find,
    "ask": ask,
    "bring": bring,
    "raise_all": raise_all,
    "wait_until_known": wait_until_known,
    "follow": follow,
    "finish": finish,
    "follow_late": follow_late,
}
