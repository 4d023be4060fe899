"""What it costs that a read tells about itself: `Cache-Status` and `Server-Timing`.

The same cached read by turns, as it is and with a Cache-Status that is empty: then the answer
carries neither header.
"""

from collections.abc import Sequence

from bench.contenders import Call, Environment, Ours
from bench.flows import HIT
from bench.lineup import closing
from bench.measure import Limits, Samples, Seeded, measure
from chalicelib.handlers import contract

MAKER = "_cache_status"
"""The function of `wire` that makes the first header, and without which there is no second."""
WITH, WITHOUT = "headers", "no headers"
TOLD = "Server-Timing"
ROWS = 100


class Telling(Ours):
    """Ours, with one of the two headers made by `maker`."""

    def __init__(self, environment: Environment, name: str, maker: object) -> None:
        super().__init__(environment, name)
        self._maker = maker

    def read(self, ids: Sequence[int], use_cache: bool) -> Call:
        setattr(contract, MAKER, self._maker)
        return super().read(ids, use_cache)


def time_headers(environment: Environment, seeded: Seeded, limits: Limits) -> Samples:
    maker = getattr(contract, MAKER)
    telling = Telling(environment, WITH, maker)
    silent = Telling(environment, WITHOUT, lambda *_: "")
    batch = seeded.batch(HIT, ROWS)
    with closing([telling, silent]):
        try:
            for contender, tells in {telling: True, silent: False}.items():
                has_header = TOLD in contender.prepare(HIT, batch)()["headers"]
                assert has_header is tells, f"{contender.name}: {TOLD} is {has_header}"
            return measure(HIT, ROWS, [telling, silent], seeded, limits)
        finally:
            setattr(contract, MAKER, maker)
