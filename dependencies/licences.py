"""`make licences`: writes docs/licences.md from what the locked packages say of themselves."""

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from email.message import Message
from importlib.metadata import PackageNotFoundError, metadata
from importlib.metadata import PathDistribution as Distribution
from pathlib import Path
from zipfile import Path as ZipPath

from dependencies.lock import FILES, ROOT, locked, name_of

LIST = ROOT / "docs" / "licences.md"
_HEAD = """# Licences of the Python packages

Written by `make licences` from what each package says of itself. The lock has the versions.
"""
_SECTIONS = {
    "runtime": "What Lambda gets. Chalice adds a part of `chalice`; Lambda has its own `boto3`",
    "deploy": "To deploy",
    "local": "For `make run` and what works beside it",
    "dev": "For tests, lint and benchmarks",
}
_CLASSIFIER = "License :: OSI Approved :: "


def write() -> int:
    LIST.write_text(_HEAD + "".join(_sections()), encoding="utf-8")
    print(f"licences   {LIST.relative_to(ROOT)} is written")
    return 0


def licence_of(described: Message) -> str:
    """An SPDX expression where the package has one, else its own words."""
    if expression := described.get("License-Expression"):
        return str(expression)
    classifiers = [str(each) for each in described.get_all("Classifier") or ()]
    named = [each.removeprefix(_CLASSIFIER) for each in classifiers if each.startswith(_CLASSIFIER)]
    first_line = str(described.get("License") or "").strip().partition("\n")[0]
    return ", ".join(named) or first_line or "not said"


def _sections() -> Iterator[str]:
    smaller: set[str] = set()
    for group, title in _SECTIONS.items():
        texts = locked(FILES[group])
        names = {name_of(each) for each in texts} - smaller
        yield f"\n## {title}\n\n| package | licence |\n|---|---|\n"
        for name in sorted(names):
            yield f"| {name} | {licence_of(_described(name, texts))} |\n"
        smaller |= names


def _described(name: str, texts: dict[str, str]) -> Message:
    """The metadata, of the wheel where this Python or system does not need the package."""
    try:
        return metadata(name)  # type: ignore[return-value]
    except PackageNotFoundError:
        [requirement, *_] = (each for each in texts if name_of(each) == name)
    with tempfile.TemporaryDirectory() as folder:
        hashed = Path(folder) / "requirements.txt"
        pinned, marker = requirement, requirement.partition(" ;")[1:]
        hashed.write_text(texts[pinned].replace("".join(marker), "", 1), encoding="utf-8")
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        command += ["--only-binary", ":all:", "--require-hashes", "--dest", folder]
        subprocess.run([*command, "-r", str(hashed)], check=True)
        [wheel] = Path(folder).glob("*.whl")
        [information] = (each for each in ZipPath(wheel).iterdir() if each.name.endswith("-info"))
        return Distribution(information).metadata  # type: ignore[return-value]
