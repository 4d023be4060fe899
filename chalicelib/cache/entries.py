"""The entries of the cache: what Redis keeps, and the verbs of the protocol.

An entry holds a row's JSON, or for a lookup the JSON rows with commas between. The entries of a
batch, joined with commas, are the body of an answer: a hit is never decoded. While an entry has no
value it may hold a mark: a lease (one reader fills it) or a fence (a writer changes what it would
show, so nobody believes or fills it). See `entry_scripts` for their form.

Each verb costs one round trip. Each names the generation whose entries it means. `entry_commands`
makes its commands.
"""

import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from chalicelib.cache import entry_scripts
from chalicelib.cache.commands import Command, NoClient
from chalicelib.cache.configured_client import new_client
from chalicelib.cache.entry_commands import Entry, EntryCommands, Fenced, Token
from chalicelib.cache.keys import Keys
from chalicelib.cache.public_keys import PublicWrite, delete_note
from chalicelib.cache.write_behind_totals import CounterTotalsStore
from chalicelib.config import Settings
from chalicelib.db import Generation
from chalicelib.errors import AnotherServer
from chalicelib.tables import Column, Key, Table, tables_with

if TYPE_CHECKING:
    from chalicelib.cache.client import Client
    from chalicelib.cache.routing import Connection

Result = TypeVar("Result")


@dataclass
class Leases:
    """What `lease_many` found: entries that have a value (`found`), that are ours to fill
    (`granted`), that another reader fills (`waiting`), that a writer changes (`fenced`), or whose
    writer died and left this fence (`abandoned`)."""

    found: dict[Key, Entry] = field(default_factory=dict)
    granted: list[Key] = field(default_factory=list)
    waiting: list[Key] = field(default_factory=list)
    fenced: list[Key] = field(default_factory=list)
    abandoned: dict[Key, Entry] = field(default_factory=dict)


