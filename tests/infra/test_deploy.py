"""`make infra`, `configure`, `deploy` and `destroy` on an emulated AWS: what arrives, what is left,
what is refused.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import boto3
import botocore.session
import pytest
from botocore.exceptions import ClientError
from botocore.stub import Stubber
from chalice.awsclient import TypedAWSClient

from chalicelib.config import DbEngine, Settings
from infra import aws_errors, gateway_responses, leftovers
from infra.stage_files import Stage
from local.servers import moto_s3
from tests.support.client import ROOT, Answer
from tests.support.deployment import NAME, STAGE, Project, trust_store
from tests.support.emulated_aws import REGION, Emulated, emulated
from tests.support.stage_life import Life, ShortLife, seen

Json = dict[str, Any]
JSON = "application/json"
FUNCTIONS = {
    "api_handler": NAME,
    **{name: f"{NAME}-{name}" for name in ("storage", "employees", "ingest", "sync", "sync_range")},
}


@pytest.fixture(scope="module")
def account() -> Iterator[Emulated]:
    with emulated() as account:
        yield account


# --- make infra, make configure -------------------------------------------------------------------


def test_infra_shows_what_happens_and_then_makes_the_tables_and_the_login(life: Life) -> None:
    assert f"{NAME} CREATE_COMPLETE" in life.first["infra"]
    assert "seed/schema.sql: " in life.first["infra"]
    assert any(text.startswith("CREATE TABLE IF NOT EXISTS heroes") for text in life.statements)
    assert any("AWSAuthenticationPlugin" in text for text in life.statements)
    half = len(life.statements) // 2
    assert life.statements[:half] == life.statements[half:], "the second run applies the same"


def test_configure_writes_where_everything_is(life: Life) -> None:
    variables = life.stage["environment_variables"]

    assert variables["DB_HOST"].startswith(f"{NAME}.")
    assert (variables["DB_USER"], variables["DB_NAME"]) == ("herocache", "herocache")
    assert variables["REDIS_URL"].startswith(f"rediss://{NAME}@{NAME}.")
    assert variables["UPLOAD_BUCKET"] == f"{NAME}-{life.account_id}-{REGION}"
    assert variables["RANGES_BUCKET"] == f"{NAME}-ranges-{life.account_id}-{REGION}"
    assert variables["DB_RESUME_SECONDS"] == "20", "dev's database sleeps"
    assert "chalicelib/rds-ca.pem: 1 certificates written" in life.first["configure"]
    assert len(life.stage["subnet_ids"]) == 2
    assert "DB_READER_HOST" not in variables, "there is one instance"


def test_configure_leaves_what_is_not_its_own(life: Life) -> None:
    whole = json.loads((ROOT / ".chalice" / "config.json").read_text(encoding="utf-8"))
    stage = whole["stages"][STAGE]
    for name in ("lambda_architecture", "xray", "api_gateway_stage"):
        assert life.stage[name] == stage[name]
    own = life.stage["lambda_functions"]["ingest"].pop("environment_variables")
    assert life.stage["lambda_functions"] == stage["lambda_functions"]
    life.stage["lambda_functions"]["ingest"]["environment_variables"] = own
    for name, value in stage["environment_variables"].items():
        assert life.stage["environment_variables"][name] == value


def test_configure_says_what_it_did_and_did_not(life: Life) -> None:
    assert ".chalice/config.json: written" in life.first["configure"]
    assert ".chalice/config.json: is as the stack says" in life.again["configure"]
    assert ": written" not in life.again["configure"]


def test_no_variable_holds_a_secret(life: Life) -> None:
    variables = life.stage["environment_variables"]
    for name, value in variables.items():
        assert "PASS" not in name
        plain = ("key", "iam", "0", "1", "herocache", "3600", "20", "chalicelib/rds-ca.pem")
        is_account = name == "BUCKET_OWNER" and value.isdigit() and len(value) == 12
        assert value in plain or NAME in value or is_account, name


# --- make deploy ----------------------------------------------------------------------------------


def test_every_function_arrives_as_the_stage_declares_it(life: Life) -> None:
    there = life.account["functions"]
    assert set(there) == set(FUNCTIONS.values())
    for name, options in life.stage["lambda_functions"].items():
        function = there[FUNCTIONS[name]]
        assert function["Architectures"] == ["arm64"]
        assert function["MemorySize"] == options["lambda_memory_size"]
        assert function["Timeout"] == options["lambda_timeout"]
        assert function["TracingConfig"]["Mode"] == "PassThrough", "X-Ray is off"
        assert function["Role"].endswith(f":role/{NAME}-{name}")
        reserved = life.account["concurrency"][FUNCTIONS[name]]
        assert reserved == options.get("reserved_concurrency")


def test_every_function_stands_in_the_private_network(life: Life) -> None:
    for function in life.account["functions"].values():
        place = function["VpcConfig"]
        assert place["SubnetIds"] == life.stage["subnet_ids"]
        assert place["SecurityGroupIds"] == life.stage["security_group_ids"]


def test_every_function_gets_the_stages_settings(life: Life) -> None:
    for name, function in life.account["functions"].items():
        own = {"DB_USER": "herocache_ingest"} if name == FUNCTIONS["ingest"] else {}
        variables = function["Environment"]["Variables"]
        assert variables == {**life.stage["environment_variables"], **own}


def test_the_app_takes_the_settings_it_gets(life: Life) -> None:
    variables = life.stage["environment_variables"]
    settings = Settings.from_environment(variables)

    assert settings.db_host == variables["DB_HOST"]
    assert settings.redis_url == variables["REDIS_URL"]
    assert settings.redis_cluster, "a serverless cache is one"


def test_every_function_has_a_role_of_its_own_with_the_policy_of_its_file(life: Life) -> None:
    for role, policy in life.policies.items():
        assert life.account["roles"][role] == [policy]


def test_each_function_is_told_of_every_object_of_its_bucket(life: Life) -> None:
    """S3 takes no two configurations of one event whose filters overlap. The emulation does."""
    variables = life.stage["environment_variables"]
    buckets = {variables["UPLOAD_BUCKET"]: "ingest", variables["RANGES_BUCKET"]: "sync_range"}
    assert life.account["buckets"].keys() == buckets.keys()
    for name, [configuration] in life.account["buckets"].items():
        function = configuration["LambdaFunctionArn"].rpartition(":")[2]
        assert function == FUNCTIONS[buckets[name]]
        assert configuration["Events"] == ["s3:ObjectCreated:*"]
        assert not configuration.get("Filter")
    assert list(moto_s3.FUNCTIONS.values()) == list(buckets.values())


def test_the_api_has_the_apps_routes_and_one_stage(life: Life) -> None:
    [stages], [document] = life.account["apis"].values(), life.account["documents"].values()

    assert [each["stageName"] for each in stages] == [STAGE]
    routes = {(verb, path) for path, verbs in document["paths"].items() for verb in verbs}
    assert {("post", "/"), ("get", "/health")} <= routes
    [api_id] = life.account["apis"]
    assert life.url == f"https://{api_id}.execute-api.{REGION}.amazonaws.com/{STAGE}/"
    assert life.url in life.first["deploy"]


def test_callers_need_a_key_but_for_the_shallow_health(life: Life) -> None:
    [document] = life.account["documents"].values()
    asked = {
        path: verbs[verb].get("security")
        for path, verbs in document["paths"].items()
        for verb in verbs
        if verb != "options"
    }
    key: list[Json] = [{"api_key": []}]
    assert asked == {"/": key, "/read": key, "/health": None, "/health/deep": key}


def test_events_that_fail_go_to_the_queue(life: Life) -> None:
    destinations = life.account["destinations"]
    queue = f"arn:aws:sqs:{REGION}:{life.account_id}:{NAME}-failed"
    for name in ("ingest", "sync", "sync_range"):
        [configuration] = destinations.pop(FUNCTIONS[name])
        assert configuration["DestinationConfig"]["OnFailure"]["Destination"] == queue
        assert configuration["MaximumRetryAttempts"] == 2
    assert not any(destinations.values()), "only functions that events call have one"


def test_the_schedule_calls_sync_and_nothing_else(life: Life) -> None:
    arn = life.account["functions"][FUNCTIONS["sync"]]["FunctionArn"]
    rate = f"rate({Settings.sync_minutes} minutes)"
    assert life.account["schedules"] == {f"{FUNCTIONS['sync']}-event": (rate, [arn])}


def test_logs_are_kept_for_as_long_as_the_stage_says(life: Life) -> None:
    groups = {f"/aws/lambda/{name}": 14 for name in FUNCTIONS.values()}
    groups[f"/aws/apigateway/{NAME}"] = 14
    groups |= {f"/aws/rds/cluster/{NAME}/{name}": 30 for name in ("audit", "error")}
    assert life.account["logs"] == groups


def test_nobody_can_flood_the_stage_above_all_not_without_a_login(life: Life) -> None:
    """The open routes share the API's concurrency."""
    [[stage]] = life.account["apis"].values()
    [document] = life.account["documents"].values()
    settings = stage["methodSettings"]
    found = settings["*/*"]
    assert (found["throttlingRateLimit"], found["throttlingBurstLimit"]) == (50, 100)
    unguarded = {
        f"{path.replace('/', '~1')}/{verb.upper()}"
        for path, verbs in document["paths"].items()
        for verb, operation in verbs.items()
        if not operation.get("security")
    }
    assert settings.keys() == {"*/*", *unguarded}
    for route in unguarded:
        limits = settings[route]
        assert (limits["throttlingRateLimit"], limits["throttlingBurstLimit"]) == (10, 20)


