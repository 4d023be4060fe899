"""What the functions may do, as the stage's stack needs it.

The statements on the network, the database and the cache depend on the kind of the stage. They are
written whole. Of the other statements only the names of resources change.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence

from infra.kind_of_stage import has_cache, is_in_network, uses_data_api
from infra.stage_files import Json

# What Lambda does in a function's name, so that the function is in the network.
NETWORK_ACTIONS = (
    "ec2:CreateNetworkInterface",
    "ec2:DescribeNetworkInterfaces",
    "ec2:DescribeSubnets",
    "ec2:DeleteNetworkInterface",
    "ec2:AssignPrivateIpAddresses",
    "ec2:UnassignPrivateIpAddresses",
)
DATA_API_ACTIONS = (
    "rds-data:BatchExecuteStatement",
    "rds-data:BeginTransaction",
    "rds-data:CommitTransaction",
    "rds-data:ExecuteStatement",
    "rds-data:RollbackTransaction",
)
_WRITTEN_WHOLE = ("JoinTheNetwork", "LambdaAloneJoinsIt", "DatabaseLogin", "DataApi", "CacheLogin")
# The statement on the bucket of the sync. The others with a bucket are on that of uploads.
_OF_RANGES = "HandOutRanges"
_BUCKET = re.compile(r'(?<=:s3:::)[^/"]+')


def for_stack(policy: Json, functions: Sequence[str], outputs: Mapping[str, str]) -> Json:
    """The policy of `functions`, which are names in Lambda, with the ARNs of the stack. Statements
    are found by their Sid. Of a bucket's ARN only the name changes. Raises KeyError for a missing
    output."""
    kept = [
        _with_bucket(each, outputs)
        for each in policy["Statement"]
        if each.get("Sid") not in _WRITTEN_WHOLE
    ]
    for statement in kept:
        if statement.get("Sid") == "FailedEvents":
            statement["Resource"] = outputs["FailureQueueArn"]
    return {**policy, "Statement": [*kept[:1], *_of_kind(functions, outputs), *kept[1:]]}


def _with_bucket(statement: Json, outputs: Mapping[str, str]) -> Json:
    is_of_ranges = statement.get("Sid") == _OF_RANGES
    name = outputs["RangesBucket"] if is_of_ranges else outputs["UploadBucket"]
    renamed: Json = json.loads(_BUCKET.sub(name, json.dumps(statement)))
    return renamed


def _of_kind(functions: Sequence[str], outputs: Mapping[str, str]) -> Iterator[Json]:
    if is_in_network(outputs):
        yield from _network(functions)
    by_secret = outputs["DatabaseLogin"] == "secret"
    login = "secretsmanager:GetSecretValue" if by_secret else "rds-db:connect"
    for_ingest, for_others = outputs["IngestLoginArn"], outputs["DatabaseLoginArn"]
    logins = {for_ingest if is_ingest(name) else for_others for name in functions}
    yield _allow("DatabaseLogin", login, sorted(logins) if len(logins) > 1 else logins.pop())
    if uses_data_api(outputs):
        yield _allow("DataApi", list(DATA_API_ACTIONS), outputs["DatabaseArn"])
    if has_cache(outputs):
        cache = [outputs["CacheArn"], outputs["CacheUserArn"]]
        yield _allow("CacheLogin", "elasticache:Connect", cache)


def is_ingest(function: str) -> bool:
    """Whether a function, by its name in Lambda, logs in to the database as the ingest does."""
    return function.endswith("-ingest")


def _network(functions: Sequence[str]) -> Iterator[Json]:
    """Lambda may join the network. The functions' own code may not do the same."""
    allowed = _allow("JoinTheNetwork", list(NETWORK_ACTIONS), "*")
    arns = [f"arn:aws:lambda:*:*:function:{name}" for name in functions]
    ours = {"lambda:SourceFunctionArn": arns[0] if len(arns) == 1 else arns}
    yield allowed
    yield {
        **allowed,
        **{"Sid": "LambdaAloneJoinsIt", "Effect": "Deny", "Condition": {"ArnLike": ours}},
    }


def _allow(sid: str, action: str | list[str], resource: str | list[str]) -> Json:
    return {"Sid": sid, "Effect": "Allow", "Action": action, "Resource": resource}
