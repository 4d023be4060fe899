"""Write-through in the model: each function is one atomic step of a writer, or of its transaction.

The fences and the batch of statements with the COMMIT are sent at the same time, so `batch_steps`
and `fence_steps` may happen in any order.
"""

from collections.abc import Iterator

from tests.model.redis import ANOTHER_SERVER, REFUSED, Reply, call
from tests.model.state import ENDED, Message, Record, State, World, Writer

Step = tuple[str, State]
# The tokens of later tries begin here.
REPEATED = 50
# The next step after the COMMIT, by the outcome of the fences.
AFTER_FENCE = {
    "good": "publish_many",
    "bad": "publish_many",
    "moved": "use_server",
    "failed": "raise_unfenced",
}


def steps(world: World, state: State, index: int) -> Iterator[Step]:
    writer = state.writers[index]
    if writer.at in ENDED:
        if writer.at == "crashed" and writer.committed and state.faults.retries:
            yield "claim finds the answer of a first try", _retried(world, state, index)
        return
    if writer.at == "orphan":
        yield from orphan(world, state, index)
        return
    if writer.fence == "sent":
        yield from fence_steps(world, state, index)
    if writer.at == "sent":
        yield from batch_steps(world, state, index)
    else:
        yield from STEPS[writer.at](world, state, index)
    if state.faults.crashes and writer.at != "write_many":
        yield from crashes(world, state, index)


def write_many(world: World, state: State, index: int) -> Iterator[Step]:
    """The general way: BEGIN, hold the generation, lock the row (or insert it)."""
    verb, row = world.writes[index]
    writer = state.writers[index]
    if index and world.writes[index - 1] == (verb, row) and state.writers[index - 1] == Writer():
        return  # Writers of the same are alike: let the first begin.
    if verb == "insert" and writer.tries == 0:
        yield from send_at_once(world, state, index)
    if verb in OTHERS:
        yield from OTHERS[verb](world, state, index)
        return
    if not _can_lock(world, state, index) or (verb != "insert" and not state.table[row] & 1):
        return
    changed = _changed(world, state, index)
    if verb in ("load", "bulk"):
        yield f"{verb}: the row", state.writer(index, at="commit_load", row=changed)
        return
    number = state.newest
    at = "send" if state.generations[number].enabled else "uncached"
    after = state.writer(index, generation=number, row=changed, batch="held", at=at)
    yield f"{verb}: holds generation {number} and the row", after


def write_elsewhere(world: World, state: State, index: int) -> Iterator[Step]:
    """A later version of a row that has left the lookup of this entry: it fences other entries."""
    row = world.writes[index][1]
    has_left = state.table[row] > 0 and not state.table[row] & 1
    if _can_lock(world, state, index) and has_left:
        table = (*state.table[:row], state.table[row] + 2, *state.table[row + 1 :])
        after = state._replace(table=table)
        after = after.writer(index, at="wait_until_known", row=table[row], generation=state.newest)
        yield "writes a row that is elsewhere by now", after


def write_plain(world: World, state: State, index: int) -> Iterator[Step]:
    """Another client of the database: it knows no generation and sends nothing to Redis. Triggers
    record what it changes, in its transaction: see `drains`."""
    if _can_lock(world, state, index):
        row, version = world.writes[index][1], _changed(world, state, index)
        after = _committed(world, state.writer(index, row=version), index)
        record = Record(row, version)
        after = after._replace(
            records=after.records | {record},
            captured=(*after.captured[:row], version, *after.captured[row + 1 :]),
            unheard=after.unheard | {record},
        )
        yield "plain SQL: changes its row and commits", after.ended(index, "acknowledged")


def send_at_once(world: World, state: State, index: int) -> Iterator[Step]:
    """The fast way: what the container remembers takes the place of asking. It goes the general
    way where it remembers nothing, or where the guard failed."""
    for number, generation in enumerate(state.generations):
        if generation.enabled:
            after = state.writer(index, generation=number, batch="sent", at="sent", fence="sent")
            yield f"sends its fences and its batch under generation {number}", after
            held = state.writer(index, generation=number)
            yield from cannot_send(world, held, index)


