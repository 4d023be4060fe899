"""Chalice packages only files whose hashes are locked, also for another architecture."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from infra import chalice_cli, wheels
from infra.stage_files import Stage
from infra.terminal import Refused
from tests.support.stage_life import NATIVE
from tests.support.wheels import NAME, lock_of, make_wheel, sources

PYTHON = f"cp{sys.version_info[0]}{sys.version_info[1]}"
MACHINES = {"x86_64": "x86_64", "arm64": "aarch64"}
FOREIGN = next(name for name in MACHINES if name != NATIVE)

# What `chalice deploy` does with requirements.txt.
PACKAGE = """
import sys
from chalice.deploy.packager import DependencyBuilder, PipRunner, SubprocessPip
from chalice.utils import OSUtils

architecture, abi, requirements, folder = sys.argv[1:]
tools = OSUtils()
builder = DependencyBuilder(tools, PipRunner(SubprocessPip(tools), tools), architecture)
builder.build_site_packages(abi, requirements, folder)
"""


def wheel(folder: Path, text: str, architecture: str) -> Path:
    tags = f"{PYTHON}-{PYTHON}-manylinux2014_{MACHINES[architecture]}"
    return make_wheel(folder, text, tags)


def packaged(requirements: Path, folder: Path, environment: dict[str, str]) -> str:
    """The module that Chalice packages for the other architecture."""
    subprocess.run(
        [sys.executable, "-c", PACKAGE, FOREIGN, PYTHON, str(requirements), str(folder)],
        env=environment,
        check=True,
        timeout=60,
    )
    return (folder / f"{NAME}.py").read_text()


def test_chalice_packages_the_wheels_that_were_compared_with_the_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    genuine = [wheel(tmp_path / "genuine", "genuine", machine) for machine in MACHINES]
    requirements = tmp_path / "requirements.txt"
    requirements.write_text(lock_of(*genuine))
    # Chalice's first question is for this machine. The second has no hash.
    wheel(tmp_path / "source", "genuine", NATIVE)
    wheel(tmp_path / "source", "tampered", FOREIGN)

    for name, value in sources(tmp_path / "genuine").items():
        monkeypatch.setenv(name, value)
    with wheels.downloaded(FOREIGN, requirements) as folder:
        monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "source"))
        text = packaged(requirements, tmp_path / "package", wheels.nothing_but(folder))

    assert text == "TEXT = 'genuine'\n"
    # Without that, it takes whatever comes.
    text = packaged(requirements, tmp_path / "other", dict(os.environ))
    assert text == "TEXT = 'tampered'\n"


def test_a_tampered_wheel_is_refused_before_anything_is_created(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    requirements = tmp_path / "requirements.txt"
    requirements.write_text(lock_of(wheel(tmp_path / "genuine", "genuine", FOREIGN)))
    wheel(tmp_path / "source", "tampered", FOREIGN)
    for name, value in sources(tmp_path / "source").items():
        monkeypatch.setenv(name, value)

    with (
        pytest.raises(Refused, match=r"not the one in requirements\.txt, nothing was packaged"),
        wheels.downloaded(FOREIGN, requirements),
    ):
        pass


def test_a_deployment_lets_chalice_see_nothing_but_these_wheels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    program = tmp_path / "python"
    program.write_text('#!/bin/sh\necho "$PIP_NO_INDEX $PIP_FIND_LINKS $PIP_CONFIG_FILE"\n')
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    chalice_cli.deploy(Stage("dev"), tmp_path / "wheels")
    assert f"1 {tmp_path / 'wheels'} {os.devnull}" in capfd.readouterr().out


def test_a_package_that_is_not_locked_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel(tmp_path / "source", "genuine", FOREIGN)
    requirements = tmp_path / "requirements.txt"
    requirements.write_text(f"{NAME}==1.0\n")
    for name, value in sources(tmp_path / "source").items():
        monkeypatch.setenv(name, value)
    with pytest.raises(Refused, match="Hashes are required"):
        wheels.download(tmp_path / "to", FOREIGN, sys.version_info[:2], requirements)
