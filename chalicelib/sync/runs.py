"""A run: its lease, and the record that tells what came of it.

Only one run is under way at a time. Its lease has a fencing token, a number that rises: each
transaction of a run checks it, so that a process which slept, and lost its lease meanwhile, writes
nothing.
"""

import json
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

from chalicelib.clocks import clocks, seconds_since
from chalicelib.db import MICROSECONDS_NOW, Change, Database, Statement, Transaction, guarded
from chalicelib.error_text import shown
from chalicelib.errors import HerocacheError, Superseded
from chalicelib.tables import DIRECTIONS, Key

# It is renewed when a third of it has passed.
LEASE_SECONDS = 30
# The lease of a run whose ranges wait for a function to begin. Less than the time to the next run.
HANDED_SECONDS = 600
# After this time a range sets no public key any more.
RANGE_SECONDS = 15
KEPT_DAYS = 30
# Of one step, while watches turn.
MAX_TRIES = 10
# Of one record.
MAX_DETAILS = 100

ANY_TURNS = -1
# Its values: the token, and the turns or ANY_TURNS.
IS_OURS = (
    f"(SELECT token = %s AND %s IN ({ANY_TURNS}, turns) FROM sync_lease WHERE name = 'sync'"
    " LOCK IN SHARE MODE)"
)
_EXPIRY = f"UTC_TIMESTAMP(6) + INTERVAL {LEASE_SECONDS} SECOND"
# The first token is the time: none comes back where the table was emptied.
_FIRST_LEASE = (
    "INTO sync_lease (name, token, holder, expires_at)"
    f" VALUES ('sync', {MICROSECONDS_NOW} DIV 1000, '', '2000-01-01')"
)


class Turned(HerocacheError):
    """A watch has turned or ended since a run listed the rows of a step. Nothing was committed."""

    def __init__(self) -> None:
        super().__init__("watches turn or end all the time; the next run goes on")


class Lease:
    """As a `work.Claim` it lets a change commit only while the lease is held. `turns`: how often
    watches had turned or ended when the caller listed rows. It commits nothing behind another
    turn."""

    def __init__(self, database: Database, token: int) -> None:
        self.token = token
        self._database = database
        self._renewed = clocks()

    @property
    def is_due(self) -> bool:
        """Whether it is time to renew it, also where this process slept."""
        return seconds_since(self._renewed) > LEASE_SECONDS / 3

    def renew(self) -> None:
        """Where that is due. Raises Superseded."""
        if self.is_due:
            self.run()

    def begin(self, transaction: Transaction, turns: int = ANY_TURNS) -> None:
        """Called before a change. Whoever turns a watch waits until that is committed."""
        error = Superseded if turns == ANY_TURNS else Turned
        transaction.queue_guard(self._guard(turns), error)

    def record(
        self, transaction: Transaction, change: Change, entries: Mapping[str, Sequence[Key]]
    ) -> None:
        """Called before its COMMIT."""

    def turns(self) -> int:
        """Raises Superseded."""
        self.run()
        [[(turns,)]] = self._database.run(("SELECT turns FROM sync_lease WHERE name = 'sync'", ()))
        return int(turns)

    def check(self, turns: int) -> None:
        """Raises Turned, where another turn has come. Whoever has the lease is not asked."""
        [rows] = self._database.run(("SELECT turns FROM sync_lease WHERE name = 'sync'", ()))
        if [*rows] != [(turns,)]:
            raise Turned

    def run(self, *statements: Statement, turns: int = ANY_TURNS) -> None:
        """Commit `statements` while the lease is held, and renew it where that is due. Raises
        Superseded; with `turns` Turned, also in its place."""
        self._commit(self._renewals() if self.is_due else (), statements, turns)

    def hand_over(self, *statements: Statement) -> None:
        """Commit `statements`, and leave the run to others: its lease stays for as long as they may
        take to begin. Raises Superseded."""
        self._commit([self._renewal(HANDED_SECONDS)], statements)

    def end(self, *statements: Statement) -> None:
        """Commit `statements`, which end the run. Several functions may end one at once: each waits
        here, since two with a shared lock could not both change the lease. Raises Superseded."""
        self._commit(self._renewals(), statements)

    def begin_record(self) -> None:
        """Begin the record of the run in `sync_runs`. Raises Superseded."""
        self.run(
            ("UPDATE sync_runs SET outcome = 'died' WHERE outcome = 'running'", ()),
            (
                "DELETE FROM sync_runs"
                f" WHERE started_at < UTC_TIMESTAMP() - INTERVAL {KEPT_DAYS} DAY",
                (),
            ),
            (
                "INSERT INTO sync_runs (id, started_at, outcome, details)"
                " VALUES (%s, UTC_TIMESTAMP(6), 'running', '[]')",
                (self.token,),
            ),
        )

    def _commit(
        self,
        renewals: Sequence[Statement],
        statements: Sequence[Statement],
        turns: int = ANY_TURNS,
    ) -> None:
        def apply(transaction: Transaction) -> None:
            transaction.queue(*renewals)
            self.begin(transaction, turns)
            transaction.queue(*statements)

        begun = clocks()
        self._database.transact(apply)
        if renewals:
            self._renewed = begun

    def _renewals(self) -> Sequence[Statement]:
        return [self._renewal(LEASE_SECONDS)]

    def _renewal(self, seconds: int) -> Statement:
        """A run that was handed over has its lease for longer already."""
        return (
            "UPDATE sync_lease SET expires_at = GREATEST(expires_at, UTC_TIMESTAMP(6)"
            f" + INTERVAL {seconds:d} SECOND) WHERE name = 'sync' AND token = %s",
            (self.token,),
        )

    def _guard(self, turns: int = ANY_TURNS) -> Statement:
        return f"SELECT {guarded('1', IS_OURS)}", (self.token, turns)


