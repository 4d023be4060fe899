"""What the commands refuse, and every call to AWS that can fail."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import botocore.session
import pytest
from botocore.stub import Stubber
from chalice.awsclient import TypedAWSClient

from infra import leftovers
from infra.stage_files import Stage
from tests.support.deployment import FUNCTIONS, NAME, STAGE, Project, trust_store
from tests.support.emulated_aws import REGION, Emulated
from tests.support.stage_life import seen


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
