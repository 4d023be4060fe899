"""`make adopt`: a stage on a database, a cache, a network, a bucket and a role that are there."""

import contextlib
import getpass
import json
import os
import pty
import re
import secrets
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import boto3
import pytest
import requests
from botocore.exceptions import (
    ClientError,
    EndpointConnectionError,
    NoCredentialsError,
    ReadTimeoutError,
)

from infra import (
    adopted_database,
    adopted_pieces,
    adopted_settings,
    adopted_stage,
    before_deploy,
    closed_doors,
    commands,
    database_schema,
    stage_files,
)
from infra.account import session as account_session
from infra.terminal import Refused
from local.servers import MariaDB, Redis
from seed import apply
from tests.conftest import SETTINGS, Configure
from tests.support.api_front import api_front
from tests.support.client import ROOT
from tests.support.container import Container, runtime_folder
from tests.support.deployment import Project
from tests.support.emulated_aws import REGION, Emulated, emulated
from tests.support.stage_life import NATIVE, seen, unpack

Json = dict[str, Any]
CLASS = "class"
NAME = f"herocache-{CLASS}"
PASSWORD = secrets.token_hex(8)
ROWS = 3


@pytest.fixture(scope="module")
def account() -> Iterator[Emulated]:
    with emulated() as account:
        yield account


@pytest.fixture(scope="module")
def database(mariadb: MariaDB) -> Iterator[dict[str, str]]:
    """Of a student: the table is filled, and has a column of the student's own."""
    mariadb.query("CREATE DATABASE course")
    mariadb.query(
        "CREATE TABLE course.superheroes (id INT NOT NULL AUTO_INCREMENT PRIMARY KEY,"
        " hero VARCHAR(255) NOT NULL, power VARCHAR(255) NOT NULL, name VARCHAR(255) NOT NULL,"
        " xp INT NOT NULL, color VARCHAR(255) NOT NULL, mine INT NULL, INDEX by_xp (xp))"
        " ENGINE = InnoDB DEFAULT CHARSET = utf8mb4"
    )
    for number in range(1, ROWS + 1):
        mariadb.query(
            "INSERT INTO course.superheroes VALUES (%s, 'a', 'b', 'c', 7, 'd', 5)", [number]
        )
    mariadb.query(f"CREATE USER student IDENTIFIED BY '{PASSWORD}'")
    mariadb.query("GRANT ALL ON course.* TO student")
    mariadb.make_known("student", PASSWORD)
    yield {
        "DB_HOST": mariadb.address,
        "DB_PORT": str(mariadb.port),
        "DB_USER": "student",
        "DB_PASS": PASSWORD,
        "DB_NAME": "course",
        "DB_TABLE": "superheroes",
    }
    mariadb.query("DROP DATABASE course")
    mariadb.query("DROP USER student")


@pytest.fixture(scope="module")
def pieces(account: Emulated) -> dict[str, str]:
    """What a student has in the account."""
    ec2, iam, s3 = (account.client(name) for name in ("ec2", "iam", "s3"))
    network = ec2.create_vpc(CidrBlock="10.9.0.0/16")["Vpc"]["VpcId"]
    subnets = [
        ec2.create_subnet(VpcId=network, CidrBlock=f"10.9.{n}.0/24")["Subnet"]["SubnetId"]
        for n in range(2)
    ]
    group = ec2.create_security_group(GroupName="mine", Description="mine", VpcId=network)
    s3.create_bucket(
        Bucket="course-uploads", CreateBucketConfiguration={"LocationConstraint": REGION}
    )
    iam.create_role(RoleName="LabRole", AssumeRolePolicyDocument=json.dumps(trust("lambda")))
    return {
        "SUBNET_IDS": ",".join(subnets),
        "SECURITY_GROUP_IDS": str(group["GroupId"]),
        "UPLOAD_BUCKET": "course-uploads",
        "LAMBDA_ROLE": "LabRole",
        "API_AUTH": "none",
        "READ_BY": "xp",
    }


def trust(service: str) -> Json:
    principal = {"Service": [f"{service}.amazonaws.com", "ec2.amazonaws.com"]}
    allowed = {"Effect": "Allow", "Principal": principal, "Action": "sts:AssumeRole"}
    return {"Version": "2012-10-17", "Statement": [allowed]}


@pytest.fixture(scope="module")
def settings(
    database: dict[str, str], pieces: dict[str, str], redis_server: Redis
) -> dict[str, str]:
    return {**database, **pieces, **redis_server.environment()}


@pytest.fixture(scope="module")
def project(account: Emulated, tmp_path_factory: pytest.TempPathFactory) -> Project:
    return Project(tmp_path_factory.mktemp("project"), account, "file:///nowhere")


def write_settings(folder: Path, settings: Mapping[str, str], stage: str = CLASS) -> None:
    path = folder / "infra" / f"{stage}.env"
    path.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))


@pytest.fixture(scope="module")
def adopted(project: Project, settings: dict[str, str]) -> str:
    """What `make adopt` said the first time."""
    write_settings(project.home, settings)
    return project.must("adopt", CLASS)