def test_each_call_is_logged_with_its_caller_and_no_text_of_theirs(life: Life) -> None:
    [[stage]] = life.account["apis"].values()
    log = stage["accessLogSettings"]
    assert log["destinationArn"].endswith(f":log-group:/aws/apigateway/{NAME}")
    line = json.loads(log["format"])
    callers = {f"$context.identity.{name}" for name in ("caller", "userArn", "apiKeyId")}
    assert callers < set(line.values())
    assert not {"$context.path", "$context.identity.userAgent"} & set(line.values())
    assert ":role/herocache-dev-" in life.account["api_log_role"]


def test_callers_with_a_key_are_limited_by_a_usage_plan(life: Life) -> None:
    [plan], [key] = life.account["plans"], life.account["keys"]
    [api_id] = life.account["apis"]

    assert plan["throttle"] == {"rateLimit": 50.0, "burstLimit": 100}
    assert plan["quota"] == {"limit": 100_000, "period": "DAY"}
    assert plan["apiStages"] == [{"apiId": api_id, "stage": STAGE}]
    assert key["id"] in life.first["deploy"]
    assert key.get("value", "no value") not in life.first["deploy"] + life.again["deploy"]


def test_large_answers_are_compressed_for_clients_that_ask(life: Life) -> None:
    [size] = life.account["compression"].values()
    assert size == life.stage["minimum_compression_size"] == 1400


