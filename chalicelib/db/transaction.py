"""One transaction: rows written, replaced and deleted, and what is committed with them.

A write costs two round trips: new rows are inserted, or other rows are locked and read; then what
is left is changed together with the COMMIT. New rows alone can be inserted and committed in one.
Where triggers may change rows, one more reads them back.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from chalicelib.db import cache_generation, statements
from chalicelib.db.cache_generation import Generation, generation_in
from chalicelib.db.fit import Fit
from chalicelib.db.given_keys import (
    MAX_KEY_GAP,
    check_distance,
    giving_keys,
    highest_allowed,
    no_key_left,
)
from chalicelib.db.mysql import Answer, Connection, MySQLError, is_guard_failed, is_value_rejected
from chalicelib.db.rejected import Writes, find_rejected
from chalicelib.db.statements import Statement
from chalicelib.errors import DatabaseUnavailable, HerocacheError, NotAtOnce, SchemaMismatch
from chalicelib.tables import NO_KEY, Column, Key, NotAsDeclared, Row, Table, shown


@dataclass(frozen=True)
class Change:
    """What a transaction did to a table: the rows as they were `before`, and as they are `after` in
    the order they were given; and the generation that it held. `new_keys` are those that the
    database gave: nobody else knows of these rows before the COMMIT."""

    generation: Generation
    before: Sequence[Row]
    after: Sequence[Row]
    new_keys: range = range(0)


@dataclass(frozen=True)
class Committed:
    """A COMMIT: no sooner than `read_at` and no later than `by`, in microseconds of the database's
    clock. `others`: the rows that were asked for as they were between these times."""

    read_at: int
    by: int
    others: Sequence[Sequence[Row]] = ()


class Transaction:
    """What may be done before COMMIT. Statements whose answers nobody needs yet wait in a queue and
    go with the next ones, in the same round trip. BEGIN goes with the first."""

    def __init__(self, connection: Connection, fit: Fit) -> None:
        self._connection = connection
        self._fit = fit
        self._queue: list[Statement] = [statements.START]
        self._writes: Writes | None = None
        self._guards: list[tuple[Statement, type[HerocacheError]]] = []
        self._committed_at = 0
        self.is_over = False

    def ensure_fit(self, table: Table) -> bool:
        """Before a change of the table: whether triggers may change rows before they are written.
        Raises SchemaMismatch."""
        return self._fit.ensure(self._connection, table)

    @property
    def has_begun(self) -> bool:
        """Whether the database has heard of it."""
        return self._queue[:1] != [statements.START]

    def switch_off(self, table: Table) -> None:
        """Take the cache of `table` out of use, together with the next change."""
        self._queue += [cache_generation.lock(table), cache_generation.switch_off(table)]

    def can_insert_at_once(self, table: Table) -> bool:
        """Whether `insert_and_commit` can tell the rows before it is done: no trigger changes them,
        and the keys follow each other."""
        is_plain = not self.ensure_fit(table)
        return is_plain and table.auto_key and self._connection.key_step == 1

    def insert_and_commit(
        self,
        table: Table,
        rows: Sequence[Row],
        held: Generation,
        shown: Mapping[Column, Sequence[Key]],
        max_rows: int,
        until: int,
    ) -> tuple[Change, Committed]:
        """Insert rows with NO_KEY, which get the next keys, rising in the order of `rows`, and
        COMMIT, where `held` is the generation: all in one piece. `Committed.others` as
        `commit_and_show` has them. Raises NotAtOnce where another generation is, where the rows are
        inserted after `until`, or where the keys would be too high; NoKeyLeft, RowRejected,
        OutcomeUnknown."""
        self._writes = Writes(table, rows, ((statements.insert_keyless, rows),))
        own, highest = len(rows), highest_allowed(table.key)
        try:
            with giving_keys(table, is_giving=True):
                _, now, inserted, _, *others = self._commit(
                    cache_generation.guard(table, held.number),
                    statements.insert_keyless(table, rows),
                    statements.guard_new_keys(own, highest, until),
                    *[
                        statements.others_than_new(table, c, v, own, max_rows)
                        for c, v in shown.items()
                    ],
                )
        except MySQLError as error:
            if is_guard_failed(error) and self._connection.answered in (1, 3):
                raise NotAtOnce from error
            raise
        [(read_at,)] = now.rows
        new_keys = range(inserted.first_key, inserted.first_key + own)
        change = Change(held, (), _with_keys(rows, new_keys), new_keys)
        rows_of_others = [answer.rows for answer in others]
        return change, Committed(read_at, self._committed_at, rows_of_others)

    def insert(self, table: Table, rows: Sequence[Row]) -> Change:
        """Insert rows with NO_KEY, which get the next keys, rising in the order of `rows`. Where
        triggers may change them `after` is read back from the table."""
        self.ensure_fit(table)
        self._writes = Writes(table, rows, ((statements.insert_keyless, rows),))
        with giving_keys(table, is_giving=True), self._telling_rejected():
            found, inserted = self.run(
                cache_generation.hold(table), statements.insert_keyless(table, rows)
            )
            held = generation_in(table, found.rows, self._connection.sent_at)
        new_keys = self._new_keys(table, inserted, len(rows))
        return Change(held, (), self._stored(table, rows, new_keys), new_keys)

    def write_many(self, table: Table, rows: Sequence[Row]) -> Change:
        """Insert each row, or put it in the place of the row that has its key; rows with NO_KEY
        get the next keys, rising in the order of `rows`. At least one row has a key. Rows with
        keys are written first, so that no new row is given a key which another row brings along.
        Where every row has a key the change goes with the next statements, unless triggers may
        change rows: then `after` is read back from the table."""
        self.ensure_fit(table)
        keyed = sorted(row for row in rows if row[0] != NO_KEY)
        keyless = [row for row in rows if row[0] == NO_KEY]
        generation, before = self._lock(table, [row[0] for row in keyed])
        existing = {row[0] for row in before}
        replaced = [row for row in keyed if row[0] in existing]
        added = [row for row in keyed if row[0] not in existing]
        groups = (
            (statements.replace, replaced),
            (statements.insert, added),
            (statements.insert_keyless, keyless),
        )
        self._writes = Writes(table, rows, groups)
        self._queue += [make(table, group) for make, group in groups[:2] if group]
        new_keys = range(0)
        if keyless:
            with giving_keys(table, is_giving=True), self._telling_rejected():
                [inserted] = self.run(statements.insert_keyless(table, keyless))
            new_keys = self._new_keys(table, inserted, len(keyless))
        return Change(generation, before, self._stored(table, rows, new_keys), new_keys)

    def _new_keys(self, table: Table, inserted: Answer, count: int) -> range:
        """InnoDB numbers the rows of one plain multi-row INSERT without gaps, in every
        innodb_autoinc_lock_mode: the first key tells them all. Raises NoKeyLeft where requests do
        not take one of them."""
        first_key, step = inserted.first_key, self._connection.key_step
        new_keys = range(first_key, first_key + count * step, step)
        if new_keys[-1] > highest_allowed(table.key):
            raise no_key_left(table)
        return new_keys

    def refuse_far_keys(self, table: Table, keys: Sequence[Key]) -> None:
        """Raises KeyTooFar where one of `keys`, given to a new row, would use up those that the
        database gives: it goes on from the highest one there ever was. One SELECT where one is
        that high, else none."""
        key = max(keys, default=NO_KEY)
        if table.auto_key and isinstance(key, int) and key > MAX_KEY_GAP:
            check_distance(table, key, self.highest_key(table))

    def highest_key(self, table: Table) -> int:
        """0 where the table is empty. One SELECT."""
        [answer] = self.run(statements.highest_key(table))
        return answer.rows[0][0] or 0

    def rows_of(self, table: Table, keys: Sequence[Key]) -> Sequence[Row]:
        """The rows with these keys, in any order. One SELECT."""
        [answer] = self.run(statements.rows_of_keys(table, keys))
        return answer.rows

    def delete_many(self, table: Table, keys: Sequence[Key]) -> Change:
        """Delete the rows with these keys, with the next statements; `before` holds those that
        existed."""
        self.ensure_fit(table)
        generation, before = self._lock(table, sorted(keys))
        if before:
            present = {row[0] for row in before}
            existing = [key for key in sorted(set(keys)) if key in present]
            self._writes = Writes(table, keys, ((statements.delete, existing),))
            self._queue.append(statements.delete(table, existing))
        return Change(generation, before, ())

    def end(self, table: Table) -> Generation:
        """COMMIT what is left to do. The generation that holds."""
        *_, held = self._commit(cache_generation.hold(table))
        return generation_in(table, held.rows, self._connection.sent_at)

    def load(self, statement: Statement, pieces: Iterable[bytes]) -> None:
        """Run a LOAD DATA LOCAL of these pieces. Raises whatever `pieces` raises."""
        if self._queue:
            self.run()
        self._connection.load(statement, pieces)

    def raise_generation(self, table: Table) -> Generation:
        """Let no reader believe an entry of the table once this is committed. Waits for every
        writer that holds the generation, so it comes last."""
        *_, generation = self.run(
            cache_generation.lock(table),
            cache_generation.raise_number(table),
            cache_generation.hold(table),
        )
        return generation_in(table, generation.rows, self._connection.sent_at)

    def queue(self, *statements: Statement) -> None:
        """Run these with the next statements that somebody waits for."""
        self._queue += statements

    def queue_guard(self, statement: Statement, error: type[HerocacheError]) -> None:
        """As `queue`. Where the database says that what `statement` guards does not hold, nothing
        behind it is run, and `error` is raised."""
        self._guards.append((statement, error))
        self._queue.append(statement)

    def wait_at_most(self, seconds: float) -> None:
        """For each answer from here on."""
        self._connection.wait_at_most(seconds)

    def run(self, *statements: Statement) -> list[Answer]:
        """The answers to `statements`: one round trip."""
        queue, self._queue = self._queue, []
        with self._telling_guards(queue):
            return self._connection.batch([*queue, *statements])[len(queue) :]

    def commit(self) -> None:
        """COMMIT, and what is left to do before it."""
        self._commit()

    def commit_and_show(
        self,
        table: Table,
        values: Mapping[Column, Sequence[Key]],
        keys: Sequence[Key],
        max_rows: int,
        until: int,
    ) -> Committed:
        """`commit`, and for each column of `values` the rows with one of them as they are just
        before: `max_rows` at the most, and none of those with `keys`. Raises DatabaseUnavailable
        where the rows are changed after `until`."""
        # Behind the changes: whoever waits for the rows' locks from here on waits for the COMMIT.
        place = len(self._queue)
        self.queue(statements.guard_time(until))
        shown = [
            statements.others(table, column, own, keys, max_rows) for column, own in values.items()
        ]
        try:
            now, *answers = self._commit(*shown)[place:]
        except MySQLError as error:
            if is_guard_failed(error) and self._connection.answered == place:
                raise DatabaseUnavailable(
                    "the database came to the COMMIT too late; nothing was written"
                ) from error
            raise
        [(read_at,)] = now.rows
        return Committed(read_at, self._committed_at, [answer.rows for answer in answers])

    def _commit(self, *statements: Statement) -> list[Answer]:
        """The answers to what was left to do, and to `statements`."""
        queue, self._queue = self._queue, []
        with self._telling_rejected(), self._telling_guards(queue):
            answers, self._committed_at = self._connection.batch_and_commit([*queue, *statements])
        self.is_over = True
        return answers

    @contextmanager
    def _telling_guards(self, queue: Sequence[Statement]) -> Iterator[None]:
        """For statements that begin with `queue`: where a guard in it fails, raises its error."""
        try:
            yield
        except MySQLError as error:
            failed = queue[self._connection.answered :][:1]
            for guard, own_error in self._guards:
                if is_guard_failed(error) and failed == [guard]:
                    raise own_error from error
            raise

    @contextmanager
    def _telling_rejected(self) -> Iterator[None]:
        """For the statements with the writes that are left to do. Raises RowRejected where the
        database rejects a row for its values; the transaction is of no more use then."""
        writes, self._writes = self._writes, None
        try:
            yield
        except MySQLError as error:
            if writes is None or not is_value_rejected(error):
                raise
            if found := find_rejected(self.run, writes):
                raise found from error
            raise  # what was in its way has gone meanwhile

    def _stored(self, table: Table, rows: Sequence[Row], new_keys: range) -> Sequence[Row]:
        """The rows as they are in the table, once what is left to do is done. One SELECT where
        triggers may change rows, else nothing."""
        rows = _with_keys(rows, new_keys)
        if not self.ensure_fit(table):
            return rows
        keys = [row[0] for row in rows]
        with self._telling_rejected():
            stored = {row[0]: row for row in self.rows_of(table, keys)}
        lost = [key for key in keys if key not in stored]
        if lost:
            raise SchemaMismatch(
                f"{table.name} has a trigger that changes {table.key.name}: after the write no row"
                f" has the {table.key.name} {shown(lost[0])}, so nothing was written. No BEFORE"
                f" trigger may set NEW.{table.key.name}"
            )
        return [stored[key] for key in keys]

    def _lock(self, table: Table, keys: Sequence[Key]) -> tuple[Generation, Sequence[Row]]:
        """Hold the generation and the rows with `keys`, which are in key order so that two
        writers never wait for each other. A key that has no row cannot be held: its INSERT fails
        where another writer was faster, and the transaction runs again."""
        *_, generation, rows = self.run(cache_generation.hold(table), statements.lock(table, keys))
        asked = set(keys)
        for key in [row[0] for row in rows.rows if row[0] not in asked]:
            raise NotAsDeclared(
                f"{table.name}.{table.key.name} holds {shown(key)}, which the database takes for"
                f" another {table.key.name} that the request names; nothing was written. Two keys"
                " must differ in more than upper and lower case and spaces at the end"
            )
        return generation_in(table, generation.rows, self._connection.sent_at), rows.rows


def _with_keys(rows: Sequence[Row], new_keys: range) -> list[Row]:
    next_key = iter(new_keys)
    return [row if row[0] != NO_KEY else (next(next_key), *row[1:]) for row in rows]
