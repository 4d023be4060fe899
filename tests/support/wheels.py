"""Wheels of a package of our own, that pip and Chalice take for real ones."""

import hashlib
import zipfile
from pathlib import Path

NAME, VERSION = "herocachewheel", "1.0"


def make_wheel(folder: Path, text: str, tags: str = "py3-none-any") -> Path:
    """A wheel with one module, which holds `text`."""
    folder.mkdir(exist_ok=True)
    wheel = folder / f"{NAME}-{VERSION}-{tags}.whl"
    about = f"{NAME}-{VERSION}.dist-info"
    pure = "true" if tags.endswith("any") else "false"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(f"{NAME}.py", f"TEXT = {text!r}\n")
        archive.writestr(
            f"{about}/METADATA", f"Metadata-Version: 2.1\nName: {NAME}\nVersion: {VERSION}\n"
        )
        archive.writestr(
            f"{about}/WHEEL", f"Wheel-Version: 1.0\nRoot-Is-Purelib: {pure}\nTag: {tags}\n"
        )
        archive.writestr(f"{about}/RECORD", "")
    return wheel


def lock_of(*files: Path) -> str:
    """The line of a file of requirements, with the hashes of these files."""
    hashes = [f"--hash=sha256:{hashlib.sha256(file.read_bytes()).hexdigest()}" for file in files]
    return f"{NAME}=={VERSION} {' '.join(hashes)}\n"


def sources(folder: Path) -> dict[str, str]:
    """The environment in which pip finds what is in this folder, and nothing else."""
    return {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(folder)}
