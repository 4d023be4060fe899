"""The database: rows in, rows out, changes in transactions. Storage's two ways call in.

Round trips: a read 1; a change 2: new rows are inserted, other rows locked and read, and then all
that is left goes in one piece with the COMMIT; one more where triggers may change rows. One more
before the first read of a table: it is compared with its declaration (`schema`), again and again
while it does not fit. The rows of `cache_generation` are read and raised here too; `generations`
says what they mean.
"""

import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from chalicelib.config import INGEST_ENGINE, Settings
from chalicelib.credentials.identity import STAGES, Login, database_identity
from chalicelib.db import statements
from chalicelib.db.mysql.connection import (
    ANSWER_TIMEOUT_SECONDS,
    LOAD_TIMEOUT_SECONDS,
    Answer,
    Connection,
    connect,
)
from chalicelib.db.mysql.driver import CONNECT_TIMEOUT_SECONDS, require_checked_driver
from chalicelib.db.mysql.errors import (
    MAX_ATTEMPTS,
    MySQLError,
    duplicate_index,
    is_forbidden,
    is_guard_failed,
    is_key_space_exhausted,
    is_login_refused,
    is_misfit,
    is_unfit,
    is_value_rejected,
    is_worth_another_try,
    missing_table,
    refuse_replica,
    rejection,
    translated,
    translated_from_connecting,
)
from chalicelib.db.schema import (
    GENERATIONS,
    OTHER_VERSION,
    OWN_TABLES,
    Difference,
    Found,
    Stops,
    Surroundings,
    differences,
    may_replace,
    may_rewrite,
    missing_own_tables,
    missing_rights,
    narrowed,
)
from chalicelib.db.statements import Statement
from chalicelib.errors import (
    AlreadyClaimed,
    BadRequest,
    ConfigurationError,
    Conflict,
    DatabaseUnavailable,
    HerocacheError,
    NotAtOnce,
    OutcomeUnknown,
    RowRejected,
    SchemaMismatch,
)
from chalicelib.ingest.events import Outcome, Upload
from chalicelib.ingest.load_text import Batch, packed
from chalicelib.pool import Pool
from chalicelib.tables import (
    NO_KEY,
    Column,
    Integer,
    InvalidValue,
    Key,
    NotAsDeclared,
    Row,
    Table,
    shown,
    tables_with,
)

Result = TypeVar("Result")
Item = TypeVar("Item")

log = logging.getLogger("herocache.db")

MAX_KEY_GAP = 1_000_000_000
"""How far above the highest key a client may put a new row: a quarter of all keys. One slip would
use up those that the database gives."""


@dataclass(frozen=True)
class Generation:
    """Under which entries of a table may be believed, and in which Redis (`server`); not at all
    while it is not `enabled`. `age_seconds`: since the last one that was in use was retired.
    `told_at`: when the database was asked for it, in microseconds of its clock."""

    number: int
    enabled: bool
    server: str
    age_seconds: int
    told_at: int = 0


