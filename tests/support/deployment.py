"""A copy of this project, and its `make infra` to `make destroy`, run on an emulated account."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.support.certificates import Authority
from tests.support.client import ROOT
from tests.support.emulated_aws import REGION, Emulated

STAGE = "dev"
NAME = f"herocache-{STAGE}"
FUNCTIONS = {
    "api_handler": NAME,
    **{name: f"{NAME}-{name}" for name in ("storage", "employees", "ingest", "sync", "sync_range")},
}

Json = dict[str, Any]


def trust_store(home: Path) -> str:
    """A folder's URL with the certificates of an authority, where AWS has them."""
    bundle = home / REGION / f"{REGION}-bundle.pem"
    certificate = Authority(home).certificate
    bundle.parent.mkdir()
    bundle.write_bytes(certificate.read_bytes())
    return home.as_uri()


class Project:
    """What git would hand over, in a folder of its own: the commands write into it."""

    def __init__(self, home: Path, account: Emulated, trust_store: str) -> None:
        """`trust_store`: the URL of a folder, in place of AWS's."""
        self.home = home
        self.trust_store = trust_store
        self.account = account
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for name in filter(None, listed.split("\0")):
            if (ROOT / name).exists():
                (home / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, home / name)

    def make(self, command: str, stage: str = STAGE, typed: str = "") -> tuple[int, str]:
        """Exit code and everything said."""
        return self.run(["-m", "infra", command, stage], typed)

    def must(self, command: str, stage: str = STAGE, typed: str = "") -> str:
        """What it said, having gone well."""
        code, text = self.make(command, stage, typed)
        assert code == 0, text
        return text

    def run(self, words: list[str], typed: str = "") -> tuple[int, str]:
        done = subprocess.run(
            [sys.executable, *words],
            cwd=self.home,
            env=self.environment,
            input=typed,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=600,
            check=False,
        )
        return done.returncode, done.stdout

    def read(self, name: str) -> Json:
        content: Json = json.loads((self.home / name).read_text(encoding="utf-8"))
        return content

    def stage(self, stage: str = STAGE) -> Json:
        """Its part of .chalice/config.json."""
        part: Json = self.read(".chalice/config.json")["stages"][stage]
        return part

    def change(self, changes: Mapping[str, Any], stage: str = STAGE) -> None:
        """Some of what stands there, as somebody with an editor would."""
        config = self.read(".chalice/config.json")
        config["stages"][stage].update(changes)
        (self.home / ".chalice" / "config.json").write_text(json.dumps(config, indent=2) + "\n")

    def files(self) -> dict[str, bytes]:
        """Everything that the commands may write, by name."""
        written = [*(self.home / ".chalice").glob("*.json"), *self.home.glob("chalicelib/*.pem")]
        return {path.name: path.read_bytes() for path in sorted(written)}

    @property
    def environment(self) -> dict[str, str]:
        """Of each of its commands."""
        others = ("AWS_", "DB_", "REDIS_", "RDS_", "UPLOAD_", "API_", "PYTHON")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(others)}
        return {**kept, **self.account.environment, "RDS_TRUST_STORE": self.trust_store}
