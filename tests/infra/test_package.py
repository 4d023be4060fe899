"""The package that `chalice deploy` uploads is complete: unpacked into an empty folder, it
serves."""

import io
import json
import re
import sys
import zipfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from bench.api_gateway_event import rest_event
from infra.before_deploy import PYTHONS, refuse_another_python
from infra.packaged_project import needed
from infra.terminal import Refused
from infra.wheels import download
from local.servers import DataApi, Redis
from tests.support.certificates import Authority
from tests.support.client import ROOT, hero
from tests.support.container import Container, runtime_folder, upload_event
from tests.support.deployment import NAME
from tests.support.emulated_aws import REGION, Emulated, emulated
from tests.support.serverless_cache import ServerlessCache
from tests.support.stage_life import NATIVE, Life, ShortLife, unpack
from tests.support.witness import Witness

Json = dict[str, Any]
MAX_BYTES = 3_000_000
# The cache's login by token, as Lambda's environment makes it possible.
TOKENS = {
    "REDIS_AUTH": "iam",
    "REDIS_CACHE_NAME": "herocache-dev",
    "AWS_REGION": REGION,
    "AWS_ACCESS_KEY_ID": "ASIAEXAMPLE",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "AWS_SESSION_TOKEN": "token",
}
ELF_MACHINES = {"x86_64": 62, "arm64": 183}


