"""A state of the model: the table, its generations, Redis, and the containers.

States are immutable and hashable. A row is the number 2 * version + 1 where it exists, and
2 * version where it does not, so the greater of two numbers is the newer state of the row.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

# The states of all rows that the one entry of a model shows.
Rows = tuple[int, ...]


class Value(NamedTuple):
    rows: Rows


class Lease(NamedTuple):
    token: int


class Fence(NamedTuple):
    """Of each writer that holds it the time it came and its token; without any it is a tombstone.
    `mark` tells it from every other fence, also from itself before a change. `is_shared`: it had
    two holders once."""

    holders: tuple[tuple[int, int], ...]
    mark: int = 0
    is_shared: bool = False

    @property
    def since(self) -> int:
        """When the last of them came."""
        return self.holders[-1][0]

    @property
    def tokens(self) -> set[int]:
        return {token for _, token in self.holders}


Entry = Value | Lease | Fence | None


class Generation(NamedTuple):
    enabled: bool
    server: int
    incarnation: int


# What a marker holds stands for the latest COMMIT that was published beside it: the writers that
# read before it, so that they find it too late. Nobody asks for others (`State.watching`).
Passed = frozenset[int]


class Server(NamedTuple):
    """A Redis, or what became of it when it took over again: the entry under each generation, the
    witnesses that stand, and by incarnation the markers. `outlived`: the generation of an entry and
    a witness that was there before it, and so expires before it."""

    entries: tuple[Entry, ...]
    witnesses: frozenset[int] = frozenset()
    markers: tuple[tuple[int, Passed], ...] = ()
    outlived: frozenset[tuple[int, int]] = frozenset()

    def marker(self, incarnation: int) -> Passed | None:
        return dict(self.markers).get(incarnation)

    def with_marker(self, incarnation: int, passed: Passed) -> "Server":
        markers = {**dict(self.markers), incarnation: passed}
        return self._replace(markers=tuple(sorted(markers.items())))

    def without_marker(self, incarnation: int) -> "Server":
        return self._replace(markers=tuple(m for m in self.markers if m[0] != incarnation))

    def with_entry(self, generation: int, entry: Entry) -> "Server":
        entries = (*self.entries[:generation], entry, *self.entries[generation + 1 :])
        outlived = {pair for pair in self.outlived if pair[0] != generation}
        if entry is not None:
            outlived |= {(generation, token) for token in self.witnesses}
        return self._replace(entries=entries, outlived=frozenset(outlived))

    def without_witnesses(self, tokens: frozenset[int]) -> "Server":
        outlived = frozenset(pair for pair in self.outlived if pair[1] not in tokens)
        return self._replace(witnesses=self.witnesses - tokens, outlived=outlived)


class Message(NamedTuple):
    """A command on its way to a Redis. `rows` is None where the entry is to go. `newer` stands for
    a stamp: the writers that read before it. Without a stamp it is None."""

    verb: str
    server: int
    generation: int
    token: int = 0
    rows: Rows | None = None
    fence: Fence | None = None
    newer: frozenset[int] | None = None


class Record(NamedTuple):
    """Of a change by plain SQL: of which row, and what it made of it."""

    row: int
    version: int


class Reader(NamedTuple):
    """`at` is what it calls next; `memory` the generation its container remembers;
    `floor` what was acknowledged when its read began; `ready` the store its SELECT is for,
    `sent` the last one that it sent and did not wait for."""

    at: str = "current"
    memory: int = 0
    server: int = 0
    generation: int = 0
    floor: Rows = ()
    ready: Message | None = None
    sent: Message | None = None


class Writer(NamedTuple):
    """`at` is what its client does next; an `orphan` has none any more. `batch` is how far its
    transaction came: `sent` (the fast way: nothing was run), `held` (it holds the generation and
    its row), `read` (it has changed its row, and read what it will show), `committed`, or '' where
    nothing is under way. `fence` is what the client knows of its fences: `sent`, `good`, `bad`,
    `moved` or `failed`. `newer`: the writers that read before it committed. `row` is what its
    transaction makes of its row, `shown` what it read of all rows of a lookup, or its row as it was
    where the change was refused; `tries` counts those that were undone. `slept`: ten seconds went
    by since it sent its fences, before its rows were changed; `is_old`: whether they were by then
    or not."""

    at: str = "write_many"
    batch: str = ""
    fence: str = ""
    server: int = 0
    generation: int = 0
    newer: frozenset[int] = frozenset()
    row: int = 0
    shown: Rows = ()
    committed: bool = False
    tries: int = 0
    slept: bool = False
    is_old: bool = False
    records: frozenset[Record] = frozenset()
    floor: Rows = ()


class Faults(NamedTuple):
    """How many of each may still happen."""

    crashes: int = 0
    flushes: int = 0
    outages: int = 0
    failovers: int = 0
    failbacks: int = 0
    evictions: int = 0
    retries: int = 0
    refusals: int = 0
    sleeps: int = 0
    losses: int = 0


class State(NamedTuple):
    """`records`: of changes by plain SQL, until a drain deletes them; `shown`: those of them whose
    entries have left the cache, so that only a run still needs them; `captured`: of each row the
    latest such change; `unheard`: the changes that no run of the sync has followed yet."""

    readers: tuple[Reader, ...]
    table: Rows
    acknowledged: Rows
    generations: tuple[Generation, ...]
    servers: tuple[Server, ...]
    writers: tuple[Writer, ...]
    faults: Faults
    late: frozenset[Message] = frozenset()
    primary: int = 0
    has_replica: bool = False
    clock: int = 0
    records: frozenset[Record] = frozenset()
    shown: frozenset[Record] = frozenset()
    captured: Rows = ()
    unheard: frozenset[Record] = frozenset()

    def is_replica(self, server: int) -> bool:
        """Whether it was made one since: the first server, of the one that took over."""
        return self.has_replica and server != self.primary

    @property
    def newest(self) -> int:
        return len(self.generations) - 1

    def reader(self, index: int, **changes: object) -> "State":
        changed = self.readers[index]._replace(**changes)  # type: ignore[arg-type]
        return self.with_reader(index, changed)

    def with_reader(self, index: int, reader: Reader) -> "State":
        return State(_put(self.readers, index, reader), *self[1:])

    def writer(self, index: int, **changes: object) -> "State":
        changed = self.writers[index]._replace(**changes)  # type: ignore[arg-type]
        return self._replace(writers=_put(self.writers, index, changed))

    def token(self, index: int) -> int:
        """Of the writer's fences: another one at each try."""
        return index + TOKENS * self.writers[index].tries

    def ended(self, index: int, at: str) -> "State":
        """What a writer no longer needs is forgotten, so that equal states look equal."""
        writer = self.writers[index]
        keeps = at == "crashed" and writer.committed and self.faults.retries > 0
        ended = Writer(at, row=writer.row, committed=True) if keeps else Writer(at)
        return self._replace(writers=_put(self.writers, index, ended))

    def server(self, index: int, server: Server) -> "State":
        return self._replace(servers=_put(self.servers, index, server))

    def raised(self, enabled: bool, server: int, incarnation: int) -> "State":
        generation = Generation(enabled, server, incarnation)
        return self._replace(generations=(*self.generations, generation))

    def switched_off(self) -> "State":
        return self.raised(False, *self.generations[-1][1:])

    def switched_on(self, server: int) -> "State":
        """`use_server`, `Recovery`: a marker of a new incarnation is set, and a generation that
        names it is committed. That is one step: nobody else knows the incarnation before that
        COMMIT, so what happens to the marker before it could as well happen right after it. Where
        the SET fails no generation names its incarnation, however late it comes."""
        used = {generation.incarnation for generation in self.generations}
        incarnation = max(used) + 1
        after = self.raised(True, server, incarnation)
        return after.with_marker(server, incarnation)

    def with_marker(self, server: int, incarnation: int) -> "State":
        marked = self.servers[server].with_marker(incarnation, frozenset())
        return self.server(server, marked)

    def is_locked(self) -> bool:
        """Whether a transaction under way holds a row of the entry, and with it the generation."""
        return any(writer.batch in HOLDING for writer in self.writers)

    @property
    def watching(self) -> frozenset[int]:
        """The writers that have read and do not know yet whether their fences are good. What a
        refused change gives back of a row was read when the row was locked."""
        return frozenset(
            index
            for index, writer in enumerate(self.writers)
            if writer.fence == "sent"
            and (
                writer.batch in ("read", "committed")
                or (len(self.table) == 1 and (writer.batch == "held" or writer.at == "lift"))
            )
        )


