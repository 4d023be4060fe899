"""The rules of the house (which package may import what) and what importing the app may do."""

import ast
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from dependencies.lock import locked, name_of
from tests.conftest import Configure
from tests.support.client import ROOT, InProcess, hero

PATHS = [ROOT / "app.py", *(ROOT / "chalicelib").rglob("*.py")]
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in PATHS
}
OURS = {"app", "chalicelib", "infra", "local", "tests", "bench", "grader", "seed"}

# Imports go down only: a package may import those below it, and none beside it.
FLOORS = (
    {"app"},
    {"handlers"},
    {"services"},
    {"ingest", "sync"},
    {"rows"},
    {"cache"},
    {"db"},
    {"credentials"},
    {"network", "pool", "single_flight", "config", "counts", "clocks"},
    {"tables"},
    {"column_types", "environment"},
    {"error_text"},
    {"errors", "chalicelib"},
)
# Whoever makes the ingest imports it when a file comes: no read pays for it.
LATE = {("services", "chalicelib.ingest.service")}
ONLY_IMPORTERS = {
    "redis": {"chalicelib.cache"},
    "hiredis": {"chalicelib.cache"},
    "pymysql": {"chalicelib.db.mysql"},
    "boto3": {"chalicelib.ingest.bucket", "chalicelib.credentials", "chalicelib.db.data_api"},
    "botocore": {"chalicelib.ingest.bucket", "chalicelib.credentials", "chalicelib.db.data_api"},
    "chalice": {"app", "chalicelib.handlers"},
}
# Where Chalice's command imports the app. Lambda does not (tests/local/test_replace_server.py).
ON_THE_COMMAND_LINE = ("app", "local")


def package(module: str) -> str:
    """The floor that a module is on: `app`, or what stands directly in chalicelib."""
    first, *rest = module.split(".")
    return rest[0] if rest else first


def imports_of(module: str) -> set[str]:
    """Full names of modules, those imported within functions too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} imports relatively"
            assert node.module is not None
            members = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= members if node.module == "chalicelib" else {node.module}
    return found


@pytest.mark.parametrize("path", sorted((ROOT / "infra").glob("*.py")), ids=lambda path: path.stem)
def test_what_deploys_the_app_stands_apart_from_it(path: Path) -> None:
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}
    tops = {name.partition(".")[0] for name in names}

    assert tops & OURS <= {"infra"}
    assert "boto3" not in tops or path.stem == "account"


each_module = pytest.mark.parametrize("module", sorted(MODULES))


@each_module
def test_a_driver_or_framework_is_imported_in_one_place(module: str) -> None:
    for name in imports_of(module):
        places = ONLY_IMPORTERS.get(name.partition(".")[0])
        is_there = places is None or any(f"{module}.".startswith(f"{place}.") for place in places)
        assert is_there, f"{module} imports {name}"


@each_module
def test_nothing_imports_the_app_or_what_is_not_deployed(module: str) -> None:
    for name in imports_of(module):
        top = name.partition(".")[0]
        known = top == "chalicelib" or top not in OURS or (module, top) == ON_THE_COMMAND_LINE
        assert known, f"{module} imports {name}"


def test_every_module_is_on_one_floor() -> None:
    floors = [name for floor in FLOORS for name in floor]

    assert sorted(floors) == sorted({package(module) for module in MODULES})


@each_module
def test_imports_go_down(module: str) -> None:
    own = package(module)
    [height] = [i for i, floor in enumerate(FLOORS) if own in floor]
    below = set().union(*FLOORS[height + 1 :]) | {own}

    ours = {name for name in imports_of(module) if name in MODULES}
    assert {package(name) for name in ours} <= below


@each_module
def test_a_package_is_entered_by_its_face(module: str) -> None:
    """What its `__init__` names; the rest may change without a look at anybody else."""
    for name in imports_of(module):
        is_inside = name in MODULES and name.count(".") > 1 and package(name) != package(module)
        assert not is_inside or (module.partition(".")[2], name) in LATE, f"{module} imports {name}"


@pytest.mark.parametrize("name", ["handlers", "rows", "cache", "db", "credentials", "sync"])
def test_a_face_is_documented(name: str) -> None:
    source = MODULES[f"chalicelib.{name}"].read_text(encoding="utf-8")
    tree = ast.parse(source)
    told = ast.get_docstring(tree) or ""
    [faces] = [
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
    ]

    assert faces
    assert [face for face in faces if face not in told] == []


def named_twice(body: Sequence[ast.stmt]) -> list[str]:
    """The names to which a module or a class gives two values: the first one is never used."""
    names: list[str] = []
    for node in body:
        if isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names += [target.id for target in targets if isinstance(target, ast.Name)]
        elif isinstance(node, ast.ClassDef):
            names += [f"{node.name}.{name}" for name in named_twice(node.body)] * 2
    return sorted({name for name in names if names.count(name) > 1})


def test_no_name_gets_two_values() -> None:
    source = "A = 1\nB: int = 2\nA = B = 3\nclass C:\n    d = 4\n    d = 5\n    e = 6\n"
    assert named_twice(ast.parse(source).body) == ["A", "B", "C.d"]

    folders = ("chalicelib", "infra", "local", "bench", "grader", "seed", "dependencies", "tests")
    paths = [ROOT / "app.py", *(path for each in folders for path in (ROOT / each).rglob("*.py"))]
    found = {
        str(path.relative_to(ROOT)): names
        for path in paths
        if (names := named_twice(ast.parse(path.read_text(encoding="utf-8")).body))
    }
    assert found == {}


def run_python(code: str, environment: Mapping[str, str]) -> str:
    """What the code prints in a Python of its own, warnings being errors."""
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=ROOT,
        env=dict(environment),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


NO_IO = """
import sys