# --- what it writes -------------------------------------------------------------------------------


def test_a_filled_table_stays_and_the_services_own_are_made(adopted: str, mariadb: MariaDB) -> None:
    assert "tables made: heroes, products, employees, cache_generation, watched" in adopted
    assert f"superheroes: {ROWS} rows, which stay as they are" in adopted
    assert "cache        Redis answers" in adopted
    [(left, mine)] = mariadb.query("SELECT COUNT(*), SUM(mine) FROM course.superheroes")
    assert (left, mine) == (ROWS, 5 * ROWS)
    assert not mariadb.query("SHOW TRIGGERS FROM course"), "it is the student's table"


def test_the_stage_has_the_pieces_and_no_secret(
    adopted: str, project: Project, settings: dict[str, str], account: Emulated
) -> None:
    stage = project.stage(CLASS)
    assert stage["subnet_ids"] == settings["SUBNET_IDS"].split(",")
    assert stage["security_group_ids"] == [settings["SECURITY_GROUP_IDS"]]
    assert stage["manage_iam_role"] is False
    assert stage["iam_role_arn"] == f"arn:aws:iam::{account.id}:role/LabRole"
    variables = stage["environment_variables"]
    assert variables["DB_TABLE"] == "superheroes"
    assert variables["RANGES_BUCKET"] == ""
    assert not {"DB_PASS", "REDIS_URL", "LAMBDA_ROLE", "SUBNET_IDS"} & set(variables)
    functions = {"api_handler", "storage", "employees", "ingest", "sync"}
    assert set(stage["lambda_functions"]) == functions, "sync_range has no bucket"
    assert files_with(project, PASSWORD) == ["class.env"]
    assert PASSWORD not in adopted
    for name in ("DB_PASS", "REDIS_URL"):
        assert f"{name}: will be in the environment of each function" in adopted


def files_with(project: Project, text: str) -> list[str]:
    paths = [path for path in project.home.rglob("*") if path.is_file()]
    return [path.name for path in paths if text.encode() in path.read_bytes()]


def test_nobody_else_can_read_the_file_with_the_password_and_git_does_not_keep_it(
    adopted: str, project: Project
) -> None:
    path = project.home / "infra" / "class.env"
    assert path.stat().st_mode & 0o777 == 0o600
    ignored = ["git", "check-ignore", "--no-index", "-q", "infra/class.env"]
    assert subprocess.run(ignored, cwd=ROOT, check=False).returncode == 0


@pytest.mark.proof
def test_a_second_run_changes_nothing_and_keeps_what_was_edited(
    adopted: str, project: Project
) -> None:
    functions = project.stage(CLASS)["lambda_functions"]
    functions["storage"]["lambda_memory_size"] = 256
    project.change({"lambda_functions": functions}, CLASS)
    before = project.files()
    said = project.must("adopt", CLASS)
    assert project.files() == before
    assert "tables made: none was missing" in said
    assert ".chalice/config.json: as before" in said


def test_an_open_stage_says_what_that_means(adopted: str) -> None:
    assert "whoever knows the URL may read, change and delete rows: API_AUTH=none" in adopted


@pytest.mark.parametrize("command", [commands.infra, commands.configure, commands.sql])
def test_the_commands_of_a_stack_say_what_the_stage_stands_on(
    command: Callable[[Any], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commands, "client", pytest.fail)
    with pytest.raises(Refused, match="STAGE=class has no stack: it stands on a database"):
        command(SimpleNamespace(name=CLASS, is_adopted=True))


# --- what it refuses ------------------------------------------------------------------------------


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """In place of the project's, with no terminal."""
    (tmp_path / "infra").mkdir()
    monkeypatch.setattr(adopted_settings, "ROOT", tmp_path)
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(isatty=lambda: False))
    return tmp_path


def test_everything_that_is_missing_or_malformed_is_named_at_once(folder: Path) -> None:
    changes = {
        "DB_HOST": "mysql://there:3306",
        "DB_USER": "student",
        "DB_PASS": f'"{PASSWORD}"',
        "API_AUTH": "",
        "READ_BY": "age",
        "SUBNET_IDS": "subnet-1",
        "DB_HOTS": "there",
        "DB_ENGINE": "dataapi",
        "DB_PORT": "abc",
        "TTL": "soon",
        "UNCACHED_READS": "replica",
    }
    write_settings(folder, changes)
    with pytest.raises(Refused) as caught:
        adopted_settings.collect(CLASS)

    heading, *lines = str(caught.value).splitlines()
    assert heading == "infra/class.env, nothing was changed:"
    for line, words in zip(
        lines,
        (
            "DB_HOST: expected a host name",
            "DB_NAME is missing: Name of the database",
            "DB_PASS: write the value without quotes",
            "READ_BY: no table can be read by this column; there are ",
            "API_AUTH is missing: Who may call",
            "SUBNET_IDS: expected subnet-0123",
            "LAMBDA_ROLE is missing: Role of the functions",
            "DB_HOTS: there is no such setting; there are DB_HOST, ",
            "DB_ENGINE: not for a stage of make adopt",
            "DB_PORT: expected an integer from 1 to 65535",
            "TTL: expected an integer from 1 to",
            "UNCACHED_READS=replica needs DB_READER_HOST",
            "SUBNET_IDS and SECURITY_GROUP_IDS: give both",
        ),
        strict=True,
    ):
        assert line.strip().startswith(words)
    assert PASSWORD not in str(caught.value)


