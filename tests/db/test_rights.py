"""A database user who may not log in, or lacks a right: the error says so, and how to repair it.

Each test has a user of its own on the test's server.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from typing import Any

import pymysql
import pytest

from chalicelib import services
from chalicelib.handlers import health as health_report
from chalicelib.rows import service as row_service
from local.servers import MariaDB
from tests.conftest import Configure
from tests.support.client import Answer, InProcess, Row, as_stored, hero
from tests.support.leaks import assert_tells_nothing_internal
from tests.support.relay import CUT_AFTER, CUT_BEFORE, PASS, relaying
from tests.support.witness import Witness

USER, PASSWORD = "limited", "of-nobody-else"

As = Callable[[str, str], None]


@pytest.fixture
def as_user(
    service: InProcess, witness: Witness, mariadb: MariaDB, configure: Configure
) -> Iterator[As]:
    """The service logs in as a user with these options, who has these rights in its database."""

    def as_user(options: str, grants: str) -> None:
        witness.query(f"CREATE USER {USER}@'127.0.0.1' IDENTIFIED BY '{PASSWORD}' {options}")
        for grant in filter(None, grants.split(";")):
            witness.query(f"GRANT {grant} TO {USER}@'127.0.0.1'")
        mariadb.make_known(USER, PASSWORD)
        configure(DB_USER=USER, DB_PASS=PASSWORD)

    yield as_user
    witness.query(f"DROP USER {USER}@'127.0.0.1'")


def deep(service: InProcess) -> Answer:
    """Its answer has the service's own shape."""
    health = service.ask("GET", "/health/deep")
    assert health.fields["status"] in ("ok", "down", "degraded"), health.text
    return health


LOGINS = {
    "a locked account": ("ACCOUNT LOCK", "locked"),
    "an expired password": ("PASSWORD EXPIRE", "expired"),
}


@pytest.mark.parametrize("name", LOGINS)
def test_a_user_who_may_not_log_in_is_told_why(
    service: InProcess, as_user: As, mariadb: MariaDB, name: str
) -> None:
    options, word = LOGINS[name]
    as_user(options, f"ALL ON {mariadb.database}.*")

    answer = service.read([1], use_cache=False)

    assert (answer.status, answer.error) == (503, "DatabaseUnavailable")
    assert word in answer.message
    assert "DB_USER" in answer.message
    assert_tells_nothing_internal(answer)
    health = deep(service)
    assert (health.status, word in health.fields["database"]["error"]) == (503, True)


def test_a_user_with_too_few_connections_is_told_so(
    service: InProcess, as_user: As, mariadb: MariaDB
) -> None:
    as_user("WITH MAX_USER_CONNECTIONS 1", f"ALL ON {mariadb.database}.*")
    only_one = services.container().database._pool.acquire()
    answer = service.read([1], use_cache=False)
    health = deep(service)
    only_one.drop()

    assert (answer.status, answer.error) == (503, "DatabaseUnavailable")
    assert "max_user_connections" in answer.message
    assert "max_user_connections" in health.fields["database"]["error"]


def test_a_server_without_a_connection_left_is_told_and_tried_again(
    service: InProcess, witness: Witness, mariadb: MariaDB, configure: Configure
) -> None:
    """As for more clients of `chalice local` at once than the server takes."""
    configure()
    with ExitStack() as taken, witness.server_has("max_connections", 10):
        with suppress(pymysql.OperationalError):
            while True:
                taken.enter_context(mariadb._connect(mariadb.user, mariadb.password))
        answers = [service.read([1], use_cache=False), service.write([hero()])]

    for answer in answers:
        assert (answer.status, answer.error) == (503, "DatabaseUnavailable")
        assert "it has no connection left" in answer.message
        assert answer.headers["retry-after"] == "2"
    assert len(service.write([hero()]).ids) == 1


def test_a_user_who_may_only_read_is_named_before_a_write_fails(
    service: InProcess, as_user: As, mariadb: MariaDB, witness: Witness
) -> None:
    as_user("", f"SELECT ON {mariadb.database}.*")

    health = deep(service)
    assert (health.status, health.fields["database"]["ok"]) == (200, True)
    problems = health.fields["database"]["problems"]
    for table in ("heroes", "products", "employees", "cache_generation", "idempotency"):
        assert any(
            problem.startswith(f"{table}: DB_USER has no right to INSERT and UPDATE")
            for problem in problems
        )
    witness.query("INSERT INTO heroes VALUES (1, 'Nova', 'light', 'Ada', 10, 'red')")
    assert service.read([1]).rows == [as_stored(1, hero())]
    for answer in (service.write([hero()]), service.delete([1]), service.invalidate()):
        assert_denied(answer)


def assert_denied(answer: Answer, *words: str) -> None:
    assert (answer.status, answer.error) == (500, "ConfigurationError"), answer.text
    for word in ("DB_USER: ", "GRANT", *words):
        assert word in answer.message
    assert_tells_nothing_internal(answer)


def test_a_table_without_the_right_to_it_is_named(
    service: InProcess, as_user: As, mariadb: MariaDB
) -> None:
    """One that the user may do nothing with is not to be told from one that is not there."""
    name = mariadb.database
    all_rights = "SELECT, INSERT, UPDATE, DELETE"
    as_user(
        "",
        f"{all_rights} ON {name}.heroes;SELECT, INSERT ON {name}.cache_generation"
        f";SELECT ON {name}.watched;SELECT ON {name}.changed_entries",
    )

    [id] = service.write([hero()]).ids
    assert service.read([id], use_cache=False).rows == [as_stored(id, hero())]
    assert_denied(service.invalidate(), "(UPDATE)", "`cache_generation`")
    answer = service.read(["e"], use_cache=False, TABLE="employees")
    assert answer.message.startswith(
        "the database has no table employees, or DB_USER has no rights"
    )
    answer = service.post({"REQUEST": "delete", "SQLS": [1], "IDEMPOTENCY_KEY": "k"})
    assert_denied(answer, "`idempotency`")


