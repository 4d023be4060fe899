"""The servers under a living `make run`: one that died is told and started again."""

import time

from local.process import Server, ServerError
from local.services import Services, locked, say

MOST_DEATHS = 3
WITHIN_SECONDS = 10.0
"""A server that dies so often in so short a time is left dead."""


class Watch:
    """Of one `make run`."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._outcomes = services.s3.outcomes()
        self._deaths: dict[Server, list[float]] = {server: [] for server in services.servers}

    def tell_outcomes(self) -> None:
        """Of the uploads that the function is done with."""
        for outcome in iter(lambda: next(self._outcomes), None):
            say("ingest", outcome.in_words())

    def mend(self) -> None:
        """Start each server again that died, with the port it had. Raises ServerError where it died
        too often, or its port is taken."""
        for server in self._services.servers:
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
        with locked(self._services.lock):
            server.start_again()
        say(server.title, f"answers again, {self._what_is_left(server)}")
        if server is self._services.s3:
            self._outcomes = self._services.s3.outcomes()

    def _what_is_left(self, server: Server) -> str:
        why = f"why it ended: {server.home / 'log.before'}"
        if server is self._services.mariadb:
            return f"with every committed row; {why}"
        if server is self._services.redis:
            return f"empty; the database answers until rows are cached again; {why}"
        return f"without the uploaded files; the rows made from them are still there; {why}"
