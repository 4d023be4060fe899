"""Clients that read and write heroes over HTTP, and compare each answer with acknowledged writes.

A hero's `xp` is its version. Each hero has one writer, so its versions rise. An answer is stale
when its version is older than one that was acknowledged before the read began.
"""

import http.client
import json
import random
import re
import statistics
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from local.servers import ServerError

HEROES = 200
READERS = 3
WRITERS = 2
# Neither service may take all the processor time from the other.
READ_PAUSE_SECONDS = 0.005
WRITE_PAUSE_SECONDS = 0.1
ANSWER_TIMEOUT_SECONDS = 30
Request = Mapping[str, Any]


class RequestFailed(ServerError):
    """There was no answer, or an error. The text says which."""


@dataclass(frozen=True)
class Glance:
    """Figures of one moment. `reads`, `writes`, `stale` and `failed` count from the start. `hits`
    (a share, None where the service does not say) and `median_ms` are of the reads since the last
    glance."""

    reads: int
    writes: int
    stale: int
    failed: int
    hits: float | None
    median_ms: float


class Client:
    """An HTTP client with one kept connection."""

    def __init__(self, url: str) -> None:
        self._connection = http.client.HTTPConnection(
            str(urlsplit(url).netloc), timeout=ANSWER_TIMEOUT_SECONDS
        )

    def post(self, request: Request) -> tuple[Any, str]:
        """The body of the answer, and its header `Cache-Status`. Raises RequestFailed."""
        try:
            self._connection.request("POST", "/", json.dumps(request))
            response = self._connection.getresponse()
            answer = json.loads(response.read())
        except (OSError, http.client.HTTPException, ValueError) as error:
            self.close()
            raise RequestFailed(f"{type(error).__name__}: {error}") from error
        if response.status != 200:
            raise RequestFailed(json.dumps(answer)[:200])
        return answer["body"], response.headers.get("Cache-Status", "")

    def close(self) -> None:
        """The next request makes a new connection."""
        self._connection.close()


class Players:
    """The clients of one service, each in a thread. `first_id`: the id of its first hero."""

    def __init__(self, name: str, url: str, first_id: int) -> None:
        self.name = name
        self.first_failure = ""
        self._url = url
        self._ids = range(first_id, first_id + HEROES)
        self._acknowledged = dict.fromkeys(self._ids, 0)
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._reads = self._writes = self._stale = self._failed = 0
        self._hits: list[float] = []
        self._seconds: list[float] = []
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Writes every hero once, then starts the clients. Raises RequestFailed."""
        with closing(Client(self._url)) as client:
            client.post(write([hero(id, 0) for id in self._ids]))
        for _ in range(READERS):
            self._begin(self._read, ())
        for i in range(WRITERS):
            self._begin(self._write, self._ids[i::WRITERS])

    def stop(self) -> None:
        """Stops the clients, and waits for them."""
        self._over.set()
        for thread in self._threads:
            thread.join()

    def glance(self) -> Glance:
        with self._lock:
            hits, seconds = self._hits, self._seconds
            self._hits, self._seconds = [], []
            share = statistics.mean(hits) if hits else None
            median_ms = statistics.median(seconds) * 1000 if seconds else 0.0
            return Glance(self._reads, self._writes, self._stale, self._failed, share, median_ms)

    def _begin(self, play: Callable[[Client, Any], None], ids: Sequence[int]) -> None:
        thread = threading.Thread(target=self._play, args=(play, ids), daemon=True)
        self._threads.append(thread)
        thread.start()

    def _play(self, play: Callable[[Client, Any], None], ids: Sequence[int]) -> None:
        sent = dict.fromkeys(ids, 0)
        with closing(Client(self._url)) as client:
            while not self._over.is_set():
                try:
                    play(client, sent)
                except RequestFailed as failure:
                    with self._lock:
                        self._failed += 1
                        self.first_failure = self.first_failure or str(failure)

    def _read(self, client: Client, _: object) -> None:
        self._over.wait(READ_PAUSE_SECONDS)
        id = random.choice(self._ids)
        oldest, started = self._acknowledged[id], time.perf_counter()
        request = {"REQUEST": "read", "TABLE": "heroes", "BY": "id", "SQLS": [id]}
        rows, cache_status = client.post(request)
        seconds = time.perf_counter() - started
        hits = re.search(r'detail="(\d+) of', cache_status)
        with self._lock:
            self._reads += 1
            self._stale += [row["id"] for row in rows] != [id] or rows[0]["xp"] < oldest
            self._seconds.append(seconds)
            if cache_status:
                self._hits.append(int(hits[1]) if hits else 0)

    def _write(self, client: Client, sent: dict[int, int]) -> None:
        self._over.wait(WRITE_PAUSE_SECONDS)
        id = random.choice(list(sent))
        sent[id] += 1  # also after a failed write, which may have been done
        client.post(write([hero(id, sent[id])]))
        self._acknowledged[id] = sent[id]
        with self._lock:
            self._writes += 1


def write(rows: Sequence[Request]) -> Request:
    return {"REQUEST": "write", "TABLE": "heroes", "SQLS": rows}


def hero(id: int, version: int) -> Request:
    words = {"hero": "Phoenix", "power": "comes back", "name": f"Hero {id}", "color": "red"}
    return {"id": id, "xp": version, **words}
