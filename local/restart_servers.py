"""Restarts a server that dies while `make run` serves, and says so."""

import time

from local.home_folder import Home, locked
from local.servers import Server, ServerError
from local.terminal import say

# A server that dies so often in so short a time is not started again.
MOST_DEATHS = 3
WITHIN_SECONDS = 10.0


class Watch:
    """Looks after the servers of one `make run`."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._outcomes = home.s3.outcomes()
        self._deaths: dict[Server, list[float]] = {server: [] for server in home.servers}

    def tell_outcomes(self) -> None:
        """Prints the outcome of each upload that has ended."""
        for outcome in iter(lambda: next(self._outcomes), None):
            say("ingest", outcome.in_words())

    def mend(self) -> None:
        """Starts each server that died again, on its old port. Raises ServerError where it died too
        often, or the port is taken."""
        for server in self._home.servers:
            if server.pid is None:
                self._count_death(server)
                self._start_again(server)

    def _count_death(self, server: Server) -> None:
        now = time.monotonic()
        recent = [death for death in self._deaths[server] if now - death < WITHIN_SECONDS]
        self._deaths[server] = [*recent, now]
        if len(recent) + 1 == MOST_DEATHS:
            often = f"ended {MOST_DEATHS} times within {WITHIN_SECONDS:g} s"
            raise ServerError(
                f"{server.title} {often}, so it is not started again. {server.last_words()}"
            )

    def _start_again(self, server: Server) -> None:
        say(server.title, f"ended by itself: starting it again on port {server.port}")
        with locked(self._home.lock):
            server.start_again()
        say(server.title, f"answers again, {self._what_is_left(server)}")
        if server is self._home.s3:
            self._outcomes = self._home.s3.outcomes()

    def _what_is_left(self, server: Server) -> str:
        why = f"why it ended: {server.home / 'log.before'}"
        if server is self._home.mariadb:
            return f"with every committed row; {why}"
        if server is self._home.redis:
            return f"empty; the database answers until rows are cached again; {why}"
        return f"without the uploaded files; the rows made from them are still there; {why}"
