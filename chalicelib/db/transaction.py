"""One transaction: rows written, replaced and deleted, and what is committed with them.

A write costs two round trips: new rows are inserted, or other rows are locked and read; then what
is left is changed together with the COMMIT. New rows alone can be inserted and committed in one.
Where triggers may change rows, one more reads them back.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from chalicelib.column_types import Integer
from chalicelib.db import applied_deltas, batches, cache_generation, statements
from chalicelib.db.auto_increment import (
    check_distance,
    giving_keys,
    highest_allowed,
    is_high,
    no_key_left,
)
from chalicelib.db.cache_generation import Generation, generation_in
from chalicelib.db.change_capture import MARK_OWN
from chalicelib.db.engine import Connection, Rows
from chalicelib.db.errors import DatabaseError, is_value_rejected
from chalicelib.db.rejected_row import Writes
from chalicelib.db.schema_check import SchemaCheck
from chalicelib.db.statement_queue import StatementQueue, came_too_late
from chalicelib.db.statements import Statement
from chalicelib.error_text import shown
from chalicelib.errors import NotAtOnce, SchemaMismatch
from chalicelib.tables import NO_KEY, Column, Key, NotAsDeclared, Row, Table


@dataclass(frozen=True)
class Change:
    """What a transaction did to a table: the rows as they were `before`, and as they are `after` in
    the order they were given; and the generation that it held. `new_keys` are those that the
    database gave: nobody else knows of these rows before the COMMIT."""

    generation: Generation
    before: Sequence[Row]
    after: Sequence[Row]
    new_keys: Collection[Key] = ()

    @property
    def inserts_only(self) -> bool:
        """Whether the database gave all keys."""
        return len(self.new_keys) == len(self.after) and not self.before


@dataclass(frozen=True)
class Committed:
    """A COMMIT: no sooner than `read_at` and no later than `by`, in microseconds of the database's
    clock. `others`: the rows that were asked for as they were between these times; None where there
    are more than were asked for. `watched`: which of the keys that were asked for are watched, with
    the form of their public key and whether it follows the row."""

    read_at: int
    by: int
    others: Sequence[Sequence[Row] | None] = ()
    watched: Sequence[tuple[str, str, str]] = ()


class Transaction(StatementQueue):
    """What may be done to rows before COMMIT."""

    def __init__(self, connection: Connection, schema_check: SchemaCheck) -> None:
        super().__init__(connection)
        self._schema_check = schema_check
        self._first_loaded_key = 0

    def ensure_fit(self, table: Table) -> bool:
        """Before a change of the table: whether triggers may change rows before they are written.
        Raises SchemaMismatch."""
        return self._schema_check.ensure(self._connection, table)

    def switch_off(self, table: Table) -> None:
        """Take the cache of `table` out of use, together with the next change."""
        self._queue += [cache_generation.lock(table), cache_generation.switch_off(table)]

    def can_insert_at_once(self, table: Table, rows: Sequence[Row]) -> bool:
        """Whether `send_insert` can tell the rows before it is done: no trigger changes them,
        and the keys follow each other, as those of one statement do."""
        is_plain = not self.ensure_fit(table)
        is_plain = is_plain and table.auto_key and self._connection.key_step == 1
        return is_plain and len(self._cut(rows)) == 1

    def send_insert(
        self,
        table: Table,
        rows: Sequence[Row],
        held: Generation,
        shown: Mapping[Column, Sequence[Key]],
        max_rows: int,
        until: int,
        is_timed: bool = True,
    ) -> Callable[[], tuple[Change, Committed]]:
        """Insert rows with NO_KEY, which get the next keys, rising in the order of `rows`, and
        COMMIT, where `held` is the generation, in one round trip. Returns at once what waits for
        it. `Committed.others` as `send_commit` has them; they are read before the INSERT, so that
        the new rows need not be passed over. Both raise NotAtOnce where another generation is,
        where the rows are inserted after `until`, or where the keys would be too high; NoKeyLeft,
        RowRejected, OutcomeUnknown."""
        self._writes = Writes(table, rows, ((self._each(statements.insert_keyless), rows),))
        own, highest = len(rows), highest_allowed(table.key)
        most = self._most_shown(table, max_rows)
        sent = self._send_commit(
            self._guard(cache_generation.guard(table, held.number), NotAtOnce),
            *[statements.others(table, c, v, (), most) for c, v in shown.items()],
            statements.insert_keyless(table, rows),
            self._guard(statements.guard_new_keys(own, highest, until), NotAtOnce),
            is_timed=is_timed,
        )

        def receive() -> tuple[Change, Committed]:
            with giving_keys(table, is_giving=True, is_held=self.holds_keys):
                answers, committed_at = self._receive_commit(sent)
            _, [(read_at,)], *others, _, [(first,)] = answers
            new_keys = range(first, first + own)
            told = replace(held, told_at=read_at, asked_at=self._connection.sent_at)
            change = Change(told, (), _with_keys(rows, new_keys), new_keys)
            return change, Committed(read_at, committed_at, _whole(others, most))

        return receive

    def insert(self, table: Table, rows: Sequence[Row]) -> Change:
        """Insert rows with NO_KEY, which get the next keys, rising in the order of `rows`. Where
        triggers may change them `after` is read back from the table."""
        self.ensure_fit(table)
        self._writes = Writes(table, rows, ((self._each(statements.insert_keyless), rows),))
        found, new_keys = self._insert_keyless(table, rows, cache_generation.hold(table))
        held = generation_in(table, found[0], self._connection.sent_at)
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
            (self._each(statements.replace), replaced),
            (self._each(statements.insert), added),
            (self._each(statements.insert_keyless), keyless),
        )
        self._writes = Writes(table, rows, groups)
        self._queue += [each for make, group in groups[:2] if group for each in make(table, group)]
        new_keys: Collection[Key] = ()
        if keyless:
            _, new_keys = self._insert_keyless(table, keyless)
        return Change(generation, before, self._stored(table, rows, new_keys), new_keys)

    def _insert_keyless(
        self, table: Table, rows: Sequence[Row], *before: Statement
    ) -> tuple[Sequence[Rows], Collection[Key]]:
        """The answers to `before`, and the keys of `rows` in their order. InnoDB numbers the rows
        of one plain multi-row INSERT without gaps, in every innodb_autoinc_lock_mode: the first key
        tells them all. Raises NoKeyLeft where requests do not take one of them."""
        cut = self._cut(rows)
        sent = [
            statement
            for batch in cut
            for statement in (statements.insert_keyless(table, batch), statements.FIRST_NEW_KEY)
        ]
        with giving_keys(table, is_giving=True, is_held=self.holds_keys), self._telling_rejected():
            answers = self.run(*before, *sent)
        step = self._connection.key_step
        new_keys: list[Key] = []
        for batch, [(first,)] in zip(cut, answers[len(before) + 1 :: 2]):
            new_keys += range(first, first + len(batch) * step, step)
        if new_keys and new_keys[-1] > highest_allowed(table.key):  # type: ignore[operator]
            raise no_key_left(table)
        return answers[: len(before)], dict.fromkeys(new_keys)

    def _cut(self, items: Sequence[Any]) -> list[Sequence[Any]]:
        return batches.cut_by_bytes(items, self._connection.max_statement_bytes)

    def _each(
        self, make: Callable[[Table, Sequence[Any]], Statement]
    ) -> Callable[[Table, Sequence[Any]], list[Statement]]:
        """`make` as often as one statement does not hold all items."""
        return lambda table, items: [make(table, batch) for batch in self._cut(items)]

    def _most_shown(self, table: Table, max_rows: int) -> int:
        """How many other rows of a lookup can be read."""
        most = batches.most_rows(self._connection, table)
        return min(most, max_rows) if most else max_rows

    def reject_far_keys(self, table: Table, keys: Sequence[Key]) -> None:
        """Raises KeyTooFar where one of `keys`, given to a new row, would use up those that the
        database gives: it goes on from the highest one there ever was. One SELECT where one is
        that high, else none."""
        key = max(keys, default=NO_KEY)
        if table.auto_key and isinstance(key, int) and is_high(table, key):
            check_distance(table, key, self.highest_key(table))

    def highest_key(self, table: Table) -> int:
        """0 where the table is empty. One SELECT."""
        [answer] = self.run(statements.highest_key(table))
        return answer[0][0] or 0

    def rows_of(self, table: Table, keys: Sequence[Key]) -> Sequence[Row]:
        """The rows with these keys, in any order. One SELECT."""
        cut = batches.cut(keys, batches.most_rows(self._connection, table))
        answers = self.run(*[statements.rows_of_keys(table, batch) for batch in cut])
        return [row for answer in answers for row in answer]

    def delete_many(self, table: Table, keys: Sequence[Key]) -> Change:
        """Delete the rows with these keys, with the next statements; `before` holds those that
        existed."""
        self.ensure_fit(table)
        generation, before = self._lock(table, sorted(keys))
        if before:
            present = {row[0] for row in before}
            existing = [key for key in sorted(set(keys)) if key in present]
            make = self._each(statements.delete)
            self._writes = Writes(table, keys, ((make, existing),))
            self._queue += make(table, existing)
        return Change(generation, before, ())

    def edit_many(
        self, table: Table, keys: Sequence[Key], edit: Callable[[Sequence[Row]], Sequence[Row]]
    ) -> Change:
        """Lock the rows with `keys`, and write what `edit` makes of them, with the next statements:
        rows with these keys, new ones among them. Rows that it leaves out stay as they are. Of a
        table with write-behind counters each row comes with what is `applied`, and what it has
        there afterwards is recorded. Raises whatever `edit` raises."""
        self.ensure_fit(table)
        generation, locked = self._lock(table, sorted(keys))
        after = edit(locked)
        edited = {row[0] for row in after}
        before = [row for row in locked if row[0] in edited]
        existing = {row[0] for row in before}
        # Of a table with write-behind counters a row has one column more.
        written = [row[: len(table.columns)] for row in after]
        was = {row[0]: row[-1] for row in before} if table.write_behind else {}
        texts = {row[0]: str(row[-1]) for row in after if len(row) > len(table.columns)}
        changed = {key: text for key, text in texts.items() if text != was.get(key)}
        groups = (
            (self._each(statements.replace), [row for row in written if row[0] in existing]),
            (self._each(statements.insert), [row for row in written if row[0] not in existing]),
        )
        self._writes = Writes(table, written, groups)
        self._queue += [each for make, group in groups if group for each in make(table, group)]
        self._queue += applied_deltas.put(table, changed)
        return Change(generation, before, self._stored(table, after, ()) if after else ())

    def replace_many(
        self, table: Table, before: Mapping[Key, bytes], changed: Mapping[Column, Sequence[str]]
    ) -> None:
        """Change columns of the rows with the JSON `before`, by rising keys, with the next
        statements. `changed`: their values as texts, plain ones. Raises NotAtOnce, here or there,
        where triggers may change rows, or where other rows are there by then."""
        if not self.takes_files or self.ensure_fit(table):
            raise NotAtOnce
        keys = [*before]
        self.queue_guard(statements.guard_rows(table, keys, [*before.values()]), NotAtOnce)
        if isinstance(table.key.type, Integer):
            self.queue(statements.update_columns(table, keys, changed))  # type: ignore[arg-type]
        else:
            old = zip(*map(table.decode, before.values()))
            new = [
                column.type.parse_all(changed[column]) if column in changed else values
                for column, values in zip(table.columns, old)
            ]
            self.queue(*self._each(statements.replace)(table, [*zip(*new)]))

    def end(self, table: Table) -> Generation:
        """COMMIT what is left to do. The generation that holds."""
        *_, held = self._commit(cache_generation.hold(table))
        return generation_in(table, held, self._connection.sent_at)

    @property
    def holds_keys(self) -> bool:
        """Whether a bulk insert holds the counter of the keys until it ends."""
        return self._connection.holds_keys

    @property
    def takes_files(self) -> bool:
        """Whether `load` can be used."""
        return self._connection.takes_files

    def load(self, statement: Statement, feed: Iterable[bytes]) -> None:
        """Run a LOAD DATA LOCAL of what `feed` brings. Raises whatever that raises."""
        if self._queue:
            self.run()
        self._connection.load(statement, feed)

    def load_rows(
        self, make: Callable[[Sequence[Any]], Statement], rows: Sequence[Sequence[Key]]
    ) -> None:
        """Run what `make` makes of `rows`, in as many statements as it takes."""
        made = [make(batch) for batch in self._cut([tuple(row) for row in rows])]
        if not self._first_loaded_key:
            mark = (f"SET {MARK_OWN}", ())
            *_, [(self._first_loaded_key,)] = self.run(mark, made.pop(0), statements.FIRST_NEW_KEY)
        if made:
            self.run(*made)

    def first_loaded_key(self) -> int:
        """That the database gave to the rows that were loaded."""
        if not self._first_loaded_key:
            [[(self._first_loaded_key,)]] = self.run(statements.FIRST_NEW_KEY)
        return self._first_loaded_key

    def raise_generation(self, table: Table) -> Generation:
        """Let no reader believe an entry of the table once this is committed. Waits for every
        writer that holds the generation, so it comes last. Raises NotAtOnce where the database
        rejects a row of `replace_many` for its values."""
        try:
            *_, generation = self.run(
                cache_generation.lock(table),
                cache_generation.raise_number(table),
                cache_generation.hold(table),
            )
        except DatabaseError as error:
            if is_value_rejected(error):
                raise NotAtOnce from error
            raise
        return generation_in(table, generation, self._connection.sent_at)

    def wait_for_writers(self, table: Table) -> None:
        """Return when every transaction has ended that held the generation before. Later ones see
        what was committed before this."""
        self.run(cache_generation.lock(table))

    def send_commit(
        self,
        table: Table,
        values: Mapping[Column, Sequence[Key]],
        keys: Sequence[Key],
        max_rows: int,
        until: int,
        watched: Sequence[Key] = (),
    ) -> Callable[[], Committed]:
        """`commit`, and for each column of `values` the rows with one of them as they are just
        before: `max_rows` at the most, and none of those with `keys`. Also asks which of the rows
        `watched` are watched, where there are any. Returns at once what waits for it. Both raise
        DatabaseUnavailable as `commit`, and where the rows are changed after `until`."""
        # Behind the changes: whoever waits for the rows' locks from here on waits for the COMMIT.
        place = len(self._queue)
        self.queue_guard(statements.guard_time(until), came_too_late)
        most = self._most_shown(table, max_rows)
        # A text is named twice: see `statements.select`.
        count = 2 * sum(map(len, values.values())) + len(values) * len(keys)
        is_shown = batches.fits(self._connection, count)
        shown = [
            statements.others(table, column, own, keys, most)
            for column, own in values.items()
            if is_shown
        ]
        watches = [statements.watches(table, watched)] if watched else []
        sent = self._send_commit(*shown, *watches)

        def receive() -> Committed:
            answers, committed_at = self._receive_commit(sent)
            [(read_at,)], *others = answers[place:]
            found = others.pop() if watches else ()
            whole = _whole(others, most) if is_shown else [None] * len(values)
            return Committed(read_at, committed_at, whole, found)

        return receive

    def _stored(self, table: Table, rows: Sequence[Row], new_keys: Iterable[Key]) -> Sequence[Row]:
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
        cut = batches.cut(keys, batches.most_rows(self._connection, table))
        locks = [statements.lock(table, batch) for batch in cut]
        answers = self.run(cache_generation.hold(table), *locks)
        generation, *locked = answers[len(answers) - len(locks) - 1 :]
        rows = [row for answer in locked for row in answer] if len(locks) > 1 else locked[0]
        asked = set(keys)
        for key in [row[0] for row in rows if row[0] not in asked]:
            raise NotAsDeclared(
                f"{table.name}.{table.key.name} holds {shown(key)}, which the database takes for"
                f" another {table.key.name} that the request names; nothing was written. Two keys"
                " must differ in more than upper and lower case and spaces at the end"
            )
        return generation_in(table, generation, self._connection.sent_at), rows


def _whole(others: Sequence[Sequence[Row]], most: int) -> Sequence[Sequence[Row] | None]:
    return [rows if len(rows) < most else None for rows in others]


def _with_keys(rows: Sequence[Row], new_keys: Iterable[Key]) -> list[Row]:
    next_key = iter(new_keys)
    return [row if row[0] != NO_KEY else (next(next_key), *row[1:]) for row in rows]
