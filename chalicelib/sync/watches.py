"""The table `watched`: which rows are watched, and what both sides had last of single ones.

People manage `watched` by requests or by plain SQL. So anything may stand in it: what makes no
sense is reported by the next run.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, TypeVar

from chalicelib.db import Database, Statement, guarded
from chalicelib.errors import HerocacheError
from chalicelib.sync.seen_ranges import SeenRange, SeenRanges, keys_of
from chalicelib.sync.unfinished_step import Prints
from chalicelib.tables import (
    DIRECTIONS,
    EVERY_ROW,
    FORMS,
    TO_DATABASE,
    Key,
    Table,
)

Value = TypeVar("Value")

PAGE_ROWS = 2_000
# In one statement.
MAX_KEYS = 500
MAX_GUARDED_KEYS = 1_000
# In the place of a direction, where a watch in direction TO_CACHE has ended: the public keys that
# followed their rows may still be there.
ENDED = "ended"
# The same of a watch on one row in direction TO_DATABASE, where a watch on every row goes on: the
# next run tells that one what both sides had last.
LEFT = "left"
# The time is in microseconds.
_NOT_SYNCED_SINCE = (
    "(synced_at IS NULL OR NOT synced_at > TIMESTAMPADD(MICROSECOND, %s, '1970-01-01'))"
)


class NotWatched(HerocacheError):
    """A watch has ended, or turned round, since a run read it. Nothing was written."""


class WatchedRow(NamedTuple):
    """`key` is EVERY_ROW for a watch on every row. `seen`: the digest of the row as both sides had
    it last; empty where that is not known. `unfinished`: see `UnfinishedStep`."""

    key: Key
    form: str
    direction: str
    seen: str
    unfinished: str
    synced_at: str | None


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
                    "SELECT row_key, seen, unfinished, CAST(synced_at AS CHAR) FROM watched"
                    f" WHERE table_name = %s{behind} AND row_key <= %s AND form = %s"
                    f" AND direction = %s AND row_key <> %s ORDER BY row_key LIMIT {PAGE_ROWS}",
                    (table.name, *values, last, form, direction, EVERY_ROW),
                )
            )
            page = [
                _watched_row(key, form, direction, seen, unfinished, synced_at)
                for text, seen, unfinished, synced_at in found
                for key in keys_of(table, [text])
            ]
            if page:
                yield page
            if len(found) < PAGE_ROWS:
                return
            after = found[-1][0]

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

    def moved(self, table: Table) -> list[WatchedRow]:
        """Watches on one row in direction TO_DATABASE that no run has looked at, and those that
        have LEFT."""
        condition = " AND table_name = %s AND (direction = %s OR direction = %s AND seen IS NULL"
        condition += " AND synced_at IS NULL) AND row_key <> %s"
        return [
            _watched_row(key, form, direction, *rest)
            for _, text, form, direction, *rest in self._pages(
                condition, (table.name, LEFT, TO_DATABASE, EVERY_ROW)
            )
            for key in keys_of(table, [text])
        ]

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
                    "SELECT table_name, row_key, form, direction, seen, unfinished,"
                    " CAST(synced_at AS CHAR) FROM watched WHERE (table_name > %s OR"
                    " (table_name = %s AND (row_key > %s OR (row_key = %s AND form > %s))))"
                    f"{condition}"
                    f" ORDER BY table_name, row_key, form LIMIT {PAGE_ROWS}",
                    (last[0], last[0], last[1], last[1], last[2], *values),
                )
            )
            yield from rows
            if len(rows) < PAGE_ROWS:
                return
            last = rows[-1][:3]

    def still(
        self,
        table: Table,
        form: str,
        direction: str,
        keys: Sequence[Key],
        *,
        with_every: bool = False,
    ) -> list[Key]:
        """Those of `keys` whose watch has this direction now; `with_every` row, those without a
        watch of their own. It may have begun, ended, or turned round, since a run read it. Two
        SELECTs at the most."""
        if not keys:
            return []
        select = "SELECT row_key, direction FROM watched WHERE table_name = %s AND form = %s"
        place = (table.name, form)
        answers = self._database.run((f"{select} LIMIT {MAX_KEYS}", place))
        if len(answers[0]) == MAX_KEYS:  # there are more: look up these keys
            answers = self._database.run(
                *[
                    (
                        f"{select} AND row_key IN (%s{',%s' * len(batch)})",
                        (*place, EVERY_ROW, *map(str, batch)),
                    )
                    for batch in batches(keys)
                ]
            )
        found = {text: own for answer in answers for text, own in answer}
        if found.keys() <= {EVERY_ROW}:
            return [*keys] if found.get(EVERY_ROW) == direction else []
        if with_every:
            is_still = found.get(EVERY_ROW) == direction
            return [key for key in keys if is_still and str(key) not in found]
        return [key for key in keys if found.get(str(key), found.get(EVERY_ROW)) == direction]

    def guard(
        self,
        table: Table,
        form: str,
        direction: str,
        keys: Sequence[Key],
        *,
        with_every: bool = False,
    ) -> Statement:
        """Fails, as NotWatched, unless all of `keys` are watched in this direction; `with_every`
        row, where they have no watch of their own. Where they are many also where another row of
        the table is watched in the other one, or is watched alone and no run has looked at it."""
        among = (
            "(SELECT COUNT(*) FROM watched WHERE table_name = %s AND form = %s"
            f" AND row_key IN ({','.join(['%s'] * len(keys))}) AND direction {{}} %s"
            # No key: it would count as one where blanks at the end make no difference.
            " AND RIGHT(row_key, 1) <> ' ')"
        )
        every = (
            "EXISTS (SELECT 1 FROM watched WHERE table_name = %s AND form = %s AND row_key = %s"
            " AND direction = %s)"
        )
        place: tuple[Key, ...] = (table.name, form)
        if len(keys) > MAX_GUARDED_KEYS:  # it would take as long as a tenth of what it guards
            new = f" OR synced_at IS NULL AND row_key <> '{EVERY_ROW}'" if with_every else ""
            others = (
                "NOT EXISTS (SELECT 1 FROM watched WHERE table_name = %s AND form = %s"
                f" AND (direction <> %s{new}))"
            )
            values = (*place, direction, *place, EVERY_ROW, direction)
            return f"SELECT {guarded('1', f'{others} AND {every}')}", values
        texts: list[Key] = [*map(str, keys)]
        if with_every:
            condition = f"{among.format('<>')} = 0 AND {every}"
            values = (*place, *texts, "", *place, EVERY_ROW, direction)
            return f"SELECT {guarded('1', condition)}", values
        condition = f"{among.format('<>')} = 0 AND ({every} OR {among.format('=')} = %s)"
        return (
            f"SELECT {guarded('1', condition)}",
            (
                *(*place, *texts, direction),
                *(*place, EVERY_ROW, direction),
                *(*place, *texts, direction, len(texts)),
            ),
        )

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

    def known(self, table: Table, form: str, keys: Sequence[Key]) -> SeenRange:
        """What is kept of these rows, where they are watched one by one."""
        seen: dict[Key, str] = {}
        unfinished: dict[Key, str] = {}
        for batch in batches(keys):
            condition, values = condition_of(table, form, [*map(str, batch)])
            [rows] = self._database.run(
                (f"SELECT row_key, seen, unfinished FROM watched{condition}", values)
            )
            for text, own_seen, own_unfinished in rows:
                for key in keys_of(table, [text]):
                    seen |= {key: own_seen} if own_seen else {}
                    unfinished |= {key: own_unfinished} if own_unfinished else {}
        return SeenRange(seen, unfinished)

    def found_equal(
        self, table: Table, form: str, found: SeenRange, read_at: int
    ) -> list[Statement]:
        """Statements that keep what a `watch` has found: rows in direction TO_DATABASE that stand
        under their public keys. `found.unfinished` was read before the rows; `read_at` is a time
        before them, in microseconds of the database's clock. Where a run has kept or begun
        something since, that stays. `synced_at` stays too, because no run has looked."""
        return [
            (
                f"UPDATE watched SET unfinished = NULLIF(unfinished, {cases}),"
                # Assignments run from left to right: this one sees what the first has set.
                f" seen = IF(unfinished IS NULL, {cases}, seen)"
                f"{condition} AND direction = %s AND {_NOT_SYNCED_SINCE}",
                (*unfinished, *seen, *place, TO_DATABASE, read_at),
            )
            for cases, seen, unfinished, condition, place in _both_by_key(
                table, form, found, list(found.seen)
            )
        ]

    def forgetting(
        self, table: Table, form: str, known: SeenRange, keys: Sequence[Key], read_at: int
    ) -> list[Statement]:
        """Statements that forget what both sides had last of these rows: there is no such time for
        `told` either. `known`: what was kept before. Where a run has kept or begun something since,
        that stays; `read_at` as in `found_equal`."""
        both = {key: f"{known.seen.get(key, '')} {known.unfinished.get(key, '')}" for key in keys}
        return [
            (
                f"UPDATE watched SET seen = '', unfinished = NULL{condition} AND direction = %s"
                f" AND {_NOT_SYNCED_SINCE}"
                f" AND CONCAT(COALESCE(seen, ''), ' ', COALESCE(unfinished, '')) = {cases}",
                (*place, TO_DATABASE, read_at, *texts),
            )
            for cases, texts, condition, place in _by_key(table, form, both)
        ]

    def begun(self, table: Table, form: str, prints: Prints) -> list[Statement]:
        """Statements that record what a step has begun, until that is kept."""
        return [
            (f"UPDATE watched SET unfinished = {cases}{condition}", (*texts, *place))
            for cases, texts, condition, place in _by_key(table, form, prints)
        ]

    def told(
        self, table: Table, form: str, known: SeenRange, keys: Sequence[Key]
    ) -> list[Statement]:
        """Statements that keep what is `known` of these keys, where nothing is known since they are
        watched one by one."""
        both = [key for key in keys if key in known.seen or key in known.unfinished]
        return [
            (
                f"UPDATE watched SET seen = NULLIF({cases}, ''),"
                f" unfinished = NULLIF({cases}, ''), synced_at = UTC_TIMESTAMP(6){condition}"
                " AND direction = %s AND seen IS NULL AND synced_at IS NULL",
                (*seen, *unfinished, *place, TO_DATABASE),
            )
            for cases, seen, unfinished, condition, place in _both_by_key(table, form, known, both)
        ]

    def forgetting_left(self, table: Table, form: str, keys: Sequence[Key]) -> list[Statement]:
        """Statements that forget watches that have LEFT."""
        return [
            (f"DELETE FROM watched{condition} AND direction = %s", (*values, LEFT))
            for batch in batches([*map(str, keys)])
            for condition, values in [condition_of(table, form, batch)]
        ]

    def looked_at_every_row(self, table: Table, form: str) -> Statement:
        return (
            "UPDATE watched SET synced_at = UTC_TIMESTAMP(6)"
            " WHERE table_name = %s AND form = %s AND row_key = %s",
            (table.name, form, EVERY_ROW),
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


def _watched_row(
    key: Key, form: str, direction: str, seen: str, unfinished: str, synced_at: str | None
) -> WatchedRow:
    return WatchedRow(key, form, direction, seen or "", unfinished or "", _iso(synced_at))


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