def send(world: World, state: State, index: int) -> Iterator[Step]:
    """Where its row leaves a lookup the fences stand before the batch is sent."""
    is_leaving = world.is_lookup and world.writes[index][0] == "delete"
    if is_leaving and world.protocol.leave_waits:
        yield from send_after_fences(world, state, index)
    else:
        yield "sends its fences and its batch", state.writer(index, at="sent", fence="sent")
    yield from cannot_send(world, state, index)


def send_after_fences(world: World, state: State, index: int) -> Iterator[Step]:
    before = state.writer(index, at="sent")
    after, reply, server = call(world, before, _fences(world, state, index))
    for fence in _judged(world, before, index, reply):
        if fence in ("good", "bad"):
            then = after.writer(index, server=server, fence=fence)
            yield f"waits for its fences: {reply}: {fence}", then


def cannot_send(world: World, state: State, index: int) -> Iterator[Step]:
    """Where the fences could not be sent, and then fail, its transaction is undone before the
    COMMIT: it is done again with the cache switched off, or for the server that was reached. Where
    they stand then the batch is sent later: one of the orders that there are without it."""
    message = _fences(world, state, index)
    undone = state.writer(index, row=0, batch="", at="write_uncached")
    after, reply, server = call(world, undone, message)
    if reply == ANOTHER_SERVER:
        again = "use_server_and_retry" if not state.writers[index].tries else "write_uncached"
        yield f"waits for its fences: {reply}", after.writer(index, server=server, at=again)
    if state.faults.outages:
        faults = state.faults._replace(outages=state.faults.outages - 1)
        after = _sent(undone._replace(faults=faults), message)
        yield "waits for its fences: CacheUnavailable, may arrive late", after


def write_uncached(world: World, state: State, index: int) -> Iterator[Step]:
    """The generation is raised in the transaction of the change, which waits for all others."""
    if can_raise(world, state) and _can_lock(world, state, index):
        verb, row = world.writes[index]
        if verb == "insert" or state.table[row] & 1:
            after = state.writer(index, row=_changed(world, state, index))
            after = _committed(world, after, index).writer(index, batch="", newer=frozenset())
            after = after.switched_off()
            after = after.writer(index, at="wait_until_known", generation=after.newest)
            yield f"switch_off: generation {after.newest}, commit", after


def use_server_and_retry(world: World, state: State, index: int) -> Iterator[Step]:
    for label, after in use_server(world, state, index):
        yield f"{label}, begins again", _begins_again(world, after, index)


def fence_steps(world: World, state: State, index: int) -> Iterator[Step]:
    """They reach Redis, or fail."""
    message = _fences(world, state, index)
    if not world.protocol.fence:
        yield "no fence", _received(world, state, index, "good")
        return
    after, reply, server = call(world, state, message)
    for fence in _judged(world, state, index, reply):
        then = _received(world, after.writer(index, server=server), index, fence)
        yield f"{message.verb}: {reply}: {fence}", then
    if state.faults.outages:
        faults = state.faults._replace(outages=state.faults.outages - 1)
        after = _received(world, _sent(state._replace(faults=faults), message), index, "failed")
        yield f"{message.verb}: CacheUnavailable, may arrive late", after


def _judged(world: World, state: State, index: int, reply: Reply) -> tuple[str, ...]:
    """The fences are good where nobody who committed after this writer read has published before
    they were set. They look bad also where more than a second has passed, or where a change was
    published with a later stamp than its COMMIT."""
    if not isinstance(reply, frozenset):
        return ("moved" if reply == ANOTHER_SERVER else "failed",)
    is_good = index not in reply or not world.protocol.stamp
    return ("good", "bad") if is_good else ("bad",)


