"""Writes of many rows in the model: several rows and entries, on several servers of a cluster.

The scripts are the other model's, on each entry. What is new here: a writer locks row after row and
changes row after row; its fences, and what it publishes, go in pieces (one for each server, or for
each thousand of Redis keys), which come in any order or not at all; and it judges all by all.

Reductions. A reader reads one entry: one that reads several has all its leases before its SELECT,
so of each entry it is a reader that takes longer. Pieces on one connection come in any order here,
in the code in the order in which they were sent. What the other model plays with one entry is left
out: time (a tombstone ends, a value and a lease do not), evictions, failovers, what settles a dead
writer's fence, recovery (a cache that is switched off stays off), new rows, and retries. Where a
row leaves a lookup, and another data set answers, the code tries once more with fences before it
switches the cache off.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from tests.model import redis
from tests.model.redis import Moment
from tests.model.search import Result, explore, shows
from tests.model.state import Entry, Fence, Lease, Message, Passed, Rows, Value
from tests.model.state import World as OneEntry

ENDED = frozenset({"acknowledged", "crashed", "undone"})
OF_ROW, OF_LOOKUP = OneEntry(rows=(1,)), OneEntry(rows=(1, 1))
MAX_GENERATIONS = 3


class Place(NamedTuple):
    """Of an entry: the piece of a write that it goes with, its server, and the rows it shows."""

    piece: int
    server: int
    rows: tuple[int, ...]


class Piece(NamedTuple):
    """A command on its way: of a writer, or (`entry`) a reader's store. `values`: by entry."""

    verb: str
    number: int
    generation: int
    token: int
    values: tuple[tuple[int, Rows | None], ...] = ()
    newer: frozenset[int] = frozenset()


class Generation(NamedTuple):
    """Its entries, and the marker of each server: what the last one holds, or None."""

    enabled: bool
    entries: tuple[Entry, ...]
    markers: tuple[Passed | None, ...]


class Reader(NamedTuple):
    at: str = "current"
    memory: int = 0
    entry: int = 0
    floor: Rows = ()
    sent: Piece | None = None


class Writer(NamedTuple):
    """`locked`, `changed`: how many of its rows. `due`: pieces with fences on their way. `fence`:
    `good` until a piece says `bad`, `moved` or `failed`. `before`, `shown`: what it read of all
    rows."""

    at: str = "begin"
    generation: int = 0
    locked: int = 0
    changed: int = 0
    batch: str = ""
    due: frozenset[int] = frozenset()
    fence: str = "good"
    before: Rows = ()
    shown: Rows = ()
    newer: frozenset[int] = frozenset()


class State(NamedTuple):
    table: Rows
    acknowledged: Rows
    generations: tuple[Generation, ...]
    readers: tuple[Reader, ...]
    writers: tuple[Writer, ...]
    late: frozenset[Piece] = frozenset()
    faults: tuple[int, int, int, int] = (0, 0, 0, 0)

    @property
    def newest(self) -> int:
        return len(self.generations) - 1

    def reader(self, index: int, **changes: object) -> "State":
        changed = self.readers[index]._replace(**changes)  # type: ignore[arg-type]
        return self._replace(readers=_put(self.readers, index, changed))

    def writer(self, index: int, **changes: object) -> "State":
        changed = self.writers[index]._replace(**changes)  # type: ignore[arg-type]
        return self._replace(writers=_put(self.writers, index, changed))

    def ended(self, index: int, at: str) -> "State":
        return self._replace(writers=_put(self.writers, index, Writer(at)))

    @property
    def watching(self) -> frozenset[int]:
        """The writers that have locked their rows and have fences on their way."""
        return frozenset(i for i, writer in enumerate(self.writers) if writer.due)

    @property
    def is_held(self) -> bool:
        return any(writer.batch in ("held", "read") for writer in self.writers)


Step = tuple[str, State]
CRASHES, OUTAGES, REFUSALS, FLUSHES = range(4)


