"""The tables and the functions' login, made through the RDS Data API: from outside the network,
with the secret that RDS keeps. Applied again it changes nothing."""

import re
import time
from pathlib import Path

from botocore.exceptions import ClientError

from infra.account import Client, code_of
from infra.stage import ROOT
from infra.terminal import Refused, say

FILES = (ROOT / "seed" / "schema.sql", ROOT / "infra" / "login.sql")
PATIENCE_SECONDS = 90.0
"""For a database that sleeps: it takes about 15 s to wake up, and up to 30 after a long sleep."""
RETRY_SECONDS = 3.0
# Asleep and waking up; or so new that it does not listen yet.
_NOT_YET = {"DatabaseResumingException", "DatabaseUnavailableException"}


def prepare(client: Client, arn: str, secret_arn: str) -> None:
    """Every statement of FILES, in order. Raises Refused that names the one that failed."""
    for path in FILES:
        found = statements(path)
        for statement in found:
            try:
                _execute(client, arn, secret_arn, statement)
            except ClientError as error:
                first = statement.splitlines()[0]
                raise Refused(f"{path.relative_to(ROOT)}: {first} …: {error}") from error
        say("database", f"{path.relative_to(ROOT)}: {len(found)} statements applied")


def statements(path: Path) -> list[str]:
    """Of an SQL file whose strings hold neither -- nor a semicolon; comments left out."""
    text = re.sub(r"--.*$", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return [part.strip() for part in text.split(";") if part.strip()]


def _execute(client: Client, arn: str, secret_arn: str, statement: str) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            client.execute_statement(
                resourceArn=arn, secretArn=secret_arn, database="herocache", sql=statement
            )
            return
        except ClientError as error:
            if code_of(error) not in _NOT_YET or time.monotonic() > deadline:
                raise
        say("database", "is asleep, waiting for it to wake up")
        time.sleep(RETRY_SECONDS)
