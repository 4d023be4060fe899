"""Write-behind counters in the model: increments, runs that add them to a row, and readers.

One row with one counter. Increment `i` adds 4 ** i, so each number tells how often each increment
is in it. The cache's own protocol is the other model's part: here an entry is the row as it was at
some moment, and after a run's publish as it is then. The lease of a run is left out: here runs
overlap, and only the row's lock keeps them apart.

Two reductions. A flush and a failover end what is on its way to the old Redis, also what is to be
sent again: to another data set the code sends nothing again. To one that was flushed it does, and
what the first copy added is then counted twice, where a run has put it into the row before that.
Keys of copies are kept only while a copy is on its way.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, fields, replace
from itertools import combinations
from typing import NamedTuple

from tests.model.search import Result, explore

ENDED = frozenset({"done", "died"})
# More than any run counts.
ALL = 99


class Totals(NamedTuple):
    """In Redis, or of them what is in the row (`applied`)."""

    epoch: int = 0
    times: int = 0
    sum: int = 0
    is_settled: bool = False

    def is_behind(self, applied: "Totals") -> bool:
        return (self.epoch, self.times) < (applied.epoch, applied.times)

    def beyond(self, applied: "Totals") -> int:
        if self.is_behind(applied):
            return 0
        return self.sum - (applied.sum if applied.epoch == self.epoch else 0)


class Row(NamedTuple):
    value: int = 0
    applied: Totals = Totals()


class Redis(NamedTuple):
    totals: Totals | None = None
    is_pending: bool = False
    # (increment, step) of the copy keys, and whether the first copy was refused.
    copies: frozenset[tuple[int, str, bool]] = frozenset()


class Message(NamedTuple):
    """An increment's script, on its way. `record`: None where the entry is to be asked."""

    number: int
    step: str
    record: Row | None


class Process(NamedTuple):
    """`acknowledged`: what a reader must see. `server`: which one had no entry."""

    kind: str
    at: str = "begin"
    row: Row = Row()
    totals: Totals | None = None
    acknowledged: int = 0
    server: int = 0


@dataclass(frozen=True)
class Faults:
    """How many of each. `copies`: a connection closes behind a script, which is sent again before
    the first copy is run, after it, or both at once."""

    crashes: int = 0
    flushes: int = 0
    outages: int = 0
    copies: int = 0
    failovers: int = 0
    expiries: int = 0


@dataclass(frozen=True)
class Protocol:
    """Each ingredient, there or taken out."""

    ledger: bool = True  # what is applied is committed together with the row
    commit_first: bool = True  # totals are settled after the COMMIT
    publish_first: bool = True  # and after every reader sees the row
    same_totals: bool = True  # only those that were read
    kept: bool = True  # for a while
    reject_old_read: bool = True
    lock: bool = True  # a run reads the totals while it has the row's lock
    new_epoch: bool = True  # totals that are behind begin another one
    behind: bool = True  # and count nothing for a reader
    copy_key: bool = True
    copy_done: bool = True  # a second copy whose entry has gone says that it is done
    refusal_kept: bool = True  # a second copy of what was refused is refused
    floor: bool = True
    server_check: bool = True  # counts only where the entry stands, or was looked for


class State(NamedTuple):
    row: Row
    entry: Row | None
    redis: Redis
    replica: tuple[Redis, Row | None] | None  # what takes over
    late: frozenset[Message]
    processes: tuple[Process, ...]
    faults: tuple[int, ...]
    clock: int = 0
    acknowledged: int = 0
    lost: int = 0  # acknowledged before Redis lost them
    wrong: str = ""
    server: int = 0
    named: int = 0  # the server that the generation names: only its entries are believed

    @property
    def believed(self) -> Row | None:
        return self.entry if self.server == self.named else None

    def process(self, index: int, **changed: object) -> "State":
        process = self.processes[index]._replace(**changed)  # type: ignore[arg-type]
        return self._replace(
            processes=(*self.processes[:index], process, *self.processes[index + 1 :])
        )


Step = tuple[str, State]


