"""Everything in this service that depends on private parts of redis-py: its waits and time limits.

The driver starts its timeout again with each byte that comes, and with each address of a host name.
Here one limit holds for all of a connect, and one for all of a reply. The driver has one time for
opening a connection and for using it. Here they are two. A redis-py whose private parts look
different is rejected when the service starts.
"""

import inspect
import socket
import ssl
import time
from collections.abc import Mapping
from functools import lru_cache, partial
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.connection import AbstractConnection, DefaultParser
from redis.retry import Retry

from chalicelib.cache import timeouts
from chalicelib.errors import ConfigurationError
from chalicelib.network import reach

CHECKED_VERSION = "8.1.0"

# A wait that has just begun uses the socket's own timeout and may end so much later: to set another
# one takes two system calls.
_SLACK_SECONDS = 0.001

# What is overridden or used here beyond the driver's public interface, by its parameters.
# `on_connect` makes the parser's `_reader`.
_PRIVATE_PARTS: Mapping[tuple[type, str], list[str]] = {
    (redis.Connection, "_connect"): ["self"],
    (redis.SSLConnection, "_connect"): ["self"],
    (redis.SSLConnection, "_wrap_socket_with_ssl"): ["self", "sock"],
    (DefaultParser, "on_connect"): ["self", "connection", "kwargs"],
    (DefaultParser, "read_from_socket"): ["self", "timeout", "raise_on_timeout"],
}


def check_driver() -> None:
    """Raises ConfigurationError where redis-py is not the one that this module was made for."""
    for (owner, name), expected in _PRIVATE_PARTS.items():
        part = vars(owner).get(name)
        if part is None or list(inspect.signature(part).parameters) != expected:
            raise ConfigurationError(
                f"redis {redis.__version__} has another {owner.__name__}.{name} than redis"
                f" {CHECKED_VERSION}, which this service was checked against: install that one"
                " (requirements.txt)"
            )


def new_connection(
    options: Mapping[str, Any], timeout_seconds: float, deadline: timeouts.Deadline
) -> AbstractConnection:
    """A connection that `connect` opens, in as few round trips as Redis allows; each step may take
    OPENING_SECONDS. `options` are those of the URL. `timeout_seconds` is for what follows, once
    `wait_at_most` has set it."""
    options = dict(options)
    is_tls = options.pop("connection_class", None) is redis.SSLConnection
    connection_class = _TlsConnection if is_tls else _Connection
    connection: AbstractConnection = connection_class(
        socket_timeout=timeout_seconds,
        retry=Retry(NoBackoff(), 0),
        protocol=2,
        driver_info=None,
        parser_class=partial(_Parser, deadline, timeout_seconds),
        **options,
    )
    return connection


def wait_at_most(connection: AbstractConnection, seconds: float) -> None:
    """How long each piece may take from now on, to be sent or received."""
    connection.update_current_socket_timeout(seconds)


class Unusable(redis.RedisError):
    """Redis cannot be used as it is configured. The text says why."""


class _Parser(DefaultParser):  # type: ignore[misc, valid-type]
    """The driver's parser, which waits until its deadline, however many pieces a reply comes in.
    What has come by then is read also after it: the process may have been stopped meanwhile, or had
    no CPU."""

    def __init__(
        self,
        deadline: timeouts.Deadline,
        timeout_seconds: float,
        *arguments: Any,
        **named: Any,
    ) -> None:
        super().__init__(*arguments, **named)
        self._deadline = deadline
        self._whole_wait = timeout_seconds - _SLACK_SECONDS

    def on_connect(self, connection: AbstractConnection, **named: Any) -> None:
        """The login begins."""
        super().on_connect(connection, **named)
        self._deadline.until = time.monotonic() + timeouts.OPENING_SECONDS

    def read_from_socket(self, timeout: object = None, raise_on_timeout: bool = True) -> bool:
        left, reader = self._deadline.seconds_left(), self._reader
        before = reader.len() if reader else 0
        if left > self._whole_wait:
            is_read = super().read_from_socket(raise_on_timeout=raise_on_timeout)
        else:
            is_read = super().read_from_socket(timeout=left, raise_on_timeout=raise_on_timeout)
        self._deadline.received(reader.len() - before)
        return bool(is_read)


class _Connection(redis.Connection):
    """The driver's connection, with one time limit for all addresses that the host name has."""

    def _connect(self) -> socket.socket:
        return _connected(self)


class _TlsConnection(redis.SSLConnection):
    """The same over TLS, with a context that all connections share."""

    def _connect(self) -> ssl.SSLSocket:
        connection = _connected(self)
        try:
            return self._wrap_socket_with_ssl(connection)
        except (OSError, redis.RedisError):
            connection.close()
            raise

    def _wrap_socket_with_ssl(self, sock: socket.socket) -> ssl.SSLSocket:
        context = _tls(self.ca_certs, self.certfile, self.keyfile, self.check_hostname)
        return context.wrap_socket(sock, server_hostname=self.host)


def _connected(connection: redis.Connection) -> socket.socket:
    connected = reach(connection.host, connection.port, timeouts.OPENING_SECONDS)
    connected.settimeout(timeouts.OPENING_SECONDS)
    return connected


@lru_cache
def _tls(
    ca_certs: str | None, certfile: str | None, keyfile: str | None, check_hostname: bool
) -> ssl.SSLContext:
    """Made once a process: to load the system's authorities takes 30 ms."""
    try:
        context = ssl.create_default_context(cafile=ca_certs)
        if certfile:
            context.load_cert_chain(certfile, keyfile)
    except OSError as error:
        raise Unusable("the files that its ssl_ options name cannot be read (REDIS_URL)") from error
    context.check_hostname = check_hostname
    return context