def test_a_table_without_a_generation_needs_the_right_to_begin_one(
    service: InProcess, as_user: As, mariadb: MariaDB, witness: Witness
) -> None:
    name = mariadb.database
    readable = ("cache_generation", "watched", "changed_entries")
    rights = ";".join(f"SELECT ON {name}.{own}" for own in readable)
    as_user("", f"ALL ON {name}.heroes;{rights}")
    began = "SELECT * FROM cache_generation WHERE table_name = 'heroes'"
    [row] = witness.query(began)
    witness.query("DELETE FROM cache_generation WHERE table_name = 'heroes'")
    try:
        for answer in (service.write([hero()]), service.read([1])):
            assert_denied(answer, "(INSERT)", "`cache_generation`")
    finally:
        witness.query("INSERT INTO cache_generation VALUES (%s, %s, %s, %s, %s)", row)


@pytest.mark.parametrize("given", [{}, {"id": 7}], ids=["insert", "replace"])
@pytest.mark.parametrize("key", [{}, {"IDEMPOTENCY_KEY": "k"}], ids=["", "with a key"])
@pytest.mark.parametrize("is_commit_lost", [False, True], ids=["", "and the COMMIT"])
def test_a_right_that_is_missing_behind_the_commit_does_not_look_like_a_failed_write(
    service: InProcess,
    as_user: As,
    mariadb: MariaDB,
    witness: Witness,
    configure: Configure,
    given: Row,
    key: dict[str, Any],
    is_commit_lost: bool,
) -> None:
    """The fences are lost, and the user may not raise the generation."""
    name = mariadb.database
    rights = f"ALL ON {name}.heroes;ALL ON {name}.idempotency;SELECT ON {name}.cache_generation"
    rights += f";SELECT ON {name}.watched;SELECT ON {name}.changed_entries"
    as_user("", rights)
    with relaying(witness.redis_port) as cache, relaying(mariadb.port) as database:
        url = f"redis://127.0.0.1:{cache.port}"
        configure(DB_USER=USER, DB_PASS=PASSWORD, DB_PORT=str(database.port), REDIS_URL=url)
        assert service.write([hero()]).ids == [1]
        service.read([1])  # behind the publish, for which no insert waits
        cache.judge = lambda piece: CUT_BEFORE
        verdicts = iter([CUT_AFTER] * is_commit_lost)
        database.judge = lambda piece: next(verdicts, PASS) if b";COMMIT" in piece else PASS

        answer = service.write([{**given, **hero()}], **key)

    assert (answer.status, answer.error) == (503, "OutcomeUnknown"), answer.text
    assert ("`cache_generation`" in answer.message) is (not is_commit_lost)
    assert witness.count() == 2


def test_old_idempotency_keys_that_may_not_be_forgotten_fail_no_write(
    service: InProcess, as_user: As, mariadb: MariaDB, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables = [
        f"{mariadb.database}.{name}"
        for name in ("heroes", "idempotency", "cache_generation", "watched", "changed_entries")
    ]
    as_user("", ";".join(f"SELECT, INSERT, UPDATE ON {table}" for table in tables))
    monkeypatch.setattr(row_service, "PRUNE_SHARE", 1)

    assert service.write([hero()], IDEMPOTENCY_KEY="k").ids == [1]


def test_a_user_who_may_write_on_a_replica_does_not(
    service: InProcess, mariadb: MariaDB, witness: Witness, configure: Configure
) -> None:
    """What is written there is lost, or meets what the writer has."""
    configure(DB_USER="root", DB_PASS=mariadb._secret("root-password"))
    assert service.write([hero()]).ids == [1]
    with witness.server_has("read_only", 1):
        for row in (hero(), {"id": 1, **hero()}):
            for use_cache in (True, False):
                answer = service.write([row], use_cache)
                assert (answer.status, answer.error) == (503, "DatabaseUnavailable")
    assert witness.count() == 1


def test_a_column_without_the_right_to_it_is_named(
    service: InProcess, as_user: As, mariadb: MariaDB, witness: Witness
) -> None:
    name = mariadb.database
    columns = "id, hero, power, name, xp"
    rights = f"ALL ON {name}.cache_generation;SELECT ON {name}.watched"
    rights += f";SELECT ON {name}.changed_entries"
    as_user("", f"{rights};SELECT ({columns}, color) ON {name}.heroes")
    witness.query("INSERT INTO heroes VALUES (1, 'Nova', 'light', 'Ada', 10, 'red')")
    assert service.read([1]).rows == [as_stored(1, hero())]

    witness.query(f"REVOKE SELECT (color) ON {name}.heroes FROM {USER}@'127.0.0.1'")

    assert_denied(service.read([1], use_cache=False), "(SELECT)", "`heroes`")
    health = deep(service)
    assert health.status == 503
    assert "no column color, or DB_USER has no rights on it" in health.fields["database"]["error"]


def test_a_bug_in_the_health_has_the_shape_of_every_bug(
    service: InProcess, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(health_report, "_checked", None)

    for answer in (service.ask("GET", "/health/deep"), service.health("?deep=1")):
        assert (answer.status, answer.error) == (500, "InternalError")
    assert "TypeError" in caplog.text