def batch_steps(world: World, state: State, index: int) -> Iterator[Step]:
    writer = state.writers[index]
    number = writer.generation
    is_late = writer.slept and world.protocol.guard_time
    if is_late and writer.batch == "held":
        after = state.writer(index, at="lift", batch="", shown=(), row=0, newer=frozenset())
        yield "the guard finds it late", after
    elif writer.batch == "sent" and (is_late or (world.protocol.guard and number != state.newest)):
        if _announce(world, index) == "set_witness":
            after = _begins_again(world, _abandoned(world, state, index), index)
        else:
            after = state.writer(index, at="lift_and_retry", batch="")
        yield "the guard fails", after
    elif writer.batch == "sent":
        after = state.writer(index, row=_changed(world, state, index))
        yield "the guard holds: reads, inserts", _read(after, world, index)
    elif writer.batch == "held":
        yield "changes its row, reads", _read(state, world, index)
    elif writer.batch == "read":
        yield "commit", _received(world, _committed(world, state, index), index, writer.fence)
    if state.faults.refusals and writer.batch != "committed":
        faults = state.faults._replace(refusals=state.faults.refusals - 1)
        after = state._replace(faults=faults)
        if _announce(world, index) == "set_witness":
            after = _abandoned(world, after, index).ended(index, "crashed")
        else:
            before = state.table[world.writes[index][1]]
            shown = (before,) if before & 1 and not world.is_lookup else ()
            after = after.writer(index, at="lift", batch="", shown=shown, row=0, newer=frozenset())
        yield "the database refuses the change", after
    if state.faults.losses:
        faults = state.faults._replace(losses=state.faults.losses - 1)
        after = state._replace(faults=faults).writer(index, at="make_stand", shown=())
        yield "its connection to the database is lost", after


def _read(state: State, world: World, index: int) -> State:
    """What the batch reads is read at its stamp: nobody has passed it yet."""
    table = list(state.table)
    table[world.writes[index][1]] = state.writers[index].row
    return state.writer(index, batch="read", shown=tuple(table) if world.is_lookup else ())


def _received(world: World, state: State, index: int, fence: str) -> State:
    """What the client does once both have answered. A new row is stored only where its witness is
    good; else nobody needs to be told of it."""
    state = state.writer(index, fence=fence)
    writer = state.writers[index]
    if writer.at != "sent" or fence == "sent" or writer.batch != "committed":
        return state
    fence = _relied_on(world, writer)
    if _announce(world, index) == "set_witness":
        at = "publish_many" if fence in ("good", "bad") else "wait_until_known"
    else:
        at = AFTER_FENCE[fence]
        if at == "raise_unfenced" and not world.protocol.raise_unfenced:
            at = "wait_until_known"
    state = state.writer(index, at=at, batch="", slept=False, is_old=False)
    return state if at == "publish_many" else _forgotten(state, index)


def _relied_on(world: World, writer: Writer) -> str:
    """`Fences.allow`: what the fences are worth. A writer does not rely on old ones."""
    stand = writer.fence in ("good", "bad")
    return "failed" if stand and writer.is_old and world.protocol.age else writer.fence


def uncached(world: World, state: State, index: int) -> Iterator[Step]:
    """Under a generation that is switched off."""
    after = _committed(world, state, index).writer(index, at="wait_until_known", batch="")
    yield "commit", after


def publish_many(world: World, state: State, index: int) -> Iterator[Step]:
    """An own fence that could not be lifted does not prove that it stands. Nobody waits until a
    new row is stored."""
    message = _publish(world, state, index)
    if message.verb == "store_new_many" or not _waits(world, state, index):
        after = _forgotten(_sent(state, message), index)
        yield f"sends {message.verb}", after.writer(index, at="wait_until_known")
        return
    yield from _publish_steps(world, state, index, message)


def _waits(world: World, state: State, index: int) -> bool:
    """Nobody waits for the publish where the fences are good and stay: in a Redis that may evict
    what was just set they may not."""
    stay = state.writers[index].fence == "good" and not world.may_evict
    return world.protocol.publish_awaited and not stay


