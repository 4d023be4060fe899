"""The lock: versions and hashes in the files requirements*.txt, for every Python and system."""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent

# The groups of pyproject.toml, each with all of the one before it.
FILES = {
    "runtime": "requirements.txt",
    "deploy": "requirements-deploy.txt",
    "local": "requirements-local.txt",
    "dev": "requirements-dev.txt",
}
LARGEST = "dev"
# Nothing here runs on Windows.
_WINDOWS = "sys_platform == 'win32'"
# Bad releases are mostly found within days. Nobody needs to be the first to install one.
YOUNGEST_RELEASE = "7 days"
OLDEST_PYTHON = "3.10"
# They stand in the files, so that a plain `pip install -r` and Chalice's own pip obey them too.
OPTIONS = "--require-hashes\n--only-binary :all:\n"


def write() -> int:
    """Writes the lock for what pyproject.toml names now. What is locked keeps its version."""
    return _write([])


def update() -> int:
    """The same, with the newest version of everything that is a week old."""
    return _write(["--upgrade"])


def locked(file: str) -> dict[str, str]:
    """What this file and the smaller ones lock: requirement without hashes → its whole text."""
    found: dict[str, str] = {}
    for name in FILES.values():
        found |= _entries((ROOT / name).read_text(encoding="utf-8"))
        if name == file:
            return found
    raise KeyError(file)


def name_of(requirement: str) -> str:
    """`redis` of `redis==8.1.0 ; python_version > '3'`."""
    return requirement.partition("==")[0]


def _write(options: list[str]) -> int:
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder) / "whole.txt"
        whole.write_text("".join(locked(FILES[LARGEST]).values()), encoding="utf-8")
        _compile(LARGEST, whole, options)
        entries = _entries(whole.read_text(encoding="utf-8"))
        smaller: set[str] = set()
        for group, file in FILES.items():
            part = Path(folder) / file
            _compile(group, part, ["--constraints", str(whole)])
            names = {name_of(each) for each in _entries(part.read_text(encoding="utf-8"))}
            ours = [text for each, text in entries.items() if name_of(each) in names - smaller]
            (ROOT / file).write_text(_head(group) + "".join(ours), encoding="utf-8")
            smaller |= names
    return 0


def _head(group: str) -> str:
    files = [file for other, file in FILES.items() if other != group]
    before = list(FILES).index(group)
    included = f"-r {files[before - 1]}\n" if before else ""
    return f"# Written by `make lock` for the group {group} of pyproject.toml.\n{OPTIONS}{included}"


def _compile(group: str, output: Path, options: list[str]) -> None:
    """Has uv write what the group needs. Versions that stand in `output` are kept."""
    command = [sys.executable, "-m", "uv", "pip", "compile", "--quiet"]
    command += ["--group", f"{ROOT / 'pyproject.toml'}:{group}", "--universal"]
    command += ["--python-version", OLDEST_PYTHON, "--exclude-newer", YOUNGEST_RELEASE]
    command += ["--generate-hashes", "--no-annotate", "--no-header", *options]
    subprocess.run([*command, "--output-file", str(output)], check=True, stdout=subprocess.DEVNULL)


def _entries(text: str) -> dict[str, str]:
    found = re.findall(r"(?m)^((\w\S*==[^\\\n]*?) *\\\n(?: +--hash=\S+(?: \\)?\n)+)", text)
    return {requirement: whole for whole, requirement in found if _WINDOWS not in requirement}
