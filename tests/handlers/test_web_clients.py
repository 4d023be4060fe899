"""JavaScript at the service: a page of another origin in headless Chromium, and Node's fetch.

Both are installed by `make proof`, which runs these tests.
"""

import functools
import http.client
import http.server
import json
import os
import random
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from local.machine import PORTS, port_is_free
from local.servers import App
from tests.conftest import running
from tests.support.client import OverHttp, hero
from tests.support.witness import Witness

pytestmark = pytest.mark.proof

# What a page may try: a form's content type needs no preflight, a header of its own does.
PAGE = """
<!doctype html><title>tries</title><pre id="said">nothing yet</pre>
<script>
const service = new URLSearchParams(location.search).get("service");
const remove = JSON.stringify({REQUEST: "delete", SQLS: [1]});
const read = JSON.stringify({REQUEST: "read", SQLS: [1, 2]});

async function tried(name, options) {
  try {
    const answer = await fetch(service, {method: "POST", ...options});
    if (answer.type === "opaque") return "sent, answer not shown";
    return {status: answer.status, cache: answer.headers.get("Cache-Status"),
            body: (await answer.json()).body};
  } catch (error) {
    return "refused by the browser";
  }
}

(async () => {
  const said = {
    blind: await tried("blind", {mode: "no-cors", body: remove}),
    plain: await tried("plain", {body: read}),
    preflighted: await tried("preflighted", {
      body: read, headers: {"Content-Type": "application/json", "Idempotency-Key": "k"},
    }),
    wrong: await tried("wrong", {body: "no JSON"}),
  };
  document.getElementById("said").textContent = JSON.stringify(said);
})();
</script>
"""

NODE = """
const service = process.env.SERVICE;
async function post(payload) {
  const answer = await fetch(service, {method: "POST", body: JSON.stringify(payload)});
  return {status: answer.status, cache: answer.headers.get("cache-status"), ...await answer.json()};
}
(async () => {
  const {ids} = await post({REQUEST: "write", SQLS: [JSON.parse(process.env.HERO)]});
  const answers = [];
  for (let i = 0; i < 20; i++) answers.push(await post({REQUEST: "read", SQLS: ids}));
  const missing = await fetch(new URL("/nowhere", service));
  console.log(JSON.stringify({answers, missing: [missing.status, await missing.json()]}));
})();
"""


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Nothing."""


class ReboundHandler(QuietHandler):
    """A host whose name leads here for the page and to the service after that."""

    def __init__(self, service: str, *arguments: Any, **options: Any) -> None:
        self._service = urlsplit(service).netloc
        super().__init__(*arguments, **options)

    def do_POST(self) -> None:
        """The same bytes go to the service, `Host` and `Origin` among them."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        with closing(http.client.HTTPConnection(self._service, timeout=10)) as connection:
            connection.request("POST", self.path, body, dict(self.headers))
            answer = connection.getresponse()
            content = answer.read()
        self.send_response(answer.status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@contextmanager
def site(folder: Path, handler: Callable[..., QuietHandler] = QuietHandler) -> Iterator[str]:
    """The origin of another server on this machine, which has the page."""
    (folder / "page.html").write_text(PAGE, encoding="utf-8")
    in_folder = functools.partial(handler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), in_folder) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def serving(home: Path, settings: Mapping[str, str]) -> Iterator[str]:
    port = next(port for port in random.sample(PORTS, len(PORTS)) if port_is_free(port))
    with running(App(home, port, settings)) as app:
        yield f"{app.url}/"


def said_by_page(origin: str, service: str, profile: Path, *options: str) -> Any:
    command = [
        *("chromium", "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"),
        *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
        *options,
        *(f"--user-data-dir={profile}", "--virtual-time-budget=20000", "--dump-dom"),
        f"{origin}/page.html?service={service}",
    ]
    ran = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
    _, _, rest = ran.stdout.partition('<pre id="said">')
    return json.loads(rest.partition("</pre>")[0])


@pytest.fixture
def rows(witness: Witness, server_url: str) -> list[object]:
    """Heroes 1 and 2, in the cache."""
    service = OverHttp(server_url)
    service.write([{"id": 1, **hero()}, {"id": 2, **hero()}])
    return list(service.read([1, 2]).rows)


def test_a_page_of_another_origin_changes_and_reads_nothing(
    rows: list[object], witness: Witness, server_url: str, tmp_path: Path
) -> None:
    with site(tmp_path) as origin:
        said = said_by_page(origin, server_url, tmp_path / "profile")

    assert said == {
        "blind": "sent, answer not shown",
        "plain": "refused by the browser",
        "preflighted": "refused by the browser",
        "wrong": "refused by the browser",
    }
    assert witness.count() == len(rows)


def test_a_page_whose_host_name_is_rebound_to_the_service_deletes_nothing(
    rows: list[object], witness: Witness, server_url: str, tmp_path: Path
) -> None:
    """Page and service then have one origin, so that the browser stops nothing."""
    with site(tmp_path, functools.partial(ReboundHandler, server_url)) as origin:
        rebound = origin.replace("127.0.0.1", "evil.example")
        rule = "--host-resolver-rules=MAP evil.example 127.0.0.1"
        said = said_by_page(rebound, f"{rebound}/", tmp_path / "profile", rule)

    assert witness.count() == len(rows)
    for way in ("blind", "plain", "preflighted", "wrong"):
        assert said[way]["status"] == 421
        assert said[way]["body"]["error"] == "MisdirectedRequest"


def test_a_page_that_is_allowed_reads_answers_errors_and_headers(
    rows: list[object], environment: Mapping[str, str], tmp_path: Path
) -> None:
    with site(tmp_path) as origin:
        settings = {**environment, "CORS_ORIGINS": f"https://example.com,{origin}"}
        with serving(tmp_path / "app", settings) as service:
            OverHttp(service).read([1, 2])
            said = said_by_page(origin, service, tmp_path / "profile")
            left = OverHttp(service).read([1, 2])

    assert said["blind"] == "sent, answer not shown"
    assert left.missing == [1], "an allowed page may delete"
    for way in ("plain", "preflighted"):
        assert said[way]["status"] == 200
        assert said[way]["body"] == rows[1:]
        assert said[way]["cache"].startswith("herocache; ")
    assert (said["wrong"]["status"], said["wrong"]["body"]["error"]) == (400, "BadRequest")


def test_node_gets_what_it_wrote_over_a_kept_connection(witness: Witness, server_url: str) -> None:
    environment = {**os.environ, "SERVICE": server_url, "HERO": json.dumps(hero(name="Zoë 🦊"))}

    ran = subprocess.run(
        ["node", "-e", NODE], check=True, capture_output=True, timeout=60, env=environment
    )

    said = json.loads(ran.stdout)
    for answer in said["answers"]:
        assert answer["status"] == answer["statusCode"] == 200
        assert answer["body"][0]["name"] == "Zoë 🦊"
    assert said["answers"][-1]["cache"] == 'herocache; hit; detail="1 of 1"'
    status, body = said["missing"]
    assert (status, body["statusCode"], body["body"]["error"]) == (404, 404, "NotFound")
