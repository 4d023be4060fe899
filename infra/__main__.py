"""`python -m infra infra|configure|deploy|destroy STAGE`: the Makefile calls these."""

import sys

from botocore.exceptions import BotoCoreError, ClientError

from infra.commands import configure, deploy, destroy, infra
from infra.stage_files import Stage
from infra.terminal import Refused

COMMANDS = {"infra": infra, "configure": configure, "deploy": deploy, "destroy": destroy}


def main() -> int:
    """Runs one command. Returns the exit code."""
    if len(sys.argv) != 3 or sys.argv[1] not in COMMANDS:
        print(f"usage: python -m infra {'|'.join(COMMANDS)} STAGE", file=sys.stderr)
        return 2
    try:
        COMMANDS[sys.argv[1]](Stage(sys.argv[2]))
    except Refused as error:
        print(f"herocache: {error}", file=sys.stderr)
        return 1
    except (BotoCoreError, ClientError) as error:
        print(f"herocache: AWS refused: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("herocache: interrupted; run the same command again to go on", file=sys.stderr)
        return 130
    return 0


sys.exit(main())
