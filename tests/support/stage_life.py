"""The life of a stage, lived once and watched from AWS's side: `make infra`, `configure`, `deploy`,
`destroy`, each twice, with the real `chalice deploy`. Then a short life of each stage over the RDS
Data API: without a cache, and with one.

`python -m tests.support.stage_life` lives them all and writes what was seen to its output, for
`life_in` and `data_api_life_in`.
"""

import io
import json
import pickle
import platform
import signal
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.background_commands import Done
from tests.support.deployment import NAME, STAGE, Project, trust_store
from tests.support.emulated_aws import Emulated, emulated

Json = dict[str, Any]
# Lambda's name for this machine's architecture.
NATIVE = {"x86_64": "x86_64", "amd64": "x86_64", "aarch64": "arm64", "arm64": "arm64"}[
    platform.machine().lower()
]


# Of the stages over the Data API, by the template's parameter.
NO_CACHE, CACHE = CACHE_KINDS = ("none", "serverless")


@dataclass(frozen=True)
class Life:
    """What was said and seen, in the order of the fields."""

    account_id: str
    first: dict[str, str]  # each command, the first time
    again: dict[str, str]  # and the second time
    url: str
    stage: Json
    policies: dict[str, Json]
    statements: list[str]
    account: Json
    packages: dict[str, bytes]  # what the function got, by architecture
    unwilling: tuple[int, str]  # `make destroy` where something else was typed
    still_there: Json
    destroyed: str
    destroyed_again: str
    left: Json


@dataclass(frozen=True)
class ShortLife:
    """Of a stage of another kind, lived once, with a package of this machine's architecture."""

    account: Json
    stage: Json
    policies: dict[str, Json]
    said: dict[str, str]
    package: bytes
    left: Json
    statements: list[str]


def seen(account: Emulated) -> Json:
    """Everything there is in the account that one of the commands could have made."""
    from tests.support.moto_gaps import data_apis

    lambdas, iam, gateway = (account.client(name) for name in ("lambda", "iam", "apigateway"))
    logs, s3, events = (account.client(name) for name in ("logs", "s3", "events"))
    functions = {each["FunctionName"]: each for each in lambdas.list_functions()["Functions"]}
    # Those of services stay with the account.
    found = [each for each in iam.list_roles()["Roles"] if each["Path"] == "/"]
    roles = [each["RoleName"] for each in found]
    apis = gateway.get_rest_apis()["items"]
    buckets = [each["Name"] for each in s3.list_buckets()["Buckets"]]
    ec2, cloudformation = account.client("ec2"), account.client("cloudformation")
    networks = ec2.describe_vpcs(Filters=[{"Name": "is-default", "Values": ["false"]}])["Vpcs"]
    return {
        "functions": functions,
        "concurrency": {
            name: lambdas.get_function_concurrency(FunctionName=name).get(
                "ReservedConcurrentExecutions"
            )
            for name in functions
        },
        "destinations": {
            name: lambdas.list_function_event_invoke_configs(FunctionName=name)[
                "FunctionEventInvokeConfigs"
            ]
            for name in functions
        },
        "roles": {
            role: [
                iam.get_role_policy(RoleName=role, PolicyName=policy)["PolicyDocument"]
                for policy in iam.list_role_policies(RoleName=role)["PolicyNames"]
            ]
            for role in roles
        },
        "apis": {api["id"]: gateway.get_stages(restApiId=api["id"])["item"] for api in apis},
        "documents": {api["id"]: account.api_documents[api["id"]] for api in apis},
        "compression": {api["id"]: api.get("minimumCompressionSize") for api in apis},
        "responses": {api["id"]: account.served_responses(api["id"]) for api in apis},
        "plans": gateway.get_usage_plans()["items"],
        "keys": gateway.get_api_keys()["items"],
        "api_log_role": gateway.get_account().get("cloudwatchRoleArn", "") if functions else "",
        "logs": {
            group["logGroupName"]: group.get("retentionInDays")
            for group in logs.describe_log_groups()["logGroups"]
        },
        "buckets": {
            name: s3.get_bucket_notification_configuration(Bucket=name).get(
                "LambdaFunctionConfigurations", []
            )
            for name in buckets
        },
        "queues": account.client("sqs").list_queues().get("QueueUrls", []),
        "topics": account.client("sns").list_topics()["Topics"],
        "networks": networks,
        "interfaces": [
            each["NetworkInterfaceId"]
            for each in ec2.describe_network_interfaces()["NetworkInterfaces"]
        ],
        "data_apis": list(data_apis(account.id).values()) if functions else [],
        "databases": [
            (each["DBClusterIdentifier"], each["DeletionProtection"])
            for each in account.client("rds").describe_db_clusters()["DBClusters"]
        ],
        "schedules": {
            rule["Name"]: (
                rule["ScheduleExpression"],
                [each["Arn"] for each in events.list_targets_by_rule(Rule=rule["Name"])["Targets"]],
            )
            for rule in events.list_rules()["Rules"]
        },
        "secrets": [
            json.loads(client.get_secret_value(SecretId=each["ARN"])["SecretString"])
            | {"arn": each["ARN"]}
            for client in [account.client("secretsmanager")]
            for each in client.list_secrets()["SecretList"]
            if "Secret-" in each["Name"]  # the template's, not the owner's
        ],
        "stacks": [
            stack["StackName"]
            for stack in cloudformation.list_stacks()["StackSummaries"]
            if stack["StackStatus"] != "DELETE_COMPLETE"
        ],
    }