@pytest.fixture(scope="module")
def package(life: Life, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of this machine's architecture, unpacked."""
    return unpack(life.packages[NATIVE], tmp_path_factory.mktemp("task"))


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return runtime_folder(tmp_path_factory.mktemp("runtime"))


@pytest.fixture(scope="module")
def account(life: Life) -> Iterator[Emulated]:
    """Another one, with the upload bucket alone."""
    with emulated() as account:
        account.client("s3").create_bucket(
            Bucket="uploads", CreateBucketConfiguration={"LocationConstraint": REGION}
        )
        yield account


@pytest.fixture
def container(
    package: Path, runtime: Path, environment: Mapping[str, str], witness: Witness
) -> Container:
    """On the real servers, which are empty."""
    return Container(package, runtime, environment)


@pytest.fixture
def handlers(life: Life) -> dict[str, str]:
    """Of each function, as Lambda was told."""
    return {name: each["Handler"] for name, each in life.account["functions"].items()}


# --- it serves alone ------------------------------------------------------------------------------


def test_the_api_answers_a_write_and_a_read(container: Container, handlers: dict[str, str]) -> None:
    api = handlers["herocache-dev"]
    write = json.dumps({"REQUEST": "write", "SQLS": [hero(id=7)]})
    read = json.dumps({"REQUEST": "read", "SQLS": [7]})
    health = {**rest_event(""), "httpMethod": "GET", "path": "/health"}
    health["requestContext"] = {
        **health["requestContext"],
        "httpMethod": "GET",
        "resourcePath": "/health",
    }

    answers, imported = container.invoke(
        (api, rest_event(write)), (api, rest_event(read)), (api, health)
    )

    assert [answer["statusCode"] for answer in answers] == [200, 200, 200], answers
    assert json.loads(answers[0]["body"])["ids"] == [7]
    assert json.loads(answers[1]["body"])["body"] == [{"id": 7, **hero()}]
    assert {"app", "chalice", "chalicelib", "pymysql", "redis", "hiredis"} <= set(imported)


def test_the_storage_function_answers_a_write_and_a_read(
    container: Container, handlers: dict[str, str]
) -> None:
    storage = handlers["herocache-dev-storage"]

    (written, read), _ = container.invoke(
        (storage, {"REQUEST": "write", "SQLS": [hero(id=8)]}),
        (storage, {"REQUEST": "read", "SQLS": [8]}),
    )

    assert written["ids"] == [8]
    assert read["body"] == [{"id": 8, **hero()}]


def test_the_ingest_function_loads_an_uploaded_file(
    package: Path,
    runtime: Path,
    account: Emulated,
    environment: Mapping[str, str],
    handlers: dict[str, str],
    witness: Witness,
) -> None:
    settings = {**environment, **account.environment, "UPLOAD_BUCKET": "uploads"}
    container = Container(package, runtime, settings)
    header, row = "id,hero,power,name,xp,color", "9,Nova,light,Ada,10,red"

    (summaries, read), _ = container.invoke(
        (handlers["herocache-dev-ingest"], uploaded(account, f"{header}\n{row}\n")),
        (handlers["herocache-dev-storage"], {"REQUEST": "read", "SQLS": [9]}),
    )

    [summary] = summaries
    assert (summary["status"], summary["rows"], summary["refused"]) == ("loaded", 1, 0), summary
    assert read["body"] == [{"id": 9, **hero()}]


def uploaded(account: Emulated, text: str) -> dict[str, Any]:
    """Put a file into the bucket; the event that S3 sends for it."""
    key = "incoming/heroes/package.csv"
    put = account.client("s3").put_object(Bucket="uploads", Key=key, Body=text.encode())
    return upload_event("uploads", key, put, len(text))


def test_the_employees_function_adds_one_and_lists_all(
    container: Container, handlers: dict[str, str]
) -> None:
    [everybody], _ = container.invoke(
        (handlers["herocache-dev-employees"], {"EmpId": "E1", "EmpName": "Ada"})
    )
    assert everybody == [["E1", "Ada"]]


def test_the_package_without_drivers_serves_over_the_data_api(
    data_api_life: ShortLife,
    data_api: DataApi,
    runtime: Path,
    witness: Witness,
    tmp_path: Path,
) -> None:
    package = unpack(data_api_life.package, tmp_path)
    container = Container(package, runtime, data_api.environment())
    handler = {name: each["Handler"] for name, each in data_api_life.account["functions"].items()}

    (written, read, everybody), imported = container.invoke(
        (handler["herocache-dev-storage"], {"REQUEST": "write", "SQLS": [hero(id=8)]}),
        (handler["herocache-dev-storage"], {"REQUEST": "read", "SQLS": [8]}),
        (handler["herocache-dev-employees"], {"EmpId": "E1", "EmpName": "Ada"}),
    )

    assert written["ids"] == [8]
    assert read["body"] == [{"id": 8, **hero()}]
    assert everybody == [["E1", "Ada"]]
    for driver in ("pymysql", "redis", "hiredis"):
        assert driver not in imported
        assert not (package / driver).exists()


def test_the_package_with_redis_alone_serves_over_the_data_api_through_the_cache(
    cached_data_api_life: ShortLife,
    data_api: DataApi,
    redis_server: Redis,
    runtime: Path,
    witness: Witness,
    tmp_path: Path,
) -> None:
    life = cached_data_api_life
    package = unpack(life.package, tmp_path)
    container = Container(
        package, runtime, {**data_api.environment(), **redis_server.environment()}
    )
    api, storage = (
        life.account["functions"][name]["Handler"] for name in (NAME, f"{NAME}-storage")
    )
    read = json.dumps({"REQUEST": "read", "SQLS": [8]})

    (written, answer, deleted), imported = container.invoke(
        (storage, {"REQUEST": "write", "SQLS": [hero(id=8)]}),
        (api, rest_event(read)),
        (storage, {"REQUEST": "delete", "SQLS": [8]}),
    )

    assert written["ids"] == deleted["deleted"] == [8]
    assert json.loads(answer["body"])["body"] == [{"id": 8, **hero()}]
    assert answer["headers"]["Cache-Status"] == 'herocache; hit; detail="1 of 1"'
    assert "redis" in imported
    assert not (package / "pymysql").exists()


SMALL_LAMBDA = 512 / 1769


@pytest.mark.parametrize("first", ["read", "write"])
@pytest.mark.parametrize("login_seconds", [0.05, 0.15, 0.3])
def test_a_small_function_and_a_slow_login_switch_no_cache_off(
    package: Path,
    runtime: Path,
    environment: Mapping[str, str],
    handlers: dict[str, str],
    redis_server: Redis,
    witness: Witness,
    tmp_path: Path,
    login_seconds: float,
    first: str,
) -> None:
    """By token, over TLS, in a new container, on a serverless cache. It may try again, because
    replies come too late where the machine has no time for it. Answers are right each time."""
    storage, row = handlers["herocache-dev-storage"], {"id": 7, **hero()}
    read: Json = {"REQUEST": "read", "SQLS": [7]}
    calls: list[Json] = [read] * (first == "read")
    expected: list[list[Json]] = [[]] * (first == "read")
    for name in ("a", "b", "c"):
        changed = {**row, "name": name}
        calls += [{"REQUEST": "write", "SQLS": [changed]}, *[read] * 10]
        expected += [[changed]] * 10
    authority = Authority(tmp_path / "ca")
    for _ in range(3):
        witness.empty()
        witness.give_cache_to("")
        with ServerlessCache(redis_server, authority) as cache:
            cache.login_seconds = login_seconds
            settings = {**environment, **cache.settings(), **TOKENS, "REDIS_URL": cache.url}
            container = Container(package, runtime, settings, cpu_share=SMALL_LAMBDA)

            answers, _ = container.invoke(*[(storage, call) for call in calls])

        assert [each["statusCode"] for each in answers] == [200] * len(calls)
        reads = [each["body"] for each, call in zip(answers, calls) if call is read]
        assert reads == expected
        assert cache.logins
        assert all(b"X-Amz-Signature" in each for each in cache.logins)
        troubles = [words for words in ("left alone", "switched off") if words in container.log]
        if not troubles:
            break
    assert troubles == []
    assert witness.query("SELECT COUNT(*) FROM cache_generation WHERE NOT enabled") == [(0,)]
    assert witness.entries()


def test_nothing_but_the_package_could_have_answered(package: Path, runtime: Path) -> None:
    """The check would see a package that is only installed on this machine."""
    container = Container(package, runtime, {})
    with pytest.raises(AssertionError, match="No module named 'pytest'"):
        container.invoke(("pytest.main", {}))


# --- it holds only what runs ----------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ["arm64", NATIVE])
def test_it_is_small_and_holds_only_what_runs(life: Life, architecture: str) -> None:
    content = life.packages[architecture]
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        names = archive.namelist()
    tops = {re.split(r"[/.]|-\d", name)[0].lower() for name in names}

    assert len(content) <= MAX_BYTES, f"{len(content):,} bytes"
    assert tops <= {"app", "chalice", "chalicelib", "hiredis", "pymysql", "redis"}
    assert {"app", "chalicelib", "hiredis", "pymysql", "redis"} <= tops
    assert "chalicelib/rds-ca.pem" in names
    unwanted = [name for name in names if re.search(r"(^|/)(tests?|seed|__pycache__)/", name)]
    assert unwanted == []


@pytest.mark.parametrize("architecture", ["arm64", NATIVE])
def test_its_machine_code_is_of_the_functions_architecture(life: Life, architecture: str) -> None:
    with zipfile.ZipFile(io.BytesIO(life.packages[architecture])) as archive:
        libraries = [archive.read(name)[:20] for name in archive.namelist() if ".so" in name]

    assert libraries
    for library in libraries:
        assert library.startswith(b"\x7fELF")
        assert int.from_bytes(library[18:20], "little") == ELF_MACHINES[architecture]


def test_chalice_left_no_package_out(life: Life) -> None:
    for text in (life.first["deploy"], life.again["deploy"]):
        assert "Could not install" not in text


def test_a_driver_is_left_out_only_where_the_settings_leave_it_unused() -> None:
    whole = (ROOT / "requirements.txt").read_text(encoding="utf-8")
    drivers = {"pymysql", "redis", "hiredis", "async-timeout"}

    def named(environment: Mapping[str, str]) -> set[str]:
        kept = needed(whole, environment)
        assert kept.count("--hash=") >= kept.count("==")
        return set(re.findall(r"(?m)^([\w-]+)==", kept))

    assert needed(whole, {}) == needed(whole, {"DB_ENGINE": "mysql"}) == whole
    assert named({}) == drivers
    assert named({"DB_ENGINE": "dataapi", "REDIS_URL": "rediss://a"}) == drivers - {"pymysql"}
    assert needed(whole, {"DB_ENGINE": "dataapi"}) == ""


@pytest.mark.proof  # asks PyPI
def test_every_package_has_a_wheel_for_every_python_of_lambda(tmp_path: Path) -> None:
    wanted = [(machine, python) for machine in ELF_MACHINES for python in PYTHONS]
    with ThreadPoolExecutor() as threads:
        for _ in threads.map(lambda each: download(tmp_path / str(each), *each), wanted):
            pass


def test_a_python_that_lambda_does_not_run_is_refused() -> None:
    from chalice.config import Config

    major, minor = sys.version_info[:2]
    assert Config().lambda_python_version == f"python{major}.{minor}"
    for python in PYTHONS:
        refuse_another_python(python)
    for python in ((3, 10), (3, 15)):
        with pytest.raises(Refused, match=r"PYTHON=python3\.13"):
            refuse_another_python(python)


def test_a_package_without_a_wheel_is_refused_and_named(tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"no wheel for arm64, Python 3\.5"):
        download(tmp_path, "arm64", (3, 5))
