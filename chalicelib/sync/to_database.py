"""The rows follow their public keys."""

import itertools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from chalicelib.cache import Found, PublicRow, fingerprint
from chalicelib.db import Change, Statement, Transaction
from chalicelib.errors import BadRequest, NotAtOnce
from chalicelib.rows import Work, WriteThrough
from chalicelib.sync import public_values
from chalicelib.sync.plain_rows import plain_rows
from chalicelib.sync.public_side import PublicSide
from chalicelib.sync.public_values import NotARow, Values
from chalicelib.sync.range_rows import InStep, Rows, digests, named, without
from chalicelib.sync.runs import Lease, Record
from chalicelib.sync.unfinished_step import UnfinishedStep, prints
from chalicelib.sync.watches import NotWatched, Watches
from chalicelib.tables import (
    DIRECTIONS,
    FORMS,
    TO_DATABASE,
    Key,
    NotAsDeclared,
    Row,
    Table,
)

# In one transaction.
MAX_WRITTEN_ROWS = 500
# So many changed rows, or more, are written at once, and the whole table leaves the cache for them.
MIN_ROWS_AT_ONCE = 100


@dataclass
class _Edit:
    """What is done to the rows of a transaction. It may be done several times until one is
    committed: the last one counts."""

    table: Table
    values: Mapping[Key, Values]
    seen: Mapping[Key, str]
    conflicts: list[tuple[Key, Row | None, Row]] = field(default_factory=list)
    equal: list[Row] = field(default_factory=list)

    def __call__(self, locked: Sequence[Row]) -> Sequence[Row]:
        self.conflicts, self.equal = [], []
        # Of a table with write-behind counters a row has one column more.
        by_key = {row[0]: row[: len(self.table.columns)] for row in locked}
        digests = public_values.digests_by_key(
            self.table, [row for row in locked if self.seen.get(row[0])]
        )
        after = []
        for key, values in self.values.items():
            row = by_key.get(key)
            whole = public_values.over(self.table, key, values, row)
            if whole is None:
                continue
            if whole == row:
                self.equal.append(row)
                continue
            last = self.seen.get(key)
            if last and digests.get(key, "") != last:
                self.conflicts.append((key, row, whole))
            after.append(whole)
        return after


@dataclass(frozen=True)
class _StepClaim:
    """Lets rows follow their public keys only while the lease is held, and while they are
    `watched`; `recording` is committed with them."""

    lease: Lease
    recording: Sequence[Statement]
    watched: Statement | None = None

    def begin(self, transaction: Transaction) -> None:
        self.lease.begin(transaction)
        transaction.queue(*self.recording)

    def record(
        self, transaction: Transaction, change: Change, entries: Mapping[str, Sequence[Key]]
    ) -> None:
        """The generation is held by now, and who ends a watch waits for those that hold it."""
        if self.watched:
            transaction.queue_guard(self.watched, NotWatched)


