"""Write-through in the model: each function is one atomic step of a writer, or of its transaction.

`write_many` stands for every statement before the fences, deletes too: they run under row locks.
"""

from collections.abc import Iterator

from tests.model.redis import ANOTHER_SERVER, call
from tests.model.state import ENDED, Faults, Message, State, World, Writer

Step = tuple[str, State]
REPEATED = 50
"""The first of the tokens that later tries have."""


def steps(world: World, state: State, index: int) -> Iterator[Step]:
    writer = state.writers[index]
    if writer.at in ENDED:
        if writer.at == "crashed" and writer.committed and state.faults.retries:
            yield "claim finds the answer of a first try", _retried(world, state, index)
        return
    yield from STEPS[writer.at](world, state, index)
    if state.faults.refusals and _may_have_fenced(writer):
        faults = state.faults._replace(refusals=state.faults.refusals - 1)
        yield "the database refuses the change", _refused(world, state, index, faults)
    if state.faults.crashes and writer.at != "write_many":
        faults = state.faults._replace(crashes=state.faults.crashes - 1)
        crashed = state._replace(faults=faults).ended(index, "crashed")
        yield f"crashes before {writer.at}", crashed
        for late in _commands(world, state, index):
            yield f"sends {late.verb} and crashes", _sent(crashed, late)


def write_many(world: World, state: State, index: int) -> Iterator[Step]:
    verb, row = world.writes[index]
    if index and world.writes[index - 1] == (verb, row) and state.writers[index - 1] == Writer():
        return  # Writers of the same are alike: let the first begin.
    if verb == "insert" and state.writers[index].early < 0 and world.protocol.fence:
        yield from fence_early(world, state, index)
    if not _can_lock(world, state, index) or (verb != "insert" and not state.table[row] & 1):
        return
    if verb == "load":
        row = _changed(world, state, index)
        yield "load: the row", state.writer(index, at="commit_load", row=row)
        return
    number = state.newest
    stand = state.writers[index].early == number
    row = _changed(world, state, index)
    after = state.writer(index, generation=number, row=row, early=-1)
    if not world.protocol.read_after_fence:
        after = _shown(world, after, index)
    is_cached = state.generations[number].enabled
    at = _fenced(world, after, index) if stand else "fence_many" if is_cached else "commit"
    yield f"{verb}: locks generation {number} and the row", after.writer(index, at=at)


def fence_early(world: World, state: State, index: int) -> Iterator[Step]:
    """The INSERT is under way, and its fences overtake it. Whether they stand is known, and the
    generation compared, when both are done."""
    number = state.newest
    if state.generations[number].enabled:
        message = Message(_announce(world, index), 0, number, state.token(index))
        after, reply, server = call(world, state, message)
        early = -1 if reply == ANOTHER_SERVER else number
        after = after.writer(index, early=early, server=server)
        if after != state:
            yield f"{message.verb} early: {reply}", after
        yield from _cut_off(state, index, message, "switch_off")


def fence_many(world: World, state: State, index: int) -> Iterator[Step]:
    if not world.protocol.fence:
        yield "no fence", state.writer(index, at="commit")
        return
    (message,) = _commands(world, state, index)
    after, reply, server = call(world, state, message)
    at = _fenced(world, state, index)
    if reply == ANOTHER_SERVER:
        at = "switch_off" if state.writers[index].was_moved else "use_server"
    yield f"{message.verb}: {reply}", after.writer(index, at=at, server=server)
    yield from _cut_off(state, index, message, "switch_off")


def read_lookups(world: World, state: State, index: int) -> Iterator[Step]:
    """The rows of a lookup as they will be once this is committed, read while its fence stands."""
    after = _shown(world, state, index).writer(index, at="commit")
    yield f"reads what its lookup shows: {after.writers[index].shown}", after


def commit(world: World, state: State, index: int) -> Iterator[Step]:
    is_cached = state.generations[state.writers[index].generation].enabled
    at = "publish_many" if is_cached else "wait_until_known"
    yield "commit", _committed(world, state, index).writer(index, at=at)


def publish_many(world: World, state: State, index: int) -> Iterator[Step]:
    """An own fence that could not be lifted does not prove that it stands. Nobody waits until a
    new row is stored."""
    if _announce(world, index) == "set_witness":
        (message,) = _commands(world, state, index)
        yield f"sends {message.verb}", _sent(state, message).writer(index, at="wait_until_known")
        return
    failed = "raise_unpublished" if world.protocol.raise_unpublished else "wait_until_known"
    (message,) = _commands(world, state, index)
    after, reply, _ = call(world, state, message)
    at = failed if reply == ANOTHER_SERVER else "wait_until_known"
    yield f"{message.verb}: {reply}", after.writer(index, at=at)
    yield from _cut_off(state, index, message, failed)


