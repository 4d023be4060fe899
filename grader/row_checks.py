"""Are the rows right? Writes random rows and reads them in every way the contract has."""

import random
import secrets
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from grader.http_client import Answer, Hero, Service, Way, Wrong, shown

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
COLUMNS = ("id", "xp")
BY_XP = Way("xp", names_it=True)
MISSING = 3

# A name, and a function that raises Wrong or returns what to print below PASS.
Check = tuple[str, Callable[[], str | None]]


class Grader:
    """Checks one service with rows that it writes itself.

    `inserted`: those rows, by id. `default_column`: the column of a read without BY; a check finds
    it out.
    """

    def __init__(self, service: Service, batch: int) -> None:
        self.service = service
        self.batch = batch
        self.marker = f"grade-{secrets.token_hex(4)}"
        self.inserted: dict[int, Hero] = {}
        self.default_column = "id"

    @property
    def ways(self) -> list[Way]:
        """The ways to read: first without BY, then with it."""
        return [Way(self.default_column, names_it=False), *(Way(c, True) for c in COLUMNS)]

    def checks(self) -> Iterator[Check]:
        """Run them in this order: the first two write what the others read, and the third finds out
        what a read without BY goes by."""
        for use_cache in (True, False):
            yield f"write {_cache(use_cache)}", partial(self._check_write, use_cache)
        yield "a read without BY goes by id or by xp", self._check_default
        for way in self.ways:
            for what, check in {
                "rows, order, types, columns": self._check_rows,
                "a repeated value is repeated": self._check_repeats,
                "missing values are told": self._check_missing,
            }.items():
                for use_cache in (False, True):
                    name = f"{way}, {_cache(use_cache)}: {what}"
                    yield name, partial(check, way, use_cache)
            name = f"{way}: the same bytes with and without cache"
            yield name, partial(self._check_same_bytes, way)
        yield "ids given as strings are ids", self._check_string_ids
        for use_cache in (True, False):
            name = f"a row written {_cache(use_cache)} appears in a cached read by xp"
            yield name, partial(self._check_new_row_by_xp, use_cache)

    def write(self, rows: Sequence[Hero], use_cache: bool) -> list[Hero]:
        """Writes rows. Returns them as they are now stored."""
        return self.keep(rows, self.service.write(rows, use_cache))

    def keep(self, rows: Sequence[Hero], written: Answer) -> list[Hero]:
        """Remembers the rows of an acknowledged write. Returns them as they are now stored."""
        ids = written.expect_ids(len(rows))
        stored = [{"id": i} | row | {"xp": int(row["xp"])} for i, row in zip(ids, rows)]
        self.inserted.update(zip(ids, stored))
        return stored

    def remove(self) -> int:
        """Deletes the rows it wrote. Returns how many. Deletes only rows that have its marker,
        because a faulty service may have returned ids of other rows."""
        removed = remove_marked(self.service, sorted(self.inserted), self.marker, self.batch)
        self.inserted.clear()
        return removed

    def fresh_heroes(self, count: int) -> list[Hero]:
        """Rows with an xp that no other row has; every tenth of them as a string."""
        return [self._hero(xp if i % 10 else str(xp)) for i, xp in enumerate(self._free_xps(count))]

    def sample(self, by: str) -> list[int]:
        """A batch of values to read, in random order."""
        values = {hero[by] for hero in self.inserted.values()}
        if not values:
            raise Wrong("no row could be written, so there is none to read")
        return random.sample(list(values), min(self.batch, len(values)))

    def _hero(self, xp: int | str) -> Hero:
        hero, power, color = random.choices(WORDS, k=3)
        name = f"{self.marker} {random.choice(WORDS)}"
        return {"hero": hero, "power": power, "name": name, "xp": xp, "color": color}

    def _free_xps(self, count: int) -> list[int]:
        """Values that no row has, as far as the service shows."""
        drawn = random.sample(XP_RANGE, 2 * count)
        taken = {row.get("xp") for row in self.service.read(BY_XP, drawn, use_cache=False).rows}
        return [xp for xp in drawn if xp not in taken][:count]

    def _expected(self, by: str, values: Sequence[int]) -> list[Hero]:
        """The rows a read must return: value after value, and by id where several have one
        value."""
        by_id = sorted(self.inserted.values(), key=lambda hero: int(hero["id"]))
        return [hero for value in values for hero in by_id if hero[by] == value]

    def _check_write(self, use_cache: bool) -> None:
        self.write(self.fresh_heroes(self.batch), use_cache)

    def _check_default(self) -> str:
        """Compares rows, not statuses: an xp may also be the id of another row."""
        found = []
        for column in COLUMNS:
            values = self.sample(column)
            answer = self.service.read(Way(column, names_it=False), values, use_cache=False)
            if answer.fields.get("body") == self._expected(column, values):
                found.append(column)
        if len(found) != 1:
            raise Wrong("a request without BY reads neither the ids nor the xps that were written")
        [self.default_column] = found
        return f"by {self.default_column}"

    def _check_rows(self, way: Way, use_cache: bool) -> None:
        """Reads rows of both writes twice: the first cached read may fill the cache, the second
        reads from it."""
        values = self.sample(way.by)
        for _ in range(2):
            answer = self.service.read(way, values, use_cache)
            answer.expect_rows(self._expected(way.by, values))

    def _check_repeats(self, way: Way, use_cache: bool) -> None:
        values = self.sample(way.by)[:3]
        values = [values[0], *values, values[0], *reversed(values)]
        answer = self.service.read(way, values, use_cache)
        answer.expect_rows(self._expected(way.by, values))

    def _check_missing(self, way: Way, use_cache: bool) -> None:
        ids = random.sample(range(MAX_ID - 10_000, MAX_ID), MISSING)
        missing = ids if way.by == "id" else self._free_xps(MISSING)
        values = self.sample(way.by)
        asked = [missing[0], *values, *missing[1:]]
        answer = self.service.read(way, asked, use_cache)
        answer.expect_rows(self._expected(way.by, values), missing)

    def _check_same_bytes(self, way: Way) -> None:
        """Reads everything written, with the cache and without."""
        values = [hero[way.by] for hero in self.inserted.values()]
        with_cache, without = (self.service.read(way, values, c) for c in (True, False))
        without.expect_rows(self._expected(way.by, values))
        if with_cache.content != without.content:
            raise Wrong(f"expected {shown(without.fields)}, got {shown(with_cache.fields)}")

    def _check_string_ids(self) -> None:
        ids = self.sample("id")
        way = next(way for way in self.ways if way.by == "id")
        answer = self.service.read(way, [str(i) for i in ids], use_cache=True)
        answer.expect_rows(self._expected("id", ids))

    def _check_new_row_by_xp(self, use_cache: bool) -> None:
        """The write makes an earlier cached answer out of date."""
        xp = self.sample("xp")[0]
        way = next(way for way in self.ways if way.by == "xp")
        self.service.read(way, [xp], use_cache=True).expect_rows(self._expected("xp", [xp]))
        self.write([self._hero(xp)], use_cache)
        self.service.read(way, [xp], use_cache=True).expect_rows(self._expected("xp", [xp]))


def remove_marked(service: Service, ids: Sequence[int], marker: str, batch: int) -> int:
    """Deletes the rows of `ids` whose name begins with `marker`. Returns how many."""
    removed = 0
    for i in range(0, len(ids), batch):
        asked = ids[i : i + batch]
        answer = service.read(Way("id", True), asked, use_cache=False)
        answer.expect_success()
        rows = [row for row in answer.rows if str(row.get("name")).startswith(marker)]
        own = [row["id"] for row in rows if row.get("id") in asked]
        if own:
            service.delete(own).expect_success()
        removed += len(own)
    return removed


def _cache(use_cache: bool) -> str:
    return "with cache" if use_cache else "without cache"
