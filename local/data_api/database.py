"""Connections of the service to MariaDB. The only module here that knows PyMySQL's connections."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pymysql
from pymysql.constants import CLIENT, CR, ER
from pymysql.converters import encoders
from pymysql.err import MySQLError

from local.data_api.columns import Column
from local.data_api.errors import ServiceError, database_error

# As the parameter group of the cluster in infra/template.yaml sets them for a session.
PARAMETERS = (
    "transaction_isolation='READ-COMMITTED', sql_mode='STRICT_ALL_TABLES',"
    " innodb_lock_wait_timeout=2"
)
# MariaDB's older name for one of them.
OLDER_NAME = ("transaction_isolation", "tx_isolation")
# The environment variable that gives others. For tests.
OTHER_PARAMETERS = "DATA_API_PARAMETERS"

Row = tuple[str | bytes | None, ...]
LOST = {CR.CR_SERVER_GONE_ERROR, CR.CR_SERVER_LOST, CR.CR_SERVER_LOST_EXTENDED, 1927}
UNREACHABLE = {CR.CR_CONN_HOST_ERROR, CR.CR_CONNECTION_ERROR, ER.CON_COUNT_ERROR}


@dataclass(frozen=True)
class Result:
    """`columns` is None where the statement gives no rows."""

    columns: list[Column] | None
    rows: list[Row]
    records_updated: int
    generated_key: int

    def row_bytes(self) -> list[int]:
        """The size of each row as the database sends it."""
        return [sum(map(sent_bytes, row)) for row in self.rows]


class Connection:
    """One session. Every error is a ServiceError."""

    def __init__(self, driver: Any) -> None:
        self._driver = driver
        self.id: int = driver.thread_id()

    def run(self, sql: str) -> Result:
        """Runs one statement."""
        try:
            with self._driver.cursor() as cursor:
                cursor.execute(sql)
                return result_of(cursor)
        except MySQLError as error:
            raise service_error(error) from error
        except RuntimeError as error:
            # PyMySQL on LOAD DATA LOCAL.
            raise ServiceError("BadRequestException", str(error), aborts=True) from error

    def commit(self) -> None:
        """Commits the transaction."""
        try:
            self._driver.commit()
        except MySQLError as error:
            raise service_error(error) from error

    def close(self) -> None:
        """Rolls back what is not committed, and returns when it is."""
        try:
            self._driver.rollback()
            self._driver.close()
        except MySQLError:
            self._driver.close() if self._driver.open else None


class Database:
    """MariaDB, by the settings of the app: DB_HOST, DB_PORT, DB_USER, DB_PASS."""

    def __init__(self, settings: Mapping[str, str]) -> None:
        self._settings = settings

    def connect(self, database: str | None, autocommit: bool) -> Connection:
        """A new session: no call sees what another left in its session. The service keeps
        connections for later calls; whether their sessions are reset is not documented. Raises
        ServiceError."""
        try:
            driver = pymysql.connect(
                host=self._settings["DB_HOST"],
                port=int(self._settings["DB_PORT"]),
                user=self._settings["DB_USER"],
                password=self._settings["DB_PASS"],
                database=database,
                charset="utf8mb4",
                # Off: like a JDBC driver, so that DDL or a deadlock, which end a transaction in the
                # database, leave one that goes on.
                autocommit=autocommit,
                # No decoders: values come as the database sent them.
                conv=dict(encoders.items()),
                # JDBC drivers for MySQL count the rows that an UPDATE found, not those that it
                # changed. The documentation of the service does not say.
                client_flag=CLIENT.FOUND_ROWS,
                connect_timeout=5,
                ssl_disabled=True,
            )
            parameters = self._settings.get(OTHER_PARAMETERS, PARAMETERS)
            if "MariaDB" in driver.get_server_info():
                parameters = parameters.replace(*OLDER_NAME)
            driver.query(f"SET {parameters}")
        except MySQLError as error:
            raise service_error(error) from error
        return Connection(driver)

    def kill_statement(self, connection_id: int) -> None:
        """Ends the statement that runs on a connection."""
        killer = self.connect(None, autocommit=True)
        try:
            killer.run(f"KILL QUERY {connection_id}")
        finally:
            killer.close()


def service_error(error: MySQLError) -> ServiceError:
    """What the service makes of an error of the driver. Without a connection it has its own
    exceptions; which one it answers when a connection is lost in the middle of a statement is not
    documented."""
    number = error.args[0] if error.args and isinstance(error.args[0], int) else 0
    message = str(error.args[1]) if len(error.args) > 1 else str(error)
    if number in LOST or number in UNREACHABLE or number == 0:
        return ServiceError("DatabaseUnavailableException", message, aborts=True)
    if number == ER.ACCESS_DENIED_ERROR:
        return ServiceError("InvalidSecretException", message)
    return database_error(message, number, getattr(error, "sqlstate", None) or "HY000")


def result_of(cursor: Any) -> Result:
    if cursor.description is None:
        return Result(None, [], max(cursor.rowcount, 0), cursor.lastrowid or 0)
    # Private to PyMySQL, checked with 1.2.4: the description has no flags, no character set and no
    # names of tables.
    fields = cursor._result.fields
    return Result([column(field) for field in fields], list(cursor.fetchall()), 0, 0)


def column(field: Any) -> Column:
    return Column(
        label=field.name,
        name=field.org_name or field.name,
        table=field.org_table,
        type=field.type_code,
        flags=field.flags,
        charset=field.charsetnr,
        length=field.length,
        decimals=field.scale,
    )


def sent_bytes(value: str | bytes | None) -> int:
    """The size of a value in MySQL's protocol: a length, then the text."""
    if value is None:
        return 1
    size = len(value.encode() if isinstance(value, str) else value)
    return size + (1 if size < 251 else 3 if size < 2**16 else 4 if size < 2**24 else 9)
