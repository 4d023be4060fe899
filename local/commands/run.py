"""`make run`: starts the servers, serves the app in the foreground, and stops everything at the
end.

Servers that `make up` started stay up.
"""

import os
import signal
import subprocess

from local.home_folder import Home, home_folder, locked, stop
from local.restart_servers import Watch
from local.schedule import Schedule
from local.servers import App, ServerError
from local.terminal import say

POLL_SECONDS = 0.5

NEWCOMER = '{"hero": "Newcomer", "power": "patience", "name": "You", "xp": 1, "color": "green"}'
TRY_IT = f"""
herocache serves at URL   Ctrl-C stops it. Try:

  curl URL/ -d '{{"REQUEST": "read", "SQLS": [1, 2, 3]}}'
  curl URL/ -d '{{"REQUEST": "write", "SQLS": [{NEWCOMER}]}}'
  make upload FILE=seed/heroes.csv

Any S3 client may upload to UPLOADS, with the settings in ENV
"""


def run() -> int:
    """Serves until told to stop. Returns the exit code. Raises ServerError where it cannot
    begin."""
    home = Home(home_folder())
    try:
        with locked(home.run_lock, wait=False) as lock:
            os.ftruncate(lock, 0)
            os.pwrite(lock, str(os.getpid()).encode(), 0)
            return serve(home)
    except BlockingIOError:
        where = f" at {home.app.url}" if home.app.pid else ""
        raise ServerError(
            f"another `make run` (process {home.living_run()}) serves this folder{where}: "
            "stop it there with Ctrl-C, or from here with `make down`"
        ) from None


def serve(home: Home) -> int:
    """Starts everything, waits, stops everything. Returns the exit code."""
    parent = os.getppid()
    try:
        if home.app.pid is not None:
            say("app", "stopping the one that a killed `make run` left behind")
            home.app.stop()
        app = App(home.app.home, asked_port())
        home.up(app)
        print(words_for(home, app), flush=True)
        return wait_for(app, home, parent)
    except KeyboardInterrupt:
        return 0
    finally:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        stop(home.app)
        if home.kept.exists():
            say("servers", "stay up, as `make up` left them")
        else:
            stop(*reversed(home.servers))


def words_for(home: Home, app: App) -> str:
    """The text that says what to try now."""
    env, uploads = str(home.env), home.s3.uploads
    return TRY_IT.replace("URL", app.url).replace("UPLOADS", uploads).replace("ENV", env)


def wait_for(app: App, home: Home, parent: int) -> int:
    """Waits until the app ends. Returns its exit code, and 1 in place of 0, because it should not
    end.

    Meanwhile it prints outcomes of uploads, restarts servers that died, and calls the function
    `sync` by its schedule. Raises
    KeyboardInterrupt where `parent`, the `make` that called us, has ended, and ServerError where a
    server cannot be restarted."""
    watch, schedule = Watch(home), Schedule(home)
    try:
        while os.getppid() == parent:
            watch.tell_outcomes()
            watch.mend()
            schedule.keep()
            try:
                code = app.wait(POLL_SECONDS)
            except subprocess.TimeoutExpired:
                continue
            say("app", f"ended by itself with exit code {code}")
            return code or 1
    finally:
        schedule.end()
    raise KeyboardInterrupt


def asked_port() -> int | None:
    """PORT of the environment, or None. Raises ServerError where it is not a port."""
    text = os.environ.get("PORT", "")
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 65_535):
        raise ServerError(f"PORT must be a number from 1 to 65535, got {text!r}")
    return int(text)
