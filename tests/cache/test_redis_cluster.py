"""A Redis Cluster at work: what is sent where, slots that move, masters that die."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from redis.crc import key_slot

from chalicelib.cache import connection as redis_connection
from chalicelib.cache import timeouts
from chalicelib.cache.commands import Command
from tests.conftest import Configure
from tests.support.client import InProcess, Row, as_stored, hero, heroes
from tests.support.topologies import (
    SlotMove,
    Topology,
    cluster,
    is_master,
    is_whole,
    replica_of,
    start_afresh,
    wait_until,
)
from tests.support.witness import Witness

# The most words that ElastiCache Serverless takes in one command.
MAX_WORDS = 3_999
BATCH = 64
BUCKET_OF_THREE = key_slot(b"heroes.3")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Topology]:
    """Of three masters; each test leaves it whole."""
    with cluster(tmp_path_factory.mktemp("cluster")) as topology:
        yield topology


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """How long a busy machine takes is not what these tests are about."""
    monkeypatch.setattr(timeouts, "TIMEOUT_SECONDS", 5)


def warmed(witness: Witness, configure: Configure, topology: Topology) -> InProcess:
    """The app, with heroes 1 to 64 in the table and the cache, by id and by xp."""
    start_afresh(witness, topology)
    configure(**topology.settings())
    service = InProcess()
    service.read([1])
    service.read([1])
    service.write(stored())
    service.read(range(1, BATCH + 1), BY="xp")
    return service


@pytest.fixture
def service(witness: Witness, configure: Configure, shared: Topology) -> InProcess:
    return warmed(witness, configure, shared)


def stored(name: str = "") -> list[Row]:
    rows = [as_stored(row["xp"], row) for row in heroes(BATCH)]
    return [{**row, "name": name or row["name"]} for row in rows]


def assert_answers_are_right(service: InProcess, name: str) -> None:
    """Heroes 1 to 64 are read, replaced by ones of this name, and read again."""
    assert len(service.read(range(1, BATCH + 1)).rows) == BATCH
    service.write(stored(name))
    for by in ("id", "xp"):
        for _ in range(2):
            assert service.read(range(1, BATCH + 1), BY=by).rows == stored(name)


def assert_rows_come_and_go(service: InProcess) -> None:
    [id] = service.write([hero(xp=-7)]).ids
    assert (
        service.read([id]).rows == service.read([-7], BY="xp").rows == [as_stored(id, hero(xp=-7))]
    )
    assert service.delete([id]).deleted == [id]
    assert service.read([id]).missing == [id]
    assert service.read([-7], BY="xp").missing == [-7]


def is_cached(service: InProcess, witness: Witness) -> bool:
    with witness.logged() as statements:
        service.read(range(1, BATCH + 1))
    return not [text for text in statements if " FROM heroes " in text]


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Sequence[Any]]]:
    """What goes to servers and comes from them, in order: "send" or "receive", and the commands."""
    log: list[tuple[str, Sequence[Any]]] = []
    send, replies = redis_connection.NodeConnection.send, redis_connection.NodeConnection.receive

    def logged_send(
        node: redis_connection.NodeConnection,
        commands: Sequence[Command],
        **options: bool,
    ) -> None:
        log.append(("send", commands))
        send(node, commands, **options)

    def logged_replies(node: redis_connection.NodeConnection, count: int) -> list[Any]:
        log.append(("receive", ()))
        return replies(node, count)

    monkeypatch.setattr(redis_connection.NodeConnection, "send", logged_send)
    monkeypatch.setattr(redis_connection.NodeConnection, "receive", logged_replies)
    return log


def test_all_masters_have_their_part_before_any_is_waited_for(
    service: InProcess, sent: list[tuple[str, Sequence[Any]]]
) -> None:
    service.read(range(1, BATCH + 1))

    assert [kind for kind, _ in sent] == ["send"] * 3 + ["receive"] * 3


def test_no_command_is_too_long_or_names_keys_of_two_slots(
    service: InProcess, witness: Witness, sent: list[tuple[str, Sequence[Any]]]
) -> None:
    same_bucket = list(range(16, 160_016, 16))
    for by in ("id", "xp"):
        service.read(range(1, 10_001), BY=by)
        service.read(same_bucket, BY=by)
    rows = [as_stored(value, hero(xp=value)) for value in same_bucket[:1000]]
    for _ in range(2):
        service.write(rows)
    service.write([{**row, "xp": -row["xp"]} for row in rows], use_cache=False)
    service.write([hero(xp=i) for i in range(1000)])
    service.delete(same_bucket[:1000])
    commands = [command.words for kind, commands in sent if kind == "send" for command in commands]
    assert len(commands) > 100
    assert max(map(len, commands)) <= MAX_WORDS
    for command in commands:
        slots = {key_slot(key.encode()) for key in keys_of(command)}
        assert len(slots) == 1, command[:5]


def keys_of(command: Sequence[Any]) -> Sequence[Any]:
    """The keys a command declares, scripts included: at least one."""
    match command[0]:
        case "MGET":
            return command[1:]
        case "SET" | "DEL":
            return command[1:2]
        case "EVALSHA":
            return command[3 : 3 + command[2]]
    raise AssertionError(f"{command[0]} names no key")


def test_servers_that_do_not_know_their_own_names_are_found(
    service: InProcess, shared: Topology, witness: Witness, configure: Configure
) -> None:
    """They are at the host that was asked."""
    for node in shared.masters:
        node.ask("CONFIG", "SET", "cluster-preferred-endpoint-type", "unknown-endpoint")
    try:
        configure(**shared.settings())
        assert is_cached(service, witness)
        assert service.health("?deep=1").fields["status"] == "ok"
    finally:
        for node in shared.masters:
            node.ask("CONFIG", "SET", "cluster-preferred-endpoint-type", "ip")


def test_a_slot_that_moves_changes_no_answer(
    service: InProcess, shared: Topology, witness: Witness
) -> None:
    """While its entries are on both servers (ASK, TRYAGAIN), and when it has moved (MOVED)."""
    move = SlotMove(shared, BUCKET_OF_THREE)
    try:
        move.begin()
        assert_answers_are_right(service, "slot begins to move")
        move.move_entries(at_most=2)
        assert_answers_are_right(service, "slot half moved")
        move.move_entries(at_most=1000)
        assert_answers_are_right(service, "slot not yet announced")
        move.finish()
        assert_answers_are_right(service, "slot moved")
        wait_until(lambda: is_cached(service, witness))
    finally:
        move.undo()


def test_a_moved_slot_is_followed_at_once(
    service: InProcess, shared: Topology, witness: Witness, caplog: pytest.LogCaptureFixture
) -> None:
    move = SlotMove(shared, BUCKET_OF_THREE)
    try:
        move.begin()
        move.move_entries(at_most=1000)
        move.finish()
        assert is_cached(service, witness), "the entries have moved along"
        assert_answers_are_right(service, "moved")
        assert "left alone" not in caplog.text
    finally:
        move.undo()


@pytest.mark.parametrize("position", [0, 1])
def test_a_killed_master_changes_no_answer_and_is_used_again_when_it_is_back(
    service: InProcess, shared: Topology, witness: Witness, position: int
) -> None:
    """The one that REDIS_URL names, or another."""
    victim = shared.masters[position]
    victim.kill()
    try:
        assert_answers_are_right(service, "one master is dead")
        assert_rows_come_and_go(service)
        report = service.health("?deep=1").fields
        assert (report["status"], report["cache"]["ok"]) == ("degraded", False)
    finally:
        victim.start()
        wait_until(lambda: all(is_whole(node, 3) for node in shared.masters))
    wait_until(lambda: is_cached(service, witness))
    assert_answers_are_right(service, "it is back")
    assert_rows_come_and_go(service)
    assert service.health("?deep=1").fields["status"] == "ok"


@pytest.mark.proof
def test_a_promoted_replica_takes_the_place_of_a_killed_master(
    tmp_path: Path, witness: Witness, configure: Configure
) -> None:
    with cluster(tmp_path) as topology, replica_of(topology, 1, tmp_path / "replica") as replica:
        service = warmed(witness, configure, topology)
        topology.masters[1].kill()
        assert_answers_are_right(service, "one master is dead")

        wait_until(lambda: is_master(replica) and is_whole(topology.masters[0], 3))
        wait_until(lambda: is_cached(service, witness))
        assert_answers_are_right(service, "the replica is a master")
        assert_rows_come_and_go(service)
