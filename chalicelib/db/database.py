"""The database: reads, transactions, and the generation of each table.

Changes go through a Transaction. A read costs one round trip. The first read of a table costs one
more, because the table is compared with its declaration (`schema_check`). While it does not fit,
each read compares it again.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TypeVar

from chalicelib.column_types import String
from chalicelib.config import DbEngine, Settings
from chalicelib.db import batches, cache_generation, change_capture, information_schema, statements
from chalicelib.db.cache_generation import Generation, generation_in
from chalicelib.db.engine import (
    ANSWER_TIMEOUT_SECONDS,
    LOAD_PAUSE_SECONDS,
    LOAD_TIMEOUT_SECONDS,
    PAUSE_SECONDS,
    Connect,
    Connection,
    Rows,
)
from chalicelib.db.errors import (
    AnswerTooLarge,
    DatabaseError,
    is_misfit,
    reject_replica,
    translated,
)
from chalicelib.db.retries import Retries
from chalicelib.db.schema import OWN_TABLES, narrowed
from chalicelib.db.schema_check import Columns, SchemaCheck, describe, report
from chalicelib.db.statements import Statement
from chalicelib.db.transaction import Transaction
from chalicelib.errors import DatabaseUnavailable, SchemaMismatch
from chalicelib.pool import Pool
from chalicelib.tables import Column, Key, Row, Table, tables_with

Result = TypeVar("Result")


class Database:
    """The writer endpoint. Safe for threads: each call has a connection of its own.
    `on_unavailable` is called where one raises DatabaseUnavailable."""

    def __init__(
        self, settings: Settings, *, for_loads: bool = False, is_replica: bool = False
    ) -> None:
        """With `for_loads` it waits much longer for each answer and can load files. A read-only
        server is an error, unless `is_replica`. Raises ConfigurationError where the version of the
        driver was not checked."""
        self.on_unavailable: Callable[[], None] = lambda: None
        self._settings = settings
        # Of any table: the RDS Data API answers no longer row, and a statement that sends one must
        # fit into a packet of 16 MB.
        self.max_row_bytes = 64_000 if settings.db_engine is DbEngine.DATA_API else 4_000_000
        self._is_replica = is_replica
        patience = LOAD_TIMEOUT_SECONDS if for_loads else ANSWER_TIMEOUT_SECONDS
        max_pause = LOAD_PAUSE_SECONDS if for_loads else PAUSE_SECONDS
        self._connect = _engine(settings, for_loads)
        self._pool: Pool[Connection] = Pool(self._connect, lambda connection: connection.drop())
        self._retries = Retries(settings, self._pool, patience, max_pause)
        self._schema_check = SchemaCheck()

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
        """The rows whose `column` is one of `values`. By a lookup: at most `max_rows`, in the order
        of their keys, and only those after the key `after` where it is given. One SELECT. With
        `after_writers` it waits for every transaction that has locked one of those rows. Raises
        DatabaseUnavailable, SchemaMismatch."""

        def read(connection: Connection) -> Sequence[Row]:
            self._schema_check.ensure(connection, table)
            return batches.select(
                connection,
                self._selecting(connection),
                table,
                column,
                values,
                max_rows,
                after=after,
                after_writers=after_writers,
            )

        return self._run(read)

    def fetch_all(self, table: Table, max_bytes: int) -> Sequence[Row]:
        """Every row, in the order of the keys, a SELECT for each page. Raises TooLarge where their
        JSON is longer than `max_bytes`, DatabaseUnavailable, SchemaMismatch."""

        def read(connection: Connection) -> Sequence[Row]:
            self._schema_check.ensure(connection, table)
            return batches.select_all(connection, self._selecting(connection), table, max_bytes)

        return self._run(read)

    def fetch_dated(self, table: Table, keys: Sequence[Key]) -> tuple[int, Sequence[Row]]:
        """A time before the SELECT, in microseconds of the writer's clock, and the rows with
        `keys`, in any order. Raises as `fetch_many`."""

        def read(connection: Connection) -> tuple[int, Sequence[Row]]:
            self._schema_check.ensure(connection, table)
            return ask(connection, keys)

        def ask(connection: Connection, keys: Sequence[Key]) -> tuple[int, Sequence[Row]]:
            cut = batches.cut(keys, batches.most_rows(connection, table))
            selects = [statements.rows_of_keys(table, batch) for batch in cut if batch]
            try:
                now, answers = _dated(connection, selects)
            except AnswerTooLarge:
                if len(keys) == 1:
                    raise
                middle = len(keys) // 2
                now, rows = ask(connection, keys[:middle])
                return now, [*rows, *ask(connection, keys[middle:])[1]]
            return now, [row for answer in answers for row in answer]

        return self._run(read)

    def fetch_range(
        self, table: Table, after: Key | None, last: Key | None, max_rows: int
    ) -> tuple[int, Mapping[Key, bytes | None], bool]:
        """The same for rows in the order of their keys, behind the key `after` and up to the key
        `last`, where these are given; and whether there may be more of them. Each row is its key
        and its JSON, as `Table.encode` has it; None where only `encode` knows."""

        def read(connection: Connection) -> tuple[int, Mapping[Key, bytes | None], bool]:
            self._schema_check.ensure(connection, table)
            most = batches.most_rows(connection, table)
            limit = min(max_rows, most or max_rows)
            # The JSON of a row may not fit into an answer that holds its values.
            as_json = not most
            if as_json:
                end = connection.rows(statements.last_in_range(table, limit, after, last))
                select = statements.join_range(table, after, end[0][0] if end else last)
                now, [[(joined, count)]] = _dated(connection, [select])
                joined_texts = batches.joined_texts(table, joined, count)
                # Where rows were deleted meanwhile, there may be others behind them.
                if joined_texts is not None and (count >= limit or not end):
                    return now, joined_texts, bool(end)
            while True:
                select = statements.select_range(table, limit, after, last, as_json=as_json)
                try:
                    now, [rows] = _dated(connection, [select])
                    break
                except AnswerTooLarge:
                    if limit == 1:
                        raise
                    limit //= 2
            texts = batches.texts(rows) if as_json else table.encode_each(rows)
            return now, texts, len(rows) == limit

        return self._run(read)

    def count(self, table: Table) -> int:
        """How many rows the table has. Raises as `fetch_many`."""

        def read(connection: Connection) -> int:
            self._schema_check.ensure(connection, table)
            return int(connection.rows(statements.count_rows(table))[0][0])

        return self._run(read)

    def key_behind(self, table: Table, after: Key | None, count: int) -> Key | None:
        """The key of the row that comes as number `count` behind the key `after`; None where there
        is none, or no other one behind it. One SELECT. Raises as `fetch_many`."""
        [rows] = self.run(statements.key_behind(table, after, count))
        return rows[0][0] if len(rows) > 1 else None

    def _selecting(self, connection: Connection) -> Callable[[Statement], Rows]:
        """Runs a SELECT on the server that this database is meant to be."""
        is_sure = self._is_replica or connection.is_surely_writer
        return connection.rows if is_sure else partial(_rows_of_writer, connection)

    def generation(self, table: Table, timeout_seconds: float | None = None) -> Generation:
        """The table's current generation. One SELECT. Raises SchemaMismatch, DatabaseUnavailable.
        It waits `timeout_seconds`, where given, for a silent database, which may be asleep."""

        def read(connection: Connection) -> Generation:
            connection.wait_at_most(timeout_seconds or ANSWER_TIMEOUT_SECONDS)
            self._schema_check.ensure(connection, table)
            found = connection.rows(cache_generation.select(table))
            return generation_in(table, found, connection.sent_at)

        return self._run(read, patience_seconds=timeout_seconds)

    def switch_on(self, table: Table, number: int, server: str) -> None:
        """Raise generation `number`, name the data set `server` in it, and switch the cache on.
        Does nothing where the generation was raised already. One UPDATE."""
        self.run(cache_generation.switch_on(table, number, server))

    def wait_for_writers(self, table: Table) -> None:
        """As `Transaction.wait_for_writers`."""
        self.transact(lambda transaction: transaction.wait_for_writers(table))

    def transact(self, work: Callable[["Transaction"], Result]) -> Result:
        """Run `work` in a transaction, commit unless it has done so, and return its result. Where
        the database certainly undid the first try (a deadlock, for example), `work` runs again, so
        it must be safe to run twice. Raises DatabaseUnavailable, OutcomeUnknown, SchemaMismatch,
        and whatever `work` raises."""

        def run(connection: Connection) -> Result:
            transaction = Transaction(connection, self._schema_check)
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

    def run(self, *statements: Statement) -> list[Rows]:
        """The answers to `statements`, each committed by itself: one round trip. Raises
        DatabaseUnavailable, SchemaMismatch."""
        return self._run(lambda connection: connection.batch(statements))

    def check(self) -> None:
        """Run one statement, on a kept connection or a new one. Raises DatabaseUnavailable."""
        self.run(statements.PING)

    def check_tables(self) -> list[str]:
        """Compare all tables with their declarations. Returns the differences in words. Raises
        SchemaMismatch where requests for the default table cannot be answered;
        DatabaseUnavailable. One statement."""
        tables = tables_with(self._settings.default_table)
        default = tables[self._settings.default_table]
        found = self._describe([*tables, *OWN_TABLES])
        return report(default, tables.values(), found)

    def unrecorded(self, table: Table) -> str:
        """Why changes of the table by other clients are not recorded, and what mends that; empty
        where they are. One SELECT. Raises DatabaseUnavailable."""
        [text] = self._unrecorded([table])
        return text

    def all_unrecorded(self) -> list[str]:
        """The same for all tables, without those whose changes are recorded."""
        tables = tables_with(self._settings.default_table)
        return [text for text in self._unrecorded([*tables.values()]) if text]

    def _unrecorded(self, tables: Sequence[Table]) -> list[str]:
        [found] = self.run(information_schema.capturing([table.name for table in tables]))
        return [
            change_capture.unrecorded(table, names.split(",") if names else (), sees_triggers)
            for table, (names, sees_triggers) in zip(tables, found)
        ]

    def captured(
        self, table: Table, limit: int, *, shown_too: bool
    ) -> tuple[Sequence[Row] | None, Generation]:
        """The records that are left of changes by other clients, each with its id and its entries
        as JSON, `limit` at the most, in any order; None where one answer does not hold them. Then
        the generation: what a later COMMIT recorded is not among these. One round trip. Raises
        SchemaMismatch, DatabaseUnavailable."""

        def read(connection: Connection) -> tuple[Sequence[Row] | None, Generation]:
            self._schema_check.ensure(connection, table)
            statement = change_capture.pending(table, limit, shown_too=shown_too)
            asking = cache_generation.select(table)
            try:
                records, found = connection.batch([statement, asking])
            except AnswerTooLarge:
                records, found = None, connection.rows(asking)
            return records, generation_in(table, found, connection.sent_at)

        return self._run(read)

    def as_stored(self, table: Table) -> Table:
        """The declared table, with columns that take no more than the real ones. It can be used
        wherever the declared table can. One SELECT. Raises SchemaMismatch, DatabaseUnavailable."""
        return narrowed(
            table, self._run(lambda connection: self._schema_check.judge(connection, table))
        )

    def with_order(self, table: Table) -> Table:
        """The declared table, whose key sorts as the real column does. One SELECT where the key is
        a text. Raises SchemaMismatch, DatabaseUnavailable."""
        key, *others = table.columns
        if not isinstance(key.type, String):
            return table
        stored = self.as_stored(table).key.type
        assert isinstance(stored, String)
        own = replace(key.type, is_padded=stored.is_padded)
        return replace(table, columns=(replace(key, type=own), *others))

    def known(self, table: Table) -> Table:
        """The same, as the table was when this process last compared it; as declared before that.
        No round trip."""
        return self._schema_check.known(table)

    def _misfit(self, error: DatabaseError) -> SchemaMismatch:
        return self._schema_check.misfit(error, self._describe)

    def _describe(self, names: Sequence[str]) -> Columns:
        return self._run(lambda connection: describe(connection, names))

    def _run(self, work: Callable[[Connection], Result], **connect_options: float | None) -> Result:
        try:
            try:
                return self._retries.run(work, **connect_options)
            except DatabaseError as error:
                raise (self._misfit(error) if is_misfit(error) else translated(error)) from error
        except DatabaseUnavailable:
            self.on_unavailable()
            raise


def _dated(connection: Connection, selects: Sequence[Statement]) -> tuple[int, Sequence[Rows]]:
    """When the writer began, in microseconds of its clock, and its answers."""
    is_read_only, now, *answers = connection.batch(
        [statements.IS_READ_ONLY, statements.NOW, *selects]
    )
    reject_replica(is_read_only[0][0])
    return int(now[0][0]), answers


def _rows_of_writer(connection: Connection, statement: Statement) -> Sequence[Row]:
    """The rows, where the server is not a replica. A kept connection may lead to a server that was
    made a replica meanwhile."""
    found, is_read_only = connection.batch([statement, statements.IS_READ_ONLY])
    reject_replica(is_read_only[0][0])
    return found


def _engine(settings: Settings, for_loads: bool) -> Connect:
    """Imported here, because a process needs only one of the engines."""
    if settings.db_engine is DbEngine.DATA_API:
        from chalicelib.db import data_api

        return data_api.Connector(settings)
    from chalicelib.db import mysql

    return mysql.Connector(settings, for_loads=for_loads)
