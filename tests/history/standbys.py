"""A second server of each kind: it takes over and gives back, while connections to the first stay.

A switchover of the database loses nothing, as of Aurora: the old writer is read-only first, and
the standby has everything. Until it follows, it shows rows as they were. A failover of Redis loses
what came last. Nobody tells the clients.
"""

import contextlib
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pymysql
import redis

from chalicelib.cache.connection import NAMED_FOR_SECONDS
from local.machine import LOOPBACK
from local.servers import MariaDB, Redis

CAUGHT_UP_WITHIN_SECONDS = 20
# How long a Redis stays a replica, at least. If it is the master again sooner, a container that
# kept its connection does not notice: the service gives that up (docs/cache.md).
REPLICA_FOR_SECONDS = NAMED_FOR_SECONDS + 0.1
# MySQL has the second two by default, MariaDB has no name for the others.
_BINLOG = (
    *("--log-bin=log", "--loose-log-slave-updates", "--loose-binlog-format=ROW"),
    *("--loose-gtid-mode=ON", "--loose-enforce-gtid-consistency=ON"),
)
_AT_ONCE = ("--repl-diskless-sync-delay", "0")


@contextmanager
def database_pair(home: Path) -> Iterator[tuple[MariaDB, MariaDB]]:
    """The writer and its standby, which follows it and is never killed."""
    writer = MariaDB(home / "mariadb", arguments=(*_BINLOG, "--server-id=1"))
    quick = "--innodb-flush-log-at-trx-commit=0"
    standby = MariaDB(home / "standby", arguments=(*_BINLOG, "--server-id=2", quick))
    with writer:
        writer.apply_schema()
        standby.home.mkdir(mode=0o700)
        for secret in ("password", "root-password"):
            shutil.copy(writer.home / secret, standby.home / secret)
        with standby:
            standby.query("RESET MASTER" if standby.is_mariadb else "RESET BINARY LOGS AND GTIDS")
            follow(standby, writer)
            yield writer, standby


def follow(standby: MariaDB, writer: MariaDB) -> None:
    """Make it a replica that takes no writes. Transactions that are still open on it end, as where
    a writer of Aurora becomes a reader: a client of the Data API that was killed leaves one behind
    for three minutes, and what its locks hold up would not be copied."""
    _end_transactions(standby)
    password = (writer.home / "root-password").read_text()
    standby.query("SET GLOBAL read_only = 1")
    where = {"HOST": f"'{LOOPBACK}'", "PORT": writer.port, "CONNECT_RETRY": 1}
    where |= {"USER": "'root'", "PASSWORD": f"'{password}'"}
    if standby.is_mariadb:
        change, role, how = "CHANGE MASTER TO", "MASTER", "MASTER_USE_GTID = current_pos"
    else:
        change, role = "CHANGE REPLICATION SOURCE TO", "SOURCE"
        how = "SOURCE_AUTO_POSITION = 1, GET_SOURCE_PUBLIC_KEY = 1"
    options = [f"{role}_{name} = {value}" for name, value in where.items()]
    standby.query(f"{change} {', '.join(options)}, {how}")
    standby.query(f"START {_replica(standby)}")


def _replica(server: MariaDB) -> str:
    return "SLAVE" if server.is_mariadb else "REPLICA"


def _end_transactions(server: MariaDB) -> None:
    open_ones = server.query(
        "SELECT trx_mysql_thread_id FROM information_schema.innodb_trx"
        " WHERE trx_mysql_thread_id <> 0"
    )
    for (connection,) in open_ones:
        with contextlib.suppress(pymysql.MySQLError):  # it has gone by itself
            server.query("KILL %s", [connection])


def switch_over(writer: MariaDB, standby: MariaDB) -> None:
    """`standby` has all that was committed and takes writes; `writer` takes none, and follows
    nobody."""
    writer.query("SET GLOBAL read_only = 1")
    last = "@@gtid_binlog_pos" if writer.is_mariadb else "@@gtid_executed"
    [(committed,)] = writer.query(f"SELECT {last}")
    has_all = f"{last} = %s" if writer.is_mariadb else f"GTID_SUBSET(%s, {last})"
    _wait_until(lambda: standby.query(f"SELECT {has_all}", [committed]) == [(1,)])
    standby.query(f"STOP {_replica(standby)}")
    # Else it would begin to follow again when it is killed and started.
    standby.query(f"RESET {_replica(standby)} ALL")
    standby.query("SET GLOBAL read_only = 0")


@contextmanager
def redis_pair(home: Path) -> Iterator[tuple[Redis, Redis]]:
    """The master and a server that is to become its replica at times."""
    with (
        Redis(home / "redis", arguments=_AT_ONCE) as master,
        Redis(home / "redis-standby", arguments=_AT_ONCE) as standby,
    ):
        yield master, standby


@contextmanager
def failover(master: Redis, standby: Redis) -> Iterator[Callable[[], None]]:
    """`standby` has what `master` had until now. Call what is given: then it has the port of
    `master`, which follows it; at the end it is the other way round, and `standby` follows until
    the next time. Connections stay with the server that they were made to."""
    with _client(master) as old, _client(standby) as new:
        new.execute_command("REPLICAOF", LOOPBACK, master.port)
        _wait_until(lambda: _is_copied(new))
        time.sleep(REPLICA_FOR_SECONDS)
        new.execute_command("REPLICAOF", "NO", "ONE")

        def take_over() -> None:
            old.config_set("port", 0)
            _listen(new, master.port)
            old.execute_command("REPLICAOF", LOOPBACK, master.port)

        try:
            yield take_over
        finally:
            new.config_set("port", standby.port)
            old.execute_command("REPLICAOF", "NO", "ONE")
            _listen(old, master.port)
            new.execute_command("REPLICAOF", LOOPBACK, master.port)


def _client(server: Redis) -> "redis.Redis":
    """With one connection, which outlives a change of the port."""
    return redis.Redis(host=LOOPBACK, port=server.port, single_connection_client=True)


def _listen(server: "redis.Redis", port: int) -> None:
    """Also where a child of the one that left the port still copies its data: that has it too."""

    def is_listening() -> bool:
        try:
            return bool(server.config_set("port", port))
        except redis.ResponseError:
            return False

    _wait_until(is_listening)


def _is_copied(replica: "redis.Redis") -> bool:
    replication: Any = replica.info("replication")
    return bool(replication["master_link_status"] == "up")


def _wait_until(has_all: Callable[[], bool]) -> None:
    deadline = time.monotonic() + CAUGHT_UP_WITHIN_SECONDS
    while not has_all():
        assert time.monotonic() < deadline, "the standby never caught up"
        time.sleep(0.02)
