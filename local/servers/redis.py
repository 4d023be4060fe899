"""Redis (or Valkey) as a private server on loopback."""

import socket

from local.machine import LOOPBACK
from local.servers.server import Server, installed


class Redis(Server):
    """Redis as a cache only: nothing on disk, and when it is full the least recently used goes."""

    title = "Redis"

    def environment(self) -> dict[str, str]:
        """The setting that leads the app to it."""
        return {"REDIS_URL": f"redis://{LOOPBACK}:{self.port}"}

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
        return [self._identity, *where, *memory, *disk, *self._arguments]

    def _answers(self) -> bool:
        """Whether this process, and not another server, answers on the port."""
        try:
            with socket.create_connection((LOOPBACK, self.port), timeout=5) as connection:
                connection.sendall(b"INFO server\r\n")
                return f"process_id:{self.pid}\r\n".encode() in connection.recv(65_536)
        except OSError:
            return False
