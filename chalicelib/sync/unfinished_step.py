"""What a step of a run has done to rows and public keys before it keeps what both sides have.

A run may end in between. The next one then finds a public key that differs from its row. It must
not take that for a change by a client where only the row was changed since: so each change first
records the fingerprint of what stands under the public key before it and after it.
"""

from collections.abc import Callable, Mapping, Sequence

from chalicelib.cache import Found, fingerprint
from chalicelib.db import Statement
from chalicelib.tables import Key

PRINT_CHARACTERS = 16

# Fingerprints by key: while one of them stands under the public key, no client has touched it.
Prints = Mapping[Key, Sequence[str]]


class UnfinishedStep:
    """`earlier`: what a run has recorded that ended within this step; of other keys it stays as it
    is. `statements` record all of it anew. `is_recorded`: whether anything was, or may have
    been."""

    def __init__(self, earlier: Prints, statements: Callable[[Prints], Sequence[Statement]]):
        self._earlier = earlier
        self._statements = statements
        self._prints: Prints = earlier
        self._recording: tuple[Mapping[Key, Found], Prints] = ({}, {})
        self.is_recorded = bool(earlier)

    def compare(self, found: Mapping[Key, Found]) -> tuple[set[Key], set[Key]]:
        """The keys of which something is recorded: those where only a run has set what is `found`,
        or has followed it already, so that the row counts; and those where a client has set it
        since, so that what both sides had last tells nothing. `found` has every key of the step."""
        own = {key: _print(found[key]) for key in self._earlier if key in found}
        untouched = {key: [text] for key, text in own.items() if text in self._earlier[key]}
        others = {key: texts for key, texts in self._earlier.items() if key not in own}
        self._prints = others | untouched
        return {*untouched}, own.keys() - untouched.keys()

    def recording(self, *found: Mapping[Key, Found]) -> Sequence[Statement]:
        """Statements to commit before public keys are set, with the values before and after that;
        or together with the rows that follow these values."""
        self.is_recorded = True
        prints = self._prints
        for each in found:
            prints = _with(prints, each)
        self._recording = found[-1], prints
        return self._statements(prints)

    def recorded(self, found: Mapping[Key, Found]) -> None:
        """They are committed, as `recording` was told last."""
        last, prints = self._recording
        self._prints = prints if last is found else _with(self._prints, found)


def _with(prints: Prints, found: Mapping[Key, Found]) -> Prints:
    new = {key: _print(each) for key, each in found.items()}
    if not prints:
        return {key: [text] for key, text in new.items()}
    both = {key: dict.fromkeys([*prints.get(key, ()), text]) for key, text in new.items()}
    return {**prints, **{key: list(texts) for key, texts in both.items()}}


def _print(found: Found) -> str:
    return fingerprint(found)[:PRINT_CHARACTERS].ljust(PRINT_CHARACTERS, "-")
