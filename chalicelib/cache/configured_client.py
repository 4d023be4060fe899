"""The client of Redis that the settings ask for."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from chalicelib.cache import keys, public_scripts, scripts
from chalicelib.cache.commands import Command, NoClient
from chalicelib.cache.keys import Keys
from chalicelib.config import REDIS_URL, Settings
from chalicelib.errors import ConfigurationError
from chalicelib.tables import Table

if TYPE_CHECKING:
    from chalicelib.cache.client import Client


def new_client(
    settings: Settings, tables: Mapping[str, Table], timeout_seconds: float | None = None
) -> "Client | NoClient":
    """`timeout_seconds`: as `Client` has it. Without REDIS_URL the driver is not imported, and need
    not be installed."""
    if not settings.redis_url:
        return NoClient()
    try:
        from chalicelib.cache.client import Client
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"{REDIS_URL} is set, and the package {error.name} is not installed: the functions were"
            " deployed for a stage without a cache; deploy them again"
        ) from error
    texts = (*scripts.ALL, *public_scripts.ALL)
    return Client(settings, texts, _probe(tables, settings.redis_cluster), timeout_seconds)


def _probe(tables: Mapping[str, Table], is_cluster: bool) -> list[Command]:
    """Commands that write to each server with entries, and leave nothing behind."""
    buckets = Keys(is_cluster).buckets
    tags = [keys.tag(table, bucket) for table in tables.values() for bucket in buckets]
    return [
        Command(tag, words)
        for tag in (tags if is_cluster else tags[:1])
        for words in (("SET", keys.probe(tag), "", "PX", 1000), ("DEL", keys.probe(tag)))
    ]
