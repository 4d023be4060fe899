"""Products 11 and 22 as the proof of concept shows them, and a client with redis-cli's words."""

import pytest

from tests.support.client import InProcess
from tests.support.witness import Witness
from tests.sync.clients import RedisCli, product


@pytest.fixture
def cli(witness: Witness) -> RedisCli:
    return RedisCli(witness.redis)


@pytest.fixture
def shop(service: InProcess) -> InProcess:
    """Warm, with its products."""
    service.write([product(11, Price=400), product(22, QuantityInStock=3000)], TABLE="products")
    return service
