"""Emulates LOAD DATA FROM S3, which only Aurora has, on MariaDB.

The server gets LOAD DATA LOCAL instead, with the bytes of the object.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import boto3
import pytest

from chalicelib.db.engine import Rows
from chalicelib.db.mysql.connection import Connection
from chalicelib.db.statements import Statement

PIECE_BYTES = 1 << 20


@contextmanager
def emulated_load_from_s3() -> Iterator[list[str]]:
    """What is loaded meanwhile: URIs."""
    loaded: list[str] = []
    batch = Connection.batch

    def translated(self: Connection, statements: Sequence[Statement]) -> list[Rows]:
        text, parameters = statements[-1]
        if not text.startswith("LOAD DATA FROM S3"):
            return batch(self, statements)
        [_] = statements
        uri, *others = parameters
        loaded.append(str(uri))
        local = text.replace("FROM S3 FILE %s", "LOCAL INFILE 'object'", 1)
        self.feed = pieces(str(uri))
        return batch(self, [(local, others)])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Connection, "batch", translated)
        yield loaded


def pieces(uri: str) -> Iterator[bytes]:
    """The object as the database finds it: in its latest version."""
    found = re.fullmatch(r"s3://([^/]+)/(.+)", uri, re.DOTALL)
    assert found
    body: Any = boto3.client("s3").get_object(Bucket=found[1], Key=found[2])["Body"]
    yield from body.iter_chunks(PIECE_BYTES)