def test_what_api_gateway_answers_by_itself_has_the_shape_of_our_errors(life: Life) -> None:
    [served] = life.account["responses"].values()
    types = boto3.client("apigateway", REGION).meta.service_model.shape_for("GatewayResponseType")

    assert set(served) == set(types.enum), "each type that API Gateway knows"
    for kind, response in served.items():
        [(content_type, template)] = response["responseTemplates"].items()
        assert content_type == JSON
        assert "$" not in template, "API Gateway would look for a variable"
        answer = Answer(int(response["statusCode"]), template.encode(), {})
        assert answer.error
        assert answer.message
        retry_after = response["responseParameters"].get("gatewayresponse.header.Retry-After")
        assert (retry_after is not None) == (answer.status in (429, 503)), kind
        assert not any("Access-Control" in name for name in response["responseParameters"])
    assert served["MISSING_AUTHENTICATION_TOKEN"]["statusCode"] == "404", "an unknown path"


def test_each_deployment_serves_them_again(life: Life) -> None:
    said = "errors       21 that API Gateway answers by itself: in the shape of ours"
    assert said in life.first["deploy"]
    assert said in life.again["deploy"]


def test_deploying_again_makes_nothing_twice(life: Life) -> None:
    assert life.url in life.again["deploy"], "the URL stays"
    for kind in ("apis", "plans", "keys", "queues", "schedules", "networks", "databases"):
        assert len(life.account[kind]) == 1, kind
    assert len(life.account["buckets"]) == 2
    assert len(life.account["functions"]) == len(FUNCTIONS)


# --- make destroy ---------------------------------------------------------------------------------


def test_destroy_asks_first(life: Life) -> None:
    code, text = life.unwilling
    assert code == 1
    assert "nothing was changed" in text
    assert set(life.still_there["functions"]) == set(life.account["functions"])
    assert life.still_there["stacks"] == [NAME]


def test_nothing_is_left_after_destroy(life: Life) -> None:
    assert {kind: what for kind, what in life.left.items() if what} == {}


def test_functions_leave_the_network_while_their_roles_are_there(life: Life) -> None:
    assert life.still_there["interfaces"]
    for name in FUNCTIONS.values():
        assert life.destroyed.index(f"{name}: leaves the network") < life.destroyed.index(
            "no interface of a function is left"
        )
    assert life.destroyed.index("no interface of a function") < life.destroyed.index("IAM role")


def test_destroying_again_finds_nothing_to_do(life: Life) -> None:
    assert "3 versions of files removed" in life.destroyed, life.destroyed
    assert f"{NAME} is not there" in life.destroyed_again
    assert "removed" not in life.destroyed_again


# --- a stage over the RDS Data API without a cache ------------------------------------------------


def test_a_stage_over_the_data_api_without_a_cache_needs_no_network(
    data_api_life: ShortLife,
) -> None:
    functions = data_api_life.account["functions"]
    assert set(functions) == set(FUNCTIONS.values())
    for function in functions.values():
        network = function.get("VpcConfig", {})
        assert not network.get("SubnetIds")
        assert not network.get("SecurityGroupIds")
    assert not {"subnet_ids", "security_group_ids"} & data_api_life.stage.keys()


