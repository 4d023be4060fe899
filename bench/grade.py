"""`python -m bench.grade URL`: plays the course grader against a service, local or deployed.

It writes random heroes of its own, reads them by id (version 1 of the course) and by xp (version
2), with and without the cache, checks every answer and times the flows. Prints PASS or FAIL per
check and a table of times, and leaves a note of what it inserted. Exit code: 0 all passed, 1 a
check failed, 2 there is no service to grade.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from bench.grader import Grader
from bench.service import NoService, Service, Wrong
from bench.text import milliseconds, table


def run_checks(grader: Grader) -> bool:
    """Prints a line per check; whether all passed."""
    passed = [run_check(name, check) for name, check in grader.checks()]
    return all(passed)


def run_check(name: str, check: Callable[[], object]) -> bool:
    try:
        check()
    except Wrong as wrong:
        print(f"FAIL  {name}\n      {wrong}")
        return False
    print(f"PASS  {name}")
    return True


def time_flows(grader: Grader, service: Service, rounds: int) -> str:
    """Medians of whole requests, without and with the cache by turns, as a table. Raises Wrong."""
    rows = [["median ms of a batch", "no cache", "cache", "speed-up"]]
    ids, xps = grader.sample("id"), grader.sample("xp")
    flows: dict[str, Callable[[bool], Callable[[], object]]] = {
        "an empty read: HTTP alone": lambda c: partial(service.read, "id", [], c),
        "read by id": lambda c: partial(service.read, "id", ids, c),
        "read by xp": lambda c: partial(service.read, "xp", xps, c),
        "write": lambda c: partial(grader.write, grader.fresh_heroes(grader.batch), c),
    }
    for name, prepare in flows.items():
        prepare(True)()  # from here on, cached reads hit
        samples: dict[bool, list[float]] = {False: [], True: []}
        for _ in range(rounds):
            for use_cache, times in samples.items():
                request = prepare(use_cache)
                started = time.perf_counter()
                request()
                times.append(time.perf_counter() - started)
        without, cached = (statistics.median(samples[c]) for c in (False, True))
        rows.append([name, milliseconds(without), milliseconds(cached), f"{without / cached:.2f}"])
    return table(rows)


def leave_note(grader: Grader, url: str) -> None:
    """Says what was inserted, here and in a file, so that it can be found and deleted."""
    if not grader.inserted:
        return
    ids = sorted(grader.inserted)
    note = {"url": url, "marker": grader.marker, "first_id": ids[0], "last_id": ids[-1]}
    folder = Path(".local") if Path(".local").is_dir() else Path()
    path = folder / f"grade-{time.strftime('%Y%m%dT%H%M%S')}.json"
    path.write_text(json.dumps({**note, "rows": len(ids)}, indent=2) + "\n", encoding="utf-8")
    print(
        f"\nInserted {len(ids)} heroes, ids {ids[0]} to {ids[-1]}, "
        f"names that begin with {grader.marker}. Noted in {path}"
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.grade", description=__doc__)
    parser.add_argument("url", help="where the service takes its POST, e.g. http://127.0.0.1:8000/")
    parser.add_argument("--batch", type=int, default=100, help="rows in a request (default 100)")
    parser.add_argument("--rounds", type=int, default=10, help="timed per flow (default 10)")
    options = parser.parse_args()
    if not 2 <= options.batch <= 1000:
        parser.error("--batch: from 2 to 1000, the most rows that a write takes")
    if options.rounds < 1:
        parser.error("--rounds: at least 1")
    return options


def main() -> int:
    options = _arguments()
    service = Service(options.url)
    grader = Grader(service, options.batch)
    try:
        passed = run_checks(grader)
        if passed:
            print(f"\n{time_flows(grader, service, options.rounds)}")
    except Wrong as wrong:
        passed = False
        print(f"FAIL  the same requests again, timed\n      {wrong}")
    except NoService as error:
        print(error, file=sys.stderr)
        return 2
    finally:
        leave_note(grader, options.url)
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
