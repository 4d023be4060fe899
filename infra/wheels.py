"""The wheels that go into the package: those of requirements.txt, each compared with its hash.

Chalice asks pip once with requirements.txt, then, for another system, by name and version alone.
There pip compares no hash, and builds what has no wheel. So all wheels are downloaded first, and
Chalice's pip sees nothing else.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from infra.stage_files import ROOT
from infra.terminal import Refused

REQUIREMENTS = ROOT / "requirements.txt"
_PLATFORMS = {"arm64": "aarch64", "x86_64": "x86_64"}
# What pip says of a file that is another than the locked one.
_NOT_THE_LOCKED_ONE = "DO NOT MATCH THE HASHES"


@contextmanager
def downloaded(architecture: str, requirements: Path = REQUIREMENTS) -> Iterator[Path]:
    """A folder with the wheels for Lambda, and those for this machine, which Chalice wants first.
    Raises Refused where there is none, or where it is not the one whose hash is locked."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        download(folder, architecture, sys.version_info[:2], requirements)
        _pip(folder, requirements, [], "this machine")
        yield folder


def download(
    folder: Path, architecture: str, python: tuple[int, int], requirements: Path = REQUIREMENTS
) -> None:
    """Those for Lambda. Raises as `downloaded`."""
    machine, version = _PLATFORMS[architecture], f"{python[0]}.{python[1]}"
    options = ["--no-deps", "--implementation", "cp", "--python-version", version]
    for standard in ("manylinux_2_17", "manylinux2014"):
        options += ["--platform", f"{standard}_{machine}"]
    _pip(folder, requirements, options, f"{architecture}, Python {version}")


def nothing_but(folder: Path) -> dict[str, str]:
    """The environment in which pip finds these wheels alone."""
    # Wherever the user has other sources configured.
    chosen = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(folder), "PIP_CONFIG_FILE": os.devnull}
    return {**os.environ, **chosen}


def _pip(folder: Path, requirements: Path, options: list[str], target: str) -> None:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    command += ["--require-hashes", "--only-binary", ":all:", "--dest", str(folder), *options]
    done = subprocess.run(
        [*command, "--requirement", str(requirements)], capture_output=True, text=True, check=False
    )
    if not done.returncode:
        return
    if _NOT_THE_LOCKED_ONE in done.stderr:
        wrong = "was given a file that is not the one in requirements.txt"
        raise Refused(f"pip {wrong}, nothing was packaged: {done.stderr.strip()}")
    raise Refused(f"requirements.txt has no wheel for {target}: {done.stderr.strip()}")
