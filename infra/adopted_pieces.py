"""Checks the pieces that a stage is to stand on, as far as AWS shows them from outside.

In a teaching account many questions are forbidden. What could not be checked is said, and the stage
goes on with it.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from botocore.exceptions import ClientError

from infra import closed_doors
from infra.account import Client, account_id, client, region
from infra.adopted_stage import ids_in
from infra.aws_errors import code_of, going_on_where_denied
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
    host, redis = settings["DB_HOST"], urlsplit(settings.get("REDIS_URL", ""))
    cache = redis.hostname or ""
    try:
        ports = int(settings.get("DB_PORT") or 3306), redis.port or 6379
    except ValueError as error:
        raise Refused("DB_PORT, REDIS_URL: expected a port from 1 to 65535") from error
    _refuse_reader(host)
    _refuse_cache(redis.scheme, cache, bool(subnets))
    ec2 = client("ec2")
    networks = _subnets(ec2, subnets) if subnets else []
    if groups:
        _groups(ec2, groups, networks)
    if name := settings.get("UPLOAD_BUCKET"):
        _bucket(client("s3"), name)
    if arn := settings.get("DB_SECRET_ARN"):
        _secret(client("secretsmanager"), arn)
    role = _role(client("iam"), settings["LAMBDA_ROLE"])
    database = closed_doors.database(client("rds"), host) if is_of_rds(host) else {}
    ids = [each["VpcSecurityGroupId"] for each in database.get("VpcSecurityGroups", [])]
    closed_doors.say_closed(ec2, "DB_HOST", ids, groups, ports[0], networks)
    if is_of_elasticache(cache):
        ids = closed_doors.groups_of_cache(client("elasticache"), cache)
        closed_doors.say_closed(ec2, "REDIS_URL", ids, groups, ports[1], networks)
    return role, _following(settings, database, cache)


def is_of_rds(host: str) -> bool:
    """Whether its certificate is signed by RDS's own authority."""
    return host.endswith(_RDS)


def is_of_elasticache(host: str) -> bool:
    """Whether it has no public address."""
    return host.endswith(_ELASTICACHE)


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
    if not is_of_elasticache(host):
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


def _groups(ec2: Client, ids: Sequence[str], subnets: closed_doors.Networks) -> None:
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


def _unless_denied(
    setting: str, call: Callable[..., Json], listed_by: str, **arguments: Any
) -> Json:
    """AWS's answer; empty where we may not ask. Raises Refused where there is no such thing."""
    with going_on_where_denied(setting):
        try:
            return call(**arguments)
        except ClientError as error:
            if re.search("NotFound|NoSuchEntity|Malformed|ValidationError", code_of(error)):
                raise Refused(
                    f"{setting}: {error.response['Error']['Message']}; {listed_by} lists what is in"
                    f" {region()}"
                ) from error
            raise
    return {}


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
