"""A table with write-behind counters, as a project would declare it."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import pytest

from chalicelib import tables
from chalicelib.cache import generations, timeouts
from chalicelib.column_types import INTEGER, STRING, UNSIGNED_KEY
from chalicelib.tables import Column, Counter, PublicKeys, Table
from tests.support.client import Answer, InProcess, Service
from tests.support.witness import Witness

BEHIND = Counter(write_behind=True)
PAGES = Table(
    "pages",
    (
        Column("nr", UNSIGNED_KEY),
        Column("title", STRING),
        Column("views", INTEGER, BEHIND),
        Column("votes", INTEGER, BEHIND),
        Column("stock", INTEGER, Counter(minimum=0)),
    ),
    auto_key=True,
    lookups=("title",),
    public=PublicKeys("Page", "UsingHash:Page"),
)


CREATE = (
    "CREATE TABLE pages (nr INT UNSIGNED AUTO_INCREMENT PRIMARY KEY, title VARCHAR(255) NOT NULL,"
    " views INT NOT NULL, votes INT NOT NULL, stock INT NOT NULL, INDEX (title)) CHARSET utf8mb4"
)


def declare() -> None:
    """For the rest of this process."""
    cast(dict[str, Table], tables.TABLES)["pages"] = PAGES


@contextmanager
def pages_table(witness: Witness, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Declared and made, with no rows. Gone again after that."""
    witness.query(CREATE)
    witness.query(
        "INSERT INTO cache_generation (table_name, generation, enabled) VALUES ('pages', 1, 1)"
    )
    monkeypatch.setitem(cast(dict[str, Table], tables.TABLES), "pages", PAGES)
    try:
        yield
    finally:
        witness.query("DELETE FROM cache_generation WHERE table_name = 'pages'")
        witness.query("DELETE FROM watched WHERE table_name = 'pages'")
        witness.query("DROP TABLE pages")


def page(nr: int, **columns: object) -> dict[str, Any]:
    return {"nr": nr, "title": "news", "views": 10, "votes": 0, "stock": 5, **columns}


def increment(service: Service, nr: int, amount: object = 1, **fields: object) -> Answer:
    items = [{"nr": nr, "views": amount}]
    return service.post({"REQUEST": "increment", "TABLE": "pages", "SQLS": items, **fields})


def counted(answer: Answer) -> Any:
    assert answer.status == answer.fields["statusCode"] == 200, answer.text
    assert answer.fields["body"] == "increment success"
    return answer.fields["values"]


def stored(witness: Witness) -> dict[int, int]:
    """The views of each page in the database."""
    return dict(witness.query("SELECT nr, views FROM pages ORDER BY nr"))


def shown(service: Service, nr: int) -> set[int]:
    """The views of a page, by all ways to read it."""
    found = set()
    for way in ({}, {"BY": "title"}, {"BY": "title", "LIMIT": 1_000}):
        for use_cache in (True, False):
            values = ["news"] if way else [nr]
            rows = service.read(values, use_cache, TABLE="pages", **way).rows
            found |= {row["views"] for row in rows if row["nr"] == nr}
    return found


def count(nr: int, times: int) -> None:
    """A process that counts: the votes of a page that nobody else counts, and the views of page 1.
    Each read must show exactly what was added so far, of views at least that."""
    declare()
    timeouts.TIMEOUT_SECONDS = 5
    generations.REFRESH_TIMEOUT_SECONDS = 2.0
    service = InProcess()
    last = 0
    for i in range(1, times + 1):
        items = [{"nr": nr, "votes": nr}]
        [own] = counted(service.post({"REQUEST": "increment", "TABLE": "pages", "SQLS": items}))
        assert own["votes"] == nr * i, (own, nr * i)
        [all_] = counted(increment(service, 1))
        assert all_["views"] > last, (all_, last)
        last = all_["views"]
        for way in ({}, {"BY": "title"}):
            for use_cache in (True, False):
                values: list[object] = ["own"] if way else [1, nr]
                rows = service.read(values, use_cache, TABLE="pages", **way).rows
                by_key = {row["nr"]: row for row in rows}
                assert by_key[nr]["votes"] == nr * i, (by_key[nr], nr * i)
                assert by_key[1]["views"] >= last, (by_key[1], last)


if __name__ == "__main__":
    count(int(sys.argv[1]), int(sys.argv[2]))
