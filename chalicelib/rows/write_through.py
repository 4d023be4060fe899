"""Writes: into the database in one transaction, and through it into the cache.

A write puts a fence on every entry that it affects: while the fence stands no reader believes or
fills that entry. It sends the fences just before the batch of statements that holds the COMMIT, and
waits for neither until both are sent. So the fences may come late, after other writers have come
and gone. What this writer read is then right only if nobody has published a change that was
committed after it read. The watermark tells that.

Read `change` beside docs/cache.md; `tests/model` tries every order of these steps.
"""

import logging
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import TypeVar

from chalicelib.cache import (
    Affected,
    Cache,
    Fenced,
    Generations,
    Recovery,
    new_token,
)
from chalicelib.clocks import clocks
from chalicelib.db import Change, Committed, Database, Generation, Transaction
from chalicelib.errors import (
    AnotherServer,
    CacheUnavailable,
    HerocacheError,
    NotAtOnce,
    OutcomeUnknown,
)
from chalicelib.rows import changed_entries, public_rows
from chalicelib.rows.cache_switch_off import CacheSwitchOff
from chalicelib.rows.fences import Fences
from chalicelib.rows.idempotency import Recorded
from chalicelib.rows.work import Claim, Work, begin
from chalicelib.rows.writer_transactions import Transactions
from chalicelib.tables import Column, Key, Row, Table

log = logging.getLogger("herocache.write_through")

# A COMMIT that reaches the database later is rejected there: where its writer has gone, nobody else
# would tell readers of it once its fences were settled.
MAX_SECONDS_TO_COMMIT = 5

# How long ago the database may have told its time where an insert at once counts on it. Two clocks
# drift apart, and one of them may be set.
MAX_SECONDS_SINCE_TOLD = 600

# So many entries are taken out of the cache in one round trip to Redis, which must end in time.
MAX_DROPPED_AT_ONCE = 2_000

Result = TypeVar("Result")


@dataclass(frozen=True)
class Done:
    """A change that is committed, the entries that it affects, and the fences that were sent; no
    fences where no reader can believe one of these entries."""

    change: Change
    affected: Affected = field(default_factory=Affected)
    committed: Committed | None = None
    fences: Fences | None = None


