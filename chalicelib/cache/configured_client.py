"""The client of Redis that the settings ask for."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from chalicelib.cache import entry_scripts, public_scripts
from chalicelib.cache.commands import NoClient
from chalicelib.cache.entry_commands import probe
from chalicelib.cache.write_behind_totals import scripts_of
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
    texts = (*entry_scripts.ALL, *public_scripts.ALL, *scripts_of(tables.values()))
    return Client(settings, texts, probe(tables, settings.redis_cluster), timeout_seconds)
