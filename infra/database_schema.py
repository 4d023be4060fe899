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

TRIGGERS = ROOT / "seed" / "triggers.sql"
FILES = (ROOT / "seed" / "schema.sql", TRIGGERS, ROOT / "infra" / "login.sql")
# For a database that sleeps. It wakes up in about 15 s, and in up to 30 s after a long sleep.
PATIENCE_SECONDS = 90.0
RETRY_SECONDS = 3.0
# The database wakes up, or is so new that the Data API does not know it or its secret yet.
_NOT_YET = {
    *("DatabaseResumingException", "DatabaseUnavailableException", "DatabaseNotFoundException"),
    *("HttpEndpointNotEnabledException", "InvalidResourceStateException"),
    *("ServiceUnavailableError", "InternalServerErrorException", "SecretsErrorException"),
}


def prepare(client: Client, arn: str, secret_arn: str) -> None:
    """Runs every statement of FILES in order. Raises Refused, which names the one that failed.
    Where the database does not let us make triggers, the stage works without them, and this says
    so."""
    for path in FILES:
        found = statements(path)
        try:
            for statement in found:
                _run(client, arn, secret_arn, path, statement)
        except Refused as error:
            if path != TRIGGERS:
                raise
            say(
                "database", f"{error}; so changes by other clients of the database are not recorded"
            )
        else:
            say("database", f"{path.relative_to(ROOT)}: {len(found)} statements applied")


def _run(client: Client, arn: str, secret_arn: str, path: Path, statement: str) -> None:
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
            partial(say, "database", "does not answer yet, waiting for it to wake up"),
        )
    except ClientError as error:
        first = statement.splitlines()[0]
        raise Refused(f"{path.relative_to(ROOT)}: {first} …: {error}") from error


def statements(path: Path) -> list[str]:
    """The statements of an SQL file, without comments. Its strings must hold no -- and no
    semicolon. A file whose statements hold semicolons names another delimiter first."""
    text = re.sub(r"--.*$", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    delimiter = ";"
    if named := re.match(r"\s*DELIMITER (\S+)\n", text):
        delimiter = named[1]
        text = text[named.end() :].replace("DELIMITER ;", "")
    return [part.strip() for part in text.split(delimiter) if part.strip()]
