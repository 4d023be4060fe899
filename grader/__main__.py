"""`make grade URL=…`: plays the course's graders against a service, local or deployed.

Writes random heroes of its own, reads them by id and by xp, by requests with BY and without, with
and without the cache, and checks every answer. Then it judges what the graders judge of the cache:
lazy loading and write-through. PASS or FAIL for each, and a table of times. Leaves a note of what
it wrote, or removes it. Exit code: 0 all passed, 1 a check failed, 2 there is no service to grade.
"""

import argparse
import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from grader.cache_checks import cache_checks
from grader.http_client import NoService, Service, Wrong
from grader.row_checks import Check, Grader, remove_marked
from grader.terminal import one_line
from grader.timings import explained, time_flows, timings_table

REMOVE = "--remove"
REMOVE_NOTED = "--remove-noted"
MARKER = "grade-[0-9a-f]{8}"


def run_checks(checks: Iterable[Check]) -> bool:
    """Prints a line for each check. Returns whether all passed."""
    passed = [run_check(name, check) for name, check in checks]
    print(f"{sum(passed)} of {len(passed)} passed\n", flush=True)
    return all(passed)


def run_check(name: str, check: Callable[[], str | None]) -> bool:
    try:
        found = check()
    except Wrong as wrong:
        print(f"FAIL  {name}\n      {one_line(wrong)}", flush=True)
        return False
    print(f"PASS  {name}" + (f"\n      {one_line(found)}" if found else ""), flush=True)
    return True


def grade(grader: Grader, kept: Service, rounds: int) -> bool:
    """Runs every check, then the timings. Wrong rows are not timed; a cache that fails is."""
    right = run_checks(grader.checks())
    caches = run_checks(cache_checks(grader, rounds))
    if not right:
        return False
    try:
        found = time_flows(grader, kept, rounds)
    except Wrong as wrong:
        print(f"FAIL  the same requests again, timed\n      {one_line(wrong)}")
        return False
    print(timings_table(found, grader.batch), explained(found), sep="\n\n")
    return caches


def remove(grader: Grader) -> bool:
    """Deletes what was written. Returns whether all of it is gone."""
    try:
        print(f"\nRemoved the {grader.remove()} heroes that were written.")
    except (NoService, Wrong) as error:
        print(
            f"\nThe heroes that were written could not all be removed: {one_line(error)}",
            file=sys.stderr,
        )
        return False
    return True


def leave_note(grader: Grader) -> None:
    """Says what was inserted, here and in a file, so that it can be found and deleted."""
    ids = sorted(grader.inserted)
    url = grader.service.url
    note = {"url": url, "marker": grader.marker, "first_id": ids[0], "last_id": ids[-1]}
    folder = Path(".local") if Path(".local").is_dir() else Path()
    path = folder / f"grade-{time.strftime('%Y%m%dT%H%M%S')}.json"
    path.write_text(json.dumps({**note, "rows": len(ids)}, indent=2) + "\n", encoding="utf-8")
    print(
        f"\nInserted {len(ids)} heroes, ids {ids[0]} to {ids[-1]}, "
        f"names that begin with {grader.marker}. Noted in {path}\n"
        f'To remove them: make grade ARGS="{REMOVE_NOTED} {path}"\n'
        f"The next time `make grade URL={url} ARGS={REMOVE}` removes its own in the end."
    )


def remove_noted(options: argparse.Namespace) -> int:
    """Deletes the heroes that a note lists, then the note. Returns the exit code."""
    note = options.remove_noted
    service = Service(note["url"], options.key)
    try:
        ids = range(note["first_id"], note["last_id"] + 1)
        removed = remove_marked(service, ids, note["marker"], options.batch)
    except (NoService, Wrong) as error:
        print(f"The heroes could not all be removed: {one_line(error)}", file=sys.stderr)
        return 1
    note["path"].unlink()
    print(f"Removed {removed} heroes, names that begin with {note['marker']}, and {note['path']}.")
    return 0


def _note(text: str) -> dict[str, Any]:
    """The content of the note in the file `text`, and its path."""
    path = Path(text)
    try:
        note = json.loads(path.read_text(encoding="utf-8"))
        right = re.fullmatch(MARKER, note["marker"]) and isinstance(note["url"], str)
        if not (right and 1 <= note["first_id"] <= note["last_id"]):
            raise ValueError
    except OSError as error:
        raise argparse.ArgumentTypeError(f"{text} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise argparse.ArgumentTypeError(f"{text} is no note of make grade") from error
    return {**note, "path": path}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m grader", description=__doc__)
    parser.add_argument(
        "url", nargs="?", default=os.environ.get("URL"), help="where the service takes its POST"
    )
    parser.add_argument("--batch", type=int, default=100, help="rows in a request (default 100)")
    parser.add_argument("--rounds", type=int, default=10, help="timed per flow (default 10)")
    parser.add_argument(REMOVE, action="store_true", help="delete in the end what was written")
    parser.add_argument(
        REMOVE_NOTED, type=_note, metavar="FILE", help="only delete what this note tells of"
    )
    options = parser.parse_args()
    if not options.url and not options.remove_noted:
        parser.error("URL: say which service, for example make grade URL=localhost:8000")
    if not 2 <= options.batch <= 1000:
        parser.error("--batch: from 2 to 1000, the most rows that a write takes")
    if options.rounds < 1:
        parser.error("--rounds: at least 1")
    options.key = os.environ.get("KEY", "")
    if not (options.key.isascii() and options.key.isprintable() and " " not in options.key):
        parser.error("KEY: has characters that no API key has")
    return options


def main() -> int:
    options = _arguments()
    if options.remove_noted:
        return remove_noted(options)
    service = Service(options.url, options.key)
    kept = Service(options.url, options.key, keeps_connection=True)
    grader = Grader(service, options.batch)
    try:
        return 0 if grade(grader, kept, options.rounds) else 1
    except NoService as error:
        print(one_line(error), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        return 130
    finally:
        if grader.inserted and not (options.remove and remove(grader)):
            leave_note(grader)


if __name__ == "__main__":
    sys.exit(main())