def publish_repeated(world: World, state: State, index: int) -> Iterator[Step]:
    """`publish_many` of what an earlier try changed, with a token that no fence has."""
    failed = "raise_unpublished" if world.protocol.raise_unpublished else "wait_until_known"
    (message,) = _commands(world, state, index)
    after, reply, _ = call(world, state, message)
    at = failed if reply == ANOTHER_SERVER else "wait_until_known"
    yield f"{message.verb} of an earlier try: {reply}", after.writer(index, at=at)
    yield from _cut_off(state, index, message, failed)


def lift(world: World, state: State, index: int) -> Iterator[Step]:
    """Of a change that is undone; its transaction may be tried once more. The code does so before
    it releases the row, or after it."""
    message = _undone(world, state, index)
    tries = state.writers[index].tries + world.protocol.fresh_token
    after, reply, _ = call(world, state, message)
    late = _late(state, message) if state.faults.outages else ()
    for label, then in ((f"lifts its fences: {reply}", after), *late):
        yield label, then.ended(index, "crashed")
        yield f"{label}, begins again", then.writer(index, **Writer(tries=tries)._asdict())


def use_server(world: World, state: State, index: int) -> Iterator[Step]:
    """The generation is raised for the server that was reached; then once more from the start."""
    writer = state.writers[index]
    label = "use_server: another was faster"
    if state.newest == writer.generation and state.newest + 1 < world.max_generations:
        if state.is_locked() and world.protocol.hold_generation:
            return
        state = state.raised(True, writer.server)
        label = f"use_server: switch_on generation {state.newest}"
    tries = writer.tries + world.protocol.fresh_token
    yield label, state.writer(index, at="write_many", was_moved=True, tries=tries)


def switch_off(world: World, state: State, index: int) -> Iterator[Step]:
    """The transaction begins that raises the generation and changes the row: `without_cache`."""
    if world.protocol.switch_off:
        if not _can_switch_off(world, state):
            return
        number = state.newest + 1
    else:
        if not _can_lock(world, state, index):
            return
        number = state.newest
    row = _changed(world, state, index)
    after = state.writer(index, at="commit_off", generation=number, row=row)
    yield f"switch_off: generation {number}, locks the row", after


def commit_off(world: World, state: State, index: int) -> Iterator[Step]:
    after = _committed(world, state, index).writer(index, at="wait_until_known")
    if world.protocol.switch_off:
        after = after.raised(False, state.generations[state.newest].server)
    yield "commit", after


def commit_load(world: World, state: State, index: int) -> Iterator[Step]:
    """`replace_all`: no fence; the generation is raised last, once nobody else holds it."""
    after = _committed(world, state, index).writer(index, at="wait_until_known")
    if not world.protocol.raise_generation:
        yield "commit", after.writer(index, generation=state.newest)
    elif _can_switch_off(world, state):
        after = after.raised(*state.generations[state.newest])
        yield f"commit, generation {after.newest}", after.writer(index, generation=after.newest)


def raise_unpublished(world: World, state: State, index: int) -> Iterator[Step]:
    if _can_switch_off(world, state):
        after = state.raised(False, state.generations[state.newest].server)
        after = after.writer(index, at="wait_until_known", generation=after.newest)
        yield f"switch_off: generation {after.newest}", after


def wait_until_known(world: World, state: State, index: int) -> Iterator[Step]:
    number = state.writers[index].generation
    older = any(reader.memory < number for reader in state.readers)
    if world.protocol.wait and older:
        return
    acknowledged = list(state.acknowledged)
    row = world.writes[index][1]
    acknowledged[row] = max(acknowledged[row], state.writers[index].row)
    state = state._replace(acknowledged=tuple(acknowledged))
    yield f"acknowledged: {state.acknowledged}", state.ended(index, "acknowledged")


STEPS = {
    "write_many": write_many,
    "fence_many": fence_many,
    "read_lookups": read_lookups,
    "commit": commit,
    "publish_many": publish_many,
    "publish_repeated": publish_repeated,
    "use_server": use_server,
    "switch_off": switch_off,
    "commit_off": commit_off,
    "commit_load": commit_load,
    "raise_unpublished": raise_unpublished,
    "lift": lift,
    "wait_until_known": wait_until_known,
}


