"""`python -m infra COMMAND STAGE`: the Makefile calls these."""

import sys

from botocore.exceptions import BotoCoreError, ClientError

from infra import commands, last_error
from infra.stage_files import Stage
from infra.terminal import Refused

NAMES = ("infra", "configure", "adopt", "deploy", "destroy", "sql", "logs", "report")
# These take a stage that is not declared yet, too.
OF_ANY_STAGE = ("adopt", "report")


def main() -> int:
    """Runs one command. Returns the exit code."""
    reason = ""
    if len(sys.argv) != 3 or sys.argv[1] not in NAMES:
        print(f"usage: python -m infra {'|'.join(NAMES)} STAGE", file=sys.stderr)
        return 2
    try:
        name, stage = sys.argv[1:]
        if name in OF_ANY_STAGE:
            getattr(commands, name)(stage)
        else:
            getattr(commands, name)(Stage(stage))
    except Refused as error:
        reason = str(error)
    except (BotoCoreError, ClientError) as error:
        reason = f"AWS refused: {error}; when the reason is gone, run the same command again"
    except KeyboardInterrupt:
        print("herocache: interrupted; run the same command again to go on", file=sys.stderr)
        return 130
    if not reason:
        return 0
    print(f"herocache: {reason}", file=sys.stderr)
    last_error.keep(name, stage, reason)
    return 1


sys.exit(main())
