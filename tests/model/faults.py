"""The faults and other events in the model: messages arrive, time passes, Redis is emptied or
replaced."""

from collections.abc import Callable, Iterator

from tests.model.redis import execute
from tests.model.state import (
    ENDED,
    Entry,
    Fence,
    Lease,
    Message,
    Server,
    State,
    World,
    Writer,
)

Step = tuple[str, State]
# Where a writer's client has sent its fences, and has not judged them yet.
AT_FENCES = frozenset({"sent", "lift", "lift_and_retry", "make_stand"})


def steps(world: World, state: State) -> Iterator[Step]:
    for message in state.late:
        after, _ = execute(world, state, message)
        arrived = f"{message.verb} of generation {message.generation} arrives"
        yield arrived, after._replace(late=state.late - {message})
    yield from time(world, state)
    faults = state.faults
    for index, server in enumerate(state.servers[: state.primary + 1]):
        empty = Server((None,) * world.max_generations)
        if faults.flushes and server != empty:
            after = state._replace(faults=faults._replace(flushes=faults.flushes - 1))
            yield "Redis is flushed", after.server(index, empty)
        if faults.evictions:
            after = state._replace(faults=faults._replace(evictions=faults.evictions - 1))
            yield from _losses(after, index, lambda number, entry: True, "is evicted")
            for incarnation, _ in server.markers:
                lost = server.without_marker(incarnation)
                yield f"marker {incarnation} is evicted", after.server(index, lost)
    if faults.failovers:
        if state.servers[1] != state.servers[0]:
            yield "the replica catches up", state.server(1, state.servers[0])
        after = state._replace(primary=1, faults=faults._replace(failovers=faults.failovers - 1))
        yield "the replica takes over", after
    if faults.failbacks and state.primary == 1:
        yield from failback(state)
    yield from switch_on(world, state)


def failback(state: State) -> Iterator[Step]:
    """The old master is made a replica: it takes what the new one has, and lines to it stand. Then
    it takes over again, with all that it is owed."""
    if state.servers[0] != state.servers[1] or not state.has_replica:
        copied = state._replace(has_replica=True).server(0, state.servers[1])
        yield "the old master becomes a replica and takes over its entries", copied
    if state.has_replica:
        faults = state.faults._replace(failbacks=0)
        after = state.server(2, state.servers[0])._replace(primary=2, faults=faults)
        yield "the old master takes over again", _with_lines(after, 0, 2)


def _with_lines(state: State, old: int, new: int) -> State:
    """Lines and messages that led to server `old` lead to `new`."""

    def message_(message: Message | None) -> Message | None:
        is_there = message is not None and message.server == old
        return message._replace(server=new) if message and is_there else message

    readers = [
        reader._replace(
            server=new if reader.server == old else reader.server,
            ready=message_(reader.ready),
            sent=message_(reader.sent),
        )
        for reader in state.readers
    ]
    writers = [w._replace(server=new if w.server == old else w.server) for w in state.writers]
    late = frozenset(m._replace(server=new) if m.server == old else m for m in state.late)
    return state._replace(readers=tuple(readers), writers=tuple(writers), late=late)


def time(world: World, state: State) -> Iterator[Step]:
    """A witness (0.9 s) is gone before a fence that came then counts as old (10 s), before a
    tombstone (2 s) that came later, and before a value. A fence lives longer (60 s) than its
    writer."""
    working = {state.token(number) for number, w in enumerate(state.writers) if w.at not in ENDED}
    for index, server in enumerate(state.servers[: state.primary + 1]):

        def may_expire(number: int, entry: Entry, server: Server = server) -> bool:
            if isinstance(entry, Fence) and entry.holders:
                return entry.since < state.clock and not working & entry.tokens
            return isinstance(entry, Lease) or all(pair[0] != number for pair in server.outlived)

        yield from _losses(state, index, may_expire, "expires")
        for token in server.witnesses:
            after = state.server(index, server.without_witnesses(frozenset({token})))
            yield "a witness expires", after
    fences = [
        entry for server in state.servers for entry in server.entries if isinstance(entry, Fence)
    ]
    if not any(stamp == state.clock for fence in fences for stamp, _ in fence.holders):
        return
    servers = tuple(server.without_witnesses(server.witnesses) for server in state.servers)
    after = state._replace(clock=state.clock + 1, servers=servers)
    if not any(_is_unseen(world, writer) for writer in state.writers):
        yield "ten seconds go by", after
    elif state.faults.sleeps:
        faults = state.faults._replace(sleeps=state.faults.sleeps - 1)
        slept = tuple(
            w._replace(slept=w.batch in ("sent", "held"), is_old=w.at in AT_FENCES)
            for w in state.writers
        )
        yield "ten seconds go by, a writer sleeps", after._replace(faults=faults, writers=slept)


def _is_unseen(world: World, writer: Writer) -> bool:
    """Whether its fences may grow old before a reader that settles them would wait for its row."""
    if writer.at == "orphan":
        return writer.batch == "sent" or world.is_lookup
    return writer.at in AT_FENCES


def switch_on(world: World, state: State) -> Iterator[Step]:
    """`Recovery`, anywhere."""
    is_free = not state.is_locked() or not world.protocol.hold_generation
    if state.generations[-1].enabled or not is_free or state.newest + 1 >= world.max_generations:
        return
    servers = [n for n in range(state.primary + 1) if not state.has_replica or n == state.primary]
    for server in servers:
        yield f"recovery: switch_on generation {state.newest + 1}", state.switched_on(server)


def _losses(
    state: State, index: int, is_lost: Callable[[int, Entry], bool], what: str
) -> Iterator[Step]:
    server = state.servers[index]
    for number, entry in enumerate(server.entries):
        if entry is not None and is_lost(number, entry):
            yield f"{entry} {what}", state.server(index, server.with_entry(number, None))
