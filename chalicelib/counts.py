"""Numbers for counters of some rows: what an increment of a request adds, or what it makes."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from chalicelib.tables import Key


@dataclass(frozen=True)
class Counts:
    """A number for some counters of some rows: what an increment adds, or what it makes of them.
    `columns`: by the name of the counter, in declared order, a number for each of the `keys`; None
    where this row's counter is not named. In columns, because requests have many rows alike."""

    keys: Sequence[Key]
    columns: Mapping[str, Sequence[int | None]]

    @classmethod
    def of_rows(
        cls, keys: Sequence[Key], rows: Sequence[Mapping[str, int]], names: Iterable[str]
    ) -> "Counts":
        """`rows`: what there is for each key, by some of the `names`."""
        named = {name: [row.get(name) for row in rows] for name in names}
        return cls(keys, {name: own for name, own in named.items() if set(own) != {None}})

    def with_numbers(self, columns: Mapping[str, Sequence[int]]) -> "Counts":
        """Other numbers for the same counters. `columns` may have more counters."""
        named = {}
        for name, own in self.columns.items():
            is_whole = None not in own
            named[name] = (
                columns[name]
                if is_whole
                else [None if old is None else new for old, new in zip(own, columns[name])]
            )
        return Counts(self.keys, named)

    def rows(self) -> list[dict[str, int]]:
        """For each of the `keys` its numbers, by the name of the counter."""
        columns = self.columns.items()
        return [
            {name: own[i] for name, own in columns if own[i] is not None}  # type: ignore[misc]
            for i in range(len(self.keys))
        ]