def live(project: Project, account: Emulated) -> Life:
    first, again = {}, {}
    for command in ("infra", "configure", "deploy"):
        first[command] = project.must(command)
        before = project.files()
        again[command] = project.must(command)
        assert project.files() == before, f"make {command} changes files when it is run again"
    chalice = "import sys; from chalice.cli import main; sys.exit(main())"
    url = project.run(["-c", chalice, "url", "--stage", STAGE])[1].strip()
    there, stage = seen(account), project.stage()
    packages = {stage["lambda_architecture"]: account.package(NAME)}
    if NATIVE not in packages:
        project.change({"lambda_architecture": NATIVE})
        project.must("deploy")
        packages[NATIVE] = account.package(NAME)
    policies = roles_files(project)
    statements = account.statements
    s3, bucket = account.client("s3"), stage["environment_variables"]["UPLOAD_BUCKET"]
    # The template says so too; moto's stacks do not listen.
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    for _ in range(2):
        s3.put_object(Bucket=bucket, Key="elsewhere/a.csv", Body=b"a")
    s3.delete_object(Bucket=bucket, Key="elsewhere/a.csv")
    s3.put_object(Bucket=stage["environment_variables"]["RANGES_BUCKET"], Key="1/1.json")
    unwilling = project.make("destroy", typed="prod\n")
    still_there = seen(account)
    destroyed = project.must("destroy", typed=f"{STAGE}\n")
    destroyed_again = project.must("destroy", typed=f"{STAGE}\n")
    return Life(
        account.id,
        first,
        again,
        url,
        stage,
        policies,
        statements,
        there,
        packages,
        unwilling,
        still_there,
        destroyed,
        destroyed_again,
        seen(account),
    )


def live_shortly(project: Project, account: Emulated, parameters: Json) -> ShortLife:
    """A stage with these parameters of the template."""
    choices = project.read(f"infra/{STAGE}.json")
    choices["parameters"] |= parameters
    (project.home / "infra" / f"{STAGE}.json").write_text(json.dumps(choices))
    project.change({"lambda_architecture": NATIVE})
    said = {command: project.must(command) for command in ("infra", "configure", "deploy")}
    there, package = seen(account), account.package(NAME)
    stage, policies = project.stage(), roles_files(project)
    said["destroy"] = project.must("destroy", typed=f"{STAGE}\n")
    left, statements = seen(account), account.statements
    return ShortLife(there, stage, policies, said, package, left, statements)


def unpack(package: bytes, folder: Path) -> Path:
    with zipfile.ZipFile(io.BytesIO(package)) as archive:
        archive.extractall(folder)
    return folder


def roles_files(project: Project) -> dict[str, Json]:
    """The policy in the repository's files for each of Chalice's roles."""
    functions = project.stage()["lambda_functions"]
    return {
        f"{NAME}-{name}": project.read(f".chalice/{options['iam_policy_file']}")
        for name, options in functions.items()
    }


def life_in(lived: Done) -> Life:
    return Life(**_of(lived, "life"))


def data_api_life_in(lived: Done, cache_kind: str) -> ShortLife:
    """Of the stage over the Data API with this cache."""
    return ShortLife(**_of(lived, cache_kind))


def _of(lived: Done, name: str) -> Json:
    assert lived.returncode == 0, lived.stderr.decode()
    fields: Json = pickle.loads(lived.stdout)[name]
    return fields


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended before it was done"))
    with tempfile.TemporaryDirectory() as folder, emulated() as account:
        home = Path(folder)
        certificates = trust_store(home / "authority")
        life = live(Project(home / "project", account, certificates), account)
        lives = {"life": vars(life)}
        for kind in CACHE_KINDS:
            # Nobody has certificates there: connections to the database alone need them.
            another = Project(home / kind, account, "file:///nowhere")
            choices = {"DatabaseEngine": "dataapi", "CacheKind": kind}
            lives[kind] = vars(live_shortly(another, account, choices))
    sys.stdout.buffer.write(pickle.dumps(lives))


if __name__ == "__main__":
    main()
