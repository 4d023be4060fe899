"""What the grader checks: its own random rows, written and read in every way the contract has."""

import random
import secrets
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from bench.service import Hero, Service, Wrong, shown

MAX_ID = 2**32 - 1
XP_RANGE = range(-(2**31), 2**31)
WORDS = (
    "Comet",
    "Zéphyr",
    "O'Hara",
    'the "Echo"',
    "back\\slash",
    "黒豹",
    "🦊",
    "a\tb\nc",
    " x ",
    "",
)
VERSIONS = {"id": "version 1", "xp": "version 2"}
MISSING = 3

Check = tuple[str, Callable[[], None]]


class Grader:
    """Checks and times one service. `inserted` are the rows it wrote, by id."""

    def __init__(self, service: Service, batch: int) -> None:
        self._service = service
        self.batch = batch
        self.marker = f"grade-{secrets.token_hex(4)}"
        self.inserted: dict[int, Hero] = {}

    def checks(self) -> Iterator[Check]:
        """In this order: the first two write what the others read."""
        for use_cache in (True, False):
            yield f"write {_cache(use_cache)}", partial(self._check_write, use_cache)
        for by, version in VERSIONS.items():
            for what, check in {
                "rows, order, types, columns": self._check_rows,
                "a repeated value is repeated": self._check_repeats,
                "missing values are told": self._check_missing,
            }.items():
                for use_cache in (False, True):
                    name = f"{version}, by {by}, {_cache(use_cache)}: {what}"
                    yield name, partial(check, by, use_cache)
            name = f"{version}, by {by}: the same bytes with and without cache"
            yield name, partial(self._check_same_bytes, by)
        yield "ids given as strings are ids", self._check_string_ids
        for use_cache in (True, False):
            name = f"a row written {_cache(use_cache)} appears in a cached read by xp"
            yield name, partial(self._check_new_row_by_xp, use_cache)

    def write(self, rows: Sequence[Hero], use_cache: bool) -> list[int]:
        ids = self._service.write(rows, use_cache)
        stored = [{"id": i} | row | {"xp": int(row["xp"])} for i, row in zip(ids, rows)]
        self.inserted.update(zip(ids, stored))
        return ids

    def fresh_heroes(self, count: int) -> list[Hero]:
        """Rows with an xp that no other row has; every tenth of them as a string."""
        return [self._hero(xp if i % 10 else str(xp)) for i, xp in enumerate(self._free_xps(count))]

    def sample(self, by: str) -> list[int]:
        """A batch of values to read, in no order."""
        values = {hero[by] for hero in self.inserted.values()}
        if not values:
            raise Wrong("no row could be written, so there is none to read")
        return random.sample(list(values), min(self.batch, len(values)))

    def _hero(self, xp: int | str) -> Hero:
        hero, power, color = random.choices(WORDS, k=3)
        name = f"{self.marker} {random.choice(WORDS)}"
        return {"hero": hero, "power": power, "name": name, "xp": xp, "color": color}

    def _free_xps(self, count: int) -> list[int]:
        """Values that no row has, as far as the service lets us see it."""
        drawn = random.sample(XP_RANGE, 2 * count)
        body = self._service.read("xp", drawn, use_cache=False).fields.get("body")
        rows = body if isinstance(body, list) else []
        taken = {row.get("xp") for row in rows if isinstance(row, dict)}
        return [xp for xp in drawn if xp not in taken][:count]

    def _expected(self, by: str, values: Sequence[int]) -> list[Hero]:
        """Value after value; the rows of one value by id."""
        by_id = sorted(self.inserted.values(), key=lambda hero: int(hero["id"]))
        return [hero for value in values for hero in by_id if hero[by] == value]

    def _check_write(self, use_cache: bool) -> None:
        self.write(self.fresh_heroes(self.batch), use_cache)

    def _check_rows(self, by: str, use_cache: bool) -> None:
        """Rows of both writes, twice: the first cached read may fill, the second finds."""
        values = self.sample(by)
        for _ in range(2):
            self._service.read(by, values, use_cache).expect_rows(self._expected(by, values))

    def _check_repeats(self, by: str, use_cache: bool) -> None:
        values = self.sample(by)[:3]
        values = [values[0], *values, values[0], *reversed(values)]
        self._service.read(by, values, use_cache).expect_rows(self._expected(by, values))

    def _check_missing(self, by: str, use_cache: bool) -> None:
        ids = random.sample(range(MAX_ID - 10_000, MAX_ID), MISSING)
        missing = ids if by == "id" else self._free_xps(MISSING)
        values = self.sample(by)
        asked = [missing[0], *values, *missing[1:]]
        answer = self._service.read(by, asked, use_cache)
        answer.expect_rows(self._expected(by, values), missing)

    def _check_same_bytes(self, by: str) -> None:
        """Of everything written, with the cache and without."""
        values = [hero[by] for hero in self.inserted.values()]
        with_cache, without = (self._service.read(by, values, c) for c in (True, False))
        without.expect_rows(self._expected(by, values))
        if with_cache.content != without.content:
            raise Wrong(f"expected {shown(without.fields)}, got {shown(with_cache.fields)}")

    def _check_string_ids(self) -> None:
        ids = self.sample("id")
        answer = self._service.read("id", [str(i) for i in ids], use_cache=True)
        answer.expect_rows(self._expected("id", ids))

    def _check_new_row_by_xp(self, use_cache: bool) -> None:
        """A cached answer that was right before the write is wrong after it."""
        xp = self.sample("xp")[0]
        self._service.read("xp", [xp], use_cache=True).expect_rows(self._expected("xp", [xp]))
        self.write([self._hero(xp)], use_cache)
        self._service.read("xp", [xp], use_cache=True).expect_rows(self._expected("xp", [xp]))


def _cache(use_cache: bool) -> str:
    return "with cache" if use_cache else "without cache"