# More tokens than there are writers.
TOKENS = 10
HOLDING = frozenset({"held", "read"})
ENDED = frozenset({"acknowledged", "crashed"})


@dataclass(frozen=True)
class Protocol:
    """Each ingredient, there or taken out."""

    lease_check: bool = True
    fence: bool = True
    append: bool = True
    own_fence_check: bool = True
    lost_is_shared: bool = True
    settle_waits: bool = True
    settle_check: bool = True
    raise_unfenced: bool = True
    raise_unpublished: bool = True
    wait: bool = True
    hold_generation: bool = True
    server_check: bool = True
    witness: bool = True
    witness_first: bool = True
    only_absent: bool = True
    tombstone: bool = True
    raise_generation: bool = True
    publish_repeated: bool = True
    stamp_repeated: bool = True
    fresh_mark: bool = True
    only_masters: bool = True
    name_history: bool = True
    shared_goes: bool = True
    fresh_token: bool = True
    guard: bool = True
    stamp: bool = True
    age: bool = True
    marker_of_leases: bool = True
    marker_of_fences: bool = True
    stamp_only: bool = True
    fresh_incarnation: bool = True
    store_good: bool = True
    publish_awaited: bool = True
    stamp_of_lift: bool = True
    make_stand: bool = True
    leave_waits: bool = True
    guard_time: bool = True
    records_first: bool = True
    ids_first: bool = True
    finish_last: bool = True
    finish_seen: bool = True
    only_marked: bool = True
    follow_first: bool = True


