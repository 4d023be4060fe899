"""The table `watched`: which rows are watched, and what both sides had last of single ones.

People manage `watched` by requests or by plain SQL. So anything may stand in it: what makes no
sense is reported by the next run.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from chalicelib.db import Database, Statement
from chalicelib.sync.seen_ranges import SeenRange, SeenRanges, keys_of
from chalicelib.sync.unfinished_step import Prints
from chalicelib.tables import (
    DIRECTIONS,
    EVERY_ROW,
    FORMS,
    TO_CACHE,
    TO_DATABASE,
    Key,
    Table,
)

Value = TypeVar("Value")

PAGE_ROWS = 2_000
# In one statement.
MAX_KEYS = 500
MAX_LISTED_KEYS = 20_000
# In the place of a direction, where a watch in direction TO_CACHE has ended: the public keys that
# followed their rows may still be there.
ENDED = "ended"
# The same of a watch on one row in direction TO_DATABASE, where a watch on every row goes on: the
# next run tells that one what both sides had last.
LEFT = "left"
_COLUMNS = "seen, unfinished, CAST(synced_at AS CHAR), beginning, row_then"
# Those that a run looks at.
_IS_READY = f"(beginning IS NULL OR direction <> '{TO_DATABASE}')"


class WatchedRow(NamedTuple):
    """`key` is EVERY_ROW for a watch on every row. `seen`: the digest of the row as both sides had
    it last; empty where that is not known. `unfinished`: see `UnfinishedStep`. `beginning`: not
    None where the watch has begun, or turned, and it is not recorded what both sides have since;
    `row_then` is the digest of the row just before: see `watch_beginnings`."""

    key: Key
    form: str
    direction: str
    seen: str
    unfinished: str
    synced_at: str | None
    beginning: int | None
    row_then: str

    @property
    def is_ready(self) -> bool:
        """Whether a run may look at it."""
        return self.beginning is None or self.direction == TO_CACHE or self.key == EVERY_ROW


class Watches:
    """`ranges`: what a run keeps where every row is watched."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.ranges = SeenRanges(database)

    def of(self, table: Table) -> list[WatchedRow]:
        """All watches of the table that make sense, by key. Raises DatabaseUnavailable."""
        rows = self._of(table)
        every = [row for row in rows if row.key == EVERY_ROW]
        return every + sorted(row for row in rows if row.key != EVERY_ROW)

    def between(
        self, table: Table, form: str, direction: str, after: str, last: str
    ) -> Iterator[list[WatchedRow]]:
        """Rows that are watched one by one, page by page: those with texts of keys behind `after`
        (empty: from the first on) and up to `last`, in the order of these texts."""
        while True:
            # A control character at the beginning comes before an empty text.
            behind, values = (" AND row_key > %s", [after]) if after else ("", [])
            [found] = self._database.run(
                (
                    f"SELECT row_key, {_COLUMNS} FROM watched"
                    f" WHERE table_name = %s{behind} AND row_key <= %s AND form = %s"
                    f" AND direction = %s AND row_key <> %s AND {_IS_READY}"
                    f" ORDER BY row_key LIMIT {PAGE_ROWS}",
                    (table.name, *values, last, form, direction, EVERY_ROW),
                )
            )
            page = [
                _watched_row(key, form, direction, *rest)
                for text, *rest in found
                for key in keys_of(table, [text])
            ]
            if page:
                yield page
            if len(found) < PAGE_ROWS:
                return
            after = found[-1][0]

    def again(
        self, table: Table, form: str, direction: str, keys: Sequence[Key]
    ) -> list[WatchedRow]:
        """Those of these rows that are watched one by one, and in this direction still."""
        watched = self._these(table, form, keys, f"direction = %s AND {_IS_READY}", direction)
        order = {key: at for at, key in enumerate(keys)}
        return sorted(watched, key=lambda row: order[row.key])

    def is_any(self, table: Table, form: str, direction: str, keys: Sequence[Key]) -> bool:
        """Whether one of these rows may be watched in this direction, alone or with every row. Also
        where so many are watched alone that it is not worth while to look. One SELECT."""
        [rows] = self._database.run(
            (
                "SELECT row_key, direction FROM watched WHERE table_name = %s AND form = %s"
                f" LIMIT {MAX_KEYS}",
                (table.name, form),
            )
        )
        found = {text for text, own in rows if own == direction}
        return len(rows) == MAX_KEYS or not found.isdisjoint([EVERY_ROW, *map(str, keys)])

    def among(self, table: Table, form: str, keys: Sequence[Key]) -> set[Key]:
        """Which of these keys are watched one by one."""
        found: set[Key] = set()
        for batch in batches(keys):
            [rows] = self._database.run(
                (
                    "SELECT row_key FROM watched WHERE table_name = %s AND form = %s"
                    f" AND row_key IN ({','.join(['%s'] * len(batch))}) AND row_key <> %s",
                    (table.name, form, *map(str, batch), EVERY_ROW),
                )
            )
            found |= set(keys_of(table, [text for (text,) in rows]))
        return found

    def of_every_row(self, table: Table, form: str) -> str:
        """The direction of the watch on every row; empty where there is none."""
        condition, values = condition_of(table, form, [EVERY_ROW])
        [rows] = self._database.run((f"SELECT direction FROM watched{condition}", values))
        return next((direction for (direction,) in rows), "")

    def alone(self, table: Table, form: str) -> set[Key] | None:
        """The rows that are watched one by one; None where they are too many to list."""
        [rows] = self._database.run(
            (
                "SELECT row_key FROM watched WHERE table_name = %s AND form = %s AND row_key <> %s"
                f" LIMIT {MAX_LISTED_KEYS + 1}",
                (table.name, form, EVERY_ROW),
            )
        )
        found = {*keys_of(table, [text for (text,) in rows])}
        return found if len(rows) <= MAX_LISTED_KEYS else None

    def invalid(self, tables: Mapping[str, Table]) -> Iterator[tuple[str, str]]:
        """What makes no sense in `watched`: where it stands, and why. One SELECT a page."""
        for name, text, form, direction, *_ in self._pages("", ()):
            place = f"watched {name} {text} {form}"
            if name not in tables:
                yield place, f"there is no table {name}; there are {', '.join(tables)}"
            elif direction not in (ENDED, LEFT) and (
                why := _fault(tables[name], text, form, direction)
            ):
                yield place, why

    def left(self, table: Table) -> list[WatchedRow]:
        """Watches that have LEFT."""
        return self._where(table, "direction = %s", LEFT)

    def begun_or_turned(
        self, table: Table, form: str, keys: Sequence[Key] | None
    ) -> list[WatchedRow]:
        """Those of the watches on rows with `keys` (None: of all) in direction TO_DATABASE that
        have begun or turned, where it is not recorded what both sides have since."""
        condition = "direction = %s AND beginning IS NOT NULL AND row_key <> %s"
        if keys is None:
            values = (TO_DATABASE, EVERY_ROW, form)
            return self._where(table, f"{condition} AND form = %s", *values)
        return self._these(table, form, keys, condition, TO_DATABASE, EVERY_ROW)

    def _where(self, table: Table, condition: str, *values: Key) -> list[WatchedRow]:
        pages = self._pages(f" AND table_name = %s AND {condition}", (table.name, *values))
        return [
            _watched_row(key, form, direction, *rest)
            for _, text, form, direction, *rest in pages
            for key in keys_of(table, [text])
        ]

    def _these(
        self, table: Table, form: str, keys: Sequence[Key], condition: str, *values: Key
    ) -> list[WatchedRow]:
        watched = []
        for batch in batches([*map(str, keys)]):
            place, texts = condition_of(table, form, batch)
            select = f"SELECT row_key, direction, {_COLUMNS} FROM watched{place} AND {condition}"
            [rows] = self._database.run((select, (*texts, *values)))
            watched += [
                _watched_row(key, form, *rest)
                for text, *rest in rows
                for key in keys_of(table, [text])
            ]
        return watched

    def _of(self, table: Table) -> list[WatchedRow]:
        return [
            _watched_row(key, form, direction, *rest)
            for _, text, form, direction, *rest in self._pages(
                " AND table_name = %s", (table.name,)
            )
            if not _fault(table, text, form, direction)
            for key in keys_of(table, [text])
        ]

    def _pages(self, condition: str, values: Sequence[Key]) -> Iterator[Sequence[str]]:
        last: Sequence[Key] = ("", "", "")
        while True:
            [rows] = self._database.run(
                (
                    f"SELECT table_name, row_key, form, direction, {_COLUMNS} FROM watched WHERE"
                    " (table_name > %s OR (table_name = %s AND (row_key > %s OR (row_key = %s"
                    f" AND form > %s)))){condition}"
                    f" ORDER BY table_name, row_key, form LIMIT {PAGE_ROWS}",
                    (last[0], last[0], last[1], last[1], last[2], *values),
                )
            )
            yield from rows
            if len(rows) < PAGE_ROWS:
                return
            last = rows[-1][:3]

    # --- what a run keeps -------------------------------------------------------------------------

    def kept(
        self, table: Table, form: str, direction: str, seen: Mapping[Key, str]
    ) -> list[Statement]:
        """Statements that keep what both sides have now of rows that are watched one by one, in
        this direction still: what another one has recorded meanwhile stays. They bring no watch
        back that has ended."""
        return [
            (
                f"UPDATE watched SET seen = NULLIF({cases}, ''), unfinished = NULL,"
                f" synced_at = UTC_TIMESTAMP(6){condition} AND direction = %s",
                (*texts, *place, direction),
            )
            for cases, texts, condition, place in _by_key(table, form, seen)
        ]

    def begun(self, table: Table, form: str, prints: Prints) -> list[Statement]:
        """Statements that record what a step has begun, until that is kept."""
        return [
            (f"UPDATE watched SET unfinished = {cases}{condition}", (*texts, *place))
            for cases, texts, condition, place in _by_key(table, form, prints)
        ]

    def recorded(
        self, table: Table, form: str, rows: Sequence[WatchedRow], known: SeenRange
    ) -> list[Statement]:
        """Statements that keep what is `known` of the watches of these rows since they have begun
        or turned; where one has done so once more, its next record counts."""
        return [
            (
                f"UPDATE watched SET seen = NULLIF({cases}, ''),"
                f" unfinished = NULLIF({cases}, ''), beginning = NULL, row_then = NULL{condition}"
                " AND direction = %s AND beginning = %s",
                (*seen, *unfinished, *place, TO_DATABASE, beginning),
            )
            for beginning in {row.beginning for row in rows if row.beginning is not None}
            for cases, seen, unfinished, condition, place in _both_by_key(
                table, form, known, [row.key for row in rows if row.beginning == beginning]
            )
        ]

    def recorded_unknown(self, table: Table, form: str) -> Statement:
        """The same for watches of single rows that plain SQL has put there: nothing is known."""
        return (
            "UPDATE watched SET beginning = NULL WHERE table_name = %s AND form = %s"
            " AND direction = %s AND beginning = 0 AND seen IS NULL AND unfinished IS NULL"
            " AND row_key <> %s",
            (table.name, form, TO_DATABASE, EVERY_ROW),
        )

    def forgetting_left(self, table: Table, form: str, keys: Sequence[Key]) -> list[Statement]:
        """Statements that forget watches that have LEFT."""
        return [
            (f"DELETE FROM watched{condition} AND direction = %s", (*values, LEFT))
            for batch in batches([*map(str, keys)])
            for condition, values in [condition_of(table, form, batch)]
        ]

    def looked_at_every_row(self, table: Table, form: str, direction: str) -> Statement:
        return (
            "UPDATE watched SET synced_at = UTC_TIMESTAMP(6)"
            " WHERE table_name = %s AND form = %s AND row_key = %s AND direction = %s",
            (table.name, form, EVERY_ROW, direction),
        )