@dataclass(frozen=True)
class Protocol:
    """Each ingredient, there or taken out."""

    sorted_locks: bool = True
    one_transaction: bool = True  # a row that is rejected undoes the others
    all_stand: bool = True  # a piece that failed is a write that failed
    all_judge: bool = True  # one server that knows a later COMMIT speaks for all
    lift_all: bool = True
    leave_waits: bool = True  # for all pieces
    marker: bool = True  # of each server


@dataclass(frozen=True)
class Many:
    """`writes`: a verb and the rows in the order of the request. `faults`: crashes, outages of one
    piece, rejected rows, flushes of one server."""

    places: tuple[Place, ...]
    writes: tuple[tuple[str, tuple[int, ...]], ...]
    faults: tuple[int, int, int, int] = (0, 0, 0, 0)
    protocol: Protocol = field(default_factory=Protocol)
    readers: int = 1

    def start(self) -> State:
        rows = (1,) * (1 + max(row for place in self.places for row in place.rows))
        servers = 1 + max(place.server for place in self.places)
        empty = Generation(True, (None,) * len(self.places), (frozenset(),) * servers)
        return State(
            *(rows, rows, (empty,), (Reader(),) * self.readers),
            *((Writer(),) * len(self.writes), frozenset(), self.faults),
        )

    def rows(self, index: int) -> tuple[int, ...]:
        """In the order in which they are locked."""
        rows = self.writes[index][1]
        return tuple(sorted(rows)) if self.protocol.sorted_locks else rows

    def pieces(self, index: int) -> frozenset[int]:
        """Those with an entry that shows a row of the writer."""
        own = {*self.writes[index][1]}
        return frozenset(place.piece for place in self.places if own & {*place.rows})

    def entries(self, index: int, piece: int) -> list[int]:
        own = {*self.writes[index][1]}
        numbered = enumerate(self.places)
        return [n for n, place in numbered if place.piece == piece and own & {*place.rows}]

    def steps(self, state: State) -> Iterator[Step]:
        for index, reader in enumerate(state.readers):
            for label, after in _READER[reader.at](self, state, index):
                yield f"reader {index + 1}: {label}", _tidy(self, after)
            for label, after in _memory(self, state, index):
                yield f"reader {index + 1}: {label}", _tidy(self, after)
        for index, writer in enumerate(state.writers):
            if writer.at in ENDED:
                continue
            for label, after in _write(self, state, index):
                yield f"writer {index + 1}: {label}", _tidy(self, after)
        for label, after in _events(self, state):
            yield label, _tidy(self, after)

    def violation(self, state: State) -> str:
        if any(reader.at == "stale" for reader in state.readers):
            return "a read is stale"
        waits = {i: _waits_for(self, state, i) for i in range(len(state.writers))}
        if any(j is not None and waits[j] == i for i, j in waits.items()):
            return "two writers wait for each other"
        if state.late or any(writer.at not in ENDED for writer in state.writers):
            return ""
        newest = state.generations[-1]
        is_whole = self.faults[CRASHES] == self.faults[OUTAGES] == 0
        for place, entry in zip(self.places, newest.entries if newest.enabled else ()):
            if isinstance(entry, Value) and shows(entry.rows) != shows(_of(place, state.table)):
                return f"at rest an entry holds {entry.rows}, the table {state.table}"
            if isinstance(entry, Fence) and entry.holders and is_whole:
                return "at rest a fence is left"
        return ""


# --- writers --------------------------------------------------------------------------------------


def _write(world: Many, state: State, index: int) -> Iterator[Step]:
    writer = state.writers[index]
    for piece in writer.due:
        yield from _fence(world, state, index, piece)
    if writer.at == "sent":
        yield from _batch(world, state, index)
    else:
        yield from _WRITER[writer.at](world, state, index)
    if writer.at != "begin" and (spent := _spend(state, CRASHES)):
        late = frozenset(_fences(world, spent, index, piece) for piece in writer.due)
        crashed = spent._replace(late=spent.late | late)
        if writer.at == "sent" and writer.batch in ("held", "read"):
            done = _committed(world, crashed.writer(index, changed=len(world.rows(index))), index)
            yield "crashes, its batch is run", done.ended(index, "crashed")
        yield "crashes", crashed.ended(index, "crashed")


