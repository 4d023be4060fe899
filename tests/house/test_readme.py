"""README.md and CONTRIBUTING.md are true: commands, settings, limits, examples and recipes."""

import json
import re
import shlex
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from enum import Enum
from pathlib import Path
from typing import Any

import pytest

from chalicelib import column_types, config, errors, tables
from chalicelib.cache import entry_commands, generations, recovery
from chalicelib.cache.timeouts import TIMEOUT_SECONDS
from chalicelib.config import UPLOAD_BUCKET, Settings
from chalicelib.credentials import iam_tokens
from chalicelib.db import auto_increment
from chalicelib.db import errors as database_errors
from chalicelib.db.mysql import connection as mysql_connection
from chalicelib.db.mysql import driver as mysql_driver
from chalicelib.errors import ConfigurationError, HerocacheError
from chalicelib.handlers import contract, json_body, replies, validation
from local.servers import MariaDB
from local.servers.app import FIRST_PORT
from tests import conftest
from tests.conftest import Configure
from tests.history.compare import picture
from tests.support.client import InProcess
from tests.support.seeds import insert_seed_rows
from tests.support.topologies import (
    CLUSTER_RIGHTS,
    COUNTER_RIGHTS,
    MINIMAL_RIGHTS,
    PUBLIC_RIGHTS,
)
from tests.support.witness import Witness

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
PLACE = "localhost:8000"
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))

Cells = list[str]


# --- reading the texts ----------------------------------------------------------------------------


