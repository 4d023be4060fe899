"""An emulated AWS for the tests of one module."""

from collections.abc import Iterator

import pytest

from tests.support.emulated_aws import Emulated, emulated


@pytest.fixture(scope="module")
def account() -> Iterator[Emulated]:
    with emulated() as account:
        yield account
