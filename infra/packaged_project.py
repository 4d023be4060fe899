"""The folder that `chalice deploy` works in: the project, with the packages that the stage needs.

For every stage Chalice packages what requirements.txt in its project folder names, and every file
below chalicelib. So each deployment gets a folder of its own. It holds links to the project's
files, a copy of chalicelib without the bytecode that Python stored there, and a requirements.txt
without the drivers that the stage's settings leave unused.
"""

import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from infra.stage_files import ROOT, Stage

REQUIREMENTS = "requirements.txt"
CODE = "chalicelib"
BYTECODE = "__pycache__"
_OF_MYSQL = {"pymysql"}
_OF_REDIS = {"redis", "hiredis", "async-timeout"}


@contextmanager
def project_folder(stage: Stage) -> Iterator[Path]:
    """Such a folder for this stage. What Chalice writes into it is in the project afterwards."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for path in ROOT.iterdir():
            if path.name not in (REQUIREMENTS, CODE):
                (folder / path.name).symlink_to(path)
        shutil.copytree(ROOT / CODE, folder / CODE, ignore=shutil.ignore_patterns(BYTECODE))
        text = (ROOT / REQUIREMENTS).read_text(encoding="utf-8")
        (folder / REQUIREMENTS).write_text(needed(text, stage.environment), encoding="utf-8")
        yield folder


def needed(requirements: str, environment: Mapping[str, str]) -> str:
    """The text of requirements.txt without what functions with these settings never import. Empty
    where nothing is left: pip rejects a file of options alone."""
    unused: set[str] = set()
    if environment.get("DB_ENGINE") == "dataapi":
        unused = _OF_MYSQL if environment.get("REDIS_URL") else _OF_MYSQL | _OF_REDIS
    # Each package is a line, and lines with its hashes, which are indented.
    parts = re.split(r"(?m)^(?=[\w])", requirements)
    kept = [part for part in parts[1:] if _package(part) not in unused]
    return "".join([parts[0], *kept]) if kept else ""


def _package(line: str) -> str:
    return re.split(r"[^\w.-]", line, maxsplit=1)[0].lower()