def _publish_steps(world: World, state: State, index: int, message: Message) -> Iterator[Step]:
    failed = "raise_unpublished" if world.protocol.raise_unpublished else "wait_until_known"
    after, reply, server = call(world, state, message)
    at = "wait_until_known"
    if reply == ANOTHER_SERVER and world.protocol.raise_unpublished:
        at = "use_server"
    elif reply == REFUSED:
        at = failed
    state = _forgotten(state, index)
    after = _forgotten(after, index).writer(index, server=server)
    yield f"{message.verb} {message.rows}: {reply}", after.writer(index, at=at)
    if state.faults.outages:
        faults = state.faults._replace(outages=state.faults.outages - 1)
        after = _sent(state._replace(faults=faults), message).writer(index, at=failed)
        yield f"{message.verb}: CacheUnavailable, may arrive late", after


def _forgotten(state: State, index: int) -> State:
    return state.writer(index, shown=(), newer=frozenset(), fence="")


def publish_repeated(world: World, state: State, index: int) -> Iterator[Step]:
    """`publish_many` of what an earlier try changed, with a token that no fence has."""
    yield from _publish_steps(world, state, index, _publish(world, state, index))


def lift(world: World, state: State, index: int) -> Iterator[Step]:
    """Of a change that is undone; its transaction may be tried once more. A row is shown as it was
    when it was locked; the change has no stamp."""
    writer = state.writers[index]
    if writer.fence == "sent":
        return
    ways = [("its fences failed", state)]
    if _relied_on(world, writer) in ("good", "bad"):
        is_right = writer.fence == "good" or not world.protocol.stamp_of_lift
        rows = writer.shown if writer.shown and is_right else None
        message = Message(
            "publish_many", writer.server, writer.generation, state.token(index), rows
        )
        after, reply, _ = call(world, state, message)
        ways = [(f"lifts its fences: {reply}", after)]
        if state.faults.outages:
            faults = state.faults._replace(outages=state.faults.outages - 1)
            late = _sent(state._replace(faults=faults), message)
            ways.append(("lifts its fences: may arrive late", late))
    for label, then in ways:
        if writer.at == "lift":
            yield label, then.ended(index, "crashed")
        yield f"{label}, begins again", _begins_again(world, then, index)


def make_stand(world: World, state: State, index: int) -> Iterator[Step]:
    """Of a change that may be committed: what its connection was sent may still be run. Its client
    waits for the fences, or has the generation raised if it can, and is told that nobody knows."""
    writer = state.writers[index]
    if writer.batch:
        yield from orphan(world, state, index)
    if writer.fence == "sent" and world.protocol.make_stand:
        return
    if _relied_on(world, writer) == "failed" and can_raise(world, state):
        after = state.switched_off()
        yield f"switch_off: generation {after.newest}", _told(world, after, index)
    elif writer.fence == "moved":
        for label, after in use_server(world, state, index):
            yield label, _told(world, after, index)
    yield "OutcomeUnknown", _told(world, _abandoned(world, state, index), index)


def _told(world: World, state: State, index: int) -> State:
    writer = state.writers[index]
    if world.unknown_is_shown and writer.committed:
        state = _acknowledged(world, state, index)
    if writer.batch in ("", "committed"):
        return state.ended(index, "crashed")
    kept = {"generation": writer.generation, "row": writer.row, "slept": writer.slept}
    orphan = Writer("orphan", writer.batch, **kept)  # type: ignore[arg-type]
    return _put(state, index, orphan)


def use_server(world: World, state: State, index: int) -> Iterator[Step]:
    """The change is committed. The generation is raised for the server that was reached; where that
    one fails too, the cache is switched off."""
    writer = state.writers[index]
    if writer.at == "use_server" and state.faults.outages:
        faults = state.faults._replace(outages=state.faults.outages - 1)
        after = state._replace(faults=faults).writer(index, at="raise_unpublished")
        yield "use_server: CacheUnavailable", after
    label = "use_server: another was faster"
    if state.newest == writer.generation:
        if not can_raise(world, state):
            return
        state = state.switched_on(writer.server)
        label = f"use_server: switch_on generation {state.newest}"
    yield label, state.writer(index, at="wait_until_known", generation=state.newest)


