"""Texts that no response may contain, also where the service fails."""

import os

from tests.support.client import Answer

INTERNAL = ("Traceback", ".py", 'File "', "pymysql", "redis.", "chalicelib", "SELECT ", "INSERT ")
SECRETS = ("DB_HOST", "DB_USER", "DB_PASS", "DB_NAME", "REDIS_URL")


def assert_tells_nothing_internal(answer: Answer) -> None:
    """No traceback, and no value of a setting that says where a server is or how to get in."""
    # A database is called as the project is, here and in the tests' servers.
    secrets = {os.environ.get(name, "") for name in SECRETS} - {"", "herocache"}
    for piece in (*INTERNAL, *secrets):
        assert piece not in answer.text, f"{piece!r} is in {answer.text[:500]}"
        assert not any(piece in value for value in answer.headers.values())
