"""Writes the stack's outputs into the stage's part of .chalice/config.json and into its policies.

What else stands there stays: memory, timeouts, TTL, the actions of a policy.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

from infra.database_certificates import FILE as CERTIFICATES
from infra.stage_files import CHALICE, ROOT, Json, Stage, write_json
from infra.terminal import Refused, say

# How long a request waits for a database that may sleep. It wakes up in about 15 s.
RESUME_SECONDS = "20"
# The repository has these in place of an account's own values.
_PLACEHOLDER = re.compile(r"\b0{12}\b|\b(?:subnet|sg)-(\d)\1{16}\b")
_BUCKET = re.compile(r'(?<=:s3:::)[^/"]+')


def write(stage: Stage, outputs: Mapping[str, str]) -> None:
    """Writes the files. Raises Refused, and writes nothing, where an output is missing."""
    try:
        variables = environment(outputs)
        subnet_ids = outputs["SubnetIds"].split(",")
        security_group_ids = [outputs["SecurityGroupId"]]
        policies = [(path, with_resources(policy, outputs)) for path, policy in stage.policies()]
    except KeyError as error:
        raise Refused(
            f"the stack has no output {error}: it is from another version; run make infra"
        ) from error
    for name, value in variables.items():
        if value is None:
            stage.environment.pop(name, None)
        else:
            stage.environment[name] = value
    stage.config["subnet_ids"] = subnet_ids
    stage.config["security_group_ids"] = security_group_ids
    _tell(".chalice/config.json", stage.write_config())
    for path, policy in policies:
        _tell(f".chalice/{path.name}", write_json(path, policy))


def environment(outputs: Mapping[str, str]) -> dict[str, str | None]:
    """The functions' settings that come from the stack; None for a setting that must not exist.
    They are names and ARNs, never a secret."""
    is_serverless = outputs["CacheKind"] == "serverless"
    by_secret = outputs["DatabaseLogin"] == "secret"
    name = outputs["CacheName"]
    return {
        "DB_HOST": outputs["DatabaseHost"],
        "DB_READER_HOST": outputs.get("DatabaseReaderHost"),
        "DB_NAME": "herocache",
        "DB_USER": None if by_secret else "herocache",
        "DB_AUTH": None if by_secret else "iam",
        "DB_SSL_CA": CERTIFICATES.as_posix(),
        "DB_RESUME_SECONDS": RESUME_SECONDS if float(outputs["DatabaseMinCapacity"]) == 0 else None,
        "DB_SECRET_ARN": outputs["DatabaseSecretArn"] if by_secret else None,
        "REDIS_URL": f"rediss://{name}@{outputs['CacheHost']}:6379",
        "REDIS_AUTH": "iam",
        "REDIS_CACHE_NAME": name,
        "REDIS_CLUSTER": "1" if is_serverless else "0",
        "REDIS_SERVERLESS": "1" if is_serverless else "0",
        "UPLOAD_BUCKET": outputs["UploadBucket"],
    }


def with_resources(policy: Json, outputs: Mapping[str, str]) -> Json:
    """The policy with the ARNs of the stack. Statements are found by their Sid. Of a bucket's ARN
    only the name changes. Actions stay, except those for the database login."""
    by_secret = outputs["DatabaseLogin"] == "secret"
    changes: dict[str, dict[str, Any]] = {
        "DatabaseLogin": {
            "Action": "secretsmanager:GetSecretValue" if by_secret else "rds-db:connect",
            "Resource": outputs["DatabaseLoginArn"],
        },
        "CacheLogin": {"Resource": [outputs["CacheArn"], outputs["CacheUserArn"]]},
        "FailedEvents": {"Resource": outputs["FailureQueueArn"]},
    }
    text = _BUCKET.sub(outputs["UploadBucket"], json.dumps(policy))
    renamed: Json = json.loads(text)
    renamed["Statement"] = [
        {**statement, **changes.get(statement["Sid"], {})} for statement in renamed["Statement"]
    ]
    return renamed


def refuse_unconfigured(stage: Stage) -> None:
    """Raises Refused where something is missing that `make configure` writes."""
    texts = {CHALICE / "config.json": json.dumps(stage.config)}
    texts |= {path: json.dumps(policy) for path, policy in stage.policies()}
    for path, text in texts.items():
        if found := _PLACEHOLDER.search(text):
            raise Refused(
                f"STAGE={stage.name}: .chalice/{path.name} still has the placeholder"
                f" {found.group()}: run make configure STAGE={stage.name}"
            )
    if "UPLOAD_BUCKET" not in stage.environment:
        raise Refused(f"UPLOAD_BUCKET is not set: run make configure STAGE={stage.name}")
    if not (ROOT / CERTIFICATES).exists():
        raise Refused(
            f"{CERTIFICATES} is not there, which git does not keep: run make configure"
            f" STAGE={stage.name}"
        )


def _tell(name: str, changed: bool) -> None:
    say("configure", f"{name}: {'written' if changed else 'is as the stack says'}")