def test_user_and_password_or_a_secret_are_given_and_not_both(folder: Path) -> None:
    arn = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:a-b"
    given = {"DB_HOST": "a", "DB_NAME": "b", "API_AUTH": "none", "LAMBDA_ROLE": "c"}
    write_settings(folder, {**given, "DB_SECRET_ARN": arn})
    assert adopted_settings.collect(CLASS)["DB_SECRET_ARN"] == arn
    write_settings(folder, {**given, "DB_SECRET_ARN": arn, "DB_PASS": PASSWORD})
    with pytest.raises(Refused, match="DB_SECRET_ARN and DB_PASS: give one of them"):
        adopted_settings.collect(CLASS)
    write_settings(folder, given)
    with pytest.raises(Refused, match=r"(?s)DB_USER is missing.*DB_PASS is missing"):
        adopted_settings.collect(CLASS)


def test_without_a_file_and_a_terminal_there_is_a_file_to_fill_in(folder: Path) -> None:
    words = (
        r"(?s)^infra/class\.env was made: fill it in:.*DB_HOST is missing.*LAMBDA_ROLE is missing"
    )
    with pytest.raises(Refused, match=words):
        adopted_settings.collect(CLASS)
    path = folder / "infra" / "class.env"
    text = path.read_text()
    assert "# Host of the database, its writer endpoint\nDB_HOST=\n" in text
    assert "# Table with the columns of heroes; empty: heroes\nDB_TABLE=\n" in text
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(Refused, match=r"^infra/class\.env, nothing was changed:"):
        adopted_settings.collect(CLASS)


