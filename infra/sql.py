"""Runs SQL on a stage's database through the RDS Data API, so that nobody has to open a way into
its network."""

import json
import sys
from functools import partial
from typing import Any

from infra.account import Client
from infra.aws_errors import retry
from infra.database_schema import NOT_YET, PATIENCE_SECONDS, RETRY_SECONDS
from infra.terminal import Refused, printable, say


def run(client: Client, arn: str, secret_arn: str, statement: str) -> None:
    """Runs one statement as the owner of the database, and prints its rows: the columns' names,
    then a line of JSON a row."""
    answers: list[dict[str, Any]] = []
    call = partial(
        client.execute_statement,
        resourceArn=arn,
        secretArn=secret_arn,
        database="herocache",
        sql=statement,
        includeResultMetadata=True,
    )
    retry(
        lambda: answers.append(call()),
        NOT_YET,
        PATIENCE_SECONDS,
        RETRY_SECONDS,
        partial(say, "database", "does not answer yet, waiting for it to wake up"),
    )
    [answer] = answers
    if columns := answer.get("columnMetadata"):
        print(json.dumps([each.get("label") or each.get("name", "") for each in columns]))
        for record in answer.get("records", []):
            row = [_value(field) for field in record]
            print(printable(json.dumps(row, ensure_ascii=False)))
    else:
        say("sql", f"{answer.get('numberOfRecordsUpdated', 0)} rows changed")
    sys.stdout.flush()


def refuse_empty(statement: str) -> None:
    """Raises Refused where there is no statement."""
    if not statement.strip():
        raise Refused("SQL is empty: make sql STAGE=dev SQL='SELECT COUNT(*) FROM heroes'")


def _value(field: dict[str, Any]) -> Any:
    """The value of a field: {"longValue": 1}, {"isNull": True}."""
    [(kind, value)] = field.items()
    if kind == "isNull":
        return None
    return value.hex() if isinstance(value, bytes) else value