@dataclass(frozen=True)
class Change:
    """What a transaction did to a table: the rows it met as they were, the rows it left, in the
    order they were given, and the generation that held meanwhile. `new_keys` are those that the
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


class Database:
    """The writer endpoint. Safe for threads: each call has a connection of its own."""

    def __init__(
        self, settings: Settings, *, for_loads: bool = False, is_replica: bool = False
    ) -> None:
        """One for loads waits much longer for each answer, and can load files. Unless it
        `is_replica` a server that is read-only is taken for the wrong one. Raises
        ConfigurationError where the driver is another version than the one that was checked."""
        require_checked_driver()
        self._settings = settings
        self._is_replica = is_replica
        self._for_loads = for_loads
        self._patience = LOAD_TIMEOUT_SECONDS if for_loads else ANSWER_TIMEOUT_SECONDS
        self._greeting_patience = max(CONNECT_TIMEOUT_SECONDS, settings.db_resume_seconds)
        self._identity = database_identity(settings)
        self._pool: Pool[Connection] = Pool(self._connect, Connection.drop)
        self._fitting: dict[str, Table] = {}
        self._rewriting: set[str] = set()

    def fetch_many(
        self,
        table: Table,
        column: Column,
        values: Sequence[Key],
        max_rows: int,
        *,
        after: Key | None = None,
        after_writers: bool = False,
    ) -> Sequence[Row]:
        """The rows whose `column` is one of `values`; by a lookup `max_rows` at the most, in the
        order of their keys, only those after the key `after` where it is given. One SELECT. With
        `after_writers` it waits for every transaction that holds one of those rows. Raises
        DatabaseUnavailable, SchemaMismatch."""
        statement = statements.select(
            table, column, values, max_rows, after=after, after_writers=after_writers
        )

        def read(connection: Connection) -> Sequence[Row]:
            self._ensure_fit(connection, table)
            if self._is_replica:
                return connection.rows(statement)
            return _rows_of_writer(connection, statement)

        return self._run(read)

    def generation(self, table: Table, timeout_seconds: float | None = None) -> Generation:
        """The table's current generation. One SELECT. Raises SchemaMismatch; DatabaseUnavailable,
        after about `timeout_seconds` where they are given and the database is silent: it may be
        asleep."""

        def read(connection: Connection) -> Generation:
            connection.wait_at_most(timeout_seconds or ANSWER_TIMEOUT_SECONDS)
            self._ensure_fit(connection, table)
            return _generation(table, connection.rows(statements.generation(table)))

        return self._run(read, patience_seconds=timeout_seconds)

    def switch_on(self, table: Table, number: int, server: str) -> None:
        """Raise generation `number` for the entries of the Redis `server`, and take them into use;
        nothing happens where somebody raised it already. One UPDATE."""
        self._run(
            lambda connection: connection.batch([statements.switch_on(table, number, server)])
        )

    def transact(self, work: Callable[["Transaction"], Result]) -> Result:
        """What `work` returns, once what it did is committed, by itself or here. `work` runs again
        when the database certainly undid the first try, so it must be safe to run twice. Raises
        DatabaseUnavailable, OutcomeUnknown, SchemaMismatch, and whatever `work` raises."""

        def run(connection: Connection) -> Result:
            transaction = Transaction(connection, self._ensure_fit)
            try:
                result = work(transaction)
                if not transaction.is_over:
                    transaction.commit()
            except BaseException:
                if transaction.has_begun:
                    connection.undo()
                raise
            return result

        return self._run(run)

    def last_upload(self, upload: Upload) -> tuple[Upload, Outcome] | None:
        """As `Transaction.claim_upload`, without waiting for one that is dealt with now."""
        rows = self._run(lambda connection: connection.rows(statements.last_upload(upload)))
        return _recorded(upload, rows[0]) if rows else None

    def prune_claims(self) -> None:
        """Forget idempotency keys of more than a day ago, some at a time."""
        self._run(lambda connection: connection.batch([statements.PRUNE_CLAIMS]))

    def check(self) -> None:
        """One statement on a kept connection or a new one. Raises DatabaseUnavailable."""
        self._run(lambda connection: connection.rows(statements.PING))

    def check_tables(self) -> list[str]:
        """Whether requests without TABLE can be answered. One statement. What differs elsewhere,
        in words. Raises DatabaseUnavailable; SchemaMismatch where they cannot."""
        tables = tables_with(self._settings.default_table)
        default = tables[self._settings.default_table]
        found = self._run(lambda connection: _describe(connection, [*tables, *OWN_TABLES]))
        missing = missing_own_tables(found)
        if GENERATIONS not in found:
            raise SchemaMismatch(missing)
        _refuse(differences(default, found.get(default.name, ())))
        others = [d for t in tables.values() for d in differences(t, found.get(t.name, ()))]
        rights = [text for name in OWN_TABLES for text in missing_rights(found.get(name, ()))]
        return [*filter(None, [missing]), *rights, *[difference.text for difference in others]]

    def as_stored(self, table: Table) -> Table:
        """The table with columns that take no more than those of the database do. It may stand for
        the declared one in all that is done with its rows. One SELECT. Raises SchemaMismatch,
        DatabaseUnavailable."""
        return narrowed(table, self._run(lambda connection: self._judge(connection, table)))

    def _ensure_fit(self, connection: Connection, table: Table) -> bool:
        """Whether triggers may change rows before they are written. One SELECT when the table is
        first used, and as long as it does not fit its declaration. Raises SchemaMismatch."""
        if table.name not in self._fitting:
            found = self._judge(connection, table)
            for difference in differences(table, found):
                log.warning("%s", difference.text)
            self._fitting[table.name] = table
        return table.name in self._rewriting

    def _judge(self, connection: Connection, table: Table) -> Sequence[Found]:
        """The table's columns, as they are now. Raises SchemaMismatch where requests cannot be
        answered, from here on."""
        found = _describe(connection, [table.name]).get(table.name, [])
        try:
            _refuse(differences(table, found))
        except SchemaMismatch:
            self._fitting.pop(table.name, None)
            self._rewriting.discard(table.name)
            raise
        if may_rewrite(found):
            self._rewriting.add(table.name)
        else:
            self._rewriting.discard(table.name)
        return found

    def _misfit(self, error: MySQLError) -> SchemaMismatch:
        """The words for a statement that met other tables than those it was made for: somebody
        changed them since, or the service's own are missing."""
        log.warning("the tables are compared again: %s", error.args[-1])
        tables = list(self._fitting.values())
        names = [*[table.name for table in tables], *OWN_TABLES]
        found = self._run(lambda connection: _describe(connection, names))
        texts = [
            difference.text
            for table in tables
            for difference in differences(table, found.get(table.name, ()))
            if difference.stops != Stops.NOTHING
        ]
        texts += filter(None, [missing_own_tables(found)])
        missing = missing_table(error)
        if missing and missing not in names:
            texts.append(
                f"the database has no table {missing}, which a trigger of"
                f" {', '.join(table.name for table in tables)} needs: create it, or drop the"
                " trigger"
            )
        return SchemaMismatch("; ".join(texts) or OTHER_VERSION)

    def _connect(self, patience_seconds: float | None = None) -> Connection:
        """With another password where the first is refused: they are changed while we run."""
        login = self._identity.login()
        for _ in STAGES:
            try:
                return self._connect_as(login, patience_seconds)
            except MySQLError as error:
                other = self._identity.instead(login) if is_login_refused(error) else None
                if other is None:
                    raise
                login = other
        return self._connect_as(login, patience_seconds)

    def _connect_as(self, login: Login, patience_seconds: float | None) -> Connection:
        patience_seconds = patience_seconds or self._greeting_patience
        return connect(self._settings, login, patience_seconds, for_loads=self._for_loads)

    def _run(self, work: Callable[[Connection], Result], **connect_options: float | None) -> Result:
        for attempt in range(MAX_ATTEMPTS):
            try:
                connection = self._acquire(connect_options)
            except MySQLError as error:
                raise translated_from_connecting(error, self._settings) from error
            try:
                result = work(connection)
            except MySQLError as error:
                self._put_back(connection, error)
                if is_worth_another_try(error, attempt):
                    continue
                raise (self._misfit(error) if is_misfit(error) else translated(error)) from error
            except _NoGeneration as new:
                connection.batch([statements.add_generation(new.table)])
                self._pool.release(connection)
                continue
            except OutcomeUnknown:
                self._pool.discard(connection)
                raise
            except HerocacheError as error:
                self._put_back(connection, error.__cause__)
                raise
            except BaseException:
                self._pool.discard(connection)
                raise
            self._pool.release(connection)
            return result
        raise AssertionError("unreachable: the last attempt returns or raises")

    def _acquire(self, connect_options: Mapping[str, float | None]) -> Connection:
        """A kept connection unless the server has closed it meanwhile: found out only by sending a
        write over it, nobody could tell whether that was done."""
        connection = self._pool.acquire(**connect_options)
        if connection.was_closed_by_server():
            self._pool.discard(connection)
            connection = self._pool.acquire(**connect_options)
        connection.wait_at_most(self._patience)
        return connection

    def _put_back(self, connection: Connection, error: BaseException | None) -> None:
        if connection.open and not is_unfit(error):
            self._pool.release(connection)
        else:
            self._pool.discard(connection)


