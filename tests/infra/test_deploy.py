"""The commands of a stage on an emulated AWS: what they make, and what is left."""

import json
import re
from typing import Any

import boto3
import pytest

from chalicelib.config import Settings
from local.servers import moto_s3
from tests.support.client import ROOT, Answer
from tests.support.deployment import FUNCTIONS, NAME, STAGE
from tests.support.emulated_aws import REGION
from tests.support.stage_life import Life

Json = dict[str, Any]
JSON = "application/json"


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