def take_lease(database: Database) -> Lease | None:
    """None where another run is under way. Raises DatabaseUnavailable."""
    holder = secrets.token_hex(8)
    *_, [(token, found)] = database.run(
        (f"INSERT IGNORE {_FIRST_LEASE}", ()),
        (
            f"UPDATE sync_lease SET token = token + 1, holder = %s, expires_at = {_EXPIRY}"
            " WHERE name = 'sync' AND expires_at <= UTC_TIMESTAMP(6)",
            (holder,),
        ),
        ("SELECT token, holder FROM sync_lease WHERE name = 'sync'", ()),
    )
    if found != holder:
        return None
    return Lease(database, int(token))


def turn(condition: str, values: Sequence[Key]) -> list[Statement]:
    """Statements before those that turn watches, or end them, where there are some under this
    `condition`. They wait for the transaction that a run has begun. What it lists from now on waits
    for theirs."""
    some = f"EXISTS (SELECT 1 FROM watched{condition})"
    return [
        # First the lock: behind it nobody else adds a watch.
        (f"INSERT {_FIRST_LEASE} ON DUPLICATE KEY UPDATE turns = turns", ()),
        (f"UPDATE sync_lease SET turns = turns + {some} WHERE name = 'sync'", values),
    ]


@dataclass
class Tally:
    """Of one direction: rows looked at, changed on either side, and reported."""

    looked: int = 0
    changed: int = 0
    reported: int = 0


def nobody(text: str) -> None:
    """Hears nothing."""


@dataclass
class Record:
    """What a run did. `outcome`: `done`; `idle`, where there was nothing to do; `overlap`, where
    another run is under way; `superseded`, where this one lost its lease; `failed`; `no cache`;
    `running`, where others work off so many `ranges`, and end it.
    `counted`: to how many rows it added what their write-behind counters had in Redis.
    `unrecorded`: by table, why changes by other clients of the database are not recorded there.
    `tell` hears of each row that is changed, `progress` of each range."""

    run: int | None = None
    outcome: str = "running"
    tallies: dict[str, Tally] = field(
        default_factory=lambda: {direction: Tally() for direction in DIRECTIONS}
    )
    details: list[dict[str, Any]] = field(default_factory=list)
    unrecorded: dict[str, str] = field(default_factory=dict)
    ranges: int = 0
    counted: int = 0
    started_at: str = field(default_factory=lambda: _now())
    finished_at: str | None = None
    tell: Callable[[str], None] = nobody
    progress: Callable[["Record"], None] = lambda record: None

    def report(self, direction: str, public_key: str, reason: str, **both: object) -> None:
        """A row that is not as somebody wants it, or a watch that cannot be kept."""
        if direction in self.tallies:
            self.tallies[direction].reported += 1
        if len(self.details) < MAX_DETAILS:
            shown_both = {
                name: value if value is None else _cut(value) for name, value in both.items()
            }
            self.details.append({"key": public_key, "reason": reason, **shown_both})
        self.tell(f"Report {public_key}: {reason}")

    def answer(self) -> dict[str, Any]:
        """As the function returns it."""
        return {
            "outcome": self.outcome,
            "run": self.run,
            "started_at": self.started_at,
            "finished_at": self.finished_at,
            **{direction: vars(tally) for direction, tally in self.tallies.items()},
            "details": self.details,
            "unrecorded": self.unrecorded,
            "ranges": self.ranges,
            **({"counted": self.counted} if self.counted else {}),
        }

    def end(self, outcome: str) -> "Record":
        self.outcome, self.finished_at = outcome, _now()
        return self

    def statements(self) -> list[Statement]:
        """What ends the run of this record: the lease is free, too."""
        counts = [
            (f"{direction}_{name}", count)
            for direction, tally in self.tallies.items()
            for name, count in vars(tally).items()
        ]
        names = ", ".join(f"{name} = %s" for name, _ in counts)
        assert self.run is not None
        return [
            (
                f"UPDATE sync_runs SET outcome = %s, finished_at = UTC_TIMESTAMP(6), details = %s,"
                f" {names} WHERE id = %s",
                (self.outcome, json.dumps(self.details), *[n for _, n in counts], self.run),
            ),
            (
                "UPDATE sync_lease SET expires_at = UTC_TIMESTAMP(6)"
                " WHERE name = 'sync' AND token = %s",
                (self.run,),
            ),
        ]


def _cut(value: object) -> object:
    text = json.dumps(value)
    return value if len(text) <= 2_000 else shown(text)


def _now() -> str:
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
