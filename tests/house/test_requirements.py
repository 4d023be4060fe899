"""Each file of requirements brings what its make targets import, and nothing bigger is needed."""

import ast
import re
import sys
from collections.abc import Iterator
from importlib.metadata import distribution, packages_distributions
from importlib.util import find_spec
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from dependencies.lock import FILES, locked, name_of
from local.machine import ROOT

PYPROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")

# The modules that the make targets start, by the requirements that are installed for them.
STARTED_BY = {
    "requirements.txt": [
        path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".")
        for path in (ROOT / "chalicelib").rglob("[!_]*.py")
    ],
    "requirements-deploy.txt": ["app", "infra.__main__", "seed.apply"],
    "requirements-local.txt": [
        *(
            "app",
            "local.__main__",
            "local.servers.moto_s3",
            "local.lambda_function.container_process",
        ),
        *("local.demo.commit_then_set", "grader.__main__"),
    ],
}


def path_of(module: str) -> Path | None:
    """The file of a module of ours."""
    path = ROOT.joinpath(*module.split("."))
    files = (path.with_suffix(".py"), path / "__init__.py")
    return next((file for file in files if file.exists()), None)


def imports_of(path: Path) -> Iterator[str]:
    """Full names, those imported within functions too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def packages_needed(modules: list[str]) -> set[str]:
    """Top names of what is imported from elsewhere, directly or by modules of ours."""
    seen: set[str] = set()
    needed: set[str] = set()
    waiting = list(modules)
    while waiting:
        module = waiting.pop()
        path = path_of(module)
        if path is not None and module not in seen:
            seen.add(module)
            waiting += imports_of(path)
        elif path is None and path_of(module.partition(".")[0]) is None:
            needed.add(module.partition(".")[0])
    folders = {child.name for child in ROOT.iterdir() if child.is_dir()}
    return needed - sys.stdlib_module_names - folders - {"__future__"}


def named(group: str) -> Iterator[Requirement]:
    """What pyproject.toml names in this group and in those that it includes."""
    texts = re.findall(rf"(?ms)^{group} = (.*?\])$", PYPROJECT)
    for each in ast.literal_eval(texts[0].replace("include-group =", '"include-group":')):
        if isinstance(each, str):
            yield Requirement(each)
        else:
            yield from named(each["include-group"])


def installed_by(file: str) -> set[str]:
    """The distributions that a file must name: its group's, with all that they require here."""
    found: set[tuple[str, frozenset[str]]] = set()
    [group] = (group for group, its in FILES.items() if its == file)
    waiting = list(named(group))
    while waiting:
        requirement = waiting.pop()
        known = (canonicalize_name(requirement.name), frozenset(requirement.extras))
        if known in found:
            continue
        found.add(known)
        for text in distribution(requirement.name).requires or ():
            below = Requirement(text)
            extras = ({"extra": extra} for extra in (*requirement.extras, ""))
            if below.marker is None or any(below.marker.evaluate(extra) for extra in extras):
                waiting.append(below)
    return {name for name, _ in found}


@pytest.mark.parametrize("file", STARTED_BY)
def test_what_a_target_imports_is_in_its_requirements(file: str) -> None:
    installed = installed_by(file)
    # Lambda brings boto3; Chalice puts itself into the package that it deploys.
    installed |= {"boto3", "botocore", "chalice"} if file == "requirements.txt" else set()
    check(file, packages_needed(STARTED_BY[file]), installed)


def test_the_server_of_moto_has_what_it_imports() -> None:
    """An extra of moto's would bring it, and 250 MB for other services."""
    found = find_spec("moto.moto_server.werkzeug_app")
    assert found is not None
    tops = {name.partition(".")[0] for name in imports_of(Path(str(found.origin)))}
    file = "requirements-local.txt"
    check(file, tops - sys.stdlib_module_names, installed_by(file))


def check(file: str, needed: set[str], installed: set[str]) -> None:
    distributions = packages_distributions()
    assert needed
    for name in needed:
        names = {canonicalize_name(each) for each in distributions[name]}
        assert names & installed, f"{file} must name {' or '.join(names)}: {name} is imported"


@pytest.mark.parametrize("file", FILES.values())
def test_a_file_locks_all_that_its_group_needs(file: str) -> None:
    names = {name_of(each) for each in locked(file)}
    assert installed_by(file) <= names


def test_what_runs_needs_no_tool_of_the_tests() -> None:
    for file in STARTED_BY:
        tools = {"pytest", "mypy", "ruff", "hypothesis", "cfn-lint", "dogpile-cache"}
        assert not tools & installed_by(file)
