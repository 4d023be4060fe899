"""`make up`, `make down` and `make clean`: starts, stops and removes the servers of this folder."""

import shutil

from local.home_folder import Home, home_folder, stop
from local.machine import ROOT
from local.terminal import say

CACHES = (".pytest_cache", ".mypy_cache", ".ruff_cache", ".hypothesis")


def up() -> None:
    """`make up`: starts the servers in the background."""
    home = Home(home_folder())
    idle = [server for server in home.servers if server.pid is None]
    try:
        home.up()
        home.kept.touch()
    except BaseException:
        stop(*reversed(idle))
        raise
    say("uploads", f"{home.s3.uploads}, or `make upload FILE=heroes.csv`")
    say("settings", f"{home.env} (`make down` stops the servers)")


def down() -> None:
    """`make down`: stops everything of this folder. Data stays."""
    Home(home_folder()).down()
    say("down", "all of this folder is stopped; `make clean` removes the data too")


def clean() -> None:
    """`make clean`: stops everything, then removes data, settings, logs and the tools' caches."""
    home = Home(home_folder())
    home.down()
    home.remove()
    say("removed", f"data, settings and logs in {home.folder}")
    if home.folder.exists():
        left = ", ".join(sorted(path.name for path in home.folder.iterdir()))
        say("kept", f"{left} in {home.folder}")
    for path in [ROOT / name for name in CACHES if (ROOT / name).exists()]:
        shutil.rmtree(path, ignore_errors=True)
        say("removed", str(path))
    say("kept", f"{ROOT / '.venv'}")
