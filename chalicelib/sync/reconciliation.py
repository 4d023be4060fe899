"""Reconciliation: one range of watched rows is brought in step with its public keys.

For each row there are three things: the row R in the database, the value P under its public key,
and S, the row as both had it last. Where R and P differ, S tells which of them was changed. A range
may be done again at any time: what is in step already is left alone.
"""

import itertools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from chalicelib.cache import (
    ABSENT,
    ANY,
    Found,
    Garbage,
    PublicRow,
    PublicStore,
    fingerprint,
    public_forms,
)
from chalicelib.db import Database
from chalicelib.errors import BadRequest, NotAtOnce
from chalicelib.rows import Work, WriteThrough
from chalicelib.sync import public_values
from chalicelib.sync.public_values import NotARow, Values
from chalicelib.sync.runs import RANGE_SECONDS, Lease, Record, nobody
from chalicelib.sync.watches import Watches
from chalicelib.tables import (
    DIRECTIONS,
    FORMS,
    JSON,
    TO_CACHE,
    TO_DATABASE,
    Key,
    NotAsDeclared,
    Row,
    Table,
)

Value = TypeVar("Value")

# In one transaction.
MAX_WRITTEN_ROWS = 500
# So many changed rows, or more, are written at once, and the whole table leaves the cache for them.
MIN_ROWS_AT_ONCE = 100


@dataclass(frozen=True)
class Rows:
    """Rows as they were read, and when: `read_at` is a time before that, in microseconds of the
    database's clock. Public keys may be set until `until`, in microseconds of Redis's clock.
    `keys`: of these rows, in order. `texts`: their JSON; `odd`: the rows that JSON cannot show."""

    read_at: int
    until: int
    keys: Sequence[Key]
    texts: Mapping[Key, bytes]
    odd: Mapping[Key, Row]

    def row(self, table: Table, key: Key) -> Row | None:
        text = self.texts.get(key)
        return table.decode(text) if text else self.odd.get(key)


@dataclass
class InStep:
    """What a range has come to. `seen`: of each row the digest of what both sides have now; empty
    where there is none. `found`: what stands under the public keys, and stays there unless a client
    changes it. `is_known`: whether that is sure, and nothing is left to do. `written`: whose row
    was changed."""

    seen: dict[Key, str]
    found: dict[Key, Found]
    is_known: bool = True
    written: set[Key] = field(default_factory=set)


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


