"""`make sql`, `make logs`, `make report`: what they print, and what they never print."""

import datetime
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.exceptions import ClientError

from infra import (
    adopted_settings,
    aws_errors,
    commands,
    function_logs,
    last_error,
    report,
    stage_files,
)
from infra.sql import refuse_empty, run
from infra.stage_files import Stage
from infra.terminal import Refused

Json = dict[str, Any]
NUMBER = "987654321098"
SECRET = "hunter2hunter2"
EMAIL = "somebody@example.com"


def refusal(code: str) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": f"of {NUMBER}"}}, "any")


def paged(pages: dict[str, list[Json]]) -> Any:
    """A get_paginator whose operations have one page each."""
    return lambda operation: SimpleNamespace(paginate=lambda **_: pages[operation])


# --- make sql -------------------------------------------------------------------------------------


class DataApi:
    def __init__(self, *answers: Json | Exception) -> None:
        self._answers = list(answers)

    def execute_statement(self, sql: str, **_: object) -> Json:
        answer = self._answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


ROWS = {
    "columnMetadata": [{"name": "id", "label": "id"}, {"name": "hero", "label": "who"}],
    "records": [[{"longValue": 1}, {"stringValue": "Ünal"}], [{"longValue": 2}, {"isNull": True}]],
}


def test_sql_prints_the_columns_and_a_line_a_row(capsys: pytest.CaptureFixture[str]) -> None:
    run(DataApi(ROWS), "arn", "secret", "SELECT id, hero AS who FROM heroes")
    assert capsys.readouterr().out.splitlines() == ['["id", "who"]', '[1, "Ünal"]', "[2, null]"]


def test_sql_says_how_many_rows_changed(capsys: pytest.CaptureFixture[str]) -> None:
    run(DataApi({"numberOfRecordsUpdated": 3}), "arn", "secret", "DELETE FROM heroes")
    assert "3 rows changed" in capsys.readouterr().out


