"""What it costs that a read tells about itself: `Cache-Status` and `Server-Timing`.

The same cached read by turns, as it is and with nothing in place of the function that makes them.
"""

from bench.contenders import Environment, Ours
from bench.flows import HIT
from bench.lineup import closing
from bench.measure import Limits, Samples, Seeded, measure
from chalicelib import handlers

MAKER = "read_headers"
"""The function of `handlers` that returns them as a dict."""
WITH, WITHOUT = "headers", "no headers"
ROWS = 100


def time_headers(environment: Environment, seeded: Seeded, limits: Limits) -> Samples:
    """Empty where reads do not carry them."""
    with_headers = Ours(environment, WITH)
    without = Ours(environment, WITHOUT)
    with closing([with_headers, without]):
        answer = with_headers.prepare(HIT, seeded.batch(HIT, ROWS))()
        if "Server-Timing" not in answer["headers"]:
            return {}
        maker = getattr(handlers, MAKER)
        with_headers.replace_in_handlers(MAKER, maker)
        without.replace_in_handlers(MAKER, lambda *_, **__: {})
        try:
            return measure(HIT, ROWS, [with_headers, without], seeded, limits)
        finally:
            setattr(handlers, MAKER, maker)
