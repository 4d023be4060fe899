"""From the settings to a connection that is logged in."""

import pymysql
from pymysql.constants import CLIENT

from chalicelib.clocks import clocks, seconds_since
from chalicelib.config import Settings
from chalicelib.credentials import STAGES, Login, database_credentials
from chalicelib.db.engine import ANSWER_TIMEOUT_SECONDS, LOAD_TIMEOUT_SECONDS
from chalicelib.db.errors import LOGIN_NEEDS_TLS, DatabaseError, is_login_rejected
from chalicelib.db.mysql.connection import Connection, as_database_error
from chalicelib.db.mysql.driver import CONNECT_TIMEOUT_SECONDS, require_checked_driver
from chalicelib.db.mysql.tls import is_loopback, tls_context

# A database that greeted so recently is awake: Aurora pauses after 5 minutes at the soonest.
AWAKE_SECONDS = 60


class Connector:
    """Opens connections to the server that the settings name. One for loads may be asked for files:
    see `Connection.load`."""

    def __init__(self, settings: Settings, *, for_loads: bool) -> None:
        """Raises ConfigurationError where the driver has another version than the one that was
        checked."""
        require_checked_driver()
        self.credentials = database_credentials(settings)
        self._settings = settings
        self._for_loads = for_loads
        self._greeted_at = (0.0, 0.0)

    def __call__(self, patience_seconds: float | None = None) -> Connection:
        """`patience_seconds` for the server's greeting; the network and the login have less. With
        another password where the first is rejected: passwords may change while we run. Raises
        DatabaseError, ConfigurationError."""
        patience, login = patience_seconds or self._usual_patience(), self.credentials.login()
        for _ in STAGES:
            try:
                return self._connect_as(login, patience)
            except DatabaseError as error:
                other = self.credentials.instead(login) if is_login_rejected(error) else None
                if other is None:
                    raise
                patience, login = min(patience, CONNECT_TIMEOUT_SECONDS), other
        return self._connect_as(login, patience)

    def _usual_patience(self) -> float:
        """A request may open several connections. It waits once for a database that sleeps."""
        is_awake = seconds_since(self._greeted_at) < AWAKE_SECONDS
        resume_seconds = 0 if is_awake else self._settings.db_resume_seconds
        return max(CONNECT_TIMEOUT_SECONDS, resume_seconds)

    def _connect_as(self, login: Login, patience_seconds: float) -> Connection:
        authority = self._settings.db_ssl_ca
        try:
            connection = Connection(
                host=self._settings.db_host,
                port=self._settings.db_port,
                user=login.user,
                password=login.password,
                database=self._settings.db_name,
                charset="utf8mb4",
                autocommit=None,
                client_flag=CLIENT.MULTI_STATEMENTS,
                connect_timeout=min(patience_seconds, CONNECT_TIMEOUT_SECONDS),
                read_timeout=patience_seconds,
                write_timeout=ANSWER_TIMEOUT_SECONDS,
                ssl=tls_context(authority) if authority else None,
                ssl_disabled=not authority and is_loopback(self._settings.db_host),
                local_infile=self._for_loads,
            )
            self._greeted_at = clocks()
            if self._for_loads:
                connection.be_patient(LOAD_TIMEOUT_SECONDS)
            return connection
        except pymysql.MySQLError as error:
            raise as_database_error(error) from error
        except RuntimeError as error:  # the driver's word for a login it has no library for
            raise DatabaseError(LOGIN_NEEDS_TLS, str(error)) from error