@dataclass(frozen=True)
class World:
    """Who does what to the one entry of the model. `writes`: the verb and the row of each writer.
    `converges`: at rest the entry has what the table has. `unknown_is_shown`: who is told that the
    outcome is unknown, and reads then, sees what is committed."""

    writes: tuple[tuple[str, int], ...] = (("replace", 0), ("replace", 0))
    rows: Rows = (1,)
    readers: int = 2
    faults: Faults = field(default_factory=Faults)
    max_generations: int = 4
    converges: bool = True
    unknown_is_shown: bool = False
    protocol: Protocol = field(default_factory=Protocol)

    @property
    def may_evict(self) -> bool:
        return self.faults.evictions > 0

    @property
    def is_lookup(self) -> bool:
        return len(self.rows) > 1

    def start(self) -> State:
        empty = Server((None,) * self.max_generations)
        server = empty.with_marker(0, frozenset())
        return State(
            table=self.rows,
            acknowledged=self.rows,
            captured=(0,) * len(self.rows),
            generations=(Generation(True, 0, 0),),
            servers=(server,) * (1 + self.faults.failovers + self.faults.failbacks),
            readers=(Reader(),) * self.readers,
            writers=(Writer(),) * len(self.writes),
            faults=self.faults,
        )


def _put(items: tuple, index: int, item: object) -> tuple:  # type: ignore[type-arg]
    return (*items[:index], item, *items[index + 1 :])
