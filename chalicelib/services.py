"""What a container builds once: the database, the cache and the use cases, from the settings.

Each part is built when it is first needed. Building does no I/O. All requests of the container, and
all threads of `chalice local`, share the parts.
"""

import dataclasses
import os
import threading
from contextlib import suppress
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

from chalicelib.cache import Cache, Generations, Recovery, public_store
from chalicelib.config import RANGES_BUCKET, Settings, UncachedReads
from chalicelib.db import Database
from chalicelib.errors import ConfigurationError
from chalicelib.rows import LazyLoading, RowLoader, RowService, WriteBehind, WriteThrough

if TYPE_CHECKING:
    from chalicelib.cache import PublicStore
    from chalicelib.ingest.service import Ingest
    from chalicelib.sync import CapturedChanges, RangeWorker, Sync, WatchChanges, Watches

    part = cached_property
else:

    class part(cached_property):
        """A part of a container. Where threads need it at the same time they get the same one:
        Python's own makes one for each of them, from 3.12 on."""

        _building = threading.RLock()

        def __get__(self, instance: object, owner: type | None = None) -> Any:
            with self._building:
                return super().__get__(instance, owner)


@lru_cache(maxsize=1)
def container() -> "Container":
    """The container's parts, built by the first request and kept. Raises ConfigurationError, at
    each call, while a setting is wrong."""
    return Container(Settings.from_environment(os.environ))


def import_drivers() -> None:
    """Imports what the first request needs, and does no I/O. A starting container has more CPU than
    a request. Wrong settings are left to the first request."""
    with suppress(ConfigurationError):
        built = Container(Settings.from_environment(os.environ))
        built.database, built.cache  # noqa: B018  # the making of them imports their drivers


def forget() -> None:
    """Build everything again at the next request. For tests that change the environment."""
    container.cache_clear()


class Container:
    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    @part
    def rows(self) -> RowService:
        loader = RowLoader(self.database, self.replica)
        lazy_loading = LazyLoading(loader, self.cache, self.generations, self.recovery)
        return RowService(
            self.database,
            loader,
            lazy_loading,
            self.write_through,
            WriteBehind(self.database, lazy_loading, self.cache, self.generations, self.recovery),
        )

    @part
    def captured_changes(self) -> "CapturedChanges":
        from chalicelib.sync import CapturedChanges

        return CapturedChanges(self.database, self.write_through, self.generations)

    @part
    def ingest(self) -> "Ingest":
        # Imported here, because a read needs neither boto3 nor csv.
        from chalicelib.ingest.service import Ingest

        loads = Database(self.settings, for_loads=True)
        return Ingest(
            loads,
            WriteThrough(loads, self.cache, self.generations, self.recovery),
            self.settings.max_rejected_percent,
            self.settings.max_upload_bytes,
            self.settings.ingest_engine,
            self.settings.default_table,
            self.settings.ingest_columns,
        )

    @part
    def write_through(self) -> WriteThrough:
        return WriteThrough(self.database, self.cache, self.generations, self.recovery)

    @part
    def sync(self) -> "Sync":
        # Imported here, because a read needs none of it.
        from chalicelib.ingest import ANY_FOLDER, Bucket
        from chalicelib.sync import Sync

        ranges = Bucket(
            self.settings.ranges_bucket, self.settings.bucket_owner, RANGES_BUCKET, ANY_FOLDER
        )

        def put(key: str, body: bytes) -> None:
            ranges.write(key, body, "application/json")

        return Sync(
            self.database,
            self.write_through,
            self.public_store,
            self.captured_changes,
            self.cache.tables,
            has_cache=self.cache.is_configured,
            put=put if self.settings.ranges_bucket else None,
        )

    @part
    def range_worker(self) -> "RangeWorker":
        from chalicelib.sync import RangeWorker

        return RangeWorker(self.database, self.write_through, self.public_store, self.cache.tables)

    @part
    def watches(self) -> "Watches":
        from chalicelib.sync import Watches

        return Watches(self.database)

    @part
    def watch_changes(self) -> "WatchChanges":
        from chalicelib.sync import WatchChanges

        return WatchChanges(self.database, self.public_store, self.watches)

    @part
    def public_store(self) -> "PublicStore":
        return public_store(self.settings)

    @part
    def database(self) -> Database:
        """The writer endpoint."""
        return Database(self.settings)

    @part
    def replica(self) -> Database | None:
        """The replica that answers uncached reads; None where UNCACHED_READS leaves them to the
        writer. It may lack the last writes. If it is asleep, the writer answers instead: nobody
        waits for it."""
        if self.settings.uncached_reads is UncachedReads.WRITER:
            return None
        host = self.settings.db_reader_host
        there = dataclasses.replace(self.settings, db_host=host, db_resume_seconds=0)
        return Database(there, is_replica=True)

    @part
    def cache(self) -> Cache:
        return Cache(self.settings)

    @part
    def generations(self) -> Generations:
        return Generations(self.database, self.cache)

    @part
    def recovery(self) -> Recovery:
        return Recovery(self.database, self.cache, self.generations)
