"""An HTTP server for `chalice local`: fast on a kept connection, for many clients at once, strict
about HTTP, and with the one error shape.
"""

import base64
import contextlib
import json
import logging
import os
import socket
import sys
import time
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BufferedReader
from typing import Any, cast

import chalice.local
from chalice.app import Chalice
from chalice.config import Config

from chalicelib.error_text import shown
from chalicelib.errors import HerocacheError, NotFound
from chalicelib.handlers import replies
from chalicelib.handlers.cors import headers_for_error
from local.chalice_http.api_gateway_event import event_of
from local.chalice_http.host_header import reject_other_hosts
from local.chalice_http.request_body import PIECE_BYTES, HttpError, declared_length, read_body
from local.chalice_http.request_head import NO_HEAD, line_too_long, read_head
from local.machine import LISTENER

BACKLOG = 128
# How long a connection is kept for the next request.
IDLE_SECONDS = 300.0
# How long a client may be silent in the middle of a body.
QUIET_SECONDS = 20.0
# How long a whole body may take.
BODY_SECONDS = 60.0
DRAIN_SECONDS = 2.0
DRAIN_BYTES = 64_000_000
Headers = Mapping[str, str | list[str]]
_JSON: Headers = {"Content-Type": "application/json"}

log = logging.getLogger("herocache.requests")


