"""A user of Redis with rights, over TLS, whose password is a token that changes."""

from collections.abc import Iterator

import pytest

from tests.conftest import Configure
from tests.support import aws_tokens
from tests.support.certificates import Authority
from tests.support.client import InProcess, as_stored, hero
from tests.support.leaks import assert_tells_nothing_internal
from tests.support.topologies import USER, Topology, cluster, one_node, start_afresh
from tests.support.witness import Witness

CACHE = "herocache-dev"
NO_ENTRY = "rejects the user or the password"


@pytest.fixture(scope="module", params=["one node", "cluster"])
def locked(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Topology]:
    """Takes TLS only, and wants to know who it is."""
    home = tmp_path_factory.mktemp("locked")
    authority = Authority(home / "ca")
    servers = one_node if request.param == "one node" else cluster
    with servers(home, authority=authority, is_locked=True) as topology:
        yield topology


def expect(locked: Topology, token: str) -> None:
    """From now on this is the user's only password, and nobody is logged in."""
    for node in locked.masters:
        node.ask("ACL", "SETUSER", USER, "resetpass", f">{token}")
        node.ask("CLIENT", "KILL", "USER", USER)


@pytest.fixture
def by_token(
    witness: Witness, configure: Configure, locked: Topology, monkeypatch: pytest.MonkeyPatch
) -> InProcess:
    start_afresh(witness, locked)
    aws_tokens.be_lambda(monkeypatch)
    aws_tokens.stop_clock(monkeypatch, aws_tokens.FIRST)
    expect(locked, aws_tokens.cache_token(CACHE, USER, is_serverless=locked.is_cluster))
    settings = locked.settings()
    scheme, _, place = settings["REDIS_URL"].partition("://")
    configure(
        **{**settings, "REDIS_URL": f"{scheme}://{USER}@{place.partition('@')[2]}"},
        REDIS_AUTH="iam",
        REDIS_CACHE_NAME=CACHE,
        REDIS_SERVERLESS=str(int(locked.is_cluster)),
    )
    return InProcess()


def gets(locked: Topology, service: InProcess, id: int) -> int:
    """How many commands that read entries a read of the hero costs."""
    with locked.spent() as spent:
        assert service.read([id]).rows == [as_stored(id, hero())]
    return sum(asked["mget"] for asked in spent)


def test_a_token_logs_in(by_token: InProcess, locked: Topology) -> None:
    assert by_token.health("?deep=1").fields["cache"]["ok"] is True

    [id] = by_token.write([hero()]).ids

    assert locked.entries()
    assert gets(locked, by_token, id) == 1


def test_a_new_connection_logs_in_by_a_new_token(
    by_token: InProcess, locked: Topology, monkeypatch: pytest.MonkeyPatch, witness: Witness
) -> None:
    """As after the 12 hours that ElastiCache lets a connection live."""
    [id] = by_token.write([hero()]).ids
    by_token.read([id])
    aws_tokens.stop_clock(monkeypatch, aws_tokens.LATER)
    expect(locked, aws_tokens.cache_token(CACHE, USER, is_serverless=locked.is_cluster))

    with witness.spent() as spent:
        assert gets(locked, by_token, id) == 1

    assert spent.statements <= 1, "a hit; at most the generation was asked for"
    assert by_token.health("?deep=1").fields["status"] == "ok"


def test_a_token_that_is_refused_fails_no_request_and_is_shown_nowhere(
    by_token: InProcess, locked: Topology, caplog: pytest.LogCaptureFixture
) -> None:
    expect(locked, "another")

    [id] = by_token.write([hero()]).ids

    assert by_token.read([id]).rows == [as_stored(id, hero())]
    answer = by_token.health("?deep=1")
    assert NO_ENTRY in answer.fields["cache"]["error"]
    assert_tells_nothing_internal(answer)
    assert NO_ENTRY in caplog.text
    assert "X-Amz" not in caplog.text


def test_credentials_that_are_missing_fail_no_request_and_are_named(
    by_token: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")

    [id] = by_token.write([hero()]).ids

    assert by_token.read([id]).rows == [as_stored(id, hero())]
    words = by_token.health("?deep=1").fields["cache"]["error"]
    assert words.startswith("AWS_ACCESS_KEY_ID is not set")
