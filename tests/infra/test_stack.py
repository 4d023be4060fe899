"""A stack comes up and goes away, whatever status it is in and whatever fails."""

import re
from contextlib import suppress

import pytest

from infra import change_set, cloudformation_stack, stack_events, terminal
from infra.cloudformation_stack import Stack
from infra.terminal import Refused
from tests.support.strict_cloudformation import COMPLETE, REASON, STATUSES, StrictCloudFormation

INFRA, DESTROY = "make infra STAGE=dev", "make destroy STAGE=dev"
GONE = (None, "DELETE_COMPLETE")
# Of any command in a row.
MOST_FAILURES = 4


class Person:
    """Runs commands on a stack, and types what is asked for, or nothing."""

    def __init__(
        self, aws: StrictCloudFormation, is_willing: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.aws, self.is_willing = aws, is_willing
        self.asked: list[str] = []
        for module in (change_set, cloudformation_stack, stack_events):
            monkeypatch.setattr(module, "time", aws.clock)
        monkeypatch.setattr(terminal, "input", self._answer, raising=False)

    def _answer(self, question: str) -> str:
        self.asked.append(question)
        [word] = re.findall(r"Type (\w+) to go on", question)
        return str(word) if self.is_willing else ""

    def run(self, command: str) -> str | None:
        """Returns the next command, if this one was refused."""
        try:
            self._command(command)
        except Refused as rejected:
            text = str(rejected)
            if "run this again" in text:
                return command
            [words] = re.findall(r"run (make \w+ STAGE=\w+)", text)[:1]
            return str(words)
        return None

    def _command(self, command: str) -> None:
        stack = Stack(self.aws, "herocache-dev", INFRA, DESTROY)
        if command == INFRA:
            stack.apply("{}", {"Stage": "dev"})
        else:
            stack.delete()

    def run_once(self, command: str) -> None:
        with suppress(Refused):
            self._command(command)

    def run_until_done(self, command: str) -> None:
        """Runs it, and each command that it is told to run. Where that deletes the stack, begins
        again."""
        next_command: str | None = command
        for _ in range(2 * MOST_FAILURES):
            next_command = self.run(next_command or command)
            if next_command is None and (command == DESTROY or self.aws.status in COMPLETE):
                return
        raise AssertionError(f"a loop: {self.aws.status}, {self.aws.calls}")


@pytest.mark.parametrize("repairs", [True, False])
@pytest.mark.parametrize("is_willing", [True, False])
@pytest.mark.parametrize("failing", range(MOST_FAILURES + 1))
@pytest.mark.parametrize("status", [None, *STATUSES])
def test_from_every_status_a_stack_comes_up_in_the_end(
    status: str | None,
    failing: int,
    is_willing: bool,
    repairs: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    aws = StrictCloudFormation(status, failing, repairs)
    Person(aws, is_willing, monkeypatch).run_until_done(INFRA)
    assert aws.status in COMPLETE


@pytest.mark.parametrize("is_willing", [True, False])
@pytest.mark.parametrize("failing", range(MOST_FAILURES + 1))
@pytest.mark.parametrize("status", [None, *STATUSES])
def test_from_every_status_a_stack_goes_away_in_the_end(
    status: str | None, failing: int, is_willing: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    aws = StrictCloudFormation(status, failing)
    Person(aws, is_willing, monkeypatch).run_until_done(DESTROY)
    assert aws.status in GONE


def test_a_creation_that_fails_is_repaired_and_not_begun_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    aws = StrictCloudFormation(None, failing=2)
    person = Person(aws, False, monkeypatch)
    assert [person.run(INFRA), person.run(INFRA), person.run(INFRA)] == [INFRA, INFRA, None]
    assert aws.calls == ["create_stack", "update_stack", "update_stack"]


def test_what_is_left_of_a_failed_creation_is_removed_before_the_next_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    aws = StrictCloudFormation("ROLLBACK_COMPLETE")
    assert Person(aws, False, monkeypatch).run(INFRA) is None
    assert aws.calls == ["delete_stack", "create_stack"]
    assert aws.now - aws.deleted_at > 60, "the name of a deleted queue is taken for a minute"


def test_a_change_that_goes_on_already_is_followed_first(monkeypatch: pytest.MonkeyPatch) -> None:
    aws = StrictCloudFormation("UPDATE_IN_PROGRESS")
    assert Person(aws, False, monkeypatch).run(INFRA) is None
    assert aws.calls == ["create_change_set", "execute_change_set"]


@pytest.mark.parametrize(
    "change",
    [
        {"Action": "Remove"},
        {"Action": "Modify", "Replacement": "True"},
        {"Action": "Modify", "Replacement": "Conditional"},
    ],
    ids=str,
)
def test_nothing_is_deleted_or_replaced_unless_somebody_says_so(
    change: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for is_willing in (False, True):
        aws = StrictCloudFormation("CREATE_COMPLETE")
        aws.changes += [{**change, "LogicalResourceId": "Database"}]
        person = Person(aws, is_willing, monkeypatch)
        person.run_once(INFRA)
        [question] = person.asked
        assert "Database" in question
        assert "Alarms" not in question
        last = "execute_change_set" if is_willing else "delete_change_set"
        assert aws.calls == ["create_change_set", last]
        assert "change       Add Alarms" in capsys.readouterr().out


def test_a_change_that_loses_nothing_is_made_without_a_question(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    aws = StrictCloudFormation("CREATE_COMPLETE")
    aws.changes += [{"Action": "Modify", "Replacement": "False", "LogicalResourceId": "Database"}]
    person = Person(aws, False, monkeypatch)
    assert person.run(INFRA) is None
    assert person.asked == []


def test_a_stack_that_is_as_the_template_says_is_left_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    aws = StrictCloudFormation("CREATE_COMPLETE")
    aws.changes = []
    assert Person(aws, False, monkeypatch).run(INFRA) is None
    assert aws.calls == ["create_change_set", "delete_change_set"]
    assert "is as the template says" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("status", "command", "call", "answer"),
    [
        ("CREATE_COMPLETE", DESTROY, "delete_stack", "forget"),
        ("UPDATE_ROLLBACK_FAILED", INFRA, "continue_update_rollback", "skip"),
    ],
)
def test_nothing_is_left_behind_unless_somebody_says_so(
    status: str, command: str, call: str, answer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    aws = StrictCloudFormation(status, failing=1)
    person = Person(aws, False, monkeypatch)
    assert person.run(command) == command
    assert aws.calls == [call]
    [question] = person.asked
    for words in ("Cache (herocache-dev)", REASON, f"Type {answer}"):
        assert words in question


@pytest.mark.parametrize(
    ("status", "command"),
    [("CREATE_COMPLETE", DESTROY), ("DELETE_FAILED", DESTROY), ("UPDATE_ROLLBACK_FAILED", INFRA)],
)
def test_what_never_succeeds_is_left_behind_where_somebody_says_so(
    status: str, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    aws = StrictCloudFormation(status, failing=99)
    assert Person(aws, True, monkeypatch).run(command) is None


def test_outputs_are_those_of_a_complete_stack() -> None:
    for status in STATUSES:
        stack = Stack(StrictCloudFormation(status), "herocache-dev", INFRA, DESTROY)
        if status in COMPLETE:
            assert stack.outputs() == {}
            assert not stack.was_never_complete()
        else:
            with pytest.raises(Refused, match=r"run make (infra|destroy) STAGE=dev"):
                stack.outputs()


def test_events_are_shown_once_while_they_come(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    aws = StrictCloudFormation("CREATE_FAILED", failing=1)
    aws._tell("CREATE_FAILED", "of the first time")
    assert Person(aws, False, monkeypatch).run(INFRA) == INFRA
    said = capsys.readouterr().out
    assert said.count(REASON) == 1
    assert "of the first time" not in said


def test_what_followed_from_a_failure_is_not_called_a_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    aws = StrictCloudFormation(None, failing=1)
    Person(aws, False, monkeypatch)
    aws._tell("CREATE_FAILED", "Resource creation cancelled")
    with pytest.raises(Refused, match=f"Cache CREATE_FAILED: {REASON}") as rejected:
        Stack(aws, "herocache-dev").apply("{}", {})
    assert "cancelled" not in str(rejected.value)
