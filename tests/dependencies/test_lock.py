"""What is installed is what was locked: no other file, nothing that builds itself."""

import json
import re
import subprocess
import sys
import tarfile
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import distribution
from pathlib import Path
from typing import ClassVar

import pytest

from dependencies import audit, licences
from dependencies.licences import LIST, licence_of
from dependencies.lock import FILES, OPTIONS, locked, name_of
from local.machine import ROOT
from tests.support.wheels import NAME, VERSION, lock_of, make_wheel, sources

Install = Callable[[str, Path], subprocess.CompletedProcess[str]]


@pytest.fixture
def install(tmp_path: Path) -> Install:
    """Runs local/install.sh where requirements-deploy.txt is this text. pip finds the files of a
    folder, and installs nothing."""
    project = tmp_path / "project"
    (project / ".venv" / "bin").mkdir(parents=True)
    (project / "local").mkdir()
    (project / "local" / "install.sh").write_text((ROOT / "local" / "install.sh").read_text())
    (project / "requirements.txt").write_text("")
    python = project / ".venv" / "bin" / "python"
    python.write_text(
        f'#!/bin/sh\nfor last; do :; done\n[ "$3" = install ] && set -- "$@" --dry-run\n'
        f'exec {sys.executable} "$@"\n'
    )
    python.chmod(0o755)

    def run(requirements: str, folder: Path) -> subprocess.CompletedProcess[str]:
        (project / "requirements-deploy.txt").write_text(requirements)
        return subprocess.run(
            ["bash", "local/install.sh", "deploy"],
            cwd=project,
            env={"PATH": "/usr/bin:/bin", **sources(folder)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run


def test_a_file_with_the_locked_hash_is_installed_and_another_is_refused(
    install: Install, tmp_path: Path
) -> None:
    lock = lock_of(make_wheel(tmp_path / "genuine", "genuine"))
    make_wheel(tmp_path / "tampered", "tampered")

    assert install(lock, tmp_path / "genuine").returncode == 0
    rejected = install(lock + "# again\n", tmp_path / "tampered")

    assert rejected.returncode == 1
    assert "THESE PACKAGES DO NOT MATCH THE HASHES" in rejected.stderr
    assert "pip could not install requirements-deploy.txt" in rejected.stderr


def test_a_package_without_a_hash_is_refused(install: Install, tmp_path: Path) -> None:
    make_wheel(tmp_path / "genuine", "genuine")
    rejected = install(f"{NAME}=={VERSION}\n", tmp_path / "genuine")
    assert rejected.returncode == 1
    assert "Hashes are required in --require-hashes mode" in rejected.stderr


def test_a_source_archive_is_not_built_even_with_the_locked_hash(
    install: Install, tmp_path: Path
) -> None:
    files = {
        "backend.py": f"open({str(tmp_path / 'ran')!r}, 'w')\n",
        "pyproject.toml": '[build-system]\nrequires = []\nbuild-backend = "backend"\n'
        'backend-path = ["."]\n',
    }
    archive = tmp_path / f"{NAME}-{VERSION}.tar.gz"
    with tarfile.open(archive, "w:gz") as file:
        for name, text in files.items():
            (tmp_path / name).write_text(text)
            file.add(tmp_path / name, f"{NAME}-{VERSION}/{name}")

    rejected = install(lock_of(archive), tmp_path)

    assert rejected.returncode == 1
    assert not (tmp_path / "ran").exists()


def test_every_file_asks_for_hashes_and_wheels_also_of_a_pip_that_is_run_by_hand() -> None:
    for file in FILES.values():
        text = (ROOT / file).read_text(encoding="utf-8")
        assert OPTIONS in text
        locks = [line for line in text.splitlines() if line[0] not in "#- "]
        assert all(re.fullmatch(r"[\w.-]+==[\w.]+( ; .+)? \\", line) for line in locks), locks
        assert len(re.findall(r"(?m)\\\n +--hash=sha256:[0-9a-f]{64}", text)) >= len(locks) > 0


def test_setuptools_and_pip_are_locked_and_have_none_of_the_holes_that_we_know_of() -> None:
    versions = dict(each.partition(" ")[0].split("==") for each in locked(FILES["deploy"]))
    # CVE-2025-47273, and GHSA-4xh5-x5gv-qwph with CVE-2026-1703.
    assert tuple(map(int, versions["setuptools"].split("."))) >= (78, 1, 1)
    assert tuple(map(int, versions["pip"].split("."))) >= (26, 0)


# --- licences -------------------------------------------------------------------------------------

# They ask for nothing but their own text beside a copy.
FREE = r"MIT( License)?|Apache-2\.0|Apache Software License|BSD-[23]-Clause"


def listed() -> dict[str, str]:
    return dict(re.findall(r"(?m)^\| ([\w.-]+) \| (.+) \|$", LIST.read_text(encoding="utf-8")))


def test_the_list_of_licences_has_every_locked_package() -> None:
    names = {name_of(each) for each in locked(FILES["dev"])}
    assert set(listed()) - {"package"} == names, "run make licences"


def test_what_is_shipped_is_under_a_licence_that_lets_everybody_ship_it() -> None:
    shipped = {name_of(each) for each in locked(FILES["runtime"])} | {"chalice"}
    # Python 3.11.3 and newer do not need it.
    for name in shipped - {"async-timeout"}:
        said = licence_of(distribution(name).metadata)  # type: ignore[arg-type]
        assert listed()[name] == said, "run make licences"
    for name in shipped:
        assert re.fullmatch(FREE, listed()[name]), f"{name}: {listed()[name]}"


def test_a_list_that_is_written_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(licences, "ROOT", tmp_path)
    monkeypatch.setattr(licences, "LIST", tmp_path / "licences.md")
    monkeypatch.setattr(licences, "_sections", lambda: iter(["| all |"]))
    assert licences.write() == 0
    assert (tmp_path / "licences.md").read_text(encoding="utf-8").endswith("| all |")
    assert capsys.readouterr().out == "licences   licences.md is written\n"


# --- audit ----------------------------------------------------------------------------------------


class _Osv(BaseHTTPRequestHandler):
    """Knows of one hole, in redis."""

    HOLE: ClassVar = {"id": "GHSA-0000-0000-0000", "modified": "2026-01-01T00:00:00Z"}

    def do_POST(self) -> None:
        queries = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["queries"]
        of_redis = {"vulns": [self.HOLE]}
        self._answer(
            {"results": [of_redis if q["package"]["name"] == "redis" else {} for q in queries]}
        )

    def do_GET(self) -> None:
        self._answer({**self.HOLE, "summary": "a hole", "affected": []})

    def _answer(self, answer: object) -> None:
        content = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def osv() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Osv) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.proof  # asks PyPI
def test_an_audit_without_its_data_is_not_taken_for_a_clean_one(
    capfd: pytest.CaptureFixture[str],
) -> None:
    assert audit.run("http://127.0.0.1:9") == audit.NOT_AUDITED
    said = capfd.readouterr().err
    assert "NOT AUDITED: http://127.0.0.1:9 or PyPI did not answer" in said


@pytest.mark.proof  # asks PyPI
def test_a_known_hole_is_named_and_fails(osv: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert audit.run(osv) == audit.HOLES
    assert re.search(r"redis \d+\.\d+\.\d+ has 1 known vulnerability", capfd.readouterr().out)
