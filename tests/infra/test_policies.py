"""The functions' policies: every call is allowed, and nothing is allowed that no call needs.

Calls to S3 are made for real, by the functions in their package, under the role's own credentials,
on an emulated AWS that enforces policies. What AWS does in a function's name, and the two logins
that no API call makes, are listed in NEEDED with the page that says so.
"""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import botocore.session
import pytest

from infra import policies as policy_files
from tests.support.client import ROOT
from tests.support.container import Container, runtime_folder, upload_event
from tests.support.deployment import NAME
from tests.support.emulated_aws import REGION, Emulated, emulated
from tests.support.stack_outputs import DATA_API, DATA_API_ALONE, OUTPUTS
from tests.support.stage_life import NATIVE, Life, ShortLife, unpack
from tests.support.witness import Witness

Json = dict[str, Any]
STAGES = ("dev", "prod")
FUNCTIONS = ("api_handler", "storage", "employees", "ingest", "sync", "sync_range")

_VPC = "docs.aws.amazon.com/lambda/latest/dg/configuration-vpc.html"
# Actions for which no call stands in the code, with the page of AWS that names their purpose.
NEEDED = {
    "logs:CreateLogStream": "docs.aws.amazon.com/lambda/latest/dg/monitoring-cloudwatchlogs.html",
    "logs:PutLogEvents": "docs.aws.amazon.com/lambda/latest/dg/monitoring-cloudwatchlogs.html",
    "ec2:CreateNetworkInterface": _VPC,
    "ec2:DescribeNetworkInterfaces": _VPC,
    "ec2:DescribeSubnets": _VPC,
    "ec2:DeleteNetworkInterface": _VPC,
    "ec2:AssignPrivateIpAddresses": _VPC,
    "ec2:UnassignPrivateIpAddresses": _VPC,
    "rds-db:connect": "AuroraUserGuide/UsingWithRDS.IAMDBAuth.IAMPolicy.html",
    "elasticache:Connect": "AmazonElastiCache/latest/dg/auth-iam.html",
    "sqs:SendMessage": "docs.aws.amazon.com/lambda/latest/dg/invocation-async-retain-records.html",
    # Without it S3 says of what is gone that it is forbidden.
    "s3:ListBucket": "AmazonS3/latest/API/API_GetObject.html",
}


def policy(stage: str, function: str) -> Json:
    path = ROOT / ".chalice" / f"policy-{stage}-{function}.json"
    content: Json = json.loads(path.read_text(encoding="utf-8"))
    return content


def actions(content: Json) -> set[str]:
    """What it allows."""
    allowed: set[str] = set()
    for statement in content["Statement"]:
        if statement["Effect"] == "Allow":
            found = statement["Action"]
            allowed |= {found} if isinstance(found, str) else set(found)
    return allowed


each_policy = pytest.mark.parametrize(
    ("stage", "function"), [(stage, function) for stage in STAGES for function in FUNCTIONS]
)


@each_policy
def test_no_policy_has_a_wildcard_where_a_name_could_stand(stage: str, function: str) -> None:
    for statement in policy(stage, function)["Statement"]:
        assert "*" not in json.dumps(statement["Action"])
        if statement["Resource"] == "*":  # EC2 knows no resource for describing
            assert statement["Sid"] in ("JoinTheNetwork", "LambdaAloneJoinsIt")
        else:
            assert f"herocache-{stage}" in json.dumps(statement) or "/herocache" in json.dumps(
                statement
            )


@each_policy
def test_the_functions_own_code_may_not_touch_the_network(stage: str, function: str) -> None:
    statements = {each["Sid"]: each for each in policy(stage, function)["Statement"]}
    allowed, denied = statements["JoinTheNetwork"], statements["LambdaAloneJoinsIt"]

    name = f"herocache-{stage}" + ("" if function == "api_handler" else f"-{function}")
    assert (denied["Effect"], denied["Action"]) == ("Deny", allowed["Action"])
    assert denied["Condition"]["ArnLike"]["lambda:SourceFunctionArn"].endswith(f":{name}")


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("function", ["api_handler", "storage", "employees"])
def test_the_read_path_has_no_right_to_files_or_queues(stage: str, function: str) -> None:
    services = {action.partition(":")[0] for action in actions(policy(stage, function))}
    assert services == {"logs", "ec2", "rds-db", "elasticache"}


