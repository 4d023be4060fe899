"""How our server comes into `chalice local`, and why the deployed app never has it."""

import socket
import subprocess

import pytest

from local.chalice_http import replace_server
from local.machine import LOOPBACK, ROOT
from tests.house.test_house import run_python


@pytest.mark.parametrize("name", replace_server.PARTS)
def test_another_chalice_is_refused_and_what_differs_is_named(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def with_other_parameters(renamed: object) -> None: ...

    monkeypatch.setattr(f"chalice.local.{name}", with_other_parameters)
    with pytest.raises(SystemExit, match=rf"has another {name}.* than 1\.34\.0"):
        replace_server.install()
    monkeypatch.delattr(f"chalice.local.{name}")
    with pytest.raises(SystemExit, match=rf"has another {name}.* than 1\.34\.0"):
        replace_server.install()


def test_the_terminal_shows_warnings_only_of_redis_and_the_aws_client() -> None:
    names = ("herocache.redis", "botocore.credentials", "herocache.generations")
    code = f"""
import logging, app
logging.getLogger().setLevel("INFO")
def levels(): return [logging.getLogger(name).getEffectiveLevel() for name in {names}]
print(levels())
from local.chalice_http import replace_server
replace_server.install()
print(levels())
"""
    on_lambda, on_a_laptop = run_python(code, {"API_AUTH": "none"}).splitlines()
    assert on_lambda == "[20, 20, 20]"
    assert on_a_laptop == "[30, 30, 20]"


def test_a_port_that_is_taken_is_told_with_words() -> None:
    """Chalice's reloader makes the server in a thread of another process."""
    with socket.create_server((LOOPBACK, 0)) as taken:
        port = str(taken.getsockname()[1])
        command = [str(ROOT / ".venv/bin/chalice"), "--project-dir", str(ROOT), "local"]
        started = [
            subprocess.Popen([*command, "--port", port, *option], stderr=subprocess.PIPE, text=True)
            for option in ([], ["--no-autoreload"])
        ]
        for process in started:
            _, said = process.communicate(timeout=60)
            assert said.startswith(f"herocache: cannot listen on port {port} of {LOOPBACK}: Addres")
            assert said.count("\n") == 1


def test_the_deployed_app_never_asks_for_it() -> None:
    code = "import sys, app; print({'local', 'chalice.local'} & set(sys.modules))"

    assert run_python(code, {}) == "set()\n"
    assert "'chalice.local'" in run_python(
        code, {"AWS_CHALICE_CLI_MODE": "true", "API_AUTH": "none"}
    )
