"""Creates the tables and the functions' login, through the RDS Data API.

The Data API works from outside the network, with the secret that RDS keeps. A second run changes
nothing.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from botocore.exceptions import ClientError

from infra.account import Client
from infra.aws_errors import retry
from infra.stage_files import ROOT
from infra.terminal import Refused, say

TRIGGERS = ROOT / "seed" / "triggers.sql"
LOGIN = ROOT / "infra" / "login.sql"
FILES = (ROOT / "seed" / "schema.sql", TRIGGERS, LOGIN)
# The users that LOGIN makes.
USERS = ("herocache", "herocache_ingest")
# For a database that sleeps. It wakes up in about 15 s, and in up to 30 s after a long sleep.
PATIENCE_SECONDS = 90.0
RETRY_SECONDS = 3.0
# The database wakes up, or is so new that the Data API does not know it or its secret yet.
NOT_YET = {
    *("DatabaseResumingException", "DatabaseUnavailableException", "DatabaseNotFoundException"),
    *("HttpEndpointNotEnabledException", "InvalidResourceStateException"),
    *("ServiceUnavailableError", "InternalServerErrorException", "SecretsErrorException"),
}


def prepare(
    client: Client, arn: str, secret_arn: str, passwords: Mapping[str, str] | None = None
) -> None:
    """Runs every statement of FILES in order, then lets the functions' users in: with `passwords`,
    by user, or with tokens where it is None. Raises Refused, which names the statement that failed
    and no password. Where the database does not let us make triggers, the stage works without
    them, and this says so."""
    for path in FILES:
        found = statements(path)
        try:
            for statement in found:
                _run(client, arn, secret_arn, path, statement)
        except Refused as error:
            if path != TRIGGERS:
                raise Refused(f"{error}; when the reason is gone, run it again") from error
            say(
                "database", f"{error}; so changes by other clients of the database are not recorded"
            )
        else:
            say("database", f"{path.relative_to(ROOT)}: {len(found)} statements applied")
    for user in USERS:
        begin = f"ALTER USER '{user}'@'%' IDENTIFIED"
        password = passwords[user] if passwords else ""
        if not re.fullmatch("[0-9A-Za-z]*", password):  # it becomes part of SQL
            raise Refused(f"the password of {user} has other characters than letters and digits")
        end = f"BY '{password}'" if password else "WITH AWSAuthenticationPlugin AS 'RDS'"
        try:
            _run(client, arn, secret_arn, LOGIN, f"{begin} {end} REQUIRE SSL")
        except Refused as error:
            hidden = str(error).replace(password, "…") if password else str(error)
            raise Refused(hidden) from None
    say("database", f"{', '.join(USERS)}: log in with {'passwords' if passwords else 'tokens'}")


@contextmanager
def data_api(rds: Client, arn: str) -> Iterator[None]:
    """Turns the Data API on for the block, and off again after it. While it is on, anybody with the
    owner's secret can use the database from anywhere, and the functions of such a stage do not need
    it."""
    patience = ({"InvalidResourceStateFault"}, PATIENCE_SECONDS, RETRY_SECONDS)
    retry(partial(rds.enable_http_endpoint, ResourceArn=arn), *patience)
    try:
        yield
    finally:
        retry(partial(rds.disable_http_endpoint, ResourceArn=arn), *patience)
        say("database", "the RDS Data API is off again")


def passwords(client: Client, secret_arns: Iterable[str]) -> dict[str, str]:
    """The passwords in these secrets, by user."""
    texts = [client.get_secret_value(SecretId=arn)["SecretString"] for arn in secret_arns]
    return {each["username"]: each["password"] for each in map(json.loads, texts)}


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
            NOT_YET,
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
