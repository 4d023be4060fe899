"""The settings that lead to our servers: read from their file, given to a process."""

import os
from collections.abc import Mapping
from pathlib import Path

from chalicelib.config import API_AUTH
from local.machine import LOOPBACK


def read_settings(path: Path) -> dict[str, str]:
    """The `KEY=value` lines of a file. Empty where the file does not exist yet."""
    if not path.exists():
        return {}
    lines = (line.partition("=") for line in path.read_text(encoding="utf-8").splitlines())
    return {name: value for name, is_setting, value in lines if is_setting}


def environment_with(settings: Mapping[str, str]) -> dict[str, str]:
    """The environment of a process that runs the app with these settings."""
    # Settings in the caller's shell may name another database, cache or bucket: they are left out.
    names = ("DB_", "REDIS_", "AWS_", "UPLOAD_BUCKET", "RANGES_BUCKET")
    others = {name for name in os.environ if name.startswith(names)}
    kept = {name: value for name, value in os.environ.items() if name not in others}
    direct = os.environ.get("no_proxy") or os.environ.get("NO_PROXY")
    no_proxy = f"{direct},{LOOPBACK}" if direct else LOOPBACK
    # Nobody but this machine can send requests to the app here.
    return {API_AUTH: "none", **kept, **settings, "no_proxy": no_proxy, "PYTHONUNBUFFERED": "1"}
