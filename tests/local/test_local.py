"""The servers of this machine and the make targets: real processes in homes of their own."""

import contextlib
import csv
import itertools
import random
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pymysql
import pytest

from chalicelib.tables import OWN_NAMES, TABLES, TEMPORARY_NAMES
from local.home_folder import Home
from local.machine import LOOPBACK, PORTS, ROOT, find_program, has_ended, has_stopped, port_is_free
from local.servers import App, MariaDB, Redis, ServerError
from tests.support.project_copy import MakeRun, copy_project, make
from tests.support.seeds import insert_seed_rows

DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def health(url: str) -> int:
    with DIRECT.open(f"{url}/health", timeout=10) as response:
        return int(response.status)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A copy of the project in a path with a space, with data and ports of its own."""
    copy = copy_project(tmp_path_factory.mktemp("local") / "a folder with spaces")
    yield copy
    make(copy, "down")


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MariaDB]:
    with MariaDB(tmp_path_factory.mktemp("mariadb")) as mariadb:
        mariadb.apply_schema()
        yield mariadb


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Redis]:
    with Redis(tmp_path / "redis") as redis:
        yield redis


def tables(database: MariaDB) -> dict[str, object]:
    names = [name for (name,) in database.query("SHOW TABLES")]
    return {
        name: (database.query(f"SHOW CREATE TABLE {name}"), database.query(f"SELECT * FROM {name}"))
        for name in names
    }


def ping(redis: Redis, timeout_seconds: float) -> bytes:
    with socket.create_connection((LOOPBACK, redis.port), timeout=timeout_seconds) as connection:
        connection.sendall(b"PING\r\n")
        return connection.recv(64)


def test_the_schema_applied_again_changes_nothing(database: MariaDB) -> None:
    insert_seed_rows(database)
    database.query("UPDATE cache_generation SET generation = 7, enabled = 0")
    before = tables(database)
    ours = {*OWN_NAMES} - {*TEMPORARY_NAMES}  # made where it is needed
    assert sorted(before) == sorted((*ours, *TABLES)), (
        "seed/schema.sql and TABLES in chalicelib/tables.py must name the same tables; one that the"
        " service keeps for itself belongs into OWN_NAMES there"
    )
    database.apply_schema()
    assert tables(database) == before


def test_seed_heroes_are_25_with_ids_in_order_and_unique_xp() -> None:
    with (ROOT / "seed" / "heroes.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    assert [int(row[0]) for row in rows] == list(range(1, 26))
    assert len({int(row[4]) for row in rows}) == 25
    assert {len(row) for row in rows} == {6}


def test_the_generator_gives_unique_xp_and_the_same_bytes_for_the_same_seed(tmp_path: Path) -> None:
    outputs = [tmp_path / name for name in ("one.csv", "again.csv", "other.csv")]
    for output, seed in zip(outputs, ("5", "5", "6")):
        words = [sys.executable, str(ROOT / "seed" / "generate_heroes.py"), "60000", str(output)]
        subprocess.run([*words, "--seed", seed], check=True, stdout=subprocess.DEVNULL)
    one, again, other = (output.read_bytes() for output in outputs)
    assert one == again
    assert one != other
    rows = list(csv.reader(one.decode().splitlines()))
    assert [int(row[0]) for row in rows] == list(range(1, 60_001))
    xps = [int(row[4]) for row in rows]
    assert len(set(xps)) == 60_000
    assert xps != sorted(xps)


def test_the_application_user_sees_its_own_database_only(database: MariaDB) -> None:
    settings = database.environment()
    connection = pymysql.connect(
        host=settings["DB_HOST"],
        port=int(settings["DB_PORT"]),
        user=settings["DB_USER"],
        password=settings["DB_PASS"],
        database=settings["DB_NAME"],
    )
    denied = pytest.raises(pymysql.err.OperationalError, match="denied")
    with connection, connection.cursor() as cursor, denied:
        cursor.execute("SELECT user FROM mysql.user")


@pytest.mark.parametrize("user", ["root", "herocache"])
def test_no_account_is_open_without_its_password(database: MariaDB, user: str) -> None:
    with pytest.raises(pymysql.err.OperationalError, match="denied"):
        pymysql.connect(host=LOOPBACK, port=database.port, user=user, password="")


def test_a_killed_database_comes_back_on_its_port_with_every_commit(database: MariaDB) -> None:
    database.query("REPLACE INTO employees VALUES ('E900', 'Committed')")
    port, pid = database.port, database.pid
    database.kill()
    assert database.pid is None
    database.start()
    assert (database.port, database.pid != pid) == (port, True)
    assert database.query("SELECT EmpName FROM employees WHERE EmpId = 'E900'") == [("Committed",)]


def test_a_database_that_is_stopped_while_it_starts_does_not_hang(database: MariaDB) -> None:
    """MariaDB may never end when it is asked to between two of its first steps."""
    rows = tables(database)
    for milliseconds in (30, 50, 60, 70, 80, 90, 100, 120):
        database.stop()
        database.begin()
        time.sleep(milliseconds / 1000)
        begun = time.monotonic()
        database.stop(timeout_seconds=20)
        assert time.monotonic() - begun < 10

    database.start()
    assert tables(database) == rows


def test_a_paused_server_hangs_until_it_is_resumed(cache: Redis) -> None:
    cache.pause()
    with pytest.raises(TimeoutError):
        ping(cache, timeout_seconds=0.2)
    cache.resume()
    assert ping(cache, timeout_seconds=5) == b"+PONG\r\n"


def test_a_paused_server_can_be_stopped(cache: Redis) -> None:
    pid = cache.pid
    assert pid is not None
    cache.pause()
    cache.stop()
    assert has_ended(pid)


def test_a_second_object_finds_the_running_server_and_can_stop_it(cache: Redis) -> None:
    same = Redis(cache.home)
    same.start()
    assert (same.pid, same.port) == (cache.pid, cache.port)
    same.stop()
    assert cache.pid is None


def test_a_pid_file_that_names_another_program_is_not_believed(tmp_path: Path) -> None:
    redis = Redis(tmp_path)
    with subprocess.Popen(["sleep", "60"]) as bystander:
        (tmp_path / "pid").write_text(str(bystander.pid))
        assert redis.pid is None
        redis.stop()
        with redis:
            assert redis.pid != bystander.pid
        assert bystander.poll() is None
        bystander.kill()


@pytest.mark.parametrize("text", ["", "999999999", "-1", "not a number"])
def test_a_stale_or_damaged_pid_file_does_not_stop_a_start(tmp_path: Path, text: str) -> None:
    (tmp_path / "pid").write_text(text)
    with Redis(tmp_path) as redis:
        assert ping(redis, timeout_seconds=5) == b"+PONG\r\n"


def test_an_asked_port_that_is_taken_is_named(tmp_path: Path, cache: Redis) -> None:
    with pytest.raises(ServerError, match=f"Redis: port {cache.port} is taken by another program"):
        Redis(tmp_path / "second", port=cache.port).start()


def test_a_remembered_port_that_is_taken_since_is_replaced(tmp_path: Path, cache: Redis) -> None:
    second = Redis(tmp_path / "second")
    second.home.mkdir()
    (second.home / "port").write_text(str(cache.port))
    with second:
        assert second.port != cache.port


def test_a_server_that_cannot_start_shows_the_end_of_its_log(tmp_path: Path) -> None:
    with pytest.raises(ServerError, match=r"(?s)Redis did not start.*no-such-option"):
        Redis(tmp_path, arguments=["--no-such-option", "1"]).start()


def test_up_twice_leaves_the_servers_and_a_private_settings_file(folder: Path) -> None:
    services = Home(folder / ".local")
    first = make(folder, "up")
    assert first.returncode == 0, first.stdout
    before = [server.pid for server in services.servers]
    settings = (folder / ".local" / "env").read_text()
    second = make(folder, "up")
    assert second.stdout.count("already running") == 3
    assert [server.pid for server in services.servers] == before
    assert (folder / ".local" / "env").read_text() == settings
    assert stat.S_IMODE((folder / ".local" / "env").stat().st_mode) == 0o600
    assert dict(line.split("=", 1) for line in settings.splitlines()) == services.settings()


def test_data_survives_down_and_up(folder: Path) -> None:
    services = Home(folder / ".local")
    make(folder, "up")
    services.mariadb.query("UPDATE heroes SET color = 'seen' WHERE id = 3")
    port, pids = services.mariadb.port, [server.pid for server in services.servers]
    down = make(folder, "down")
    assert down.returncode == 0, down.stdout
    assert all(pid is not None and has_ended(pid) for pid in pids)
    make(folder, "up")
    assert services.mariadb.port == port
    assert services.mariadb.query("SELECT color FROM heroes WHERE id = 3") == [("seen",)]
    make(folder, "down")


def test_run_serves_and_ctrl_c_leaves_nothing_running(folder: Path) -> None:
    port = next(port for port in random.sample(PORTS, len(PORTS)) if port_is_free(port))
    with MakeRun(folder, PORT=str(port)) as run:  # another test's run takes the usual one
        url = run.services.app.url
        assert f"herocache serves at {url} " in run.output
        assert health(url) == 200
        assert run.press_ctrl_c().count("stopped") == 4
        assert run.leftovers() == []
        assert port_is_free(port)


def test_run_passes_over_the_usual_port_when_it_is_taken_and_ends_when_it_is_terminated(
    folder: Path,
) -> None:
    with contextlib.ExitStack() as stack:
        is_held = False
        with contextlib.suppress(OSError):  # another test's run may have it, and end meanwhile
            stack.enter_context(socket.create_server((LOOPBACK, 8000)))
            is_held = True
        run = stack.enter_context(MakeRun(folder))
        assert run.services.app.port > 8000 or not is_held
        run.process.terminate()
        run.rest()
        assert run.leftovers() == []


def test_run_ends_when_the_make_around_it_is_killed(folder: Path) -> None:
    with MakeRun(folder) as run:
        run.process.kill()
        run.rest()
        assert run.leftovers() == []


def test_run_leaves_the_servers_of_make_up_running(folder: Path) -> None:
    make(folder, "up")
    with MakeRun(folder) as run:
        assert "servers    stay up" in run.press_ctrl_c()
        assert run.leftovers() == run.pids[1:]
        make(folder, "down")
        assert run.leftovers() == []


def test_a_second_run_says_that_the_first_serves_and_down_ends_that(folder: Path) -> None:
    with MakeRun(folder) as run:
        second = make(folder, "run")
        assert second.returncode != 0
        assert f"serves this folder at {run.services.app.url}" in second.stdout
        assert health(run.services.app.url) == 200
        assert "all of this folder is stopped" in make(folder, "down").stdout
        run.rest()
        assert run.leftovers() == []


def test_run_works_after_a_killed_one_and_ends_what_that_left_behind(folder: Path) -> None:
    with MakeRun(folder) as killed:
        killed.send(signal.SIGKILL)
        killed.process.wait()
        assert killed.leftovers() == killed.pids
    with MakeRun(folder) as run:
        assert health(run.services.app.url) == 200
        assert run.pids[1:] == killed.pids[1:]
        run.press_ctrl_c()
        assert killed.leftovers() == run.leftovers() == []


def test_down_ends_what_a_killed_run_left_behind(folder: Path) -> None:
    with MakeRun(folder) as killed:
        killed.send(signal.SIGKILL)
        killed.process.wait()
        make(folder, "down")
        assert killed.leftovers() == []


def test_a_port_that_is_asked_for_and_taken_is_an_error_in_words(folder: Path) -> None:
    with socket.create_server((LOOPBACK, 0)) as taken:
        port = taken.getsockname()[1]
        refused = make(folder, "run", PORT=str(port))
    assert refused.returncode != 0
    assert f"app: port {port} is taken by another program" in refused.stdout
    assert Home(folder / ".local").mariadb.pid is None


def test_two_apps_that_start_at_once_come_to_two_ports(tmp_path: Path) -> None:
    """Each holds its port before its process is there. Otherwise both find 8000 free, the second
    process ends, and the first one answers for it."""
    one, other = App(tmp_path / "one"), App(tmp_path / "other")
    with one._take_port() as ours, other._take_port() as theirs:
        assert ours.getsockname()[1] < theirs.getsockname()[1]


def test_a_server_that_is_paused_has_no_thread_that_runs(database: MariaDB) -> None:
    pid = database.pid
    assert pid is not None
    database.pause()
    paused = has_stopped(pid)
    database.resume()
    assert paused
    assert not has_stopped(pid)


@pytest.mark.parametrize("port", ["0", "65536", "http", "80 80"])
def test_a_port_that_is_none_is_named(folder: Path, port: str) -> None:
    refused = make(folder, "run", PORT=port)
    assert f"PORT must be a number from 1 to 65535, got '{port}'" in refused.stdout


@pytest.mark.parametrize("target", ["run", "up"])
@pytest.mark.parametrize(
    ("name", "value"), [("TTL", "abc"), ("READ_BY", "strength"), ("DB_TABLE", "a b")]
)
def test_a_wrong_setting_ends_the_start_with_a_line_that_names_it(
    folder: Path, target: str, name: str, value: str
) -> None:
    rejected = make(folder, "-s", target, **{name: value})

    assert rejected.returncode != 0
    said, *rest = rejected.stdout.splitlines()
    assert said.startswith(f"herocache: {name}: ")
    assert [line for line in rest if not line.startswith("make: ")] == []


def test_clean_removes_what_make_made_and_nothing_else(folder: Path) -> None:
    make(folder, "up")
    (folder / ".local" / "notes.txt").write_text("mine")
    cleaned = make(folder, "clean")
    assert cleaned.returncode == 0, cleaned.stdout
    assert [path.name for path in (folder / ".local").iterdir()] == ["notes.txt"]
    assert f"kept       notes.txt in {folder / '.local'}" in cleaned.stdout


REQUIREMENTS = (
    *("requirements.txt", "requirements-deploy.txt"),
    *("requirements-local.txt", "requirements-dev.txt"),
)
FOR_TESTS = ("dev", "mariadb-server", "redis-server", "curl", "openssl")


class BareMachine:
    """A folder to install into, on a PATH with no server, where `apt-get` takes notes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tools = folder / "tools"
        self.tools.mkdir()
        for name in ("bash", "cat", "cksum", "dirname", "env", "id", "mktemp", "rm", "tail"):
            (self.tools / name).symlink_to(shutil.which(name) or f"/bin/{name}")
        for name in ("apt-get", "service", "systemctl"):
            self.add(name, f'echo "{name} $*" >>"{folder}/notes"')
        self.add("sudo", 'exec "$@"')
        (folder / "local").mkdir()
        script = (ROOT / "local" / "install.sh").read_text()
        (folder / "local" / "install.sh").write_text(re.sub(r"(?m)^PATH=.*$", "", script))
        for path in ROOT.glob("requirements*.txt"):
            shutil.copy(path, folder / path.name)

    def add(self, name: str, script: str) -> None:
        (self.tools / name).write_text(f"#!/bin/sh\n{script}\n")
        (self.tools / name).chmod(0o755)

    def install(self, *words: str, **settings: str) -> subprocess.CompletedProcess[str]:
        """What `make test` has it install, or these words."""
        return subprocess.run(
            [self.tools / "bash", "local/install.sh", *(words or FOR_TESTS)],
            cwd=self.folder,
            env={"PATH": str(self.tools), **settings},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def notes(self) -> str:
        return (self.folder / "notes").read_text()

    def pip_installs(self) -> list[str]:
        """The files of requirements that pip was given; the stand-in for .venv notes them."""
        notes = (self.folder / "pip").read_text() if (self.folder / "pip").exists() else ""
        return re.findall(r"-m pip install .*-r (\S+)", notes)


@pytest.fixture
def bare_machine(tmp_path: Path) -> BareMachine:
    machine = BareMachine(tmp_path)
    (tmp_path / ".venv").symlink_to(ROOT / ".venv")
    return machine


def test_install_has_apt_bring_what_is_missing_and_stops_what_apt_started(
    bare_machine: BareMachine,
) -> None:
    for name in ("curl", "openssl"):
        bare_machine.add(name, "")
    installed = bare_machine.install()
    assert installed.returncode == 0, installed.stderr
    assert "mariadb-server redis-server with apt" in installed.stdout
    lines = bare_machine.notes().splitlines()
    assert lines[0] == "apt-get -q update"
    assert lines[1].endswith(" install mariadb-server redis-server")
    assert re.search("(disable --now mariadb|service mariadb stop)", lines[2])


def test_the_first_server_on_the_path_is_taken_whatever_its_kind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that the tests run on Valkey or MySQL where Redis or MariaDB is installed too."""
    programs = [tmp_path / "a" / "valkey-server", tmp_path / "b" / "redis-server"]
    for program in programs:
        program.parent.mkdir()
        program.touch(mode=0o755)
    monkeypatch.setenv("PATH", f"{programs[0].parent}:{programs[1].parent}")

    assert find_program("redis-server", "valkey-server") == str(programs[0])


def test_install_touches_no_service_of_a_server_that_was_there(bare_machine: BareMachine) -> None:
    for name in ("mysqld", "valkey-server"):
        bare_machine.add(name, "")
    bare_machine.install()
    assert bare_machine.notes().splitlines()[1].endswith(" install curl openssl")
    assert len(bare_machine.notes().splitlines()) == 2


def test_install_does_nothing_when_nothing_is_missing(bare_machine: BareMachine) -> None:
    for name in ("curl", "openssl", "mariadbd", "redis-server"):
        bare_machine.add(name, "")
    installed = bare_machine.install()
    assert (installed.returncode, installed.stdout, installed.stderr) == (0, "", "")
    assert not (bare_machine.folder / "notes").exists()


def test_each_target_installs_what_it_needs_and_no_more() -> None:
    recipes = dict(
        re.findall(r"(?m)^([a-z]+):.*\n\t\$\(INSTALL\) (.*)$", (ROOT / "Makefile").read_text())
    )
    for goal in ("infra", "configure", "deploy", "destroy", "sql", "logs", "report"):
        assert recipes[goal] == "deploy"
    for goal in ("run", "up", "demo"):
        assert recipes[goal] == "local $(SERVERS)"
    for goal in ("upload", "invoke", "invalidate", "grade"):
        assert recipes[goal] == "local"
    assert recipes["lint"] == recipes["format"] == "dev"
    assert recipes["test"] == recipes["install"] == "dev $(SERVERS) openssl"


def test_install_for_a_deployment_asks_for_no_server(bare_machine: BareMachine) -> None:
    installed = bare_machine.install("deploy")
    assert (installed.returncode, installed.stdout, installed.stderr) == (0, "", "")
    assert not (bare_machine.folder / "notes").exists()


def test_a_larger_set_of_packages_does_for_a_smaller_one(tmp_path: Path) -> None:
    machine = BareMachine(tmp_path)
    machine.add("python3", "exit 0")
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    python = tmp_path / ".venv" / "bin" / "python"
    python.write_text(f'#!/bin/sh\necho "$*" >>"{tmp_path}/pip"\n')
    python.chmod(0o755)
    for words in ("deploy", "local", "deploy", "local", "dev", "deploy", "local", "dev"):
        assert machine.install(words).returncode == 0
    assert machine.pip_installs() == list(REQUIREMENTS[1:])
    (tmp_path / "requirements-local.txt").write_text("# other pins\n")
    assert machine.install("deploy").returncode == 0
    assert len(machine.pip_installs()) == 3
    assert machine.install("local").returncode == 0
    assert machine.pip_installs()[3:] == ["requirements-local.txt"]


@pytest.mark.parametrize("words", ["everything", ""])
def test_install_of_an_unknown_set_is_refused(bare_machine: BareMachine, words: str) -> None:
    refused = bare_machine.install(words)
    assert refused.returncode == 1
    assert f"expected deploy, local or dev, got '{words}'" in refused.stderr


def test_each_file_of_requirements_has_all_of_the_smaller_one() -> None:
    for smaller, larger in itertools.pairwise(REQUIREMENTS):
        assert f"-r {smaller}\n" in (ROOT / larger).read_text()


def test_install_without_apt_says_what_to_install_on_each_system(bare_machine: BareMachine) -> None:
    (bare_machine.tools / "apt-get").unlink()
    refused = bare_machine.install()
    assert refused.returncode == 1
    for words in (
        "Debian",
        "Fedora: dnf install",
        "macOS: brew install",
        "same make command again",
    ):
        assert words in refused.stderr


def test_install_shows_why_apt_failed(bare_machine: BareMachine) -> None:
    bare_machine.add("apt-get", "echo E: no space left; exit 100")
    refused = bare_machine.install()
    assert refused.returncode == 1
    assert "E: no space left" in refused.stderr
    assert "apt could not install mariadb-server redis-server curl openssl" in refused.stderr


def test_install_asks_for_a_python_that_all_packages_have_wheels_for(tmp_path: Path) -> None:
    machine = BareMachine(tmp_path)
    machine.add("python3", 'case "$1" in --version) echo Python 3.9.2;; *) exit 1;; esac')
    refused = machine.install()
    assert refused.returncode == 1
    assert "Python 3.10 to 3.14 is needed, found Python 3.9.2." in refused.stderr


def test_a_python_that_is_named_and_cannot_be_taken_is_named_with_the_reason(
    tmp_path: Path,
) -> None:
    machine = BareMachine(tmp_path)
    machine.add("old", 'case "$1" in --version) echo Python 3.9.2;; *) exit 1;; esac')
    machine.add("python3", "exit 0")
    for name, why in (
        ("nowhere", "nowhere: command not found"),
        ("old", "it is Python 3.9.2, and 3.10 to 3.14 is needed"),
    ):
        refused = machine.install(PYTHON=name)
        assert refused.returncode == 1
        assert f"herocache: PYTHON={name}: " in refused.stderr
        assert why in refused.stderr


def test_a_python_that_is_named_beside_a_venv_is_told_to_be_unused(tmp_path: Path) -> None:
    machine = BareMachine(tmp_path)
    programs = tmp_path / ".venv" / "bin"
    programs.mkdir(parents=True)
    for path, version in ((programs / "python", "3.12.1"), (machine.tools / "other", "3.13.2")):
        path.write_text(f"#!/bin/sh\nif [ $1 = --version ]; then echo Python {version}; fi\n")
        path.chmod(0o755)
    (machine.tools / "same").symlink_to(programs / "python")
    words = "PYTHON=other is not used: .venv has Python 3.12.1; for another one: rm -r .venv"
    assert words in machine.install("deploy", PYTHON="other").stdout
    assert "is not used" not in machine.install("deploy", PYTHON="same").stdout
    assert "is not used" not in machine.install("deploy", PYTHON="").stdout


def test_a_server_that_ended_without_a_word_is_told_so(tmp_path: Path) -> None:
    """Nothing would follow `ends:`."""
    log = tmp_path / "log"
    log.write_text("")
    assert (
        Redis(tmp_path).last_words() == f"{log} is empty: it was killed, or ended without a word."
    )
    log.write_text("a\nb\n")
    assert Redis(tmp_path).last_words() == f"{log} ends:\na\nb"
