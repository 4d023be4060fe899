"""Writes: into the database in one transaction, and through it into the cache.

The fences of a write are sent just before the piece of SQL that holds its COMMIT, and nobody waits
for them before that. So they may come late, after other writers have come and gone: what this
writer publishes is right only if nobody has published a change that was committed after it read
the rows. The watermark tells that (docs/cache.md); `tests/model` tries every order of the steps.
The acknowledgement comes last.
"""

import logging
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Protocol, TypeVar

from chalicelib.cache.entries import Affected, Cache, Entry, Fenced, Sent, Token, new_token
from chalicelib.cache.generations import Generations
from chalicelib.cache.recovery import Recovery
from chalicelib.db import Change, Committed, Database, Generation, Transaction
from chalicelib.errors import (
    AnotherServer,
    CacheUnavailable,
    DatabaseUnavailable,
    NotAtOnce,
    OutcomeUnknown,
)
from chalicelib.rows.idempotency import Recorded
from chalicelib.tables import NO_KEY, Column, Key, NotAsDeclared, Row, Table

log = logging.getLogger("herocache.write_through")

MAX_SHOWN_ROWS = 2_000
"""Of other rows that share a lookup's value with those that are written: to read more of them costs
more than the miss that it saves."""

MAX_FENCE_SECONDS = 5
"""A writer whose fences are older must not rely on them: they soon count as those of a dead one."""

MAX_SECONDS_TO_STORE = 1
"""A writer whose fences are older stores nothing: together with the life of a new row's witness it
must not take longer than a tombstone stays."""

Result = TypeVar("Result")


class Claim(Protocol):
    """What makes sure that a change is done once."""

    def begin(self, transaction: Transaction) -> None:
        """Before the change. Raises whatever ends it, here or with the next statements."""

    def record(
        self, transaction: Transaction, change: Change, entries: Mapping[str, Sequence[Key]]
    ) -> None:
        """Before the COMMIT. `entries`, by column: the values of those entries that show or showed
        one of the rows, but for rows that nobody else knows of yet."""


@dataclass(frozen=True)
class Work:
    """What one transaction does: write `rows`, or delete the rows with `keys`; at most once where
    there is a `claim`."""

    rows: Sequence[Row] = ()
    keys: Sequence[Key] = ()
    claim: Claim | None = None

    @property
    def inserts_only(self) -> bool:
        """Whether the database gives all keys."""
        return bool(self.rows) and all(row[0] == NO_KEY for row in self.rows)


@dataclass
class Fences:
    """Those of one try of a write, sent under `held` and perhaps not yet waited for. `sent_at` is
    Unix time, which goes on while the process sleeps."""

    held: Generation
    token: Token
    sent_at: float
    sent: Sent[float]
    published: float | None = None

    def wait(self) -> float:
        """Return when they stand: when the latest change was committed that was published before.
        Raises CacheUnavailable, AnotherServer."""
        if self.published is None:
            self.published = self.sent.wait()
        return self.published

    def allow(self, read_at: int) -> bool:
        """Whether what was read at `read_at` may be stored: nobody has published a later change.
        Raises as `wait`; CacheUnavailable where the fences may count as a dead writer's."""
        published = self.wait()
        age = time.time() - self.sent_at
        if age > MAX_FENCE_SECONDS:
            raise CacheUnavailable("this process slept since it sent its fences")
        return published < read_at and age <= MAX_SECONDS_TO_STORE


@dataclass(frozen=True)
class Done:
    """A change that is committed, the entries that it affects, and the fences that were sent."""

    change: Change
    affected: Affected = field(default_factory=Affected)
    committed: Committed | None = None
    fences: Fences | None = None


