"""Redis (or Valkey) as a private server on loopback."""

import secrets
import socket
from collections.abc import Sequence
from pathlib import Path

from local.machine import LOOPBACK, write_private
from local.servers.server import Server, installed


class Redis(Server):
    """Redis as a cache only: nothing on disk, and when it is full the least recently used goes.

    `asks_password`: clients need a password. Else every user of this machine could change what is
    cached.
    """

    title = "Redis"

    def __init__(
        self,
        home: Path,
        port: int | None = None,
        arguments: Sequence[str] = (),
        asks_password: bool = False,
    ) -> None:
        super().__init__(home, port, arguments)
        self._password_file = self.home / "password.conf" if asks_password else None

    def environment(self) -> dict[str, str]:
        """The setting that leads the app to it."""
        place = f"{LOOPBACK}:{self.port}"
        # Named, because redis-cli sends an empty name for a URL without one.
        login = f"default:{self._password}@" if self._password_file else ""
        return {"REDIS_URL": f"redis://{login}{place}"}

    @property
    def _password(self) -> str:
        """The password of this home. It stays the same when the server starts again."""
        assert self._password_file is not None
        if not self._password_file.exists():
            write_private(self._password_file, f"requirepass {secrets.token_hex(16)}\n")
        return self._password_file.read_text().split()[1]

    def _prepare(self) -> None:
        if self._password_file:
            assert self._password

    @property
    def _identity(self) -> str:
        # Redis overwrites its command line, but keeps the first word. That word is in our folder.
        return str(self.home / "redis-server")

    def _executable(self) -> str:
        return installed("Redis or Valkey", "redis-server", "valkey-server")

    def _command(self, port: int) -> list[str]:
        where = ["--port", str(port), "--bind", LOOPBACK]
        memory = ["--maxmemory", "256mb", "--maxmemory-policy", "allkeys-lru"]
        disk = ["--save", "", "--appendonly", "no"]
        # In a file, because every user of the machine can see a command line.
        password = [str(self._password_file)] * bool(self._password_file)
        return [self._identity, *password, *where, *memory, *disk, *self._arguments]

    def _answers(self) -> bool:
        """Whether this process, and not another server, answers on the port."""
        try:
            with socket.create_connection((LOOPBACK, self.port), timeout=5) as connection:
                if self._password_file:
                    connection.sendall(f"AUTH {self._password}\r\n".encode())
                    connection.recv(5)  # +OK and the line end
                connection.sendall(b"INFO server\r\n")
                return f"process_id:{self.pid}\r\n".encode() in connection.recv(65_536)
        except OSError:
            return False
