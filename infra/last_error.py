"""The last error of the commands on a stage, which `make report` shows: infra/<stage>.error."""

import os
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from infra.stage_files import ROOT


def keep(command: str, stage: str, reason: str) -> None:
    """Writes it for a stage that has files of its own. A slip in a name leaves no file."""
    path = _file_of(stage)
    if not any(path.with_suffix(end).exists() for end in (".json", ".env")):
        return
    # Where the folder cannot be written, the command has said all there is to say.
    with suppress(OSError):
        path.unlink(missing_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(f"{datetime.now():%Y-%m-%d %H:%M:%S} make {command}: {reason}\n")


def of(stage: str) -> str:
    """When it was, of which command, and its text; empty where there was none."""
    path = _file_of(stage)
    return path.read_text(encoding="utf-8").strip() if path.exists() else ""


def _file_of(stage: str) -> Path:
    return ROOT / "infra" / f"{stage}.error"