def _begin(world: Many, state: State, index: int) -> Iterator[Step]:
    """BEGIN, and hold the generation."""
    verb, rows = world.writes[index]
    if verb == "elsewhere":
        yield from _elsewhere(world, state, index)
    elif all(state.table[row] & 1 for row in rows):
        number = state.newest
        after = state.writer(index, at="lock", generation=number, batch="held")
        yield f"{verb}: holds generation {number}", after


def _elsewhere(world: Many, state: State, index: int) -> Iterator[Step]:
    """A later version of a row that has left the lookup here: it fences other entries."""
    [row] = world.writes[index][1]
    if not state.table[row] & 1 and not _is_locked(world, state, row):
        table = _put(state.table, row, state.table[row] + 2)
        after = state._replace(table=table)
        done = {"at": "wait_until_known", "generation": state.newest, "shown": table}
        yield "writes a row that is elsewhere by now", after.writer(index, **done)


def _lock(world: Many, state: State, index: int) -> Iterator[Step]:
    """One row after the other: the SELECT waits where another writer has it."""
    writer, rows = state.writers[index], world.rows(index)
    if _is_locked(world, state, rows[writer.locked]):
        return
    state = state.writer(index, locked=writer.locked + 1)
    if writer.locked + 1 < len(rows):
        yield "locks a row", state
    elif not state.generations[writer.generation].enabled:
        done = _committed(world, state.writer(index, changed=len(rows)), index)
        yield "commits without the cache", done.writer(index, at="wait_until_known", batch="")
    elif world.writes[index][0] == "delete":
        pieces = world.pieces(index)
        yield "sends its fences", state.writer(index, at="stand", due=pieces, before=state.table)
    else:
        after = state.writer(index, at="sent", due=world.pieces(index), before=state.table)
        yield "sends its fences and its batch", after


def _stand(world: Many, state: State, index: int) -> Iterator[Step]:
    """Where a row leaves a lookup all fences stand before its batch is sent."""
    writer = state.writers[index]
    if writer.fence in ("moved", "failed"):
        after = state.writer(index, at="uncached", batch="", locked=0, due=frozenset())
        late = frozenset(_fences(world, state, index, piece) for piece in writer.due)
        yield "is undone", after._replace(late=after.late | late)
    elif not writer.due or not (world.protocol.leave_waits or writer.due == world.pieces(index)):
        yield "sends its batch", state.writer(index, at="sent")


def _uncached(world: Many, state: State, index: int) -> Iterator[Step]:
    """The transaction that switches the cache off."""
    is_free = not any(_is_locked(world, state, row) for row in world.rows(index))
    if is_free and _can_raise(state):
        state = state.writer(index, changed=len(world.rows(index)))
        after = _raised(_committed(world, state, index), index, enabled=False)
        yield "switches the cache off and commits", after


def _fence(world: Many, state: State, index: int, piece: int) -> Iterator[Step]:
    """A piece reaches its server, or does not."""
    due = state.writers[index].due - {piece}
    message = _fences(world, state, index, piece)
    after, reply = execute(world, state, message)
    if reply is None and world.protocol.marker:
        says = "moved"
    else:
        says = "bad" if reply and index in reply else "good"
    yield f"fences of piece {piece}: {says}", _judged(world, after, index, due, says)
    if spent := _spend(state, OUTAGES):
        lost = _judged(world, spent, index, due, "failed")
        yield f"piece {piece} has no answer", lost._replace(late=lost.late | {message})


def _judged(world: Many, state: State, index: int, due: frozenset[int], says: str) -> State:
    """The worst that one of the pieces says."""
    order = ("good", "bad", "moved", "failed")
    fence = state.writers[index].fence
    if says == "failed" and not world.protocol.all_stand:
        says = "good"
    is_first = len(due) + 1 == len(world.pieces(index))
    if world.protocol.all_judge or is_first or says in ("moved", "failed"):
        fence = max(fence, says, key=order.index)
    return _received(state.writer(index, due=due, fence=fence), index)


