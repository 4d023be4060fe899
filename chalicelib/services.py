"""What a container builds once: from the settings the database, the cache and the use cases.

Nothing is built before it is first needed, and nothing here does I/O. The parts are shared by all
requests of the container, and by the threads of `chalice local`.
"""

import dataclasses
import os
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING

from chalicelib.cache import Cache, Generations, Recovery
from chalicelib.config import Settings, UncachedReads
from chalicelib.db import Database
from chalicelib.rows import LazyLoading, RowLoader, RowService, WriteThrough

if TYPE_CHECKING:
    from chalicelib.ingest.service import Ingest


@lru_cache(maxsize=1)
def container() -> "Container":
    """Built by the first request and kept. Raises ConfigurationError, each time until the
    environment is right."""
    return Container(Settings.from_environment(os.environ))


def forget() -> None:
    """Build everything anew at the next request. For tests that change the environment."""
    container.cache_clear()


class Container:
    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    @cached_property
    def rows(self) -> RowService:
        loader = RowLoader(self.database, self.replica)
        return RowService(
            self.database,
            loader,
            LazyLoading(loader, self.cache, self.generations, self.recovery),
            WriteThrough(self.database, self.cache, self.generations, self.recovery),
        )

    @cached_property
    def ingest(self) -> "Ingest":
        from chalicelib.ingest.service import Ingest  # boto3 and csv: a read needs neither

        loads = Database(self.settings, for_loads=True)
        return Ingest(
            loads,
            WriteThrough(loads, self.cache, self.generations, self.recovery),
            self.settings.max_rejected_percent,
            self.settings.ingest_engine,
            self.settings.default_table,
            self.settings.ingest_columns,
        )

    @cached_property
    def database(self) -> Database:
        """The writer endpoint."""
        return Database(self.settings)

    @cached_property
    def replica(self) -> Database | None:
        """Answers reads without the cache where UNCACHED_READS says so: it may not have the last
        writes. Nobody waits until a replica that is asleep resumes: the writer answers then."""
        if self.settings.uncached_reads is UncachedReads.WRITER:
            return None
        host = self.settings.db_reader_host
        there = dataclasses.replace(self.settings, db_host=host, db_resume_seconds=0)
        return Database(there, is_replica=True)

    @cached_property
    def cache(self) -> Cache:
        return Cache(self.settings)

    @cached_property
    def generations(self) -> Generations:
        return Generations(self.database, self.cache)

    @cached_property
    def recovery(self) -> Recovery:
        return Recovery(self.database, self.cache, self.generations)