class ToDatabase:
    """For one run."""

    def __init__(
        self,
        write_through: WriteThrough,
        public_side: PublicSide,
        watches: Watches,
        lease: Lease,
        record: Record,
        *,
        is_alone: bool,
    ) -> None:
        """`is_alone`: nobody else looks at rows of the table meanwhile."""
        self._write_through = write_through
        self._public_side = public_side
        self._watches = watches
        self._lease = lease
        self._record = record
        self._is_alone = is_alone

    def follow(
        self,
        table: Table,
        form: str,
        rows: Rows,
        seen: Mapping[Key, str],
        now: InStep,
        step: UnfinishedStep,
    ) -> None:
        values_shown = self._public_side.shown(table, form, TO_DATABASE, rows, now)
        puts: list[PublicRow] = []
        edits: dict[Key, Values] = {}
        wholes: list[Row] = []
        differing = {
            key: found
            for key, found in now.found.items()
            if found is None or found != values_shown.get(key)
        }
        now.seen |= digests(rows, without(differing, now.found))
        untouched, touched = step.compare(now.found)
        now.seen |= dict.fromkeys(touched & differing.keys(), "")
        seen = {**without(touched, {**seen})} if touched else seen
        for key in untouched & differing.keys():
            row = rows.row(table, key)
            if row is None or key in values_shown:
                puts.append(PublicRow(key, row, fingerprint(differing[key])))
        differing = without(untouched, differing)
        if len(differing) >= MIN_ROWS_AT_ONCE:
            done = self._write_at_once(table, form, rows, differing, seen, now, step)
            differing = without(done, differing)
        for key, found in differing.items():
            row = rows.row(table, key)
            try:
                values = public_values.parse(table, key, found)
            except NotARow as error:
                self._record.report(TO_DATABASE, table.public_key(form, key), str(error))
                continue
            if values is None:
                now.seen[key] = ""
                if key in values_shown:
                    puts.append(PublicRow(key, row, fingerprint(None)))
                continue
            # Write-behind counters follow the row. But until a client changes the public key, it
            # shows them as they were.
            is_whole, held = public_values.is_whole(table, values), values
            if row is not None and table.write_behind:
                values = public_values.without_write_behind(table, values)
            whole = public_values.over(table, key, values, row)
            shown = public_values.over(table, key, held, row)
            if whole is None or shown is None:
                self._report_partial(table, form, key)
                continue
            if shown == row and is_whole:
                now.seen[key] = public_values.digest(table, row)
            elif whole == row:
                if key in values_shown:
                    puts.append(PublicRow(key, row, fingerprint(found)))
            else:
                edits[key] = values
                if is_whole and seen.get(key):
                    wholes.append(shown)
        for key, digest in public_values.digests_by_key(table, wholes).items():
            if digest == seen[key]:  # only the row was changed
                del edits[key]
                row = rows.row(table, key)
                if row is None or key in values_shown:
                    puts.append(PublicRow(key, row, fingerprint(now.found[key])))
        changing = [*[put.key for put in puts], *edits]
        still = set(self._watches.still(table, form, TO_DATABASE, changing))
        puts = [put for put in puts if put.key in still]
        items = [(key, values) for key, values in edits.items() if key in still]
        for start in range(0, len(items), MAX_WRITTEN_ROWS):
            batch = dict(items[start : start + MAX_WRITTEN_ROWS])
            puts += self._write(table, form, batch, seen, now, step)
        if items and puts:  # to write them may have taken long
            rows = replace(rows, until=self._public_side.deadline())
        puts = [*self._public_side.with_values(table, form, puts)]
        if puts:
            before = prints({put.key: now.found[put.key] for put in puts})
            after = prints({put.key: put.value for put in puts})
            self._lease.run(*step.recording(before, after))
        not_set = self._public_side.put(table, form, TO_DATABASE, rows, puts, now)
        put_rows = [put.row for put in puts if put.row is not None]
        put_digests = public_values.digests_by_key(table, put_rows)
        for put in puts:
            if put.key not in not_set:
                now.seen[put.key] = put_digests.get(put.key, "")

    def _write_at_once(
        self,
        table: Table,
        form: str,
        rows: Rows,
        differing: Mapping[Key, Found],
        seen: Mapping[Key, str],
        now: InStep,
        step: UnfinishedStep,
    ) -> Collection[Key]:
        """Write rows that are whole under their public keys in one transaction, where these are
        many. The keys of those that are in step then; the others were left as they are."""
        if table.write_behind:
            return ()
        after, columns = plain_rows(table, rows.texts, differing)
        digests = dict(zip(after, public_values.digests(after.values())))
        equal = {key: digests[key] for key, text in after.items() if text == rows.texts[key]}
        now.seen |= equal
        changed = [
            key for key, digest in digests.items() if key not in equal and digest != seen.get(key)
        ]
        keys = sorted(self._watches.still(table, form, TO_DATABASE, changed))
        if len(keys) < MIN_ROWS_AT_ONCE:
            return equal
        before = {key: rows.texts[key] for key in keys}
        if keys != [*after]:
            after, columns = plain_rows(table, before, {k: after[k] for k in keys})
            digests = {key: digests[key] for key in keys}
        watched = self._watches.guard(table, form, TO_DATABASE, keys)
        claim = _StepClaim(self._lease, step.keeping(digests), watched)
        try:
            self._write_through.replace_many(table, before, columns, claim)
        except (NotAtOnce, NotWatched):
            return equal
        step.keeps(digests)
        known = zip(keys, public_values.digests(before.values())) if seen else ()
        conflicts = [
            (key, table.decode(before[key]), table.decode(after[key]))
            for key, digest in known
            if seen.get(key, digest) not in ("", digest)
        ]
        self._tell_written(table, form, keys, conflicts, now)
        now.seen |= digests
        return equal.keys() | digests.keys()

    def _report_partial(self, table: Table, form: str, key: Key) -> None:
        reason = f"{table.name} has no such row, and not all columns are given"
        self._record.report(TO_DATABASE, table.public_key(form, key), reason)

    def _write(
        self,
        table: Table,
        form: str,
        values: Mapping[Key, Values],
        seen: Mapping[Key, str],
        now: InStep,
        step: UnfinishedStep,
    ) -> list[PublicRow]:
        """Write these values to their rows, in one transaction. What is to be put under public keys
        after that. Where the database rejects a row, the others are written without it."""
        edit = _Edit(table, values, seen)
        stood = prints({key: now.found[key] for key in values})
        watched = self._watches.guard(table, form, TO_DATABASE, list(values))
        claim = _StepClaim(self._lease, step.recording(stood), watched)
        work = Work(keys=list(values), edit=edit, claim=claim, is_of_sync=True)
        try:
            change = self._write_through.change(table, work, store=True)
        except NotWatched:
            still = self._watches.still(table, form, TO_DATABASE, list(values))
            if len(still) == len(values) == 1:  # the next run looks again
                now.is_known = False
                return []
            middle = len(still) // 2 if len(still) == len(values) else len(still)
            halves = [{k: values[k] for k in half} for half in (still[:middle], still[middle:])]
            return [
                put
                for half in halves
                if half
                for put in self._write(table, form, half, seen, now, step)
            ]
        except (BadRequest, NotAsDeclared) as error:
            keys = list(values)
            if len(keys) == 1:
                self._record.report(TO_DATABASE, table.public_key(form, keys[0]), str(error))
                return []
            middle = len(keys) // 2
            return [
                put
                for half in (keys[:middle], keys[middle:])
                for put in self._write(table, form, {k: values[k] for k in half}, seen, now, step)
            ]
        step.recorded(stood)
        self._tell_written(table, form, [row[0] for row in change.after], edit.conflicts, now)
        for key in values.keys() - {row[0] for row in (*change.after, *edit.equal)}:
            self._report_partial(table, form, key)
        puts = []
        written = (*change.after, *edit.equal)
        now.seen |= public_values.digests_by_key(table, written)
        for row in written:
            own = values[row[0]]
            is_whole = public_values.is_whole(table, own)
            if not is_whole or public_values.over(table, row[0], own, row) != row:
                puts.append(PublicRow(row[0], row, fingerprint(now.found[row[0]])))
        return puts

    def _tell_written(
        self,
        table: Table,
        form: str,
        keys: Sequence[Key],
        conflicts: Sequence[tuple[Key, Row | None, Row]],
        now: InStep,
    ) -> None:
        """The rows with these keys follow their public keys now. `conflicts`: where both were
        changed, the row as it was, and as it is."""
        for key, row, whole in conflicts:
            self._record.report(
                TO_DATABASE,
                table.public_key(form, key),
                "both were changed: the value in Redis counts",
                database=named(table, row),
                redis=named(table, whole),
            )
        now.written |= {*keys}
        for other, direction in self._looked_at_before(form):
            # Its public keys follow these rows with the next run.
            if self._watches.still(table, other, direction, keys):
                now.is_known = False
        self._record.tallies[TO_DATABASE].changed += len(keys)
        self._public_side.tell(table, form, keys, "from Redis to Database")

    def _looked_at_before(self, form: str) -> list[tuple[str, str]]:
        """Other forms and directions of watches that may have been looked at before rows follow
        public keys of this `form`."""
        if self._is_alone:
            return [(other, TO_DATABASE) for other in FORMS[: FORMS.index(form)]]
        others = [other for other in FORMS if other != form]
        return list(itertools.product(others, DIRECTIONS))
