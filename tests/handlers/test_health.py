"""`GET /health`: whether the app runs; `?deep=1`: why it cannot use its servers, in words."""

import contextlib
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from chalicelib import __version__
from local.servers import MariaDB, Redis
from tests.conftest import Configure, running
from tests.support.client import Answer, InProcess
from tests.support.leaks import assert_tells_nothing_internal
from tests.support.witness import Witness, connect_to_redis

MAX_SECONDS = 3
LOOPBACK = "127.0.0.1"


def deep(service: InProcess) -> Answer:
    start = time.monotonic()
    answer = service.health("?deep=1")
    assert time.monotonic() - start < MAX_SECONDS
    assert list(answer.fields) == ["status", "version", "database", "cache"]
    assert_tells_nothing_internal(answer)
    return answer


def words(answer: Answer, part: str) -> str:
    """What is wrong with `part`, the only one that is down; a database makes it a 503."""
    report: dict[str, Any] = answer.fields[part]
    other = answer.fields["cache" if part == "database" else "database"]
    assert list(report) == ["ok", "error"]
    assert report["ok"] is False
    assert other["ok"] is True
    expected = (503, "down") if part == "database" else (200, "degraded")
    assert (answer.status, answer.fields["status"]) == expected
    return str(report["error"])


@pytest.fixture
def closed_port() -> int:
    with socket.create_server((LOOPBACK, 0)) as listener:
        return int(listener.getsockname()[1])


@pytest.fixture
def silent_port() -> Iterator[int]:
    """It takes connections and never says a word."""
    with socket.create_server((LOOPBACK, 0)) as listener:
        yield listener.getsockname()[1]