class Reconciliation:
    """For one run."""

    def __init__(
        self,
        database: Database,
        write_through: WriteThrough,
        store: PublicStore,
        watches: Watches,
        lease: Lease,
        record: Record,
        *,
        is_alone: bool = True,
    ) -> None:
        """`is_alone`: nobody else looks at rows of the table meanwhile."""
        self._database = database
        self._write_through = write_through
        self._store = store
        self._watches = watches
        self._lease = lease
        self._record = record
        self._is_alone = is_alone

    def read(self, table: Table, keys: Sequence[Key]) -> Rows:
        until = self._deadline()
        read_at, rows = self._database.fetch_dated(table, keys)
        return _rows(read_at, until, table, {row[0]: None for row in rows}, rows)

    def read_range(
        self, table: Table, after: Key | None, last: Key | None, max_rows: int
    ) -> tuple[Rows, bool]:
        """Rows behind the key `after` and up to the key `last`, in the order of their keys; and
        whether there may be more."""
        until = self._deadline()
        read_at, texts, is_more = self._database.fetch_range(table, after, last, max_rows)
        left = [key for key, text in texts.items() if text is None]
        rows = self._database.fetch_dated(table, left)[1] if left else ()
        return _rows(read_at, until, table, texts, rows), is_more

    def _deadline(self) -> int:
        """Until when public keys may be set. The lease is held until then: where it may be short
        it is renewed, after the deadline was asked for. Raises Superseded."""
        until = self._store.deadline(RANGE_SECONDS)
        if self._lease.is_due:
            self._lease.run()
        return until

    def reconcile(
        self,
        table: Table,
        form: str,
        direction: str,
        keys: Sequence[Key],
        rows: Rows,
        seen: Mapping[Key, str],
    ) -> InStep:
        """Raises Late, Superseded, CacheUnavailable, DatabaseUnavailable, OutcomeUnknown,
        SchemaMismatch."""
        found = dict(zip(keys, self._store.read_many(table, form, keys)))
        now = InStep({key: seen.get(key, "") for key in keys}, found)
        follow = self._follow_rows if direction == TO_CACHE else self._follow_public_keys
        follow(table, form, rows, seen, now)
        self._record.tallies[direction].looked += len(keys)
        self._record.progress(self._record)
        return now

    # --- the public keys follow the rows ----------------------------------------------------------

    def _follow_rows(
        self, table: Table, form: str, rows: Rows, seen: Mapping[Key, str], now: InStep
    ) -> None:
        wanted = self._shown(table, form, TO_CACHE, rows, now)
        differing = [
            key
            for key, found in now.found.items()
            if found != wanted.get(key) and key not in rows.odd
        ]
        stale = self._watches.still(table, form, TO_CACHE, differing)
        for key in stale if seen else ():
            if seen.get(key):
                row = rows.row(table, key)
                self._tell_conflict(table, form, key, row, seen, now.found[key])
        puts = [PublicRow(key, None, _instead_of(now.found[key]), wanted.get(key)) for key in stale]
        refused = self._put(table, form, TO_CACHE, rows, puts, now)
        left = refused.union(differing).difference(stale) | refused | rows.odd.keys()
        now.seen |= _digests(rows, [*_without(left, now.found)])

    def _tell_conflict(
        self,
        table: Table,
        form: str,
        key: Key,
        row: Row | None,
        seen: Mapping[Key, str],
        found: Found,
    ) -> None:
        """Both sides were changed: the row counts."""
        last = seen.get(key)
        if not last or found is None or public_values.digest(table, row) == last:
            return
        try:
            values = public_values.parse(table, key, found)
        except NotARow as error:
            other: object = str(error)
        else:
            assert values is not None
            whole = public_values.over(table, key, values, row)
            if public_values.digest(table, whole) == last:
                return
            other = _named(table, whole) or dict(values)
        self._record.report(
            TO_CACHE,
            table.public_key(form, key),
            "both were changed: the database's row counts",
            database=_named(table, row),
            redis=other,
        )

    # --- the rows follow the public keys ----------------------------------------------------------

    def _follow_public_keys(
        self, table: Table, form: str, rows: Rows, seen: Mapping[Key, str], now: InStep
    ) -> None:
        values_shown = self._shown(table, form, TO_DATABASE, rows, now)
        puts: list[PublicRow] = []
        edits: dict[Key, Values] = {}
        wholes: list[Row] = []
        differing = {
            key: found
            for key, found in now.found.items()
            if found is None or found != values_shown.get(key)
        }
        now.seen |= _digests(rows, [*_without(differing, now.found)])
        if len(differing) >= MIN_ROWS_AT_ONCE:
            done = self._write_at_once(table, form, rows, differing, seen, now)
            differing = _without(done, differing)
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
            if row is not None and table.write_behind:
                values = public_values.without_write_behind(table, values)
            whole = public_values.over(table, key, values, row)
            if whole is None:
                self._report_partial(table, form, key)
                continue
            is_whole = public_values.is_whole(table, values)
            if whole == row and is_whole:
                now.seen[key] = public_values.digest(table, row)
            elif whole == row:
                if key in values_shown:
                    puts.append(PublicRow(key, row, fingerprint(found)))
            else:
                edits[key] = values
                if is_whole and seen.get(key):
                    wholes.append(whole)
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
            puts += self._write(table, form, batch, seen, now)
        if items and puts:  # to write them may have taken long
            rows = replace(rows, until=self._deadline())
        refused = self._put(table, form, TO_DATABASE, rows, puts, now)
        put_rows = [put.row for put in puts if put.row is not None]
        put_digests = public_values.digests_by_key(table, put_rows)
        for put in puts:
            if put.key not in refused:
                now.seen[put.key] = put_digests.get(put.key, "")

    def _write_at_once(
        self,
        table: Table,
        form: str,
        rows: Rows,
        differing: Mapping[Key, Found],
        seen: Mapping[Key, str],
        now: InStep,
    ) -> Collection[Key]:
        """Write rows that are whole under their public keys in one transaction, where these are
        many. The keys of those that are in step then; the others were left as they are."""
        if table.write_behind:
            return ()
        wholes, after = public_values.plain_rows(table, differing)
        digests = dict(zip(after, public_values.digests(after.values())))
        equal = {key: digests[key] for key, text in after.items() if text == rows.texts.get(key)}
        now.seen |= equal
        changed = [
            key
            for key, digest in digests.items()
            # The database may write what needs an escape in another way.
            if key not in equal
            and digest != seen.get(key)
            and b"\\" not in rows.texts.get(key, b"\\")
        ]
        keys = sorted(self._watches.still(table, form, TO_DATABASE, changed))
        if len(keys) < MIN_ROWS_AT_ONCE:
            return equal
        before = [rows.texts[key] for key in keys]
        written = [wholes[key] for key in keys]
        try:
            self._write_through.replace_many(table, before, written, self._lease)
        except NotAtOnce:
            return equal
        known = zip(keys, before, public_values.digests(before)) if seen else ()
        conflicts = [
            (key, table.decode(text), wholes[key])
            for key, text, digest in known
            if seen.get(key, digest) not in ("", digest)
        ]
        self._tell_written(table, form, keys, conflicts, now)
        now.seen |= {key: digests[key] for key in keys}
        return equal.keys() | keys

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
    ) -> list[PublicRow]:
        """Write these values to their rows, in one transaction. What is to be put under public keys
        after that. Where the database rejects a row, the others are written without it."""
        edit = _Edit(table, values, seen)
        work = Work(keys=list(values), edit=edit, claim=self._lease, is_of_sync=True)
        try:
            change = self._write_through.change(table, work, store=True)
        except (BadRequest, NotAsDeclared) as error:
            keys = list(values)
            if len(keys) == 1:
                self._record.report(TO_DATABASE, table.public_key(form, keys[0]), str(error))
                return []
            middle = len(keys) // 2
            return [
                put
                for half in (keys[:middle], keys[middle:])
                for put in self._write(table, form, {k: values[k] for k in half}, seen, now)
            ]
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
                database=_named(table, row),
                redis=_named(table, whole),
            )
        now.written |= {*keys}
        for other, direction in self._looked_at_before(form):
            # Its public keys follow these rows with the next run.
            if self._watches.still(table, other, direction, keys):
                now.is_known = False
        self._record.tallies[TO_DATABASE].changed += len(keys)
        self._tell(table, form, keys, "from Redis to Database")

    def _looked_at_before(self, form: str) -> list[tuple[str, str]]:
        """Other forms and directions of watches that may have been looked at before rows follow
        public keys of this `form`."""
        if self._is_alone:
            return [(other, TO_DATABASE) for other in FORMS[: FORMS.index(form)]]
        others = [other for other in FORMS if other != form]
        return list(itertools.product(others, DIRECTIONS))

    # --- both -------------------------------------------------------------------------------------

    def _shown(
        self, table: Table, form: str, direction: str, rows: Rows, now: InStep
    ) -> Mapping[Key, Found]:
        """What the public keys of the rows hold. Rows that JSON cannot show are reported."""
        for key in now.found.keys() & rows.odd.keys():
            try:
                table.encode(rows.odd[key])
            except NotAsDeclared as error:
                self._record.report(direction, table.public_key(form, key), str(error))
        texts = rows.texts
        if len(texts) > len(now.found):
            texts = {key: texts[key] for key in now.found if key in texts}
        return (
            texts
            if form == JSON
            else dict(zip(texts, public_forms(table, form, [*texts.values()])))
        )

    def _put(
        self,
        table: Table,
        form: str,
        direction: str,
        rows: Rows,
        puts: Sequence[PublicRow],
        now: InStep,
    ) -> set[Key]:
        """Set public keys. The keys of the rows where something else was there."""
        if not puts:
            return set()
        done = self._store.set_many(table, form, puts, rows.read_at, rows.until)
        refused = {put.key for put, is_done in zip(puts, done) if not is_done}
        now.is_known = now.is_known and not refused
        unknown = [put.row for put in puts if put.row is not None]
        held = {put.key: put.value for put in puts}
        if unknown:
            values = public_forms(table, form, table.encode_many(unknown))
            held |= zip([row[0] for row in unknown], values)
        for key in refused:
            del held[key]
        now.found |= held
        changed = [key for key in held if key not in now.written]
        self._record.tallies[direction].changed += len(changed)
        self._tell(table, form, changed, "from Database to Redis")
        return refused

    def _tell(self, table: Table, form: str, keys: Sequence[Key], way: str) -> None:
        if self._record.tell is not nobody:
            for name in table.public_keys(form, keys):
                self._record.tell(f"Write {name} {way}")


def _rows(
    read_at: int,
    until: int,
    table: Table,
    texts: Mapping[Key, bytes | None],
    rows: Sequence[Row],
) -> Rows:
    """`rows`: those whose text is not known yet, as far as they are still there."""
    texts = {**texts, **table.encode_each(rows)} if rows else texts
    known = {key: text for key, text in texts.items() if text is not None}
    odd = {row[0]: row for row in rows if row[0] not in known}
    return Rows(read_at, until, [*texts], known, odd)


def _digests(rows: Rows, keys: Collection[Key]) -> dict[Key, str]:
    """Of the rows with these keys; empty where there is none."""
    texts = [rows.texts.get(key) for key in keys]
    return dict(zip(keys, public_values.digests(texts)))


def _without(keys: Collection[Key], values: dict[Key, Value]) -> dict[Key, Value]:
    return {key: value for key, value in values.items() if key not in keys} if keys else values


def _instead_of(found: Found) -> str:
    """What must still be there where this is replaced. Of garbage nothing is known."""
    if found is None:
        return ABSENT
    return ANY if isinstance(found, Garbage) else fingerprint(found)


def _named(table: Table, row: Row | None) -> object:
    return dict(zip([column.name for column in table.columns], row)) if row else None