def commit_load(world: World, state: State, index: int) -> Iterator[Step]:
    """`replace_all`: no fence; the generation is raised last, once nobody else holds it. So does
    `replace_many`, and leaves it to `wait_for_readers` to wait."""
    at = "wait_for_readers" if world.writes[index][0] == "bulk" else "wait_until_known"
    after = _committed(world, state, index).writer(index, at=at, batch="")
    if not world.protocol.raise_generation:
        yield "commit", after.writer(index, generation=state.newest)
    elif can_raise(world, state):
        after = after.raised(*state.generations[state.newest])
        yield f"commit, generation {after.newest}", after.writer(index, generation=after.newest)


def wait_for_readers(world: World, state: State, index: int) -> Iterator[Step]:
    after = state.writer(index, at="wait_until_known", generation=state.newest)
    yield f"wait_for_readers: generation {state.newest}", after


def raise_unpublished(world: World, state: State, index: int) -> Iterator[Step]:
    if can_raise(world, state):
        after = state.switched_off()
        after = after.writer(index, at="wait_until_known", generation=after.newest)
        yield f"switch_off: generation {after.newest}", after


def wait_until_known(world: World, state: State, index: int) -> Iterator[Step]:
    number = state.writers[index].generation
    older = any(reader.memory < number for reader in state.readers)
    if world.protocol.wait and older:
        return
    state = _acknowledged(world, state, index)
    yield f"acknowledged: {state.acknowledged}", state.ended(index, "acknowledged")


def _acknowledged(world: World, state: State, index: int) -> State:
    acknowledged = list(state.acknowledged)
    row = world.writes[index][1]
    acknowledged[row] = max(acknowledged[row], state.writers[index].row)
    return state._replace(acknowledged=tuple(acknowledged))


def orphan(world: World, state: State, index: int) -> Iterator[Step]:
    """The connection is gone; the database may still run the batch that it was sent, or drops
    it."""
    writer = state.writers[index]
    is_over = writer.at == "orphan"
    if writer.batch == "committed":
        return
    dropped = state.writer(index, batch="")
    yield "the database drops what it sent", dropped.ended(index, "crashed") if is_over else dropped
    if writer.slept and world.protocol.guard_time and writer.batch in ("sent", "held"):
        return
    if writer.batch == "sent":
        if writer.generation == state.newest or not world.protocol.guard:
            after = state.writer(index, row=_changed(world, state, index), batch="read")
            yield "the guard holds: inserts", after
    elif writer.batch == "held":
        yield "changes its row", state.writer(index, batch="read")
    else:
        after = _committed(world, state, index)
        yield "commit", after.ended(index, "crashed") if is_over else after


OTHERS = {"elsewhere": write_elsewhere, "plain": write_plain}
STEPS = {
    "write_many": write_many,
    "send": send,
    "uncached": uncached,
    "publish_many": publish_many,
    "publish_repeated": publish_repeated,
    "use_server": use_server,
    "commit_load": commit_load,
    "wait_for_readers": wait_for_readers,
    "raise_unfenced": raise_unpublished,
    "raise_unpublished": raise_unpublished,
    "lift": lift,
    "lift_and_retry": lift,
    "make_stand": make_stand,
    "write_uncached": write_uncached,
    "use_server_and_retry": use_server_and_retry,
    "wait_until_known": wait_until_known,
}


def crashes(world: World, state: State, index: int) -> Iterator[Step]:
    writer = state.writers[index]
    state = state._replace(faults=state.faults._replace(crashes=state.faults.crashes - 1))
    if writer.at == "send":
        fences = _fences(world, state, index)
        yield "crashes before send", state.ended(index, "crashed")
        yield "sends its fences and crashes", _sent(state, fences).ended(index, "crashed")
        return
    if writer.fence == "sent":
        state = _sent(state, _fences(world, state, index))
    if writer.at in ("sent", "make_stand"):
        if writer.batch == "sent":
            yield "crashes before its batch is sent", state.ended(index, "crashed")
        if writer.batch not in ("committed", ""):
            orphan = Writer("orphan", writer.batch, generation=writer.generation, row=writer.row)
            yield "crashes, its batch is sent", _put(state, index, orphan)
            return
    yield f"crashes before {writer.at}", state.ended(index, "crashed")
    if writer.at in ("publish_many", "publish_repeated"):
        message = _publish(world, state, index)
        yield f"sends {message.verb} and crashes", _sent(state, message).ended(index, "crashed")