class Cache:
    """The verbs of the protocol. Each raises CacheUnavailable, or AnotherServer where Redis has not
    the data set that the generation names."""

    def __init__(self, settings: Settings) -> None:
        self.is_configured = bool(settings.redis_url)
        self.tables = tables_with(settings.default_table)
        self._client = new_client(settings, self.tables)
        self._keys = Keys(settings.redis_cluster)
        self._make = EntryCommands(self._keys, settings.ttl_seconds)
        self.counter_totals = CounterTotalsStore(self._client, self._keys)

    @property
    def is_down(self) -> bool:
        """Whether Redis failed and is not asked until `resume`."""
        return self._client.is_down

    def on_down(self, call: Callable[[], None]) -> None:
        """Call this whenever Redis fails, whoever found out."""
        self._client.on_down = call

    def probe(self) -> str:
        """The name of the server that answers now and can be used. Raises CacheUnavailable, also
        where Redis failed before."""
        return self._client.probe()

    def resume(self) -> None:
        """Use Redis again, after `probe` has succeeded."""
        self._client.resume()

    def open_soon(self) -> None:
        """Have a connection opened, where none is open, and return at once: whoever needs one next
        waits less for it."""
        self._client.open_soon()

    def open(self) -> None:
        """Have a connection open, or know that Redis is down. This may take as long as opening one
        takes, twice."""
        self._client.open()

    def begin_incarnation(self, table: Table, server: str) -> str:
        """A data set on `server` that nobody has used yet, for a generation that is to name it. Its
        markers are set by now, and never will be again: each try of a caller needs another one."""
        incarnation = table.shape + new_token()[len(table.shape) :]
        self._client.call(self._make.set_markers(table, incarnation), server, is_patient=True)
        return f"{server}:{incarnation}"

    def leave_hint(self, table: Table, generation: Generation, *, wait: bool) -> None:
        """Tell containers that cannot ask the database which generation was the last one. Where
        other clients have changed the table, the next run of the sync looks at it. Without `wait`
        return before it has happened."""
        commands = [self._make.leave_hint(table, generation.number, generation.server)]
        if generation.has_changes:
            commands.append(delete_note(table))
        self._client.call(commands, generation.server_name, wait=wait, is_patient=wait)

    def retire_hint(self, table: Table, number: int) -> None:
        """Tell the server that answers now, whichever it is, that generation `number` and all
        before it are not to be used any more. Rows may have changed meanwhile: the next run of the
        sync looks at the table."""
        commands = [self._make.leave_hint(table, number, ""), delete_note(table)]
        self._client.ask_many(commands, is_patient=True)

    def delete_note(self, table: Table) -> None:
        """Let the next run of the sync look at the table."""
        self._client.ask(delete_note(table), is_patient=True)

    def hint(self, table: Table) -> Generation | None:
        """The generation that `leave_hint` named last, as the server that answers now has it. None
        where `retire_hint` was later, or where the server lost it."""
        server, found = self._client.ask(self._make.hint(table), is_patient=True)
        number, _, data_set = (found or b"").partition(b" ")
        if not number.isdigit():  # nothing, or a stranger's
            return None
        hinted = Generation(int(number), True, data_set.decode(errors="replace"), 0)
        return hinted if hinted.server_name == server else None

    def get_many(
        self, generation: Generation, table: Table, column: Column, values: Sequence[Key]
    ) -> Sequence[Entry | None]:
        """What the entry of each value holds, be it a mark; None where there is none. One MGET."""
        commands = self._make.get_many(generation, table, column, values)
        replies = self._client.call(commands, generation.server_name)
        return self._got(generation, table, values, replies)

    def begin_get_many(
        self, generation: Generation, table: Table, column: Column, values: Sequence[Key]
    ) -> "Pending[Sequence[Entry | None]]":
        """Send `get_many` and return at once."""
        commands = self._make.get_many(generation, table, column, values)
        return Pending(
            *(self._client, generation, commands),
            lambda replies: self._got(generation, table, values, replies),
        )

    def _got(
        self, generation: Generation, table: Table, values: Sequence[Key], replies: Sequence[Any]
    ) -> Sequence[Entry | None]:
        _check_declared(generation, table)
        if not self._client.is_cluster:
            return replies[0]  # type: ignore[no-any-return]
        return _in_order([positions for _, positions in self._make.mget_chunks(values)], replies)

    def lease_many(
        self,
        generation: Generation,
        table: Table,
        column: Column,
        values: Sequence[Key],
        token: Token,
    ) -> Leases:
        """Take a lease, the right to fill the entry, on each entry that is absent."""
        commands = self._make.lease_many(generation, table, column, values, token)
        replies = self._client.call(commands, generation.server_name)
        return self._leased(generation, table, values, replies)

    def begin_lease_many(
        self,
        generation: Generation,
        table: Table,
        column: Column,
        values: Sequence[Key],
        token: Token,
    ) -> "Pending[Leases]":
        """Send `lease_many` and return at once."""
        commands = self._make.lease_many(generation, table, column, values, token)
        return Pending(
            *(self._client, generation, commands),
            lambda replies: self._leased(generation, table, values, replies),
        )

    def _leased(
        self, generation: Generation, table: Table, values: Sequence[Key], replies: Sequence[Any]
    ) -> Leases:
        _check_declared(generation, table)
        _check_marked(generation, replies)
        leases = Leases()
        listed = {
            entry_scripts.GRANTED: leases.granted,
            entry_scripts.WAIT: leases.waiting,
            entry_scripts.FENCED: leases.fenced,
        }
        chunks = self._keys.chunks(list(values))
        states = _in_order([positions for _, positions in chunks], replies)
        for value, state in zip(values, states):
            if isinstance(state, int):
                listed[state].append(value)
            elif state.startswith(entry_scripts.FENCE):
                leases.abandoned[value] = state
            else:
                leases.found[value] = state
        return leases

    def fill_many(
        self,
        generation: Generation,
        table: Table,
        column: Column,
        values: Mapping[Key, Entry | None],
        token: Token,
    ) -> None:
        """Store each value where our lease still stands. None gives the lease back, and so does a
        value that is too large to store. Returns before it has happened."""
        commands = self._make.fill_many(generation, table, column, values, token)
        self._client.call(commands, generation.server_name, wait=False)

    def settle_many(
        self,
        generation: Generation,
        table: Table,
        column: Column,
        values: Mapping[Key, tuple[Entry, Entry | None]],
    ) -> None:
        """Settle abandoned fences: replace the fence that a dead writer left by what the database
        holds. `values` has for each value the fence that was found, which must still stand, and the
        entry that was read once no writer held its rows; MARK in its place makes the fence a new
        one. Returns before it has happened."""
        commands = self._make.settle_many(generation, table, column, values)
        self._client.call(commands, generation.server_name, wait=False)

    def begin_fence_many(
        self,
        generation: Generation,
        table: Table,
        fenced: Fenced,
        new: Collection[Key] | None,
        token: Token,
    ) -> "Pending[int]":
        """Send a fence for each entry and return at once. While a fence stands, until
        `publish_many`, no reader believes or fills the entry. `new` are the database keys of rows
        that `publish_many` will store, None where nobody knows them yet.

        The result is the watermark: when the latest change was committed that a writer had
        published before, in microseconds of the database's clock."""
        fences, first = self._make.fence_many(generation, table, fenced, new, token)
        if generation.is_watched:
            first.append(delete_note(table))

        def watermark(replies: Sequence[Any]) -> int:
            _check_declared(generation, table)
            _check_marked(generation, replies)
            try:
                return max(map(int, replies[len(first) :]), default=0)
            except ValueError as error:  # a stranger's: what was published there is lost
                raise AnotherServer(generation.server_name) from error

        # The witnesses first: what is published before the watermark is read is told by it, and
        # what is published later outlives the witness.
        commands = [*first, *fences]
        return Pending(self._client, generation, commands, watermark, is_patient=True)

    def publish_many(
        self,
        generation: Generation,
        table: Table,
        entries: "Affected",
        token: Token,
        committed_at: int,
        wait: bool = True,
        public: PublicWrite | None = None,
    ) -> None:
        """Replace our fences: an entry that has a value gets it, one with None goes. Store new
        rows, in place of what their database keys showed; where that is all, or without `wait`,
        return before it has happened. `committed_at`: a time not before the COMMIT, in microseconds
        of the database's clock; 0 where the change was undone. `public`: public keys to set."""
        _check_declared(generation, table)
        commands = self._make.publish_many(
            generation, table, entries.fenced, entries.new, token, committed_at
        )
        if public:
            # A right that is missing there is no failure of the cache.
            own = public.commands(table, self._client.is_cluster)
            commands += [command._replace(may_be_denied=True) for command in own]
        if generation.is_watched:
            commands.append(delete_note(table))
        is_awaited = wait and bool(entries.fenced or public)
        self._client.call(commands, generation.server_name, wait=is_awaited, is_patient=True)


