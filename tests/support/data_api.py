"""A client of the Data API: boto3's, with the cluster, the secret and the database filled in."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import pytest
from botocore.exceptions import ClientError

from local.servers import DataApi
from local.servers.aws_client import isolated_client
from local.servers.data_api import CLUSTER_ARN, SECRET_ARN

# Settings that nobody needs there: no connection, and nobody to connect as.
UNUSED: dict[str, str | None] = dict.fromkeys(("DB_HOST", "DB_PORT", "DB_USER", "DB_PASS"))
ARNS = {"resourceArn": CLUSTER_ARN, "secretArn": SECRET_ARN}


@cache
def boto_client(url: str, **config: Any) -> Any:
    """Made once: it takes a quarter of a second. Safe to use in threads."""
    return isolated_client("rds-data", url, **config)


def spent(server: DataApi) -> dict[str, int]:
    """How many calls of each operation there were since the last `reset`."""
    requests: dict[str, int] = server.control()["requests"]
    return requests


class Client:
    """`config`: options of boto3's."""

    def __init__(self, server: DataApi, **config: Any) -> None:
        self.boto = boto_client(server.url, **config)

    def execute(self, sql: str, **members: Any) -> dict[str, Any]:
        request = {**ARNS, "database": "herocache", **members}
        return dict(self.boto.execute_statement(sql=sql, **request))

    def batch(self, sql: str, sets: list[list[dict[str, Any]]], **members: Any) -> list[Any]:
        """The generated fields of each set."""
        request = {**ARNS, "database": "herocache", **members}
        answer = self.boto.batch_execute_statement(sql=sql, parameterSets=sets, **request)
        return [each["generatedFields"] for each in answer["updateResults"]]

    def begin(self) -> str:
        answer = self.boto.begin_transaction(**ARNS, database="herocache")
        return str(answer["transactionId"])

    def commit(self, id: str) -> str:
        return str(self.boto.commit_transaction(**ARNS, transactionId=id)["transactionStatus"])

    def roll_back(self, id: str) -> str:
        return str(self.boto.rollback_transaction(**ARNS, transactionId=id)["transactionStatus"])

    def value(self, sql: str, **members: Any) -> Any:
        """The only value of a result, as the member that it came in."""
        [[field]] = self.execute(sql, **members)["records"]
        return field


def parameter(name: str, value: Any, hint: str | None = None) -> dict[str, Any]:
    """A parameter with the member that fits the Python type."""
    kinds = {bool: "booleanValue", int: "longValue", float: "doubleValue"}
    kinds |= {str: "stringValue", bytes: "blobValue"}
    field = {"isNull": True} if value is None else {kinds[type(value)]: value}
    return {"name": name, "value": field, **({"typeHint": hint} if hint else {})}


@contextmanager
def answered(code: str, words: str = "") -> Iterator[None]:
    """The exception with this code, which says these words."""
    with pytest.raises(ClientError) as caught:
        yield
    error = caught.value.response["Error"]
    assert error["Code"] == code, error
    assert words in error.get("Message", ""), error
    # An exception that the model declares has a class of its own.
    assert type(caught.value).__name__ in (code, "ClientError")