def blocks(text: str, language: str) -> list[str]:
    """The contents of the code blocks in this language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def table(text: str, *head: str) -> list[Cells]:
    """The rows of the one table whose header begins with `head`."""
    found = [rows[2:] for rows in _tables(text) if rows[0][: len(head)] == list(head)]
    assert len(found) == 1, f"{len(found)} tables have the header {head}"
    return found[0]


def _tables(text: str) -> list[list[Cells]]:
    return [
        [re.split(r"\s*\|\s*", line.strip("|").strip()) for line in lines.splitlines()]
        for lines in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)
    ]


def code(cell: str) -> Cells:
    """What stands between backticks."""
    return re.findall(r"`([^`]+)`", cell)


def one_line(text: str) -> str:
    return " ".join(text.split())


@dataclass(frozen=True)
class Example:
    """A shell command of README and what README says it prints."""

    command: str
    output: str

    @property
    def payload(self) -> Any:
        """What curl posts, as Lambda gets it; None for a GET."""
        words = shlex.split(self.command)
        if "-d" not in words:
            return None
        payload = json.loads(words[words.index("-d") + 1])
        if self.is_repeatable:
            name, _, key = words[words.index("-H") + 1].partition(": ")
            assert name.lower() == contract.IDEMPOTENCY_HEADER
            payload[contract.IDEMPOTENCY_KEY] = key
        return payload

    @property
    def is_repeatable(self) -> bool:
        """README says that the same command may be sent again."""
        return "-H" in shlex.split(self.command)


def examples() -> list[Example]:
    return [example for block in blocks(README, "console") for example in _examples(block)]


def _examples(block: str) -> Iterator[Example]:
    for transcript in block.removeprefix("$ ").split("\n$ "):
        lines = transcript.splitlines()
        length = next(n for n in range(1, len(lines) + 1) if _is_whole(lines[:n]))
        yield Example("\n".join(lines[:length]), "\n".join(lines[length:]))


def _is_whole(lines: Sequence[str]) -> bool:
    try:
        shlex.split("\n".join(lines))
    except ValueError:  # a quote is still open
        return False
    return True


# --- examples -------------------------------------------------------------------------------------


@pytest.fixture
def seeded(witness: Witness, mariadb: MariaDB) -> None:
    """The servers as the first `make run` has them."""
    insert_seed_rows(mariadb)


def without_times(text: str) -> str:
    return re.sub(r'"latency_ms":\d+(\.\d+)?', '"latency_ms":…', text)


def run_curl(command: str, url: str) -> tuple[str, int]:
    """What it prints, and the HTTP status."""
    there = command.replace(PLACE, url.removeprefix("http://").rstrip("/"))
    done = subprocess.run(
        ["bash", "-c", rf"{there} --noproxy '*' --silent --show-error -w '\n%{{http_code}}'"],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    output, _, status = done.stdout.rpartition("\n")
    return output, int(status)


@pytest.mark.usefixtures("seeded", "triggers")
def test_every_request_gives_the_answer_that_stands_below_it(server_url: str) -> None:
    found = examples()
    assert len(found) >= 6
    for example in found:
        assert example.command.startswith("curl ")
        output, status = run_curl(example.command, server_url)
        assert without_times(output) == without_times(example.output), example.command
        assert status == json.loads(output).get("statusCode", 200)
        if example.is_repeatable:
            assert run_curl(example.command, server_url) == (output, status)
    assert [example for example in found if example.is_repeatable]


def test_the_storage_function_gives_the_same_answers(service: InProcess, mariadb: MariaDB) -> None:
    insert_seed_rows(mariadb)
    for example in examples():
        for _ in range(1 + example.is_repeatable):
            if example.payload is not None:
                assert service.invoke(example.payload) == json.loads(example.output)


def test_health_says_what_readme_says_it_does(configure: Configure, service: InProcess) -> None:
    [words] = re.findall(r"for example `([^`]+)`", one_line(README))
    configure(DB_PASS="wrong")
    down = service.health("?deep=1")
    assert (down.status, down.fields["status"]) == (503, "down")
    assert words in down.fields["database"]["error"]
    configure(REDIS_URL="redis://127.0.0.1:1")
    degraded = service.health("?deep=1")
    assert (degraded.status, degraded.fields["status"]) == (200, "degraded")
    assert degraded.fields["cache"]["error"]
    configure(REDIS_URL=None)
    assert service.health("?deep=1").fields["cache"] == {"ok": None}
    for phrase in ("`degraded` when the cache fails (HTTP 200)", "(HTTP 503)", "`ok` is `null`"):
        assert phrase in one_line(README)


# --- commands -------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [README, CONTRIBUTING], ids=["README", "CONTRIBUTING"])
def test_every_make_target_named_exists(text: str) -> None:
    snippets = [*blocks(text, "sh"), *code(re.sub(r"```.*?```", "", text, flags=re.DOTALL))]
    named = {name for part in snippets for name in re.findall(r"\bmake ([a-z]+)", part)}
    assert named
    assert named <= set(re.findall(r"^([a-z]+):", MAKEFILE, re.MULTILINE))


def test_every_make_target_is_named() -> None:
    explained = set(re.findall(r"^([a-z]+):.*##", MAKEFILE, re.MULTILINE)) - {"help"}
    assert explained <= set(re.findall(r"\bmake ([a-z]+)", README))


def test_a_variable_given_to_make_is_one_that_its_target_takes() -> None:
    texts = README + CONTRIBUTING
    after, before = r"make ([a-z]+)((?: [A-Z]+=\S+)+)", r"([A-Z]+)=\S+ make ([a-z]+)"
    given = [
        (goal, name)
        for goal, words in re.findall(after, texts)
        for name in re.findall(r" ([A-Z]+)=", words)
    ]
    given += [(goal, name) for name, goal in re.findall(before, texts)]
    assert {name for _, name in given} == {
        *("ARGS", "ENGINE", "EVENT", "FILE", "FUNCTION", "KEY", "KEYS"),
        *("MINUTES", "PORT", "STAGE", "TABLE", "URL"),
    }
    for goal, name in given:
        [explained] = re.findall(rf"^{goal}:.*## (.*)", MAKEFILE, re.MULTILINE)
        assert name in re.findall(r"\w+", explained)


def test_the_app_runs_on_the_settings_of_make_up(
    environment: Mapping[str, str], tmp_path: Path
) -> None:
    [script] = [block for block in blocks(README, "sh") if ".local/env" in block]
    env_file = tmp_path / "env"
    written = {**environment, "API_AUTH": "none"}
    env_file.write_text("".join(f"{name}={value}\n" for name, value in written.items()))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    script = script.replace(".local/env", str(env_file)).replace("8000", str(port))
    assert script.count(str(env_file)) == script.count(str(port)) == 1
    with running(script.replace(".venv/bin/chalice", "exec .venv/bin/chalice")):
        report = json.loads(eventually(f"http://127.0.0.1:{port}/health?deep=1"))
    assert report["database"]["ok"] is report["cache"]["ok"] is True


@contextmanager
def running(script: str) -> Iterator[None]:
    with subprocess.Popen(["bash", "-c", script], cwd=ROOT, stderr=subprocess.DEVNULL) as process:
        try:
            yield
        finally:
            process.terminate()


def eventually(url: str, timeout_seconds: float = 30) -> bytes:
    deadline = time.monotonic() + timeout_seconds
    while True:
        try:
            with DIRECT.open(url, timeout=5) as response:
                return bytes(response.read())
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


# --- settings -------------------------------------------------------------------------------------


def settings_table() -> dict[str, Cells]:
    """Meaning and default of each setting."""
    rows = table(README, "name", "meaning", "default")
    return {name: rest for [name], rest in ((code(first), rest) for first, *rest in rows)}


def required() -> dict[str, str]:
    return {name: "x" for name, (_, default) in settings_table().items() if default == "required"}


ANOTHER = {
    "DB_ENGINE": "dataapi",
    "DB_CLUSTER_ARN": "arn:aws:rds:eu-west-1:123456789012:cluster:herocache",
    "DB_SECRET_ARN": "arn:aws:secretsmanager:eu-west-1:123456789012:secret:herocache-AbCdEf",
    "DB_AUTH": "iam",
    "REDIS_URL": "redis://there",
    "REDIS_CLUSTER": "1",
    "REDIS_AUTH": "iam",
    "REDIS_SERVERLESS": "1",
    "INGEST_ENGINE": "aurora",
    "READ_BY": "xp",
    "API_AUTH": "key",
    "BUCKET_OWNER": "123456789012",
    "CORS_ORIGINS": "https://example.com",
    "UNCACHED_READS": "replica",
}
# Other settings that a setting needs, so that it is accepted.
BESIDES = {
    "DB_ENGINE": {
        **{name: ANOTHER[name] for name in ("DB_CLUSTER_ARN", "DB_SECRET_ARN")},
        "DB_PASS": "",
    },
    "DB_SECRET_ARN": {"DB_PASS": ""},
    "DB_AUTH": {"DB_PASS": "", "DB_SSL_CA": "system"},
    "REDIS_AUTH": {"REDIS_URL": "rediss://user@there", "REDIS_CACHE_NAME": "cache"},
    "UNCACHED_READS": {"DB_READER_HOST": "there"},
}


def field_of(name: str) -> str:
    """The field of Settings that this variable fills."""
    besides = BESIDES.get(name, {})
    given = {**required(), **besides, name: ANOTHER.get(name, "7")}
    before, after = (Settings.from_environment(e) for e in (required(), given))
    changed = {
        f.name for f in fields(Settings) if getattr(before, f.name) != getattr(after, f.name)
    }
    [field] = changed - {field_of(other) for other in besides}
    return field


def test_the_settings_table_names_every_setting_in_the_order_of_the_code() -> None:
    assert list(settings_table()) == conftest.SETTINGS


def test_a_required_setting_that_is_missing_is_named() -> None:
    assert Settings.from_environment(required())
    for name in required():
        others = {other: value for other, value in required().items() if other != name}
        with pytest.raises(ConfigurationError, match=name):
            Settings.from_environment(others)


def test_the_defaults_in_the_settings_table_are_those_of_the_code() -> None:
    in_words: dict[object, str] = {
        **{"": "empty", frozenset(): "empty", (): "the table's order"},
        **{None: "the key", False: "`0`"},
    }
    settings = Settings.from_environment(required())
    for name, (_, default) in settings_table().items():
        if name not in required() and name != UPLOAD_BUCKET:  # app.py reads that one by itself
            value = getattr(settings, field_of(name))
            value = value.value if isinstance(value, Enum) else value
            assert default == in_words.get(value, f"`{value}`"), name


def test_the_settings_table_marks_the_secrets() -> None:
    marked = {name for name, (meaning, _) in settings_table().items() if "**secret**" in meaning}
    hidden = {field.name for field in fields(Settings) if not field.repr}
    assert {field_of(name) for name in marked} == hidden


def test_the_defaults_of_a_request_are_the_settings_named(
    configure: Configure, service: InProcess, mariadb: MariaDB
) -> None:
    insert_seed_rows(mariadb)
    defaults = {code(row[0])[0]: row[2] for row in table(README, "field", "values", "default")}
    assert (defaults["TABLE"], defaults["BY"]) == ("`DB_TABLE`", "`READ_BY`, else the key")
    configure(DB_TABLE="products")
    assert service.post({"REQUEST": "read", "SQLS": [11]}).rows[0]["ProductId"] == 11
    configure(READ_BY="xp")
    assert service.post({"REQUEST": "read", "SQLS": [4120]}).rows[0]["id"] == 1
    read_by_key = {"REQUEST": "read", "SQLS": [11], "TABLE": "products"}
    assert service.post(read_by_key).rows[0]["ProductId"] == 11


IDENTITY = (ROOT / "docs" / "identity.md").read_text(encoding="utf-8")


@pytest.mark.own_deadlines
def test_identity_names_settings_that_exist_and_the_figures_of_the_code() -> None:
    named = set(re.findall(r"`((?:DB|REDIS|API)_[A-Z_]+)", IDENTITY))
    assert len(named) > 8
    assert named <= settings_table().keys()
    for words in (
        f"Retry-After: {database_errors.RESUME_RETRY_AFTER_SECONDS}`",
        f"The longest wait, at {config.MAX_RESUME_SECONDS},",
        f"The network has {mysql_driver.CONNECT_TIMEOUT_SECONDS} s still",
        f"for {generations.REFRESH_TIMEOUT_SECONDS:g} s, and go on",
        f"idle for {mysql_connection.IDLE_TIMEOUT_SECONDS} s",
        f"opens connections for {iam_tokens.TOKEN_SECONDS // 60} minutes",
        f"up to {config.MAX_RESUME_SECONDS}; `0`: it never does",
        f"or {database_errors.RESUME_RETRY_AFTER_SECONDS} where it may be waking up",
    ):
        assert words in one_line(IDENTITY + README), words
    assert [code(row[0])[0] for row in table(IDENTITY, "`API_AUTH`")] == list(config.ApiAuth)


def test_identity_names_the_rights_that_the_caches_user_needs() -> None:
    [sentence] = re.findall(r"The user needs (.*?) and no other right", one_line(IDENTITY))
    rights = {*MINIMAL_RIGHTS, *PUBLIC_RIGHTS, *COUNTER_RIGHTS, *CLUSTER_RIGHTS}
    commands = sorted(right for right in rights if right.startswith("+"))
    assert sorted(f"+{name}" for name in code(sentence)) == commands


# --- the contract ---------------------------------------------------------------------------------


def test_the_fields_and_their_values_are_those_of_the_wire() -> None:
    documented = table(README, "field", "values", "default")
    rows = {name: row[1:] for row in documented for name in code(row[0])}
    assert tuple(rows) == contract.FIELDS
    assert code(rows["REQUEST"][0]) == [f'"{name}"' for name in contract.REQUESTS]
    names = [f'"{name}"' for name in tables.TABLES]
    assert code(rows["TABLE"][0]) == names, f"README.md, row TABLE of the fields: name {names}"
    needed = [name for name, (_, default) in rows.items() if default == "required"]
    for name in rows:
        request = {"REQUEST": "read", "SQLS": [], "USE_CACHE": "True", "TABLE": "heroes"}
        request.pop(name, None)
        if name in needed:
            with pytest.raises(errors.BadRequest, match=f"{name}: missing"):
                validation.parse(request, "heroes", None)
        else:
            parsed = validation.parse(request, "heroes", None)
            assert isinstance(parsed, contract.Read)
            assert parsed.use_cache is True
    assert rows["USE_CACHE"][1] == '`"True"`'


def test_the_columns_and_lookups_are_the_declared_ones() -> None:
    documented = {
        code(row[0])[0]: code(row[1]) for row in table(README, "table", "columns, the key first")
    }
    declared = {t.name: [c.name for c in t.columns] for t in tables.TABLES.values()}
    assert documented == declared, "README.md, the rows below `| table |`: as chalicelib/tables.py"
    lookups = [
        f"`{each.name}` has {' and '.join(f'`{name}`' for name in each.lookups)}"
        for each in tables.TABLES.values()
        if each.lookups
    ]
    keyed = [f"`{each.name}`" for each in tables.TABLES.values() if not each.auto_key]
    for words in (
        f"or a lookup ({', '.join(lookups)})",
        f"{' and '.join(keyed)} always need their key",
    ):
        assert words in one_line(README), f"README.md must say: {words}"


def test_the_limits_are_those_of_the_code() -> None:
    integer, key = column_types.INTEGER, column_types.UNSIGNED_KEY
    assert [[what, limit] for what, limit in table(README, "limit")] == [
        ["values in a read", f"{contract.MAX_READ_VALUES:,}"],
        ["rows in a write, keys in a delete", f"{contract.MAX_WRITE_ROWS:,}"],
        ["rows in a page (`LIMIT`)", f"{contract.MAX_LIMIT:,}"],
        ["bytes in a request", f"{json_body.MAX_BODY_BYTES:,}"],
        ["bytes in an answer", f"{config.MAX_RESULT_BYTES:,}"],
        ["characters in a string", f"{column_types.STRING.max_characters:,}"],
        ["integer columns", f"{integer.minimum:,} to {integer.maximum:,}"],
        ["`id` and `ProductId`", f"{key.minimum:,} to {key.maximum:,}"],
        [
            "how far the key of a new row may be above the highest key",
            f"{auto_increment.MAX_KEY_GAP:,}",
        ],
        [
            "the highest key of a new row; the last quarter is for rows without a key",
            f"{key.maximum // 4 * 3:,}",
        ],
    ]


# The edge gives these the names of their base classes.
REWORDED = ("RowRejected", "KeyTooFar", "NoKeyLeft", "TooManyRows")


def test_the_errors_are_those_a_caller_can_get() -> None:
    documented = {code(row[0])[0]: row[1:] for row in table(README, "error", "status")}
    raised = {kind.__name__: kind for kind in _below(HerocacheError)}
    told_otherwise = ("CacheUnavailable", "AnotherServer", "FileRejected", "BucketUnavailable")
    inner_only = ("NotAtOnce", "AlreadyClaimed", "Superseded")
    for inner in (*told_otherwise, *REWORDED, *inner_only):
        del raised[inner]
    bug = json.loads(replies.of_bug().text)
    assert set(documented) == {*raised, bug["body"]["error"]}
    assert documented["InternalError"][0] == str(bug["statusCode"])
    for name, kind in raised.items():
        status, meaning = documented[name]
        retry = kind.retry_after_seconds
        assert int(status) == kind.status
        assert re.findall(r"`Retry-After: (\d+)`", meaning) == (
            [] if retry is None else [str(retry)]
        )


def _below(kind: type[HerocacheError]) -> Iterator[type[HerocacheError]]:
    for below in kind.__subclasses__():
        if below.__module__ == errors.__name__:
            yield below
            yield from _below(below)


def test_the_figures_in_the_text_are_those_of_the_code() -> None:
    pyproject = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    [python] = re.findall(r'requires-python = ">=([\d.]+)"', pyproject)
    heroes = len((ROOT / "seed" / "heroes.csv").read_text(encoding="utf-8").splitlines())
    assert entry_commands.TTL_JITTER == 0.1
    for words in (
        f"with Python {python} to ",
        f"`make run` starts with {heroes} heroes",
        f"Each wait for Redis ends after {TIMEOUT_SECONDS:g} s",
        f"after {recovery.GOOD_PROBES} good probes in a row",
        f"The first write after the failure takes {generations.MEMORY_SECONDS:g} s longer",
        f"the first free one from {FIRST_PORT}",
        "seconds a cached row lives, give or take a tenth",
    ):
        assert words in one_line(README)


def test_what_readme_calls_not_built_is_not_there() -> None:
    ways = {way: state for way, _, state in table(README, "", "way")}
    homes = {"request": "handlers", "file": "ingest", "schedule": "sync/service.py"}
    assert set(ways) == set(homes)
    for way, home in homes.items():
        state = "built" if (ROOT / "chalicelib" / home).exists() else "not yet built"
        assert ways[way] == state, way


def test_the_stages_are_as_readme_says() -> None:
    config = json.loads((ROOT / ".chalice" / "config.json").read_text(encoding="utf-8"))
    assert "has the stages " + " and ".join(f"`{name}`" for name in config["stages"]) in README
    for stage in config["stages"].values():
        assert "DB_HOST" not in stage["environment_variables"]
        for name in (*stage["subnet_ids"], *stage["security_group_ids"]):
            assert re.fullmatch(r"(subnet|sg)-(\d)\2{16}", name), "no longer a placeholder"


# --- the measured figures -------------------------------------------------------------------------


def figures() -> dict[str, list[float]]:
    """Medians in ms by flow: herocache, raw drivers, template; the same with the network."""
    return {flow: [float(cell) for cell in cells] for flow, *cells in table(README, "batch of 100")}


def chart() -> list[tuple[int, str, float, int]]:
    """Batch size, flow, ms and length of each bar."""
    [drawing] = [block for block in blocks(README, "text") if "uncached" in block]
    bars = re.findall(r"^ *(\d+) heroes, (\S+) +([\d.]+) +(█+)$", drawing, re.MULTILINE)
    return [(int(n), flow, float(ms), len(bar)) for n, flow, ms, bar in bars]


def test_the_picture_of_stale_reads_shows_the_run_in_the_docs() -> None:
    docs = (ROOT / "docs" / "cache.md").read_text(encoding="utf-8")
    header, *rows = next(cells for cells in _tables(docs) if cells[0][0] == "fault")
    [whole] = [cells for cells in rows if cells[0] == "all"]
    run = {}
    for name, cell in zip(header[1:], whole[1:]):
        [(stale, reads)] = re.findall(r"(\d+) stale of (\d+)", cell)
        run[name] = (int(stale), int(reads))

    assert picture(run) in README


def test_the_bars_are_as_long_as_their_figures_say() -> None:
    [scale] = re.findall(r"█ is ([\d.]+) ms", README)
    assert len(chart()) == 4
    for _, _, ms, length in chart():
        assert length == max(1, round(ms / float(scale)))


def test_the_chart_and_the_table_show_the_same_run() -> None:
    for n, flow, ms, _ in chart():
        if n == 100:
            assert figures()[f"read, {flow}"][0] == ms


def test_the_ratios_told_are_those_of_the_figures() -> None:
    told = {
        int(n): float(times) for n, times in re.findall(r"at (\d+) heroes ([\d.]+) times", README)
    }
    ms = {(n, flow): ms for n, flow, ms, _ in chart()}
    assert told == {n: round(ms[n, "uncached"] / ms[n, "cached"], 1) for n in (100, 1000)}
    [template] = re.findall(r"takes (\d+) times as long", one_line(README))
    assert int(template) == round(figures()["read, cached"][5] / figures()["read, cached"][3])


# --- the house ------------------------------------------------------------------------------------


def layout() -> list[str]:
    """The folders, and the files and modules that stand for themselves."""
    [plan] = [block for block in blocks(README, "text") if "app.py" in block]
    folder, paths = "", []
    for line in plan.splitlines():
        names = line.split()[0]
        if line.startswith(" "):
            paths.append(f"{folder}{names}")
        else:
            folder = names
            paths.append(names)
    return paths


def test_everything_in_the_layout_exists() -> None:
    for path in layout():
        assert (ROOT / path).is_dir() if path.endswith("/") else (ROOT / path).is_file(), path


def test_every_folder_and_package_is_in_the_layout() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    folders = {f"{path.split('/')[0]}/" for path in listed if "/" in path}
    inside = {path.split("/")[1] for path in listed if path.startswith("chalicelib/")}
    rooms = {f"chalicelib/{name}" for name in inside - {"__init__.py"}}
    rooms = {room if room.endswith(".py") else f"{room}/" for room in rooms}
    assert sorted(folders | rooms | {"app.py"}) == sorted(layout())


@pytest.mark.parametrize("text", [README, CONTRIBUTING], ids=["README", "CONTRIBUTING"])
def test_every_file_named_exists(text: str) -> None:
    files = re.findall(r"`([\w.]+/[\w./]+)`", text)
    assert files
    for path in {*files} - {".local/env", ".local/mysql"}:
        assert (ROOT / path).exists(), path


GUIDES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]


@pytest.mark.parametrize("guide", GUIDES, ids=lambda path: path.name)
def test_every_link_leads_to_a_file_and_a_heading_in_it(guide: Path) -> None:
    text = guide.read_text(encoding="utf-8")
    links = re.findall(r"\[([^]]*)\]\(([^)\s]+)\)", text)
    for name, link in links:
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        there = guide.parent / path if path else guide
        assert there.exists(), link
        assert not name.endswith(".md") or name.endswith(there.name), f"[{name}]({link})"
        assert not anchor or anchor in anchors(there.read_text(encoding="utf-8")), link


def anchors(text: str) -> list[str]:
    """The names of the headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return [re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings]


def test_the_fixtures_that_the_test_levels_name_exist() -> None:
    levels = table(CONTRIBUTING, "level", "what runs", "ask for")
    named = [name for *_, ask in levels for name in code(ask)]
    assert named
    assert all(hasattr(conftest, name) for name in named)


def test_a_new_table_is_a_declaration_and_its_sql(
    service: InProcess, mariadb: MariaDB, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Under another name: somebody may have followed the recipe to the letter.
    recipe = CONTRIBUTING.replace("gadgets", "example")
    [declaration], [sql] = blocks(recipe, "python"), blocks(recipe, "sql")
    declared: dict[str, Any] = dict(vars(tables))
    exec(declaration, declared)
    gadgets = declared["GADGETS"]
    monkeypatch.setitem(tables.TABLES, gadgets.name, gadgets)
    mariadb.query(sql)
    try:
        row = {"Label": "Ä", "Weight": 7}
        [key] = service.write([row], TABLE="example").ids
        stored = [{"GadgetId": key, **row}]
        for by, value in (("GadgetId", key), ("Weight", 7)):
            for use_cache in (True, True, False):
                assert service.read([value], use_cache, TABLE="example", BY=by).rows == stored
    finally:
        mariadb.query("DROP TABLE example")