def _batch(world: Many, state: State, index: int) -> Iterator[Step]:
    """Row after row, what its lookups show, COMMIT; and then the fences are waited for."""
    writer, rows = state.writers[index], world.rows(index)
    if writer.batch == "held":
        after = state.writer(index, changed=writer.changed + 1)
        if writer.changed + 1 == len(rows):
            read = {row: _new(world, state, index, row) for row in rows}
            shown = tuple(read.get(row, state.table[row]) for row in range(len(state.table)))
            after = after.writer(index, batch="read", shown=shown)
        yield "changes a row", after
        if spent := _spend(state, REFUSALS):
            yield "a row is rejected", _undone(world, spent, index)
    elif writer.batch == "read":
        yield "commits", _received(_committed(world, state, index), index)


def _received(state: State, index: int) -> State:
    """What the client does once the database and all servers have answered."""
    writer = state.writers[index]
    if writer.due or writer.batch != "committed":
        return state
    at = {"moved": "use_server", "failed": "switch_off"}.get(writer.fence, "publish")
    return state.writer(index, at=at, batch="")


def _undone(world: Many, state: State, index: int) -> State:
    """All that it changed before, too."""
    if not world.protocol.one_transaction:
        state = _committed(world, state, index)
    return state.writer(index, at="lift", batch="", locked=0, newer=frozenset())


def _lift(world: Many, state: State, index: int) -> Iterator[Step]:
    """The entries of all rows, also of those that were not rejected, show what was before."""
    writer = state.writers[index]
    if writer.due:
        return
    state = state.writer(index, shown=writer.before)
    if writer.fence in ("good", "bad"):
        pieces = world.pieces(index) if world.protocol.lift_all else {min(world.pieces(index))}
        for piece in pieces:
            message = _published(world, state, index, piece, is_lifted=True)
            state = state._replace(late=state.late | {message})
    yield "lifts its fences", state.ended(index, "undone")


def _publish(world: Many, state: State, index: int) -> Iterator[Step]:
    """Nobody waits for it where the fences are good. Where they are not a piece may fail too."""
    pieces = [_published(world, state, index, piece) for piece in world.pieces(index)]
    sent = state._replace(late=state.late | {*pieces})
    if state.writers[index].fence == "good":
        yield "sends what it publishes", sent.writer(index, at="wait_until_known")
        return
    after = state
    for message in pieces:
        after, reply = execute(world, after, message)
        if reply is None:
            yield "publishes: AnotherServer", after.writer(index, at="use_server")
            return
    yield "publishes", after.writer(index, at="wait_until_known")
    if spent := _spend(sent, OUTAGES):
        yield "publishes: no answer", spent.writer(index, at="switch_off")


def _use_server(world: Many, state: State, index: int) -> Iterator[Step]:
    if state.newest > state.writers[index].generation:
        after = state.writer(index, at="wait_until_known", generation=state.newest)
        yield "another was faster", after
    elif _can_raise(state):
        yield "names another data set", _raised(state, index, enabled=True)


def _switch_off(world: Many, state: State, index: int) -> Iterator[Step]:
    if _can_raise(state):
        yield "switches the cache off", _raised(state, index, enabled=False)


def _wait_until_known(world: Many, state: State, index: int) -> Iterator[Step]:
    if all(reader.memory >= state.writers[index].generation for reader in state.readers):
        rows, acknowledged = {*world.rows(index)}, state.acknowledged
        shown = state.writers[index].shown
        least = [
            max(shown[row], seen) if row in rows else seen for row, seen in enumerate(acknowledged)
        ]
        after = state._replace(acknowledged=tuple(least))
        yield f"acknowledged: {after.acknowledged}", after.ended(index, "acknowledged")


_WRITER = {
    "begin": _begin,
    "lock": _lock,
    "stand": _stand,
    "uncached": _uncached,
    "lift": _lift,
    "publish": _publish,
    "use_server": _use_server,
    "switch_off": _switch_off,
    "wait_until_known": _wait_until_known,
}


