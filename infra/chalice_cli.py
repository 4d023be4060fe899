"""Runs the real `chalice deploy` and `chalice delete`."""

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from infra.packaged_project import project_folder
from infra.stage_files import ROOT, Stage
from infra.terminal import Refused, say
from infra.wheels import nothing_but

# Chalice prints this, and goes on, where it cannot package what requirements.txt names.
_INCOMPLETE = "Could not install dependencies"


def deploy(stage: Stage, wheels: Path) -> None:
    """Deploys with the packages in the folder `wheels`. Raises Refused where Chalice fails, or has
    left out a package."""
    with project_folder(stage) as folder:
        lines = _run(stage, "deploy", folder, nothing_but(wheels))
    if any(_INCOMPLETE in line for line in lines):
        raise Refused(
            "Chalice left a package out (see above): the functions that are deployed now do not"
            " work; make requirements.txt resolve and run make deploy again"
        )


def delete(stage: Stage) -> None:
    """Deletes what Chalice deployed, if anything. Raises Refused where Chalice fails."""
    if stage.deployed():
        _run(stage, "delete", ROOT)
    else:
        say("chalice", f"nothing of {stage.name} is deployed")


def _run(
    stage: Stage, verb: str, folder: Path, environment: Mapping[str, str] | None = None
) -> list[str]:
    """Runs Chalice in `folder` and prints its output while it comes. Returns the lines."""
    # Not .venv/bin/chalice: its first line is wrong once the project folder has been moved.
    # -B: it imports the app, and bytecode stored below chalicelib would be packaged too.
    start = "import sys; from chalice.cli import main; sys.exit(main())"
    command = [sys.executable, "-B", "-c", start]
    command += ["--project-dir", str(folder), verb, "--stage", stage.name]
    lines = []
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line)
            print(f"  {line}", end="", flush=True)
    if process.returncode:
        raise Refused(f"chalice {verb} failed, see above; run the same make command again then")
    return lines
