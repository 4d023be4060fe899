"""The database checks our password or token, and we check its certificate."""

import contextlib
from collections.abc import Iterator
from operator import itemgetter
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from pymysql._auth import scramble_caching_sha2

from chalicelib import services
from chalicelib.db.errors import DatabaseError, translated
from local.machine import LOOPBACK
from local.servers import MariaDB
from tests.conftest import Configure, running
from tests.support import aws_tokens
from tests.support.certificates import Authority
from tests.support.client import Answer, InProcess, as_stored, hero
from tests.support.leaks import assert_tells_nothing_internal
from tests.support.token_proxy import CLEAR_TEXT, SALT, TokenProxy, Way

# Names 127.0.0.1, but the app does not take it for loopback, so it uses TLS.
NOT_LOOPBACK = "127.1"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ours") / "ca")


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("others") / "ca", "DNS:elsewhere.example")


@contextlib.contextmanager
def strict(home: Path, authority: Authority) -> Iterator[MariaDB]:
    """Takes connections over TLS only."""
    pair = (authority.server_certificate, authority.server_key)
    options = [f"--ssl-cert={pair[0]}", f"--ssl-key={pair[1]}", "--require-secure-transport=ON"]
    with running(MariaDB(home / "mariadb", arguments=options)) as server:
        server.apply_schema()
        yield server


@pytest.fixture(scope="module")
def strict_mariadb(
    tmp_path_factory: pytest.TempPathFactory, authority: Authority
) -> Iterator[MariaDB]:
    with strict(tmp_path_factory.mktemp("strict"), authority) as server:
        yield server


def database_words(service: InProcess) -> str:
    answer = service.health("?deep=1")
    assert answer.status == 503
    assert_tells_nothing_internal(answer)
    return str(answer.fields["database"]["error"])


def test_tls_is_used_and_the_certificate_checked(
    service: InProcess, configure: Configure, strict_mariadb: MariaDB, authority: Authority
) -> None:
    configure(**strict_mariadb.environment(), DB_SSL_CA=str(authority.certificate))

    [id] = service.write([hero()]).ids
    assert service.read([id], use_cache=False).rows == [as_stored(id, hero())]

    connection = services.container().database._pool.acquire()
    [(_, cipher)] = connection.rows(("SHOW STATUS LIKE 'Ssl_cipher'", ()))
    services.container().database._pool.release(connection)
    assert cipher


