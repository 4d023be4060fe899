"""The template gives the app what it needs: tried on real servers where that is possible, and on
stand-ins where AWS is not emulated. Also: how the commands wait and fail.
"""

import json
import re
import secrets
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import botocore.session
import pytest
import redis
from botocore.exceptions import ClientError

from app import app
from chalicelib import services
from chalicelib.cache import generations
from chalicelib.config import DbEngine, Settings
from chalicelib.db.data_api import Connector
from chalicelib.errors import ConfigurationError, DatabaseUnavailable
from chalicelib.ingest import load_from_s3_statements
from chalicelib.tables import HASH, JSON, TABLES, Table
from infra import (
    aws_errors,
    chalice_config,
    database_schema,
    stage_files,
)
from infra import policies as policy_files
from infra.terminal import Refused
from local.servers import MariaDB, Redis
from tests.conftest import Configure
from tests.support.client import ROOT, InProcess, hero
from tests.support.emulated_aws import REGION
from tests.support.stack_outputs import BY_SECRET, DATA_API, DATA_API_ALONE, OUTPUTS
from tests.support.witness import Witness
from tests.sync.clients import RedisCli, use_every_public_key

Json = dict[str, Any]
STAGES = ("dev", "prod")
# Those that docs/deploy.md recommends.
REGIONS = (REGION, "us-east-1")
CACHES = ("serverless", "node", "none")


@lru_cache(maxsize=1)
def template() -> Json:
    from cfnlint.decode import decode  # it takes a second to import

    content, problems = decode(str(ROOT / "infra" / "template.yaml"))
    assert not problems
    assert content is not None
    return dict(content)


def resource(name: str) -> Json:
    properties: Json = template()["Resources"][name]["Properties"]
    return properties


def of_type(kind: str) -> dict[str, Json]:
    found = template()["Resources"].items()
    return {name: each["Properties"] for name, each in found if each["Type"] == f"AWS::{kind}"}


def holds(condition: Json, **parameters: str) -> bool:
    """Whether a condition of the template holds; other parameters have their defaults."""
    [(function, operands)] = condition.items()
    if function == "Condition":
        return holds(template()["Conditions"][operands], **parameters)
    if function == "Fn::Equals":
        reference, value = operands
        default = template()["Parameters"][reference["Ref"]].get("Default")
        return bool(parameters.get(reference["Ref"], str(default)) == value)
    found = [holds(operand, **parameters) for operand in operands]
    values = {"Fn::Not": not found[0], "Fn::And": all(found), "Fn::Or": any(found)}
    return values[function]


def present(section: str, **parameters: str) -> set[str]:
    """The names of what a stack with these parameters has of a section of the template."""
    return {
        name
        for name, each in template()[section].items()
        if "Condition" not in each or holds({"Condition": each["Condition"]}, **parameters)
    }


def config(stage: str) -> Json:
    whole = json.loads((ROOT / ".chalice" / "config.json").read_text(encoding="utf-8"))
    part: Json = whole["stages"][stage]
    return part


# --- the template ---------------------------------------------------------------------------------


