"""The files that describe a stage: its part of .chalice/config.json, its policies,
infra/<stage>.json, and the file in which `chalice deploy` records what it made.
"""

import json
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from infra.terminal import Refused

ROOT = Path(__file__).parent.parent
CHALICE = ROOT / ".chalice"
CONFIG = CHALICE / "config.json"
APP = "herocache"
# Chalice's names for event sources that do not wait for the function's answer.
EVENT_SOURCES = {"s3_event", "scheduled_event", "cloudwatch_event", "sns_event"}

_NEEDED = (
    "api_gateway_stage",
    "environment_variables",
    "lambda_architecture",
    "lambda_functions",
)

Json = dict[str, Any]


class Stage:
    """A stage that .chalice/config.json declares. Raises Refused for another."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.full_name = f"{APP}-{name}"
        stages = self._whole_config["stages"]
        if name not in stages:
            made_by = f"; make adopt STAGE={name} adds it" if _is_to_be_adopted(name) else ""
            raise Refused(
                f"STAGE={name}: there is no such stage; .chalice/config.json declares"
                f" {', '.join(stages)}{made_by}"
            )
        self.config: Json = stages[name]
        refuse_missing(self.config, _NEEDED, f".chalice/config.json, {name}")
        for function, options in self._functions.items():
            needed = ("iam_policy_file",) if self._makes_roles else ()
            refuse_missing(options, needed, f".chalice/config.json, {name}, {function}")

    @cached_property
    def _whole_config(self) -> Json:
        return read_json(CONFIG)

    @cached_property
    def choices(self) -> Json:
        """infra/<stage>.json: the template's parameters, log retention, the usage plan."""
        path = ROOT / "infra" / f"{self.name}.json"
        choices = read_json(path)
        of_stack = () if is_adopted(choices) else ("parameters",)
        refuse_missing(
            choices, (*of_stack, "log_retention_days", "usage_plan", "throttle"), str(path)
        )
        return choices

    @property
    def is_adopted(self) -> bool:
        """Whether it stands on pieces that exist already, and has no stack."""
        return is_adopted(self.choices)

    @property
    def made_by(self) -> str:
        """The commands that prepare it for `make deploy`."""
        names = ("adopt",) if self.is_adopted else ("infra", "configure")
        return " and ".join(f"make {name} STAGE={self.name}" for name in names)

    @property
    def _makes_roles(self) -> bool:
        """Whether Chalice makes a role for each function."""
        return bool(self.config.get("manage_iam_role", True))

    @property
    def environment(self) -> dict[str, str]:
        """The settings of its functions."""
        variables: dict[str, str] = self.config["environment_variables"]
        return variables

    def environment_of(self, function: str) -> dict[str, str]:
        """The settings of this function alone, which replace those of the stage."""
        variables: dict[str, str] = self._functions[function].setdefault(
            "environment_variables", {}
        )
        return variables

    @property
    def api_stage(self) -> str:
        """The name of its stage in API Gateway."""
        return str(self.config["api_gateway_stage"])

    @property
    def api_auth(self) -> str | None:
        """The setting API_AUTH that `chalice deploy` imports the app with; None where there is
        none. What the API's own function sets replaces what the stage sets."""
        own: dict[str, str] = self._functions.get("api_handler", {}).get(
            "environment_variables", {}
        )
        return {**self.environment, **own}.get("API_AUTH")

    @property
    def function_names(self) -> list[str]:
        """The names of its functions in Lambda. The API's own function has the stage's full
        name."""
        return [self._name_in_lambda(name) for name in self._functions]

    @property
    def role_names(self) -> list[str]:
        """The names of the roles that Chalice makes, one for each function."""
        return [f"{self.full_name}-{name}" for name in self._functions if self._makes_roles]

    @property
    def reserved_concurrency(self) -> int:
        """The reserved concurrency of all its functions together."""
        return sum(options.get("reserved_concurrency", 0) for options in self._functions.values())

    @property
    def _functions(self) -> dict[str, Json]:
        functions: dict[str, Json] = self.config["lambda_functions"]
        return functions

    def _name_in_lambda(self, function: str) -> str:
        return self.full_name if function == "api_handler" else f"{self.full_name}-{function}"

    def policies(self) -> Iterator[tuple[Path, Json, list[str]]]:
        """Path and content of each policy, once each, and the names in Lambda of the functions
        that have it."""
        holders: dict[str, list[str]] = {}
        for function, options in self._functions.items():
            if self._makes_roles:
                holders.setdefault(options["iam_policy_file"], []).append(
                    self._name_in_lambda(function)
                )
        for name in sorted(holders):
            yield CHALICE / name, read_json(CHALICE / name), holders[name]

    def write_config(self) -> bool:
        """Writes .chalice/config.json. Returns whether it changed."""
        return write_json(CONFIG, self._whole_config)

    @property
    def deployed_file(self) -> Path:
        """The file in which Chalice records what it made."""
        return CHALICE / "deployed" / f"{self.name}.json"

    def deployed(self) -> list[Json]:
        """What Chalice recorded that it made; empty where nothing is deployed."""
        if not self.deployed_file.exists():
            return []
        resources: list[Json] = read_json(self.deployed_file)["resources"]
        return resources

    def record(self, resources: list[Json]) -> None:
        """Writes what is there into that file."""
        self.deployed_file.parent.mkdir(exist_ok=True)
        content = {"resources": resources, "schema_version": "2.0", "backend": "api"}
        write_json(self.deployed_file, content)


def is_adopted(choices: Json) -> bool:
    """Whether the stage of this infra/<stage>.json stands on pieces that exist already."""
    return choices.get("adopted") is True


def _is_to_be_adopted(name: str) -> bool:
    """Whether `make adopt` has begun on a stage of this name, or the guide uses the name. For any
    other name it may be a slip."""
    path = ROOT / "infra" / f"{name}.json"
    is_begun = path.with_name(f"{name}.env").exists()
    return is_begun or (path.exists() and is_adopted(read_json(path)))


def event_functions(deployed: list[Json]) -> list[str]:
    """The names of the functions that events call, once each."""
    arns = {
        each["name"]: each["lambda_arn"]
        for each in deployed
        if each["resource_type"] == "lambda_function"
    }
    sources = [each for each in deployed if each["resource_type"] in EVENT_SOURCES]
    # A schedule is recorded without an ARN.
    scheduled = {schedule_of(name): arn for name, arn in arns.items()}
    found = [each.get("lambda_arn") or scheduled[each["name"]] for each in sources]
    return sorted({str(arn).rpartition(":")[2] for arn in found})


def schedule_of(function: str) -> str:
    """Chalice's name for the rule that calls a function."""
    return f"{function}-event"


def refuse_missing(content: Json, names: Iterable[str], where: str) -> None:
    """Raises Refused where `content`, which comes from `where`, lacks one of `names`."""
    for name in names:
        if name not in content:
            raise Refused(f"{where}: {name} is missing")


def read_json(path: Path) -> Json:
    """Reads a JSON object. Raises Refused, which names the file and the place of the error."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise Refused(f"{path}: there is no such file") from error
    except ValueError as error:
        raise Refused(f"{path}: not JSON: {error}") from error
    if not isinstance(content, dict):
        raise Refused(f"{path}: expected an object")
    return content


def write_json(path: Path, content: Json) -> bool:
    """Writes the whole file or nothing. Returns whether it changed."""
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    if path.exists() and path.read_text(encoding="utf-8") == text:
        return False
    unfinished = path.with_name(path.name + ".unfinished")
    unfinished.write_text(text, encoding="utf-8")
    unfinished.replace(path)
    return True
