"""Redis in the model: each command of `chalicelib.cache` on the one entry, as one atomic step."""

from collections.abc import Callable
from typing import NamedTuple

from tests.model.state import Entry, Fence, Lease, Message, Server, State, Value, Watermark, World

Reply = Entry | Watermark | str
GRANTED, WAIT, FENCED, ANOTHER_SERVER = "granted", "wait", "fenced", "AnotherServer"
REFUSED = "a replica takes no writes"
Script = Callable[[World, "Moment", Entry, Message], Entry]


class Moment(NamedTuple):
    """`mark`: one that no fence has that anybody still knows of: the code takes the microsecond."""

    clock: int
    mark: int


def call(world: World, state: State, message: Message) -> tuple[State, Reply, int]:
    """`Client.call`: what it did, its reply and the server that was reached. A kept connection
    that leads to a server the generation does not speak of, or to a replica, is replaced by a new
    one, and that one is asked."""
    believed = state.generations[message.generation].server
    if world.protocol.only_masters and state.is_replica(message.server):
        message = message._replace(server=state.primary)
    state, reply = execute(world, state, message)
    if _is_same(world, message.server, believed) or not world.protocol.server_check:
        return state, reply, message.server
    if message.server != state.primary:
        state, reply = execute(world, state, message._replace(server=state.primary))
    is_same = _is_same(world, state.primary, believed)
    return state, reply if is_same else ANOTHER_SERVER, state.primary


def _is_same(world: World, server: int, believed: int) -> bool:
    """By its name: the third server is the process that the first one was."""
    return server == believed or (not world.protocol.name_history and {server, believed} == {0, 2})


def execute(world: World, state: State, message: Message) -> tuple[State, Reply]:
    server = state.servers[message.server]
    before = server.entries[message.generation]
    if message.verb == "get_many":
        return state, before
    if state.is_replica(message.server):
        return state, REFUSED
    if message.verb in ("set_witness", "fence_many", "publish_many"):
        server = server._replace(watermark=_watermark(state, server.watermark, message))
    reply: Reply = server.watermark
    if message.verb == "set_witness" and not world.protocol.witness_first:
        late = state.late | {message._replace(verb="set_witness_last")}
        return state._replace(late=late).server(message.server, server), reply
    if message.verb in ("set_witness", "set_witness_last"):
        server = server._replace(witnesses=server.witnesses | {message.token})
        return state.server(message.server, server), reply
    if message.verb == "store_new_many":
        after = store_new_many(world, server, before, message)
        server = server.without_witnesses(frozenset({message.token}))
        return _stored(state, message, after, server), None
    moment = Moment(state.clock, _new_mark(state) if world.protocol.fresh_mark else 0)
    after = SCRIPTS[message.verb](world, moment, before, message)
    if message.verb == "lease_many":
        reply = _leased(state, before)
    return _stored(state, message, after, server), reply


def _watermark(state: State, watermark: Watermark, message: Message) -> Watermark:
    """Its life is a new one where it is absent. A stamp makes it pass whoever read before."""
    if watermark.life is None:
        watermark = Watermark(state.new_life())
    return watermark._replace(passed=watermark.passed | (message.newer or frozenset()))


def store_new_many(world: World, server: Server, entry: Entry, message: Message) -> Entry:
    if isinstance(entry, Value) and world.protocol.only_absent:
        return None
    if message.rows is None:
        return entry
    is_witnessed = message.token in server.witnesses or not world.protocol.witness
    is_free = entry is None or not world.protocol.only_absent
    return Value(message.rows) if is_witnessed and is_free else entry


def lease_many(world: World, moment: Moment, entry: Entry, message: Message) -> Entry:
    return Lease(message.token) if entry is None else entry


def fill_many(world: World, moment: Moment, entry: Entry, message: Message) -> Entry:
    is_ours = entry == Lease(message.token) or not world.protocol.lease_check
    return _value(message.rows) if is_ours else entry


def settle_many(world: World, moment: Moment, entry: Entry, message: Message) -> Entry:
    return (
        _value(message.rows) if entry == message.fence or not world.protocol.settle_check else entry
    )


def renew_many(world: World, moment: Moment, entry: Entry, message: Message) -> Entry:
    """`settle_many` where the read could not wait for the writers."""
    if isinstance(entry, Fence) and entry == message.fence:
        holders = sorted((moment.clock, token) for token in entry.tokens)
        return Fence(tuple(holders), moment.mark, entry.is_shared)
    return entry


def fence_many(world: World, moment: Moment, entry: Entry, message: Message) -> Entry:
    """Whoever holds it already does not come again."""
    others: tuple[tuple[int, int], ...] = ()
    if world.protocol.append and isinstance(entry, Fence):
        others = entry.holders
        if message.token in entry.tokens:
            return Fence(others, moment.mark, entry.is_shared)
    holders = tuple(sorted((*others, (moment.clock, message.token))))
    return Fence(holders, moment.mark, bool(others))


def publish_many(world: World, moment: Moment, entry: Entry, message: Message) -> Entry:
    value = None if message.rows is None else Value(message.rows)
    if not world.protocol.own_fence_check and value is not None:
        return value
    if isinstance(entry, Fence) and entry.holders:
        others = tuple(holder for holder in entry.holders if holder[1] != message.token)
        if len(others) == len(entry.holders):
            # Our fence was lost: who came later may not know of our row.
            is_shared = entry.is_shared or world.protocol.lost_is_shared
            return Fence(others, moment.mark, is_shared)
        if others:
            return Fence(others, moment.mark, entry.is_shared)
        if value is not None and not (entry.is_shared and world.protocol.shared_goes):
            return value
    return None if world.is_lookup or not world.protocol.tombstone else Fence((), moment.mark)


SCRIPTS: dict[str, Script] = {
    "get_many": lambda world, moment, entry, message: entry,
    "lease_many": lease_many,
    "fill_many": fill_many,
    "settle_many": settle_many,
    "renew_many": renew_many,
    "fence_many": fence_many,
    "publish_many": publish_many,
}


def _leased(state: State, entry: Entry) -> Reply:
    """A fence that ten seconds went by over is told as it is: its writer counts as dead."""
    if isinstance(entry, Fence):
        return entry if entry.holders and entry.since < state.clock else FENCED
    return GRANTED if entry is None else WAIT if isinstance(entry, Lease) else entry


def _new_mark(state: State) -> int:
    used = {
        entry.mark for server in state.servers for entry in server.entries if type(entry) is Fence
    }
    for reader in state.readers:
        for message in (reader.ready, reader.sent):
            if message is not None and message.fence is not None:
                used.add(message.fence.mark)
    return next(mark for mark in range(len(used) + 1) if mark not in used)


def _value(rows: tuple[int, ...] | None) -> Entry:
    """A row that does not exist is not cached."""
    return Value(rows) if rows and any(row & 1 for row in rows) else None


def _stored(state: State, message: Message, entry: Entry, server: Server) -> State:
    if entry != server.entries[message.generation]:
        server = server.with_entry(message.generation, entry)
    return state.server(message.server, server)