@dataclass(frozen=True)
class Counters:
    """Who does what: a kind of each process. Increments come first."""

    processes: tuple[str, ...] = ("increment", "increment", "run", "run", "reader")
    faults: Faults = field(default_factory=Faults)
    protocol: Protocol = field(default_factory=Protocol)

    def start(self) -> State:
        faults = tuple(getattr(self.faults, each.name) for each in fields(Faults))
        processes = tuple(Process(kind) for kind in self.processes)
        return State(Row(), Row(), Redis(), None, frozenset(), processes, faults)

    def steps(self, state: State) -> Iterator[Step]:
        for index, process in enumerate(state.processes):
            if process.at not in ENDED:
                for label, after in _STEPS[process.kind](self, state, index):
                    yield f"{process.kind} {index + 1}: {label}", _tidy(after)
                if process.kind == "run" and (spent := _spend(state, "crashes")):
                    yield f"run {index + 1}: crashes", _tidy(spent.process(index, at="died"))
        for label, after in _events(self, state):
            yield label, _tidy(after)

    def violation(self, state: State) -> str:
        """What a read at once would show is looked at in every state."""
        if state.wrong:
            return state.wrong
        if wrong := self.fault_of(state, state.row.value, 0):
            return f"the row {wrong}"
        sources = {"row": state.row, "entry": state.believed or state.row}
        for name, row in sources.items():
            shown = row.value + self.left(state.redis.totals, row)
            if wrong := self.fault_of(state, shown, state.acknowledged):
                return f"a read of the {name} {wrong}"
        if not state.redis.is_pending and self.left(state.redis.totals, state.row):
            return "nobody adds to the row what is left"
        return ""

    def fault_of(self, state: State, shown: int, acknowledged: int) -> str:
        count = self.processes.count("increment")
        digits = [shown >> 2 * i & 3 for i in range(count)]
        if shown < 0 or shown >> 2 * count or max(digits) > 1:
            return f"has an increment twice, or takes one away: {digits}"
        due = acknowledged & ~state.lost
        return f"lacks an increment: {digits}" if due & ~shown else ""

    def left(self, totals: Totals | None, row: Row) -> int:
        if totals is None:
            return 0
        if not self.protocol.behind:
            totals = totals._replace(epoch=max(totals.epoch, row.applied.epoch), times=ALL)
        return totals.beyond(row.applied)


def _increment(model: Counters, state: State, index: int) -> Iterator[Step]:
    """`WriteBehind.increment`: with the entry; where there is none, with the row's record."""
    process = state.processes[index]
    if process.at == "missing":
        yield "reads the row", state.process(index, at="record", row=state.row)
        return
    step, _, again = process.at.partition(" ")
    record = process.row if step == "record" else None
    if record and process.server != state.server and model.protocol.server_check:
        yield "another Redis took over", state.process(index, at="died", row=Row(), server=0)
        return
    message = Message(index, step, record)
    yield from _sent(model, state, message)
    for fault in ("outages", "copies"):
        if spent := _spend(state, fault):
            late = spent._replace(late=spent.late | {message})
            if fault == "outages":
                yield "OutcomeUnknown, may arrive late", late.process(index, at="died")
            elif not again:
                yield "its connection closes", late.process(index, at=f"{step} again")


def _sent(model: Counters, state: State, message: Message) -> Iterator[Step]:
    """Where the row's record came with it, and it is refused, nothing is changed."""
    after, is_done = add(model, state, message)
    if is_done:
        after = after._replace(acknowledged=after.acknowledged | 4**message.number)
        yield "added", after.process(message.number, at="done", row=Row(), server=0)
    elif message.record:
        yield "refused", after.process(message.number, at="died", row=Row(), server=0)
    else:
        yield "missing", after.process(message.number, at="missing", server=state.server)


def add(model: Counters, state: State, message: Message) -> tuple[State, bool]:
    """The script of `write_behind_scripts.add`, and whether it is done. A second copy that finds no
    entry replies that it is: there the code raises OutcomeUnknown, here even that is kept."""
    redis, copy = state.redis, (message.number, message.step)
    record = message.record or (state.believed if model.protocol.server_check else state.entry)
    if model.protocol.copy_key:
        for *first, is_refused in redis.copies:
            if (*first,) == copy and is_refused and model.protocol.refusal_kept:
                return state, False
            if (*first,) == copy:
                return state, record is not None or model.protocol.copy_done
    redis = redis._replace(copies=redis.copies | {(*copy, record is None)})
    if record is None:
        return state._replace(redis=redis), False
    totals, clock = redis.totals or Totals(), state.clock
    if not totals.epoch or (totals.is_behind(record.applied) and model.protocol.new_epoch):
        clock = max(clock, record.applied.epoch) + 1
        totals = Totals(clock)
    totals = Totals(totals.epoch, totals.times + 1, totals.sum + 4**message.number)
    redis = redis._replace(totals=totals, is_pending=True)
    return state._replace(redis=redis, clock=clock), True


