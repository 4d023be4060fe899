"""Writes: into the database in one transaction, and through it into the cache.

The order matters and is proved in `tests/model`: fences stand before the COMMIT and while the rows
are locked, what a lookup shows is read while its fence stands, publishing comes after the COMMIT,
the acknowledgement last. A write that cannot fence takes the table's cache out of use in its own
transaction.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from chalicelib.cache import Affected, Cache, Cell, Sent, Token, new_token
from chalicelib.db import Change, Database, Generation, Transaction
from chalicelib.errors import (
    AnotherServer,
    CacheUnavailable,
    DatabaseUnavailable,
    OutcomeUnknown,
)
from chalicelib.generations import Generations
from chalicelib.recovery import Recovery
from chalicelib.tables import NO_KEY, Column, Key, NotAsDeclared, Row, Table

log = logging.getLogger("herocache.write_through")

MAX_SHOWN_ROWS = 2_000
"""Of other rows that share a lookup's value with those that are written: to read more of them costs
more than the miss that it saves."""

MAX_SECONDS_TO_COMMIT = 5
"""After that a writer must not go on: its fences soon count as those of a dead one, and a row that
it has not changed yet makes no reader wait."""

Result = TypeVar("Result")


def _nothing_before(transaction: Transaction) -> Change | None:
    return None


def _nothing_to_record(transaction: Transaction, change: Change) -> None:
    return None


@dataclass(frozen=True)
class Work:
    """What one transaction does: write `rows`, or delete the rows with `keys`. `claim` comes first;
    a change that it returns was done before, and the rest is left out. `record` is told what was
    done, before the COMMIT. Both may run twice."""

    rows: Sequence[Row] = ()
    keys: Sequence[Key] = ()
    claim: Callable[[Transaction], Change | None] = _nothing_before
    record: Callable[[Transaction, Change], None] = _nothing_to_record

    @property
    def inserts_only(self) -> bool:
        """Whether the database gives all keys."""
        return bool(self.rows) and all(row[0] == NO_KEY for row in self.rows)


@dataclass(frozen=True)
class Done:
    """A change that is committed, and the entries that are still fenced, with `token`."""

    change: Change
    affected: Affected
    token: Token = ""


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
        not stale there. Raises DatabaseUnavailable, OutcomeUnknown, and whatever `work` raises."""
        if not self._generations.remembered(table):
            self._introduce(table)
        asked = time.monotonic()

        def write(transaction: Transaction) -> Done:
            # Another token at each try: what lifts the fences of one that failed may come late.
            return self._write(transaction, table, work, store, new_token())

        try:
            try:
                done = self._transact(write)
            except _Moved as moved:
                self._generations.use_server(table, moved.held, moved.server)
                done = self._transact(write)
        except CacheUnavailable as error:
            log.warning("the cache of %s is switched off: %s", table.name, error)
            self._recovery.start()
            done = self._transact(lambda transaction: _write_uncached(transaction, table, work))
        generation = self._published(table, done)
        self._generations.wait_until_known(table, generation, asked)
        return done.change

    def _write(
        self, transaction: Transaction, table: Table, work: Work, store: bool, token: Token
    ) -> Done:
        """From BEGIN to COMMIT. Raises CacheUnavailable where the fences cannot be set. Where
        nothing is committed for certain they are lifted."""
        repeated = work.claim(transaction)
        if repeated is not None:
            return Done(repeated, self._affected(table, repeated, store), token)
        fences, begun = _Fences(), time.time()
        if work.inserts_only and transaction.send_insert(table, work.rows):
            fences = self._send_fences(table, work.rows, store, token)
        try:
            change = _receive(transaction, table, work)
            affected = self._affected(table, change, store)
            begun = begun if fences.sent else time.time()
            self._fence(table, change, affected, token, fences)
            if time.time() - begun > MAX_SECONDS_TO_COMMIT and affected != Affected():
                raise CacheUnavailable("this process slept since the fences were set")
            work.record(transaction, change)
            shown = _committed(transaction, table, change, affected, store)
            return Done(change, shown, token)
        except (CacheUnavailable, OutcomeUnknown):
            raise
        except Exception:
            self._lift(table, fences, token)
            raise
        finally:
            if fences.sent:
                fences.sent.close()

    def _send_fences(
        self, table: Table, new_rows: Sequence[Row], store: bool, token: Token
    ) -> "_Fences":
        """Send what new rows need, under the generation that will probably be held. Their INSERT is
        on its way: a fence that grows old before its transaction has its locks would be settled
        too soon."""
        generation = self._generations.remembered(table)
        lookups = _lookups(table, new_rows)
        if generation is None or not self._is_cached(generation) or not (lookups or store):
            return _Fences()
        sent = self._cache.begin_fence_many(generation, table, lookups, store, token)
        return _Fences(generation, Affected(lookups), sent=sent)

    def _fence(
        self, table: Table, change: Change, affected: Affected, token: Token, fences: "_Fences"
    ) -> None:
        """Return when the fences stand, which were sent or are now."""
        if affected == Affected():
            return
        held = change.generation
        sent, fences.sent = fences.sent, None
        fences.generation, fences.affected, fences.before = held, affected, change.before
        try:
            if sent is None or sent.wait(held) is None:
                self._cache.fence_many(held, table, affected, token)
        except AnotherServer as error:
            raise _Moved(held, error.server) from error

    def _lift(self, table: Table, fences: "_Fences", token: Token) -> None:
        """Of a change that is undone: a row is shown as it was, a lookup goes. Where Redis does not
        hear of it they count as those of a dead writer."""
        if fences.generation is None:
            return
        try:
            if fences.sent:
                sent, fences.sent = fences.sent, None
                sent.wait(fences.generation)
            undone = _undone(table, fences.affected, fences.before)
            self._cache.publish_many(fences.generation, table, undone, token)
        except CacheUnavailable as error:
            log.info("fences of %s left standing: %s", table.name, error)

    def _affected(self, table: Table, change: Change, store: bool) -> Affected:
        """The entries that readers may believe or fill."""
        return _affected(table, change, store) if self._is_cached(change.generation) else Affected()

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
        """Where the table has no Redis server yet it gets one here: learnt in the transaction it
        would cost that one's keys."""
        generation = self._generations.current(table)
        if generation.server or not self._cache.is_configured:
            return
        try:
            self._generations.use_server(table, generation, self._cache.link.probe())
        except CacheUnavailable as error:
            log.info("the cache of %s stays without a server: %s", table.name, error)

    def _is_cached(self, generation: Generation) -> bool:
        """Whether some reader may believe cells under this generation. Where this container has
        no Redis but others have, it must not write behind their backs: the fence fails."""
        return generation.enabled and (self._cache.is_configured or bool(generation.server))

    def _published(self, table: Table, done: Done) -> Generation:
        """Lift the fences; the generation that holds then. Where Redis went away after the COMMIT
        nobody knows whether the fences stand: the cache is switched off after all."""
        generation, affected = done.change.generation, done.affected
        if affected == Affected():
            return generation
        try:
            self._cache.publish_many(generation, table, affected, done.token)
        except CacheUnavailable as error:
            if not affected.fenced:
                log.info("new rows of %s are not in the cache: %s", table.name, error)
                self._recovery.start()
                return generation
            log.warning("the cache of %s is switched off: %s", table.name, error)
            self._recovery.start()
            return self._switched_off(table)
        return generation

    def _switched_off(self, table: Table) -> Generation:
        def switch_off(transaction: Transaction) -> Change:
            transaction.switch_off(table)
            return transaction.end(table)

        try:
            return self._transact(switch_off).generation
        except DatabaseUnavailable as error:
            raise OutcomeUnknown(
                "the rows are written, but neither the cache nor the database can be told so that"
                " every reader sees them; read them before you write them again"
            ) from error


