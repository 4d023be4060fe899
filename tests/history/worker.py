"""A client with the service in its process: random requests for a few rows, each noted.

Runs until its time is over or it is killed; the next one in its place takes a new incarnation, and
sends what was not answered again: requests with an idempotency key, and files.
"""

import logging
import os
import random
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chalicelib.ingest import service as ingest_service
from tests.history.bucket import Folder
from tests.history.ledger import PAGES, PRODUCTS, TITLE
from tests.history.records import (
    ACKNOWLEDGED,
    REFUSED,
    UNKNOWN,
    Adding,
    Counted,
    Failed,
    Intent,
    Outcome,
    Ran,
    Recorder,
    Seen,
    Shown,
    Token,
    Wrong,
    now,
    records_of,
    unfinished,
)
from tests.history.stop_points import Orders
from tests.support.pages import declare

SHARED_IDS = range(1, 9)
XPS = range(1, 5)
# How many rows without a key a client keeps. Before it adds one more, it deletes the oldest.
OWN_ROWS = 3
NEWS = 64
ATTEMPTS = 6
# The pause after the first try. Each later pause is twice as long.
RETRY_SECONDS = 0.02
# A file of three rows counts as large.
MAX_SMALL_BYTES = 150
READ, REPLACE, INSERT, DELETE, UPLOAD = "read", "replace", "insert", "delete", "upload"
COUNT, INCREMENT, SYNC = "count", "increment", "sync"
# Of write-behind counters.
SHOW, ADD = "show", "add"
# So that two increments seldom add the same.
MOST_ADDED = 10_000
# What clients do, and how often: relative weights.
MIX: Mapping[str, float] = {READ: 70, REPLACE: 20, INSERT: 5, DELETE: 5}
# Uploads are rare: a large file empties the cache and takes half a second.
MIX_WITH_FILES = {**MIX, UPLOAD: 0.2}
MIX_OF_COUNTERS: Mapping[str, float] = {SHOW: 10, ADD: 10, SYNC: 0.8}
MIX_OF_ALL = {**MIX_WITH_FILES, COUNT: 15, INCREMENT: 8, **MIX_OF_COUNTERS}

Answer = dict[str, Any]
Invoke = Callable[[Answer], Answer]


@dataclass(frozen=True)
class Plan:
    """What a worker is given. `name` starts every token. `system` names how it serves requests,
    see `systems`. In shared memory: `until`, the time at which to end, which is known once all have
    begun; `news`, ids that somebody was given lately."""

    name: str
    system: str
    environment: Mapping[str, str]
    folder: Path
    until: Any
    orders: Orders
    news: Any
    mix: Mapping[str, float]
    threads: int = 1


def work(plan: Plan, process: int, incarnation: int, relayed: Mapping[str, str]) -> None:
    """The whole life of a process. `relayed`: settings of its own."""
    from tests.history.systems import SYSTEMS

    os.environ.update({**plan.environment, **relayed})
    declare()
    sys.stdout = (plan.folder / f"{process}.metrics").open("a")
    logging.basicConfig(filename=plan.folder / f"{process}.log", level=logging.WARNING)
    bucket = Folder(plan.folder / "bucket")
    bucket.stand_in()
    ingest_service.MAX_SMALL_BYTES = MAX_SMALL_BYTES
    invoke = SYSTEMS[plan.system](lambda moment: plan.orders.reach(process, moment))
    left = unfinished(plan.folder, process)
    recorder = Recorder(records_of(plan.folder, process, incarnation))
    clients = [
        Client(plan, f"{plan.name}.{process}.{incarnation}.{thread}", invoke, recorder, bucket)
        for thread in range(plan.threads)
    ]
    threads = [threading.Thread(target=client.run) for client in clients[1:]]
    for thread in threads:
        thread.start()
    for intent in left:
        clients[0].send_again(intent)
    clients[0].run()
    for thread in threads:
        thread.join()