def _run(model: Counters, state: State, index: int) -> Iterator[Step]:
    """`ApplyIncrements.apply`: one batch, then `settle_many`."""
    process, protocol = state.processes[index], model.protocol
    if process.at == "begin":
        if state.redis.is_pending:
            yield "there are pending ones", state.process(index, at="lock")
        else:
            yield "nothing is pending", state.process(index, at="done")
    elif process.at == "lock":
        is_held = any(
            p.kind == "run" and p.at in ("read_totals", "commit") for p in state.processes
        )
        if not is_held or not protocol.lock:
            yield "locks the row", state.process(index, at="read_totals", row=state.row)
    elif process.at == "read_totals":
        then = "commit" if protocol.commit_first else "settle_early"
        yield "reads the totals", state.process(index, at=then, totals=state.redis.totals)
    elif process.at == "settle_early":
        yield "settles", _settled(model, state, process).process(index, at="commit")
    elif process.at == "commit":
        yield from _commit(model, state, index)
    elif process.at == "ledger":
        applied = process.totals or state.row.applied
        after = state._replace(row=state.row._replace(applied=applied))
        yield "commits what is applied", after.process(index, at="publish", row=after.row)
    elif process.at == "publish" and protocol.publish_first:
        entry = state.row if process.row == state.row else None
        yield "publishes", state._replace(entry=entry).process(index, at="settle", row=Row())
    else:
        settled = _settled(model, state, process) if protocol.commit_first else state
        yield "settles", settled.process(index, at="done", totals=None, row=Row())


def _commit(model: Counters, state: State, index: int) -> Iterator[Step]:
    """Fences may come after the COMMIT, so the entry stays for now."""
    totals, row = state.processes[index].totals, state.processes[index].row
    if totals and not totals.is_behind(row.applied):
        applied = totals._replace(is_settled=False) if model.protocol.ledger else row.applied
        row = Row(row.value + totals.beyond(row.applied), applied)
    at = "publish" if model.protocol.ledger else "ledger"
    yield "commits", state._replace(row=row).process(index, at=at, row=row)


def _settled(model: Counters, state: State, process: Process) -> State:
    """The script SETTLE."""
    found = state.redis.totals
    if found and found != process.totals and model.protocol.same_totals:
        return state
    kept = found._replace(is_settled=True) if found and model.protocol.kept else None
    return state._replace(redis=state.redis._replace(totals=kept, is_pending=False))


def _prune(model: Counters, state: State, index: int) -> Iterator[Step]:
    """`ApplyIncrements.prune`: of a row whose totals have expired, and that has none pending."""
    process, applied = state.processes[index], state.row.applied
    if process.at == "begin":
        if applied.epoch and not state.redis.totals:
            yield "looks", state.process(index, at="forget", row=state.row)
    else:
        if process.row == state.row:
            floor = Totals(applied.epoch, ALL) if model.protocol.floor else Totals()
            state = state._replace(row=state.row._replace(applied=floor))
        # The change of `applied_deltas` alone needs no publish: whoever has the old one is behind.
        yield "forgets", state.process(index, at="done", row=Row())


def _reader(model: Counters, state: State, index: int) -> Iterator[Step]:
    """The row, from its entry or from the database; then the totals."""
    process = state.processes[index]
    if process.at == "begin":
        known = {"at": "read_totals", "acknowledged": state.acknowledged}
        yield "reads the row", state.process(index, row=state.row, **known)
        if state.believed not in (None, state.row):
            yield "reads the entry", state.process(index, row=state.believed, **known)
        return
    shown = process.row.value + model.left(state.redis.totals, process.row)
    wrong = model.fault_of(state, shown, process.acknowledged)
    after = state._replace(wrong=wrong and f"a read {wrong}")
    yield f"shows {shown}", after.process(index, at="done", row=Row())


_STEPS = {"increment": _increment, "run": _run, "prune": _prune, "reader": _reader}


