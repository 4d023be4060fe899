"""The private parts of redis-py that we override. Other tests show what they do: test_host_names.py
(a host name that is not found), test_redis_silent.py (a reply byte by byte), test_redis_mismatch.py
(TLS)."""

from importlib.metadata import version

import pytest

from chalicelib.cache.redis_driver import _PRIVATE_PARTS, CHECKED_VERSION, check_driver
from chalicelib.errors import ConfigurationError


def changed(self: object, *anything: object) -> None:
    raise AssertionError("never called")


def test_the_installed_driver_is_the_one_that_was_checked() -> None:
    check_driver()

    assert version("redis") == CHECKED_VERSION


@pytest.mark.parametrize("change", ["gone", "with other parameters"])
@pytest.mark.parametrize("part", _PRIVATE_PARTS, ids=lambda part: f"{part[0].__name__}.{part[1]}")
def test_a_driver_with_a_changed_private_part_is_rejected(
    part: tuple[type, str], change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner, name = part
    if change == "gone":
        monkeypatch.delattr(owner, name)
    else:
        monkeypatch.setattr(owner, name, changed)

    with pytest.raises(ConfigurationError, match=rf"{name} than redis {CHECKED_VERSION}"):
        check_driver()