class Pending(Generic[Result]):
    """A verb that was sent and not yet waited for. Its owner calls `wait`, `wait_under` or
    `close`. `stays`: whether Redis is known, once `wait` has returned, to evict nothing of what the
    verb set a moment ago."""

    def __init__(
        self,
        client: "Client | NoClient",
        generation: Generation,
        commands: Sequence[Command],
        result: Callable[[Sequence[Any]], Result],
        *,
        is_patient: bool = False,
    ) -> None:
        self._client = client
        self._generation = generation
        self._commands = commands
        self._result = result
        self._is_patient = is_patient
        self._connection: Connection | None = client.send(commands)
        self.stays = False

    @property
    def is_sent(self) -> bool:
        """False where the commands could not be sent yet: then `wait` sends them."""
        return self._connection is not None

    def wait(self) -> Result:
        """What the verb returns. The commands are sent again where they did not get through. Raises
        as the verb."""
        connection, self._connection = self._connection, None
        server = self._generation.server_name
        received = self._client.receive(connection, server) if connection else None
        if received is None:
            commands, is_patient = self._commands, self._is_patient
            return self._result(self._client.call(commands, server, is_patient=is_patient))
        self.stays = received.stays
        return self._result(received.replies)

    def wait_under(self, held: Generation) -> Result | None:
        """What the verb returns, if `held` is the generation that it was sent under; else None."""
        ours = self._generation
        if (ours.number, ours.server) != (held.number, held.server):
            self.close()
            return None
        return self.wait()

    def close(self) -> None:
        """Drop the result."""
        connection, self._connection = self._connection, None
        if connection is not None:
            self._client.abandon(connection)


@dataclass(frozen=True)
class Affected:
    """The entries that a write changes. `fenced`, by column: entries that others may read or fill,
    each with its new JSON, or None where the entry goes. `new`: rows that nobody else knows of
    before the COMMIT, by database key, with their JSON, or None where it is not to be stored."""

    fenced: Fenced = field(default_factory=dict)
    new: Mapping[Key, Entry | None] = field(default_factory=dict)


def new_token() -> Token:
    return os.urandom(entry_scripts.TOKEN_LENGTH // 2).hex()


def _check_declared(generation: Generation, table: Table) -> None:
    """Raises AnotherServer where the data set is of another declaration of the table. Checked once
    Redis has answered, because that may tell of another server."""
    if not generation.is_of(table):
        raise AnotherServer(generation.server_name)


def _check_marked(generation: Generation, replies: Sequence[Any]) -> None:
    """Raises AnotherServer where a script did not find its marker: Redis was emptied, and what it
    has now is another data set."""
    if None in replies:
        raise AnotherServer(generation.server_name)


def _in_order(groups: Iterable[Sequence[int]], replies: Sequence[Any]) -> list[Any]:
    """The replies in the order of their positions: `replies` has a list for each group."""
    placed = [
        (position, reply)
        for positions, group in zip(groups, replies)
        for position, reply in zip(positions, group or ())
    ]
    return [reply for _, reply in sorted(placed, key=itemgetter(0))]
