"""The folder that `chalice deploy` works in: the project, with the packages that the stage needs.

For every stage Chalice packages what requirements.txt in its project folder names, and every file
below chalicelib. So each deployment gets a folder of its own. It holds links to the project's
files, a copy of chalicelib without the bytecode that Python stored there, and a requirements.txt
without the drivers that the stage's settings leave unused. Where the functions' environment has
secrets, its .chalice/config.json has them too, which that of the project never does.
"""

import re
import shutil
import tempfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from infra.adopted_settings import secrets_of
from infra.stage_files import CHALICE, CONFIG, ROOT, Stage, read_json, write_json

REQUIREMENTS = "requirements.txt"
CODE = "chalicelib"
# In CHALICE. Chalice writes into them, and they may not be there yet.
WRITTEN = ("deployed", "deployments")
BYTECODE = "__pycache__"
_OF_MYSQL = {"pymysql"}
_OF_REDIS = {"redis", "hiredis", "async-timeout"}


@contextmanager
def project_folder(stage: Stage) -> Iterator[Path]:
    """Such a folder for this stage. What Chalice writes into it is in the project afterwards."""
    secrets = secrets_of(stage.name) if stage.is_adopted else {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)  # which only its owner may read
        made = (REQUIREMENTS, CODE, *((CHALICE.name,) if secrets else ()))
        _link(folder, ROOT, made)
        if secrets:
            _add_config(folder / CHALICE.name, stage, secrets)
        shutil.copytree(ROOT / CODE, folder / CODE, ignore=shutil.ignore_patterns(BYTECODE))
        text = (ROOT / REQUIREMENTS).read_text(encoding="utf-8")
        (folder / REQUIREMENTS).write_text(needed(text, stage.environment), encoding="utf-8")
        yield folder


def _link(folder: Path, source: Path, left_out: Collection[str]) -> None:
    for path in source.iterdir():
        if path.name not in left_out:
            (folder / path.name).symlink_to(path)


def _add_config(folder: Path, stage: Stage, secrets: Mapping[str, str]) -> None:
    folder.mkdir()
    for name in WRITTEN:
        (CHALICE / name).mkdir(exist_ok=True)
    _link(folder, CHALICE, (CONFIG.name,))
    config = read_json(CONFIG)
    config["stages"][stage.name]["environment_variables"] |= secrets
    write_json(folder / CONFIG.name, config)


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