class Client:
    def __init__(
        self, plan: Plan, name: str, invoke: Invoke, recorder: Recorder, bucket: Folder
    ) -> None:
        self._plan = plan
        self._name = name
        self._invoke = invoke
        self._recorder = recorder
        self._bucket = bucket
        self._random = random.Random(name)
        self._count = 0
        self._own: list[int] = []

    def run(self) -> None:
        steps = {
            **{READ: self._read, REPLACE: self._replace, INSERT: self._insert},
            **{DELETE: self._delete, UPLOAD: self._upload},
            **{COUNT: self._read_counters, INCREMENT: self._increment, SYNC: self._sync},
            **{SHOW: self._show, ADD: self._add},
        }
        mix = self._plan.mix
        while time.monotonic() < self._plan.until.value:
            [step] = self._random.choices(list(mix), list(mix.values()))
            steps[step]()

    def send_again(self, intent: Intent | Adding) -> None:
        """What another one sent, of whom nobody knows how far he came."""
        self._send(intent, intent.request, UNKNOWN)

    def _read(self) -> None:
        by = self._random.choice(("id", "id", "xp"))
        values = self._ids(4, 0.25) if by == "id" else self._some(XPS, 2)
        cached = self._random.random() < 0.93
        start = now()
        answer = self._invoke(
            {"REQUEST": "read", "SQLS": values, "BY": by, "USE_CACHE": str(cached)}
        )
        end = now()
        if answer["statusCode"] != 200:
            self._failed("cached read" if cached else "uncached read", start, end, answer)
            return
        for what in _wrong(by, values, answer):
            self._recorder.add(Wrong(start, what))
        rows = [(row["id"], row["xp"], row["name"]) for row in answer["body"]]
        self._recorder.add(Seen(by, cached, start, end, values, rows))

    def _replace(self) -> None:
        """Rows with ids, now and then with one that has none."""
        self._write(self._ids(3, 0.03) + [0] * (self._random.random() < 0.1))

    def _insert(self) -> None:
        self._write([0] * self._random.randint(1, 2))

    def _delete(self) -> None:
        ids = self._some(SHARED_IDS, 2)
        self._change(self._next(), {"REQUEST": "delete", "SQLS": ids}, deletes=ids, key=True)

    def _write(self, ids: list[int]) -> None:
        """Rows under these ids, 0 for a new one."""
        operation = self._next()
        rows = self._rows(operation, ids)
        cached = self._random.random() < 0.85
        heroes = [_hero(*row) for row in rows]
        payload = {"REQUEST": "write", "SQLS": heroes, "USE_CACHE": str(cached)}
        answered = self._change(operation, payload, rows, key=self._random.random() < 0.25)
        self._adopt([id for asked, id in zip(ids, answered) if not asked])

    def _upload(self) -> None:
        """A file of rows with ids, or of rows without; now and then it is delivered twice."""
        operation = self._next()
        ids = self._ids(3, 0) if self._random.random() < 0.7 else [0] * self._random.randint(1, 3)
        rows = self._rows(operation, ids)
        lines = [",".join(map(str, _hero(*row).values())) for row in rows]
        event = self._bucket.upload(f"incoming/heroes/{operation}.csv", "\n".join(lines) + "\n")
        answered = self._change(operation, event, rows, key=False)
        self._adopt([id for asked, id in zip(ids, answered) if not asked])
        if self._random.random() < 0.3:
            self._invoke(event)

    def _read_counters(self) -> None:
        values = self._some(PRODUCTS, 2)
        cached = self._random.random() < 0.9
        request = {"REQUEST": "read", "TABLE": "products", "SQLS": values}
        start = now()
        answer = self._invoke({**request, "USE_CACHE": str(cached)})
        end = now()
        if answer["statusCode"] != 200:
            self._failed("read of counters", start, end, answer)
            return
        rows = [(row["ProductId"], row["QuantityInStock"]) for row in answer["body"]]
        if [id for id, _ in rows] != values:
            self._recorder.add(Wrong(start, f"asked for products {values}, got {rows}"))
        self._recorder.add(Counted(cached, start, end, rows))

    def _increment(self) -> None:
        amounts = [(id, self._random.randint(1, MOST_ADDED)) for id in self._some(PRODUCTS, 2)]
        deltas = [{"ProductId": id, "QuantityInStock": amount} for id, amount in amounts]
        payload = {"REQUEST": "increment", "TABLE": "products", "SQLS": deltas}
        payload["USE_CACHE"] = str(self._random.random() < 0.85)
        key = self._random.random() < 0.3
        self._change(self._next(), payload, amounts=amounts, key=key)

    def _show(self) -> None:
        """Write-behind counters, by the key or by the lookup."""
        by = self._random.choice(("nr", "title"))
        cached = self._random.random() < 0.8
        values: list[Any] = self._some(PAGES, 3) if by == "nr" else [TITLE]
        request = {"REQUEST": "read", "TABLE": "pages", "BY": by, "SQLS": values}
        start = now()
        answer = self._invoke({**request, "USE_CACHE": str(cached)})
        end = now()
        if answer["statusCode"] != 200:
            self._failed("read of write-behind counters", start, end, answer)
            return
        rows = [(row["nr"], row["views"]) for row in answer["body"]]
        if [nr for nr, _ in rows] != (values if by == "nr" else [*PAGES]):
            self._recorder.add(Wrong(start, f"asked for pages {values}, got {rows}"))
        how = f"by {by}, {'cached' if cached else 'uncached'}"
        self._recorder.add(Shown(how, start, end, rows))

    def _add(self) -> None:
        amounts = [(nr, self._random.randint(1, MOST_ADDED)) for nr in self._some(PAGES, 2)]
        items = [{"nr": nr, "views": amount} for nr, amount in amounts]
        payload: Answer = {"REQUEST": "increment", "TABLE": "pages", "SQLS": items}
        operation = self._next()
        if self._random.random() < 0.1:
            payload["IDEMPOTENCY_KEY"] = operation
        request = payload if "IDEMPOTENCY_KEY" in payload else {}
        adding = Adding(operation, now(), amounts, request)
        self._recorder.add(adding)
        values = self._send(adding, payload, REFUSED)
        if values and not request:
            rows = [(nr, value) for (nr, _), value in zip(amounts, values)]
            self._recorder.add(Shown("answered", adding.start, now(), rows))

    def _sync(self) -> None:
        """Rows to public keys, while their counters change; or what was counted to the rows."""
        start = now()
        answer = self._invoke({"table": self._random.choice(("products", "pages"))})
        if answer["statusCode"] != 200:
            # Which is no error of a request: it has no status of its own.
            self._recorder.add(Failed(SYNC, start, now(), 503, answer["body"]["error"]))
            return
        self._recorder.add(Ran(start, answer.get("outcome", "")))

    def _rows(self, operation: str, ids: list[int]) -> list[tuple[int, int, Token]]:
        return [
            (id, self._random.choice(XPS), f"{operation}.{number}") for number, id in enumerate(ids)
        ]

    def _adopt(self, ids: list[int]) -> None:
        """New rows; of one's own the oldest go."""
        for id in ids:
            self._own.append(id)
            self._plan.news[self._random.randrange(NEWS)] = id
        while len(self._own) > OWN_ROWS:
            oldest = [self._own.pop(0)]
            payload = {"REQUEST": "delete", "SQLS": oldest}
            self._change(self._next(), payload, deletes=oldest, key=False)

    def _change(
        self,
        operation: str,
        payload: Answer,
        rows: Sequence[tuple[int, int, Token]] = (),
        deletes: Sequence[int] = (),
        amounts: Sequence[tuple[int, int]] = (),
        *,
        key: bool,
    ) -> list[int]:
        """The ids in the answer, or the new values."""
        if key:
            payload["IDEMPOTENCY_KEY"] = operation
        may_repeat = key or "Records" in payload
        request = payload if may_repeat else {}
        intent = Intent(operation, now(), list(rows), list(deletes), request, list(amounts))
        self._recorder.add(intent)
        return self._send(intent, payload, REFUSED)

    def _send(self, intent: Intent | Adding, payload: Answer, outcome: str) -> list[int]:
        """Where that is possible, again and again until it is known to have happened. `outcome`: of
        the tries before."""
        for attempt in range(ATTEMPTS if intent.request else 1):
            start = now()
            answer = self._invoke(payload)
            end = now()
            if answer["statusCode"] == 200:
                ids = _ids_in(answer, intent)
                self._recorder.add(Outcome(intent.operation, end, ACKNOWLEDGED, ids))
                return ids
            self._failed(payload.get("REQUEST", UPLOAD), start, end, answer)
            if answer["body"]["error"] == "OutcomeUnknown":
                outcome = UNKNOWN
            if intent.request:
                time.sleep(RETRY_SECONDS * 2**attempt)
        self._recorder.add(Outcome(intent.operation, end, outcome))
        return []

    def _failed(self, request: str, start: int, end: int, answer: Answer) -> None:
        error = answer["body"]["error"]
        self._recorder.add(Failed(request, start, end, answer["statusCode"], error))

    def _next(self) -> str:
        self._count += 1
        return f"{self._name}.{self._count}"

    def _ids(self, most: int, share_of_news: float) -> list[int]:
        """Some of the few ids, at times one that is new, or will be."""
        ids = self._some(SHARED_IDS, most)
        if self._random.random() < share_of_news:
            news = [id for id in self._plan.news if id]
            if news:
                ids.append(self._random.choice([*news, max(news) + 1, max(news) + 2]))
        return ids

    def _some(self, values: range, most: int) -> list[int]:
        return self._random.sample(values, self._random.randint(1, most))


