"""Settings: a wrong one is named, a secret one is never shown, in no answer and in no log."""

import pytest

from chalicelib.config import Settings
from chalicelib.db import statements
from chalicelib.errors import ConfigurationError
from local.servers import MariaDB
from tests.conftest import Configure
from tests.support.client import InProcess, hero
from tests.support.leaks import assert_tells_nothing_internal
from tests.support.witness import Witness

SECRET = "s3cret-horse"
REQUIRED = ("DB_HOST", "DB_USER", "DB_PASS", "DB_NAME")
MALFORMED = [
    *((name, value) for name in REQUIRED for value in (None, "")),
    *(("DB_PORT", value) for value in ("x", "0", "-1", "65536", "3306.0", " 3306", "３３０６")),
    *(("TTL", value) for value in ("x", "0", "-5", "1.5", "1e3", "9" * 5000)),
    ("DB_TABLE", "heroes; DROP TABLE heroes"),
    ("READ_BY", "strength"),
    ("API_AUTH", ""),
    ("REDIS_URL", "localhost:6379"),
    ("REDIS_URL", f"http://user:{SECRET}@localhost"),
    ("REDIS_URL", f"redis://:{SECRET}@"),
    ("REDIS_URL", f"redis://:{SECRET}@localhost:99999"),
    ("REDIS_URL", f"redis://:{SECRET}@localhost:x"),
    ("REDIS_URL", f"redis://:{SECRET}@[::1"),
    ("REDIS_URL", f"redis://:{SECRET}@localhost/first"),
    ("REDIS_URL", f"redis://:{SECRET}@localhost?ssl_ca_certs=/a/file"),
    ("REDIS_URL", f"rediss://:{SECRET}@localhost?password={SECRET}"),
    ("REDIS_URL", f"rediss://:{SECRET}@localhost?ssl_cert_reqs=none"),
    ("RANGES_BUCKET", "uploads"),
    *(("BUCKET_OWNER", value) for value in ("me", "1234-5678-9012", "12345678901")),
    *(("INGEST_COLUMNS", value) for value in (",", " ", "id,,hero", "id,hero,", "id,hero, ID")),
    *(("UNCACHED_READS", value) for value in ("x", "Replica", "replica")),  # no replica is named
    *(("REDIS_CLUSTER", value) for value in ("x", "2", "true", "yes", " 1")),
]


@pytest.mark.parametrize(("name", "value"), MALFORMED)
def test_a_missing_or_malformed_setting_is_named(
    service: InProcess, configure: Configure, name: str, value: str | None
) -> None:
    configure(**{"UPLOAD_BUCKET": "uploads", name: value})

    for _ in range(2):
        answer = service.read([1])

        assert (answer.status, answer.error) == (500, "ConfigurationError")
        assert answer.message.startswith(name)
        assert SECRET not in answer.text
        assert_tells_nothing_internal(answer)


def test_settings_are_read_when_a_request_needs_them(
    service: InProcess, configure: Configure
) -> None:
    configure(DB_NAME="")
    assert service.read([1]).status == 500

    configure()
    assert service.read([1]).status == 200


def test_no_setting_is_needed_to_refuse_a_body_that_is_not_json(
    service: InProcess, configure: Configure
) -> None:
    configure(DB_HOST=None)

    assert service.send(b"{").status == 400


def test_the_repr_of_settings_shows_no_secret() -> None:
    settings = Settings.from_environment(
        {
            **dict.fromkeys(REQUIRED, "known"),
            "DB_PASS": SECRET,
            "REDIS_URL": f"rediss://:{SECRET}@cache.example:6379/0",
        }
    )

    assert settings.db_pass == SECRET
    assert "known" in repr(settings)
    assert SECRET not in f"{settings!r} {settings}"


def test_the_error_of_a_malformed_url_shows_no_secret() -> None:
    environment = dict.fromkeys(REQUIRED, "known")
    for url in (value for name, value in MALFORMED if name == "REDIS_URL"):
        with pytest.raises(ConfigurationError) as caught:
            Settings.from_environment({**environment, "REDIS_URL": str(url)})

        assert SECRET not in repr(caught.value)


def test_defaults_are_those_of_the_contract() -> None:
    settings = Settings.from_environment(dict.fromkeys(REQUIRED, "known"))

    assert (settings.db_port, settings.default_table) == (3306, "heroes")
    assert (settings.redis_url, settings.read_by) == ("", None)
    assert (settings.redis_cluster, settings.db_reader_host) == (False, "")


@pytest.mark.parametrize(
    "wrong",
    [
        {"DB_PASS": SECRET},
        {"DB_USER": "nobody-known", "DB_PASS": SECRET},
        {"DB_HOST": "no-such-host.invalid", "DB_PASS": SECRET},
        {"DB_NAME": "no_such_schema"},
        {"DB_PORT": "1"},
    ],
    ids=["password", "user", "host", "schema", "port"],
)
def test_a_database_that_lets_nobody_in_is_a_503_that_shows_nothing(
    service: InProcess,
    configure: Configure,
    wrong: dict[str, str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    configure(**wrong)

    answers = [
        service.read([1]),
        service.read([1], use_cache=False),
        service.write([hero()]),
        service.write([{"id": 1, **hero()}]),
        service.delete([1]),
    ]

    for answer in answers:
        assert (answer.status, answer.error) == (503, "DatabaseUnavailable")
        assert int(answer.headers["retry-after"]) > 0
        assert_tells_nothing_internal(answer)
        assert not any(value in answer.text for value in wrong.values())
    assert caplog.text, "an operator must see it"
    assert SECRET not in caplog.text


def test_a_wrong_password_of_redis_is_logged_without_it(
    service: InProcess, configure: Configure, witness: Witness, caplog: pytest.LogCaptureFixture
) -> None:
    configure(REDIS_URL=f"redis://:{SECRET}@127.0.0.1:{witness.redis_port}")

    assert service.read([1]).status == 200

    assert "REDIS_URL" in caplog.text
    assert SECRET not in caplog.text


def test_a_bug_is_a_500_that_shows_nothing_and_a_log_that_shows_all(
    service: InProcess,
    mariadb: MariaDB,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Such as a statement that is no SQL."""
    for name in ("select", "insert", "lock"):
        monkeypatch.setattr(statements, name, lambda *_: ("SELECT employees WHERE", ()))

    answers = [
        service.read(["e"], TABLE="employees"),
        service.write([{"EmpId": "e", "EmpName": "E"}], TABLE="employees"),
        service.delete(["e"], TABLE="employees"),
    ]

    for answer in answers:
        assert (answer.status, answer.error) == (500, "InternalError")
        assert "employees" not in answer.message
        assert_tells_nothing_internal(answer)
    assert "Traceback" in caplog.text
    assert mariadb.password not in caplog.text
