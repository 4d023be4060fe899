"""What a step of a run has done to rows and public keys before it keeps what both sides have.

A run may end in between. The next one then finds a public key that differs from its row. It must
not take that for a change by a client where only the row was changed since: so each change first
records the fingerprint of what stands under the public key before it and after it.
"""

from collections.abc import Callable, Collection, Mapping, Sequence

from chalicelib.cache import Found, fingerprint
from chalicelib.db import Statement
from chalicelib.sync import public_values
from chalicelib.tables import Key, Table

PRINT_CHARACTERS = 16

# Fingerprints by key, one behind the other: while one of them stands under the public key, no
# client has touched it.
Prints = Mapping[Key, str]


class UnfinishedStep:
    """`earlier`: what a run has recorded that ended within this step; of other keys it stays as it
    is. `statements` record all of it anew; those of `keep` also keep digests, as the step does at
    its end. `is_recorded`: whether anything was, or may have been. `kept`: the digests that are
    kept already."""

    def __init__(
        self,
        earlier: Prints,
        statements: Callable[[Prints], Sequence[Statement]],
        keep: Callable[[Mapping[Key, str], Prints], Sequence[Statement]],
    ):
        self.earlier = earlier
        self._statements = statements
        self._keep = keep
        self._prints: Prints = earlier
        self._recording: tuple[Prints, Prints] = ({}, {})
        self.is_recorded = bool(earlier)
        self.kept: Mapping[Key, str] = {}

    def compare(self, found: Mapping[Key, Found]) -> tuple[set[Key], set[Key]]:
        """The keys of which something is recorded: those where only a run has set what is `found`,
        or has followed it already, so that the row counts; and those where a client has set it
        since, so that what both sides had last tells nothing. `found` has every key of the step."""
        own = prints({key: found[key] for key in self.earlier if key in found})
        untouched = {key: text for key, text in own.items() if text in parted(self.earlier[key])}
        others = {key: texts for key, texts in self.earlier.items() if key not in own}
        self._prints = others | untouched
        return {*untouched}, own.keys() - untouched.keys()

    def recording(self, *stood: Prints) -> Sequence[Statement]:
        """Statements to commit before public keys are set, with the fingerprints of the values
        before and after that; or together with the rows that follow these values."""
        self.is_recorded = True
        all_prints = self._prints
        for each in stood:
            all_prints = _with(all_prints, each)
        self._recording = stood[-1], all_prints
        return self._statements(all_prints)

    def recorded(self, stood: Prints) -> None:
        """They are committed, as `recording` was told last."""
        last, all_prints = self._recording
        self._prints = all_prints if last is stood else _with(self._prints, stood)

    def keeping(self, digests: Mapping[Key, str]) -> Sequence[Statement]:
        """Statements to commit together with rows that follow their public keys, where that brings
        them in step: the digests of these rows."""
        return self._keep(digests, self._without(digests))

    def keeps(self, digests: Mapping[Key, str]) -> None:
        """They are committed, as `keeping` was told last."""
        self._prints = self._without(digests)
        self.kept = digests

    def _without(self, keys: Collection[Key]) -> Prints:
        return {key: text for key, text in self._prints.items() if key not in keys}


def prints(found: Mapping[Key, Found]) -> Prints:
    """The fingerprint of what stands under each public key; of a text it is its digest."""
    texts = [each if type(each) is bytes else None for each in found.values()]
    known = dict(zip(found, public_values.digests(texts)))
    if all(known.values()):
        return known
    return {key: text or _print(found[key]) for key, text in known.items()}


def touched(
    table: Table, seen: Mapping[Key, str], unfinished: Prints, found: Mapping[Key, Found]
) -> list[Key]:
    """The keys of which something is known, but not what is `found`: a client has set that since.
    `seen`: the digests of the rows as both sides had them last."""
    own = prints({key: each for key, each in found.items() if key in unfinished})
    return [
        key
        for key, each in found.items()
        if (
            own[key] not in parted(unfinished[key])
            if key in own
            else key in seen and public_values.digest_of(table, key, each) != seen[key]
        )
    ]


def parted(texts: str) -> list[str]:
    return [texts[at : at + PRINT_CHARACTERS] for at in range(0, len(texts), PRINT_CHARACTERS)]


def _with(all_prints: Prints, new: Prints) -> Prints:
    if not all_prints:
        return new
    both = {key: all_prints.get(key, "") for key in new}
    return {
        **all_prints,
        **{k: own if new[k] in parted(own) else own + new[k] for k, own in both.items()},
    }


def _print(found: Found) -> str:
    return fingerprint(found)[:PRINT_CHARACTERS].ljust(PRINT_CHARACTERS, "-")
