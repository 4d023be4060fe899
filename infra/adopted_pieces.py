"""Checks the pieces that a stage is to stand on, as far as AWS shows them from outside.

In a teaching account many questions are forbidden. What could not be checked is said, and the stage
goes on with it.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from ipaddress import IPv4Network
from typing import Any
from urllib.parse import urlsplit

from botocore.exceptions import ClientError

from infra.account import Client, account_id, client, region
from infra.adopted_stage import ids_in
from infra.aws_errors import code_of
from infra.before_infra import OLD_ZONES
from infra.chalice_config import RESUME_SECONDS
from infra.stage_files import Json
from infra.terminal import Refused, say

LAMBDA = "lambda.amazonaws.com"
_RDS = ".rds.amazonaws.com"
_ELASTICACHE = ".cache.amazonaws.com"
# These names of ElastiCache belong to caches with TLS; the first two are clusters.
_CLUSTERS = (".serverless.", "clustercfg.")
_TLS = (*_CLUSTERS, "master.")


def check(settings: Mapping[str, str]) -> tuple[str, dict[str, str]]:
    """The ARN of the functions' role, and settings that follow from the pieces. Raises Refused
    where a piece is not there, or cannot be used."""
    subnets, groups = (ids_in(settings, name) for name in ("SUBNET_IDS", "SECURITY_GROUP_IDS"))
    host, cache = settings["DB_HOST"], urlsplit(settings.get("REDIS_URL", ""))
    _refuse_reader(host)
    _refuse_cache(cache.scheme, cache.hostname or "", bool(subnets))
    ec2 = client("ec2")
    networks = _subnets(ec2, subnets) if subnets else []
    if groups:
        _groups(ec2, groups, networks)
    if name := settings.get("UPLOAD_BUCKET"):
        _bucket(client("s3"), name)
    if arn := settings.get("DB_SECRET_ARN"):
        _secret(client("secretsmanager"), arn)
    role = _role(client("iam"), settings["LAMBDA_ROLE"])
    database = _database(client("rds"), host) if host.endswith(_RDS) else {}
    port = int(settings.get("DB_PORT") or 3306)
    if database and groups:
        found = [each["VpcSecurityGroupId"] for each in database["VpcSecurityGroups"]]
        _say_closed_door(ec2, "DB_HOST", found, groups, networks, port)
    return role, _following(settings, database, cache.hostname or "")


def is_of_rds(host: str) -> bool:
    """Whether its certificate is signed by RDS's own authority."""
    return host.endswith(_RDS)


def _following(settings: Mapping[str, str], database: Json, cache: str) -> dict[str, str]:
    found = {}
    if any(part in cache for part in _CLUSTERS) and not settings.get("REDIS_CLUSTER"):
        found["REDIS_CLUSTER"] = "1"
    scaling = database.get("ServerlessV2ScalingConfiguration", {})
    if scaling.get("MinCapacity") == 0 and not settings.get("DB_RESUME_SECONDS"):
        found["DB_RESUME_SECONDS"] = RESUME_SECONDS
    for name, value in found.items():
        say("setting", f"{name}={value}")
    return found


def _refuse_reader(host: str) -> None:
    if ".cluster-ro-" in host:
        writer = host.replace(".cluster-ro-", ".cluster-")
        raise Refused(f"DB_HOST is the reader endpoint, which takes no writes: take {writer}")


def _refuse_cache(scheme: str, host: str, is_in_network: bool) -> None:
    if not host.endswith(_ELASTICACHE):
        return
    if not is_in_network:
        raise Refused(
            "REDIS_URL names an ElastiCache, which has no public address: SUBNET_IDS and"
            " SECURITY_GROUP_IDS must name its network"
        )
    if scheme == "redis" and any(part in host for part in _TLS):
        raise Refused("REDIS_URL: this cache takes TLS only: write rediss:// instead of redis://")


def _subnets(ec2: Client, ids: Sequence[str]) -> list[Json]:
    answer = _unless_denied(
        "SUBNET_IDS", ec2.describe_subnets, "aws ec2 describe-subnets", SubnetIds=list(ids)
    )
    found: list[Json] = answer.get("Subnets", [])
    _refuse_several("SUBNET_IDS", {each["SubnetId"]: each["VpcId"] for each in found})
    for each in found:
        if each.get("AvailabilityZoneId") in OLD_ZONES:
            zone = each["AvailabilityZoneId"]
            raise Refused(f"SUBNET_IDS: {each['SubnetId']} is in {zone}, where Lambda is not")
    return found


def _groups(ec2: Client, ids: Sequence[str], subnets: Sequence[Json]) -> None:
    answer = _unless_denied(
        "SECURITY_GROUP_IDS",
        ec2.describe_security_groups,
        "aws ec2 describe-security-groups",
        GroupIds=list(ids),
    )
    both = [*answer.get("SecurityGroups", []), *subnets]
    _refuse_several(
        "SUBNET_IDS, SECURITY_GROUP_IDS",
        {each.get("GroupId") or each["SubnetId"]: each["VpcId"] for each in both},
    )


def _refuse_several(names: str, networks: Mapping[str, str]) -> None:
    if len(set(networks.values())) > 1:
        told = ", ".join(f"{id} is in {network}" for id, network in networks.items())
        raise Refused(f"{names} are in several networks: {told}; all must be in one VPC")


