"""Searches every state that a world can reach, breadth first, so the first violation has the
shortest trace."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from tests.model import drains, faults, readers, writers
from tests.model.state import (
    ENDED,
    Entry,
    Fence,
    Lease,
    Message,
    Rows,
    State,
    Value,
    World,
)

AnyState = TypeVar("AnyState")

READING = frozenset({"get_many", "lease_many"})


@dataclass(frozen=True)
class Result:
    states: int
    violation: str = ""
    trace: tuple[str, ...] = ()
    is_complete: bool = True


def search(world: World, max_states: int = 10**8) -> Result:
    return explore(
        world.start(), partial(steps, world), partial(violation, world), _fingerprint, max_states
    )


def explore(
    start: AnyState,
    steps_of: Callable[[AnyState], Iterable[tuple[str, AnyState]]],
    violation_of: Callable[[AnyState], str],
    fingerprint: Callable[[AnyState], int] = hash,
    max_states: int = 10**8,
) -> Result:
    """Of any model. States with the same fingerprint are one."""
    came_from = {fingerprint(start): 0}
    frontier = [start]

    def trace(mark: int) -> tuple[str, ...]:
        marks = [mark]
        while came_from[marks[-1]]:
            marks.append(came_from[marks[-1]])
        state, labels = start, []
        for mark in reversed(marks[:-1]):
            label, state = next(
                (label, after) for label, after in steps_of(state) if fingerprint(after) == mark
            )
            labels.append(label)
        return tuple(labels)

    while frontier:
        following = []
        for state in frontier:
            mark = fingerprint(state)
            for _, after in steps_of(state):
                after_mark = fingerprint(after)
                if after_mark in came_from:
                    continue
                came_from[after_mark] = mark
                if wrong := violation_of(after):
                    return Result(len(came_from), wrong, trace(after_mark))
                following.append(after)
        if len(came_from) > max_states:
            return Result(len(came_from), is_complete=False)
        frontier = following
    return Result(len(came_from))


def steps(world: World, state: State) -> Iterator[tuple[str, State]]:
    for index in range(len(state.readers)):
        for label, after in readers.steps(world, state, index):
            yield f"reader {index + 1}: {label}", tidy(world, after)
    for index in range(len(state.writers)):
        module = drains if world.writes[index][0] in drains.KINDS else writers
        for label, after in module.steps(world, state, index):
            yield f"writer {index + 1}: {label}", tidy(world, after)
    for label, after in faults.steps(world, state):
        yield label, tidy(world, after)


def violation(world: World, state: State) -> str:
    if any(reader.at == "stale" for reader in state.readers):
        return "a read is stale"
    if not state.unheard <= state.records:
        return "no run of the sync will hear of a change"
    is_at_rest = all(writer.at in ENDED for writer in state.writers) and not any(
        message.verb == "fence_many" for message in state.late
    )
    if world.converges and is_at_rest and state.records == state.shown:
        enabled, server, _ = state.generations[-1]
        entry = state.servers[server].entries[state.newest]
        if enabled and isinstance(entry, Value) and shows(entry.rows) != shows(state.table):
            return f"at rest the entry holds {entry.rows}, the table {state.table}"
    return ""


def shows(rows: Rows) -> list[int]:
    """Of two versions of a row that is not there nobody can tell which one he sees."""
    return [row if row & 1 else 0 for row in rows]


def tidy(world: World, state: State) -> State:
    """The same state without what can have no effect any more: entries that nobody can read, stores
    whose lease or fence is gone. Neither is ever set again: a lease has a new token each time, and
    each change of a fence a new mark."""
    if state.newest:
        state = _without_unreadable(state)
    for index, reader in enumerate(state.readers):
        if reader.sent is not None and _is_dead(world, state, reader.sent):
            state = state.reader(index, sent=None)
        if reader.ready is not None and _is_dead(world, state, reader.ready):
            state = state.reader(index, at="current", ready=None)
    state = _without_unasked(state)
    return _reclocked(state) if state.clock else state


def _is_dead(world: World, state: State, message: Message) -> bool:
    entry = state.servers[message.server].entries[message.generation]
    if message.verb == "fill_many":
        return world.protocol.lease_check and entry != Lease(message.token)
    is_gone_for_good = world.protocol.settle_check and world.protocol.fresh_mark
    return is_gone_for_good and entry != message.fence


def _without_unreadable(state: State) -> State:
    generations, newest = state.generations, len(state.generations) - 1
    readable = {newest}
    for index, reader in enumerate(state.readers):
        if not generations[reader.memory].enabled and reader.memory < newest:
            state = state.reader(index, memory=newest)
        else:
            readable.add(reader.memory)
        if reader.floor:
            readable.add(reader.generation)
    for index, server in enumerate(state.servers):
        for number in range(newest):
            if server.entries[number] is not None and number not in readable:
                server = server.with_entry(number, None)
                state = state.server(index, server)
    for message in state.late:
        if message.generation not in readable:
            state = state._replace(late=state.late - {message})
    return state


def _without_unasked(state: State) -> State:
    """Who watches no more is in no stamp. Nobody looks for the marker of an earlier generation that
    is switched off."""
    watching = state.watching
    for index, writer in enumerate(state.writers):
        if not writer.newer <= watching:
            state = state.writer(index, newer=writer.newer & watching)
    used = {generation.incarnation for generation in state.generations if generation.enabled}
    for index, server in enumerate(state.servers):
        markers = tuple(
            (number, kept & watching) for number, kept in server.markers if number in used
        )
        if markers != server.markers:
            state = state.server(index, server._replace(markers=markers))
    if any(message.newer and not message.newer <= watching for message in state.late):
        late = (m._replace(newer=m.newer & watching) if m.newer else m for m in state.late)
        state = state._replace(late=frozenset(late))
    return state


def _reclocked(state: State) -> State:
    """Stamps count from 0, without gaps."""
    stamps = {state.clock}
    for server in state.servers:
        for entry in server.entries:
            if type(entry) is Fence:
                stamps.update(stamp for stamp, _ in entry.holders)
    for reader in state.readers:
        for message in (reader.ready, reader.sent):
            if message is not None and message.fence is not None:
                stamps.update(stamp for stamp, _ in message.fence.holders)
    if len(stamps) > state.clock:
        return state
    new = {stamp: position for position, stamp in enumerate(sorted(stamps))}

    def fence_(fence: Fence) -> Fence:
        return fence._replace(holders=tuple((new[at], token) for at, token in fence.holders))

    def entry_(entry: Entry) -> Entry:
        return fence_(entry) if isinstance(entry, Fence) else entry

    def message_(message: Message | None) -> Message | None:
        if message is None or message.fence is None:
            return message
        return message._replace(fence=fence_(message.fence))

    return state._replace(
        clock=new[state.clock],
        servers=tuple(s._replace(entries=tuple(map(entry_, s.entries))) for s in state.servers),
        readers=tuple(
            reader._replace(ready=message_(reader.ready), sent=message_(reader.sent))
            for reader in state.readers
        ),
    )


def _fingerprint(state: State) -> int:
    """Readers are alike: which one is where does not matter."""
    return hash((sum(map(hash, state.readers)), state[1:]))