def test_sql_waits_for_a_database_that_sleeps(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = SimpleNamespace(sleep=lambda _: None, monotonic=lambda: 0.0)
    monkeypatch.setattr(aws_errors, "time", clock)
    run(DataApi(refusal("DatabaseResumingException"), ROWS), "arn", "secret", "SELECT 1")
    assert '[1, "Ünal"]' in capsys.readouterr().out


def test_sql_without_a_statement_says_how_to_give_one() -> None:
    with pytest.raises(Refused, match=r"make sql STAGE=dev SQL='"):
        refuse_empty(" ")


def test_sql_shows_no_row_that_moves_the_cursor(capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever may write rows must not act on the terminal of the person who reads them."""
    rows = {**ROWS, "records": [[{"longValue": 1}, {"stringValue": "é\x9b2J\x1b[2J\u202e\u2028"}]]}
    run(DataApi(rows), "arn", "secret", "SELECT 1")
    assert capsys.readouterr().out.splitlines()[1:] == [r'[1, "é\x9b2J\u001b[2J\u202e\u2028"]']


@pytest.mark.parametrize(
    ("engine", "switched"), [("mysql", ["enable", "disable"]), ("dataapi", [])]
)
def test_sql_turns_the_data_api_on_only_where_it_is_off_and_off_again(
    monkeypatch: pytest.MonkeyPatch, engine: str, switched: list[str]
) -> None:
    done: list[str] = []
    outputs = {"DatabaseEngine": engine, "DatabaseArn": "arn", "DatabaseSecretArn": "secret"}
    clients = {
        "cloudformation": None,
        "rds": SimpleNamespace(
            enable_http_endpoint=lambda **_: done.append("enable"),
            disable_http_endpoint=lambda **_: done.append("disable"),
        ),
        "rds-data": DataApi(refusal("BadRequestException")),
    }
    monkeypatch.setattr(commands, "client", clients.__getitem__)
    monkeypatch.setattr(commands, "_stack", lambda _: SimpleNamespace(outputs=lambda: outputs))
    monkeypatch.setenv("SQL", "SELEC 1")
    with pytest.raises(ClientError):
        commands.sql(Stage("dev"))
    assert done == switched


# --- make logs ------------------------------------------------------------------------------------


def test_each_line_of_a_log_is_shown_once_in_the_order_of_time(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    second = {"eventId": "1", "timestamp": 2000, "message": "second\x1b[2J\x9b2J\n"}
    lines: dict[str, list[Json]] = {
        "/aws/lambda/a": [second],
        "/aws/lambda/b": [{"eventId": "2", "timestamp": 1000, "message": "first\n"}],
    }
    looks: list[int] = []

    def pages(logGroupName: str, startTime: int) -> Iterator[Json]:
        looks.append(startTime)
        if logGroupName not in lines:
            raise refusal("ResourceNotFoundException")
        yield {"events": lines[logGroupName]}

    def sleep(_: float) -> None:
        if len(looks) > 3:
            raise KeyboardInterrupt
        lines["/aws/lambda/a"].append({"eventId": "3", "timestamp": 3000, "message": "third\n"})

    clock = SimpleNamespace(sleep=sleep, time=lambda: 1_000_000.0)
    monkeypatch.setattr(function_logs, "time", clock)
    logs = SimpleNamespace(get_paginator=lambda _: SimpleNamespace(paginate=pages))
    with pytest.raises(KeyboardInterrupt):
        function_logs.follow(logs, ["a", "b", "not-deployed"])
    printed = [line.split(maxsplit=1)[1] for line in capsys.readouterr().out.splitlines()]
    assert printed == ["b: first", r"a: second\x1b[2J\x9b2J", "a: third"]
    assert looks[0] == 1_000_000_000 - function_logs.MINUTES_BEFORE * 60_000
    assert looks[-1] == 1_000_000_000 - function_logs.OVERLAP_MILLISECONDS


# --- make report ----------------------------------------------------------------------------------


class Account:
    """Each service of an account in which a creation has failed."""

    def describe_stacks(self, StackName: str) -> Json:
        return {"Stacks": [{"StackStatus": "CREATE_FAILED"}]}

    @property
    def get_paginator(self) -> Any:
        at = datetime.datetime(2026, 1, 1, tzinfo=datetime.timezone.utc)
        named = {"LogicalResourceId": "Cache", "ResourceStatus": "CREATE_FAILED", "Timestamp": at}
        made = {"LogicalResourceId": "Network", "ResourceStatus": "CREATE_COMPLETE"}
        failed = {
            **named,
            "ResourceStatusReason": f"arn:aws:elasticache:eu-west-1:{NUMBER}:a {EMAIL}",
        }
        return paged(
            {
                "list_stack_resources": [{"StackResourceSummaries": [named, made]}],
                "describe_stack_events": [{"StackEvents": [failed]}],
            }
        )

    def get_function_configuration(self, FunctionName: str) -> Json:
        if FunctionName.endswith("sync"):
            raise refusal("ResourceNotFoundException")
        return {
            "Runtime": "python3.13",
            "StateReason": "no address left",
            "Environment": {"Variables": {"DB_PASS": SECRET}},
        }

    def get_account_settings(self) -> Json:
        raise refusal("AccessDenied")


def test_a_report_says_what_failed_and_holds_no_secret(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(report, "client", lambda _: Account())
    monkeypatch.setattr(report, "caller", lambda: f"arn:aws:iam::{NUMBER}:user/me")
    monkeypatch.setattr(report, "region", lambda: "eu-west-1")
    stage = Stage("dev")
    stage.environment["DB_PASS"] = SECRET
    stage.choices["parameters"]["AlarmEmail"] = EMAIL
    monkeypatch.setattr(report, "Stage", lambda _: stage)
    report.show("dev")
    text = capsys.readouterr().out
    for words in (
        *(
            "herocache-dev; Python 3.",
            ":user/me in eu-west-1",
            "CREATE_FAILED",
            "Cache CREATE_FAILED: arn:aws:",
        ),
        *("no address left", "herocache-dev-sync: ResourceNotFoundException", "DB_PASS"),
        *("cannot be asked", report.ACCOUNT),
    ):
        assert words in text
    for words in (SECRET, NUMBER, EMAIL, "Network"):
        assert words not in text


def test_a_stage_that_make_adopt_refused_has_a_report_of_what_there_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Also where AWS does not know who asks. It shows no password, and no other command writes the
    error of a name that no file has."""
    (tmp_path / "infra").mkdir()
    for module in (adopted_settings, last_error, stage_files):
        monkeypatch.setattr(module, "ROOT", tmp_path)
    path = tmp_path / "infra" / "class.env"
    path.write_text(f"DB_HOST=there\nDB_PASS={SECRET}\nREDIS_URL=\nTTL=soon\n")

    def nobody() -> str:
        raise Refused("AWS does not know who asks")

    monkeypatch.setattr(report, "caller", nobody)
    monkeypatch.setattr(report, "client", pytest.fail)
    last_error.keep("adopt", "class", f"the database {NUMBER} rejects {SECRET}")
    last_error.keep("destroy", "nope", "there is no such stage")
    report.show("class")

    text = capsys.readouterr().out
    for words in (
        *(
            "herocache-class; Python 3.",
            "AWS does not know who asks",
            "given: DB_HOST, DB_PASS, TTL",
        ),
        *("empty: REDIS_URL\n", "DB_NAME is missing", "TTL: expected an integer"),
        *("STAGE=class: there is no such stage; .chalice/config.json declares dev, prod;",),
        f"make adopt: the database {report.ACCOUNT} rejects …\n",
    ):
        assert words in text
    assert SECRET not in text
    assert not (tmp_path / "infra" / "nope.error").exists()
    assert (tmp_path / "infra" / "class.error").stat().st_mode & 0o777 == 0o600


def test_a_slip_in_the_name_of_a_stage_is_no_call_to_make_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(stage_files, "CONFIG", tmp_path / "config.json")
    stage_files.CONFIG.write_text('{"stages": {"dev": {}, "prod": {}}}')
    with pytest.raises(Refused, match=r"STAGE=nope: there is no such stage; .* dev, prod$"):
        Stage("nope")
    with pytest.raises(Refused, match=r"dev, prod; make adopt STAGE=class adds it$"):
        Stage("class")


def test_each_error_of_a_command_is_kept_for_the_report(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "infra").mkdir()
    (tmp_path / "infra" / "class.env").touch()
    monkeypatch.setattr(last_error, "ROOT", tmp_path)
    for error in (Refused("the reason"), refusal("AccessDenied")):

        def refuse(_: str, error: Exception = error) -> None:
            raise error

        monkeypatch.setattr(commands, "adopt", refuse)
        monkeypatch.setattr(sys, "argv", ["infra", "adopt", "class"])
        with pytest.raises(SystemExit) as caught:
            runpy.run_module("infra", run_name="__main__")
        assert caught.value.code == 1
        kept = last_error.of("class")
        assert "make adopt: " in kept
        assert ("the reason" if isinstance(error, Refused) else "AccessDenied") in kept
