"""What the tests' own modules say when they fail."""

import json
from pathlib import Path

import pytest

from tests.history import checker
from tests.support import witness
from tests.support.client import ROOT, Answer
from tests.support.long_tests import LONG, is_long
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


def test_each_test_that_is_left_out_as_long_is_there() -> None:
    """One with another name would be in `make test` again."""
    for path, names in LONG.items():
        text = (ROOT / "tests" / path).read_text(encoding="utf-8")
        for name in {name.partition("[")[0] for name in names} - {"*"}:
            assert f"def {name}(" in text, f"tests/support/long_tests.py: {path} has no {name}"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("test_a", True),
        ("test_a[any case]", True),
        ("test_ab", False),
        ("test_b[one case]", True),
        ("test_b[another case]", False),
        ("test_b", False),
        ("test_c[slow.1-x]", True),
        ("test_c[slow-1-x]", False),
        ("test_d[cluster-id]", True),
        ("test_d[a cluster]", False),
    ],
)
def test_what_is_long_is_named_whole_or_by_its_cases(
    monkeypatch: pytest.MonkeyPatch, name: str, expected: bool
) -> None:
    names = ("test_a", "test_b[one case]", "test_c[slow.1*", "*[cluster*")
    monkeypatch.setitem(LONG, "a file.py", names)
    assert is_long("a file.py", name) is expected
    assert not is_long("another file.py", name)