class WriteThrough:
    def __init__(
        self, database: Database, cache: Cache, generations: Generations, recovery: Recovery
    ) -> None:
        self._database = database
        self._cache = cache
        self._generations = generations
        self._recovery = recovery

    def change(self, table: Table, work: Work, *, store: bool) -> Change:
        """Do `work` on `table` and commit; every read that starts after this has returned sees it.
        With `store` the rows are in the cache too, by key and by every lookup, else they are just
        not stale there. Raises AlreadyClaimed, BadRequest, RowRejected, NotAsDeclared,
        SchemaMismatch, DatabaseUnavailable, OutcomeUnknown."""
        self._introduce(table)
        asked = time.monotonic()
        done = self._committed(table, work, store)
        generation = self._published(table, done)
        self._generations.wait_until_known(table, generation, asked)
        return done.change

    def show_again(self, table: Table, find: Callable[[Transaction], Recorded]) -> Recorded:
        """What `find` finds: an earlier transaction recorded it with its change. Nobody knows
        whether that one came so far that every reader sees it: its entries go. Raises as
        `change`."""
        asked = time.monotonic()

        def finding(transaction: Transaction) -> tuple[Recorded, Generation]:
            return find(transaction), transaction.end(table)

        recorded, held = self._transact(finding)
        if self._is_cached(held):
            columns = recorded.entries.items()
            gone = Affected({table.readable[name]: dict.fromkeys(keys) for name, keys in columns})
            try:
                self._cache.publish_many(held, table, gone, new_token(), held.told_at)
            except CacheUnavailable as error:
                held = self._retired(table, held, error)
        self._generations.wait_until_known(table, held, asked)
        return recorded

    def _committed(self, table: Table, work: Work, store: bool) -> Done:
        """Where the fences cannot even be sent, the transaction switches the table's cache off."""
        try:
            try:
                return self._fenced(table, work, store)
            except Moved as moved:
                self._generations.use_server(table, moved.held, moved.server)
                return self._fenced(table, work, store)
        except CacheUnavailable as error:
            log.warning("the cache of %s is switched off: %s", table.name, error)
            self._recovery.start()
            return self._transact(lambda transaction: _write_uncached(transaction, table, work))

    def _fenced(self, table: Table, work: Work, store: bool) -> Done:
        held = self._generations.remembered(table)
        if held and work.inserts_only and not work.claim:
            with suppress(NotAtOnce):
                return self._transact(
                    lambda transaction: self._insert(transaction, table, work.rows, held, store)
                )
        return self._transact(lambda transaction: self._write(transaction, table, work, store))

    def _insert(
        self,
        transaction: Transaction,
        table: Table,
        rows: Sequence[Row],
        held: Generation,
        store: bool,
    ) -> Done:
        """Rows with NO_KEY, all in one piece of SQL. Raises NotAtOnce."""
        if not transaction.can_insert_at_once(table):
            raise NotAtOnce
        fenced = _lookups(table, rows)
        if not self._is_cached(held) or not (fenced or store):
            change, _ = transaction.insert_and_commit(table, rows, held, {}, 0)
            return Done(change)
        shown = _values(fenced) if store else {}
        fences = self._fence(held, table, fenced, None if store else ())
        with self._minding(table, fences, Affected(fenced)):
            change, committed = transaction.insert_and_commit(
                table, rows, held, shown, MAX_SHOWN_ROWS
            )
        affected = _affected(table, change, store)
        return Done(change, _with_lookups(table, affected, change, committed), committed, fences)

    def _write(self, transaction: Transaction, table: Table, work: Work, store: bool) -> Done:
        """First the rows are inserted, or locked and read; then all else, with the COMMIT. Raises
        AlreadyClaimed."""
        change = _begun(transaction, table, work)
        held = change.generation
        affected = _affected(table, change, store) if self._is_cached(held) else Affected()
        if affected == Affected():
            transaction.commit()
            return Done(change)
        lookups = {column: own for column, own in affected.fenced.items() if column != table.key}
        shown = _values(lookups) if store else {}
        fences = self._fence(held, table, affected.fenced, affected.new)
        with self._minding(table, fences, _undone(table, affected, change.before)):
            keys = [row[0] for row in change.after]
            committed = transaction.commit_and_show(table, shown, keys, MAX_SHOWN_ROWS)
        return Done(change, _with_lookups(table, affected, change, committed), committed, fences)

    def _fence(
        self,
        held: Generation,
        table: Table,
        fenced: Fenced,
        new: Collection[Key] | None,
    ) -> Fences:
        """Send the fences; return at once, unless they could not be sent: then once they stand.
        Raises CacheUnavailable, Moved."""
        token = new_token()  # another one at each try: what lifts those of one try may come late
        sent_at = time.time()
        sent = self._cache.begin_fence_many(held, table, fenced, new, token)
        fences = Fences(held, token, sent_at, sent)
        if not sent.is_under_way:
            try:
                fences.wait()
            except AnotherServer as error:
                raise Moved(held, error.server) from error
        return fences

    @contextmanager
    def _minding(self, table: Table, fences: Fences, undone: Affected) -> Iterator[None]:
        """For the COMMIT that goes with `fences`: where it fails they are lifted, with what was
        `undone`."""
        try:
            yield
        except OutcomeUnknown:
            self._make_stand(table, fences)
            raise
        except Exception:
            self._lift(table, fences, undone)
            raise
        except BaseException:
            fences.sent.close()
            raise

    def _lift(self, table: Table, fences: Fences, undone: Affected) -> None:
        """Of a change that is undone. Where Redis does not hear of it they count as those of a dead
        writer."""
        try:
            # The rows were locked since then.
            is_allowed = fences.allow(fences.held.told_at)
            shown = undone if is_allowed else _gone(undone)
            self._cache.publish_many(fences.held, table, shown, fences.token, 0)
        except CacheUnavailable as error:
            log.info("fences of %s left standing: %s", table.name, error)

    def _make_stand(self, table: Table, fences: Fences) -> None:
        """Of a change that may be committed: the caller is told to read the rows, and readers must
        not believe their entries meanwhile."""
        try:
            fences.wait()
        except CacheUnavailable as error:
            with suppress(OutcomeUnknown):
                self._retired(table, fences.held, error)

    def _published(self, table: Table, done: Done) -> Generation:
        """Wait for the fences and lift them; the generation that holds then. Where Redis went away
        nobody knows whether they stand: no entry is believed any more."""
        fences, affected = done.fences, done.affected
        if fences is None or done.committed is None:
            return done.change.generation
        try:
            shown = affected if fences.allow(done.committed.read_at) else _gone(affected)
            self._cache.publish_many(fences.held, table, shown, fences.token, done.committed.by)
        except CacheUnavailable as error:
            if not affected.fenced:
                log.info("new rows of %s are not in the cache: %s", table.name, error)
                self._recovery.start()
                return fences.held
            return self._retired(table, fences.held, error)
        return fences.held

    def _retired(self, table: Table, held: Generation, error: CacheUnavailable) -> Generation:
        """Let nobody believe an entry under `held` any more. The generation that follows it. Raises
        OutcomeUnknown."""

        def switch_off(transaction: Transaction) -> Generation:
            transaction.switch_off(table)
            return transaction.end(table)

        try:
            if isinstance(error, AnotherServer):
                self._database.switch_on(table, held.number, error.server)
                return self._database.generation(table)
            log.warning("the cache of %s is switched off: %s", table.name, error)
            self._recovery.start()
            return self._transact(switch_off)
        except DatabaseUnavailable as unavailable:
            raise OutcomeUnknown(
                "the rows are written, but neither the cache nor the database can be told so that"
                " every reader sees them; read them before you write them again"
            ) from unavailable

    def replace_all(self, table: Table, apply: Callable[[Transaction], Result]) -> Result:
        """Commit what `apply` does, which may be to any number of rows; every read that starts
        after this has returned sees it. The whole table leaves the cache. Raises as `change`."""
        asked = time.monotonic()

        def with_new_generation(transaction: Transaction) -> tuple[Result, Generation]:
            result = apply(transaction)
            return result, transaction.raise_generation(table)

        result, generation = self._transact(with_new_generation)
        self._generations.wait_until_known(table, generation, asked)
        return result

    def _transact(self, work: Callable[[Transaction], Result]) -> Result:
        try:
            return self._database.transact(work)
        except DatabaseUnavailable:
            self._generations.doubt()
            raise

    def _introduce(self, table: Table) -> None:
        """What this container must know before its first write of a table: learnt in the
        transaction it would cost that one's keys, or its place in the cache."""
        if self._cache.knows(table) or not self._cache.is_configured:
            return
        generation = self._generations.remembered(table) or self._generations.current(table)
        try:
            server = generation.server
            if not server:
                server = self._cache.link.probe()
                self._generations.use_server(table, generation, server)
            self._cache.meet(table, server)
        except CacheUnavailable as error:
            log.info("%s is written without knowing its cache: %s", table.name, error)

    def _is_cached(self, generation: Generation) -> bool:
        """Whether some reader may believe entries under this generation. Where this container has
        no Redis but others have, it must not write behind their backs: the fence fails."""
        return generation.enabled and (self._cache.is_configured or bool(generation.server))