def _commands(world: World, state: State, index: int) -> list[Message]:
    """What the writer is about to send to Redis."""
    writer = state.writers[index]
    verb, _ = world.writes[index]
    announce = _announce(world, index)
    if writer.at == "fence_many" and world.protocol.fence:
        return [Message(announce, writer.server, writer.generation, state.token(index))]
    if writer.at == "publish_repeated":
        token = REPEATED + state.faults.retries * len(world.writes) + index
        return [Message("publish_many", writer.server, writer.generation, token)]
    if writer.at != "publish_many":
        return []
    name = "store_new_many" if announce == "set_witness" else "publish_many"
    rows = writer.shown if world.is_lookup else None if verb == "delete" else (writer.row,)
    return [Message(name, writer.server, writer.generation, state.token(index), rows)]


def _announce(world: World, index: int) -> str:
    """What the writer sends before its COMMIT."""
    is_new_row = world.writes[index][0] == "insert" and not world.is_lookup
    return "set_witness" if is_new_row else "fence_many"


def _cut_off(state: State, index: int, message: Message, at: str) -> Iterator[Step]:
    """The call fails; what it sent may still arrive, whenever."""
    if state.faults.outages:
        faults = state.faults._replace(outages=state.faults.outages - 1)
        after = _sent(state._replace(faults=faults), message).writer(index, at=at)
        yield f"{message.verb}: CacheUnavailable, may arrive late", after


def _may_have_fenced(writer: Writer) -> bool:
    return writer.at in ("commit", "read_lookups") or (
        writer.at == "write_many" and writer.early >= 0
    )


def _refused(world: World, state: State, index: int, faults: Faults) -> State:
    writer = state.writers[index]
    state = state._replace(faults=faults)
    if _announce(world, index) == "set_witness" or not world.protocol.fence:
        return state.ended(index, "crashed")
    number = writer.early if writer.at == "write_many" else writer.generation
    row = state.table[world.writes[index][1]]
    return state.writer(index, at="lift", generation=number, row=row, early=-1)


def _undone(world: World, state: State, index: int) -> Message:
    """The row as it was when its change was undone; a lookup goes."""
    writer = state.writers[index]
    rows = None if world.is_lookup or not writer.row & 1 else (writer.row,)
    return Message("publish_many", writer.server, writer.generation, state.token(index), rows)


def _late(state: State, message: Message) -> Iterator[Step]:
    faults = state.faults._replace(outages=state.faults.outages - 1)
    yield f"{message.verb}: may arrive late", _sent(state._replace(faults=faults), message)


def _sent(state: State, message: Message) -> State:
    return state._replace(late=state.late | {message})


def _retried(world: World, state: State, index: int) -> State:
    """What the first try changed leaves the cache, unless somebody fences it."""
    faults = state.faults._replace(retries=state.faults.retries - 1)
    number = state.newest
    is_cached = state.generations[number].enabled and world.protocol.publish_repeated
    at = "publish_repeated" if is_cached else "wait_until_known"
    return state._replace(faults=faults).writer(index, at=at, generation=number)


def _fenced(world: World, state: State, index: int) -> str:
    """What comes when the fence stands."""
    return "read_lookups" if world.is_lookup and world.protocol.read_after_fence else "commit"


def _shown(world: World, state: State, index: int) -> State:
    table = list(state.table)
    table[world.writes[index][1]] = state.writers[index].row
    return state.writer(index, shown=tuple(table))


def _changed(world: World, state: State, index: int) -> int:
    verb, row = world.writes[index]
    return (state.table[row] >> 1) * 2 + 2 + (verb != "delete")


def _committed(world: World, state: State, index: int) -> State:
    table = list(state.table)
    table[world.writes[index][1]] = state.writers[index].row
    return state._replace(table=tuple(table)).writer(index, committed=True)


def _can_lock(world: World, state: State, index: int) -> bool:
    """Nobody holds the row, nobody the generation exclusively."""
    return not any(
        other.at in ("fence_many", "read_lookups", "commit", "commit_off", "commit_load")
        and (
            world.writes[number][1] == world.writes[index][1]
            or (other.at == "commit_off" and world.protocol.switch_off)
        )
        for number, other in enumerate(state.writers)
    )


def _can_switch_off(world: World, state: State) -> bool:
    if state.newest + 1 >= world.max_generations:
        return False
    if world.protocol.hold_generation:
        return not state.is_locked()
    return not any(other.at == "commit_off" for other in state.writers)
