"""MariaDB (or MySQL) as a private server on loopback."""

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from chalicelib.tables import Table
from local.machine import LOOPBACK, ROOT, find_program, write_private
from local.servers.server import Server, ServerError, installed


class MariaDB(Server):
    """Writes every commit to disk. Has one database, `herocache`, and a user of that name who may
    use only that one."""

    title = "MariaDB"
    database = "herocache"
    user = "herocache"

    @property
    def password(self) -> str:
        """The application user's password, chosen at the first start."""
        return self._secret("password")

    def environment(self) -> dict[str, str]:
        """The settings that lead the app to it."""
        return {
            "DB_HOST": self.address,
            "DB_PORT": str(self.port),
            "DB_USER": self.user,
            "DB_PASS": self.password,
            "DB_NAME": self.database,
        }

    def connect_as_root(self, **options: Any) -> Any:
        """A new PyMySQL connection of the server's root to our database, autocommit on."""
        return self._connect("root", self._secret("root-password"), **options)

    def make_known(self, user: str, password: str) -> None:
        """Logs in as this user over TLS: only then MySQL takes the password on a connection
        without. Whether the user may log in is not asked."""
        from pymysql.err import MySQLError

        with contextlib.suppress(MySQLError):
            self._connect(user, password, ssl_disabled=False).close()

    def query(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Rows of one statement, run as root."""
        with self.connect_as_root() as connection, connection.cursor() as cursor:
            cursor.execute(sql, values or None)
            return list(cursor.fetchall())

    def apply_schema(self) -> None:
        """Runs seed/schema.sql: creates missing tables, and leaves the others as they are."""
        self.run_script((ROOT / "seed" / "schema.sql").read_text(encoding="utf-8"))

    def apply_triggers(self, tables: Iterable[Table]) -> None:
        """Makes triggers that record what other clients change, where these tables are and lack
        them."""
        from chalicelib.db import change_capture

        present = {name for (name,) in self.query("SHOW TABLES")}
        made = {name for name, *_ in self.query("SHOW TRIGGERS")}
        missing = [
            statement.replace(" IF NOT EXISTS", "", 1)
            for table in tables
            for name, statement in change_capture.triggers(table).items()
            if table.name in present and name not in made
        ]
        if missing:
            self.run_script(";\n".join(missing))

    def run_script(self, script: str) -> None:
        """Runs SQL statements as root."""
        from pymysql.constants import CLIENT

        connection = self.connect_as_root(client_flag=CLIENT.MULTI_STATEMENTS)
        with connection, connection.cursor() as cursor:
            cursor.execute(script)
            while cursor.nextset():
                pass

    def stop(self, timeout_seconds: float = 30.0) -> None:
        """Stops it. Kills it where it is still starting: told to end then, it may hang, and there
        is nothing yet that a crash could lose."""
        self.resume()
        if self.pid is not None and not self._answers():
            self.kill()
        super().stop(timeout_seconds)

    @property
    def _identity(self) -> str:
        return f"--datadir={self.home / 'data'}"

    def _command(self, port: int) -> list[str]:
        return [
            self._program(),
            "--no-defaults",
            self._identity,
            *as_user(),
            f"--port={port}",
            f"--bind-address={self.address}",
            "--skip-name-resolve",
            "--socket=mysql.sock",  # in the data folder; its full path could exceed 107 bytes
            f"--init-file={self.home / 'init.sql'}",
            "--character-set-server=utf8mb4",
            "--local-infile=1",
            f"--secure-file-priv={self.home}",  # MySQL packages default to a folder they make
            "--innodb-flush-log-at-trx-commit=1",
            "--innodb-buffer-pool-size=256M",
            "--skip-log-bin",
            "--loose-mysqlx=OFF",
            *self._arguments,
        ]

    def _answers(self) -> bool:
        from pymysql.err import MySQLError

        try:
            # Both with TLS where there is: MySQL 8 takes a user's first password over nothing less.
            self._connect(self.user, self.password, read_timeout=5).close()
            self.connect_as_root(read_timeout=5).close()
        except MySQLError:
            return False
        return True

    def _environment(self) -> dict[str, str]:
        """Gives it a folder of its own for temporary files: in a shared folder, a server that
        starts removes the files of others, also of the machine's own server."""
        return {**os.environ, "TMPDIR": str(self.home / "tmp")}

    def _prepare(self) -> None:
        (self.home / "tmp").mkdir(exist_ok=True)
        write_private(self.home / "init.sql", "\n".join(self._accounts()) + "\n")
        data, unfinished = self.home / "data", self.home / "data.unfinished"
        if data.exists():
            return
        # The folder gets its name when it is whole: an interrupted first start leaves nothing
        # behind.
        shutil.rmtree(unfinished, ignore_errors=True)
        with (self.home / "log").open("wb") as log:
            succeeded = run_to_the_end(
                self._make_data_command(unfinished), self._environment(), log.fileno()
            )
        if not succeeded:
            raise ServerError(f"{self.title} could not make its data folder. {self.last_words()}")
        unfinished.rename(data)

    def _make_data_command(self, data: Path) -> list[str]:
        install = find_program("mariadb-install-db")
        options = ["--no-defaults", f"--datadir={data}"]
        if install is None or not self.is_mariadb:
            return [self._program(), *options, "--initialize-insecure", *as_user()]
        # Without --user: with it, the script runs `chown` on an unquoted path, which may hold a
        # space. With --force: the script does not look up this machine's name, which may be
        # unknown.
        options += ["--force", "--skip-name-resolve", "--skip-test-db"]
        return [install, *options, "--auth-root-authentication-method=socket"]

    def _accounts(self) -> list[str]:
        """SQL that the server runs before it accepts connections, so that no account is ever
        without a password."""
        root, ours = f"'root'@'{LOOPBACK}'", f"'{self.user}'@'{LOOPBACK}'"
        root_password = self._secret("root-password")
        return [
            f"CREATE DATABASE IF NOT EXISTS {self.database} CHARACTER SET utf8mb4;",
            f"ALTER USER 'root'@'localhost' IDENTIFIED BY '{root_password}';",
            f"CREATE USER IF NOT EXISTS {root} IDENTIFIED BY '{root_password}';",
            f"GRANT ALL ON *.* TO {root} WITH GRANT OPTION;",
            f"CREATE USER IF NOT EXISTS {ours} IDENTIFIED BY '{self.password}';",
            f"GRANT ALL ON {self.database}.* TO {ours};",
        ]

    def _connect(self, user: str, password: str, **options: Any) -> Any:
        # Imported here: `make down` must stop servers when the packages are gone.
        import pymysql

        # The driver needs 20 ms to be ready for TLS, each time. MySQL wants TLS for the first use
        # of a password; MariaDB does so where it was told to.
        options.setdefault("ssl_disabled", self.is_mariadb and not self._wants_tls)
        return pymysql.connect(
            host=self.address,
            port=self.port,
            user=user,
            password=password,
            database=self.database,
            charset="utf8mb4",
            autocommit=True,
            connect_timeout=5,
            **options,
        )

    @property
    def is_mariadb(self) -> bool:
        """Whether it is, and not MySQL."""
        return self._program().endswith("mariadbd")

    @property
    def _wants_tls(self) -> bool:
        return any(argument.startswith("--ssl-") for argument in self._arguments)

    def _program(self) -> str:
        return installed("MariaDB or MySQL", "mariadbd", "mysqld")


def integers(first: int, last: int) -> str:
    """SQL of a table with the rising integers from `first` to `last` in its column `seq`."""
    zeros = f"CONCAT('[0', REPEAT(',0', {last - 1}), ']')"
    table = f"JSON_TABLE({zeros}, '$[*]' COLUMNS (seq FOR ORDINALITY))"
    return f"(SELECT seq FROM {table} AS zeros WHERE seq >= {first}) AS integers"


def as_user() -> list[str]:
    """The option that MariaDB wants from a root shell, as in a container, and from nobody else."""
    return ["--user=root"] if os.geteuid() == 0 else []


def run_to_the_end(command: list[str], environment: Mapping[str, str], log: int) -> bool:
    """Whether the command succeeded. When we are interrupted, kills it and all that it started."""
    process = subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        start_new_session=True,
    )
    try:
        return process.wait() == 0
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise
