"""A living `make run`: when its port opens, and what it does when one of its servers dies."""

import os
import random
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from local.machine import LOOPBACK, PORTS, port_is_free
from local.servers import Server
from tests.support.client import OverHttp
from tests.support.project_copy import LAST_WORDS, MakeRun, copy_project, make

MINE = {"id": 5, "hero": "Mine", "power": "first", "name": "Early", "xp": 5, "color": "red"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    copy = copy_project(tmp_path_factory.mktemp("run") / "project")
    # Three deaths within ten seconds are too many; a busy machine has more time for them here.
    module = copy / "local" / "restart_servers.py"
    patient = module.read_text().replace("WITHIN_SECONDS = 10.0", "WITHIN_SECONDS = 600.0")
    module.write_text(patient)
    yield copy
    make(copy, "down")


@pytest.fixture
def service(run: MakeRun) -> OverHttp:
    return OverHttp(f"{run.services.app.url}/")


def wait_for_port(port: int, timeout_seconds: float = 30) -> None:
    deadline = time.monotonic() + timeout_seconds
    while True:
        with socket.socket() as client:
            if client.connect_ex((LOOPBACK, port)) == 0:
                return
        assert time.monotonic() < deadline, f"nothing listens on port {port}"
        time.sleep(0.005)


def test_a_write_made_as_soon_as_the_port_answers_survives_the_seed_rows(tmp_path: Path) -> None:
    """A healthy first start and its first requests print no warning."""
    port = next(port for port in random.sample(PORTS, len(PORTS)) if port_is_free(port))
    starting = MakeRun(copy_project(tmp_path / "project"), PORT=str(port))
    try:
        wait_for_port(port)
        service = OverHttp(f"http://{LOOPBACK}:{port}/")
        written = service.write([MINE])
        assert written.ids == [5], written.text
        assert len(service.read([1, 2]).rows) == 2
        said = starting.read_until(LAST_WORDS)
        assert "heroes     25 seed rows" in said
        rows = starting.services.mariadb.query("SELECT id, hero FROM heroes WHERE id IN (4, 5)")
        assert rows == [(4, "Señor Trueno"), (5, "Mine")]
    finally:
        rest = starting.press_ctrl_c()
    said += rest + (starting.services.s3.home / "function.log").read_text()
    assert "heroes: the cache is used from now on" in said
    assert "WARNING" not in said


def kill(server: Server) -> None:
    """As a crash would."""
    pid = server.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)


def test_what_a_sql_client_changes_is_recorded_and_the_seed_rows_are_not(
    run: MakeRun, service: OverHttp
) -> None:
    database = run.services.mariadb
    assert database.query("SELECT * FROM changed_entries") == []
    service.read([3])
    service.read([3])

    database.query("UPDATE heroes SET color = 'plum' WHERE id = 3")

    assert service.read([3]).rows[0]["color"] != "plum"
    assert service.read([3], FRESH=True).rows[0]["color"] == "plum"
    assert service.read([3]).rows[0]["color"] == "plum"


def test_a_database_that_dies_is_told_and_serves_again_on_its_port(
    run: MakeRun, service: OverHttp
) -> None:
    kill_and_see_it_serve_again(run, service, run.services.mariadb)


def kill_and_see_it_serve_again(run: MakeRun, service: OverHttp, server: Server) -> None:
    port = server.port
    [id] = service.write([{key: value for key, value in MINE.items() if key != "id"}]).ids
    kill(server)
    assert f"starting it again on port {port}" in run.read_until("ended by itself")
    run.read_until(f"{server.title:<10} answers again")
    assert server.port == port
    [row] = service.read([id]).rows
    assert row == {**MINE, "id": id}
    assert '"status":"ok"' in requests.get(f"{service.url}health?deep=1", timeout=10).text


def test_a_local_s3_that_dies_is_started_again_and_the_lost_files_are_told(
    run: MakeRun, folder: Path, tmp_path: Path
) -> None:
    kill(run.services.s3)
    said = run.read_until("S3         answers again")
    assert "without the uploaded files" in said
    (tmp_path / "after.csv").write_text("900,Late,patience,N,9,red\n")
    uploaded = make(folder, "upload", FILE=str(tmp_path / "after.csv"))
    assert uploaded.returncode == 0, uploaded.stdout
    assert "1 row into heroes" in run.read_until("incoming/after.csv")


def test_a_redis_that_dies_serves_again_twice_and_then_ends_the_run_with_words(
    run: MakeRun, service: OverHttp
) -> None:
    """The last test on this run."""
    for _ in range(2):
        kill_and_see_it_serve_again(run, service, run.services.redis)
    kill(run.services.redis)
    said = run.rest()
    assert "herocache: Redis ended 3 times within 600 s, so it is not started again" in said
    assert run.process.returncode != 0
    services = run.services
    assert [server.pid for server in (services.app, *services.servers)] == [None] * 4
