"""Whether the security groups of a database and a cache let the functions in."""

from collections.abc import Iterator, Sequence
from ipaddress import IPv4Network
from typing import Any

from infra.account import Client, region
from infra.aws_errors import going_on_where_denied
from infra.stage_files import Json
from infra.terminal import say

# Subnets, as AWS describes them.
Networks = Sequence[Json]


def database(rds: Client, host: str) -> Json:
    """The cluster or instance with this endpoint; empty where it is not found, or may not be looked
    for."""
    with going_on_where_denied("DB_HOST"):
        for each in _pages(rds, "describe_db_clusters", "DBClusters"):
            if host in (each.get("Endpoint"), *each.get("CustomEndpoints", [])):
                return each
        for each in _pages(rds, "describe_db_instances", "DBInstances"):
            if host == each.get("Endpoint", {}).get("Address"):
                return each
        say("unchecked", f"DB_HOST: no database in {region()} of this account has this endpoint")
    return {}


def groups_of_cache(elasticache: Client, host: str) -> list[str]:
    """The security groups of the cache with this endpoint; empty where it is not found, or may not
    be looked for."""
    with going_on_where_denied("REDIS_URL"):
        for each in _pages(elasticache, "describe_serverless_caches", "ServerlessCaches"):
            if host == each.get("Endpoint", {}).get("Address"):
                return list(each.get("SecurityGroupIds", []))
        members = set[str]()
        for each in _pages(elasticache, "describe_replication_groups", "ReplicationGroups"):
            ends = [each.get("ConfigurationEndpoint", {})]
            ends += [node.get("PrimaryEndpoint", {}) for node in each.get("NodeGroups", [])]
            if host in [end.get("Address") for end in ends]:
                members |= set(each["MemberClusters"])
        shown = {"ShowCacheNodeInfo": True}
        for each in _pages(elasticache, "describe_cache_clusters", "CacheClusters", **shown):
            ends = [node.get("Endpoint", {}) for node in each.get("CacheNodes", [])]
            is_there = host in [end.get("Address") for end in ends]
            if is_there or each["CacheClusterId"] in members:
                return [group["SecurityGroupId"] for group in each.get("SecurityGroups", [])]
        say("unchecked", f"REDIS_URL: no cache in {region()} of this account has this endpoint")
    return []


def _pages(service: Client, operation: str, key: str, **arguments: Any) -> Iterator[Json]:
    for page in service.get_paginator(operation).paginate(**arguments):
        yield from page[key]


def say_closed(
    ec2: Client,
    setting: str,
    ids: Sequence[str],
    ours: Sequence[str],
    port: int,
    networks: Networks,
) -> None:
    """Says so where a server is in another network, or none of its security groups lets our
    functions in. Both may change before the deployment, so it refuses nothing."""
    if not ids or not ours:
        return
    with going_on_where_denied(setting):
        found = ec2.describe_security_groups(GroupIds=list(ids))["SecurityGroups"]
        there, here = ({each["VpcId"] for each in group} for group in (found, networks))
        if here and there != here:
            say(
                "warning",
                f"{setting}: it is in {', '.join(there)}, the functions in {', '.join(here)}",
            )
            return
        rules = [rule for each in found for rule in each["IpPermissions"] if _covers(rule, port)]
        if not any(_lets_in(rule, ours, networks) for rule in rules):
            say(
                "warning",
                f"{setting}: {', '.join(ids)} lets none of {', '.join(ours)} in on port {port}: aws"
                f" ec2 authorize-security-group-ingress --group-id {ids[0]} --protocol tcp --port"
                f" {port} --source-group {ours[0]}",
            )


def _covers(rule: Json, port: int) -> bool:
    if rule["IpProtocol"] == "-1":
        return True
    return rule["IpProtocol"] == "tcp" and port in range(rule["FromPort"], rule["ToPort"] + 1)


def _lets_in(rule: Json, groups: Sequence[str], subnets: Networks) -> bool:
    """Whether the rule names one of the groups, or addresses that hold all of the subnets."""
    if {pair.get("GroupId") for pair in rule.get("UserIdGroupPairs", [])} & set(groups):
        return True
    allowed = [IPv4Network(each["CidrIp"]) for each in rule.get("IpRanges", [])]
    ours = [IPv4Network(each["CidrBlock"]) for each in subnets]
    return bool(ours) and all(any(net.subnet_of(each) for each in allowed) for net in ours)