def _fault(table: Table, text: str, form: str, direction: str) -> str:
    """Why a watch makes no sense; empty where it does."""
    if not table.public:
        return f"{table.name} has no public keys"
    if form not in FORMS:
        return f"there is no form {form!r}; there are {', '.join(FORMS)}"
    if direction not in DIRECTIONS:  # also one that has ENDED, or LEFT
        return f"there is no direction {direction!r}; there are {', '.join(DIRECTIONS)}"
    if text != EVERY_ROW and not list(keys_of(table, [text])):
        return f"{text!r} is no {table.key.name}"
    return ""


def _watched_row(key: Key, form: str, direction: str, *others: Any) -> WatchedRow:
    seen, unfinished, synced_at, beginning, row_then = others
    known = seen or "", unfinished or "", _iso(synced_at)
    return WatchedRow(key, form, direction, *known, beginning, row_then or "")


def condition_of(table: Table, form: str, texts: Sequence[str]) -> Statement:
    """The condition of the watches on these rows."""
    marks = ",".join(["%s"] * len(texts))
    condition = f" WHERE table_name = %s AND form = %s AND row_key IN ({marks})"
    return condition, (table.name, form, *texts)


def _by_key(
    table: Table, form: str, texts: Mapping[Key, str]
) -> Iterator[tuple[str, Sequence[Key], str, Sequence[Key]]]:
    """For an UPDATE of rows that are watched one by one: the text of each, and the condition; each
    with its values."""
    for batch in batches(list(texts)):
        keys = [str(key) for key in batch]
        cases = " ".join(["WHEN %s THEN %s"] * len(batch))
        values = [value for key in batch for value in (str(key), texts[key])]
        condition, place = condition_of(table, form, keys)
        yield f"CASE row_key {cases} END", values, condition, place


def _both_by_key(
    table: Table, form: str, known: SeenRange, keys: Sequence[Key]
) -> Iterator[tuple[str, Sequence[Key], Sequence[Key], str, Sequence[Key]]]:
    """The same for both that is known of each row: the expression, its values for what was seen and
    for what is unfinished, the condition and its values. Empty where nothing is known."""
    for batch in batches(keys):
        cases = " ".join(["WHEN %s THEN %s"] * len(batch))
        seen, unfinished = (
            [v for key in batch for v in (str(key), own.get(key, ""))] for own in known
        )
        condition, place = condition_of(table, form, [*map(str, batch)])
        yield f"CASE row_key {cases} END", seen, unfinished, condition, place


def batches(items: Sequence[Value]) -> list[Sequence[Value]]:
    return [items[start : start + MAX_KEYS] for start in range(0, len(items), MAX_KEYS)]


def _iso(text: str | None) -> str | None:
    return f"{text[:10]}T{text[11:19]}Z" if text else None
