"""Creates the tables and the functions' login, through the RDS Data API.

The Data API works from outside the network, with the secret that RDS keeps. A second run changes
nothing.
"""

import re
from functools import partial
from pathlib import Path

from botocore.exceptions import ClientError

from infra.account import Client
from infra.aws_errors import retry
from infra.stage_files import ROOT
from infra.terminal import Refused, say

FILES = (ROOT / "seed" / "schema.sql", ROOT / "infra" / "login.sql")
# For a database that sleeps. It wakes up in about 15 s, and in up to 30 s after a long sleep.
PATIENCE_SECONDS = 90.0
RETRY_SECONDS = 3.0
# The database wakes up, or is so new that it does not listen yet.
_NOT_YET = {"DatabaseResumingException", "DatabaseUnavailableException"}


def prepare(client: Client, arn: str, secret_arn: str) -> None:
    """Runs every statement of FILES in order. Raises Refused, which names the one that failed."""
    for path in FILES:
        found = statements(path)
        for statement in found:
            try:
                retry(
                    partial(
                        client.execute_statement,
                        resourceArn=arn,
                        secretArn=secret_arn,
                        database="herocache",
                        sql=statement,
                    ),
                    _NOT_YET,
                    PATIENCE_SECONDS,
                    RETRY_SECONDS,
                    partial(say, "database", "is asleep, waiting for it to wake up"),
                )
            except ClientError as error:
                first = statement.splitlines()[0]
                raise Refused(f"{path.relative_to(ROOT)}: {first} …: {error}") from error
        say("database", f"{path.relative_to(ROOT)}: {len(found)} statements applied")


def statements(path: Path) -> list[str]:
    """The statements of an SQL file, without comments. Its strings must hold no -- and no
    semicolon."""
    text = re.sub(r"--.*$", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return [part.strip() for part in text.split(";") if part.strip()]
