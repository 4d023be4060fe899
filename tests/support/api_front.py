"""What API Gateway does for a stage without authentication: HTTP requests become events of the
function, its answers become responses."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from bench.api_gateway_event import rest_event

Json = dict[str, Any]


@contextmanager
def api_front(stage: str, call: Callable[[Json], Json]) -> Iterator[str]:
    """The URL of the stage. `call`: calls the function, one request at a time."""
    turn = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            path = self.path.removeprefix(f"/{stage}").partition("?")[0] or "/"
            with turn:
                answer = call(_event(self.command, path, body.decode(), self.headers))
            content = answer["body"].encode()
            self.send_response(answer["statusCode"])
            for name, value in answer["headers"].items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST

        def log_message(self, *_: object) -> None:
            """Nobody reads it."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/{stage}/"
        server.shutdown()
        thread.join()


def _event(method: str, path: str, body: str, headers: Message) -> Json:
    event = rest_event(body)
    place = {"httpMethod": method, "resourcePath": path}
    event["requestContext"] = {**event["requestContext"], **place}
    return {**event, "httpMethod": method, "path": path, "headers": dict(headers.items())}
