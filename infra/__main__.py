"""`python -m infra COMMAND STAGE`: the Makefile calls these."""

import sys

from botocore.exceptions import BotoCoreError, ClientError

from infra import commands
from infra.stage_files import Stage
from infra.terminal import Refused

NAMES = ("infra", "configure", "adopt", "deploy", "destroy", "sql", "logs", "report")


def main() -> int:
    """Runs one command. Returns the exit code."""
    if len(sys.argv) != 3 or sys.argv[1] not in NAMES:
        print(f"usage: python -m infra {'|'.join(NAMES)} STAGE", file=sys.stderr)
        return 2
    try:
        name, stage = sys.argv[1:]
        if name == "adopt":
            commands.adopt(stage)
        else:
            getattr(commands, name)(Stage(stage))
    except Refused as error:
        print(f"herocache: {error}", file=sys.stderr)
        return 1
    except (BotoCoreError, ClientError) as error:
        reason = f"AWS refused: {error}; when the reason is gone, run the same command again"
        print(f"herocache: {reason}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("herocache: interrupted; run the same command again to go on", file=sys.stderr)
        return 130
    return 0


sys.exit(main())
