"""`make sync`: a run of the sync on the servers of `make run` or `make up`, shown as it goes on."""

import contextlib
import os
import sys
import time
from typing import Any

from chalicelib.config import Settings
from chalicelib.errors import HerocacheError, one_line
from chalicelib.services import Container
from chalicelib.sync import Record
from chalicelib.tables import DIRECTIONS
from local.commands.invoke import require_servers
from local.home_folder import Home, home_folder
from local.servers import ServerError
from local.settings import environment_with, read_settings
from local.terminal import say

# A run of the schedule that is under way ends meanwhile, or its lease runs out. Nothing is heard of
# ranges for so long only where no function works them off.
PATIENCE_SECONDS = 60
SHOW_ROWS = "-v"
USAGE = f"usage: make sync [TABLE=products] [ARGS={SHOW_ROWS}]"
BAR_WIDTH = 30


def sync() -> int:
    """Looks at every watched row of TABLE, or of all tables. Returns the exit code: 0 where the run
    is done. Raises ServerError where it cannot run."""
    shows_rows = asked_for_rows()
    home = Home(home_folder())
    require_servers(home)
    try:
        environment = environment_with(read_settings(home.env))
        # boto3 reads it by itself, and must not find the caller's profile.
        os.environ.clear()
        os.environ.update(environment)
        answer = looked(Container(Settings.from_environment(os.environ)), shows_rows)
    except HerocacheError as error:
        raise ServerError(f"{error.kind}: {error}") from error
    tell(answer)
    return 0 if answer["outcome"] == "done" else 1


def asked_for_rows() -> bool:
    """Whether ARGS asks for a line for each row. Raises ServerError where it asks for something
    else."""
    words = os.environ.get("ARGS", "").split()
    for word in words:
        if word != SHOW_ROWS:
            raise ServerError(f"ARGS: {word!r} is no argument of make sync; {USAGE}")
    return bool(words)


def looked(container: Container, shows_rows: bool) -> Any:
    """The record of the run. Rows that are worked off elsewhere cannot be shown one by one: where
    `shows_rows` the run does all by itself."""
    give_up = time.monotonic() + PATIENCE_SECONDS
    while True:
        record = Record()
        if shows_rows:
            record.tell = show_row
        elif sys.stderr.isatty():
            record.progress = show_progress
        answer = container.sync.run(
            os.environ.get("TABLE") or None, must_look=True, alone=shows_rows, record=record
        )
        if answer["outcome"] == "running":
            return followed(container, answer["run"])
        if answer["outcome"] != "overlap" or time.monotonic() > give_up:
            return answer
        say("sync", "another run is under way: waiting for its end")
        time.sleep(1)


def followed(container: Container, run: int) -> Any:
    """The record of a run whose ranges are worked off by the function `sync_range`."""
    heard, last = time.monotonic(), None
    while True:
        record, done = container.range_worker.progress(run)
        answer = record.answer()
        if answer["outcome"] != "running":
            return answer
        if sys.stderr.isatty():
            show_progress(record, done)
        counts = [answer[direction] for direction in DIRECTIONS]
        if counts != last:
            heard, last = time.monotonic(), counts
        if time.monotonic() > heard + PATIENCE_SECONDS:
            raise ServerError(
                f"{done} of {record.ranges} ranges are done, and nothing was heard of the others"
                f" for {PATIENCE_SECONDS} s: the next run works them off, 10 minutes from now on"
            )
        time.sleep(0.2)


def show_row(text: str) -> None:
    with contextlib.suppress(OSError):
        print(one_line(text), flush=True)


def show_progress(record: Record, done: int = 0) -> None:
    """One line for all ranges: a bar where it is known how many there are."""
    bar = ""
    if record.ranges:
        full = BAR_WIDTH * done // record.ranges
        bar = f"[{'#' * full}{'.' * (BAR_WIDTH - full)}] {done} of {record.ranges} ranges, "
    looked_at = sum(tally.looked for tally in record.tallies.values())
    changed = sum(tally.changed for tally in record.tallies.values())
    with contextlib.suppress(OSError):
        text = f"\r{bar}{looked_at:,} rows looked at, {changed:,} changed "
        print(text, end="", file=sys.stderr, flush=True)


def tell(answer: Any) -> None:
    """Prints a line for each direction, and one for each row or watch that is reported."""
    if sys.stderr.isatty():
        print(file=sys.stderr)
    for detail in answer["details"]:
        say("reported", f"{detail['key']}: {detail['reason']}")
        for side in ("database", "redis"):
            if side in detail:
                say("", f"{side}: {detail[side]}")
    for direction in DIRECTIONS:
        counts = answer[direction]
        rows = "row" if counts["looked"] == 1 else "rows"
        looked_at = f"{counts['looked']:,} {rows} looked at"
        say(
            direction,
            f"{looked_at}, {counts['changed']:,} changed, {counts['reported']:,} reported",
        )
    # Details end at some number, and those of a watch that makes no sense have no direction.
    counted = sum(answer[direction]["reported"] for direction in DIRECTIONS)
    reported = max(counted, len(answer["details"]))
    say("sync", answer["outcome"] + f", {reported:,} reported" * bool(reported))