class Moved(AnotherServer):
    """`held`: the generation that speaks of another server. Nothing was committed."""

    def __init__(self, held: Generation, server: str) -> None:
        super().__init__(server)
        self.held = held


def _begun(transaction: Transaction, table: Table, work: Work) -> Change:
    """Rows are inserted, or locked and read; the rest is left to the next statements."""
    if work.claim:
        work.claim.begin(transaction)
    transaction.refuse_far_keys(table, [row[0] for row in work.rows])
    if work.inserts_only:
        change = transaction.insert(table, work.rows)
    elif work.rows:
        change = transaction.write_many(table, work.rows)
    else:
        change = transaction.delete_many(table, work.keys)
    if work.claim:
        entries = _affected(table, change, store=False).fenced
        values = {column.name: list(own) for column, own in entries.items()}
        work.claim.record(transaction, change, values)
    return change


def _write_uncached(transaction: Transaction, table: Table, work: Work) -> Done:
    """From BEGIN to COMMIT, the table's cache switched off."""
    transaction.switch_off(table)
    change = _begun(transaction, table, work)
    transaction.commit()
    return Done(change)


def _with_lookups(
    table: Table, affected: Affected, change: Change, committed: Committed
) -> Affected:
    """The same, with what its lookups show: other rows too."""
    lookups = [column for column in affected.fenced if column != table.key]
    shown = {
        column: _shown(table, column, affected, change.after, rows)
        for column, rows in zip(lookups, committed.others)
    }
    return replace(affected, fenced={**affected.fenced, **shown})


