"""The client in a cache that has a Redis."""

from chalicelib.cache import Cache
from chalicelib.cache.client import Client


def client_of(cache: Cache) -> Client:
    assert isinstance(cache._client, Client)
    return cache._client