def test_the_caches_user_may_do_what_the_app_does_and_nothing_else(
    service: InProcess,
    configure: Configure,
    redis_server: Redis,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # As after half a second, each time: the generation is asked for too, and the hint renewed.
    monkeypatch.setattr(generations, "MEMORY_SECONDS", 0.0)
    password = secrets.token_hex(8)
    words = ["ACL", "SETUSER", "template", "reset", f">{password}"]
    url = f"redis://127.0.0.1:{redis_server.port}"
    administrator = redis.Redis.from_url(url)
    administrator.execute_command("ACL", "LOG", "RESET")  # other tests let users be refused
    administrator.execute_command(*words, *resource("CacheUser")["AccessString"].split())
    try:
        configure(REDIS_URL=url.replace("//", f"//template:{password}@"))
        assert service.health("?deep=1").fields["cache"]["ok"] is True
        [id] = service.write([hero()]).ids
        for _ in range(2):
            assert service.read([id]).rows[0]["id"] == id
        assert service.write([{"id": id, **hero(xp=11)}]).ids == [id]
        assert service.read([11], BY="xp").rows[0]["id"] == id
        assert service.delete([id]).deleted == [id]
        use_every_public_key(service, RedisCli(administrator))
        assert administrator.execute_command("ACL", "LOG") == [], "something was forbidden"
        with redis.Redis.from_url(url, username="template", password=password) as user:
            for forbidden in (["FLUSHALL"], ["KEYS", "*"], ["CONFIG", "GET", "*"], ["GET", "a"]):
                with pytest.raises(redis.exceptions.NoPermissionError):
                    user.execute_command(*forbidden)
    finally:
        administrator.execute_command("ACL", "DELUSER", "template")
        administrator.execute_command("ACL", "LOG", "RESET")
        administrator.close()


@pytest.fixture
def template_client(witness: Witness) -> Iterator[redis.Redis]:
    """A client with the rights of the template's user for other clients."""
    password = secrets.token_hex(8)
    words = ["ACL", "SETUSER", "clients", "reset", f">{password}"]
    witness.redis.execute_command(*words, *resource("CacheClientUser")["AccessString"].split())
    port = witness.redis.get_connection_kwargs()["port"]
    with redis.Redis(port=port, username="clients", password=password) as client:
        yield client
    witness.redis.execute_command("ACL", "DELUSER", "clients")
    witness.redis.execute_command("ACL", "LOG", "RESET")


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_other_clients_of_the_cache_may_use_public_keys(
    template_client: redis.Redis, table: Table
) -> None:
    text, fields = table.public_key(JSON, 22), table.public_key(HASH, 22)
    for words in (["SET", "{}"], ["GET"], ["EXISTS"], ["TYPE"], ["DEL"]):
        template_client.execute_command(words[0], text, *words[1:])
    template_client.hset(fields, "Price", "1")
    assert template_client.hincrby(fields, "Price", -1) == 0
    assert template_client.hgetall(fields) == {b"Price": b"0"}


def test_other_clients_of_the_cache_may_use_nothing_else(
    service: InProcess, witness: Witness, template_client: redis.Redis
) -> None:
    service.write([hero()])
    own = list(witness.redis.scan_iter("*"))
    assert own
    names = [*own, "{Product:22}:stamp", "{products.0}:sync", "a"]
    forbidden = [[word, name] for word in ("GET", "DEL", "SET") for name in names]
    forbidden += [["FLUSHALL"], ["KEYS", "*"], ["CONFIG", "GET", "*"], ["EVAL", "return 1", "0"]]
    forbidden += [
        ["EXPIRE", "Product:22", "1"],
        ["SCAN", "0"],
        ["RENAME", "Product:22", "Product:1"],
    ]
    for words in forbidden:
        with pytest.raises(redis.exceptions.NoPermissionError):
            template_client.execute_command(*words, *["x"] * (words[0] == "SET"))


def test_other_clients_log_in_as_their_own_user_and_no_other() -> None:
    assert resource("CacheUsers")["UserIds"] == [{"Ref": "CacheUser"}, {"Ref": "CacheClientUser"}]
    user = resource("CacheClientUser")
    assert user["UserId"] == user["UserName"] == {"Fn::Sub": "herocache-${Stage}-clients"}
    assert user["AuthenticationMode"] == {"Type": "iam"}
    [statement] = resource("CacheClientPolicy")["PolicyDocument"]["Statement"]
    assert statement["Action"] == "elasticache:Connect"
    cache, login = statement["Resource"]
    assert cache == template()["Outputs"]["CacheArn"]["Value"]
    assert login == {"Fn::GetAtt": ["CacheClientUser", "Arn"]}


def test_the_login_may_do_what_the_app_does_and_nothing_else(
    service: InProcess, configure: Configure, mariadb: MariaDB
) -> None:
    """infra/login.sql, but for the two words that only Aurora knows."""
    user = f"login_{secrets.token_hex(4)}"
    *creates, grant, grant_of_ingest, grant_load, _ = statements(ROOT / "infra" / "login.sql")
    password = secrets.token_hex(8)
    assert all("REQUIRE SSL" in create for create in creates)
    assert grant_load == "GRANT AWS_LOAD_S3_ACCESS TO 'herocache_ingest'@'%'"
    mariadb.query(f"CREATE USER '{user}'@'%' IDENTIFIED BY '{password}'")
    mariadb.query(grant.replace("'herocache'@", f"'{user}'@"))
    mariadb.make_known(user, password)
    try:
        configure(DB_USER=user, DB_PASS=password)
        [id] = service.write([hero()], IDEMPOTENCY_KEY=user).ids
        assert service.write([{"id": id, **hero(xp=11)}], use_cache=False).ids == [id]
        assert service.read([id]).rows[0]["xp"] == 11
        assert service.delete([id]).deleted == [id]
        with pytest.raises(DatabaseUnavailable, match="no rights"):
            make_temporary_table()
        assert shown_grants(mariadb, user) == ["SELECT, INSERT, UPDATE, DELETE, TRIGGER"]

        mariadb.query(grant_of_ingest.replace("'herocache_ingest'@", f"'{user}'@"))
        configure(DB_USER=user, DB_PASS=password)
        make_temporary_table()
        assert shown_grants(mariadb, user) == [
            "SELECT, INSERT, UPDATE, DELETE, CREATE TEMPORARY TABLES, TRIGGER"
        ]
    finally:
        mariadb.query(f"DROP USER '{user}'@'%'")


def make_temporary_table() -> None:
    services.container().database.transact(
        lambda t: t.run(*load_from_s3_statements.CREATE, load_from_s3_statements.DROP)
    )


def shown_grants(mariadb: MariaDB, user: str) -> list[str]:
    """The rights of the user on the tables. It has none elsewhere."""
    of_user, *others = [str(r[0]) for r in mariadb.query(f"SHOW GRANTS FOR '{user}'@'%'")]
    assert of_user.startswith("GRANT USAGE ON *.*")
    end = f" ON `herocache`.* TO `{user}`@`%`"
    return [each.removeprefix("GRANT ").removesuffix(end) for each in others]


def test_endpoints_lead_to_what_the_functions_need_and_nowhere_else() -> None:
    """Above all not to the secret of the database's owner."""
    for name, resources, actions in (
        (
            "SecretEndpoint",
            [{"Ref": "FunctionsSecret"}, {"Ref": "IngestSecret"}],
            "secretsmanager:GetSecretValue",
        ),
        ("DataEndpoint", {"Fn::GetAtt": ["Database", "DBClusterArn"]}, "rds-data:*"),
    ):
        [statement] = resource(name)["PolicyDocument"]["Statement"]
        assert (statement["Effect"], statement["Resource"]) == ("Allow", resources)
        assert statement["Action"] == actions
    for secret in ("FunctionsSecret", "IngestSecret"):
        assert resource(secret)["GenerateSecretString"]["PasswordLength"] >= 32
    users = [
        json.loads(each["GenerateSecretString"]["SecretStringTemplate"])["username"]
        for each in of_type("SecretsManager::Secret").values()
    ]
    assert tuple(users) == database_schema.USERS


def test_the_users_of_a_stage_get_their_passwords_and_no_error_shows_one() -> None:
    aws = DataApi()
    given = {user: secrets.token_hex(20) for user in database_schema.USERS}
    database_schema.prepare(aws, "arn", "secret", given)
    for user, password in given.items():
        login = f"ALTER USER '{user}'@'%' IDENTIFIED BY '{password}' REQUIRE SSL"
        assert login in aws.executed

    def refuse(sql: str, **_: str) -> None:
        if sql.startswith("ALTER USER"):
            error = {"Code": "DatabaseErrorException", "Message": f"near {sql}"}
            raise ClientError({"Error": error}, "ExecuteStatement")

    with pytest.raises(Refused, match="ALTER USER 'herocache'") as rejected:
        database_schema.prepare(SimpleNamespace(execute_statement=refuse), "a", "b", given)
    assert not any(password in str(rejected.value) for password in given.values())
    with pytest.raises(Refused, match="other characters"):
        database_schema.prepare(aws, "arn", "secret", dict.fromkeys(given, "a'; DROP"))


# Engine, cache, login.
KINDS = [
    *((engine, cache, "iam") for engine in ("mysql", "dataapi") for cache in CACHES),
    ("mysql", "serverless", "secret"),
]
# Of each parameter two values: a run of cfn-lint takes more than a second, and most of what it can
# find is in every kind. `make proof` has the others.
QUICK_KINDS = [("mysql", "serverless", "secret"), ("dataapi", "none", "iam")]


@pytest.mark.parametrize(
    ("engine", "cache", "login"),
    [pytest.param(*kind, marks=[pytest.mark.proof] * (kind not in QUICK_KINDS)) for kind in KINDS],
)
def test_the_template_is_valid_for_every_kind_of_stage(engine: str, cache: str, login: str) -> None:
    values = {"Stage": "dev", "DatabaseEngine": engine, "CacheKind": cache, "DatabaseLogin": login}
    from cfnlint.api import lint
    from cfnlint.config import ManualArgs

    config = ManualArgs(regions=list(REGIONS), parameters=[values])
    text = (ROOT / "infra" / "template.yaml").read_text(encoding="utf-8")
    assert [str(problem) for problem in lint(text, config=config)] == []


def test_the_docs_recommend_the_regions_that_the_template_is_checked_for() -> None:
    docs = (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8")
    assert all(f"`{region}`" in docs for region in REGIONS)


# What the emulation plays with stand-ins, which take any property: the call that makes it, and the
# properties that have another name there.
CALLS: dict[str, tuple[str, str, set[str]]] = {
    "RDS::DBCluster": ("rds", "CreateDBCluster", set()),
    "RDS::DBInstance": ("rds", "CreateDBInstance", set()),
    "RDS::DBSubnetGroup": ("rds", "CreateDBSubnetGroup", set()),
    "RDS::DBClusterParameterGroup": (
        *("rds", "CreateDBClusterParameterGroup"),
        {"Family", "Parameters"},
    ),
    "ElastiCache::User": ("elasticache", "CreateUser", set()),
    "ElastiCache::UserGroup": ("elasticache", "CreateUserGroup", set()),
    "ElastiCache::ServerlessCache": ("elasticache", "CreateServerlessCache", set()),
    "ElastiCache::ReplicationGroup": ("elasticache", "CreateReplicationGroup", set()),
    "ElastiCache::SubnetGroup": ("elasticache", "CreateCacheSubnetGroup", {"Description"}),
    "CloudWatch::Alarm": ("cloudwatch", "PutMetricAlarm", set()),
    "EC2::VPCEndpoint": ("ec2", "CreateVpcEndpoint", set()),
    "SNS::Subscription": ("sns", "Subscribe", set()),
}


@pytest.mark.parametrize("kind", CALLS)
def test_what_the_emulation_does_not_check_is_what_the_call_of_aws_takes(kind: str) -> None:
    service, call, others = CALLS[kind]
    model = botocore.session.get_session().get_service_model(service).operation_model(call)
    for name, properties in of_type(kind).items():
        known = {key: value for key, value in properties.items() if key not in others}
        assert list(unknown(known, model.input_shape)) == [], name


def unknown(value: Any, shape: Any) -> Iterator[str]:
    """The properties and words in a value of the template that the shape does not have. What a
    function of the template computes is not looked into."""
    if isinstance(value, dict):
        computed = {"Ref", "Condition"} | {key for key in value if key.startswith("Fn::")}
        if shape.type_name == "structure" and not computed & value.keys():
            for key, part in value.items():
                if key not in shape.members:
                    yield key
                else:
                    yield from unknown(part, shape.members[key])
    elif isinstance(value, list):
        for part in value:
            yield from unknown(part, shape.member)
    elif getattr(shape, "enum", None) and value not in shape.enum:
        yield str(value)


def test_without_a_cache_nothing_of_one_is_made() -> None:
    cached = {name for name in template()["Resources"] if "Cache" in name}
    assert len(cached) == 12
    for engine in ("mysql", "dataapi"):
        assert not cached & present("Resources", CacheKind="none", DatabaseEngine=engine)
        assert not {name for name in present("Outputs", CacheKind="none") if "CacheN" in name}
    other = present("Resources") ^ present("Resources", CacheKind="none")
    assert other == cached - {"CacheNode", "CacheSubnets"}, "and nothing else changes"


@pytest.mark.parametrize(
    ("engine", "cache", "login", "expected"),
    [
        ("mysql", "serverless", "iam", set()),
        ("mysql", "none", "iam", set()),
        ("mysql", "node", "secret", {"SecretEndpoint", "EndpointGroup"}),
        ("dataapi", "none", "iam", set()),
        ("dataapi", "none", "secret", set()),
        ("dataapi", "serverless", "iam", {"DataEndpoint", "EndpointGroup"}),
        ("dataapi", "serverless", "secret", {"DataEndpoint", "EndpointGroup"}),
    ],
)
def test_an_endpoint_that_costs_by_the_hour_is_made_where_functions_in_the_network_need_it(
    engine: str, cache: str, login: str, expected: set[str]
) -> None:
    made = present("Resources", DatabaseEngine=engine, CacheKind=cache, DatabaseLogin=login)
    assert {name for name in made if name.endswith("Endpoint")} - {"BucketEndpoint"} == {
        name for name in expected if name != "EndpointGroup"
    }
    assert ("EndpointGroup" in made) == bool(expected)


def test_the_endpoint_of_the_data_api_answers_to_its_usual_name() -> None:
    endpoint = resource("DataEndpoint")
    assert endpoint["ServiceName"] == {"Fn::Sub": "com.amazonaws.${AWS::Region}.rds-data"}
    assert endpoint["PrivateDnsEnabled"] is True
    assert len(endpoint["SubnetIds"]) == 2


def test_functions_that_open_no_connection_cannot_reach_the_database() -> None:
    gone = present("Resources") - present("Resources", DatabaseEngine="dataapi")
    assert gone == {"FunctionsToDatabase"}
    rules = [each for each in resource("FunctionGroup")["SecurityGroupEgress"] if "Fn::If" in each]
    ports = {each["Fn::If"][0]: each["Fn::If"][1]["FromPort"] for each in rules}
    assert ports == {"UsesConnections": 3306, "HasCache": 6379}
    assert all(each["Fn::If"][2] == {"Ref": "AWS::NoValue"} for each in rules)


def test_the_cluster_has_what_the_data_api_cannot_set_for_a_session(mariadb: MariaDB) -> None:
    """The engine takes these parameters, and begins no transaction with a SET then."""
    ours = resource("DatabaseParameters")["Parameters"]
    found = {name: ours[name] for name in ("transaction_isolation", "sql_mode")}
    found |= {"innodb_lock_wait_timeout": ours["innodb_lock_wait_timeout"]}
    found |= {"auto_increment_increment": "1", "sql_select_limit": str(2**64 - 1)}
    cached = settings(**DATA_API)
    assert cached.redis_url
    assert Connector(cached)._judged(found).session == ()
    for name in ("sql_mode", "innodb_lock_wait_timeout"):
        with_another = found | {name: str(mariadb.query(f"SELECT @@global.{name}")[0][0])}
        assert Connector(cached)._judged(with_another).session != (), name
    with pytest.raises(ConfigurationError, match="READ-COMMITTED"):
        Connector(cached)._judged(found | {"transaction_isolation": "REPEATABLE-READ"})


def test_every_output_is_used_and_every_used_one_is_there() -> None:
    text = "".join(
        path.read_text(encoding="utf-8") for path in sorted((ROOT / "infra").glob("*.py"))
    )
    used = set(re.findall(r"outputs(?:\[|\.get\()[\"'](\w+)", text))
    assert used == set(template()["Outputs"])


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_gives_parameters_that_the_template_has(stage: str) -> None:
    choices = json.loads((ROOT / "infra" / f"{stage}.json").read_text(encoding="utf-8"))
    declared = template()["Parameters"]
    for name, value in choices["parameters"].items():
        rule = declared[name]
        assert isinstance(value, str), "CloudFormation takes strings"
        if rule["Type"] == "Number":
            assert rule.get("MinValue", 0) <= float(value) <= rule.get("MaxValue", float(value))
        if "AllowedValues" in rule:
            assert value in [str(each) for each in rule["AllowedValues"]]
    assert float(choices["parameters"].get("DatabaseMinCapacity", 0)) <= float(
        choices["parameters"].get("DatabaseMaxCapacity", 2)
    )


def test_a_database_that_could_not_sleep_is_not_taken() -> None:
    rule = template()["Parameters"]["DatabaseVersion"]
    pattern = re.compile(rule["AllowedPattern"])
    assert pattern.fullmatch(rule["Default"])
    assert pattern.fullmatch("8.0.mysql_aurora.3.08.0")
    assert not pattern.fullmatch("8.0.mysql_aurora.3.07.1")


def test_only_the_functions_and_the_clients_of_the_cache_are_let_in() -> None:
    rules = of_type("EC2::SecurityGroupIngress").values()
    assert all(rule["FromPort"] == rule["ToPort"] for rule in rules)
    let_in = {
        (rule["SourceSecurityGroupId"]["Ref"], rule["GroupId"]["Ref"], rule["ToPort"])
        for rule in rules
    }
    assert let_in == {
        ("FunctionGroup", "DatabaseGroup", 3306),
        ("FunctionGroup", "CacheGroup", 6379),
        ("CacheClientGroup", "CacheGroup", 6379),
    }
    [egress] = resource("CacheClientGroup")["SecurityGroupEgress"]
    assert (egress["DestinationSecurityGroupId"], egress["ToPort"]) == ({"Ref": "CacheGroup"}, 6379)
    for name, group in of_type("EC2::SecurityGroup").items():
        for rule in group.get("SecurityGroupIngress", []):
            assert name == "EndpointGroup"
            assert rule["SourceSecurityGroupId"] == {"Ref": "FunctionGroup"}


def test_no_way_leads_to_the_internet() -> None:
    kinds = {each["Type"] for each in template()["Resources"].values()}
    for way in ("InternetGateway", "NatGateway", "EIP", "Route"):
        assert f"AWS::EC2::{way}" not in kinds
    for database_instance in of_type("RDS::DBInstance").values():
        assert database_instance["PubliclyAccessible"] is False


def test_files_are_not_kept_for_ever() -> None:
    rules = resource("Uploads")["LifecycleConfiguration"]["Rules"]
    [whole] = [rule for rule in rules if "Prefix" not in rule]
    assert whole["ExpirationInDays"] == {"Ref": "UploadDays"}
    assert whole["NoncurrentVersionExpiration"] == {"NoncurrentDays": {"Ref": "RejectedDays"}}
    assert all(rule["Status"] == "Enabled" for rule in rules)


def test_the_database_logs_who_comes_in_and_who_changes_rights() -> None:
    assert resource("Database")["EnableCloudwatchLogsExports"] == ["audit", "error"]
    parameters = resource("DatabaseParameters")["Parameters"]
    assert parameters["server_audit_logging"] == "1"
    assert parameters["server_audit_events"].split(",") == ["CONNECT", "QUERY_DCL", "QUERY_DDL"]
    assert template()["Resources"]["Database"]["DependsOn"] == ["AuditLog", "ErrorLog"]


def test_the_data_api_is_off_unless_the_stage_uses_it() -> None:
    assert resource("Database")["EnableHttpEndpoint"] == {"Fn::If": ["UsesDataApi", True, False]}


def test_alarms_watch_every_function() -> None:
    metrics, functions = 0, dict[str, set[str]]()
    for name, alarm in of_type("CloudWatch::Alarm").items():
        assert alarm["AlarmActions"] == [{"Ref": "Alarms"}]
        assert alarm["TreatMissingData"] == "notBreaching"
        found = [each["MetricStat"] for each in alarm.get("Metrics", []) if "MetricStat" in each]
        metrics += len(found) or 1
        for each in found:
            for dimension in each["Metric"]["Dimensions"]:
                if dimension["Name"] == "FunctionName":
                    function = dimension["Value"]["Fn::Sub"].replace("${Stage}", "dev")
                    functions.setdefault(name, set()).add(function)
        for each in alarm.get("Metrics", []):
            if "MetricStat" in each:
                assert f"FILL({each['Id']},0)" in alarm["Metrics"][0]["Expression"]
    assert metrics == 15, "as many as docs/deploy.md counts"
    # Ranges wait for their turn, which Lambda counts as throttles.
    waiting = {"herocache-dev-sync_range"}
    assert functions == {"ErrorsAlarm": of_stage(), "ThrottlesAlarm": of_stage() - waiting}


def test_what_hands_ranges_out_is_soon_deleted() -> None:
    ranges = resource("Ranges")
    assert ranges["LifecycleConfiguration"]["Rules"] == [
        {"Id": "ranges", "Status": "Enabled", "ExpirationInDays": 1}
    ]
    assert "VersioningConfiguration" not in ranges, "an old version would stay"


def test_both_buckets_are_private_and_encrypted_and_reached_from_the_network() -> None:
    uploads, ranges = resource("Uploads"), resource("Ranges")
    for name in ("BucketEncryption", "OwnershipControls", "PublicAccessBlockConfiguration"):
        assert ranges[name] == uploads[name]
    policies = resource("UploadsOverTls"), resource("RangesOverTls")
    text = json.dumps(policies[0]).replace("Uploads", "Ranges")
    assert json.loads(text) == policies[1]
    [allowed] = resource("BucketEndpoint")["PolicyDocument"]["Statement"]
    of_policies = [policy["PolicyDocument"]["Statement"][0]["Resource"] for policy in policies]
    assert allowed["Resource"] == [*of_policies[0], *of_policies[1]]


def of_stage() -> set[str]:
    """The functions of dev, by their names in Lambda."""
    declared = config("dev")["lambda_functions"].keys() - {"api_handler"}
    return {"herocache-dev", *(f"herocache-dev-{name}" for name in declared)}


def test_the_dashboard_shows_the_errors_and_throttles_of_every_function() -> None:
    text = resource("Dashboard")["DashboardBody"]["Fn::Sub"][0].replace("${Stage}", "dev")
    [widget] = re.findall(r'"title": "Functions: errors, throttles".*?\]\]', text, re.DOTALL)
    found = re.findall(r'"(herocache-dev[\w-]*)"', widget)
    assert sorted(found) == sorted([*of_stage()] * 2)


@pytest.mark.parametrize("has_cache", [True, False])
def test_the_dashboard_is_json(has_cache: bool) -> None:
    text, values = resource("Dashboard")["DashboardBody"]["Fn::Sub"]
    condition, widget, nothing = values["CacheWidget"]["Fn::If"]
    assert condition == "HasCache"
    names = {"CacheWidget": widget["Fn::Sub"][0] if has_cache else nothing}
    for _ in range(2):  # the widget has variables of its own
        text = re.sub(r"\$\{([\w.:]+)\}", lambda found: names.get(found.group(1), "x"), text)
    assert len(json.loads(text)["widgets"]) == 5 + has_cache


# --- .chalice/config.json -------------------------------------------------------------------------


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_declares_just_the_functions_of_the_app(stage: str) -> None:
    lambdas = {function.name for function in app.pure_lambda_functions}
    events = {source.name for source in app.event_sources}
    assert set(config(stage)["lambda_functions"]) == {"api_handler", *lambdas, *events}


@pytest.mark.parametrize("stage", STAGES)
def test_times_and_sizes_are_within_what_aws_allows(stage: str) -> None:
    assert config(stage)["lambda_architecture"] == "arm64"
    assert config(stage)["xray"] is False
    for name, options in config(stage)["lambda_functions"].items():
        no_gateway = {"ingest": 900, "sync": 900, "sync_range": 900, "employees": 60}
        assert options["lambda_timeout"] == no_gateway.get(name, 29), "API Gateway's: 29 s"
        assert 128 <= options["lambda_memory_size"] <= 10_240
        assert options.get("reserved_concurrency", 1) > 0
        assert options["iam_policy_file"] == f"policy-{stage}-{name}.json"


@pytest.mark.parametrize("stage", STAGES)
def test_the_repository_has_placeholders_and_no_account(stage: str) -> None:
    texts = [json.dumps(config(stage))]
    texts += [path.read_text() for path in (ROOT / ".chalice").glob(f"policy-{stage}-*.json")]
    accounts = {number for text in texts for number in re.findall(r"\b\d{12}\b", text)}
    assert accounts == {"000000000000"}
    for name in (*config(stage)["subnet_ids"], *config(stage)["security_group_ids"]):
        assert re.fullmatch(r"(subnet|sg)-(\d)\2{16}", name)


def variables(outputs: Mapping[str, str]) -> dict[str, str]:
    """What `make configure` writes for a stack with these outputs."""
    written = chalice_config.environment(outputs)
    return {name: value for name, value in written.items() if value is not None}


def settings(**changes: str) -> Settings:
    """Of a stage whose stack has these outputs."""
    return Settings.from_environment(variables({**OUTPUTS, **changes}))


def test_every_kind_of_stack_gives_settings_that_the_app_takes() -> None:
    assert {"DatabaseReaderHost", *OUTPUTS} == set(template()["Outputs"])
    assert present("Outputs") == set(OUTPUTS)
    assert present("Outputs", DatabaseEngine="dataapi") == set(DATA_API)
    alone = present("Outputs", DatabaseEngine="dataapi", CacheKind="none")
    assert alone == set(DATA_API_ALONE)
    assert settings().redis_cluster
    assert not settings(CacheKind="node").redis_cluster
    reader = "herocache-dev.ro.rds.test"
    assert settings(DatabaseReaderHost=reader).db_reader_host == reader
    assert settings(**BY_SECRET) != settings()
    assert settings(DatabaseMinCapacity="0.5") != settings(), "it never sleeps"


def test_a_stage_over_the_data_api_has_its_settings_and_no_others() -> None:
    alone = variables(DATA_API_ALONE)
    assert alone == {
        "DB_ENGINE": "dataapi",
        "DB_CLUSTER_ARN": OUTPUTS["DatabaseArn"],
        "DB_SECRET_ARN": BY_SECRET["DatabaseLoginArn"],
        "DB_NAME": "herocache",
        "DB_RESUME_SECONDS": "20",
        "UPLOAD_BUCKET": OUTPUTS["UploadBucket"],
        "RANGES_BUCKET": OUTPUTS["RangesBucket"],
        "BUCKET_OWNER": "123456789012",
    }
    cached = variables({**DATA_API, "DatabaseReaderHost": "herocache-dev.ro.rds.test"})
    of_cache = {name: value for name, value in variables(OUTPUTS).items() if "REDIS" in name}
    assert cached == alone | of_cache, "and a reader answers no call of the Data API"
    for found in (alone, cached):
        assert Settings.from_environment(found).db_engine is DbEngine.DATA_API


def test_a_stack_from_before_there_were_two_engines_has_connections() -> None:
    before = {name: value for name, value in OUTPUTS.items() if name != "DatabaseEngine"}
    assert variables(before) == variables(OUTPUTS)


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("name", config("dev")["lambda_functions"])
def test_the_repositorys_policies_are_what_configure_writes(stage: str, name: str) -> None:
    """But for the names of what the stack made."""
    policy = json.loads((ROOT / ".chalice" / f"policy-{stage}-{name}.json").read_text())
    function = f"herocache-{stage}" + ("" if name == "api_handler" else f"-{name}")
    written = policy_files.for_stack(policy, [function], OUTPUTS)

    for ours, theirs in zip(policy["Statement"], written["Statement"], strict=True):
        assert {**ours, "Resource": ""} == {**theirs, "Resource": ""}


def test_the_right_to_log_in_is_the_one_that_the_stack_needs() -> None:
    policy = json.loads((ROOT / ".chalice" / "policy-dev-ingest.json").read_text())
    names = ["herocache-dev-ingest"]
    by_token = policy_files.for_stack(policy, names, OUTPUTS)
    by_secret = policy_files.for_stack(by_token, names, {**OUTPUTS, **BY_SECRET})
    [login] = [each for each in by_secret["Statement"] if each["Sid"] == "DatabaseLogin"]

    assert login["Action"] == "secretsmanager:GetSecretValue"
    assert login["Resource"] == BY_SECRET["IngestLoginArn"]
    assert OUTPUTS["DatabaseSecretArn"] not in json.dumps(by_secret), "the owner's"
    assert "rds-db:connect" not in json.dumps(by_secret)
    assert policy_files.for_stack(by_secret, names, OUTPUTS) == by_token, "and back again"
    for other in (DATA_API, DATA_API_ALONE):
        there = policy_files.for_stack(by_token, names, other)
        assert there != by_token
        assert policy_files.for_stack(there, names, other) == there, "a second run changes nothing"
        assert policy_files.for_stack(there, names, OUTPUTS) == by_token, "and back again"
    assert "000000000000" not in json.dumps(by_token)


def test_a_function_that_a_schedule_calls_is_one_that_events_call() -> None:
    """Chalice records no ARN beside a schedule."""
    arn = "arn:aws:lambda:eu-west-1:123456789012:function:herocache-dev-"
    deployed = [
        {"name": name, "resource_type": "lambda_function", "lambda_arn": arn + name}
        for name in ("storage", "ingest", "sync")
    ]
    ingest = {"name": "ingest-s3event", "resource_type": "s3_event", "lambda_arn": arn + "ingest"}
    rule = {"name": "sync-event", "resource_type": "cloudwatch_event", "rule_name": "a"}

    names = stage_files.event_functions([*deployed, ingest, rule])
    assert names == ["herocache-dev-ingest", "herocache-dev-sync"]


# --- waiting --------------------------------------------------------------------------------------


class DataApi:
    """Fails with each of these codes, then answers."""

    def __init__(self, *codes: str) -> None:
        self._codes, self.executed = list(codes), list[str]()

    def execute_statement(self, sql: str, **_: str) -> None:
        if self._codes:
            error = {"Code": self._codes.pop(0), "Message": "the text"}
            raise ClientError({"Error": error}, "ExecuteStatement")
        self.executed.append(sql)


def test_a_sleeping_database_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    clock = SimpleNamespace(sleep=waits.append, monotonic=lambda: sum(waits))
    monkeypatch.setattr(aws_errors, "time", clock)
    asleep = DataApi(*["DatabaseResumingException"] * 5)
    database_schema.prepare(asleep, "arn", "secret")
    assert sum(waits) == 5 * database_schema.RETRY_SECONDS
    *rest, first, second = asleep.executed
    assert rest == [each for path in database_schema.FILES for each in statements(path)]
    assert "'herocache'@'%' IDENTIFIED WITH AWSAuthenticationPlugin" in first
    assert "'herocache_ingest'@'%' IDENTIFIED WITH AWSAuthenticationPlugin" in second

    with pytest.raises(Refused, match="DatabaseResumingException"):
        database_schema.prepare(DataApi(*["DatabaseResumingException"] * 99), "arn", "secret")


def statements(path: Path) -> list[str]:
    return database_schema.statements(path)


def test_a_statement_that_fails_is_named() -> None:
    with pytest.raises(Refused, match=r"seed/schema\.sql: CREATE TABLE .*heroes.*the text"):
        database_schema.prepare(DataApi("BadRequestException"), "arn", "secret")


def test_no_statement_holds_a_comment_or_is_cut_in_two(mariadb: MariaDB) -> None:
    for path in database_schema.FILES[:2]:
        for statement in statements(path):
            assert "--" not in statement
            mariadb.query(statement)
    triggers = mariadb.query("SHOW TRIGGERS")
    for name, *_ in triggers:
        mariadb.query(f"DROP TRIGGER {name}")
    assert len(triggers) == 3 * len(TABLES)


def test_a_stage_that_may_not_have_triggers_is_made_all_the_same(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    execute, executed = DataApi.execute_statement, DataApi()

    def refuse(self: DataApi, sql: str, **named: str) -> None:
        if sql.startswith("CREATE TRIGGER"):
            self._codes.append("DatabaseErrorException")
        execute(self, sql, **named)

    monkeypatch.setattr(DataApi, "execute_statement", refuse)
    database_schema.prepare(executed, "arn", "secret")

    printed = capsys.readouterr().out
    assert "seed/triggers.sql: CREATE TRIGGER" in printed
    assert "the text; so changes by other clients of the database are not recorded" in printed
    login = statements(database_schema.FILES[-1])
    assert [each for each in executed.executed if each in login] == login