def refuse(event, arguments):
    if event.startswith(("socket.", "subprocess.", "os.system", "os.exec", "os.posix_spawn")):
        raise AssertionError(f"importing does I/O: {event} {arguments}")
    if event == "open" and set(str(arguments[1])) & set("wax+"):
        raise AssertionError(f"importing writes: {arguments}")

sys.dont_write_bytecode = True
sys.addaudithook(refuse)
"""


def test_importing_the_app_does_no_io_and_needs_no_setting() -> None:
    assert run_python(f"{NO_IO}\nimport app\nprint(app.app.app_name)", {}) == "herocache\n"


def test_the_check_for_io_would_find_some() -> None:
    for work in ("import socket; socket.socket()", "open('/dev/null', 'w')"):
        code = f"{NO_IO}\ntry:\n    {work}\nexcept AssertionError as error:\n    print(error)"
        assert run_python(code, {}).startswith("importing ")


# boto3 would cost a cold start more than everything else together.
UNUSED_BY = {"mysql": ("boto3", "botocore"), "dataapi": ("pymysql", "chalicelib.db.mysql")}


@pytest.mark.both_engines
def test_a_read_loads_no_driver_of_another_engine(
    service: InProcess, configure: Configure, db_engine: str
) -> None:
    configure()
    environment = dict(os.environ)
    [id] = service.write([hero()], use_cache=False).ids
    code = f"""
import json, sys
from app import app, storage
from bench.api_gateway_event import rest_event

for use_cache in ("True", "True", "False"):
    request = {{"REQUEST": "read", "SQLS": [{id}], "USE_CACHE": use_cache}}
    answer = app(rest_event(json.dumps(request)), None)
    assert answer["statusCode"] == 200 == storage(request, None)["statusCode"]
heavy = (*{UNUSED_BY[db_engine]}, "redis.asyncio", "requests", "setuptools", "pip")
print([name for name in heavy if name in sys.modules])
"""
    loaded = run_python(code, environment)

    found = loaded.splitlines()[-1]  # behind the log
    assert found in ("[]", "['redis.asyncio']"), "redis itself imports its asyncio half"


def test_few_packages_are_deployed() -> None:
    # redis-py needs the last one, on Python before 3.11.3.
    expected = {"pymysql", "hiredis", "redis", "async-timeout"}
    assert {name_of(each) for each in locked("requirements.txt")} == expected


def test_no_sql_reads_a_local_time() -> None:
    """It goes back by an hour once a year, and generations must not."""
    local = re.compile(
        r"\b(NOW|SYSDATE|CURDATE|CURTIME|CURRENT_TIMESTAMP|LOCALTIME|UNIX_TIMESTAMP)\("
    )
    texts = [*PATHS, *(ROOT / "seed").glob("*.sql"), *(ROOT / "infra").glob("*.sql")]
    found = [
        (path.name, line)
        for path in texts
        for line in path.read_text(encoding="utf-8").splitlines()
        if local.search(line)
    ]
    assert texts[-1].suffix == ".sql"
    assert found == []
