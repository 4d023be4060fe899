"""The commands, step by step. Each can be run again, wherever the last run ended."""

import os
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from botocore.exceptions import ClientError

from infra import (
    adopted_database,
    adopted_pieces,
    adopted_settings,
    adopted_stage,
    api_stage,
    before_deploy,
    before_infra,
    chalice_cli,
    chalice_config,
    database_certificates,
    database_schema,
    failed_events,
    function_logs,
    function_network,
    gateway_responses,
    leftovers,
    log_retention,
    service_linked_roles,
    unrecorded_api,
    usage_plan,
    wheels,
)
from infra.account import client, region
from infra.aws_errors import code_of, going_on_where_denied
from infra.cloudformation_stack import Stack
from infra.kind_of_stage import is_in_network, uses_data_api
from infra.report import show as show_report
from infra.sql import refuse_empty
from infra.sql import run as run_sql
from infra.stage_files import ROOT, Stage, event_functions
from infra.terminal import Refused, confirm, say

TEMPLATE = ROOT / "infra" / "template.yaml"
# The template's parameter.
PROTECTION = "DatabaseProtection"


def infra(stage: Stage) -> None:
    """`make infra`: creates the stack, then the tables and the functions' login."""
    stack, template = _stack(stage), TEMPLATE.read_text(encoding="utf-8")
    parameters = {"Stage": stage.name, **stage.choices["parameters"]}
    _refuse_leaving_the_network(stage, parameters)
    is_new = stack.was_never_complete()
    if is_new:
        before_infra.refuse_unprepared(stage, parameters)
        service_linked_roles.create(client("iam"), _services(parameters))
    if is_new and parameters.get(PROTECTION) == "true":
        # A protected database would keep a failed creation from being removed.
        stack.apply(template, {**parameters, PROTECTION: "false"})
    stack.apply(template, parameters)
    outputs = stack.outputs()
    passwords = None
    if outputs["DatabaseLogin"] == "secret":
        arns = (outputs["DatabaseLoginArn"], outputs["IngestLoginArn"])
        passwords = database_schema.passwords(client("secretsmanager"), arns)
    arn = outputs["DatabaseArn"]
    with _data_api(outputs):
        database_schema.prepare(client("rds-data"), arn, outputs["DatabaseSecretArn"], passwords)
    say("next", f"make configure STAGE={stage.name}")


def configure(stage: Stage) -> None:
    """`make configure`: writes what the stack made into the files that Chalice reads."""
    outputs = _stack(stage).outputs()
    if not uses_data_api(outputs):
        database_certificates.fetch(region())
    chalice_config.write(stage, outputs)
    say("next", f"make deploy STAGE={stage.name}")


def adopt(name: str) -> None:
    """`make adopt`: makes a stage on a database, a cache, a network and a role that are there."""
    adopted_stage.refuse_name(name)
    settings = adopted_settings.collect(name)
    role_arn, following = adopted_pieces.check(settings)
    settings |= following
    if adopted_pieces.is_of_rds(settings["DB_HOST"]) and "DB_SSL_CA" not in settings:
        database_certificates.fetch(region())
        settings["DB_SSL_CA"] = database_certificates.FILE.as_posix()
    adopted_database.prepare(settings)
    adopted_stage.write(name, settings, role_arn)
    if settings["API_AUTH"] == "none":
        say("open", "whoever knows the URL may read, change and delete rows: API_AUTH=none")
    for secret in adopted_settings.secrets_of(name):
        say("secret", f"{secret}: will be in the environment of each function, as it is")
    say("next", f"make deploy STAGE={name}")


def deploy(stage: Stage) -> None:
    """`make deploy`: deploys the functions and the API, then sets what Chalice cannot set."""
    before_deploy.refuse_unprepared(stage)
    with wheels.downloaded(stage.config["lambda_architecture"]) as packages:
        _deploy(stage, packages)


def _deploy(stage: Stage, packages: Path) -> None:
    """A stage without a stack has no queue for failed events, and no role to log its calls with."""
    outputs = {} if stage.is_adopted else _stack(stage).outputs()
    # Where a teaching account forbids it, Lambda makes the log groups itself.
    with going_on_where_denied("logs") if stage.is_adopted else nullcontext():
        log_retention.keep_logs(
            client("logs"), stage.function_names, stage.choices["log_retention_days"]
        )
    unrecorded_api.record(client("apigateway"), stage)
    chalice_cli.deploy(stage, packages)
    deployed = stage.deployed()
    if not stage.is_adopted:
        failed_events.send_failures(
            client("lambda"), event_functions(deployed), outputs["FailureQueueArn"]
        )
    [api] = [each for each in deployed if each["resource_type"] == "rest_api"]
    if stage.api_auth == "key":
        usage_plan.apply(
            client("apigateway"),
            stage.full_name,
            api["rest_api_id"],
            stage.api_stage,
            stage.choices["usage_plan"],
        )
    else:
        usage_plan.remove(client("apigateway"), stage.full_name)
    gateway_responses.apply(
        client("apigateway"),
        api["rest_api_id"],
        stage.api_stage,
        {**stage.environment, "API_AUTH": str(stage.api_auth)},
    )
    served = (str(api["rest_api_id"]), stage.api_stage)
    api_stage.limit(client("apigateway"), *served, stage.choices["throttle"])
    if not stage.is_adopted:
        api_stage.log_calls(
            client("apigateway"),
            client("logs"),
            stage.full_name,
            *served,
            outputs["ApiLogRoleArn"],
            stage.choices["log_retention_days"],
        )
    say("serves", api["rest_api_url"])
    if stage.is_adopted:
        say("next", f"curl {api['rest_api_url']}health/deep")


