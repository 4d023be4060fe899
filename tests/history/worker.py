"""A client with the service in its process: random requests for a few rows, each noted.

Runs until its time is over or it is killed; the next one in its place takes a new incarnation.
"""

import logging
import os
import random
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.history.moments import Orders
from tests.history.records import (
    ACKNOWLEDGED,
    REFUSED,
    UNKNOWN,
    Failed,
    Intent,
    Outcome,
    Recorder,
    Seen,
    Wrong,
    now,
)

SHARED_IDS = range(1, 9)
XPS = range(1, 5)
OWN_ROWS = 3
"""Rows without a key that a client leaves standing before it deletes the oldest."""
NEWS = 64
ATTEMPTS = 6
RETRY_SECONDS = 0.2

Answer = dict[str, Any]
Invoke = Callable[[Answer], Answer]


@dataclass(frozen=True)
class Plan:
    """What a worker is given. `name` starts every token. `system` names how it serves requests,
    see `systems`. `news`: ids that somebody was given lately, in shared memory."""

    name: str
    system: str
    environment: Mapping[str, str]
    folder: Path
    until: float
    orders: Orders
    news: Any
    threads: int = 1


def work(plan: Plan, process: int, incarnation: int, relayed: Mapping[str, str]) -> None:
    """The whole life of a process. `relayed`: settings of its own."""
    from tests.history.systems import SYSTEMS

    os.environ.update({**plan.environment, **relayed})
    logging.basicConfig(filename=plan.folder / f"{process}.log", level=logging.WARNING)
    invoke = SYSTEMS[plan.system](lambda moment: plan.orders.reach(process, moment))
    recorder = Recorder(plan.folder / f"{process}-{incarnation}.jsonl")
    clients = [
        Client(plan, f"{plan.name}.{process}.{incarnation}.{thread}", invoke, recorder)
        for thread in range(plan.threads)
    ]
    threads = [threading.Thread(target=client.run) for client in clients[1:]]
    for thread in threads:
        thread.start()
    clients[0].run()
    for thread in threads:
        thread.join()


class Client:
    def __init__(self, plan: Plan, name: str, invoke: Invoke, recorder: Recorder) -> None:
        self._plan = plan
        self._name = name
        self._invoke = invoke
        self._recorder = recorder
        self._random = random.Random(name)
        self._count = 0
        self._own: list[int] = []

    def run(self) -> None:
        choices = [self._read, self._replace, self._insert, self._delete]
        while time.monotonic() < self._plan.until:
            [step] = self._random.choices(choices, (70, 20, 5, 5))
            step()

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
        operation = self._next()
        self._change(Intent(operation, now(), deletes=self._some(SHARED_IDS, 2)), key=True)

    def _write(self, ids: list[int]) -> None:
        """Rows under these ids, 0 for a new one; of one's own the oldest go."""
        operation = self._next()
        rows = [
            (id, self._random.choice(XPS), f"{operation}.{number}") for number, id in enumerate(ids)
        ]
        answered = self._change(Intent(operation, now(), rows), key=self._random.random() < 0.25)
        for asked, id in zip(ids, answered):
            if not asked:
                self._own.append(id)
                self._plan.news[self._random.randrange(NEWS)] = id
        while len(self._own) > OWN_ROWS:
            self._change(Intent(self._next(), now(), deletes=[self._own.pop(0)]), key=False)

    def _change(self, intent: Intent, *, key: bool) -> list[int]:
        """Send it, with an idempotency key again and again until it is known to have happened.
        The ids in the answer."""
        payload: Answer = {
            "REQUEST": "write" if intent.rows else "delete",
            "SQLS": [_hero(*row) for row in intent.rows] or intent.deletes,
        }
        if intent.rows:
            payload["USE_CACHE"] = str(self._random.random() < 0.85)
        if key:
            payload["IDEMPOTENCY_KEY"] = intent.operation
        self._recorder.add(intent)
        outcome = REFUSED
        for _ in range(ATTEMPTS if key else 1):
            start = now()
            answer = self._invoke(payload)
            end = now()
            if answer["statusCode"] == 200:
                ids: list[int] = answer["ids"] if intent.rows else answer["deleted"]
                self._recorder.add(Outcome(intent.operation, end, ACKNOWLEDGED, ids))
                return ids
            self._failed(payload["REQUEST"], start, end, answer)
            if answer["body"]["error"] == "OutcomeUnknown":
                outcome = UNKNOWN
            if key:
                time.sleep(RETRY_SECONDS)
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