def _new(world: Many, state: State, index: int, row: int) -> int:
    is_deleted = world.writes[index][0] == "delete"
    return (state.table[row] >> 1) * 2 + 2 + (not is_deleted)


def _committed(world: Many, state: State, index: int) -> State:
    """Whoever has read by now, and has fences on their way, read before it."""
    writer = state.writers[index]
    done = world.rows(index)[: writer.changed]
    read = {row: _new(world, state, index, row) for row in done}
    table = tuple(read.get(row, version) for row, version in enumerate(state.table))
    newer = state.watching - {index}
    shown = writer.shown or table
    state = state.writer(index, batch="committed", locked=0, newer=newer, shown=shown)
    return state._replace(table=table)


def _raised(state: State, index: int, *, enabled: bool) -> State:
    """Of a new incarnation, with all its markers."""
    last = state.generations[-1]
    new = Generation(enabled, (None,) * len(last.entries), (frozenset(),) * len(last.markers))
    state = state._replace(generations=(*state.generations, new))
    return state.writer(index, at="wait_until_known", generation=state.newest, batch="")


def _can_raise(state: State) -> bool:
    return not state.is_held and state.newest + 1 < MAX_GENERATIONS


def _is_locked(world: Many, state: State, row: int) -> bool:
    return any(row in world.rows(i)[: other.locked] for i, other in enumerate(state.writers))


def _waits_for(world: Many, state: State, index: int) -> int | None:
    """Who has the row that a writer is to lock next."""
    writer, rows = state.writers[index], world.rows(index)
    if writer.at != "lock":
        return None
    for other, holder in enumerate(state.writers):
        if other != index and rows[writer.locked] in world.rows(other)[: holder.locked]:
            return other
    return None


def _fences(world: Many, state: State, index: int, piece: int) -> Piece:
    entries = tuple((entry, None) for entry in world.entries(index, piece))
    return Piece("fence_many", piece, state.writers[index].generation, index, entries)


def _published(
    world: Many, state: State, index: int, piece: int, *, is_lifted: bool = False
) -> Piece:
    """A lookup's entry goes where the change was undone, or where it is a delete."""
    writer = state.writers[index]
    is_shown = writer.fence == "good"
    values: list[tuple[int, Rows | None]] = []
    for entry in world.entries(index, piece):
        place = world.places[entry]
        goes = world.writes[index][0] == "delete" and not is_lifted
        goes = goes or (is_lifted and len(place.rows) > 1)
        values.append((entry, _of(place, writer.shown) if is_shown and not goes else None))
    return Piece("publish_many", piece, writer.generation, index, tuple(values), writer.newer)


# --- Redis ----------------------------------------------------------------------------------------


def execute(world: Many, state: State, message: Piece) -> tuple[State, Passed | None]:
    """A script on the entries of a piece. Replies what the marker of its server holds."""
    generation = state.generations[message.generation]
    server = next(place.server for place in world.places if place.piece == message.number)
    passed = generation.markers[server]
    if passed is None and world.protocol.marker and message.verb in ("fence_many", "lease_many"):
        return state, None
    entries = generation.entries
    moment = Moment(0, _new_mark(state))
    for entry, rows in message.values:
        kind = OF_ROW if len(world.places[entry].rows) == 1 else OF_LOOKUP
        one = Message(message.verb, server, message.generation, message.token, rows)
        after = redis.SCRIPTS[message.verb](kind, moment, entries[entry], one)
        entries = _put(entries, entry, after)
    markers = generation.markers
    if message.verb == "publish_many" and passed is not None:
        markers = _put(markers, server, passed | message.newer)
    generation = Generation(generation.enabled, entries, markers)
    generations = _put(state.generations, message.generation, generation)
    return state._replace(generations=generations), passed


def _new_mark(state: State) -> int:
    entries = [entry for generation in state.generations for entry in generation.entries]
    used = {entry.mark for entry in entries if isinstance(entry, Fence)}
    return next(mark for mark in range(len(used) + 1) if mark not in used)


