"""`python -m local run`, `up`, `down` and so on: the Makefile calls these."""

import signal
import sys

from local.commands.employees import employees
from local.commands.invoke import invalidate, invoke
from local.commands.run import run
from local.commands.sync import sync
from local.commands.up_down_clean import clean, down, up
from local.commands.upload import upload
from local.demo.demo import demo
from local.servers import ServerError

COMMANDS = {
    "run": run,
    "demo": demo,
    "up": up,
    "down": down,
    "clean": clean,
    "upload": upload,
    "invoke": invoke,
    "employees": employees,
    "invalidate": invalidate,
    "sync": sync,
}


def interrupt(*_: object) -> None:
    """Turns the first signal that ends us into KeyboardInterrupt, and ignores all later ones."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def main() -> int:
    """Runs one command. Returns the exit code."""
    if len(sys.argv) != 2 or sys.argv[1] not in COMMANDS:
        print(f"usage: python -m local {'|'.join(COMMANDS)}", file=sys.stderr)
        return 2
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if number == signal.SIGINT or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, interrupt)
    try:
        return COMMANDS[sys.argv[1]]() or 0
    except ServerError as error:
        print(f"herocache: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("herocache: interrupted", file=sys.stderr)
        return 130


sys.exit(main())