_LOGS = {"logs:CreateLogStream", "logs:PutLogEvents"}
# The operations of the Data API that boto3 still has; the service's code calls all but ExecuteSql,
# which clusters of today do not support.
_DATA_API = {
    f"rds-data:{operation}"
    for operation in botocore.session.Session().get_service_model("rds-data").operation_names
} - {"rds-data:ExecuteSql"}


@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_stage_over_the_data_api_may_use_its_cluster_and_one_secret(function: str) -> None:
    names = [f"herocache-dev-{function}"]
    content = policy_files.for_stack(policy("dev", function), names, DATA_API_ALONE)
    resources = {each["Sid"]: each["Resource"] for each in content["Statement"]}
    events = {"ingest": {"s3", "sqs"}, "sync": {"s3", "sqs"}, "sync_range": {"sqs"}}
    others = events.get(function, set())
    found = actions(content)

    assert resources["DataApi"] == OUTPUTS["DatabaseArn"]
    login = "IngestLoginArn" if function == "ingest" else "DatabaseLoginArn"
    assert resources["DatabaseLogin"] == DATA_API[login] != OUTPUTS["DatabaseSecretArn"]
    assert {each for each in found if each.partition(":")[0] not in others} == {
        *_LOGS,
        *_DATA_API,
        "secretsmanager:GetSecretValue",
    }
    assert "*" not in resources.values()
    assert all(each["Effect"] == "Allow" for each in content["Statement"])


@pytest.mark.parametrize("function", FUNCTIONS)
def test_the_bucket_of_ranges_is_for_sync_alone_and_that_of_uploads_for_ingest(
    function: str,
) -> None:
    """Also where the policies were written for another stack before."""
    before = {"UploadBucket": "other", "RangesBucket": "another"}
    names = [f"herocache-dev-{function}"]
    content = policy("dev", function)
    for outputs in ({**OUTPUTS, **before}, OUTPUTS):
        content = policy_files.for_stack(content, names, outputs)
    bucket = {"ingest": OUTPUTS["UploadBucket"], "sync": OUTPUTS["RangesBucket"]}.get(function)
    found = set(re.findall(r':s3:::([^/"]+)', json.dumps(content)))
    assert found == ({bucket} if bucket else set())
    if function == "sync":
        assert {each for each in actions(content) if each.startswith("s3:")} == {"s3:PutObject"}


@pytest.mark.parametrize("function", FUNCTIONS)
def test_with_a_cache_it_may_join_the_network_and_log_in_there_too(function: str) -> None:
    names = [f"herocache-dev-{function}"]
    alone, cached = (
        policy_files.for_stack(policy("dev", function), names, outputs)
        for outputs in (DATA_API_ALONE, DATA_API)
    )
    further = actions(cached) - actions(alone)

    assert further == {*policy_files.NETWORK_ACTIONS, "elasticache:Connect"}
    assert actions(alone) < actions(cached)


def test_the_functions_of_a_stage_over_the_data_api_get_these_policies(
    data_api_life: ShortLife,
) -> None:
    for role, content in data_api_life.policies.items():
        assert data_api_life.account["roles"][role] == [content]
        assert actions(content) > _DATA_API
        assert "ec2:" not in json.dumps(content)
        assert "000000000000" not in json.dumps(content)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_both_stages_allow_the_same(function: str) -> None:
    dev, prod = (json.dumps(policy(stage, function)) for stage in STAGES)
    assert dev.replace("herocache-dev", "herocache-prod") == prod


def test_every_action_that_no_call_shows_is_one_that_aws_asks_for() -> None:
    of_all = {action for function in FUNCTIONS for action in actions(policy("dev", function))}
    shown = {action for action in of_all if action.startswith("s3:")} - NEEDED.keys()
    assert of_all - shown == NEEDED.keys()


