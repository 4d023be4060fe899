"""`make run`: servers up, the app in the foreground, and in the end everything stopped again.

Servers that `make up` started stay up.
"""

import os
import signal
import subprocess

from local.app import App
from local.process import ServerError
from local.services import Services, home_folder, locked, say, stop
from local.watch import Watch

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
    """Serve until told to stop; the exit code. Raises ServerError when it cannot begin."""
    services = Services(home_folder())
    try:
        with locked(services.run_lock, wait=False) as lock:
            os.ftruncate(lock, 0)
            os.pwrite(lock, str(os.getpid()).encode(), 0)
            return serve(services)
    except BlockingIOError:
        where = f" at {services.app.url}" if services.app.pid else ""
        raise ServerError(
            f"another `make run` (process {services.living_run()}) serves this folder{where}: "
            "stop it there with Ctrl-C, or from here with `make down`"
        ) from None


def serve(services: Services) -> int:
    """From the first start to the last stop."""
    parent = os.getppid()
    try:
        if services.app.pid is not None:
            say("app", "stopping the one that a killed `make run` left behind")
            services.app.stop()
        app = App(services.app.home, asked_port())
        services.up(app)
        print(words_for(services, app), flush=True)
        return wait_for(app, services, parent)
    except KeyboardInterrupt:
        return 0
    finally:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        stop(services.app)
        if services.kept.exists():
            say("servers", "stay up, as `make up` left them")
        else:
            stop(*reversed(services.servers))


def words_for(services: Services, app: App) -> str:
    """What to do now."""
    env, uploads = str(services.env), services.s3.uploads
    return TRY_IT.replace("URL", app.url).replace("UPLOADS", uploads).replace("ENV", env)


def wait_for(app: App, services: Services, parent: int) -> int:
    """Until the app ends, which it should not, or `parent`, the `make` around us, does:
    KeyboardInterrupt. Meanwhile says what becomes of uploads, and starts servers that died again.
    Raises ServerError where that does not help."""
    watch = Watch(services)
    while os.getppid() == parent:
        watch.tell_outcomes()
        watch.mend()
        try:
            code = app.wait(POLL_SECONDS)
        except subprocess.TimeoutExpired:
            continue
        say("app", f"ended by itself with exit code {code}")
        return code or 1
    raise KeyboardInterrupt


def asked_port() -> int | None:
    """PORT of the environment. Raises ServerError when it is no port."""
    text = os.environ.get("PORT", "")
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 65_535):
        raise ServerError(f"PORT must be a number from 1 to 65535, got {text!r}")
    return int(text)
