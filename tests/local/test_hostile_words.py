"""What is typed behind `make` is a word and never code; `make clean` deletes nobody else's files;
and no other user of the machine gets into its Redis.
"""

import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest
import redis
from botocore.exceptions import ClientError

from local.commands import invoke
from local.home_folder import Home
from local.machine import LOOPBACK, ROOT, command_line
from local.servers import DataApi, MariaDB, Redis
from local.servers.data_api import CLUSTER_ARN, SECRET_ARN
from tests.support.project_copy import clean_environment

PYTHON = """#!/bin/sh
printf '%s|' "$@" "$STAGE" "$URL" "$KEY" "$FILE" "$MINUTES" "$SQL" "$PYTHON"
"""
CODE = (
    "dev; touch hacked",
    "$(touch hacked)",
    "`touch hacked`",
    "$(shell touch hacked)",
    '"; touch hacked; "',
    "' ; touch hacked ; '",
    "a\ntouch hacked",
    "$$(touch hacked)",
)
GOALS = {
    "STAGE": ("infra", "configure", "deploy", "destroy", "sql", "logs", "report"),
    "SQL": ("sql",),
    "PYTHON": ("deploy",),
    "URL": ("grade",),
    "KEY": ("grade",),
    "FILE": ("upload",),
    "MINUTES": ("soak",),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The Makefile, with programs that do nothing but show what they were given."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "local").mkdir()
    (tmp_path / "local" / "install.sh").write_text("true\n")
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(PYTHON)
    python.chmod(0o755)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "goal"), [(name, goal) for name, goals in GOALS.items() for goal in goals]
)
@pytest.mark.parametrize("way", ["argument", "environment"])
def test_what_is_typed_behind_make_is_never_run(
    folder: Path, name: str, goal: str, way: str
) -> None:
    for code in CODE:
        settings, words = ({}, [f"{name}={code}"]) if way == "argument" else ({name: code}, [])
        done = subprocess.run(
            ["make", goal, *words],
            cwd=folder,
            env=clean_environment(**settings),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert not (folder / "hacked").exists(), code
        if not (way == "argument" and "\n" in code):  # make itself does not take it
            assert f"|{code}|" in done.stdout, "it arrives as it was typed"


def test_without_a_stage_it_is_dev_and_without_minutes_ten(folder: Path) -> None:
    for goal, words in (("deploy", "infra|deploy|dev|"), ("soak", "--minutes|10|")):
        said = subprocess.run(
            ["make", goal],
            cwd=folder,
            env=clean_environment(),
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        ).stdout
        assert words in said


# --- make clean -----------------------------------------------------------------------------------


def test_clean_deletes_nothing_that_these_commands_did_not_make(tmp_path: Path) -> None:
    """HEROCACHE_HOME may name a folder that somebody else uses, such as their own."""
    for name in ("mariadb", "redis", "s3", "app", "data_api"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "thesis.txt").write_text("years of work")
    (tmp_path / "env").write_text("PATH=/bin\n")

    Home(tmp_path).remove()

    assert len(list(tmp_path.glob("*/thesis.txt"))) == 5
    assert (tmp_path / "env").exists()


def test_a_server_in_a_folder_that_was_there_before_does_not_make_it_ours(tmp_path: Path) -> None:
    (tmp_path / "redis").mkdir()
    (tmp_path / "redis" / "thesis.txt").write_text("years of work")
    home = Home(tmp_path)
    home.redis._make_home()
    home.remove()
    assert (tmp_path / "redis" / "thesis.txt").exists()


def test_clean_deletes_what_they_made(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    for server in (home.mariadb, home.redis, home.s3, home.data_api, home.app):
        server._make_home()
        (server.home / "data").write_text("a")
    home.env.write_text("A=b\n")
    home.remove()
    assert not home.folder.exists()


# --- the password of Redis ------------------------------------------------------------------------


@pytest.mark.proof
def test_redis_asks_other_users_of_the_machine_for_a_password(tmp_path: Path) -> None:
    server = Home(tmp_path).redis
    with server:
        assert server.pid is not None
        with redis.Redis(host=LOOPBACK, port=server.port) as stranger:
            for words in (["GET", "a"], ["SET", "a", "b"], ["FLUSHALL"], ["CONFIG", "GET", "*"]):
                with pytest.raises(redis.exceptions.AuthenticationError):
                    stranger.execute_command(*words)
        url = server.environment()["REDIS_URL"]
        with redis.Redis.from_url(url) as client:
            assert client.ping()
        password = url.split(":")[2].split("@")[0]
        assert len(password) == 32
        told = subprocess.run(["redis-cli", "-u", url, "PING"], capture_output=True, text=True)
        assert told.stdout == "PONG\n"
        started_with = command_line(server.pid)
    assert password not in started_with
    files = [path for path in server.home.iterdir() if password in path.read_text(errors="ignore")]
    assert files
    assert {stat.S_IMODE(os.stat(path).st_mode) for path in files} == {0o600}
    with Redis(server.home, asks_password=True) as again:
        assert again.environment()["REDIS_URL"].split("@")[0] == url.split("@")[0]


def test_other_users_of_the_machine_do_not_know_the_secret_of_its_data_api(tmp_path: Path) -> None:
    """The local Data API checks no signature: who knows this ARN may run SQL."""
    mine, other = (Home(tmp_path / name).data_api for name in ("mine", "other"))
    again = Home(tmp_path / "mine").data_api

    assert mine.secret_arn == again.secret_arn != other.secret_arn
    assert len(mine.secret_arn) == len(SECRET_ARN) + 32
    files = [path for path in mine.home.iterdir() if mine.secret_arn[-32:] in path.read_text()]
    assert [stat.S_IMODE(os.stat(path).st_mode) for path in files] == [0o600]


def test_the_data_api_of_a_home_takes_no_other_secret(tmp_path: Path, mariadb: MariaDB) -> None:
    call = {"resourceArn": CLUSTER_ARN, "database": mariadb.database, "sql": "SELECT 1"}
    with DataApi(tmp_path, mariadb.environment, hides_secret=True) as server:
        client = server.client()
        client.execute_statement(**call, secretArn=server.secret_arn)
        with pytest.raises(ClientError, match="SecretsErrorException"):
            client.execute_statement(**call, secretArn=SECRET_ARN)
        assert server.pid is not None
        assert server.secret_arn not in command_line(server.pid)


def test_what_a_function_returns_cannot_move_the_cursor(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Rows are in it, which others wrote."""
    monkeypatch.setattr(invoke, "asked_event", lambda: {})
    monkeypatch.setattr(invoke, "answer_of", lambda *_: {"body": [{"hero": "é\x9b2J\u202e"}]})
    assert invoke.invoke() == 0
    lines = capsys.readouterr().out.split("\n")
    assert r'      "hero": "é\x9b2J\u202e"' in lines
    assert all(line.isprintable() for line in lines)