def test_what_is_taken_as_empty_is_said(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = {"DB_HOST": "a", "DB_NAME": "b", "DB_USER": "c", "DB_PASS": PASSWORD}
    given |= {"API_AUTH": "none", "LAMBDA_ROLE": "d", "DB_TABLE": "heroes", "REDIS_SERVERLESS": "1"}
    write_settings(folder, given)
    adopted_settings.collect(CLASS)
    empty = "READ_BY, REDIS_URL, SUBNET_IDS, SECURITY_GROUP_IDS, UPLOAD_BUCKET"
    assert f"adopt        empty in infra/class.env: {empty}\n" in capsys.readouterr().out


def test_a_line_that_is_no_setting_is_named(folder: Path) -> None:
    write_settings(folder, {"DB_HOST": "there\nDB_NAME"})
    with pytest.raises(Refused, match=r"infra/class\.env, line 2: expected NAME=value"):
        adopted_settings.collect(CLASS)


def test_a_line_that_stands_twice_is_named(folder: Path) -> None:
    write_settings(folder, {"DB_HOST": "there\nDB_NAME=a", "DB_HOST ": "here"})
    with pytest.raises(
        Refused, match=r"infra/class\.env, line 3: DB_HOST stands in line 1 already"
    ):
        adopted_settings.collect(CLASS)


@pytest.mark.parametrize("stage", ["dev", "prod", "local", "Class"])
def test_a_name_that_is_taken_or_malformed_is_refused(stage: str) -> None:
    with pytest.raises(Refused, match=f"STAGE={stage}.*such as"):
        adopted_stage.refuse_name(stage)


def test_a_stage_whose_secrets_are_on_another_machine_is_not_deployed(
    adopted: str, project: Project, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is asked of AWS before."""
    monkeypatch.setattr(stage_files, "CONFIG", project.home / ".chalice" / "config.json")
    monkeypatch.setattr(before_deploy, "client", pytest.fail)
    with pytest.raises(Refused, match=r"infra/class\.env is not there.*make adopt STAGE=class"):
        before_deploy.refuse_unprepared(stage_files.Stage(CLASS))


def test_prod_is_not_adopted_openly(
    adopted: str, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage_files, "CONFIG", project.home / ".chalice" / "config.json")
    stage = stage_files.Stage(CLASS)
    assert stage.api_auth == "none"
    stage.name = "prod"
    with pytest.raises(Refused, match="STAGE=prod: API_AUTH is none: choose iam or key"):
        before_deploy.refuse_unprepared(stage)


# --- what AWS says of the pieces ------------------------------------------------------------------


@pytest.fixture
def look(
    account: Emulated, settings: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[str, dict[str, str]]]:
    """Checks the pieces, with some settings changed."""
    monkeypatch.setattr(adopted_pieces, "client", lru_cache(account.client))
    for module in (adopted_pieces, closed_doors):
        monkeypatch.setattr(module, "region", lambda: REGION)
    monkeypatch.setattr(adopted_pieces, "account_id", lambda: account.id)

    def look(**changes: str) -> tuple[str, dict[str, str]]:
        return adopted_pieces.check({**settings, **changes})

    return look


Look = Callable[..., tuple[str, dict[str, str]]]


def test_a_role_is_named_or_given_by_its_arn(look: Look, account: Emulated) -> None:
    arn = f"arn:aws:iam::{account.id}:role/LabRole"
    assert look() == (arn, {})
    assert look(LAMBDA_ROLE=arn) == (arn, {})
    with pytest.raises(Refused, match=f"LAMBDA_ROLE: expected {arn}, got arn"):
        look(LAMBDA_ROLE="arn:aws:iam::999999999999:role/LabRole")


def test_a_piece_that_is_not_there_is_named(look: Look) -> None:
    for name, value, words in (
        ("SUBNET_IDS", "subnet-0123456789abcdef0", "aws ec2 describe-subnets lists"),
        ("SECURITY_GROUP_IDS", "sg-0123456789abcdef0", "aws ec2 describe-security-groups lists"),
        ("UPLOAD_BUCKET", "no-such-bucket", "aws s3 mb s3://no-such-bucket"),
        ("LAMBDA_ROLE", "NoSuchRole", "aws iam list-roles lists"),
        ("DB_SECRET_ARN", f"{SECRETS}no-such-secret", "aws secretsmanager list-secrets lists"),
    ):
        with pytest.raises(Refused, match=f"{name}: .*{words}"):
            look(**{name: value})


SECRETS = f"arn:aws:secretsmanager:{REGION}:123456789012:secret:"


def test_a_piece_in_another_place_is_named(
    look: Look, account: Emulated, settings: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ec2 = account.client("ec2")
    other = ec2.create_vpc(CidrBlock="10.8.0.0/16")["Vpc"]["VpcId"]
    subnet = ec2.create_subnet(VpcId=other, CidrBlock="10.8.0.0/24")["Subnet"]["SubnetId"]
    first, _ = settings["SUBNET_IDS"].split(",")
    with pytest.raises(Refused, match=rf"several networks: .*{subnet} is in {other}"):
        look(SUBNET_IDS=f"{first}, {subnet}")
    with pytest.raises(Refused, match=f"SECURITY_GROUP_IDS are in several networks: .*{other}"):
        look(SUBNET_IDS=subnet)
    with pytest.raises(Refused, match="DB_SECRET_ARN: it is in us-west-2, the stage in eu-west-1"):
        look(DB_SECRET_ARN=SECRETS.replace(REGION, "us-west-2") + "mine")
    monkeypatch.setattr(adopted_pieces, "region", lambda: "us-west-2")
    with pytest.raises(Refused, match="-uploads is in eu-west-1, and the functions are in us-west"):
        look()


def test_a_role_that_lambda_may_not_take_is_refused(look: Look, account: Emulated) -> None:
    text = json.dumps(trust("rds"))
    account.client("iam").create_role(RoleName="Other", AssumeRolePolicyDocument=text)
    with pytest.raises(Refused, match="its trust policy must allow sts:AssumeRole to lambda"):
        look(LAMBDA_ROLE="Other")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"DB_HOST": "a.cluster-ro-b.rds.amazonaws.com"}, "take a.cluster-b.rds.amazonaws.com"),
        ({"REDIS_URL": "redis://a.serverless.euw1.cache.amazonaws.com"}, "write rediss://"),
        ({"DB_PORT": "many"}, "expected a port"),
        ({"REDIS_URL": "redis://there:99999"}, "expected a port"),
        ({"REDIS_URL": "redis://master.a.euw1.cache.amazonaws.com"}, "write rediss://"),
        (
            {"REDIS_URL": "redis://a.cache.amazonaws.com", "SUBNET_IDS": ""},
            "ElastiCache, which has no public address",
        ),
    ],
)
def test_an_address_that_cannot_work_is_refused(
    look: Look, changes: dict[str, str], words: str
) -> None:
    with pytest.raises(Refused, match=words):
        look(**changes)


def test_a_cache_that_is_a_cluster_is_used_as_one(
    look: Look, monkeypatch: pytest.MonkeyPatch
) -> None:
    # moto knows no serverless caches.
    monkeypatch.setattr(closed_doors, "groups_of_cache", lambda *_: [])
    url = "rediss://a.serverless.euw1.cache.amazonaws.com:6379"
    assert look(REDIS_URL=url)[1] == {"REDIS_CLUSTER": "1"}
    assert look(REDIS_URL=url, REDIS_CLUSTER="0")[1] == {}


def test_a_closed_door_of_the_database_and_its_sleep_are_seen(
    look: Look,
    account: Emulated,
    settings: dict[str, str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    ec2, rds = account.client("ec2"), account.client("rds")
    ours = settings["SECURITY_GROUP_IDS"]
    network = ec2.describe_security_groups(GroupIds=[ours])["SecurityGroups"][0]["VpcId"]
    group = ec2.create_security_group(GroupName="db", Description="db", VpcId=network)["GroupId"]
    host = rds.create_db_cluster(
        DBClusterIdentifier="course",
        Engine="aurora-mysql",
        MasterUsername="admin",
        MasterUserPassword="password-1",
        VpcSecurityGroupIds=[group],
        ServerlessV2ScalingConfiguration={"MinCapacity": 0, "MaxCapacity": 1},
    )["DBCluster"]["Endpoint"]
    sleeps = {"DB_RESUME_SECONDS": "20"}

    assert look(DB_HOST=host, DB_PORT="")[1] == sleeps
    said = capsys.readouterr().out
    assert f"DB_HOST: {group} lets none of {ours} in on port 3306" in said
    assert f"--group-id {group} --protocol tcp --port 3306 --source-group {ours}" in said
    for number in range(2):
        ranges = [{"CidrIp": f"10.9.{number}.0/24"}]
        rule = {"IpProtocol": "tcp", "FromPort": 3000, "ToPort": 4000, "IpRanges": ranges}
        ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[rule])
        look(DB_HOST=host, DB_PORT="")
        is_closed = "lets none of" in capsys.readouterr().out
        assert is_closed == (number == 0), "one of two subnets is not enough"
        if number:
            ec2.revoke_security_group_ingress(GroupId=group, IpPermissions=[rule])
    pairs = [{"GroupId": ours}]
    rule = {"IpProtocol": "tcp", "FromPort": 3306, "ToPort": 3306, "UserIdGroupPairs": pairs}
    ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[rule])
    look(DB_HOST=host, DB_PORT="")
    assert "lets none of" not in capsys.readouterr().out
    look(DB_HOST=host, DB_PORT="3307")
    assert "in on port 3307" in capsys.readouterr().out


CACHES: Json = {
    "ServerlessCaches": [{"Endpoint": {"Address": "a.serverless"}, "SecurityGroupIds": ["sg-a"]}],
    "ReplicationGroups": [
        {
            "NodeGroups": [{"PrimaryEndpoint": {"Address": "master.b"}}],
            "MemberClusters": ["b-001"],
        },
        {"ConfigurationEndpoint": {"Address": "clustercfg.c"}, "MemberClusters": ["c-001"]},
    ],
    "CacheClusters": [
        {"CacheClusterId": f"{name}-001", "SecurityGroups": [{"SecurityGroupId": f"sg-{name}"}]}
        for name in "bc"
    ]
    + [
        {
            "CacheClusterId": "d",
            "CacheNodes": [{"Endpoint": {"Address": "d.0001"}}],
            "SecurityGroups": [{"SecurityGroupId": "sg-d"}],
        }
    ],
}


@pytest.mark.parametrize(
    ("host", "group"),
    [("a.serverless", "sg-a"), ("master.b", "sg-b"), ("clustercfg.c", "sg-c"), ("d.0001", "sg-d")],
)
def test_a_closed_door_of_each_kind_of_cache_is_seen(
    look: Look,
    account: Emulated,
    host: str,
    group: str,
    settings: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def named(answer: Json) -> Any:
        """With the ends that hosts of ElastiCache have."""
        text = json.dumps(answer)
        for each in ("a.serverless", "master.b", "clustercfg.c", "d.0001"):
            text = text.replace(f'"{each}"', f'"{each}.cache.amazonaws.com"')
        return json.loads(text)

    caches, other = named(CACHES), lru_cache(account.client)
    described: Json = {
        "SecurityGroups": [{"GroupId": group, "VpcId": "vpc-1", "IpPermissions": []}]
    }
    here: Json = {
        "Subnets": [{"SubnetId": "subnet-1", "VpcId": "vpc-1", "CidrBlock": "10.0.0.0/24"}]
    }
    network = SimpleNamespace(
        describe_subnets=lambda **_: here, describe_security_groups=lambda **_: described
    )
    pages = SimpleNamespace(
        get_paginator=lambda operation: SimpleNamespace(paginate=lambda **_: [caches])
    )
    stubs = {"ec2": network, "elasticache": pages}
    monkeypatch.setattr(adopted_pieces, "client", lambda name: stubs.get(name) or other(name))

    look(REDIS_URL=f"rediss://{host}.cache.amazonaws.com")
    said = capsys.readouterr().out
    assert (
        f"REDIS_URL: {group} lets none of {settings['SECURITY_GROUP_IDS']} in on port 6379" in said
    )
    here["Subnets"][0]["VpcId"] = described["SecurityGroups"][0]["VpcId"] = "vpc-2"
    described["SecurityGroups"][0]["IpPermissions"] = [{"IpProtocol": "-1", "IpRanges": [ANY]}]
    look(REDIS_URL=f"rediss://{host}.cache.amazonaws.com:6380")
    assert "REDIS_URL: " not in capsys.readouterr().out


ANY = {"CidrIp": "0.0.0.0/0"}


def test_what_may_not_be_asked_is_said_and_stops_nothing(
    account: Emulated,
    settings: dict[str, str],
    look: Look,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def denied(*_: object, **__: object) -> None:
        raise ClientError({"Error": {"Code": "AccessDenied", "Message": "no"}}, "any")

    nobody = SimpleNamespace(
        **dict.fromkeys(
            ("describe_subnets", "describe_security_groups", "describe_secret", "get_role"), denied
        ),
        get_paginator=lambda _: SimpleNamespace(paginate=denied),
    )
    monkeypatch.setattr(adopted_pieces, "client", lambda _: nobody)
    host = "course.cluster-abc.eu-west-1.rds.amazonaws.com"
    role, _ = look(UPLOAD_BUCKET="", DB_HOST=host, DB_SECRET_ARN=f"{SECRETS}mine")

    assert role == f"arn:aws:iam::{account.id}:role/LabRole"
    said = capsys.readouterr().out
    for name in ("SUBNET_IDS", "SECURITY_GROUP_IDS", "DB_SECRET_ARN", "LAMBDA_ROLE", "DB_HOST"):
        assert re.search(rf"denied       {name}: .*\(AccessDenied\).*; going on", said)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (EndpointConnectionError(endpoint_url="https://sts"), "AWS cannot be reached .*network"),
        (ReadTimeoutError(endpoint_url="https://sts"), "AWS cannot be reached .*network"),
        (NoCredentialsError(), r"AWS does not know who asks .*~/\.aws/credentials"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_network_that_is_away_is_no_missing_login(
    error: Exception, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def asked() -> None:
        raise error

    sts = SimpleNamespace(get_caller_identity=asked)
    there = SimpleNamespace(region_name=REGION, client=lambda _: sts)
    monkeypatch.setattr(boto3, "Session", lambda: there)
    with pytest.raises(Refused, match=words):
        account_session.__wrapped__()


# --- what the database says -----------------------------------------------------------------------


@pytest.fixture
def found(configure: Configure, database: dict[str, str]) -> Callable[..., Json]:
    """What the service finds, with some settings changed."""

    def found(**changes: str | None) -> Json:
        configure(**{**database, **changes})
        return apply.report(database_schema.statements(adopted_database.SCHEMA))

    return found


def test_settings_that_the_database_or_the_app_rejects_are_named(
    found: Callable[..., Json],
) -> None:
    assert "READ_BY: no table can be read by this column" in found(READ_BY="age")["settings"]
    assert "rejects the user or the password (DB_USER, DB_PASS)" in found(DB_PASS="x")["rejected"]
    assert "(DB_NAME)" in found(DB_NAME="nowhere")["rejected"]
    assert "has no table villains" in found(DB_TABLE="villains")["rejected"]
    assert "no host has this name" in found(DB_HOST="there.invalid")["unreached"]


def test_a_cache_that_cannot_be_reached_stops_nothing(found: Callable[..., Json]) -> None:
    assert "nothing listens" in found(REDIS_URL="redis://127.0.0.1:1")["cache"]
    assert found(REDIS_URL=None)["cache"] is None


@pytest.mark.parametrize(
    ("name", "words"), [("settings", "a setting is wrong: the reason"), ("rejected", "the reason")]
)
def test_what_is_surely_wrong_ends_the_command(
    name: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adopted_database, "_report", lambda _: {name: "the reason"})
    with pytest.raises(Refused, match=f"^{words}$"):
        adopted_database.prepare({})


# --- where the tables cannot be made from here ----------------------------------------------------


def test_the_sql_is_printed_where_the_database_cannot_be_reached(
    project: Project, settings: dict[str, str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    write_settings(project.home, {**settings, "DB_PORT": str(port)}, "far")
    said = project.must("adopt", "far")
    assert "the tables cannot be made from here: the database cannot be reached" in said
    assert f"mysql -h 127.0.0.1 -P {port} -u USER -p course < seed/schema.sql" in said
    after = said.rpartition("INSERT IGNORE INTO")[2]
    assert "cannot be made from here: the database cannot be reached" in after, "it is said again"
    assert "CREATE TABLE IF NOT EXISTS cache_generation (" in said
    assert "INSERT IGNORE INTO cache_generation" in said
    assert "far" in project.read(".chalice/config.json")["stages"], "it is written all the same"
    assert project.read("infra/far.json") == project.read("infra/class.json")


def test_a_user_who_may_create_no_table_can_use_those_that_are_there(
    adopted: str, found: Callable[..., Json], mariadb: MariaDB
) -> None:
    mariadb.query(f"CREATE USER reader IDENTIFIED BY '{PASSWORD}'")
    mariadb.query("GRANT SELECT, INSERT, UPDATE, DELETE ON course.* TO reader")
    mariadb.make_known("reader", PASSWORD)
    try:
        assert found(DB_USER="reader")["made"] == []
        mariadb.query("DROP TABLE course.products")
        assert "a right (CREATE) on the table products" in found(DB_USER="reader")["unapplied"]
    finally:
        mariadb.query("DROP USER reader")
    assert found()["made"] == ["products"]


# --- in a terminal --------------------------------------------------------------------------------


def test_a_terminal_is_asked_for_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The password is typed unseen, a wrong answer is asked for again, and Enter is the default."""
    path = folder / "infra" / "class.env"
    path.write_text("DB_HOST=there\nDB_NAME=course\nUPLOAD_BUCKET=\nTTL=60\n")
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(isatty=lambda: True))
    optional = ["age", "xp", ""]
    typed = iter(["", "student", "", *optional, "open", "none", "", "", "ours", "LabRole"])
    asked = list[str]()

    def answer(question: str) -> str:
        asked.append(question)
        return next(typed)

    monkeypatch.setattr("builtins.input", answer)
    monkeypatch.setattr(getpass, "getpass", lambda _: PASSWORD)
    found = adopted_settings.collect(CLASS)

    assert next(typed, None) is None
    assert (found["DB_USER"], found["DB_PASS"]) == ("student", PASSWORD)
    assert (found["DB_TABLE"], found["READ_BY"], found["TTL"]) == ("heroes", "xp", "60")
    assert found["UPLOAD_BUCKET"] == "ours"
    said = capsys.readouterr().out
    assert "READ_BY: no table can be read by this column" in said
    assert "API_AUTH: expected none, key or iam" in said
    assert not any("DB_HOST" in question for question in asked)
    assert path.stat().st_mode & 0o777 == 0o600
    assert "TTL=60\n" in path.read_text()

    typed = iter([""] * 3)
    asked.clear()
    assert adopted_settings.collect(CLASS) == found
    names = [re.findall(r"(\w+) = $", question)[0] for question in asked]
    assert names == ["REDIS_URL", "SUBNET_IDS", "SECURITY_GROUP_IDS"], "those without a value"


def test_what_was_answered_is_kept_where_the_questions_end_early(
    monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    path = folder / "infra" / "class.env"
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(isatty=lambda: True))
    typed = iter(["there"])

    def answer(_: str) -> str:
        for text in typed:
            return text
        raise EOFError

    monkeypatch.setattr("builtins.input", answer)
    with pytest.raises(Refused, match="DB_NAME was not given"):
        adopted_settings.collect(CLASS)
    assert adopted_settings.read(path)["DB_HOST"] == "there"

    values = {"DB_NAME": "course", "DB_USER": "student", "REDIS_URL": "redis://cache"}
    values |= {"API_AUTH": "none", "LAMBDA_ROLE": "LabRole"}
    monkeypatch.setattr(
        "builtins.input",
        lambda text: values.get(re.findall(r"(\w+)(?: \[\w+\])? = $", text)[0], ""),
    )
    monkeypatch.setattr(getpass, "getpass", lambda _: PASSWORD)
    found = adopted_settings.collect(CLASS)
    assert found["DB_HOST"] == "there"
    assert found["REDIS_URL"] == "redis://cache", "an optional one is asked for, too"


@pytest.mark.proof
def test_a_real_terminal_shows_everything_but_the_password(
    project: Project, settings: dict[str, str]
) -> None:
    write_settings(project.home, {"DB_PORT": settings["DB_PORT"]}, "typed")
    ours, theirs = pty.openpty()
    shown = ""
    with subprocess.Popen(
        [sys.executable, "-m", "infra", "adopt", "typed"],
        cwd=project.home,
        env=project.environment,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    ) as process:
        os.close(theirs)
        with contextlib.suppress(OSError):  # Linux has no other way to say that nobody writes now
            while piece := os.read(ours, 1 << 16).decode():
                shown += piece
                if asked := re.search(r"  (\w+)(?: \[\w+\])? = \Z", shown):
                    os.write(ours, f"{settings.get(asked[1], '')}\n".encode())
    os.close(ours)

    assert process.returncode == 0, shown
    assert "DB_TABLE [heroes] = superheroes" in shown
    assert "DB_PASS = " in shown
    assert PASSWORD not in shown
    assert f"superheroes: {ROWS} rows" in shown
    assert PASSWORD in (project.home / "infra" / "typed.env").read_text()


# --- the app --------------------------------------------------------------------------------------


def test_a_stage_without_a_bucket_has_no_function_that_a_bucket_calls() -> None:
    code = "import app; print([each.name for each in app.app.event_sources])"
    environment = {**os.environ, "UPLOAD_BUCKET": "", "RANGES_BUCKET": ""}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.stdout == "['sync']\n", done.stderr


def test_the_further_settings_are_settings_of_the_app() -> None:
    assert set(adopted_settings.FURTHER) < set(SETTINGS)
    own = {"SUBNET_IDS", "SECURITY_GROUP_IDS", "LAMBDA_ROLE"}
    assert {piece.name for piece in adopted_settings.PIECES} - set(SETTINGS) == own
    assert not set(adopted_settings.FURTHER) & {p.name for p in adopted_settings.PIECES}


# --- deployed -------------------------------------------------------------------------------------


@pytest.mark.proof
def test_it_is_deployed_without_a_stack_and_passes_the_grader(
    adopted: str,
    project: Project,
    account: Emulated,
    settings: dict[str, str],
    mariadb: MariaDB,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    project.change({"lambda_architecture": NATIVE}, CLASS)
    said = project.must("deploy", CLASS)
    again = project.must("deploy", CLASS)
    assert PASSWORD not in said + again
    there = seen(account)
    assert there["stacks"] == []
    assert set(there["roles"]) == {"LabRole"}, "it makes no role"
    functions = {NAME, *(f"{NAME}-{name}" for name in ("storage", "employees", "ingest", "sync"))}
    assert set(there["functions"]) == functions
    function = there["functions"][NAME]
    assert function["Role"].endswith(":role/LabRole")
    assert function["VpcConfig"]["SubnetIds"] == settings["SUBNET_IDS"].split(",")
    variables = function["Environment"]["Variables"]
    assert (variables["DB_PASS"], variables["REDIS_URL"]) == (PASSWORD, settings["REDIS_URL"])
    [[stage]] = there["apis"].values()
    assert stage["methodSettings"]["*/*"]["throttlingRateLimit"] == 50
    kept = {"class.env", "far.env", "typed.env"}  # of other tests
    assert set(files_with(project, PASSWORD)) <= kept

    report = project.must("report", CLASS)
    assert "on pieces that were there" in report
    assert f"{NAME}-sync: " in report
    assert "cannot be asked" not in report
    assert PASSWORD not in report

    package = unpack(account.package(NAME), tmp_path_factory.mktemp("task"))
    runtime = runtime_folder(tmp_path_factory.mktemp("runtime"))
    handler = function["Handler"]
    with (
        Container(package, runtime, variables).warm() as call,
        api_front(CLASS, lambda event: call(handler, event)) as url,
    ):
        health = requests.get(f"{url}health/deep", timeout=30).json()
        assert health["status"] == "ok", health
        read = requests.post(url, data=json.dumps({"REQUEST": "read", "SQLS": [7]}), timeout=30)
        assert len(read.json()["body"]) == ROWS, "the student's rows, by xp"
        graded = project.run(["-m", "grader", url, "--remove"])
    assert graded[0] == 0, graded[1]
    assert "FAIL" not in graded[1]
    left = mariadb.query("SELECT COUNT(*), SUM(mine) FROM course.superheroes")
    assert left == [(ROWS, 5 * ROWS)]

    project.must("destroy", CLASS, typed=f"{CLASS}\n")
    there = seen(account)
    assert not any(there[kind] for kind in ("functions", "apis", "schedules", "logs"))
    assert set(there["roles"]) == {"LabRole"}
    assert "course-uploads" in there["buckets"]
    assert there["buckets"]["course-uploads"] == [], "S3 calls nothing any more"


# --- docs/class.md --------------------------------------------------------------------------------

GUIDE = (ROOT / "docs" / "class.md").read_text(encoding="utf-8")
# Words of Lambda and IAM.
OF_AWS = ("permissions to call CreateNetworkInterface", "is not authorized to perform")


def test_every_text_that_the_guide_explains_is_one_that_somebody_says() -> None:
    sources = [*(ROOT / "infra").glob("*.py"), *(ROOT / "chalicelib").rglob("*.py")]
    joined = "".join(path.read_text(encoding="utf-8") for path in sources)
    said = re.sub(r'"\s*\n\s*f?"', "", joined)
    tables = re.findall(r"(?:^\| (?:it says|`\w+\.error` has) .*\n)((?:\|.*\n)+)", GUIDE, re.M)
    assert len(tables) == 4
    for row in "".join(tables).splitlines()[1:]:
        for text in re.findall(r"`([^`]+)`", row.split("|")[1]):
            assert text in said or any(words in text for words in OF_AWS), text


@pytest.mark.parametrize("guide", ["class.md", "deploy.md"])
def test_the_guides_name_the_versions_of_python_that_are_deployed(guide: str) -> None:
    text = (ROOT / "docs" / guide).read_text(encoding="utf-8")
    assert set(re.findall(r"Python 3\.\d+ to 3\.\d+", text)) == {before_deploy.pythons()}
    with pytest.raises(Refused, match=re.escape(f"({before_deploy.pythons()})")):
        before_deploy.refuse_another_python((3, 10))


def test_every_setting_that_the_guide_explains_is_one_that_is_asked_for() -> None:
    [rows] = re.findall(r"^\| setting \| \|\n\|.*\n((?:\|.*\n)+)", GUIDE, re.M)
    cells = [row.split("|")[1] for row in rows.splitlines()]
    named = {name for cell in cells for name in re.findall(r"`(\w+)`", cell)}
    assert named | {"DB_SECRET_ARN"} == {piece.name for piece in adopted_settings.PIECES}
