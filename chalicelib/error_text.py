"""Values as the texts of errors show them."""

import itertools
import json
from collections.abc import Iterable, Sequence, Sized
from typing import Any

_SHOWN_CHARACTERS = 60
_SHOWN_ITEMS = 6
_SHOWN_LEVELS = 3


def shown(value: object) -> str:
    """A value as an error shows it: as JSON, with strings in single quotes, and cut short."""
    text = _shown(value, _SHOWN_LEVELS)
    return text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "…"


def _shown(value: object, levels: int) -> str:
    """As `shown`. Shows only a few levels and items of a list or an object, because a client may
    send any number of them."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, int) and value.bit_length() > 200:
        return f"an integer of {value.bit_length()} bits"
    if isinstance(value, str):
        return repr(value[: _SHOWN_CHARACTERS + 1])
    if isinstance(value, list):
        return f"[{_listed([_shown(item, levels - 1) for item in _few(value, levels)], value)}]"
    if isinstance(value, dict):
        pairs = [
            f"{_shown(name, levels)}: {_shown(value[name], levels - 1)}"
            for name in _few(value, levels)
        ]
        return f"{{{_listed(pairs, value)}}}"
    return repr(value)


def _few(items: Iterable[Any], levels: int) -> Iterable[Any]:
    return itertools.islice(items, _SHOWN_ITEMS if levels else 0)


def _listed(shown_items: Sequence[str], items: Sized) -> str:
    return ", ".join([*shown_items, *["…"] * (len(shown_items) < len(items))])
