"""The house's rules (which module may import which) and what importing the app may do."""

import ast
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.support.client import ROOT, InProcess, hero

MODULES = {
    path.relative_to(ROOT).with_suffix("").as_posix().replace("/", "."): path
    for path in [ROOT / "app.py", *(ROOT / "chalicelib").glob("*.py")]
}
OURS = {"app", "chalicelib", "infra", "local", "tests", "bench", "seed"}

ONLY_IMPORTERS = {
    "redis": {"chalicelib.link", "chalicelib.line"},
    "hiredis": {"chalicelib.line"},
    "pymysql": {"chalicelib.mysql", "chalicelib.row_reader"},  # its second half
    "chalicelib.row_reader": {"chalicelib.mysql"},
    "chalicelib.schema": {"chalicelib.db"},
    "chalicelib.mysql": {"chalicelib.db"},
    "chalicelib.sql": {  # the last two: its type
        "chalicelib.db",
        "chalicelib.loaded",
        "chalicelib.mysql",
        "chalicelib.staged_rows",
        "chalicelib.staged_sql",
    },
    "chalicelib.staged_sql": {"chalicelib.staged_rows"},
    "chalicelib.staged_rows": {"chalicelib.ingest"},
    "chalicelib.load_text": {"chalicelib.db", "chalicelib.loaded"},  # its type
    "chalicelib.loaded": {"chalicelib.ingest", "chalicelib.staged_rows"},
    "chalicelib.csv_rows": {"chalicelib.ingest", "chalicelib.staged_rows"},
    "chalicelib.csv_bytes": {"chalicelib.csv_rows", "chalicelib.staged_rows"},
    "chalicelib.bucket": {"chalicelib.ingest", "chalicelib.staged_rows"},
    "chalicelib.link": {"chalicelib.cache"},
    "chalicelib.line": {"chalicelib.cache", "chalicelib.link"},
    "chalicelib.keys": {"chalicelib.cache"},
    "boto3": {"chalicelib.bucket", "chalicelib.identity"},
    "botocore": {"chalicelib.bucket", "chalicelib.identity"},
    "chalice": {"app", "chalicelib.api", "chalicelib.handlers", "chalicelib.callers"},
    "chalicelib.signing": {"chalicelib.identity"},
}
# Data goes one way: each may call those after it, never those before it.
ONE_WAY = (
    {"app"},
    {"chalicelib.api"},
    {"chalicelib.handlers", "chalicelib.callers"},
    {"chalicelib.origins", "chalicelib.wire"},
    {"chalicelib.storage", "chalicelib.ingest"},
    {"chalicelib.lazy_loading", "chalicelib.write_through"},
    {"chalicelib.idempotency"},
    {"chalicelib.recovery", "chalicelib.generations", "chalicelib.staged_rows"},
    {"chalicelib.loaded"},
    {"chalicelib.cache", "chalicelib.db"},
    {"chalicelib.link", "chalicelib.mysql"},
    {"chalicelib.line", "chalicelib.pool", "chalicelib.row_reader"},
    {
        "chalicelib.identity",
        "chalicelib.keys",
        "chalicelib.load_text",
        "chalicelib.reach",
        "chalicelib.scripts",
        "chalicelib.staged_sql",
    },
    {"chalicelib.sql"},
    {"chalicelib.bucket", "chalicelib.csv_rows", "chalicelib.schema", "chalicelib.signing"},
    {"chalicelib.csv_bytes"},
    {"chalicelib.config", "chalicelib.tables", "chalicelib.uploads"},
    {"chalicelib.errors", "chalicelib"},
)
BESIDE = {
    ("chalicelib.recovery", "chalicelib.generations"),
    ("chalicelib.cache", "chalicelib.db"),
    ("chalicelib.config", "chalicelib.tables"),
}
"""Who knows another one on the same floor."""

ON_THE_COMMAND_LINE = ("app", "local")
"""Where Chalice's command imports the app; test_local_http.py shows that Lambda does not."""


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
            found |= members & MODULES.keys() or {node.module}
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
def test_a_driver_or_framework_is_imported_by_one_module_alone(module: str) -> None:
    for name in imports_of(module):
        importers = ONLY_IMPORTERS.get(name if name in MODULES else name.partition(".")[0])
        assert importers is None or module in importers, f"{module} imports {name}"


@each_module
def test_nothing_imports_the_app_or_what_is_not_deployed(module: str) -> None:
    for name in imports_of(module):
        top = name.partition(".")[0]
        known = top == "chalicelib" or top not in OURS or (module, top) == ON_THE_COMMAND_LINE
        assert known, f"{module} imports {name}"


def test_every_module_is_on_one_floor() -> None:
    floors = [module for floor in ONE_WAY for module in floor]

    assert sorted(floors) == sorted(name.removesuffix(".__init__") for name in MODULES)


@each_module
def test_data_goes_one_way(module: str) -> None:
    name = module.removesuffix(".__init__")
    [position] = [i for i, floor in enumerate(ONE_WAY) if name in floor]
    above = set().union(*ONE_WAY[:position])
    beside = {other for other in ONE_WAY[position] if (name, other) not in BESIDE}

    assert imports_of(module) & (above | beside) == set()


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


def test_a_read_loads_no_boto3(environment: Mapping[str, str], service: InProcess) -> None:
    """It would cost a cold start more than everything else together."""
    [id] = service.write([hero()], use_cache=False).ids
    code = f"""
import json, sys
from app import app, storage
from bench.api_gateway_event import rest_event

for use_cache in ("True", "True", "False"):
    request = {{"REQUEST": "read", "SQLS": [{id}], "USE_CACHE": use_cache}}
    answer = app(rest_event(json.dumps(request)), None)
    assert answer["statusCode"] == 200 == storage(request, None)["statusCode"]
heavy = ("boto3", "botocore", "redis.asyncio", "requests", "setuptools", "pip")
print([name for name in heavy if name in sys.modules])
"""
    loaded = run_python(code, environment)

    assert loaded in ("[]\n", "['redis.asyncio']\n"), "redis itself imports its asyncio half"


def test_the_deployed_requirements_are_pinned_and_few() -> None:
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    pinned = [line for line in lines if line and not line.startswith("#")]

    assert all("==" in line for line in pinned)
    assert {line.partition("==")[0].lower() for line in pinned} == {"pymysql", "hiredis", "redis"}
