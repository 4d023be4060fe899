"""Lazy loading in the model. A reader reads again and again; each function is one atomic step.

A read that only asks the database is no step, because its answer is never stale and changes
nothing."""

from collections.abc import Iterator

from tests.model.redis import ANOTHER_SERVER, FENCED, GRANTED, REFUSED, WAIT, call, execute
from tests.model.state import Fence, Lease, Message, Reader, Rows, State, Value, World

Step = tuple[str, State]


def steps(world: World, state: State, index: int) -> Iterator[Step]:
    reader = state.readers[index]
    yield from STEPS[reader.at](world, state, index)
    if reader.sent is not None:
        after, _ = execute(world, state, reader.sent)
        yield f"its {reader.sent.verb} arrives", after.reader(index, sent=None)
    if reader.memory < state.newest:
        after = state.reader(index, memory=state.newest)
        yield f"its memory runs out, it will know generation {state.newest}", after
    if reader.server != state.primary:
        yield "opens a new line", state.reader(index, server=state.primary)


def current(world: World, state: State, index: int) -> Iterator[Step]:
    """A read begins, under the generation that is remembered; or memory runs out."""
    number = state.readers[index].memory
    if state.generations[number].enabled:
        after = state.reader(index, at="get_many", generation=number, floor=state.acknowledged)
        yield f"current: a read begins under generation {number}", after


def get_many(world: World, state: State, index: int) -> Iterator[Step]:
    reader = state.readers[index]
    message = Message("get_many", reader.server, reader.generation)
    state, entry, server = call(world, state, message)
    state = state.reader(index, server=server) if server != reader.server else state
    if entry == ANOTHER_SERVER:
        yield f"get_many: {entry}", state.reader(index, at="use_server", floor=())
    elif isinstance(entry, Value):
        yield _answer("get_many", state, index, entry.rows)
    else:
        yield f"get_many: {entry}", state.reader(index, at="lease_many")


def lease_many(world: World, state: State, index: int) -> Iterator[Step]:
    reader = state.readers[index]
    message = Message("lease_many", reader.server, reader.generation, _new_token(state))
    state, reply, server = call(world, state, message)
    state = state.reader(index, server=server) if server != reader.server else state
    message = message._replace(server=server)
    if isinstance(reply, Value):
        yield _answer("lease_many", state, index, reply.rows)
    elif isinstance(reply, Fence):
        ready = message._replace(verb="settle_many", token=0, fence=reply)
        yield "lease_many: the fence of a dead writer", _loading(state, index, "settle_many", ready)
    elif reply == GRANTED:
        ready = message._replace(verb="fill_many")
        yield "lease_many: granted", _loading(state, index, "load", ready)
    elif reply == WAIT:
        yield "lease_many: another fills it, wait", state.reader(index, at="get_many")
    elif reply in (FENCED, REFUSED):
        yield "lease_many: fenced", _ended(state, index)
    else:
        yield f"lease_many: {reply}", state.reader(index, at="use_server", floor=())


def load(world: World, state: State, index: int) -> Iterator[Step]:
    """The SELECT. Nobody waits for the store that follows it."""
    ready = state.readers[index].ready
    assert ready is not None
    sent = ready._replace(rows=state.table, server=state.readers[index].server)
    yield f"load {state.table}, sends fill_many", _ended(state, index, sent)


def settle_many(world: World, state: State, index: int) -> Iterator[Step]:
    """The SELECT that waits for writers; where it cannot wait so long the fence counts as new."""
    ready = state.readers[index].ready
    assert ready is not None
    if _has_writers(world, state) and world.protocol.settle_waits:
        sent = ready._replace(verb="renew_many", server=state.readers[index].server)
    else:
        sent = ready._replace(rows=state.table, server=state.readers[index].server)
    yield f"load {state.table} after writers, sends {sent.verb}", _ended(state, index, sent)


def _has_writers(world: World, state: State) -> bool:
    """Whether a locking SELECT finds a row that a transaction under way holds. In a lookup it finds
    a row that comes to it only once that was changed, which is just before the COMMIT; one that is
    deleted is in it from the beginning."""
    if not world.is_lookup:
        return state.is_locked()
    return any(
        writer.batch == "read" or (writer.batch == "held" and verb == "delete")
        for (verb, _), writer in zip(world.writes, state.writers)
    )


def use_server(world: World, state: State, index: int) -> Iterator[Step]:
    reader = state.readers[index]
    if not world.protocol.fresh_incarnation:
        incarnation = state.generations[reader.generation].incarnation
        yield "sets the marker again", state.with_marker(reader.server, incarnation)
    label = "use_server: another was faster"
    if state.newest == reader.generation and state.newest + 1 < world.max_generations:
        if state.is_locked() and world.protocol.hold_generation:
            return
        state = state.switched_on(reader.server)
        label = f"use_server: switch_on generation {state.newest}"
    yield label, _ended(state.reader(index, memory=state.newest), index)


def stale(world: World, state: State, index: int) -> Iterator[Step]:
    """The end: the search has found what it looked for."""
    yield from ()


STEPS = {
    "current": current,
    "get_many": get_many,
    "lease_many": lease_many,
    "load": load,
    "settle_many": settle_many,
    "use_server": use_server,
    "stale": stale,
}


def _answer(verb: str, state: State, index: int, rows: Rows) -> Step:
    floor = state.readers[index].floor
    if any(row < least and (row | least) & 1 for row, least in zip(rows, floor)):
        label = f"{verb}: answers {rows}, but {floor} was acknowledged"
        return label, state.reader(index, at="stale")
    return f"{verb}: answers {rows}", _ended(state, index)


def _loading(state: State, index: int, at: str, ready: Message) -> State:
    """What is read from the database is never stale: from here on only the store matters."""
    return state.reader(index, at=at, generation=0, floor=(), ready=ready)


def _ended(state: State, index: int, sent: Message | None = None) -> State:
    """What a reader no longer needs is forgotten, so that equal states look equal."""
    reader = state.readers[index]
    ended = Reader("current", reader.memory, reader.server, sent=sent or reader.sent)
    return state.with_reader(index, ended)


def _new_token(state: State) -> int:
    used = {reader.ready.token for reader in state.readers if reader.ready}
    used |= {reader.sent.token for reader in state.readers if reader.sent}
    for server in state.servers:
        used |= {entry.token for entry in server.entries if isinstance(entry, Lease)}
    return next(token for token in range(100, 200) if token not in used)