def _events(world: Many, state: State) -> Iterator[Step]:
    for message in state.late:
        after, _ = execute(world, state, message)
        late = after._replace(late=state.late - {message})
        yield f"{message.verb} of piece {message.number} arrives", late
    if spent := _spend(state, FLUSHES):
        for server in range(len(state.generations[0].markers)):
            yield f"server {server} is flushed", _flushed(world, spent, server)
    for number, generation in enumerate(state.generations):
        for entry, found in enumerate(generation.entries):
            if isinstance(found, Fence) and not found.holders:
                entries = _put(generation.entries, entry, None)
                left = _put(state.generations, number, generation._replace(entries=entries))
                yield f"{found} expires", state._replace(generations=left)


def _flushed(world: Many, state: State, server: int) -> State:
    generations = []
    for generation in state.generations:
        kept = [e if p.server != server else None for p, e in zip(world.places, generation.entries)]
        markers = _put(generation.markers, server, None)
        generations.append(Generation(generation.enabled, tuple(kept), markers))
    return state._replace(generations=tuple(generations))


# --- readers --------------------------------------------------------------------------------------


def _memory(world: Many, state: State, index: int) -> Iterator[Step]:
    reader = state.readers[index]
    if reader.sent is not None:
        after, _ = execute(world, state, reader.sent)
        yield "its store arrives", after.reader(index, sent=None)
    if reader.at == "current" and reader.memory < state.newest:
        yield "its memory runs out", state.reader(index, memory=state.newest)


def _current(world: Many, state: State, index: int) -> Iterator[Step]:
    reader = state.readers[index]
    if state.generations[reader.memory].enabled:
        for entry in range(len(world.places)):
            after = state.reader(index, at="get_many", entry=entry, floor=state.acknowledged)
            yield f"begins to read entry {entry}", after


def _get_many(world: Many, state: State, index: int) -> Iterator[Step]:
    """And lease. Between the two nothing is remembered but what the second one finds anew."""
    reader = state.readers[index]
    found = state.generations[reader.memory].entries[reader.entry]
    place = world.places[reader.entry]
    if isinstance(found, Value):
        is_old = any(r < least for r, least in zip(found.rows, _of(place, reader.floor)))
        at = "stale" if is_old else "current"
        yield f"answers {found.rows}", state.reader(index, at=at, entry=0, floor=())
    elif found is None and reader.sent is None:
        lease = Piece(
            *("lease_many", place.piece, reader.memory, 100 + index), ((reader.entry, None),)
        )
        after, reply = execute(world, state, lease)
        if reply is None and world.protocol.marker:
            if _can_raise(state) and reader.memory == state.newest:
                raised = _raised(state, 0, enabled=True)
                after = state._replace(generations=raised.generations)
                yield "names another data set", after.reader(index, at="current", entry=0, floor=())
        else:
            yield "leases", after.reader(index, at="load", floor=())
    else:
        yield f"finds {found}", state.reader(index, at="current", entry=0, floor=())


def _load(world: Many, state: State, index: int) -> Iterator[Step]:
    """The SELECT; nobody waits for the store."""
    reader = state.readers[index]
    place = world.places[reader.entry]
    values = ((reader.entry, _of(place, state.table)),)
    sent = Piece("fill_many", place.piece, reader.memory, 100 + index, values)
    yield "loads, sends fill_many", state.reader(index, at="current", entry=0, sent=sent)


def _stale(world: Many, state: State, index: int) -> Iterator[Step]:
    """The end: the search has found what it looked for."""
    yield from ()


_READER = {
    "current": _current,
    "get_many": _get_many,
    "load": _load,
    "stale": _stale,
}


# --- what both need -------------------------------------------------------------------------------


def _of(place: Place, rows: Rows) -> Rows:
    return tuple(rows[row] for row in place.rows)


def _spend(state: State, fault: int) -> State | None:
    if not state.faults[fault]:
        return None
    faults = _put(state.faults, fault, state.faults[fault] - 1)
    return state._replace(faults=faults)


def _put(items: tuple, index: int, item: object) -> tuple:  # type: ignore[type-arg]
    return (*items[:index], item, *items[index + 1 :])