class Handler(BaseHTTPRequestHandler):
    """Reads the requests of one connection one after the other, and calls the app with an event for
    each, as Lambda does."""

    protocol_version = "HTTP/1.1"

    # Else the second packet of an answer waits for the client's delayed acknowledgement: 40 ms.
    disable_nagle_algorithm = True
    wbufsize = 65_536  # an answer up to this size is one packet for the client, or few
    timeout = IDLE_SECONDS

    def __init__(
        self,
        request: Any,
        client_address: tuple[str, int],
        server: Any,
        app_object: Chalice,
        config: Config,
    ) -> None:
        self._app = app_object
        self._routes = chalice.local.RouteMatcher(list(app_object.routes))
        self._skipped_a_line = False
        self._head = NO_HEAD
        super().__init__(request, client_address, server)

    def _answer(self) -> None:
        try:
            body = self._body()
        except HerocacheError as error:
            self._reject_and_close(error)
        else:
            try:
                match = self._routes.match_route(self._head.path)
            except ValueError:
                known = ", ".join(self._routes.route_urls)
                message = f"{shown(self._head.path)}: there is no such path; there are {known}"
                self._reject(NotFound(message))
            else:
                self._pass_on(match, body)

    def parse_request(self) -> bool:
        """Whether the head of a request could be read; if not, that was answered. Ignores one empty
        line before it (RFC 9112 section 2.2), because some clients end a body with one."""
        self.command, self.request_version = "", self.protocol_version
        self._head = NO_HEAD
        self.requestline = self.raw_requestline.decode("latin-1").rstrip("\r\n")
        if not self.requestline:
            self.close_connection, self._skipped_a_line = self._skipped_a_line, True
            return False
        self._skipped_a_line = False
        try:
            self._head = read_head(self.requestline, self.rfile)
        except HerocacheError as error:
            self._reject_and_close(error)
            return False
        self.command = self._head.method
        self.close_connection = not self._head.keeps_connection
        return not self._head.asks_first or self.handle_expect_100()

    def __getattr__(self, name: str) -> Any:
        """Python's server looks for `do_GET`, `do_POST` and so on. All methods are handled alike,
        because the app knows which ones a path takes."""
        if name.startswith("do_"):
            return self._answer
        raise AttributeError(name)

    def _body(self) -> bytes:
        length = self._checked_length()
        self.connection.settimeout(QUIET_SECONDS)
        try:
            return read_body(cast(BufferedReader, self.rfile), length, BODY_SECONDS)
        except TimeoutError as error:
            message = "body: it did not come in time; send it without a pause"
            raise HttpError(408, "RequestTimeout", message) from error
        finally:
            self.connection.settimeout(self.timeout)

    def _checked_length(self) -> int:
        """The length of the body. Raises where the headers reject the request."""
        headers = self._head.headers
        reject_other_hosts(headers.get("host", ()), self._head.version)
        return declared_length(headers)

    def _pass_on(self, match: chalice.local.MatchResult, body: bytes) -> None:
        event = event_of(self._head, match, body, self._app.api.binary_types)
        response = self._app(event, None)
        content = response["body"] or ""
        if response.get("isBase64Encoded"):
            content = base64.b64decode(content)
        headers = {**response["headers"], **response["multiValueHeaders"]}
        self._send(response["statusCode"], headers, content)

    def _reject(self, error: HerocacheError, **headers: str) -> None:
        reply = replies.of_error(error)
        # The app logs a line for each request that it sees; this one it does not see.
        log.info("%s %s: %s", reply.status, json.dumps(self.requestline[:200]), error)
        sent = headers_for_error(self._head.first_values(), os.environ)
        self._send(reply.status, {**sent, **headers}, reply.text)

    def _reject_and_close(self, error: HerocacheError) -> None:
        """Answers a request whose body was not read. Closing with unread bytes would reset the
        connection, and a client that still sends would never see the answer: so it reads the rest
        for a short time."""
        self._reject(error, Connection="close")
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_WR)
            self._drain()

    def _drain(self) -> None:
        deadline, left = time.monotonic() + DRAIN_SECONDS, DRAIN_BYTES
        self.connection.settimeout(DRAIN_SECONDS)
        while left > 0 and time.monotonic() < deadline:
            read = len(self.connection.recv(PIECE_BYTES))
            if not read:
                return
            left -= read

    def _send(self, status: int, headers: Headers, content: str | bytes) -> None:
        encoded = content.encode() if isinstance(content, str) else content
        self.send_response(status)
        for name, value in {**_JSON, **self._head.connection_options, **headers}.items():
            for each in value if isinstance(value, list) else [value]:
                self.send_header(name, each)
        if status != 204:
            self.send_header("Content-Length", str(len(encoded)))
        self.end_headers()
        if self.command != "HEAD" and status != 204:
            self.wfile.write(encoded)
        self.wfile.flush()

    def handle_expect_100(self) -> bool:
        """A client asks before it sends a large body: tells it to go on, or why not."""
        try:
            self._checked_length()
        except HerocacheError as error:
            self._reject_and_close(error)
            return False
        super().handle_expect_100()
        self.wfile.flush()
        return True

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Python's server calls it for a request line that is too long."""
        self._reject_and_close(line_too_long())

    def version_string(self) -> str:
        """The header Server."""
        return "herocache"

    def log_request(self, code: object = "-", size: object = "-") -> None:
        """Logs nothing: the app, or `_reject`, has logged the request."""

    def log_error(self, format: str, *args: object) -> None:
        """Logs nothing: a kept connection was idle for too long, and is closed."""


class Listener(ThreadingHTTPServer):
    """Starts a thread for each connection."""

    # More clients than this that connect at the same moment are reset, or wait for a second.
    request_queue_size = BACKLOG

    def server_bind(self) -> None:
        """Takes over the socket of `make run` where there is one: two of them that start at once
        cannot come to the same port."""
        number = os.environ.pop(LISTENER, None)
        if number is None:
            super().server_bind()
            return
        self.socket.close()
        self.socket = socket.socket(fileno=int(number))
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = self.socket.getsockname()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """No traceback for a client that went away."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class DevServer(chalice.local.LocalDevServer):
    """Chalice's server with the parts above."""

    def __init__(self, app_object: Chalice, config: Config, host: str, port: int) -> None:
        handler: Any = Handler  # declared to be Chalice's own
        try:
            super().__init__(
                app_object, config, host, port, handler_cls=handler, server_cls=Listener
            )
        except OSError as error:
            print(
                f"herocache: cannot listen on port {port} of {host}: {error.strerror}. Give another"
                " one with --port, or end the program that has it",
                file=sys.stderr,
                flush=True,
            )
            # Chalice's reloader makes the server in a thread, and SystemExit would end that thread
            # only.
            os._exit(1)