def test_a_file_is_found_from_the_folder_of_the_app_on(
    service: InProcess,
    configure: Configure,
    strict_mariadb: MariaDB,
    authority: Authority,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """Wherever the process was started."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("chalicelib.db.mysql.tls._APP_FOLDER", authority.certificate.parent.parent)
    path = authority.certificate.relative_to(authority.certificate.parent.parent)
    configure(**strict_mariadb.environment(), DB_SSL_CA=str(path))

    assert service.read([404], use_cache=False).missing == [404]


@pytest.mark.parametrize("which", ["stranger", "system"])
def test_a_database_that_another_authority_signed_is_refused(
    service: InProcess,
    configure: Configure,
    strict_mariadb: MariaDB,
    stranger: Authority,
    which: str,
) -> None:
    authority = "system" if which == "system" else str(stranger.certificate)
    configure(**strict_mariadb.environment(), DB_SSL_CA=authority)

    assert database_words(service) == (
        "the database cannot be reached (DB_SSL_CA): its TLS certificate is not signed by a"
        " trusted authority"
    )
    assert service.write([hero()]).error == "DatabaseUnavailable"


def test_a_database_of_another_name_is_refused(
    service: InProcess, configure: Configure, stranger: Authority, tmp_path: Path
) -> None:
    with strict(tmp_path, stranger) as server:
        configure(**server.environment(), DB_SSL_CA=str(stranger.certificate))

        assert "certificate is for another host name" in database_words(service)


def test_a_database_without_tls_is_refused_where_an_authority_is_named(
    service: InProcess, configure: Configure, authority: Authority, mariadb: MariaDB
) -> None:
    """MySQL makes a certificate for itself."""
    configure(DB_SSL_CA=str(authority.certificate))

    words = "it speaks no TLS, and DB_SSL_CA asks for it"
    if not mariadb.is_mariadb:
        words = "its TLS certificate is not signed by a trusted authority"
    assert words in database_words(service)


def test_a_mysql_that_wants_tls_says_so_where_it_is_left_out() -> None:
    """MariaDB answers as to a wrong password. The app leaves TLS out on loopback alone."""
    prohibited = DatabaseError(3159, "Connections using insecure transport are prohibited")
    assert "it takes connections over TLS only: set DB_SSL_CA" in str(translated(prohibited))


@pytest.mark.parametrize("path", ["no/such/file.pem", "README.md"])
def test_an_authority_that_cannot_be_read_is_a_setting_that_is_named(
    service: InProcess, configure: Configure, path: str
) -> None:
    configure(DB_SSL_CA=path)

    for _ in range(2):
        answer = service.read([1], use_cache=False)
        assert (answer.status, answer.error) == (500, "ConfigurationError")
        assert answer.message.startswith("DB_SSL_CA: expected system, or a file of PEM")


@pytest.fixture
def front(mariadb: MariaDB, authority: Authority) -> Iterator[TokenProxy]:
    with TokenProxy(mariadb, authority) as front:
        yield front


@pytest.fixture
def by_token(
    service: InProcess,
    configure: Configure,
    front: TokenProxy,
    authority: Authority,
    monkeypatch: pytest.MonkeyPatch,
) -> InProcess:
    """A cold service that logs in by token; the front takes the first one."""
    aws_tokens.be_lambda(monkeypatch)
    aws_tokens.stop_clock(monkeypatch, aws_tokens.FIRST)
    front.valid = {aws_tokens.database_token(LOOPBACK, front.port, "herocache")}
    configure(
        DB_PORT=str(front.port),
        DB_PASS=None,
        DB_AUTH="iam",
        DB_SSL_CA=str(authority.certificate),
    )
    return service


def test_a_token_logs_in(by_token: InProcess, front: TokenProxy) -> None:
    [id] = by_token.write([hero()]).ids

    for use_cache in (True, False):
        assert by_token.read([id], use_cache).rows == [as_stored(id, hero())]
    assert front.heard == list(front.valid), "one connection, one token"


def test_each_connection_has_a_token_of_its_own_time(
    by_token: InProcess, front: TokenProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kept connection outlives its token; a new one does not use the old."""
    [id] = by_token.write([hero()]).ids
    aws_tokens.stop_clock(monkeypatch, aws_tokens.LATER)
    front.valid = {aws_tokens.database_token(LOOPBACK, front.port, "herocache")}
    assert len(by_token.read([id], use_cache=False).rows) == 1
    assert len(front.heard) == 1

    front.cut()

    assert len(by_token.read([id], use_cache=False).rows) == 1
    assert front.heard[1:] == list(front.valid) != front.heard[:1]


def test_a_token_that_is_refused_is_a_503_that_does_not_show_it(
    by_token: InProcess, front: TokenProxy, caplog: pytest.LogCaptureFixture
) -> None:
    front.valid = set()

    answer: Answer = by_token.read([1], use_cache=False)

    assert (answer.status, answer.error) == (503, "DatabaseUnavailable")
    assert "rejects the user or the password" in answer.message
    assert front.heard
    assert "X-Amz" not in answer.text + caplog.text


def test_credentials_that_are_missing_are_named(
    by_token: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")

    answer = by_token.read([1], use_cache=False)

    assert (answer.status, answer.error) == (500, "ConfigurationError")
    assert answer.message.startswith("AWS_SECRET_ACCESS_KEY is not set")


SHA256 = b"\xfesha256_password\x00" + SALT + b"\x00"
SHA2 = b"\xfecaching_sha2_password\x00" + SALT + b"\x00"
FULL_LOGIN = b"\x01\x04"
# Logins in which a server asks for the password itself.
OVER_TLS = {
    "clear text": CLEAR_TEXT,
    "clear text in the greeting": Way("mysql_clear_password", CLEAR_TEXT.questions),
    "dialog": Way("mysql_native_password", [b"\xfedialog\x00\x04Password: "]),
    "sha256": Way("mysql_native_password", [SHA256]),
    "sha256 in the greeting": Way("sha256_password", [SHA256]),
    "sha2 in full": Way("mysql_native_password", [SHA2, FULL_LOGIN]),
    "sha2 in full from the greeting on": Way("caching_sha2_password", [FULL_LOGIN]),
}


def by_its_own_key() -> dict[str, Way]:
    """Whoever sends the key can read what is encrypted by it."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048).public_key()
    pem = b"\x01" + key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return {
        "sha256 with a key": Way("sha256_password", [pem], has_tls=False),
        "sha256 with a key, later": Way("mysql_native_password", [SHA256, pem], has_tls=False),
        "sha2 with a key": Way("caching_sha2_password", [FULL_LOGIN, pem], has_tls=False),
    }


@pytest.mark.parametrize("host", [NOT_LOOPBACK, LOOPBACK])
@pytest.mark.parametrize("way", {**OVER_TLS, **by_its_own_key()}.items(), ids=itemgetter(0))
def test_nobody_is_told_a_password_whose_certificate_was_not_checked(
    service: InProcess,
    configure: Configure,
    front: TokenProxy,
    mariadb: MariaDB,
    way: tuple[str, Way],
    host: str,
) -> None:
    front.valid = {mariadb.password}
    front.way = way[1] if host == NOT_LOOPBACK else way[1]._replace(has_tls=False)
    configure(DB_HOST=host, DB_PORT=str(front.port))

    words = database_words(service)

    assert front.heard == []
    is_asked = way[0] != "sha256 with a key"  # by a server that speaks out of turn then
    assert not is_asked or "only a server with a checked certificate is told" in words


@pytest.mark.parametrize("name", OVER_TLS)
def test_a_server_with_a_checked_certificate_is_told_the_password_when_it_asks(
    service: InProcess,
    configure: Configure,
    front: TokenProxy,
    mariadb: MariaDB,
    authority: Authority,
    name: str,
) -> None:
    front.valid, front.way = {mariadb.password}, OVER_TLS[name]
    configure(DB_PORT=str(front.port), DB_SSL_CA=str(authority.certificate))

    assert service.read([404], use_cache=False).missing == [404]

    assert front.heard == [mariadb.password]


def test_a_server_that_remembers_the_password_by_its_hash_needs_no_certificate(
    service: InProcess, configure: Configure, front: TokenProxy, mariadb: MariaDB
) -> None:
    scramble = scramble_caching_sha2(mariadb.password.encode(), SALT)
    front.valid = {scramble.rstrip(b"\x00").decode(errors="replace")}
    front.way = Way("mysql_native_password", [SHA2])
    front.welcome = b"\x01\x03"
    configure(DB_HOST=NOT_LOOPBACK, DB_PORT=str(front.port))

    assert service.read([404], use_cache=False).missing == [404]