def test_the_app_takes_the_settings_of_a_stage_over_the_data_api(
    data_api_life: ShortLife,
) -> None:
    variables = data_api_life.stage["environment_variables"]
    settings = Settings.from_environment(variables)

    for name, function in data_api_life.account["functions"].items():
        found = function["Environment"]["Variables"]
        if name == FUNCTIONS["ingest"]:
            assert found["DB_SECRET_ARN"] != variables["DB_SECRET_ARN"]
            found = {**found, "DB_SECRET_ARN": variables["DB_SECRET_ARN"]}
        assert found == variables
    assert settings.db_engine is DbEngine.DATA_API
    assert settings.db_cluster_arn.endswith(f":cluster:{NAME}")
    assert settings.redis_url == ""


def test_the_data_api_is_off_where_no_function_uses_it(
    life: Life, data_api_life: ShortLife
) -> None:
    assert life.account["data_apis"] == [False]
    assert "the RDS Data API is off again" in life.first["infra"]
    assert data_api_life.account["data_apis"] == [True]


def test_no_function_can_log_in_as_the_owner_of_the_database(data_api_life: ShortLife) -> None:
    """Whoever runs code in one could drop the tables, or make users."""
    users = {each["arn"]: each["username"] for each in data_api_life.account["secrets"]}
    of_functions = {
        name: function["Environment"]["Variables"]["DB_SECRET_ARN"]
        for name, function in data_api_life.account["functions"].items()
    }
    for name, arn in of_functions.items():
        expected = "herocache_ingest" if name == FUNCTIONS["ingest"] else "herocache"
        assert users[arn] == expected
        role = NAME + "-api_handler" * (name == NAME) + name.removeprefix(NAME)
        [policy] = data_api_life.account["roles"][role]
        [readable] = [s["Resource"] for s in policy["Statement"] if s["Sid"] == "DatabaseLogin"]
        assert readable == arn, "one secret, and not the owner's"
    passwords = {each["username"]: each["password"] for each in data_api_life.account["secrets"]}
    for user, password in passwords.items():
        login = f"ALTER USER '{user}'@'%' IDENTIFIED BY '{password}' REQUIRE SSL"
        assert login in data_api_life.statements
        assert password not in str(data_api_life.said)


def test_no_certificates_are_fetched_for_a_stage_without_connections(
    data_api_life: ShortLife,
) -> None:
    assert "certificates" not in data_api_life.said["configure"]
    assert ".chalice/config.json: written" in data_api_life.said["configure"]


def test_nothing_is_left_of_a_stage_over_the_data_api(
    data_api_life: ShortLife, cached_data_api_life: ShortLife
) -> None:
    for life in (data_api_life, cached_data_api_life):
        assert {kind: what for kind, what in life.left.items() if what} == {}


def test_with_a_cache_its_functions_are_in_the_network_of_the_cache(
    cached_data_api_life: ShortLife,
) -> None:
    life = cached_data_api_life
    settings = Settings.from_environment(life.stage["environment_variables"])
    assert settings.db_engine is DbEngine.DATA_API
    assert settings.redis_url.startswith("rediss://")
    assert len(life.account["functions"]) == len(FUNCTIONS)
    for function in life.account["functions"].values():
        assert function["VpcConfig"]["SubnetIds"] == life.stage["subnet_ids"]
        assert function["VpcConfig"]["SecurityGroupIds"] == life.stage["security_group_ids"]
    for role, content in life.policies.items():
        assert life.account["roles"][role] == [content]


# --- gateway responses that depend on settings ----------------------------------------------------


@pytest.fixture
def api_id(account: Emulated) -> Iterator[str]:
    """Of an API with one path."""
    integration = {"type": "aws_proxy", "uri": "arn:aws:lambda:a", "httpMethod": "POST"}
    operation = {"x-amazon-apigateway-integration": integration, "responses": {}}
    document = {"swagger": "2.0", "info": {"title": "a"}, "paths": {"/": {"get": operation}}}
    body = json.dumps(document).encode()
    gateway = account.client("apigateway")
    api_id = str(gateway.import_rest_api(body=body)["id"])
    yield api_id
    gateway.delete_rest_api(restApiId=api_id)


def served(account: Emulated, api_id: str, **environment: str) -> dict[str, Json]:
    gateway_responses.apply(account.client("apigateway"), api_id, "dev", environment)
    return account.served_responses(api_id)


def test_where_callers_sign_a_missing_signature_is_not_called_an_unknown_path(
    account: Emulated, api_id: str
) -> None:
    """API Gateway does not tell one from the other."""
    response = served(account, api_id, API_AUTH="iam")["MISSING_AUTHENTICATION_TOKEN"]

    answer = Answer(int(response["statusCode"]), response["responseTemplates"][JSON].encode(), {})
    assert (answer.status, answer.error) == (403, "Forbidden")
    assert "not signed, or there is no such path" in answer.message