def _values(fenced: Fenced) -> dict[Column, list[Key]]:
    return {column: list(values) for column, values in fenced.items()}


def _gone(affected: Affected) -> Affected:
    """The same entries, none with a value."""
    fenced = {column: dict.fromkeys(values) for column, values in affected.fenced.items()}
    return Affected(fenced, dict.fromkeys(affected.new))


def _undone(table: Table, affected: Affected, before: Sequence[Row]) -> Affected:
    """The same entries, with the rows as they were."""
    try:
        rows = dict(zip([row[0] for row in before], table.encode_many(before)))
    except NotAsDeclared:
        rows = {}
    return Affected(
        {
            column: {value: rows.get(value) if column is table.key else None for value in own}
            for column, own in affected.fenced.items()
        }
    )


def _shown(
    table: Table, column: Column, affected: Affected, own: Sequence[Row], others: Sequence[Row]
) -> Mapping[Key, Entry | None]:
    """The entry of each value of a lookup that `affected` names: its rows, by key. None where there
    are too many `others`, of which then some are missing, or one that cannot be shown, or no
    row."""
    entries: dict[Key, list[Entry]] = {value: [] for value in affected.fenced[column]}
    if len(others) >= MAX_SHOWN_ROWS:
        return dict.fromkeys(entries)
    encoded = {**affected.fenced.get(table.key, {}), **affected.new}
    try:
        encoded |= zip([row[0] for row in others], table.encode_many(others))
    except NotAsDeclared as error:
        log.warning("a lookup of %s is left to its next reader: %s", table.name, error)
        return dict.fromkeys(entries)
    for row in sorted([*own, *others]):
        entries[row[table.positions[column.name]]].append(encoded[row[0]] or b"")
    return {value: b",".join(parts) or None for value, parts in entries.items()}


def _affected(table: Table, change: Change, store: bool) -> Affected:
    """The rows' own entries, and every lookup entry that shows or showed one of them."""
    rows: dict[Key, Entry | None] = {row[0]: None for row in change.before}
    new: dict[Key, Entry | None] = {}
    entries = table.encode_many(change.after) if store else [None] * len(change.after)
    for row, entry in zip(change.after, entries):
        (new if row[0] in change.new_keys else rows)[row[0]] = entry
    fenced = {table.key: rows} if rows else {}
    fenced |= _lookups(table, (*change.before, *change.after))
    return Affected(fenced, new if fenced or store else {})


def _lookups(table: Table, rows: Sequence[Row]) -> dict[Column, dict[Key, Entry | None]]:
    """The entries of lookups that show one of `rows`."""
    if not rows:
        return {}
    return {column: dict.fromkeys(table.values(rows, column)) for column in table.lookup_columns}
