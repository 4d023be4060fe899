"""Writes the stack's outputs into the stage's part of .chalice/config.json and into its policies.

What else stands there stays: memory, timeouts, TTL, further statements of a policy.
"""

import json
import re
from collections.abc import Mapping

from infra import policies
from infra.database_certificates import FILE as CERTIFICATES
from infra.kind_of_stage import has_cache, is_in_network, uses_data_api
from infra.stage_files import CHALICE, ROOT, Stage, write_json
from infra.terminal import Refused, say

# How long a request waits for a database that may sleep. It wakes up in about 15 s.
RESUME_SECONDS = "20"
# The repository has these in place of an account's own values.
_PLACEHOLDER = re.compile(r"\b0{12}\b|\b(?:subnet|sg)-(\d)\1{16}\b")
# The settings that name buckets, and the outputs they come from.
BUCKETS = {"UPLOAD_BUCKET": "UploadBucket", "RANGES_BUCKET": "RangesBucket"}
# The settings that come from the stack, in one kind of stage or another.
_WRITTEN = (
    *("DB_ENGINE", "DB_CLUSTER_ARN", "DB_SECRET_ARN", "DB_NAME", "DB_RESUME_SECONDS"),
    *("DB_HOST", "DB_READER_HOST", "DB_USER", "DB_AUTH", "DB_SSL_CA"),
    *("REDIS_URL", "REDIS_AUTH", "REDIS_CACHE_NAME", "REDIS_CLUSTER", "REDIS_SERVERLESS"),
    *BUCKETS,
    "BUCKET_OWNER",
)


def write(stage: Stage, outputs: Mapping[str, str]) -> None:
    """Writes the files. Raises Refused, and writes nothing, where an output is missing."""
    try:
        variables = environment(outputs)
        of_ingest = environment_of_ingest(outputs)
        network = {
            "subnet_ids": outputs["SubnetIds"].split(","),
            "security_group_ids": [outputs["SecurityGroupId"]],
        }
        written = [
            (path, policies.for_stack(policy, functions, outputs))
            for path, policy, functions in stage.policies()
        ]
    except KeyError as error:
        raise Refused(
            f"the stack has no output {error}: it is from another version; run make infra"
        ) from error
    _set(stage.environment, variables)
    _set(stage.environment_of("ingest"), of_ingest)
    if is_in_network(outputs):
        stage.config.update(network)
    else:
        for name in network:
            stage.config.pop(name, None)
    _tell(".chalice/config.json", stage.write_config())
    for path, policy in written:
        _tell(f".chalice/{path.name}", write_json(path, policy))


def _set(variables: dict[str, str], changes: Mapping[str, str | None]) -> None:
    for name, value in changes.items():
        if value is None:
            variables.pop(name, None)
        else:
            variables[name] = value


def environment_of_ingest(outputs: Mapping[str, str]) -> dict[str, str | None]:
    """Settings of the function `ingest` alone: it is another user of the database."""
    by_token = outputs["DatabaseLogin"] == "iam"
    return {
        "DB_USER": "herocache_ingest" if by_token else None,
        "DB_SECRET_ARN": None if by_token else outputs["IngestLoginArn"],
    }


def environment(outputs: Mapping[str, str]) -> dict[str, str | None]:
    """The functions' settings that come from the stack; None for a setting that must not exist.
    They are names and ARNs, never a secret."""
    found: dict[str, str | None] = dict.fromkeys(_WRITTEN)
    found |= _of_data_api(outputs) if uses_data_api(outputs) else _of_connections(outputs)
    found |= _of_cache(outputs) if has_cache(outputs) else {}
    if outputs["DatabaseLogin"] == "secret":
        found["DB_SECRET_ARN"] = outputs["DatabaseLoginArn"]
    if float(outputs["DatabaseMinCapacity"]) == 0:
        found["DB_RESUME_SECONDS"] = RESUME_SECONDS
    buckets = {setting: outputs[output] for setting, output in BUCKETS.items()}
    owner = outputs["DatabaseArn"].split(":")[4]
    return found | {"DB_NAME": "herocache", **buckets, "BUCKET_OWNER": owner}


def _of_data_api(outputs: Mapping[str, str]) -> dict[str, str | None]:
    return {"DB_ENGINE": "dataapi", "DB_CLUSTER_ARN": outputs["DatabaseArn"]}


def _of_connections(outputs: Mapping[str, str]) -> dict[str, str | None]:
    by_token = outputs["DatabaseLogin"] == "iam"
    return {
        "DB_HOST": outputs["DatabaseHost"],
        "DB_READER_HOST": outputs.get("DatabaseReaderHost"),
        "DB_SSL_CA": CERTIFICATES.as_posix(),
        "DB_USER": "herocache" if by_token else None,
        "DB_AUTH": "iam" if by_token else None,
    }


def _of_cache(outputs: Mapping[str, str]) -> dict[str, str | None]:
    is_serverless = "1" if outputs["CacheKind"] == "serverless" else "0"
    name = outputs["CacheName"]
    return {
        "REDIS_URL": f"rediss://{name}@{outputs['CacheHost']}:6379",
        "REDIS_AUTH": "iam",
        "REDIS_CACHE_NAME": name,
        "REDIS_CLUSTER": is_serverless,
        "REDIS_SERVERLESS": is_serverless,
    }


def refuse_unconfigured(stage: Stage) -> None:
    """Raises Refused where something is missing that `make configure` writes."""
    texts = {CHALICE / "config.json": json.dumps(stage.config)}
    texts |= {path: json.dumps(policy) for path, policy, _ in stage.policies()}
    for path, text in texts.items():
        if found := _PLACEHOLDER.search(text):
            raise Refused(
                f"STAGE={stage.name}: .chalice/{path.name} still has the placeholder"
                f" {found.group()}: run {stage.made_by}"
            )
    for setting in BUCKETS:
        if setting not in stage.environment:
            raise Refused(f"{setting} is not set: run {stage.made_by}")
    if "DB_SSL_CA" in stage.environment and not (ROOT / CERTIFICATES).exists():
        raise Refused(f"{CERTIFICATES} is not there, which git does not keep: run {stage.made_by}")


def _tell(name: str, changed: bool) -> None:
    say("configure", f"{name}: {'written' if changed else 'is as the stack says'}")