@pytest.mark.parametrize(
    ("origins", "allowed"),
    [
        ("", None),
        (" , ", None),
        ("https://a.example", "'https://a.example'"),
        ("https://a.example, ", "'https://a.example'"),
        ("https://a.example,http://localhost:3000", "'*'"),
        ("*", "'*'"),
    ],
)
def test_a_page_of_an_allowed_origin_may_read_them(
    account: Emulated, api_id: str, origins: str, allowed: str | None
) -> None:
    for response in served(account, api_id, CORS_ORIGINS=origins).values():
        headers = response["responseParameters"]
        assert headers.get("gatewayresponse.header.Access-Control-Allow-Origin") == allowed


def test_a_deployment_that_comes_too_soon_is_made_again(
    account: Emulated, api_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway, waits = account.client("apigateway"), list[float]()
    create, too_soon = gateway.create_deployment, {"Error": {"Code": "TooManyRequestsException"}}

    def create_at_the_third_attempt(**arguments: str) -> None:
        if len(waits) < 2:
            raise ClientError(too_soon, "CreateDeployment")
        create(**arguments)

    monkeypatch.setattr(gateway, "create_deployment", create_at_the_third_attempt)
    clock = SimpleNamespace(sleep=waits.append, monotonic=lambda: sum(waits))
    monkeypatch.setattr(aws_errors, "time", clock)

    gateway_responses.apply(gateway, api_id, "dev", {})
    assert len(waits) == 2

    monkeypatch.setattr(gateway_responses, "PATIENCE_SECONDS", -1.0)
    waits.clear()
    with pytest.raises(ClientError, match="TooManyRequests"):
        gateway_responses.apply(gateway, api_id, "dev", {})


# --- what is refused ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> str:
    return trust_store(tmp_path_factory.mktemp("trust") / "authority")


@pytest.fixture
def project(
    tmp_path_factory: pytest.TempPathFactory, account: Emulated, certificates: str
) -> Project:
    return Project(tmp_path_factory.mktemp("project"), account, certificates)


@pytest.fixture
def configured(project: Project) -> Iterator[Project]:
    """`make infra` and `make configure` have run."""
    project.must("infra")
    project.must("configure")
    yield project
    project.must("destroy", typed=f"{STAGE}\n")


def assert_refused(project: Project, command: str, *words: str, stage: str = STAGE) -> None:
    before = seen(project.account)
    code, text = project.make(command, stage)
    assert code == 1, text
    for word in words:
        assert word in text
    assert "Traceback" not in text
    assert seen(project.account) == before, "something was changed"


@pytest.mark.proof
@pytest.mark.parametrize("setting", ["UPLOAD_BUCKET", "RANGES_BUCKET"])
def test_a_missing_bucket_is_found_before_anything_is_created(
    configured: Project, setting: str
) -> None:
    bucket = configured.stage()["environment_variables"][setting]
    configured.account.client("s3").delete_bucket(Bucket=bucket)
    try:
        words = f"there is no bucket {bucket} ({setting})"
        assert_refused(configured, "deploy", words, "make infra")
    finally:
        configured.account.client("s3").create_bucket(
            Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": REGION}
        )


@pytest.mark.proof
def test_more_concurrency_than_the_account_has_is_found_before_anything_is_created(
    configured: Project,
) -> None:
    functions = configured.stage()["lambda_functions"]
    functions["storage"]["reserved_concurrency"] = 901
    configured.change({"lambda_functions": functions})
    assert_refused(configured, "deploy", "the account has 900 to give", "reserved_concurrency")


@pytest.mark.proof
def test_a_deploy_that_died_half_way_goes_on_with_what_it_made(
    configured: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    from moto.apigateway.models import APIGatewayBackend

    def fail(*_: Any, **__: Any) -> None:
        raise AssertionError("the network went away meanwhile")

    gateway = configured.account.client("apigateway")
    for step in ("update_rest_api", "create_deployment"):
        with monkeypatch.context() as patch:
            patch.setattr(APIGatewayBackend, step, fail)
            code, text = configured.make("deploy")
        assert code == 1
        assert "chalice deploy failed" in text
        [api] = gateway.get_rest_apis()["items"]
        assert gateway.get_stages(restApiId=api["id"])["item"] == [], "nobody can call it yet"
    text = configured.must("deploy")

    assert f"{api['id']}: is there without a record" not in text, "the second run recorded it"
    assert f"https://{api['id']}.execute-api." in text
    assert len(gateway.get_rest_apis()["items"]) == 1
    (configured.home / ".chalice" / "deployed" / "dev.json").unlink()
    text = configured.must("deploy")
    assert f"{api['id']}: is there without a record, going on with it" in text
    assert f"https://{api['id']}.execute-api." in text, "the URL stays"


@pytest.mark.proof
def test_a_bucket_that_is_gone_does_not_stop_chalice(
    account: Emulated, certificates: str, tmp_path: Path
) -> None:
    other = Emulated()  # moto's stacks do not go without their bucket, as CloudFormation's do
    project = Project(tmp_path, other, certificates)
    for command in ("infra", "configure", "deploy"):
        project.must(command)
    variables = project.stage()["environment_variables"]
    buckets = variables["UPLOAD_BUCKET"], variables["RANGES_BUCKET"]
    for bucket in buckets:
        other.client("s3").delete_bucket(Bucket=bucket)
    _, text = project.make("destroy", typed=f"{STAGE}\n")
    for bucket in buckets:
        assert f"{bucket} is not there: nothing to remove from it" in text
    assert seen(other)["functions"] == {}, "chalice delete came to its end"
    other.stop()


@pytest.mark.proof
def test_a_deploy_that_died_half_way_is_undone_by_destroy(
    configured: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    from moto.s3.responses import S3Response

    def fail(self: Any) -> None:
        raise AssertionError("the bucket went away meanwhile")

    with monkeypatch.context() as patch:
        patch.setattr(S3Response, "put_bucket_notification", fail, raising=False)
        patch.setattr(S3Response, "_notification_config_from_body", fail)
        code, text = configured.make("deploy")
    assert code == 1
    assert "chalice deploy failed" in text
    assert seen(configured.account)["functions"]
    # As where it died after the schedule.
    events = configured.account.client("events")
    events.put_rule(Name=f"{FUNCTIONS['sync']}-event", ScheduleExpression="rate(15 minutes)")
    configured.must("destroy", typed=f"{STAGE}\n")
    left = seen(configured.account)
    assert {kind: what for kind, what in left.items() if what} == {}


def test_a_schedule_of_a_deploy_that_died_half_way_is_removed(account: Emulated) -> None:
    events = account.client("events")
    other = f"{NAME}-2-sync-event"
    for rule in (f"{NAME}-sync-event", f"{NAME}-ingest-event", other):
        events.put_rule(Name=rule, ScheduleExpression="rate(15 minutes)")
    function = f"arn:aws:lambda:{REGION}:{account.id}:function:{NAME}-sync"
    events.put_targets(Rule=f"{NAME}-sync-event", Targets=[{"Id": "1", "Arn": function}])

    for _ in range(2):
        leftovers.remove_schedules(events, Stage(STAGE))

    assert list(seen(account)["schedules"]) == [other], "that of another stage stays"
    events.delete_rule(Name=other)


def test_a_stage_without_its_own_account_is_not_deployed(project: Project) -> None:
    assert_refused(project, "deploy", "placeholder", "make configure STAGE=dev")


@pytest.mark.proof
def test_a_package_without_the_databases_authority_is_not_deployed(configured: Project) -> None:
    """As after a git clone of files that a colleague configured."""
    (configured.home / "chalicelib" / "rds-ca.pem").unlink()
    assert_refused(configured, "deploy", "chalicelib/rds-ca.pem is not there", "make configure")


def test_configure_without_a_stack_says_what_comes_first(project: Project) -> None:
    before = project.files()
    assert_refused(project, "configure", f"there is no stack {NAME}", "make infra")
    assert project.files() == before


def test_a_stage_that_is_not_declared_is_named(project: Project) -> None:
    assert_refused(project, "infra", "STAGE=staging", "dev, prod", stage="staging")


def test_prod_is_never_open_to_everybody(project: Project) -> None:
    variables = project.stage("prod")["environment_variables"]
    assert variables["API_AUTH"] != "none"
    project.change({"environment_variables": {**variables, "API_AUTH": "none"}}, "prod")
    assert_refused(project, "deploy", "API_AUTH is none", stage="prod")


@pytest.mark.parametrize("stage", ["dev", "prod"])
@pytest.mark.parametrize("auth", ["", None, "None", "iam "])
def test_no_stage_is_open_because_a_setting_was_forgotten(
    project: Project, stage: str, auth: str | None
) -> None:
    variables = project.stage(stage)["environment_variables"]
    others = {name: value for name, value in variables.items() if name != "API_AUTH"}
    written = others if auth is None else {**others, "API_AUTH": auth}
    project.change({"environment_variables": written}, stage)
    said = "API_AUTH is not set" if auth is None else f"API_AUTH is {auth!r}"
    assert_refused(project, "deploy", said, stage=stage)


def test_the_apis_own_function_does_not_open_prod(project: Project) -> None:
    """Chalice imports the app with the stage's variables and, over them, this function's."""
    functions = project.stage("prod")["lambda_functions"]
    functions["api_handler"]["environment_variables"] = {"API_AUTH": "none"}
    project.change({"lambda_functions": functions}, "prod")
    assert_refused(project, "deploy", "API_AUTH is none", stage="prod")


def test_a_config_that_is_no_json_is_named_with_the_place(project: Project) -> None:
    (project.home / ".chalice" / "config.json").write_text("{,}")
    assert_refused(project, "infra", "config.json: not JSON", "line 1")


def test_a_stage_that_lacks_something_is_named_with_the_place(project: Project) -> None:
    functions = project.stage()["lambda_functions"]
    del functions["ingest"]["iam_policy_file"]
    project.change({"lambda_functions": functions})
    assert_refused(project, "infra", "config.json, dev, ingest: iam_policy_file is missing")


def test_deployed_functions_are_not_taken_out_of_the_network(project: Project) -> None:
    choices = project.read("infra/dev.json")
    choices["parameters"] |= {"DatabaseEngine": "dataapi", "CacheKind": "none"}
    (project.home / "infra" / "dev.json").write_text(json.dumps(choices))
    deployed = project.home / ".chalice" / "deployed" / "dev.json"
    deployed.parent.mkdir()
    deployed.write_text(json.dumps({"resources": [{"resource_type": "lambda_function"}]}))

    assert_refused(project, "infra", "they would leave it", "make destroy STAGE=dev")


def test_without_a_region_the_first_step_is_told(project: Project) -> None:
    environment = dict(project.account.environment)
    del project.account.environment["AWS_DEFAULT_REGION"]
    try:
        assert_refused(project, "infra", "no region is set")
    finally:
        project.account.environment.update(environment)


@pytest.mark.proof
def test_a_protected_database_goes_only_where_the_file_says_so(project: Project) -> None:
    choices = project.read("infra/dev.json")
    path = project.home / "infra" / "dev.json"
    choices["parameters"]["DatabaseProtection"] = "true"
    path.write_text(json.dumps(choices))
    text = project.must("infra")
    assert text.index("CREATE_COMPLETE") < text.index("UPDATE_COMPLETE"), "protected last"
    assert seen(project.account)["databases"] == [(NAME, True)]
    assert_refused(project, "destroy", "DatabaseProtection", "infra/dev.json")
    del choices["parameters"]["DatabaseProtection"]
    path.write_text(json.dumps(choices))
    assert_refused(project, "destroy", "DatabaseProtection", "infra/dev.json")
    choices["parameters"]["DatabaseProtection"] = "false"
    path.write_text(json.dumps(choices))
    project.must("destroy", typed=f"{STAGE}\n")
    left = seen(project.account)
    assert {kind: what for kind, what in left.items() if what} == {}


# --- every call that can fail ---------------------------------------------------------------------

# Imported by each Python that is started: our command's, and that of the real `chalice deploy`.
# Each operation of AWS fails the first time it is called, and its name is written into a file. Not
# so in `chalice delete`: the emulation breaks where an API is deleted twice.
FAIL_EACH_ONCE = """
import os, pathlib, sys
from botocore.client import BaseClient
from botocore.exceptions import ClientError

path, make_api_call = pathlib.Path(os.environ["FAILED_ONCE"]), BaseClient._make_api_call

def fail_once(self, operation, arguments):
    failed = path.read_text().split()
    name = f"{self.meta.service_model.service_name}.{operation}"
    if name in ("sts.GetCallerIdentity", *failed) or "delete" in sys.argv:
        return make_api_call(self, operation, arguments)
    path.write_text(" ".join([*failed, name]))
    raise ClientError({"Error": {"Code": "InternalFailure", "Message": name}}, operation)

BaseClient._make_api_call = fail_once
"""


@pytest.mark.proof
@pytest.mark.timeout(1800)
def test_whichever_call_fails_the_same_command_gets_on(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text(FAIL_EACH_ONCE)
    path = tmp_path / "failed"
    monkeypatch.setitem(project.account.environment, "FAILED_ONCE", str(path))
    monkeypatch.setitem(project.account.environment, "PYTHONPATH", str(tmp_path))

    def run_until_done(command: str, typed: str = "") -> list[str]:
        """Returns the operations that failed."""
        path.write_text("")
        for _ in range(80):
            code, text = project.make(command, typed=typed)
            if code == 0:
                return path.read_text().split()
            is_chalices = "chalice deploy failed" in text or "chalice delete failed" in text
            assert is_chalices or "Traceback" not in text, text
            assert path.read_text().split()[-1] in text, f"it says which call failed: {text}"
            assert re.search(r"run (the same( make)? command|it) again", text), text
        raise AssertionError(f"a loop: {path.read_text()}")

    assert "cloudformation.CreateStack" in run_until_done("infra")
    assert "cloudformation.DescribeStacks" in run_until_done("configure")
    failed = run_until_done("deploy")
    for name in ("iam.CreateRole", "lambda.CreateFunction", "apigateway.CreateDeployment"):
        assert name in failed
    there = seen(project.account)
    assert set(there["functions"]) == set(FUNCTIONS.values())
    for kind in ("apis", "plans", "keys", "schedules"):
        assert len(there[kind]) == 1, kind
    failed = run_until_done("destroy", f"{STAGE}\n")
    for name in ("lambda.UpdateFunctionConfiguration", "ec2.DescribeNetworkInterfaces"):
        assert name in failed
    assert {"s3.ListObjectVersions", "cloudformation.DeleteStack"} <= set(failed)
    assert {kind: what for kind, what in seen(project.account).items() if what} == {}


@pytest.mark.parametrize(
    "words",
    [
        "The role defined for the function cannot be assumed by Lambda.",
        "The provided execution role does not have permissions to call CreateNetworkInterface",
    ],
)
def test_a_new_role_that_lambda_does_not_know_yet_is_waited_for(words: str) -> None:
    """Chalice does that, and for a minute at least."""
    waits: list[int] = []
    session = botocore.session.get_session()
    session.set_config_variable("region", REGION)
    session.set_credentials("a", "b")
    chalices = TypedAWSClient(session, sleep=waits.append)
    with Stubber(chalices._client("lambda")) as lambda_:
        for _ in range(3):
            lambda_.add_client_error("create_function", "InvalidParameterValueException", words)
        made = {"FunctionArn": "arn:aws:lambda:a", "State": "Active"}
        lambda_.add_response("create_function", made)

        arn = chalices.create_function("a", "arn:aws:iam::1:role/a", "", "python3.13", "app.a")

    assert arn == made["FunctionArn"]
    assert len(waits) == 3
    assert TypedAWSClient.LAMBDA_CREATE_ATTEMPTS * TypedAWSClient.DELAY_TIME >= 60


# --- docs/deploy.md -------------------------------------------------------------------------------

_BLOCK = re.DOTALL | re.MULTILINE
DOCS = (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8")


def told(command: str) -> str:
    """The output that docs/deploy.md shows for it."""
    [block] = re.findall(rf"^```console\n\$ make {command} STAGE=dev\n(.*?)^```$", DOCS, _BLOCK)
    return str(block)


def without_chance(text: str, life: Life) -> str:
    """With the account, the ids and the times of docs/deploy.md."""
    [api_id], [key] = life.account["apis"], life.account["keys"]
    text = re.sub(r"^\d\d:\d\d:\d\d", "10:00:00", text, flags=re.MULTILINE)
    text = text.replace(life.account_id, "123456789012")
    return text.replace(api_id, "abcdefghij").replace(key["id"], "abcdefghij")


def test_the_docs_show_what_the_commands_say(life: Life) -> None:
    for command, said in {**life.first, "destroy": life.destroyed}.items():
        assert without_chance(said, life) == told(command), command


def test_the_costs_in_the_docs_add_up() -> None:
    rows = re.findall(r"^\| ([^|]+) \| (?:about )?([\d.]+)(?: \*)? \|", DOCS, re.MULTILINE)
    amounts = {name: float(amount) for name, amount in rows}
    [together] = re.findall(r"\*\*about ([\d.]+)\*\*", DOCS)

    assert len(amounts) == 7
    assert sum(amounts.values()) == pytest.approx(float(together), abs=0.05)
    assert amounts["cache, serverless Valkey, the least it bills"] == round(0.084 * 0.1 * 730, 2)
    assert amounts["database, awake"] == round(0.12 * 0.5 * 20, 2)
    assert f"cost {0.12 * 0.5 * 730:.2f}" in DOCS
    assert f"are {0.12 * 0.5 * 730 * 2:.2f} at least" in DOCS

    endpoint = 0.01 * 2 * 730
    assert f": {endpoint:.2f} a month in two zones" in DOCS
    uncached = sum(amounts.values()) - amounts["cache, serverless Valkey, the least it bills"] - 0.1
    for total, words in ((uncached, "about 2.60 together"), (float(together) + endpoint, "23.40")):
        assert words in DOCS
        [amount] = re.findall(r"[\d.]+", words)
        assert total == pytest.approx(float(amount), abs=0.06)


def test_every_refusal_in_the_docs_is_one_that_the_code_words() -> None:
    code = "".join(path.read_text() for path in sorted((ROOT / "infra").glob("*.py")))
    code = re.sub(r'"\s+f?"', "", code)
    rows = re.findall(r"^\| `([^`]+)`.* \| .*\|$", DOCS, re.MULTILINE)
    found = [row for row in rows if not row.startswith("make ")]
    assert len(found) > 15
    for words in found:
        part = re.split(r"\bdev\b|herocache-dev|\d+|…|:", words)[0].strip()
        assert part in code or part == "infra/login.sql", words
