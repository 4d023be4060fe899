"""What the headers `Cache-Status` and `Server-Timing` of a read cost.

Times the same cached read by turns: as it is, and with an empty Cache-Status, where the answer has
neither header.
"""

from collections.abc import Sequence

from bench.candidates.candidate import Call, Environment
from bench.candidates.groups import closing
from bench.candidates.ours import Ours
from bench.measurements.interleaved import Limits, Samples, Seeded, measure
from bench.workloads import HIT
from chalicelib.handlers import replies

# The function that makes Cache-Status. Where it returns nothing, Server-Timing is left out too.
MAKER = "_cache_status"
WITH, WITHOUT = "headers", "no headers"
TIMING = "Server-Timing"
ROWS = 100


class WithMaker(Ours):
    """Ours, with Cache-Status made by `maker`."""

    def __init__(self, environment: Environment, name: str, maker: object) -> None:
        super().__init__(environment, name)
        self._maker = maker

    def read(self, ids: Sequence[int], use_cache: bool) -> Call:
        setattr(replies, MAKER, self._maker)
        return super().read(ids, use_cache)


def time_headers(environment: Environment, seeded: Seeded, limits: Limits) -> Samples:
    maker = getattr(replies, MAKER)
    with_headers = WithMaker(environment, WITH, maker)
    without = WithMaker(environment, WITHOUT, lambda *_: "")
    batch = seeded.batch(HIT, ROWS)
    with closing([with_headers, without]):
        try:
            for candidate, expected in {with_headers: True, without: False}.items():
                has_header = TIMING in candidate.prepare(HIT, batch)()["headers"]
                assert has_header is expected, f"{candidate.name}: {TIMING} is {has_header}"
            return measure(HIT, ROWS, [with_headers, without], seeded, limits)
        finally:
            setattr(replies, MAKER, maker)