@dataclass
class _Fences:
    """Of one try of a write: the entries that are fenced under `generation`, and the rows as they
    were `before`. `sent`: they are on their way, and nobody has waited for them."""

    generation: Generation | None = None
    affected: Affected = field(default_factory=Affected)
    before: Sequence[Row] = ()
    sent: Sent[bool] | None = None


class _Moved(AnotherServer):
    """`held`: the generation that speaks of another server."""

    def __init__(self, held: Generation, server: str) -> None:
        super().__init__(server)
        self.held = held


def _write_uncached(transaction: Transaction, table: Table, work: Work) -> Done:
    """From BEGIN to COMMIT, the table's cache switched off."""
    transaction.switch_off(table)
    change = work.claim(transaction)
    if change is None:
        if work.inserts_only:
            transaction.send_insert(table, work.rows)
        change = _receive(transaction, table, work)
        work.record(transaction, change)
        transaction.commit()
    return Done(change, Affected())


def _receive(transaction: Transaction, table: Table, work: Work) -> Change:
    """What comes of it; an insert was sent already."""
    if work.inserts_only:
        return transaction.receive_insert(table, work.rows)
    if work.rows:
        return transaction.write_many(table, work.rows)
    return transaction.delete_many(table, work.keys)


def _committed(
    transaction: Transaction, table: Table, change: Change, affected: Affected, store: bool
) -> Affected:
    """The same once the change is committed, with what its lookups show then."""
    lookups = {c: list(own) for c, own in affected.fenced.items() if c is not table.key}
    if not store or not lookups:
        transaction.commit()
        return affected
    keys = [row[0] for row in change.after]
    others = transaction.commit_and_show(table, lookups, keys, MAX_SHOWN_ROWS)
    shown = {
        column: _shown(table, column, affected, change.after, rows)
        for column, rows in zip(lookups, others)
    }
    return replace(affected, fenced={**affected.fenced, **shown})


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
) -> Mapping[Key, Cell | None]:
    """The entry of each value of a lookup that `affected` names: its rows, by key. None where there
    are too many `others`, of which then some are missing, or one that cannot be shown, or no
    row."""
    entries: dict[Key, list[Cell]] = {value: [] for value in affected.fenced[column]}
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
    return {value: b",".join(cells) or None for value, cells in entries.items()}


def entries_of(table: Table, change: Change) -> dict[str, list[Key]]:
    """The values, by column, of all entries that show or showed one of the rows."""
    affected = _affected(table, change, store=False)
    return {column.name: list(values) for column, values in affected.fenced.items()}


def _affected(table: Table, change: Change, store: bool) -> Affected:
    """The rows' own cells, and every lookup cell that shows or showed one of them. What was done
    before just goes: to publish without a fence leaves alone what a writer fences."""
    if change.repeated:
        columns = change.repeated.items()
        return Affected(
            {table.readable[name]: dict.fromkeys(keys) for name, keys in columns if keys}
        )
    rows: dict[Key, Cell | None] = {row[0]: None for row in change.before}
    new: dict[Key, Cell | None] = {}
    cells = table.encode_many(change.after) if store else [None] * len(change.after)
    for row, cell in zip(change.after, cells):
        (new if row[0] in change.new_keys else rows)[row[0]] = cell
    fenced = {table.key: rows} if rows else {}
    fenced |= _lookups(table, (*change.before, *change.after))
    return Affected(fenced, new if fenced or store else {})


def _lookups(table: Table, rows: Sequence[Row]) -> dict[Column, dict[Key, Cell | None]]:
    """The cells of lookups that show one of `rows`."""
    if not rows:
        return {}
    return {column: dict.fromkeys(table.values(rows, column)) for column in table.lookup_columns}
