"""`python -m local run`, `up`, `down` and so on, the way the Makefile asks."""

import signal
import sys

from local.demo import demo
from local.invoke import invalidate, invoke
from local.process import ServerError
from local.run import run
from local.services import clean, down, up
from local.upload import upload

COMMANDS = {
    "run": run,
    "demo": demo,
    "up": up,
    "down": down,
    "clean": clean,
    "upload": upload,
    "invoke": invoke,
    "invalidate": invalidate,
}


def interrupt(*_: object) -> None:
    """Every way of asking us to stop becomes one exception, once."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def main() -> int:
    """The exit code."""
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
