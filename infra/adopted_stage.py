"""Writes a stage on pieces that exist already into the files that Chalice reads."""

import re
from collections.abc import Mapping
from pathlib import Path

from infra.adopted_settings import FURTHER, PIECES, SECRETS
from infra.stage_files import CONFIG, ROOT, Json, is_adopted, read_json, write_json
from infra.terminal import Refused, say

# Its sizes, and whatever else Chalice needs, are those of this stage.
MODEL = "dev"
# Limits and log retention of a stage with another name are those of this one, until it has its own.
CLASS = "class"
# Of `chalice local`.
_LOCAL = "local"
_OF_MODEL = (
    *("api_gateway_endpoint_type", "minimum_compression_size", "autogen_policy"),
    *("lambda_architecture", "xray"),
)
# Functions that only a bucket calls, and its setting.
_OF_BUCKETS = {"ingest": "UPLOAD_BUCKET", "sync_range": "RANGES_BUCKET"}
# Answers that are no settings of the functions.
_NOT_SETTINGS = ("SUBNET_IDS", "SECURITY_GROUP_IDS", "LAMBDA_ROLE")
# Set also where they are empty: the app takes names of its own where they are missing.
_ALWAYS = ("UPLOAD_BUCKET", "RANGES_BUCKET")


def refuse_name(name: str) -> None:
    """Raises Refused where no stage on existing pieces can have this name."""
    if not re.fullmatch("[a-z][a-z0-9-]{0,19}", name) or name == _LOCAL:
        raise Refused(
            f"STAGE={name}: expected a name of up to 20 lower-case letters, digits and hyphens,"
            f" such as class; {_LOCAL} means make run"
        )
    path = _choices(name)
    if path.exists() and not is_adopted(read_json(path)):
        raise Refused(
            f"STAGE={name} has a stack of its own (make infra): take another name, such as"
            " make adopt STAGE=class"
        )


def write(name: str, settings: Mapping[str, str], role_arn: str) -> None:
    """Writes the stage's part of .chalice/config.json, and infra/<name>.json where there is none.
    Sizes, timeouts and whatever else stands there already stay. Nothing that is written is a
    secret."""
    config = read_json(CONFIG)
    model = config["stages"][MODEL]
    fresh = {key: model[key] for key in _OF_MODEL} | {"api_gateway_stage": name}
    part: Json = {**fresh, **config["stages"].get(name, {})}
    part |= {"manage_iam_role": False, "iam_role_arn": role_arn}
    for key in ("subnet_ids", "security_group_ids"):
        if ids := ids_in(settings, key.upper()):
            part[key] = ids
        else:
            part.pop(key, None)
    part["environment_variables"] = _environment(settings)
    part["lambda_functions"] = _functions(model, part.get("lambda_functions", {}), settings)
    config["stages"][name] = part
    _tell(".chalice/config.json", write_json(CONFIG, config))
    if not _choices(name).exists():
        _tell(f"infra/{name}.json", write_json(_choices(name), read_json(_choices(CLASS))))


def ids_in(settings: Mapping[str, str], name: str) -> list[str]:
    """The ids in a list with commas."""
    return [each.strip() for each in settings.get(name, "").split(",") if each.strip()]


def _choices(name: str) -> Path:
    return ROOT / "infra" / f"{name}.json"


def _environment(settings: Mapping[str, str]) -> dict[str, str]:
    left_out = {*SECRETS, *_NOT_SETTINGS}
    known = [name for name in (*(piece.name for piece in PIECES), *FURTHER) if name not in left_out]
    given = {name: settings[name] for name in known if settings.get(name)}
    return {**given, **{name: settings.get(name, "") for name in _ALWAYS}}


def _functions(model: Json, there: Json, settings: Mapping[str, str]) -> Json:
    """The functions with memory and timeout. Those that only a bucket calls need the bucket."""
    found: Json = {}
    for function, options in model["lambda_functions"].items():
        if function in _OF_BUCKETS and not settings.get(_OF_BUCKETS[function]):
            continue
        sizes = {key: options[key] for key in ("lambda_memory_size", "lambda_timeout")}
        found[function] = {**sizes, **there.get(function, {})}
    return found


def _tell(name: str, changed: bool) -> None:
    say("adopt", f"{name}: {'written' if changed else 'as before'}")