def _events(model: Counters, state: State) -> Iterator[Step]:
    for message in state.late:
        after, _ = add(model, state._replace(late=state.late - {message}), message)
        yield f"the script of increment {message.number + 1} arrives", after
    if state.server != state.named:
        yield "the generation is renewed", state._replace(named=state.server, entry=None)
    elif state.entry is None:
        if not any(p.kind == "run" and p.at in ("ledger", "publish") for p in state.processes):
            yield "a reader fills the entry", state._replace(entry=state.row)
    elif spent := _spend(state, "crashes"):
        yield "the entry goes", spent._replace(entry=None)
    totals = state.redis.totals
    if totals and totals.is_settled and (spent := _spend(state, "expiries")):
        after = spent._replace(redis=state.redis._replace(totals=None))
        yield "the totals expire", _without_old_reads(model, after)
    if spent := _spend(state, "flushes"):
        yield "Redis is flushed", _replaced(spent, Redis(), None)
    if state.faults[_FAILOVERS] and state.replica is None:
        yield "the replica catches up", state._replace(replica=(state.redis, state.entry))
    if state.replica and not _is_adding(state) and (spent := _spend(state, "failovers")):
        after = _replaced(spent, *state.replica)
        yield "the replica takes over", after._replace(server=state.server + 1)


def _is_adding(state: State) -> bool:
    """docs/sync.md: a Redis without the last increments that takes over while a run adds them or
    forgets may cost those."""
    return any(
        process.kind in ("run", "prune") and process.at not in {"begin", "lock", *ENDED}
        for process in state.processes
    )


def _without_old_reads(model: Counters, state: State) -> State:
    """`MAX_READ_SECONDS` is less than totals live once they are settled."""
    for index, process in enumerate(state.processes):
        is_late = process.at.startswith("record") or (process.kind, process.at) == (
            "reader",
            "read_totals",
        )
        if is_late and model.protocol.reject_old_read:
            state = state.process(index, at="died", row=Row(), totals=None)
    return state


def _replaced(state: State, redis: Redis, entry: Row | None) -> State:
    """docs/sync.md: a read that is under way may show its row without what was counted."""
    lost = state.lost | state.acknowledged & ~state.row.value
    for index, process in enumerate(state.processes):
        if process.kind == "reader":
            state = state.process(index, acknowledged=0)
        elif process.at.endswith(" again"):
            state = state.process(index, at="died", row=Row(), server=0)
    return state._replace(redis=redis, entry=entry, late=frozenset(), lost=lost)


_FAULTS = [each.name for each in fields(Faults)]
_FAILOVERS = _FAULTS.index("failovers")


def _spend(state: State, fault: str) -> State | None:
    place = _FAULTS.index(fault)
    if not state.faults[place]:
        return None
    left = (*state.faults[:place], state.faults[place] - 1, *state.faults[place + 1 :])
    return state._replace(faults=left)


def _tidy(state: State) -> State:
    late = {(message.number, message.step) for message in state.late}
    late |= {
        (number, process.at.removesuffix(" again"))
        for number, process in enumerate(state.processes)
        if process.at.endswith(" again")
    }
    copies = frozenset(copy for copy in state.redis.copies if copy[:2] in late)
    redis = state.redis._replace(copies=copies)
    if redis == state.redis:
        return state
    return state._replace(redis=redis)


def search(world: Counters, max_states: int = 10**8) -> Result:
    return explore(world.start(), world.steps, world.violation, hash, max_states)


WORLDS = {
    "one run": Counters(("increment", "increment", "run", "reader")),
    "two runs": Counters(("increment", "increment", "run", "run", "reader")),
    "three": Counters(("increment", "increment", "increment", "run")),
    "pruned": Counters(("increment", "increment", "run", "prune", "reader")),
}
SMALL = {
    f"{who}, {', '.join(faults)}": replace(WORLDS[who], faults=Faults(**dict.fromkeys(faults, 1)))
    for who, *faults in (
        ("two runs", "crashes"),
        ("two runs", "outages"),
        ("two runs", "copies"),
        ("two runs", "expiries"),
        ("one run", "flushes"),
        ("one run", "failovers"),
        ("pruned", "expiries", "failovers"),
    )
}
LARGE = {
    f"{who}, {one} and {other}": replace(WORLDS[who], faults=Faults(**{one: 1, other: 1}))
    for who in ("two runs", "three")
    for one, other in combinations(_FAULTS, 2)
} | {
    "pruned, a crash too": replace(
        WORLDS["pruned"], faults=Faults(crashes=1, failovers=1, expiries=1)
    ),
    "one run, four faults": replace(
        WORLDS["one run"], faults=Faults(crashes=1, flushes=1, outages=1, copies=1)
    ),
}
ALL_WORLDS = {**SMALL, **LARGE}
