"""What a check has found."""

from collections import Counter
from dataclasses import dataclass, field

EXAMPLES_A_KIND = 5
EXAMPLE_CHARACTERS = 300


@dataclass
class Verdict:
    """`violations` by kind, with a few `examples` of each; what was checked is in `checked`."""

    checked: Counter[str] = field(default_factory=Counter)
    violations: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)
    stale_at: list[int] = field(default_factory=list)

    def violated(self, kind: str, what: str) -> None:
        self.violations[kind] += 1
        if self.violations[kind] <= EXAMPLES_A_KIND:
            self.examples.append(f"{kind}: {what}"[:EXAMPLE_CHARACTERS])

    def __iadd__(self, other: "Verdict") -> "Verdict":
        self.checked += other.checked
        self.violations += other.violations
        self.examples += other.examples
        self.stale_at += other.stale_at
        return self
