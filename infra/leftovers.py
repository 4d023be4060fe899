"""Removes what `chalice delete` does not know, and what keeps a stack from being deleted.

Everything is found by its name, and may have been removed before.
"""

from botocore.exceptions import ClientError

from infra import unrecorded_api
from infra.account import Client
from infra.aws_errors import code_of, done_unless
from infra.stage_files import Stage, schedule_of
from infra.terminal import Refused, say


def remove_apis(gateway: Client, stage: Stage) -> None:
    """Removes APIs of deployments that failed half-way: Chalice has no record of them."""
    for api in list(unrecorded_api.apis(gateway, stage)):
        gateway.delete_rest_api(restApiId=api["id"])
        say("api", f"{api['id']}: removed")


def remove_functions(lambdas: Client, iam: Client, stage: Stage) -> None:
    """Removes functions and roles of deployments that failed half-way."""
    for name in stage.function_names:
        if done_unless("ResourceNotFoundException", lambdas.delete_function, FunctionName=name):
            say("function", f"{name}: removed")
    for role in stage.role_names:
        _remove_role(iam, role)


def remove_schedules(events: Client, stage: Stage) -> None:
    """Removes rules of deployments that failed half-way. Nothing would ever end them."""
    for rule in map(schedule_of, stage.function_names):
        try:
            targets = events.list_targets_by_rule(Rule=rule)["Targets"]
        except events.exceptions.ResourceNotFoundException:
            continue
        if targets:
            events.remove_targets(Rule=rule, Ids=[each["Id"] for each in targets])
        events.delete_rule(Name=rule)
        say("schedule", f"{rule}: removed")


def _remove_role(iam: Client, role: str) -> None:
    try:
        policies = iam.list_role_policies(RoleName=role)["PolicyNames"]
    except iam.exceptions.NoSuchEntityException:
        return
    for policy in policies:
        iam.delete_role_policy(RoleName=role, PolicyName=policy)
    iam.delete_role(RoleName=role)
    say("role", f"{role}: removed")


def forget_missing_buckets(s3: Client, stage: Stage) -> None:
    """Takes buckets that are gone out of what Chalice recorded. Otherwise `chalice delete` would
    end half-way, because it removes its notification from the bucket."""
    events = [each for each in stage.deployed() if each["resource_type"] == "s3_event"]
    for event in events:
        # HeadBucket has no body, so its errors are bare statuses. 403: it is somebody else's by
        # now.
        try:
            s3.head_bucket(Bucket=event["bucket"])
        except ClientError as error:
            if code_of(error) not in ("403", "404"):
                raise
            stage.record([each for each in stage.deployed() if each != event])
            say("bucket", f"{event['bucket']} is not there: nothing to remove from it")


def empty_bucket(s3: Client, bucket: str) -> None:
    """Removes every version of every object."""
    count = 0
    try:
        for page in s3.get_paginator("list_object_versions").paginate(Bucket=bucket):
            found = [*page.get("Versions", []), *page.get("DeleteMarkers", [])]
            named = [{"Key": each["Key"], "VersionId": each["VersionId"]} for each in found]
            if named:
                _delete(s3, bucket, named)
            count += len(named)
    except ClientError as error:
        if code_of(error) != "NoSuchBucket":
            raise
        say("bucket", f"{bucket} is not there")
        return
    say("bucket", f"{bucket}: {count} versions of files removed")


def _delete(s3: Client, bucket: str, named: list[dict[str, str]]) -> None:
    answer = s3.delete_objects(Bucket=bucket, Delete={"Objects": named, "Quiet": True})
    for error in answer.get("Errors", []):
        raise Refused(f"{bucket}/{error['Key']} cannot be removed: {error['Message']}")