def _ids_in(answer: Answer, intent: Intent | Adding) -> list[int]:
    """Or the new values of an increment."""
    if isinstance(intent, Adding):
        return [row["views"] for row in answer["values"]]
    if intent.amounts:
        return [row["QuantityInStock"] for row in answer["values"]]
    ids: list[int] = answer["deleted" if intent.deletes else "ids"]
    return ids


def _hero(id: int, xp: int, token: str) -> Answer:
    """Every text in it tells the token, so that a row mixed of two versions is found out."""
    hero = {"hero": f"hero {token}", "power": token, "name": token, "xp": xp, "color": token}
    return {"id": id, **hero} if id else hero


def _wrong(by: str, values: list[int], answer: Answer) -> list[str]:
    """What is wrong with a read by itself."""
    rows: list[Answer] = answer["body"]
    wrong = [f"mixed row {row}" for row in rows if row != _hero(row["id"], row["xp"], row["name"])]
    places = [values.index(row[by]) if row[by] in values else -1 for row in rows]
    if -1 in places or places != sorted(places):
        wrong.append(f"asked by {by} for {values}, got {[(r['id'], r['xp']) for r in rows]}")
    missing = [value for value in values if value not in {row[by] for row in rows}]
    if missing != answer.get("missing", []):
        wrong.append(f"missing {missing} of {values}, told {answer.get('missing')}")
    return wrong
