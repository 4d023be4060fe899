"""The table `sync_ranges`: ranges of rows that a run has handed to the function `sync_range`.

A range belongs to the function that has claimed it, until it is done or its claim expires. Each
transaction of the holder checks that the range is still its own, and that no later run has begun.
"""

import json
import math
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

from chalicelib.db import Database, Statement, guarded
from chalicelib.sync.runs import (
    ANY_TURNS,
    IS_OURS,
    LEASE_SECONDS,
    MAX_DETAILS,
    Lease,
    Record,
    Tally,
)

WAITING, DONE = "waiting", "done"

_EXPIRY = f"UTC_TIMESTAMP(6) + INTERVAL {LEASE_SECONDS} SECOND"
_TOKEN = "(SELECT token FROM sync_lease WHERE name = 'sync')"


@dataclass(frozen=True)
class RangeRows:
    """The rows of `table` behind the key `after` (empty: from the first row on) and up to the key
    `last` (None: to the end). `is_every`: all of these rows but those that are watched one by one.
    Otherwise only these, in the order of the texts of their keys."""

    table: str
    form: str
    direction: str
    after: str
    last: str | None
    is_every: bool


NOTHING = RangeRows("", "", "", "", "", is_every=False)


@dataclass
class RangeProgress:
    """What was done so far. `names`: as `Note` has them, by table. `server`: the Redis that the run
    began with, where the run itself did it; `is_failed`: whether it failed at a table."""

    tallies: dict[str, dict[str, int]] = field(default_factory=dict)
    details: list[dict[str, Any]] = field(default_factory=list)
    names: dict[str, Sequence[str] | None] = field(default_factory=dict)
    server: str = ""
    is_failed: bool = False

    @classmethod
    def of(
        cls,
        record: Record,
        names: Mapping[str, Sequence[str] | None],
        server: str = "",
        *,
        is_failed: bool = False,
    ) -> "RangeProgress":
        tallies = {direction: vars(tally) for direction, tally in record.tallies.items()}
        return cls(tallies, record.details, dict(names), server, is_failed)

    def add_to(self, record: Record) -> None:
        for direction, counts in self.tallies.items():
            tally = vars(record.tallies[direction])
            record.tallies[direction] = Tally(**{n: tally[n] + counts[n] for n in tally})
        record.details = [*record.details, *self.details][:MAX_DETAILS]


class Range(NamedTuple):
    """A row of the table. `after`: what is left to do is behind this key."""

    number: int
    work: RangeRows
    after: str
    outcome: str
    did: RangeProgress


class RangeLease(Lease):
    """The lease of one range, within the lease of its run. Its first transaction renews both."""

    def __init__(self, database: Database, run: int, number: int, holder: str) -> None:
        super().__init__(database, run)
        self._renewed = (-math.inf, -math.inf)
        self._place = (run, number, holder)
        self.holder = holder

    def progress(self, after: str, did: RangeProgress, outcome: str = WAITING) -> list[Statement]:
        """Statements that record how far the range is done."""
        return [
            (
                "UPDATE sync_ranges SET after_key = %s, did = %s, outcome = %s"
                " WHERE run = %s AND number = %s AND holder = %s",
                (after, json.dumps(asdict(did)), outcome, *self._place),
            )
        ]

    def release(self) -> Statement:
        """Ends the claim, so that another function can begin at once."""
        return (
            "UPDATE sync_ranges SET expires_at = UTC_TIMESTAMP(6)"
            " WHERE run = %s AND number = %s AND holder = %s",
            self._place,
        )

    def _renewals(self) -> Sequence[Statement]:
        own = (
            f"UPDATE sync_ranges SET expires_at = {_EXPIRY}"
            " WHERE run = %s AND number = %s AND holder = %s",
            self._place,
        )
        return [*super()._renewals(), own]

    def _guard(self, turns: int = ANY_TURNS) -> Statement:
        """Locks the lease of the run first, as all do, and the range as who will change it."""
        is_ours = (
            f"{IS_OURS} AND (SELECT COUNT(*) FROM sync_ranges WHERE run = %s AND number = %s"
            f" AND holder = %s AND outcome = '{WAITING}' FOR UPDATE) = 1"
        )
        return f"SELECT {guarded('1', is_ours)}", (self.token, turns, *self._place)


class Claim(NamedTuple):
    """The result of an attempt to claim a range. `lease`: set where the caller has the range now.
    `is_over`: nobody has anything to do any more, because the range `is_done` or a later run has
    begun. `run_outcome`: of its run, empty where there is no record."""

    range: Range | None
    lease: RangeLease | None
    is_over: bool
    is_done: bool
    run_outcome: str


def claim(database: Database, run: int, number: int) -> Claim:
    """One round trip. Raises DatabaseUnavailable."""
    holder = secrets.token_hex(8)
    _, found = database.run(
        (
            f"UPDATE sync_ranges SET holder = %s, expires_at = {_EXPIRY}"
            f" WHERE run = %s AND number = %s AND outcome = '{WAITING}'"
            f" AND expires_at <= UTC_TIMESTAMP(6) AND run = {_TOKEN}",
            (holder, run, number),
        ),
        (
            f"SELECT number, work, after_key, outcome, did, holder, run = {_TOKEN},"
            " (SELECT outcome FROM sync_runs WHERE id = run) FROM sync_ranges"
            " WHERE run = %s AND number = %s",
            (run, number),
        ),
    )
    if not found:
        return Claim(None, None, True, False, "")
    *row, held_by, is_latest, run_outcome = found[0]
    own = _range(row)
    is_done = own.outcome == DONE
    lease = None
    if held_by == holder and not is_done:
        lease = RangeLease(database, run, number, holder)
    return Claim(own, lease, is_done or not is_latest, is_done, run_outcome or "")


def ranges_of(database: Database, run: int) -> list[Range]:
    """All of a run, by number. One SELECT."""
    [rows] = database.run(
        (
            "SELECT number, work, after_key, outcome, did FROM sync_ranges WHERE run = %s"
            " ORDER BY number",
            (run,),
        )
    )
    return [_range(row) for row in rows]


def insert(run: int, number: int, work: RangeRows, outcome: str, did: RangeProgress) -> Statement:
    texts = json.dumps(asdict(work)), work.after, outcome, json.dumps(asdict(did))
    return (
        "INSERT INTO sync_ranges (run, number, work, after_key, outcome, did)"
        " VALUES (%s, %s, %s, %s, %s, %s)",
        (run, number, *texts),
    )


def forget_before(run: int) -> Statement:
    return "DELETE FROM sync_ranges WHERE run < %s", (run,)


def names_of(ranges: Sequence[Range]) -> Iterator[tuple[str, Sequence[str] | None]]:
    """For each table: the names of the parts of its note; None where one range could not write its
    part."""
    for table in dict.fromkeys(name for each in ranges for name in each.did.names):
        parts = [each.did.names[table] for each in ranges if table in each.did.names]
        sure = [part for part in parts if part is not None]
        whole = [name for part in sure for name in part]
        yield table, whole if len(sure) == len(parts) else None


def _range(row: Sequence[Any]) -> Range:
    number, work, after, outcome, did = row
    return Range(
        int(number), RangeRows(**json.loads(work)), after, outcome, RangeProgress(**json.loads(did))
    )