def test_a_token_is_asked_for_exactly_where_a_policy_lets_it_in(life: Life) -> None:
    """The logins are made with tokens, not with calls: nobody but the settings shows them."""
    for role, content in life.policies.items():
        allowed, variables = actions(content), life.stage["environment_variables"]
        assert ("rds-db:connect" in allowed) == (variables.get("DB_AUTH") == "iam")
        assert ("elasticache:Connect" in allowed) == (variables.get("REDIS_AUTH") == "iam")
        resources = {each["Sid"]: each["Resource"] for each in content["Statement"]}
        user = "herocache_ingest" if role.endswith("-ingest") else variables["DB_USER"]
        assert resources["DatabaseLogin"].endswith(f"/{user}")
        cache, user = resources["CacheLogin"]
        assert cache.endswith(f":serverlesscache:{variables['REDIS_CACHE_NAME']}")
        assert user.endswith(f":user:{variables['REDIS_URL'].split('//')[1].split('@')[0]}")


# --- the calls ------------------------------------------------------------------------------------


class Role:
    """Of a function, in an emulated account that enforces policies."""

    def __init__(self, account: Emulated, name: str, content: Json) -> None:
        self._account, self._name, self._content = account, name, content
        trust = {"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "sts:AssumeRole"}
        document = json.dumps({"Version": "2012-10-17", "Statement": [trust]})
        iam = account.client("iam")
        made = iam.create_role(RoleName=name, AssumeRolePolicyDocument=document)
        self._arn = made["Role"]["Arn"]
        self.allow()

    def allow(self, *, but: str = "") -> None:
        """What the policy allows, `but` this action."""
        content = json.loads(json.dumps(self._content))
        for statement in content["Statement"]:
            if but and statement["Effect"] == "Allow":
                found = statement["Action"]
                listed = [found] if isinstance(found, str) else found
                statement["Action"] = [each for each in listed if each != but] or "none:None"
        self._account.client("iam").put_role_policy(
            RoleName=self._name, PolicyName=self._name, PolicyDocument=json.dumps(content)
        )

    def credentials(self) -> dict[str, str]:
        """As Lambda gives them to a function."""
        sts = self._account.client("sts")
        given = sts.assume_role(RoleArn=self._arn, RoleSessionName="function")["Credentials"]
        return {
            "AWS_ACCESS_KEY_ID": given["AccessKeyId"],
            "AWS_SECRET_ACCESS_KEY": given["SecretAccessKey"],
            "AWS_SESSION_TOKEN": given["SessionToken"],
        }


class Enforced:
    """An account that enforces policies, with the bucket and the role of `ingest`."""

    def __init__(self, account: Emulated, content: Json) -> None:
        self.account = account
        self.asked: set[str] = set()
        [arn] = [each["Resource"] for each in content["Statement"] if each["Sid"] == "ReadUploads"]
        self.bucket = arn.removeprefix("arn:aws:s3:::").partition("/")[0]
        location = {"LocationConstraint": REGION}
        account.client("s3").create_bucket(Bucket=self.bucket, CreateBucketConfiguration=location)
        self.role = Role(account, "ingest", content)


@pytest.fixture(scope="module")
def enforced(life: Life) -> Iterator[Enforced]:
    from moto import settings
    from moto.iam.access_control import IAMPolicy
    from moto.secretsmanager.responses import SecretsManagerResponse

    from tests.support.moto_gaps import closed

    with emulated() as account, pytest.MonkeyPatch.context() as patch:
        enforced = Enforced(account, life.policies[f"{NAME}-ingest"])
        is_permitted = IAMPolicy.is_action_permitted

        def note(self: Any, action: str, *args: Any, **kwargs: Any) -> Any:
            if self._policy_json["Statement"][0].get("Sid"):  # the engineer's has none
                enforced.asked.add(action)
            return is_permitted(self, action, *args, **kwargs)

        def secret_id(self: Any) -> str:
            return str(json.loads(self.body).get("SecretId", "*"))

        # moto asks whether a secret may be read, but not which one.
        assert not hasattr(SecretsManagerResponse, "_determine_resource"), closed("secrets")
        patch.setattr(SecretsManagerResponse, "_determine_resource", secret_id, raising=False)
        patch.setattr(IAMPolicy, "is_action_permitted", note)
        patch.setattr(settings, "INITIAL_NO_AUTH_ACTION_COUNT", 0)
        yield enforced


@pytest.fixture(scope="module")
def places(life: Life, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The package and the runtime's folder."""
    package = unpack(life.packages[NATIVE], tmp_path_factory.mktemp("task"))
    return package, runtime_folder(tmp_path_factory.mktemp("runtime"))


class Flow:
    """The ingest function, on the real servers and the enforced account."""

    def __init__(
        self, enforced: Enforced, places: tuple[Path, Path], environment: Mapping[str, str]
    ) -> None:
        self._enforced, self._places, self._environment = enforced, places, environment

    def load(self, key: str, content: bytes, versioning: str) -> Json:
        """Upload this and have the function load it: its summary."""
        s3, bucket = self._enforced.account.client("s3"), self._enforced.bucket
        s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": versioning})
        put = s3.put_object(Bucket=bucket, Key=key, Body=content)
        settings = {
            **self._environment,
            **self._enforced.account.environment,
            **self._enforced.role.credentials(),
            "UPLOAD_BUCKET": bucket,
            "INGEST_MAX_REJECTED": "100",
        }
        event = upload_event(bucket, key, put, len(content))
        [[summary]], _ = Container(*self._places, settings).invoke(("app.ingest", event))
        found: Json = summary
        return found


@pytest.fixture
def flow(
    enforced: Enforced,
    places: tuple[Path, Path],
    environment: Mapping[str, str],
    witness: Witness,
) -> Flow:
    return Flow(enforced, places, environment)


HEADER = b"id,hero,power,name,xp,color\n"
GOOD_AND_BAD = HEADER + b"1,Nova,light,Ada,10,red\n2,Nova,light,Ada,ten,red\n"
# More refused rows than one part of an upload holds, then what makes the whole file refused.
HOPELESS = HEADER + (b"1,Nova,light,Ada,10," + b"x" * 2000 + b"\n") * 10_000 + b"\xff\n"


def test_ingest_makes_every_call_that_its_policy_allows_and_no_other(
    enforced: Enforced, flow: Flow
) -> None:
    enforced.asked.clear()
    for versioning in ("Suspended", "Enabled"):
        summary = flow.load(f"{versioning}.csv", GOOD_AND_BAD, versioning)
        assert (summary["status"], summary["rows"], summary["refused"]) == ("loaded", 1, 1)
    summary = flow.load("incoming/heroes/c.csv", HOPELESS, "Enabled")
    assert summary["status"] == "refused"

    assert enforced.asked == actions(policy("dev", "ingest")) - NEEDED.keys()


@pytest.mark.parametrize(
    ("action", "versioning"),
    [
        ("s3:GetObject", "Suspended"),
        ("s3:GetObjectVersion", "Enabled"),
        ("s3:PutObject", "Enabled"),
    ],
)
def test_ingest_fails_without_this_action(
    enforced: Enforced, flow: Flow, action: str, versioning: str
) -> None:
    enforced.role.allow(but=action)
    try:
        with pytest.raises(AssertionError, match=r"\((AccessDenied|403)\)"):
            flow.load(f"incoming/heroes/{action[3:]}.csv", GOOD_AND_BAD, versioning)
    finally:
        enforced.role.allow()


def test_the_databases_secret_is_read_with_the_right_that_configure_gives(
    enforced: Enforced,
    places: tuple[Path, Path],
    environment: Mapping[str, str],
    witness: Witness,
) -> None:
    login = {"username": environment["DB_USER"], "password": environment["DB_PASS"]}
    secrets = enforced.account.client("secretsmanager")
    arn = secrets.create_secret(Name="database", SecretString=json.dumps(login))["ARN"]
    changes = {"DatabaseLogin": "secret", "DatabaseLoginArn": arn}
    names = ["herocache-dev-storage"]
    content = policy_files.for_stack(policy("dev", "storage"), names, {**OUTPUTS, **changes})
    role = Role(enforced.account, "storage", content)
    settings = {name: each for name, each in environment.items() if name not in _LOGIN}
    settings |= {**enforced.account.environment, **role.credentials(), "DB_SECRET_ARN": arn}
    read = ("app.storage", {"REQUEST": "read", "SQLS": [1], "USE_CACHE": "False"})

    [answer], _ = Container(*places, settings).invoke(read)
    role.allow(but="secretsmanager:GetSecretValue")
    [rejected], _ = Container(*places, settings).invoke(read)

    assert answer == {"statusCode": 200, "body": [], "missing": [1]}
    assert rejected["statusCode"] >= 500
    assert "403" in rejected["body"]["message"]


_LOGIN = {"DB_USER", "DB_PASS"}
