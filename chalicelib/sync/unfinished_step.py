"""What a step of a run has done to rows and public keys before it keeps what both sides have.

A run may end in between. The next one then finds a public key that differs from its row. It must
not take that for a change by a client where only the row was changed since: so each change first
records the fingerprint of what stands under the public key then.
"""

from collections.abc import Callable, Mapping, Sequence

from chalicelib.cache import Found, fingerprint
from chalicelib.db import Statement
from chalicelib.tables import Key

PRINT_CHARACTERS = 16

# Fingerprints by key: while one of them stands under the public key, no client has touched it.
Prints = Mapping[Key, Sequence[str]]


class UnfinishedStep:
    """`earlier`: what a run has recorded that ended within this step. `statements` record it anew.
    `is_recorded`: whether anything of this step was, or may have been."""

    def __init__(self, earlier: Prints, statements: Callable[[Prints], Sequence[Statement]]):
        self._earlier = earlier
        self._statements = statements
        self._prints: dict[Key, Sequence[str]] = {}
        self._recording: tuple[Mapping[Key, Found], dict[Key, Sequence[str]]] = ({}, {})
        self.is_recorded = bool(earlier)

    def untouched(self, found: Mapping[Key, Found]) -> set[Key]:
        """Where only a run has set what is `found`, or has followed it already: the row counts."""
        own = {k: _print(found[k]) for k in self._earlier if k in found}
        self._prints = {k: [text] for k, text in own.items() if text in self._earlier[k]}
        return {*self._prints}

    def recording(self, found: Mapping[Key, Found]) -> Sequence[Statement]:
        """Statements to commit before these values are set under the public keys, or together with
        the rows that follow them."""
        self.is_recorded = True
        self._recording = found, self._with(found)
        return self._statements(self._recording[1])

    def recorded(self, found: Mapping[Key, Found]) -> None:
        """They are committed, as `recording` was told last."""
        last, prints = self._recording
        self._prints = prints if last is found else self._with(found)

    def _with(self, found: Mapping[Key, Found]) -> dict[Key, Sequence[str]]:
        new = {key: _print(each) for key, each in found.items()}
        if not self._prints:
            return {key: [text] for key, text in new.items()}
        return self._prints | {
            key: list(dict.fromkeys([*self._prints.get(key, ()), text]))
            for key, text in new.items()
        }


def _print(found: Found) -> str:
    return fingerprint(found)[:PRINT_CHARACTERS].ljust(PRINT_CHARACTERS, "-")
