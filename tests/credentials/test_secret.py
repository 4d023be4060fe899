"""The password in a secret: read once, and again when it is rejected; no request fails during a
rotation."""

import json
import logging
import secrets
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import boto3
import pytest

from app import storage
from chalicelib import services
from chalicelib.credentials import providers
from chalicelib.db.mysql import Connector
from chalicelib.errors import DatabaseUnavailable
from chalicelib.single_flight import SingleFlight
from local.machine import LOOPBACK
from local.servers import MariaDB
from tests.conftest import Configure
from tests.support import aws_tokens
from tests.support.client import InProcess, as_stored, hero
from tests.support.topologies import wait_until
from tests.support.witness import Witness

USER = "rotating"
WORKERS = 3
REQUESTS_A_STEP = 10
ROTATIONS = 3


class Vault:
    """A secret, and the database user whose password it holds: rotated step by step, in the order
    of Secrets Manager's own rotation."""

    def __init__(self, client: Any, mariadb: MariaDB) -> None:
        self.passwords = [secrets.token_urlsafe(12)]
        self._client, self._mariadb = client, mariadb
        made = client.create_secret(Name="herocache", SecretString=self._text())
        self.arn: str = made["ARN"]
        self._current: str = made["VersionId"]
        mariadb.query(f"DROP USER IF EXISTS '{USER}'@'{LOOPBACK}'")
        mariadb.query(f"CREATE USER '{USER}'@'{LOOPBACK}'")
        mariadb.query(f"GRANT ALL ON {mariadb.database}.* TO '{USER}'@'{LOOPBACK}'")
        self.set_password()

    def make_pending(self) -> None:
        self.passwords.append(secrets.token_urlsafe(12))
        made = self._client.put_secret_value(
            SecretId=self.arn,
            SecretString=self._text(),
            ClientRequestToken=secrets.token_hex(16),
            VersionStages=["AWSPENDING"],
        )
        self._pending: str = made["VersionId"]

    def set_password(self) -> None:
        self._mariadb.query(
            f"ALTER USER '{USER}'@'{LOOPBACK}' IDENTIFIED BY %s", [self.passwords[-1]]
        )
        self._mariadb.make_known(USER, self.passwords[-1])

    def make_current(self) -> None:
        self._client.update_secret_version_stage(
            SecretId=self.arn,
            VersionStage="AWSCURRENT",
            MoveToVersionId=self._pending,
            RemoveFromVersionId=self._current,
        )
        self._current = self._pending

    def put(self, text: str) -> None:
        self._client.put_secret_value(SecretId=self.arn, SecretString=text)

    def _text(self) -> str:
        # With all that RDS writes into one.
        return json.dumps({"username": USER, "password": self.passwords[-1], "engine": "mysql"})


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    from moto.server import ThreadedMotoServer  # it takes a second to import

    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    server = ThreadedMotoServer(LOOPBACK, 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def vault(
    endpoint: str, mariadb: MariaDB, configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Vault]:
    aws_tokens.be_lambda(monkeypatch, AWS_ENDPOINT_URL=endpoint)
    client = boto3.session.Session().client("secretsmanager", region_name=aws_tokens.REGION)
    vault = Vault(client, mariadb)
    configure(DB_USER=None, DB_PASS=None, DB_SECRET_ARN=vault.arn)
    yield vault
    client.delete_secret(SecretId=vault.arn, ForceDeleteWithoutRecovery=True)
    mariadb.query(f"DROP USER '{USER}'@'{LOOPBACK}'")


@pytest.fixture
def service(witness: Witness, vault: Vault) -> InProcess:
    return InProcess()


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The stages of the secret that were read, in order."""
    stages: list[str] = []
    read = providers._Secret._read

    def noting(self: providers._Secret, stage: str) -> providers.Login | None:
        stages.append(stage)
        return read(self, stage)

    monkeypatch.setattr(providers._Secret, "_read", noting)
    return stages


def lose_idle_connections() -> None:
    """The next request needs to log in."""
    services.container().database._pool.clear()


def test_the_secret_is_read_once_a_container(service: InProcess, reads: list[str]) -> None:
    [id] = service.write([hero()]).ids
    for _ in range(3):
        lose_idle_connections()
        assert service.read([id], use_cache=False).rows == [as_stored(id, hero())]

    assert reads == ["AWSCURRENT"]


def test_a_password_that_was_changed_is_read_again_once(
    service: InProcess, vault: Vault, reads: list[str]
) -> None:
    service.read([1], use_cache=False)
    vault.make_pending()
    vault.set_password()
    vault.make_current()

    for _ in range(3):
        lose_idle_connections()
        assert service.read([1], use_cache=False).missing == [1]

    assert reads == ["AWSCURRENT"] * 2


def test_between_two_steps_of_a_rotation_the_pending_password_is_taken(
    service: InProcess, vault: Vault, reads: list[str]
) -> None:
    service.read([1], use_cache=False)
    vault.make_pending()
    vault.set_password()
    lose_idle_connections()

    assert service.read([1], use_cache=False).missing == [1]

    assert reads == ["AWSCURRENT", "AWSCURRENT", "AWSPENDING"]


def test_threads_that_are_refused_together_read_it_once(
    service: InProcess, vault: Vault, reads: list[str]
) -> None:
    service.read([1], use_cache=False)
    connector = services.container().database._connect
    assert isinstance(connector, Connector)
    ours = connector.credentials
    rejected = ours.login()
    vault.make_pending()
    vault.set_password()
    vault.make_current()

    found = {ours.instead(rejected) for _ in range(WORKERS)}

    assert found == {providers.Login(USER, vault.passwords[-1])}
    assert reads == ["AWSCURRENT"] * 2


def test_a_wrong_password_is_a_503_that_shows_nothing(
    service: InProcess, vault: Vault, mariadb: MariaDB, caplog: pytest.LogCaptureFixture
) -> None:
    vault.passwords.append("known to nobody")
    vault.set_password()

    answer = service.read([1], use_cache=False)

    assert (answer.status, answer.error) == (503, "DatabaseUnavailable")
    assert "rejects the user or the password" in answer.message
    assert not any(password in answer.text + caplog.text for password in vault.passwords)


@pytest.mark.parametrize(
    "text", ["s3cret-horse", '["s3cret-horse"]', '{"password": "s3cret-horse"}', "{}"]
)
def test_a_secret_of_another_shape_is_named_and_not_shown(
    service: InProcess, vault: Vault, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    vault.put(text)

    answer = service.read([1], use_cache=False)

    assert (answer.status, answer.error) == (500, "ConfigurationError")
    assert answer.message.startswith("DB_SECRET_ARN: expected a JSON object")
    assert "s3cret-horse" not in answer.text + caplog.text


def test_a_secret_that_is_not_there_is_named(
    service: InProcess, vault: Vault, configure: Configure
) -> None:
    configure(DB_PASS=None, DB_SECRET_ARN=vault.arn.replace("herocache", "nothing"))

    answer = service.read([1], use_cache=False)

    assert (answer.status, answer.error) == (500, "ConfigurationError")
    assert answer.message == "DB_SECRET_ARN: Secrets Manager answers ResourceNotFoundException"


def test_a_secrets_manager_that_cannot_be_reached_is_a_503(
    service: InProcess, vault: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{LOOPBACK}:1")

    answer = service.read([1], use_cache=False)

    assert (answer.status, answer.error) == (503, "DatabaseUnavailable")
    assert "cannot be read from Secrets Manager (DB_SECRET_ARN)" in answer.message


@pytest.mark.parametrize("need", ["login", "instead"])
def test_threads_that_need_a_secret_that_cannot_be_read_fail_together(
    monkeypatch: pytest.MonkeyPatch, need: str
) -> None:
    """Each with a call of its own to Secrets Manager, the last of them would wait for all."""
    needing, calls, ask = list[int](), list[str](), SingleFlight.ask
    secret = providers._Secret("arn:aws:secretsmanager:eu-west-1:123456789012:secret:herocache")

    def note(self: Any, *arguments: Any) -> Any:
        needing.append(1)
        return ask(self, *arguments)

    def fail(_: object, stage: str) -> None:
        calls.append(stage)
        wait_until(lambda: len(needing) >= WORKERS)
        time.sleep(0.02)  # the last one is noted, and about to wait
        raise DatabaseUnavailable("for this test")

    def work(_: int) -> None:
        with pytest.raises(DatabaseUnavailable):
            secret.login() if need == "login" else secret.instead(providers.Login("u", "old"))

    monkeypatch.setattr(SingleFlight, "ask", note)
    monkeypatch.setattr(providers._Secret, "_read", fail)
    with ThreadPoolExecutor(WORKERS) as pool:
        list(pool.map(work, range(WORKERS)))

    assert calls == ["AWSCURRENT"]


class Workers:
    """Threads that read and write without a pause, each answer kept."""

    def __init__(self) -> None:
        self.answers: list[list[dict[str, Any]]] = [[] for _ in range(WORKERS)]
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._work, args=(mine,)) for mine in self.answers]

    def __enter__(self) -> "Workers":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def some_requests(self) -> None:
        """Return when each has got some more answers, having had to log in."""
        goals = [len(mine) + REQUESTS_A_STEP for mine in self.answers]

        def reached() -> bool:
            lose_idle_connections()
            return all(len(mine) >= goal for mine, goal in zip(self.answers, goals))

        wait_until(reached)

    def _work(self, mine: list[dict[str, Any]]) -> None:
        write = {"REQUEST": "write", "SQLS": [hero()]}
        read = {"REQUEST": "read", "SQLS": [1], "USE_CACHE": "False"}
        while not self._ended.is_set():
            mine.append(storage(read if len(mine) % 2 else write, None))


def test_no_request_fails_while_the_secret_rotates(
    service: InProcess, vault: Vault, mariadb: MariaDB, reads: list[str]
) -> None:
    with Workers() as workers:
        for _ in range(ROTATIONS):
            for step in (vault.make_pending, vault.set_password, vault.make_current):
                step()
                workers.some_requests()

    lose_idle_connections()
    service.read([1], use_cache=False)  # with the last password, whoever learnt it

    answers = [answer for mine in workers.answers for answer in mine]
    failed = [answer for answer in answers if answer["statusCode"] != 200]
    ids = [id for answer in answers for id in answer.get("ids", [])]
    print(f"{ROTATIONS} rotations, {len(answers)} requests, {len(failed)} failed")
    assert failed == []
    assert len(reads) > 1
    assert len(answers) >= ROTATIONS * 3 * WORKERS * REQUESTS_A_STEP
    assert mariadb.query("SELECT COUNT(*) FROM heroes") == [(len(ids),)]
    assert len(set(ids)) == len(ids)
