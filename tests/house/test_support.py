"""What the tests' own modules say when they fail."""

import json
from pathlib import Path

import pytest

from tests.history import checker
from tests.support import witness
from tests.support.client import Answer
from tests.support.memory_folder import memory_folder


def test_a_failed_check_of_the_client_shows_left_and_right() -> None:
    rejected = {"statusCode": 400, "body": {"error": "BadRequest", "message": "SQLS: missing"}}
    answer = Answer(400, json.dumps(rejected).encode(), {})
    with pytest.raises(AssertionError) as failed:
        answer.rows  # noqa: B018
    assert "assert 400 == 200" in str(failed.value)
    assert "SQLS: missing" in str(failed.value)
    written = Answer(200, b'{"statusCode": 200, "body": "delete success"}', {})
    with pytest.raises(AssertionError, match="'delete success' == 'write success'"):
        written.ids  # noqa: B018


def test_every_module_of_the_tests_shows_what_its_asserts_compared() -> None:
    from tests.support import moto_gaps  # it imports moto, which takes two seconds

    for module in (witness, moto_gaps, checker):
        name = type(module.__loader__).__name__
        assert name == "AssertionRewritingHook", Path(str(module.__file__)).name


def test_a_run_keeps_its_files_in_memory_only_where_there_is_room(tmp_path: Path) -> None:
    assert memory_folder(tmp_path, needed_bytes=0) == tmp_path
    assert memory_folder(tmp_path, needed_bytes=1 << 60) is None
    assert memory_folder(tmp_path / "not there", needed_bytes=0) is None