@pytest.fixture
def unroutable_port() -> Iterator[int]:
    """It does not even take connections, as behind a firewall: its queue of them is full."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind((LOOPBACK, 0))
        listener.listen(0)
        while True:
            client = stack.enter_context(socket.socket())
            client.settimeout(0.2)
            try:
                client.connect(listener.getsockname())
            except TimeoutError:
                break
        yield listener.getsockname()[1]


def test_shallow_health_tells_the_version_and_asks_no_server(
    service: InProcess, configure: Configure
) -> None:
    configure(DB_HOST=None, REDIS_URL="nonsense")

    answer = service.health()

    assert answer.status == 200
    assert answer.fields == {"status": "ok", "version": __version__}
    assert answer.headers["content-type"] == "application/json"


@pytest.mark.parametrize("deep", ["yes", "true", "", "2"])
def test_a_misspelt_deep_is_told(service: InProcess, deep: str) -> None:
    answer = service.health(f"?deep={deep}")

    assert (answer.status, answer.error) == (400, "BadRequest")
    assert answer.message == f"deep: expected 1, or 0 as without it, got '{deep}'"


def test_a_deep_of_0_is_shallow(service: InProcess) -> None:
    assert list(service.health("?deep=0").fields) == ["status", "version"]


@pytest.mark.usefixtures("triggers")
def test_deep_health_of_good_servers_tells_their_latency(
    service: InProcess, witness: Witness
) -> None:
    for _ in range(2):
        answer = deep(service)

        assert (answer.status, answer.fields["status"]) == (200, "ok")
        for part in ("database", "cache"):
            assert list(answer.fields[part]) == ["ok", "latency_ms"]
            assert answer.fields[part]["ok"] is True
            assert 0 < answer.fields[part]["latency_ms"] < MAX_SECONDS * 1000


def test_deep_health_asks_each_server_little(service: InProcess, witness: Witness) -> None:
    deep(service)
    with witness.spent() as spent:
        deep(service)

    assert spent.statements == 3, "whether it answers, its tables, and their triggers"
    assert spent.commands == {"set": 1, "del": 1}
    assert spent.cache_round_trips == 1


def test_no_cache_is_not_a_fault(service: InProcess, configure: Configure) -> None:
    configure(REDIS_URL=None)

    answer = deep(service)

    assert (answer.status, answer.fields["status"]) == (200, "ok")
    assert answer.fields["cache"] == {"ok": None}


def test_a_wrong_database_password_is_named(service: InProcess, configure: Configure) -> None:
    for wrong in ({"DB_PASS": "not-the-password"}, {"DB_USER": "not-the-user"}):
        configure(**wrong)

        assert "rejects the user or the password" in words(deep(service), "database")


def test_a_wrong_database_name_is_named(service: InProcess, configure: Configure) -> None:
    configure(DB_NAME="no_such_schema")

    assert "DB_NAME" in words(deep(service), "database")


def test_an_unknown_host_is_named(service: InProcess, configure: Configure) -> None:
    configure(DB_HOST="no-such-host.invalid")
    assert "no host has this name" in words(deep(service), "database")

    configure(REDIS_URL="redis://no-such-host.invalid:6379")
    assert "no host has this name" in words(deep(service), "cache")


def test_a_port_where_nothing_listens_is_named(
    service: InProcess, configure: Configure, closed_port: int
) -> None:
    configure(DB_PORT=str(closed_port))
    assert "nothing listens on this port" in words(deep(service), "database")

    configure(REDIS_URL=f"redis://{LOOPBACK}:{closed_port}")
    assert "nothing listens on this port" in words(deep(service), "cache")


@pytest.mark.own_deadlines
@pytest.mark.parametrize("port", ["silent_port", "unroutable_port"])
def test_a_server_that_does_not_answer_is_named(
    service: InProcess, configure: Configure, port: str, request: pytest.FixtureRequest
) -> None:
    number = request.getfixturevalue(port)

    configure(DB_PORT=str(number))
    database = words(deep(service), "database")
    configure(REDIS_URL=f"redis://{LOOPBACK}:{number}")
    cache = words(deep(service), "cache")

    for said in (database, cache):
        assert "no answer" in said
        assert "route" in said
        assert "security group" in said


def test_both_servers_can_be_down(
    service: InProcess, configure: Configure, closed_port: int
) -> None:
    configure(DB_PORT=str(closed_port), REDIS_URL=f"redis://{LOOPBACK}:{closed_port}")

    answer = deep(service)

    assert (answer.status, answer.fields["status"]) == (503, "down")
    assert answer.fields["database"]["ok"] is answer.fields["cache"]["ok"] is False


def test_a_missing_setting_is_named(service: InProcess, configure: Configure) -> None:
    configure(DB_HOST=None)

    answer = service.health("?deep=1")

    assert (answer.status, answer.error) == (500, "ConfigurationError")
    assert "DB_HOST" in answer.message


@pytest.fixture
def locked_redis(tmp_path: Path) -> Iterator[Redis]:
    """One that wants a password."""
    with running(Redis(tmp_path / "redis")) as server:
        with contextlib.closing(connect_to_redis(server)) as client:
            client.config_set("requirepass", "correct-horse")
        yield server


def test_a_password_that_redis_wants_is_named(
    service: InProcess, configure: Configure, locked_redis: Redis
) -> None:
    for wrong in ("", ":wrong-horse@", "someone:correct-horse@"):
        configure(REDIS_URL=f"redis://{wrong}{LOOPBACK}:{locked_redis.port}")
        assert "rejects the user or the password" in words(deep(service), "cache")

    configure(REDIS_URL=f"redis://:correct-horse@{LOOPBACK}:{locked_redis.port}")
    assert deep(service).fields["status"] == "ok"


@pytest.mark.own_deadlines
def test_tls_to_a_server_without_it_is_named(
    service: InProcess, configure: Configure, redis_server: Redis, silent_port: int
) -> None:
    configure(REDIS_URL=f"rediss://{LOOPBACK}:{redis_server.port}")
    assert "TLS" in words(deep(service), "cache")

    configure(REDIS_URL=f"rediss://{LOOPBACK}:{silent_port}")
    assert "no answer" in words(deep(service), "cache")


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """Of 127.0.0.1, signed by nobody; its key is in the file `key` beside it."""
    key, certificate = tmp_path / "key", tmp_path / "certificate"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1"]
    command += ["-subj", "/CN=test", "-addext", f"subjectAltName=IP:{LOOPBACK}"]
    command += ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    return certificate


@pytest.fixture
def tls_port(tmp_path: Path, certificate: Path, closed_port: int) -> Iterator[int]:
    """Of a Redis that takes only TLS there."""
    with running(Redis(tmp_path / "redis")) as server:
        with contextlib.closing(connect_to_redis(server)) as client:
            client.config_set("tls-auth-clients", "no")
            pair = ["tls-cert-file", str(certificate), "tls-key-file", str(tmp_path / "key")]
            client.config_set(*pair, "tls-port", closed_port)
        yield closed_port


def test_redis_over_tls_works(
    service: InProcess, configure: Configure, tls_port: int, certificate: Path
) -> None:
    configure(REDIS_URL=f"rediss://{LOOPBACK}:{tls_port}?ssl_ca_certs={certificate}")

    assert deep(service).fields["cache"]["ok"] is True


def test_a_certificate_that_nobody_signed_is_named(
    service: InProcess, configure: Configure, tls_port: int
) -> None:
    configure(REDIS_URL=f"rediss://{LOOPBACK}:{tls_port}")

    assert "certificate is not signed by a trusted authority" in words(deep(service), "cache")


def test_tls_that_redis_wants_is_named(
    service: InProcess, configure: Configure, tls_port: int
) -> None:
    configure(REDIS_URL=f"redis://{LOOPBACK}:{tls_port}")

    assert "rediss://" in words(deep(service), "cache")


def test_a_database_elsewhere_is_spoken_to_over_tls_when_it_can(
    configure: Configure, tmp_path: Path, certificate: Path
) -> None:
    """127.1 is 127.0.0.1 too, but not by a name for which the app leaves TLS out."""
    pair = [f"--ssl-cert={certificate}", f"--ssl-key={tmp_path / 'key'}"]
    with running(MariaDB(tmp_path / "mariadb", arguments=pair)) as server:
        server.apply_schema()
        configure(**{**server.environment(), "DB_HOST": "127.1"})
        server.query("SET GLOBAL require_secure_transport = ON")

        assert deep(InProcess()).fields["database"]["ok"] is True


def test_a_database_elsewhere_is_reached_without_tls_when_it_has_none(
    service: InProcess, configure: Configure
) -> None:
    configure(DB_HOST="127.1")

    assert deep(service).fields["database"]["ok"] is True


@pytest.mark.parametrize("path", ["/health", "/health?deep=1", "/health/deep"])
def test_a_content_type_changes_nothing(service: InProcess, path: str) -> None:
    """Some clients name one with every request."""
    for content_type in ("text/plain", "application/octet-stream", "image/png"):
        answer = service.ask("GET", path, {"Content-Type": content_type})
        assert (answer.status, answer.fields["status"]) == (200, "ok"), answer.text