class WriteThrough:
    def __init__(
        self, database: Database, cache: Cache, generations: Generations, recovery: Recovery
    ) -> None:
        self._cache = cache
        self._totals = cache.counter_totals if cache.is_configured else None
        self._generations = generations
        self._recovery = recovery
        self._transactions = Transactions(database, generations)
        self._switch_off = CacheSwitchOff(database, generations, self._transactions, recovery)

    def change(self, table: Table, work: Work, *, store: bool) -> Change:
        """Do `work` on `table` and commit; every read that starts after this has returned sees it.
        With `store` the rows are then in the cache, by key and by every lookup; without it they are
        not, and nothing stale is. Raises AlreadyClaimed, BadRequest, RowRejected, NotAsDeclared,
        SchemaMismatch, DatabaseUnavailable, OutcomeUnknown."""
        self._reach_cache(table)
        asked = time.monotonic()
        done = self._commit(table, work, store)
        with _after_commit():
            generation = self._publish(table, done)
            self._wait_until_known(table, generation, asked)
        return done.change

    def show_again(self, table: Table, find: Callable[[Transaction], Recorded]) -> Recorded:
        """What `find` finds: an earlier transaction recorded it with its change. That writer may
        have died before every reader saw the change, so its entries leave the cache now. Raises as
        `change`."""
        asked = time.monotonic()
        recorded, held = self._transactions.run(_find, find, table)
        with _after_commit():
            self.drop(table, recorded.entries, held, asked)
        return recorded

    def drop(
        self, table: Table, entries: Mapping[str, Sequence[Key]], held: Generation, asked: float
    ) -> None:
        """Take these `entries` out of the cache, by column, because the rows that they show were
        changed: every read that starts after this has returned sees the rows as they were when the
        database told the generation `held`, or later. It was asked for that at `asked`, in
        monotonic seconds. Raises DatabaseUnavailable."""
        # A lookup may be declared no more since a deployment: who still reads by it has a data set
        # of another declaration.
        known = [
            (table.readable[name], own) for name, own in entries.items() if name in table.readable
        ]
        if self._is_cached(held):
            try:
                for column, own in known:
                    for start in range(0, len(own), MAX_DROPPED_AT_ONCE):
                        gone = dict.fromkeys(own[start : start + MAX_DROPPED_AT_ONCE])
                        self._cache.publish_many(
                            held, table, Affected({column: gone}), new_token(), held.told_at
                        )
            except CacheUnavailable as error:
                held = self._switch_off.after_commit(table, held, error)
        self._wait_until_known(table, held, asked)

    def replace_all(self, table: Table, apply: Callable[[Transaction], Result]) -> Result:
        """Commit what `apply` does, which may be to any number of rows; every read that starts
        after this has returned sees it. The whole table leaves the cache. Raises as `change`."""
        asked = time.monotonic()
        result, generation = self._transactions.run(_apply_and_raise_generation, apply, table)
        with _after_commit():
            if generation.is_watched:
                self._tell_sync(table)
            self._wait_until_known(table, generation, asked)
        return result

    def replace_many(
        self,
        table: Table,
        before: Mapping[Key, bytes],
        changed: Mapping[Column, Sequence[str]],
        claim: Claim,
    ) -> None:
        """As `Transaction.replace_many`. The whole table leaves the cache, but readers may see the
        old rows until `wait_for_readers` has returned. Raises NotAtOnce where `change` must do it,
        and as that."""

        def replace_all(transaction: Transaction) -> None:
            claim.begin(transaction)
            transaction.replace_many(table, before, changed)
            generation = transaction.raise_generation(table)
            claim.record(transaction, Change(generation, (), ()), {})

        self._transactions.run(replace_all)

    def wait_for_readers(self, table: Table) -> None:
        """Return when every reader sees what was committed before, by whomever. Raises
        DatabaseUnavailable, SchemaMismatch."""
        asked = time.monotonic()
        held = self._transactions.run(lambda transaction: transaction.end(table))
        self._wait_until_known(table, held, asked)

    # --- before the transaction -------------------------------------------------------------------

    def _reach_cache(self, table: Table) -> None:
        """Have a connection to Redis open before any row is locked. Where no Redis has entries of
        `table` yet, name the one that answers. Found out within the transaction it would cost an
        insert the keys that it was given."""
        generation = self._generations.remembered(table)
        if not self._cache.is_configured:
            return
        if generation is None or generation.enabled:
            self._cache.open()
        if generation and generation.server_name:
            return
        generation = generation or self._generations.current(table)
        if generation.enabled and not generation.server_name:
            try:
                self._generations.use_server(table, generation, self._cache.probe())
            except CacheUnavailable as error:
                log.info("%s is written without knowing its cache: %s", table.name, error)

    # --- from BEGIN to COMMIT ---------------------------------------------------------------------

    def _commit(self, table: Table, work: Work, store: bool) -> Done:
        """Commit with fences. Where they cannot even be sent, the transaction is done again and
        switches the table's cache off."""
        try:
            try:
                return self._commit_with_fences(table, work, store)
            except Moved as moved:
                self._generations.use_server(table, moved.held, moved.server)
                return self._commit_with_fences(table, work, store)
        except CacheUnavailable as error:
            return self._switch_off.with_change(
                table, error, lambda transaction: self._write_uncached(transaction, table, work)
            )

    def _commit_with_fences(self, table: Table, work: Work, store: bool) -> Done:
        held = self._generations.remembered(table)
        is_told = held and time.monotonic() - held.asked_at <= MAX_SECONDS_SINCE_TOLD
        at_once = is_told and held and not held.is_watched and held.is_of(table)
        if held and at_once and work.inserts_only and not work.claim:
            with suppress(NotAtOnce):
                return self._transactions.run(self._insert_at_once, table, work.rows, held, store)
        return self._transactions.run(self._lock_and_write, table, work, store)

    def _insert_at_once(
        self,
        transaction: Transaction,
        table: Table,
        rows: Sequence[Row],
        held: Generation,
        store: bool,
    ) -> Done:
        """Insert rows with NO_KEY, from BEGIN to COMMIT in one batch. Raises NotAtOnce."""
        if not transaction.can_insert_at_once(table, rows):
            raise NotAtOnce
        lookups = changed_entries.of_lookups(table, rows)
        until = held.database_time(in_seconds=MAX_SECONDS_TO_COMMIT)
        if not self._is_cached(held) or not (lookups or store):
            receive = transaction.send_insert(table, rows, held, {}, 0, until, is_timed=False)
            change, _ = receive()
            return Done(change)
        fences = self._send_fences(held, table, lookups, None if store else ())
        with self._lifted_if_undone(table, fences, Affected(lookups), ()):
            shown = changed_entries.values(lookups) if store else {}
            receive = transaction.send_insert(
                table, rows, held, shown, changed_entries.max_shown_rows(table), until
            )
            with _after_commit():  # it may be done by now
                texts = table.encode_keyless(rows) if store else ()
            change, committed = receive()
            with _after_commit():
                affected = changed_entries.of_insert(table, change, lookups, texts)
                affected = changed_entries.with_lookups(table, affected, change, committed)
        return Done(change, affected, committed, fences)

    def _lock_and_write(
        self, transaction: Transaction, table: Table, work: Work, store: bool
    ) -> Done:
        """BEGIN, and insert the rows, or lock and read them; then all else, with the COMMIT. Raises
        AlreadyClaimed."""
        change = begin(transaction, table, work, self._totals)
        held, affected = change.generation, Affected()
        if self._is_cached(held) and not held.is_of(table):
            raise Moved(held, held.server_name)  # not all entries that others believe are known
        if self._is_cached(held):
            affected = changed_entries.of_change(table, change, store)
        changed = public_rows.changed_keys(change) if held.is_watched else ()
        is_public = bool(changed) and self._is_cached(held)
        if affected == Affected() and not is_public:
            transaction.commit()
            return Done(change)
        if work.is_of_sync:
            held = replace(held, is_watched=False)
        until = held.database_time(in_seconds=MAX_SECONDS_TO_COMMIT)
        fences = self._send_fences(held, table, affected.fenced, affected.new)
        with self._lifted_if_undone(table, fences, affected, change.before):
            lookups = {
                column: own for column, own in affected.fenced.items() if column != table.key
            }
            shown = changed_entries.values(lookups) if store else {}
            keys = [row[0] for row in change.after]
            if store:
                affected = changed_entries.with_rows(table, affected, change)
            if changed_entries.leave_a_lookup(table, change):
                self._wait_for(fences)
            receive = transaction.send_commit(
                table, shown, keys, changed_entries.max_shown_rows(table), until, changed
            )
            committed = receive()
            with _after_commit():
                affected = changed_entries.with_lookups(table, affected, change, committed)
        return Done(change, affected, committed, fences)

    def _write_uncached(self, transaction: Transaction, table: Table, work: Work) -> Done:
        change = begin(transaction, table, work, self._totals)
        transaction.commit()
        return Done(change)

    def _send_fences(
        self,
        held: Generation,
        table: Table,
        fenced: Fenced,
        new: Collection[Key] | None,
    ) -> Fences:
        """Send the fences and return at once. Where they could not be sent, return once they stand:
        raises CacheUnavailable, Moved."""
        # Each try has another token: what lifts the fences of one try may come late.
        token, sent_at = new_token(), clocks()
        pending = self._cache.begin_fence_many(held, table, fenced, new, token)
        fences = Fences(held, token, sent_at, pending)
        if not pending.is_sent:
            self._wait_for(fences)
        return fences

    def _wait_for(self, fences: Fences) -> None:
        """Return once the fences stand, before the COMMIT. Raises CacheUnavailable, Moved."""
        try:
            fences.wait()
        except AnotherServer as error:
            raise Moved(fences.held, error.server) from error

    @contextmanager
    def _lifted_if_undone(
        self, table: Table, fences: Fences, affected: Affected, before: Sequence[Row]
    ) -> Iterator[None]:
        """Stands around the COMMIT that goes with `fences`. Where it fails the fences are lifted,
        and the `affected` entries show the rows as they were `before`; where its outcome is unknown
        the fences stay."""
        try:
            yield
        except CacheUnavailable:
            raise  # they do not stand
        except OutcomeUnknown:
            self._keep_standing(table, fences)
            raise
        except Exception:
            self._lift(table, fences, changed_entries.as_before(table, affected, before))
            raise
        except BaseException:
            fences.pending.close()
            raise

    def _lift(self, table: Table, fences: Fences, undone: Affected) -> None:
        """Where Redis does not hear of it the fences count as those of a dead writer."""
        try:
            # The rows were locked from `told_at` on.
            may_store = fences.allow(fences.held.told_at)
            shown = undone if may_store else changed_entries.without_values(undone)
            self._cache.publish_many(fences.held, table, shown, fences.token, 0)
        except CacheUnavailable as error:
            log.info("fences of %s left standing: %s", table.name, error)

    def _keep_standing(self, table: Table, fences: Fences) -> None:
        """The change may be committed, and the caller is told to read the rows. Make sure that the
        fences stand: no reader may believe the entries until somebody has read the rows anew."""
        try:
            fences.allow(0)
        except CacheUnavailable as error:
            with suppress(OutcomeUnknown), _after_commit():
                self._switch_off.after_commit(table, fences.held, error)

    # --- after the COMMIT -------------------------------------------------------------------------

    def _publish(self, table: Table, done: Done) -> Generation:
        """Wait for the fences, and put the new values in their place. The generation that holds
        then. Where Redis went away nobody knows whether the fences stand: no entry of the table is
        believed any more."""
        fences, affected = done.fences, done.affected
        if fences is None or done.committed is None:
            return done.change.generation
        is_right = False
        try:
            may_store = fences.allow(done.committed.read_at)
            shown = affected if may_store else changed_entries.without_values(affected)
            # The fences are right for as long as they stand: nobody waits for more.
            is_right = may_store and fences.stay
            public = public_rows.of_change(table, done.change, done.committed)
            is_awaited = public is not None or not is_right
            self._cache.publish_many(
                fences.held,
                table,
                shown,
                fences.token,
                done.committed.by,
                is_awaited,
                public,
            )
        except CacheUnavailable as error:
            if affected.fenced and not is_right:
                return self._switch_off.after_commit(table, fences.held, error)
            log.info("the changed rows of %s are not in the cache: %s", table.name, error)
            self._recovery.start()
        return done.change.generation

    def _wait_until_known(self, table: Table, generation: Generation, asked: float) -> None:
        """As `Generations.wait_until_known`. Where the cache is switched off somebody must look for
        Redis, also where nobody reads: its hint still tells of entries from before."""
        if not generation.enabled:
            self._recovery.start()
        self._generations.wait_until_known(table, generation, asked)

    def _tell_sync(self, table: Table) -> None:
        """Any row may have changed: the next run looks at the table."""
        try:
            self._cache.delete_note(table)
        except CacheUnavailable as error:
            log.info("the sync is not told of changes of %s: %s", table.name, error)
            self._recovery.start()  # it tells the sync

    def _is_cached(self, generation: Generation) -> bool:
        """Whether some reader may believe entries under this generation. Where this container has
        no Redis but others have, it must not write behind their backs: the fences fail."""
        return generation.enabled and (self._cache.is_configured or bool(generation.server))


class Moved(AnotherServer):
    """The generation `held` speaks of another server. Nothing was committed."""

    def __init__(self, held: Generation, server: str) -> None:
        super().__init__(server)
        self.held = held


@contextmanager
def _after_commit() -> Iterator[None]:
    """For what makes a change visible: no failure of it may look as if nothing was written. Raises
    OutcomeUnknown."""
    try:
        yield
    except Exception as error:
        if not isinstance(error, HerocacheError):
            log.exception("a bug, or an error of the database that is not known here")
        why = f" ({error})" * isinstance(error, HerocacheError)
        raise OutcomeUnknown(
            "the rows are written, but neither the cache nor the database can be told so that"
            f" every reader sees them{why}; read them before you write them again"
        ) from error


def _find(
    transaction: Transaction, find: Callable[[Transaction], Recorded], table: Table
) -> tuple[Recorded, Generation]:
    return find(transaction), transaction.end(table)


def _apply_and_raise_generation(
    transaction: Transaction, apply: Callable[[Transaction], Result], table: Table
) -> tuple[Result, Generation]:
    result = apply(transaction)
    return result, transaction.raise_generation(table)
