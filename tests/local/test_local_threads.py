"""Threads against a real `chalice local`: no connection shared, no deadlock, every answer right.

Each client has rows of its own, whose values it knows exactly. It also writes rows that all clients
write, and knows which values these may have.
"""

import random
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from local.machine import PORTS, port_is_free
from local.servers import App, MariaDB, Redis
from tests.conftest import running
from tests.support.client import HTTP_TIMEOUT_SECONDS, Answer, OverHttp, Row, as_stored, hero
from tests.support.witness import Witness

CLIENTS = 16
TURNS = 15
SHARED_IDS = range(1, 9)
ALL_DONE_SECONDS = 90


class KeptConnection(OverHttp):
    """`chalice local` has a thread for each."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._session = requests.Session()
        self._session.trust_env = False

    def send(self, body: bytes, content_type: str | None = None) -> Answer:
        response = self._session.post(self.url, data=body, timeout=HTTP_TIMEOUT_SECONDS)
        return Answer(response.status_code, response.content, {})

    def close(self) -> None:
        """The next request makes a new one, and with it a new thread there."""
        self._session.close()


class Client:
    """One thread: writes, reads and deletes by turns."""

    def __init__(self, url: str, number: int) -> None:
        self._service = KeptConnection(url)
        self._number = number
        self._dice = random.Random(number)
        self._own: dict[int, Row] = {}

    def run(self) -> None:
        for turn in range(TURNS):
            name = f"{self._number}/{turn}"
            self._insert(name)
            self._fight(name)
            self._change(f"{name} changed")
            self._check()
            if turn % 3 == 0:
                self._delete()
            self._service.close()

    def _insert(self, name: str) -> None:
        rows = [hero(name=name, xp=self._xp) for _ in range(2)]
        for id, row in zip(self._service.write(rows).ids, rows):
            assert id not in self._own
            self._own[id] = as_stored(id, row)

    def _change(self, name: str) -> None:
        id = self._dice.choice(list(self._own))
        self._own[id] = as_stored(id, hero(name=name, xp=self._xp))
        assert self._service.write([self._own[id]], self._dice.random() < 0.8).ids == [id]

    def _check(self) -> None:
        ids = self._dice.sample(list(self._own), len(self._own))
        for use_cache in (True, False, True):
            assert self._service.read(ids, use_cache).rows == [self._own[id] for id in ids]
        by_xp = self._service.read([self._xp], BY="xp").rows
        assert by_xp == [self._own[id] for id in sorted(self._own)]

    def _delete(self) -> None:
        id = self._dice.choice(list(self._own))
        del self._own[id]
        answer = self._service.post({"REQUEST": "delete", "SQLS": [id]})
        assert answer.fields["deleted"] == [id]
        assert self._service.read([id]).missing == [id]

    def _fight(self, name: str) -> None:
        """For rows that all want, all of one write or none of it."""
        ids = self._dice.sample(SHARED_IDS, 3)
        rows = [{"id": id, **hero(name=name, power=f"of {id}", xp=-1)} for id in ids]
        assert self._service.write(rows).ids == ids
        read = self._service.read(SHARED_IDS).rows
        assert [(row["id"], row["power"]) for row in read] == [
            (id, f"of {id}") for id in SHARED_IDS
        ]

    @property
    def _xp(self) -> int:
        """A lookup that no other client's rows are under."""
        return 1000 + self._number


@pytest.fixture(scope="module")
def own_app(
    tmp_path_factory: pytest.TempPathFactory, environment: Mapping[str, str]
) -> Iterator[App]:
    """A process of its own: what it holds is what these threads made it open."""
    port = next(port for port in random.sample(PORTS, len(PORTS)) if port_is_free(port))
    with running(App(tmp_path_factory.mktemp("threads") / "app", port, environment)) as app:
        yield app


def connections(mariadb: MariaDB, witness: Witness) -> tuple[int, int]:
    """What the servers count: the app's at the database, all at Redis."""
    [(sql,)] = witness.query(
        "SELECT COUNT(*) FROM information_schema.processlist WHERE user = %s", [mariadb.user]
    )
    return int(sql), len(witness.redis.client_list())


def test_sixteen_threads_get_right_answers_over_few_connections(
    own_app: App, mariadb: MariaDB, redis_server: Redis, witness: Witness
) -> None:
    shared = [{"id": id, **hero(power=f"of {id}", xp=-1)} for id in SHARED_IDS]
    OverHttp(f"{own_app.url}/").write(shared)
    before = connections(mariadb, witness)
    most = before
    deadline = time.monotonic() + ALL_DONE_SECONDS
    with ThreadPoolExecutor(CLIENTS) as pool:
        clients = [Client(f"{own_app.url}/", number) for number in range(CLIENTS)]
        running = [pool.submit(client.run) for client in clients]
        while not all(future.done() for future in running):
            assert time.monotonic() < deadline, "they wait for each other"
            now = connections(mariadb, witness)
            most = max(most[0], now[0]), max(most[1], now[1])
            time.sleep(0.02)
        for future in running:
            future.result()

    sql, redis = (now - then for now, then in zip(most, before))
    print(f"{CLIENTS} threads: at most {sql} connections to the database, {redis} to Redis")
    assert sql <= CLIENTS + 1
    assert redis <= CLIENTS + 1
