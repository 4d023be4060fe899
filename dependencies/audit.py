"""`make audit`: asks OSV (osv.dev) for known holes in everything that is locked.

uv does the asking. It audits projects, so it gets one that depends on the lock.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from dependencies.lock import FILES, LARGEST, OLDEST_PYTHON, locked

OSV = "https://api.osv.dev"
# Exit codes. The last one is never taken for the first: nobody has looked.
CLEAN, HOLES, NOT_AUDITED = 0, 1, 3


def run(service: str = OSV) -> int:
    """Prints what OSV knows. Returns one of the codes above."""
    project = (
        f'[project]\nname = "locked"\nversion = "0"\nrequires-python = ">={OLDEST_PYTHON}"\n'
        f"dependencies = {json.dumps(list(locked(FILES[LARGEST])))}\n"
    )
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "pyproject.toml").write_text(project, encoding="utf-8")
        command = [sys.executable, "-m", "uv", "audit", "--preview-features", "audit-command"]
        command += ["--directory", folder, "--service-url", service]
        code = subprocess.run(command, check=False).returncode
    if code in (CLEAN, HOLES):
        return code
    print(f"NOT AUDITED: {service} or PyPI did not answer, see above", file=sys.stderr)
    return NOT_AUDITED