@dataclass(frozen=True)
class _Writes:
    """Of `items`, rows or keys: those of each group, and what makes a statement of them."""

    table: Table
    items: Sequence[Any]
    groups: Iterable[tuple[Callable[[Table, Sequence[Any]], Statement], Sequence[Any]]]


class Transaction:
    """What may be done before COMMIT. What nobody waits for goes with the next statements that
    somebody does, in one round trip; BEGIN goes with the first."""

    def __init__(
        self, connection: Connection, ensure_fit: Callable[[Connection, Table], bool]
    ) -> None:
        """`ensure_fit` is called before a change of a table, and says whether triggers may change
        rows before they are written."""
        self._connection = connection
        self._ensure_fit = ensure_fit
        self._queue = [statements.START]
        self._writes: _Writes | None = None
        self._claim_guard: Statement | None = None
        self.is_over = False

    @property
    def has_begun(self) -> bool:
        """Whether the database has heard of it."""
        return self._queue[:1] != [statements.START]

    def switch_off(self, table: Table) -> None:
        """Take the cache of `table` out of use, together with the next change."""
        self._queue += [statements.lock_generation(table), statements.switch_off(table)]

    def can_insert_at_once(self, table: Table) -> bool:
        """Whether `insert_and_commit` can tell the rows before it is done: no trigger changes them,
        and the keys follow each other."""
        is_plain = not self._ensure_fit(self._connection, table)
        return is_plain and table.auto_key and self._connection.key_step == 1

    def insert_and_commit(
        self,
        table: Table,
        rows: Sequence[Row],
        held: Generation,
        shown: Mapping[Column, Sequence[Key]],
        max_rows: int,
    ) -> tuple[Change, Committed]:
        """Insert rows with NO_KEY, which get the next keys, rising in the order of `rows`, and
        COMMIT, where `held` is the generation: all in one piece. `Committed.others` as
        `commit_and_show` has them. Raises NotAtOnce where another generation is, or where the keys
        would be too high; BadRequest, RowRejected, OutcomeUnknown."""
        self._writes = _Writes(table, rows, ((statements.insert_keyless, rows),))
        own, highest = len(rows), _highest(table.key)
        sent_at = time.monotonic()
        try:
            with giving_keys(table, is_giving=True):
                _, now, inserted, _, *others = self._commit(
                    statements.guard_generation(table, held.number),
                    statements.insert_keyless(table, rows),
                    statements.guard_new_keys(own, highest),
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
        by = read_at + _microseconds_since(sent_at)
        return change, Committed(read_at, by, [answer.rows for answer in others])

    def insert(self, table: Table, rows: Sequence[Row]) -> Change:
        """Insert rows with NO_KEY, which get the next keys, rising in the order of `rows`. Where
        triggers may change them `after` is read back from the table."""
        self._ensure_fit(self._connection, table)
        self._writes = _Writes(table, rows, ((statements.insert_keyless, rows),))
        with giving_keys(table, is_giving=True), self._telling_refused():
            held, inserted = self.run(
                statements.hold_generation(table), statements.insert_keyless(table, rows)
            )
        new_keys = self._new_keys(table, inserted, len(rows))
        return Change(
            _generation(table, held.rows), (), self._stored(table, rows, new_keys), new_keys
        )

    def write_many(self, table: Table, rows: Sequence[Row]) -> Change:
        """Insert each row, or put it in the place of the row that has its key; rows with NO_KEY
        get the next keys, rising in the order of `rows`. Those with a key, of which there is one,
        go first: no new row can then be given a key that another row brings along. Where there is
        none without one the change itself is left to the next statements. Where triggers may change
        rows it is not: `after` is read back from the table."""
        self._ensure_fit(self._connection, table)
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
        self._writes = _Writes(table, rows, groups)
        self._queue += [make(table, group) for make, group in groups[:2] if group]
        new_keys = range(0)
        if keyless:
            with giving_keys(table, is_giving=True), self._telling_refused():
                [inserted] = self.run(statements.insert_keyless(table, keyless))
            new_keys = self._new_keys(table, inserted, len(keyless))
        return Change(generation, before, self._stored(table, rows, new_keys), new_keys)

    def _new_keys(self, table: Table, inserted: Answer, count: int) -> range:
        """InnoDB numbers the rows of one plain multi-row INSERT without gaps, in every
        innodb_autoinc_lock_mode: the first key tells them all. Raises BadRequest where requests do
        not take one of them."""
        first_key, step = inserted.first_key, self._connection.key_step
        new_keys = range(first_key, first_key + count * step, step)
        if new_keys[-1] > _highest(table.key):
            raise _no_free_key(table)
        return new_keys

    def refuse_far_keys(self, table: Table, keys: Sequence[Key]) -> None:
        """Raises BadRequest where one of `keys`, given to a new row, would use up those that the
        database gives: it goes on from the highest one there ever was. One SELECT where one is
        that high, else none."""
        key = max(keys, default=NO_KEY)
        if table.auto_key and isinstance(key, int) and key > MAX_KEY_GAP:
            _refuse_far_key(table, key, self._highest_key(table))

    def _highest_key(self, table: Table) -> int:
        """0 where the table is empty. One SELECT."""
        [answer] = self.run(statements.highest_key(table))
        return answer.rows[0][0] or 0

    def delete_many(self, table: Table, keys: Sequence[Key]) -> Change:
        """Delete the rows with these keys, with the next statements; `before` holds those that
        existed."""
        self._ensure_fit(self._connection, table)
        generation, before = self._lock(table, sorted(keys))
        if before:
            present = {row[0] for row in before}
            existing = [key for key in sorted(set(keys)) if key in present]
            self._writes = _Writes(table, keys, ((statements.delete, existing),))
            self._queue.append(statements.delete(table, existing))
        return Change(generation, before, ())

    def end(self, table: Table) -> Generation:
        """COMMIT what is left to do. The generation that holds."""
        *_, held = self._commit(statements.hold_generation(table))
        return _generation(table, held.rows)

    def load(self, table: Table, columns: Sequence[Column], batches: Iterable[Batch]) -> None:
        """Load rows of texts, one for each of `columns`, that these take. One LOAD DATA, as `fill`
        does it. Raises BadRequest, and whatever `batches` raises."""
        self._ensure_fit(self._connection, table)
        if self._queue:
            self.run()
        if table.auto_key and table.key in columns:
            batches = _near_keys(table, columns, batches, self._highest_key(table))

        def load(target: str, replaces: bool) -> None:
            statement = statements.load(target, columns, replaces=replaces)
            self._connection.load(statement, packed(batches))

        self.fill(table, columns, load)

    def fill(
        self, table: Table, columns: Sequence[Column], bring: Callable[[str, bool], None]
    ) -> None:
        """Let `bring` put rows of `columns` into `table`: a row with a key takes the place of the
        one that has it, and of two in one file the later one stays. `bring` is told where to put
        them, and whether to REPLACE: into a temporary table where REPLACE would harm `table`; they
        are merged from there. Raises BadRequest."""
        is_keyed = table.key in columns
        with giving_keys(table, not is_keyed), refusing_rows(table):
            if not is_keyed or self._may_replace(table):
                bring(table.identifier, is_keyed)
            else:
                self.make_temporary_table(statements.stage(table, columns))
                bring(statements.STAGED, True)
                self.run(*statements.merge(table, columns))
        if table.auto_key and not is_keyed:
            self._refuse_unreadable_keys(table)

    def _may_replace(self, table: Table) -> bool:
        [answer] = self.run(statements.surroundings(table))
        return may_replace(table, Surroundings(*answer.rows[0]))

    def _refuse_unreadable_keys(self, table: Table) -> None:
        """For what has given keys, where the real column takes higher ones than requests do.
        Raises BadRequest. One SELECT."""
        if self._highest_key(table) > _highest(table.key):
            raise _no_free_key(table)

    def make_temporary_table(self, statements: Sequence[Statement]) -> None:
        """Raises ConfigurationError where the user has no right to make one."""
        try:
            self.run(*statements)
        except MySQLError as error:
            if not is_forbidden(error):
                raise
            raise ConfigurationError(
                "DB_USER: this load needs a temporary table (docs/ingest.md), and the user may not"
                " make one: GRANT CREATE TEMPORARY TABLES ON the database TO the user"
            ) from error

    def load_from_s3(self, statement: Statement) -> None:
        """Run a LOAD DATA FROM S3. Raises ConfigurationError where the database does not do so."""
        try:
            self.run(statement)
        except MySQLError as error:
            if translated(error) is not error:
                raise
            raise ConfigurationError(
                f"{INGEST_ENGINE}=aurora: the database loads nothing from S3: {error.args[-1]}; it"
                " must be Aurora MySQL, with a role that may read the bucket (docs/ingest.md)"
            ) from error

    def raise_generation(self, table: Table) -> Generation:
        """Let no reader believe an entry of the table once this is committed. Waits for every
        writer that holds the generation, so it comes last."""
        *_, generation = self.run(
            statements.lock_generation(table),
            statements.raise_generation(table),
            statements.hold_generation(table),
        )
        return _generation(table, generation.rows)

    def claim_upload(self, upload: Upload) -> tuple[Upload, Outcome] | None:
        """The last upload of this key that was dealt with, and its outcome; None where there is
        none. Waits for a transaction that deals with one now."""
        *_, found = self.run(statements.claim_upload(upload), statements.last_upload(upload))
        return _recorded(upload, found.rows[0])

    def record_upload(self, upload: Upload, outcome: Outcome) -> None:
        """With the next statements."""
        self._queue.append(statements.record_upload(upload, outcome))

    def claim(self, idempotency_key: str, fingerprint: str) -> None:
        """With the next statements, which raise AlreadyClaimed where this is not the first
        transaction with this key. They wait for one that is under way."""
        self._claim_guard = statements.guard_claim(idempotency_key)
        self._queue += [statements.claim(idempotency_key, fingerprint), self._claim_guard]

    def claimed(self, idempotency_key: str, fingerprint: str) -> str:
        """What the first transaction with this key recorded. Raises Conflict where that one was
        asked for something else."""
        *_, found = self.run(
            statements.claim(idempotency_key, fingerprint), statements.claimed(idempotency_key)
        )
        [(first_fingerprint, answer)] = found.rows
        if first_fingerprint != fingerprint:
            raise Conflict(
                "Idempotency-Key: it came with another request before; use a new key for a new"
                " request"
            )
        if not answer:
            raise DatabaseUnavailable("Idempotency-Key: it was forgotten a moment ago; try again")
        return str(answer)

    def record(self, idempotency_key: str, answer: str) -> None:
        """What a retry with this key is told; with the next statements."""
        self._queue.append(statements.record(idempotency_key, answer))

    def wait_at_most(self, seconds: float) -> None:
        """For each answer from here on."""
        self._connection.wait_at_most(seconds)

    def run(self, *statements: Statement) -> list[Answer]:
        """The answers to `statements`: one round trip."""
        queue, self._queue = self._queue, []
        try:
            return self._connection.batch([*queue, *statements])[len(queue) :]
        except MySQLError as error:
            failed = self._connection.answered
            if is_guard_failed(error) and queue[failed : failed + 1] == [self._claim_guard]:
                raise AlreadyClaimed from error
            raise

    def commit(self) -> None:
        """COMMIT, and what is left to do before it."""
        self._commit()

    def commit_and_show(
        self,
        table: Table,
        values: Mapping[Column, Sequence[Key]],
        keys: Sequence[Key],
        max_rows: int,
    ) -> Committed:
        """`commit`, and for each column of `values` the rows with one of them as they are just
        before: `max_rows` at the most, and none of those with `keys`."""
        self._queue.insert(0, statements.NOW)
        sent_at = time.monotonic()
        now, *answers = self._commit(
            *[
                statements.others(table, column, own, keys, max_rows)
                for column, own in values.items()
            ]
        )
        [(read_at,)] = now.rows
        others = [answer.rows for answer in answers[len(answers) - len(values) :]]
        return Committed(read_at, read_at + _microseconds_since(sent_at), others)

    def _commit(self, *statements: Statement) -> list[Answer]:
        """The answers to what was left to do, and to `statements`."""
        queue, self._queue = self._queue, []
        with self._telling_refused():
            answers = self._connection.batch_and_commit([*queue, *statements])
        self.is_over = True
        return answers

    @contextmanager
    def _telling_refused(self) -> Iterator[None]:
        """For the statements with the writes that are left to do. Where the database refuses a row
        for its values, these are done again by halves to find it: no server tells which statement
        it stood in, and few which row. Raises RowRejected; the transaction is of no more use
        then."""
        writes, self._writes = self._writes, None
        try:
            yield
        except MySQLError as error:
            if writes is None or not is_value_rejected(error):
                raise
            self.run(statements.ROLLBACK, statements.START)
            for make, group in writes.groups:
                if refused := self._first_refused(writes.table, make, group):
                    index = next(i for i, item in enumerate(writes.items) if item is refused[0])
                    raise self._rejected(writes.table, refused[0], index, refused[1]) from error
            raise  # what was in its way has gone meanwhile

    def _first_refused(
        self,
        table: Table,
        make: Callable[[Table, Sequence[Item]], Statement],
        items: Sequence[Item],
    ) -> tuple[Item, MySQLError] | None:
        """Those before it are written: it may be refused because of one of them."""
        while items:
            half = items[: (len(items) + 1) // 2]
            try:
                self.run(make(table, half))
                items = items[len(half) :]
            except MySQLError as error:
                if not is_value_rejected(error):
                    raise
                if len(half) == 1:
                    return half[0], error
                items = half
        return None

    def _rejected(self, table: Table, item: object, index: int, error: MySQLError) -> RowRejected:
        """In the words of the column's own limits where it has passed them."""
        name, reason = rejection(error)
        if unique := duplicate_index(error):
            columns = self._connection.rows(statements.index_columns(table, unique))
            name = columns[0][0] if len(columns) == 1 else ""
        by_name = {column.name.lower(): column.name for column in table.columns}
        name = by_name.get(name.lower(), "")
        if name and isinstance(item, tuple):
            found = _describe(self._connection, [table.name])
            real = narrowed(table, found.get(table.name, ()))
            position = table.positions[name]
            try:
                real.columns[position].type.parse(item[position])
            except InvalidValue as invalid:
                reason = str(invalid)
        return RowRejected(index, name, reason)

    def _stored(self, table: Table, rows: Sequence[Row], new_keys: range) -> Sequence[Row]:
        """The rows as they are in the table, once what is left to do is done. One SELECT where
        triggers may change rows, else nothing."""
        rows = _with_keys(rows, new_keys)
        if not self._ensure_fit(self._connection, table):
            return rows
        keys = [row[0] for row in rows]
        with self._telling_refused():
            [found] = self.run(statements.rows_of_keys(table, keys))
        stored = {row[0]: row for row in found.rows}
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
        *_, generation, rows = self.run(
            statements.hold_generation(table), statements.lock(table, keys)
        )
        asked = set(keys)
        for key in [row[0] for row in rows.rows if row[0] not in asked]:
            raise NotAsDeclared(
                f"{table.name}.{table.key.name} holds {shown(key)}, which the database takes for"
                f" another {table.key.name} that the request names; nothing was written. Two keys"
                " must differ in more than upper and lower case and spaces at the end"
            )
        return _generation(table, generation.rows), rows.rows


@contextmanager
def giving_keys(table: Table, is_giving: bool) -> Iterator[None]:
    """For what inserts rows, some without keys where `is_giving`. Raises BadRequest where the
    database has none left for them."""
    try:
        yield
    except MySQLError as error:
        key = table.key
        if not (is_giving and isinstance(key.type, Integer)):
            raise
        if is_key_space_exhausted(error, key.type.maximum):
            raise _no_free_key(table) from error
        raise


def _near_keys(
    table: Table, columns: Sequence[Column], batches: Iterable[Batch], highest: int
) -> Iterator[Batch]:
    """The same, each checked before the database sees it: the keys that a load brings are used up
    also where it is undone."""
    position = columns.index(table.key)
    for batch in batches:
        _refuse_far_key(table, max(int(texts[position]) for texts in batch), highest)
        yield batch


def _refuse_far_key(table: Table, key: int, highest: int) -> None:
    """Raises BadRequest."""
    if key > highest + MAX_KEY_GAP:
        raise BadRequest(
            f"TABLE {table.name}: the {table.key.name} {key} is more than {MAX_KEY_GAP} above"
            f" {highest}, the highest one: too few would be left for rows without"
            f" {table.key.name}; give a lower one, or none"
        )


def _no_free_key(table: Table) -> BadRequest:
    key = table.key.name
    return BadRequest(
        f"TABLE {table.name}: no free {key} above the highest one is left; give each row its {key},"
        f" up to {_highest(table.key)}; or, where the highest row was deleted, have an operator"
        f" run: ALTER TABLE {table.identifier} AUTO_INCREMENT = 1 (the database goes on after the"
        f" highest {key} that is there)"
    )


def _highest(column: Column) -> int:
    assert isinstance(column.type, Integer), "the database gives no other keys"
    return column.type.maximum


@contextmanager
def refusing_rows(table: Table) -> Iterator[None]:
    """For what loads many rows at once. Raises BadRequest where the database refuses one of them
    for its values: trying again would not help."""
    try:
        yield
    except MySQLError as error:
        if not is_value_rejected(error):
            raise
        column, reason = rejection(error)
        place = f"{table.name}.{column}" if column in table.positions else table.name
        raise BadRequest(f"{place}: a row of the file is refused: {reason}") from error


def _describe(connection: Connection, names: Sequence[str]) -> dict[str, list[Found]]:
    """The columns of those of these tables that there are."""
    tables: dict[str, list[Found]] = {}
    for row in connection.rows(statements.describe(names)):
        tables.setdefault(row[0], []).append(Found(*row))
    return tables


def _refuse(found: Iterable[Difference]) -> None:
    """Raises SchemaMismatch with all that stops every request."""
    texts = [difference.text for difference in found if difference.stops == Stops.EVERYTHING]
    if texts:
        raise SchemaMismatch("; ".join(texts))


def _rows_of_writer(connection: Connection, statement: Statement) -> Sequence[Row]:
    """A kept connection may lead to a server that was made a replica since."""
    found, is_read_only = connection.batch([statement, statements.IS_READ_ONLY])
    refuse_replica(is_read_only.rows[0][0])
    return found.rows


def _with_keys(rows: Sequence[Row], new_keys: range) -> list[Row]:
    next_key = iter(new_keys)
    return [row if row[0] != NO_KEY else (next(next_key), *row[1:]) for row in rows]


class _NoGeneration(Exception):
    """The table is new: cache_generation has no row for it yet."""

    def __init__(self, table: Table) -> None:
        super().__init__(table.name)
        self.table = table


def _recorded(upload: Upload, row: Sequence[Any]) -> tuple[Upload, Outcome] | None:
    version, etag, sequencer, table, status, rows, refused, reason = row
    if not status:
        return None
    last = replace(upload, version=version, etag=etag, sequencer=sequencer)
    return last, Outcome(status, table, rows, refused, reason)


def _generation(table: Table, rows: Sequence[Any]) -> Generation:
    if not rows:
        raise _NoGeneration(table)
    [(number, enabled, server, seconds, is_read_only, now)] = rows
    refuse_replica(is_read_only)
    return Generation(number, bool(enabled), server, seconds, now)


def _microseconds_since(monotonic: float) -> int:
    """Rounded up: nothing happened later."""
    return math.ceil((time.monotonic() - monotonic) * 1_000_000)