def destroy(stage: Stage) -> None:
    """`make destroy`: asks, then removes everything that the other three made, the last first."""
    if stage.is_adopted:
        _destroy_adopted(stage)
        return
    stack = _stack(stage)
    made = stack.resources()
    _refuse_protected(stage, made)
    confirm(
        f"This deletes {stage.full_name} in {region()}: API, functions, logs, cache, uploaded"
        " files, database (a last snapshot stays).",
        stage.name,
    )
    usage_plan.remove(client("apigateway"), stage.full_name)
    if group_id := made.get("FunctionGroup"):
        function_network.leave(client("lambda"), client("ec2"), stage.function_names, group_id)
    _remove_deployment(stage)
    api_stage.remove_log(client("logs"), stage.full_name)
    for name in ("Uploads", "Ranges"):
        if bucket := made.get(name):
            leftovers.empty_bucket(client("s3"), bucket)
    if "Database" in made and _is_protected(stage):
        client("rds").modify_db_cluster(
            DBClusterIdentifier=stage.full_name, DeletionProtection=False
        )
        say("database", f"{stage.full_name}: no longer protected")
    stack.delete()
    say("left", f"snapshots of the database: aws rds describe-db-cluster-snapshots ({region()})")


def _destroy_adopted(stage: Stage) -> None:
    """Removes what `make deploy` made. Lambda gives its network interfaces back by itself, because
    the functions' role stays."""
    confirm(
        f"This deletes {stage.full_name} in {region()}: API, functions, logs. Database, cache,"
        " bucket, network and role stay, with all that is in them.",
        stage.name,
    )
    usage_plan.remove(client("apigateway"), stage.full_name)
    _remove_deployment(stage)
    say("left", "the service's own tables in the database: seed/schema.sql names them")


def _remove_deployment(stage: Stage) -> None:
    """Removes API, functions, schedules and their logs."""
    leftovers.forget_missing_buckets(client("s3"), stage)
    chalice_cli.delete(stage)
    leftovers.remove_apis(client("apigateway"), stage)
    leftovers.remove_schedules(client("events"), stage)
    leftovers.remove_functions(client("lambda"), client("iam"), stage)
    log_retention.remove_logs(client("logs"), stage.function_names)


def sql(stage: Stage) -> None:
    """`make sql`: runs the statement in the environment's SQL on the stage's database."""
    outputs = _stack(stage).outputs()
    arns = (outputs["DatabaseArn"], outputs["DatabaseSecretArn"])
    statement = os.environ.get("SQL", "")
    refuse_empty(statement)
    with _data_api(outputs):
        run_sql(client("rds-data"), *arns, statement)


def logs(stage: Stage) -> None:
    """`make logs`: prints what the functions log, until Ctrl-C."""
    function_logs.follow(client("logs"), stage.function_names)


def report(name: str) -> None:
    """`make report`: prints what to send when a step fails, also for a stage that is not declared
    yet."""
    show_report(name)


def _data_api(outputs: Mapping[str, str]) -> AbstractContextManager[None]:
    """Has the Data API on, which a stage with connections turns off again."""
    if uses_data_api(outputs):
        return nullcontext()
    return database_schema.data_api(client("rds"), outputs["DatabaseArn"])


def _stack(stage: Stage) -> Stack:
    """Raises Refused for a stage without one."""
    if stage.is_adopted:
        raise Refused(
            f"STAGE={stage.name} has no stack: it stands on a database, a cache and a role that"
            f" were there. make adopt, deploy, logs, report and destroy STAGE={stage.name} work;"
            " for SQL take a MySQL client in its network"
        )
    again, away = f"make infra STAGE={stage.name}", f"make destroy STAGE={stage.name}"
    return Stack(client("cloudformation"), stage.full_name, again, away)


def _services(parameters: Mapping[str, str]) -> list[str]:
    """The services that need a service-linked role."""
    cache = [service_linked_roles.ELASTICACHE] if parameters.get("CacheKind") != "none" else []
    return [service_linked_roles.RDS, *cache]


def _refuse_leaving_the_network(stage: Stage, parameters: dict[str, str]) -> None:
    """Lambda releases a function's network interfaces with the rights of its role, which the next
    deployment would take away. Interfaces that stay keep the network from being deleted."""
    stays = is_in_network({"CacheKind": "serverless", **parameters})
    if not stays and "subnet_ids" in stage.config and stage.deployed():
        raise Refused(
            f"the functions of {stage.full_name} are in the network, and with these parameters in"
            f" infra/{stage.name}.json they would leave it: run make destroy STAGE={stage.name}"
            " with the old ones first"
        )


def _refuse_protected(stage: Stage, made: Mapping[str, str]) -> None:
    """Raises Refused where the database may not be deleted. The parameter in the file counts, not
    that of the stack: a stack that is half deleted cannot be changed any more."""
    may_go = stage.choices["parameters"].get(PROTECTION) == "false"
    if "Database" in made and not may_go and _is_protected(stage):
        raise Refused(
            f'the database is protected: set {PROTECTION} to "false" in infra/{stage.name}.json,'
            f" then run make destroy STAGE={stage.name} again"
        )


def _is_protected(stage: Stage) -> bool:
    try:
        found = client("rds").describe_db_clusters(DBClusterIdentifier=stage.full_name)
    except ClientError as error:
        if code_of(error) == "DBClusterNotFoundFault":
            return False
        raise
    return bool(found["DBClusters"][0]["DeletionProtection"])
