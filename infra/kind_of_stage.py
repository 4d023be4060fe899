"""The kind of a stage: what its stack's outputs say of the engine, the cache and the network."""

from collections.abc import Mapping

Outputs = Mapping[str, str]


def uses_data_api(outputs: Outputs) -> bool:
    """Whether the functions reach the database by the RDS Data API. They open no connection
    then. A stack from before there was a choice lacks the output."""
    return outputs.get("DatabaseEngine") == "dataapi"


def has_cache(outputs: Outputs) -> bool:
    """Whether there is a cache."""
    return outputs["CacheKind"] != "none"


def is_in_network(outputs: Outputs) -> bool:
    """Whether the functions are in the private network. Connections and the cache need it."""
    return has_cache(outputs) or not uses_data_api(outputs)
