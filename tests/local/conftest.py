"""Where requests go: a `chalice local` process, an app in this process, a `make run`."""

import hashlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import chalice.local
import pytest
import requests
from chalice.app import Chalice
from chalice.config import Config

from local.chalice_http import http_server
from local.machine import LOOPBACK
from tests.support.project_copy import MakeRun, copy_project, make
from tests.support.witness import Witness


@pytest.fixture
def url(server_url: str, witness: Witness) -> str:
    """Of a `chalice local` process on empty servers, without a slash at its end."""
    return server_url.rstrip("/")


@pytest.fixture
def session() -> Iterator[requests.Session]:
    """It keeps its connection."""
    with requests.Session() as session:
        session.trust_env = False
        yield session


def echo_app() -> Chalice:
    """It tells what it got."""
    app = Chalice(app_name="echo", configure_logs=False)

    @app.route("/echo", methods=["POST"], content_types=["*/*"])
    def echo() -> dict[str, Any]:
        request = app.current_request
        assert request is not None
        body = request.raw_body
        assert isinstance(body, bytes)
        return {"sha256": hashlib.sha256(body).hexdigest(), "headers": dict(request.headers)}

    return app


@pytest.fixture
def echo_url(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(chalice.local, "LocalDevServer", http_server.DevServer)
    server = chalice.local.create_local_server(echo_app(), Config(), LOOPBACK, 0)
    serving = threading.Thread(target=server.server.serve_forever, args=(0.02,))
    serving.start()
    yield f"http://{LOOPBACK}:{server.server.server_port}/echo"
    server.shutdown()
    serving.join()
    server.server.server_close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A copy of the project, with data and ports of its own."""
    copy = copy_project(tmp_path_factory.mktemp("project") / "a copy")
    yield copy
    make(copy, "down")


@pytest.fixture(scope="module")
def run(folder: Path) -> Iterator[MakeRun]:
    with MakeRun(folder) as run:
        yield run
