"""The HTTP of the service: REST-JSON, as AWS's SDKs speak it."""

import json
import logging
import re
import socket
import sys
import time
import uuid
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from botocore.model import OperationModel

from local.chalice_http.host_header import is_own_host
from local.data_api.errors import ServiceError
from local.data_api.faults import (
    CUT,
    CUT_AFTER,
    DELAY,
    ERROR,
    ERROR_AFTER,
    HANG,
    LOSE_TRANSACTION,
    Control,
    Fault,
    Faults,
)
from local.data_api.limits import Limits
from local.data_api.operations import Operations
from local.data_api.service_model import ServiceModel
from local.data_api.transactions import ABORTED, Transactions

# No operation has this path.
CONTROL = "/control"
# Signature Version 4. The signature itself is not checked.
AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256 Credential=[^/, ]+/\d{8}/[a-z0-9-]+/rds-data/aws4_request,\s*"
    r"SignedHeaders=[^, ]+,\s*Signature=[0-9a-f]{64}"
)
DRAINED_BYTES = 64 * 2**20

log = logging.getLogger("data_api")


class Service:
    """What the threads of the server share."""

    def __init__(
        self,
        model: ServiceModel,
        operations: Operations,
        transactions: Transactions,
        faults: Faults,
        limits: Limits,
        control: Control,
    ) -> None:
        self.model = model
        self.operations = operations
        self.transactions = transactions
        self.faults = faults
        self.limits = limits
        self.control = control


class Cut(Exception):
    """The connection is closed without an answer."""


class Handler(BaseHTTPRequestHandler):
    """Answers the requests of one connection one after the other."""

    protocol_version = "HTTP/1.1"
    # Else the second packet of an answer waits for the client's delayed acknowledgement: 40 ms.
    disable_nagle_algorithm = True
    wbufsize = 65_536
    server: "DataApiServer"
    raw_requestline: bytes

    def do_POST(self) -> None:
        """Every operation is a POST."""
        if not self._is_from_here():
            self._send(403, b"web pages may not use this Data API", "AccessDeniedException")
            self.close_connection = True
            return
        body = self._read_body()
        if self.path == CONTROL:
            self._obey(body)
            return
        try:
            self._answer(body)
        except Cut:
            self.close_connection = True
            with suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)

    def _is_from_here(self) -> bool:
        """A web page sends `Origin`, or has a name of its own in `Host`. It could change rows."""
        return "Origin" not in self.headers and is_own_host(self.headers.get("Host", ""))

    def _read_body(self) -> bytes | None:
        """None where the request is larger than allowed. It is read all the same: a client that
        still sends would not see the answer."""
        length = int(self.headers.get("Content-Length", "0"))
        if self._head_bytes() + length <= self.server.service.limits.request_bytes:
            return self.rfile.read(length)
        left = min(length, DRAINED_BYTES)
        while left > 0:
            left -= len(self.rfile.read(min(left, 2**20))) or left
        return None

    def _head_bytes(self) -> int:
        headers = sum(len(name) + len(value) + 4 for name, value in self.headers.items())
        return len(self.raw_requestline) + headers + 2

    def _obey(self, body: bytes | None) -> None:
        try:
            state = self.server.service.control.obey(json.loads(body or b"{}"))
        except (KeyError, TypeError, ValueError) as error:
            self._send(400, json.dumps({"message": str(error)}).encode(), "ValidationException")
        else:
            self._send(200, json.dumps(state).encode())

    def _answer(self, body: bytes | None) -> None:
        operation: OperationModel | None = None
        service = self.server.service
        try:
            operation = service.model.operation(self.command, self.path)
            self._check_authorization()
            if body is None:
                message = f"The request is larger than {service.limits.request_bytes} bytes"
                raise ServiceError("RequestEntityTooLargeException", message)
            self._send(200, self._answer_or_fail(operation, body))
        except ServiceError as error:
            self._send_error(operation, error)
        except (Cut, ConnectionError):
            raise
        except Exception:
            log.exception("%s failed", self.path)
            self._send_error(operation, ServiceError("InternalServerErrorException"))

    def _check_authorization(self) -> None:
        given = self.headers.get("Authorization")
        if given is None:
            raise ServiceError(
                "MissingAuthenticationTokenException", "Missing Authentication Token"
            )
        if not AUTHORIZATION.fullmatch(given) or "X-Amz-Date" not in self.headers:
            raise ServiceError("IncompleteSignatureException", "not signed for rds-data")

    def _answer_or_fail(self, operation: OperationModel, body: bytes) -> bytes:
        """The body of the answer. Raises ServiceError, and Cut where a fault says so."""
        service = self.server.service
        fault = service.faults.next(operation.name) or Fault(DELAY)
        time.sleep(service.faults.delay_seconds)
        self._before(fault)
        request = service.model.read(operation, body)
        if fault.kind == LOSE_TRANSACTION and "transactionId" in request:
            lost = service.transactions.take(request["transactionId"])
            service.transactions.end(lost, ABORTED)
        answer = service.operations.answer(operation, request)
        if fault.kind == ERROR_AFTER:
            raise fault.error()
        if fault.kind == CUT_AFTER:
            raise Cut
        return answer

    def _before(self, fault: Fault) -> None:
        if fault.kind == ERROR:
            raise fault.error()
        if fault.kind == HANG:
            self.server.service.faults.hang()
        if fault.kind in (CUT, HANG):
            raise Cut
        time.sleep(fault.seconds)

    def _send_error(self, operation: OperationModel | None, error: ServiceError) -> None:
        status, body = self.server.service.model.write_error(operation, error)
        self._send(status, body, error.code)

    def _send(self, status: int, body: bytes, error: str = "") -> None:
        self.send_response_only(status)
        self.send_header("x-amzn-RequestId", str(uuid.uuid4()))
        if error:
            self.send_header("x-amzn-ErrorType", error)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    def log_message(self, format: str, *args: object) -> None:
        """Logs nothing: what goes wrong inside is logged where it happens."""


class DataApiServer(ThreadingHTTPServer):
    """On a socket that listens already. A thread for each connection."""

    daemon_threads = True

    def __init__(self, listener: int, service: Service) -> None:
        taken = socket.socket(fileno=listener)
        super().__init__(taken.getsockname(), Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = taken
        self.service = service

    def handle_error(self, request: Any, client_address: Any) -> None:
        """No traceback for a client that went away."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)

    def service_actions(self) -> None:
        """Twice a second."""
        self.service.transactions.expire()
