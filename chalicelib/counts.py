"""Numbers for counters of some rows: what an increment of a request adds, or what it makes."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from chalicelib.tables import Key


@dataclass(frozen=True)
class Counts:
    """A number for some counters of some rows: what an increment adds, or what it makes of them.
    `columns`: by the name of the counter, in declared order, a number for each of the `keys`; None
    where this row's counter is not named. `is_whole`: whether there is no None. In columns, because
    requests have many rows alike."""

    keys: Sequence[Key]
    columns: Mapping[str, Sequence[int | None]]
    is_whole: bool

    @classmethod
    def of_rows(
        cls, keys: Sequence[Key], rows: Sequence[Mapping[str, int]], names: Iterable[str]
    ) -> "Counts":
        """`rows`: what there is for each key, by some of the `names`."""
        named = {name: [row.get(name) for row in rows] for name in names}
        columns = {name: own for name, own in named.items() if set(own) != {None}}
        return cls(keys, columns, not any(None in own for own in columns.values()))

    def with_numbers(self, columns: Mapping[str, Sequence[int]]) -> "Counts":
        """Other numbers for the same counters. `columns` may have more counters."""
        named: dict[str, Sequence[int | None]] = {name: columns[name] for name in self.columns}
        if not self.is_whole:
            named = {
                name: [None if old is None else new for old, new in zip(own, named[name])]
                for name, own in self.columns.items()
            }
        return Counts(self.keys, named, self.is_whole)

    def rows(self) -> list[dict[str, int]]:
        """For each of the `keys` its numbers, by the name of the counter."""
        columns = self.columns.items()
        return [
            {name: own[i] for name, own in columns if own[i] is not None}  # type: ignore[misc]
            for i in range(len(self.keys))
        ]
