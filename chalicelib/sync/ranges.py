"""One range of watched rows is brought in step with its public keys.

For each row there are three things: the row R in the database, the value P under its public key,
and S, the row as both had it last. Where R and P differ, S tells which of them was changed. A range
may be done again at any time: what is in step already is left alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from chalicelib.cache import (
    ANY,
    Found,
    Garbage,
    PublicRow,
    PublicStore,
    encoded,
    fingerprint,
)
from chalicelib.db import Database
from chalicelib.errors import BadRequest
from chalicelib.rows import Work, WriteThrough
from chalicelib.sync import public_values
from chalicelib.sync.public_values import NotARow, Values
from chalicelib.sync.runs import RANGE_SECONDS, Lease, Record
from chalicelib.sync.watches import Watches
from chalicelib.tables import FORMS, TO_CACHE, TO_DATABASE, Key, NotAsDeclared, Row, Table

# In one transaction.
MAX_WRITTEN_ROWS = 500


@dataclass(frozen=True)
class Rows:
    """Rows as they were read, and when: `read_at` is a time before that, in microseconds of the
    database's clock. Public keys may be set until `until`, in microseconds of Redis's clock."""

    read_at: int
    until: int
    by_key: Mapping[Key, Row]


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
        by_key = {row[0]: row for row in locked}
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
            if last and public_values.digest(self.table, row) != last:
                self.conflicts.append((key, row, whole))
            after.append(whole)
        return after


class Ranges:
    """For one run."""

    def __init__(
        self,
        database: Database,
        write_through: WriteThrough,
        store: PublicStore,
        watches: Watches,
        lease: Lease,
        record: Record,
    ) -> None:
        self._database = database
        self._write_through = write_through
        self._store = store
        self._watches = watches
        self._lease = lease
        self._record = record

    def read(self, table: Table, keys: Sequence[Key]) -> Rows:
        until = self._deadline()
        read_at, rows = self._database.fetch_dated(table, keys)
        return Rows(read_at, until, {row[0]: row for row in rows})

    def read_range(
        self, table: Table, after: Key | None, last: Key | None, max_rows: int
    ) -> tuple[Rows, bool]:
        """Rows behind the key `after` and up to the key `last`, in the order of their keys; and
        whether there may be more."""
        until = self._deadline()
        read_at, rows, is_more = self._database.fetch_range(table, after, last, max_rows)
        return Rows(read_at, until, {row[0]: row for row in rows}), is_more

    def _deadline(self) -> int:
        """Until when public keys may be set. The lease is held until then: where it may be short
        it is renewed, after the deadline was asked for. Raises Superseded."""
        until = self._store.deadline(RANGE_SECONDS)
        if self._lease.is_due:
            self._lease.run()
        return until

    def bring_in_step(
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
        present = self._as_declared(table, form, TO_CACHE, rows, now)
        wanted: dict[Key, Found] = dict.fromkeys(now.found)
        wanted |= zip(present, encoded(table, form, [*present.values()]))
        digests = dict.fromkeys(now.found, "")
        digests |= zip(present, public_values.digests(table, [*present.values()]))
        for key in rows.by_key.keys() - present.keys():
            wanted.pop(key, None)
        differing = [key for key, want in wanted.items() if now.found[key] != want]
        stale = self._watches.still(table, form, TO_CACHE, differing)
        for key in stale:
            self._tell_conflict(table, form, key, present.get(key), seen, now.found[key])
        puts = [PublicRow(key, present.get(key), _instead_of(now.found[key])) for key in stale]
        refused = self._put(table, form, TO_CACHE, rows, puts, now)
        left = refused | (set(differing) - set(stale))
        now.seen |= {key: digests[key] for key in wanted if key not in left}

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
        present = self._as_declared(table, form, TO_DATABASE, rows, now)
        puts: list[PublicRow] = []
        edits: dict[Key, Values] = {}
        for key, found in now.found.items():
            row, last = present.get(key, rows.by_key.get(key)), seen.get(key, "")
            try:
                values = public_values.parse(table, key, found)
            except NotARow as error:
                self._record.report(TO_DATABASE, table.public_key(form, key), str(error))
                continue
            if values is None:
                now.seen[key] = ""
                if key in present:
                    puts.append(PublicRow(key, row, fingerprint(None)))
                continue
            whole = public_values.over(table, key, values, row)
            if whole is None:
                self._report_partial(table, form, key)
                continue
            is_whole = public_values.is_whole(table, values)
            if whole == row and is_whole:
                now.seen[key] = public_values.digest(table, row)
            elif whole == row or (is_whole and last == public_values.digest(table, whole)):
                if row is None or key in present:
                    puts.append(PublicRow(key, row, fingerprint(found)))
            else:
                edits[key] = values
        changing = [*[put.key for put in puts], *edits]
        still = set(self._watches.still(table, form, TO_DATABASE, changing))
        puts = [put for put in puts if put.key in still]
        items = [(key, values) for key, values in edits.items() if key in still]
        for start in range(0, len(items), MAX_WRITTEN_ROWS):
            piece = dict(items[start : start + MAX_WRITTEN_ROWS])
            puts += self._write(table, form, piece, seen, now)
        if items and puts:  # to write them may have taken long
            rows = replace(rows, until=self._deadline())
        refused = self._put(table, form, TO_DATABASE, rows, puts, now)
        for put in puts:
            if put.key not in refused:
                now.seen[put.key] = public_values.digest(table, put.row)

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
        for key, row, whole in edit.conflicts:
            self._record.report(
                TO_DATABASE,
                table.public_key(form, key),
                "both were changed: the value in Redis counts",
                database=_named(table, row),
                redis=_named(table, whole),
            )
        now.written |= {row[0] for row in change.after}
        for other in FORMS[: FORMS.index(form)]:
            # It was looked at already: its public keys follow these rows with the next run.
            if self._watches.still(table, other, TO_DATABASE, [row[0] for row in change.after]):
                now.is_known = False
        self._record.tallies[TO_DATABASE].changed += len(change.after)
        for row in change.after:
            self._tell(table, form, row[0], "from Redis to Database")
        for key in values.keys() - {row[0] for row in (*change.after, *edit.equal)}:
            self._report_partial(table, form, key)
        puts = []
        for row in (*change.after, *edit.equal):
            now.seen[row[0]] = public_values.digest(table, row)
            own = values[row[0]]
            is_whole = public_values.is_whole(table, own)
            if not is_whole or public_values.over(table, row[0], own, row) != row:
                puts.append(PublicRow(row[0], row, fingerprint(now.found[row[0]])))
        return puts

    # --- both -------------------------------------------------------------------------------------

    def _as_declared(
        self, table: Table, form: str, direction: str, rows: Rows, now: InStep
    ) -> dict[Key, Row]:
        """The rows that JSON can show. The others are reported."""
        wanted = {key: rows.by_key[key] for key in now.found if key in rows.by_key}
        try:
            encoded(table, form, [*wanted.values()])
        except NotAsDeclared:
            pass
        else:
            return wanted
        good = {}
        for key, row in wanted.items():
            try:
                table.encode(row)
                good[key] = row
            except NotAsDeclared as error:
                self._record.report(direction, table.public_key(form, key), str(error))
        return good

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
        set_rows = [put.row for put in puts if put.row is not None]
        held = dict(zip([row[0] for row in set_rows], encoded(table, form, set_rows)))
        for put in puts:
            if put.key not in refused:
                now.found[put.key] = held.get(put.key)
                if put.key not in now.written:
                    self._record.tallies[direction].changed += 1
                    self._tell(table, form, put.key, "from Database to Redis")
        return refused

    def _tell(self, table: Table, form: str, key: Key, way: str) -> None:
        self._record.tell(f"Write {table.public_key(form, key)} {way}")


def _instead_of(found: Found) -> str:
    """What must still be there where this is replaced. Of garbage nothing is known."""
    return ANY if isinstance(found, Garbage) else fingerprint(found)


def _named(table: Table, row: Row | None) -> object:
    return dict(zip([column.name for column in table.columns], row)) if row else None
