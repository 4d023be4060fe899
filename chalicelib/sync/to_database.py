"""The rows follow their public keys."""

import itertools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from chalicelib.cache import Found, PublicRow, fingerprint
from chalicelib.db import Change, Statement, Transaction
from chalicelib.errors import BadRequest, NotAtOnce, TooLarge
from chalicelib.rows import Work, WriteThrough
from chalicelib.sync import public_values
from chalicelib.sync.plain_rows import plain_rows
from chalicelib.sync.public_side import PublicSide
from chalicelib.sync.public_values import NotARow, Values
from chalicelib.sync.runs import Lease, Record
from chalicelib.sync.step import Step, digests, named, without
from chalicelib.sync.unfinished_step import prints
from chalicelib.sync.watches import Watches
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
    """Lets rows follow their public keys only while the lease is held, and no watch has turned;
    `recording` is committed with them."""

    lease: Lease
    turns: int
    recording: Sequence[Statement]

    def begin(self, transaction: Transaction) -> None:
        self.lease.begin(transaction, self.turns)
        transaction.queue(*self.recording)

    def record(
        self, transaction: Transaction, change: Change, entries: Mapping[str, Sequence[Key]]
    ) -> None:
        """Nothing."""


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

    def follow(self, step: Step) -> None:
        shown = self._public_side.shown(step)
        differing = self._differing(step, shown)
        untouched, touched = step.unfinished.compare(step.now.found)
        step.now.seen |= dict.fromkeys(touched & differing.keys(), "")
        if touched:
            step.seen = without(touched, {**step.seen})
        again = [*untouched & differing.keys()]
        differing = without(untouched, differing)
        if len(differing) >= MIN_ROWS_AT_ONCE:
            differing = without(self._write_at_once(step, differing), differing)
        edits = self._edits(step, differing, again)
        puts = [
            PublicRow(key, step.row(key), fingerprint(step.now.found[key]))
            for key in again
            if key in shown or step.row(key) is None
        ]
        items = [*edits.items()]
        for start in range(0, len(items), MAX_WRITTEN_ROWS):
            puts += self._write(step, dict(items[start : start + MAX_WRITTEN_ROWS]))
        if items and puts:  # to write them may have taken long
            step.rows = replace(step.rows, until=self._public_side.deadline())
        self._put(step, puts)

    def _differing(self, step: Step, shown: Mapping[Key, Found]) -> dict[Key, Found]:
        """What stands under the public keys that do not show their rows, or nothing. The others
        are in step."""
        now = step.now
        differing = {
            key: found
            for key, found in now.found.items()
            if found is None or found != shown.get(key)
        }
        now.seen |= digests(step.rows, without(differing, now.found))
        return differing

    def _edits(
        self, step: Step, differing: Mapping[Key, Found], again: list[Key]
    ) -> dict[Key, Values]:
        """The values that rows are to follow. Appends to `again` the keys of the rows that are to
        be put under their public keys again."""
        table, now = step.table, step.now
        edits: dict[Key, Values] = {}
        wholes: list[Row] = []
        for key, found in differing.items():
            row = step.row(key)
            try:
                values = public_values.parse(table, key, found)
            except NotARow as error:
                self._record.report(TO_DATABASE, step.public_key(key), str(error))
                continue
            if values is None:
                now.seen[key] = ""
                if row is not None:
                    again.append(key)
                continue
            # Write-behind counters follow the row. But until a client changes the public key, it
            # shows them as they were.
            is_whole, held = public_values.is_whole(table, values), values
            if row is not None and table.write_behind:
                values = public_values.without_write_behind(table, values)
            whole = public_values.over(table, key, values, row)
            shown = public_values.over(table, key, held, row)
            if whole is None or shown is None:
                self._report_partial(step, key)
            elif shown == row and is_whole:
                now.seen[key] = public_values.digest(table, row)
            elif whole == row:
                again.append(key)
            else:
                edits[key] = values
                if is_whole and step.seen.get(key):
                    wholes.append(shown)
        for key, digest in public_values.digests_by_key(table, wholes).items():
            if digest == step.seen[key]:  # only the row was changed
                del edits[key]
                again.append(key)
        return edits

    def _put(self, step: Step, puts: Sequence[PublicRow]) -> None:
        """Set public keys to these rows."""
        puts = self._public_side.with_values(step, puts)
        if puts:
            before = prints({put.key: step.now.found[put.key] for put in puts})
            after = prints({put.key: put.value for put in puts})
            self._lease.run(*step.unfinished.recording(before, after), turns=step.turns)
        not_set = self._public_side.put(step, puts)
        put_rows = [put.row for put in puts if put.row is not None]
        put_digests = public_values.digests_by_key(step.table, put_rows)
        for put in puts:
            if put.key not in not_set:
                step.now.seen[put.key] = put_digests.get(put.key, "")

    def _write_at_once(self, step: Step, differing: Mapping[Key, Found]) -> Collection[Key]:
        """Write rows that are whole under their public keys in one transaction, where these are
        many. The keys of those that are in step then; the others were left as they are."""
        table, seen, texts = step.table, step.seen, step.rows.texts
        if table.write_behind:
            return ()
        after, columns = plain_rows(table, texts, differing)
        digests = dict(zip(after, public_values.digests(after.values())))
        equal = {key: digests[key] for key, text in after.items() if text == texts[key]}
        step.now.seen |= equal
        changed = [
            key for key, digest in digests.items() if key not in equal and digest != seen.get(key)
        ]
        keys = sorted(changed)
        if len(keys) < MIN_ROWS_AT_ONCE:
            return equal
        before = {key: texts[key] for key in keys}
        if keys != [*after]:
            after, columns = plain_rows(table, before, {k: after[k] for k in keys})
            digests = {key: digests[key] for key in keys}
        claim = _StepClaim(self._lease, step.turns, step.unfinished.keeping(digests))
        try:
            self._write_through.replace_many(table, before, columns, claim)
        except NotAtOnce:
            return equal
        step.unfinished.keeps(digests)
        known = zip(keys, public_values.digests(before.values())) if seen else ()
        conflicts = [
            (key, table.decode(before[key]), table.decode(after[key]))
            for key, digest in known
            if seen.get(key, digest) not in ("", digest)
        ]
        self._tell_written(step, keys, conflicts)
        step.now.seen |= digests
        return equal.keys() | digests.keys()

    def _write(self, step: Step, values: Mapping[Key, Values]) -> list[PublicRow]:
        """Write these values to their rows, in one transaction. What is to be put under public keys
        after that. Where the database rejects a row, the others are written without it."""
        table, now = step.table, step.now
        keys = [*values]
        edit = _Edit(table, values, step.seen)
        stood = prints({key: now.found[key] for key in keys})
        claim = _StepClaim(self._lease, step.turns, step.unfinished.recording(stood))
        work = Work(keys=keys, edit=edit, claim=claim, is_of_sync=True)
        try:
            change = self._write_through.change(table, work, store=True)
        except (BadRequest, NotAsDeclared, TooLarge) as error:
            if len(keys) == 1:
                self._record.report(TO_DATABASE, step.public_key(keys[0]), str(error))
                return []
            middle = len(keys) // 2
            return [
                put
                for part in (keys[:middle], keys[middle:])
                for put in self._write(step, {key: values[key] for key in part})
            ]
        step.unfinished.recorded(stood)
        written = (*change.after, *edit.equal)
        self._tell_written(step, [row[0] for row in change.after], edit.conflicts)
        for key in values.keys() - {row[0] for row in written}:
            self._report_partial(step, key)
        now.seen |= public_values.digests_by_key(table, written)
        return [
            PublicRow(row[0], row, fingerprint(now.found[row[0]]))
            for row in written
            if not public_values.is_whole(table, values[row[0]])
            or public_values.over(table, row[0], values[row[0]], row) != row
        ]

    def _report_partial(self, step: Step, key: Key) -> None:
        reason = f"{step.table.name} has no such row, and not all columns are given"
        self._record.report(TO_DATABASE, step.public_key(key), reason)

    def _tell_written(
        self,
        step: Step,
        keys: Sequence[Key],
        conflicts: Sequence[tuple[Key, Row | None, Row]],
    ) -> None:
        """The rows with these keys follow their public keys now. `conflicts`: where both were
        changed, the row as it was, and as it is."""
        for key, row, whole in conflicts:
            self._record.report(
                TO_DATABASE,
                step.public_key(key),
                "both were changed: the value in Redis counts",
                database=named(step.table, row),
                redis=named(step.table, whole),
            )
        step.now.written |= {*keys}
        for other, direction in self._looked_at_before(step.form):
            # Its public keys follow these rows with the next run.
            if self._watches.is_any(step.table, other, direction, keys):
                step.now.is_known = False
        self._record.tallies[TO_DATABASE].changed += len(keys)
        self._public_side.tell(step, keys, "from Redis to Database")

    def _looked_at_before(self, form: str) -> list[tuple[str, str]]:
        """Other forms and directions of watches that may have been looked at before rows follow
        public keys of this `form`."""
        if self._is_alone:
            return [(other, TO_DATABASE) for other in FORMS[: FORMS.index(form)]]
        others = [other for other in FORMS if other != form]
        return list(itertools.product(others, DIRECTIONS))