def _bucket(s3: Client, name: str) -> None:
    """S3 calls only functions of its own region."""
    try:
        answer = s3.head_bucket(Bucket=name)
    except ClientError as error:
        if code_of(error) == "404":
            raise Refused(f"UPLOAD_BUCKET: there is no bucket {name}: aws s3 mb s3://{name}") from (
                error
            )
        raise Refused(
            f"UPLOAD_BUCKET: {name} is somebody else's, or you may not use it: {error}"
        ) from error
    place = answer["ResponseMetadata"]["HTTPHeaders"].get("x-amz-bucket-region", region())
    if place != region():
        raise Refused(f"UPLOAD_BUCKET: {name} is in {place}, and the functions are in {region()}")


def _secret(secrets: Client, arn: str) -> None:
    if arn.split(":")[3] != region():
        raise Refused(f"DB_SECRET_ARN: it is in {arn.split(':')[3]}, the stage in {region()}")
    _unless_denied(
        "DB_SECRET_ARN",
        secrets.describe_secret,
        "aws secretsmanager list-secrets",
        SecretId=arn,
    )


def _role(iam: Client, named: str) -> str:
    """The role's ARN."""
    name = named.rpartition("/")[2]
    answer = _unless_denied("LAMBDA_ROLE", iam.get_role, "aws iam list-roles", RoleName=name)
    if not answer:
        return named if named.startswith("arn:") else f"arn:aws:iam::{account_id()}:role/{name}"
    role = answer["Role"]
    if named.startswith("arn:") and named != role["Arn"]:
        raise Refused(f"LAMBDA_ROLE: expected {role['Arn']}, got {named}")
    if not any(map(_lets_lambda_in, _listed(role["AssumeRolePolicyDocument"]["Statement"]))):
        raise Refused(
            f"LAMBDA_ROLE: Lambda may not take the role {name}: its trust policy must allow"
            f" sts:AssumeRole to {LAMBDA}"
        )
    return str(role["Arn"])


def _lets_lambda_in(statement: Json) -> bool:
    principal = statement.get("Principal", {})
    services = _listed(principal.get("Service", [])) if isinstance(principal, dict) else ["*"]
    actions = _listed(statement.get("Action", []))
    is_for_lambda = bool({LAMBDA, "*"} & set(services))
    may_assume = any(action in ("sts:AssumeRole", "sts:*", "*") for action in actions)
    return statement.get("Effect") == "Allow" and is_for_lambda and may_assume


def _database(rds: Client, host: str) -> Json:
    """The cluster with this endpoint; empty where it is not found, or may not be looked for."""
    try:
        pages = rds.get_paginator("describe_db_clusters").paginate()
        for page in pages:
            for each in page["DBClusters"]:
                if host in (each.get("Endpoint"), *each.get("CustomEndpoints", [])):
                    return dict(each)
    except ClientError as error:
        _say_unchecked("DB_HOST", error)
        return {}
    say("unchecked", f"DB_HOST: no Aurora cluster of {region()} in this account has this endpoint")
    return {}


def _say_closed_door(
    ec2: Client,
    setting: str,
    ids: Sequence[str],
    ours: Sequence[str],
    subnets: Sequence[Json],
    port: int,
) -> None:
    """Says so where no security group of a server lets our functions in. It may still be that rules
    change before the deployment, so it does not refuse."""
    try:
        found = ec2.describe_security_groups(GroupIds=list(ids))["SecurityGroups"]
    except ClientError as error:
        _say_unchecked(setting, error)
        return
    rules = [rule for each in found for rule in each["IpPermissions"] if _covers(rule, port)]
    if not any(_lets_in(rule, ours, subnets) for rule in rules):
        say(
            "warning",
            f"{setting}: {', '.join(ids)} lets none of {', '.join(ours)} in on port {port}: aws ec2"
            f" authorize-security-group-ingress --group-id {ids[0]} --protocol tcp --port {port}"
            f" --source-group {ours[0]}",
        )


def _covers(rule: Json, port: int) -> bool:
    if rule["IpProtocol"] == "-1":
        return True
    return rule["IpProtocol"] == "tcp" and port in range(rule["FromPort"], rule["ToPort"] + 1)


def _lets_in(rule: Json, groups: Sequence[str], subnets: Sequence[Json]) -> bool:
    """Whether the rule names one of the groups, or addresses that hold all of the subnets."""
    if {pair.get("GroupId") for pair in rule.get("UserIdGroupPairs", [])} & set(groups):
        return True
    allowed = [IPv4Network(each["CidrIp"]) for each in rule.get("IpRanges", [])]
    ours = [IPv4Network(each["CidrBlock"]) for each in subnets]
    return bool(ours) and all(any(net.subnet_of(each) for each in allowed) for net in ours)


def _unless_denied(
    setting: str, call: Callable[..., Json], listed_by: str, **arguments: Any
) -> Json:
    """AWS's answer; empty where we may not ask. Raises Refused where there is no such thing."""
    try:
        return call(**arguments)
    except ClientError as error:
        code = code_of(error)
        if _is_denied(code):
            _say_unchecked(setting, error)
            return {}
        if re.search("NotFound|NoSuchEntity|Malformed|ValidationError", code):
            raise Refused(
                f"{setting}: {error.response['Error']['Message']}; {listed_by} lists what is in"
                f" {region()}"
            ) from error
        raise


def _is_denied(code: str) -> bool:
    return code.startswith("AccessDenied") or code in ("UnauthorizedOperation", "403")


def _say_unchecked(setting: str, error: ClientError) -> None:
    if not _is_denied(code_of(error)):
        raise error
    say("unchecked", f"{setting}: you may not ask AWS about it ({code_of(error)}); going on")


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