def _tidy(world: Many, state: State) -> State:
    """The same state without entries that no reader can read, stores whose lease is gone, and
    stamps of writers that have judged their fences."""
    readable = {state.newest, *(reader.memory for reader in state.readers)}
    for number, generation in enumerate(state.generations):
        if number not in readable and any(generation.entries):
            empty = generation._replace(entries=(None,) * len(generation.entries))
            state = state._replace(generations=_put(state.generations, number, empty))
    if any(message.generation not in readable for message in state.late):
        late = (message for message in state.late if message.generation in readable)
        state = state._replace(late=frozenset(late))
    for index, reader in enumerate(state.readers):
        if reader.sent is not None:
            [(entry, _)] = reader.sent.values
            found = state.generations[reader.sent.generation].entries[entry]
            if found != Lease(reader.sent.token):
                state = state.reader(index, sent=None)
    watching = state.watching
    for number, generation in enumerate(state.generations):
        markers = tuple(None if kept is None else kept & watching for kept in generation.markers)
        if markers != generation.markers:
            marked = generation._replace(markers=markers)
            state = state._replace(generations=_put(state.generations, number, marked))
    if not all(message.newer <= watching for message in state.late):
        late = (message._replace(newer=message.newer & watching) for message in state.late)
        state = state._replace(late=frozenset(late))
    for index, writer in enumerate(state.writers):
        if not writer.newer <= watching:
            state = state.writer(index, newer=writer.newer & watching)
    return state


def search(world: Many, max_states: int = 10**8) -> Result:
    return explore(world.start(), world.steps, world.violation, hash, max_states)


# Two rows on two servers; the second with a lookup that shows both; two pieces on one server.
ROWS = (Place(0, 0, (0,)), Place(1, 1, (1,)))
LOOKUP = (Place(0, 0, (0,)), Place(1, 1, (0, 1)))
CHUNKS = (Place(0, 0, (0,)), Place(1, 0, (1,)))
BOTH = (("replace", (0, 1)), ("replace", (1, 0)))
TWO_AND_ONE = (("replace", (0, 1)), ("replace", (1,)))
EACH_ONE = (("replace", (0,)), ("replace", (1,)))
LEAVE = (("delete", (0, 1)), ("elsewhere", (1,)))
CRASH, OUTAGE, REJECTED, FLUSH = ((1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1))

SMALL = {
    "two rows, two writers who name them in another order": Many(ROWS, BOTH, readers=0),
    "two rows of two servers, one of them has a second writer": Many(ROWS, TWO_AND_ONE),
    "a row and a lookup on another server": Many(LOOKUP, TWO_AND_ONE),
    "a row and a lookup on another server, a writer for each row": Many(LOOKUP, EACH_ONE),
    "two pieces for one server": Many(CHUNKS, TWO_AND_ONE),
    "two rows leave two servers, one is changed again": Many(ROWS, LEAVE),
    "two rows leave two servers, an outage of one": Many(ROWS, LEAVE, OUTAGE),
    "two rows leave two servers, a flush of one": Many(ROWS, LEAVE, FLUSH),
    "two rows leave two servers, one is rejected": Many(ROWS, LEAVE, REJECTED),
    "two rows of two servers, one is rejected": Many(ROWS, TWO_AND_ONE, REJECTED),
    "two rows of two servers, a crash": Many(ROWS, TWO_AND_ONE, CRASH),
}
LARGE = {
    "two rows, two writers of both": Many(ROWS, BOTH),
    "a row and a lookup, two writers of both rows": Many(LOOKUP, BOTH),
    **{
        f"{name}, {what}": Many(places, TWO_AND_ONE, faults)
        for name, places in {
            "two rows of two servers": ROWS,
            "a row and a lookup on another server": LOOKUP,
            "two pieces for one server": CHUNKS,
        }.items()
        for what, faults in {
            "an outage of one": OUTAGE,
            "a flush of one": FLUSH,
            "a crash and a rejected row": (1, 0, 1, 0),
        }.items()
    },
}
ALL_WORLDS = {**SMALL, **LARGE}