def _announce(world: World, index: int) -> str:
    """What the writer sends beside its batch."""
    is_new_row = world.writes[index][0] == "insert" and not world.is_lookup
    return "set_witness" if is_new_row else "fence_many"


def _fences(world: World, state: State, index: int) -> Message:
    writer = state.writers[index]
    return Message(_announce(world, index), writer.server, writer.generation, state.token(index))


def _publish(world: World, state: State, index: int) -> Message:
    writer = state.writers[index]
    verb, _ = world.writes[index]
    if writer.at == "publish_repeated":
        token = REPEATED + state.faults.retries * len(world.writes) + index
        newer = writer.newer if world.protocol.stamp_repeated else None
        return Message("publish_many", writer.server, writer.generation, token, newer=newer)
    is_new = _announce(world, index) == "set_witness"
    rows = writer.shown if world.is_lookup else (writer.row,)
    is_shown = writer.fence == "good" or (is_new and not world.protocol.store_good)
    message = Message(
        "store_new_many" if is_new else "publish_many",
        writer.server,
        writer.generation,
        state.token(index),
        rows if is_shown and verb != "delete" else None,
    )
    return message if is_new else message._replace(newer=writer.newer)


def _abandoned(world: World, state: State, index: int) -> State:
    """Fences that nobody waits for may still arrive."""
    if state.writers[index].fence == "sent" and world.protocol.fence:
        return _sent(state, _fences(world, state, index))
    return state


def _begins_again(world: World, state: State, index: int) -> State:
    """With another token, the general way."""
    writer = state.writers[index]
    return _put(
        state, index, Writer(server=writer.server, tries=writer.tries + world.protocol.fresh_token)
    )


def _put(state: State, index: int, writer: Writer) -> State:
    writers = (*state.writers[:index], writer, *state.writers[index + 1 :])
    return state._replace(writers=writers)


def _sent(state: State, message: Message) -> State:
    return state._replace(late=state.late | {message})


def _retried(world: World, state: State, index: int) -> State:
    """What the first try changed leaves the cache."""
    faults = state.faults._replace(retries=state.faults.retries - 1)
    return dropping(world, state._replace(faults=faults), index)


def dropping(world: World, state: State, index: int) -> State:
    """`WriteThrough.drop`: with the stamp of now."""
    number = state.newest
    is_cached = state.generations[number].enabled and world.protocol.publish_repeated
    at = "publish_repeated" if is_cached else "wait_until_known"
    return state.writer(index, at=at, generation=number, newer=state.watching)


def _changed(world: World, state: State, index: int) -> int:
    verb, row = world.writes[index]
    return (state.table[row] >> 1) * 2 + 2 + (verb != "delete")


def _committed(world: World, state: State, index: int) -> State:
    """Whoever has read by now, and does not know yet what its fences are worth, read before it."""
    table = list(state.table)
    table[world.writes[index][1]] = state.writers[index].row
    state = state._replace(table=tuple(table))
    newer = state.watching - {index}
    return state.writer(index, committed=True, batch="committed", newer=newer)


def _can_lock(world: World, state: State, index: int) -> bool:
    """Nobody holds the row."""
    return not any(
        (other.batch in ("held", "read") or other.at == "commit_load")
        and world.writes[number][1] == world.writes[index][1]
        for number, other in enumerate(state.writers)
    )


def can_raise(world: World, state: State) -> bool:
    if state.newest + 1 >= world.max_generations:
        return False
    return not (world.protocol.hold_generation and state.is_locked())
